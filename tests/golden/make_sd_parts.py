#!/usr/bin/env python3
"""What Stable Diffusion's networks are given beside their weights: LoRAs, single files, ControlNets, tiles, learned words.

  make_sd_parts.py [DIR]     writes DIR/sd-parts; DIR is this script's folder by default, where the networks of make.py and
                             of recognise/make.py lie, which are the base models here

Every result is diffusers', peft's or transformers' own, from the same base models that the tests load. Single files are
not stored: a table of names says of which tensors of the base models they are made, and is checked with diffusers'
converters and with `from_single_file`.

Needs torch, diffusers, transformers, peft, DeepCache and safetensors (made with torch 2.15, diffusers 0.42, transformers 5.24,
peft 0.21, DeepCache 0.1.1). The same versions give the same bytes.
"""
import json, pathlib, sys, tempfile, types
import torch
import transformers.integrations.peft
from DeepCache.extension.deepcache import DeepCacheSDHelper
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
from diffusers.loaders import single_file_utils as single
from diffusers.utils import set_weights_and_activate_adapters
from peft import LoraConfig, inject_adapter_in_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from make import randn, randomised

torch.set_num_threads(1)
# transformers 5.24 asks for a peft that is not published yet; what is done with it here is checked against the formula.
transformers.integrations.peft.check_peft_version = lambda min_version: None


def write_json(path, value, **kwargs):
    path.write_text(json.dumps(value, **kwargs) + "\n")


def contiguous(tensors):
    return {name: value.detach().contiguous().clone() for name, value in tensors.items()}


def weights(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {name: value for file in files if file.name != "io.safetensors" for name, value in load_file(file).items()}


def text_encoder(folder):
    config = json.loads((folder / "config.json").read_text())
    keep = ["hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads",
            "num_hidden_layers", "projection_dim", "vocab_size", "eos_token_id", "bos_token_id", "pad_token_id", "layer_norm_eps"]
    model = CLIPTextModelWithProjection(CLIPTextConfig(**{key: config[key] for key in keep}))
    state = {name if name.startswith("text_") else f"text_model.{name}": value.float() for name, value in weights(folder).items()}
    own = model.state_dict()
    model.load_state_dict({name: state[name] for name in own})
    return model.eval()


def unet_out(unet, io):
    added = None
    if "time_ids" in io:
        added = {"text_embeds": io["pooled_text"], "time_ids": io["time_ids"]}
    with torch.no_grad():
        return unet(io["x"], io["timesteps"], encoder_hidden_states=io["text"], added_cond_kwargs=added).sample


def text_out(encoder, ids):
    with torch.no_grad():
        return encoder(input_ids=ids.long()).last_hidden_state


# ---------------------------------------------------------------------------------------------------------------- LoRA

def trained(model, seed, **config):
    """Random adapters in a model, as after a training: both matrices differ from zero."""
    inject_adapter_in_model(LoraConfig(init_lora_weights=False, **config), model, adapter_name="made")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            if ".lora_" in name:
                value.copy_((0.5 * torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5).half().float())
    return {name.replace(".made.", "."): value.half() for name, value in model.state_dict().items() if ".lora_" in name}


def in_order(config):
    """peft's configuration; of its own it writes the layers' names in any order."""
    return {**LoraConfig(**config).to_dict(), "target_modules": sorted(config["target_modules"])}


def manual(state, lora, scale_of):
    """The merge written out: W + scale * B A."""
    state = {name: value.clone() for name, value in state.items()}
    for name, down in lora.items():
        if ".lora_A." in name:
            module = name.split(".lora_A.")[0]
            up = lora[name.replace("lora_A", "lora_B")].float()
            weight = state[f"{module}.weight"]
            change = up.flatten(1) @ down.float().flatten(1)
            weight += scale_of(module, down.shape[0]) * change.reshape(weight.shape)
    return state


def near(a, b, limit=1e-5):
    error = ((a - b).norm() / b.norm()).item()
    assert error < limit, error


def loras(root, dir):
    sd1, sdxl, te = root / "sd1", root / "sdxl", root / "recognise/text-encoder"
    unet = lambda folder: UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    io, io_xl, ids = load_file(sd1 / "io.safetensors"), load_file(sdxl / "io.safetensors"), load_file(te / "io.safetensors")["ids"]
    for values in (io, io_xl):
        values["timesteps"] = values["timesteps"].float()
    results = {}

    # PEFT's names with its configuration in the metadata; ranks and alphas unlike, linear maps and convolutions.
    config = dict(r=3, lora_alpha=2, target_modules=["to_q", "to_k", "to_out.0", "conv1", "proj_in", "time_emb_proj", "ff.net.0.proj", "conv_in"],
                  rank_pattern={"conv1": 2, "to_k": 5}, alpha_pattern={"to_k": 8, "conv_in": 1})
    text_config = dict(r=2, lora_alpha=3, target_modules=["q_proj", "out_proj", "fc1"])
    peft_unet, peft_text = trained(unet(sd1), 1, **config), trained(text_encoder(te), 2, **text_config)
    StableDiffusionPipeline.save_lora_weights(dir, unet_lora_layers=contiguous(peft_unet), text_encoder_lora_layers=contiguous(peft_text),
        weight_name="peft.safetensors", unet_lora_adapter_metadata=in_order(config),
        text_encoder_lora_adapter_metadata=in_order(text_config))
    with safe_open(dir / "peft.safetensors", "pt") as file:
        metadata = file.metadata()
    # Of several entries in the metadata, the order in the file changes from run to run.
    save_file(load_file(dir / "peft.safetensors"), dir / "peft.safetensors", metadata={"lora_adapter_metadata": metadata["lora_adapter_metadata"]})

    # The names that diffusers' training scripts write: no alpha.
    plain = trained(unet(sd1), 3, r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    plain_text = trained(text_encoder(te), 4, r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    named = {f"unet.{name}": value for name, value in plain.items()}
    named = {name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): value for name, value in named.items()}
    for name, value in plain_text.items():
        named[f"text_encoder.{name}".replace(".lora_A.", ".lora_linear_layer.down.").replace(".lora_B.", ".lora_linear_layer.up.")] = value
    save_file(contiguous(named), dir / "diffusers.safetensors", metadata={"format": "pt"})

    # kohya's names, with an alpha for each layer.
    kohya = {}
    kohya_unet = trained(unet(sd1), 5, r=2, lora_alpha=2, target_modules=["to_v", "to_q", "ff.net.2", "conv2", "proj_out"], rank_pattern={"conv2": 4})
    kohya_text = trained(text_encoder(te), 6, r=2, lora_alpha=2, target_modules=["k_proj", "out_proj", "fc2"])
    for prefix, part in (("lora_unet_", kohya_unet), ("lora_te_", kohya_text)):
        for name, value in part.items():
            module, kind = name.split(".lora_")
            key = prefix + module.replace(".", "_")
            kohya[f"{key}.lora_{'down' if kind[0] == 'A' else 'up'}.weight"] = value
            kohya[f"{key}.alpha"] = torch.tensor(1.0 if "conv2" in module else 0.5)
    save_file(contiguous(kohya), dir / "kohya.safetensors", metadata={"ss_network_dim": "2"})

    def stacked(names_and_weights):
        model, encoder = unet(sd1), text_encoder(te)
        names = []
        for name, _ in names_and_weights:
            state, alphas, metadata = StableDiffusionLoraLoaderMixin.lora_state_dict(dir, weight_name=f"{name}.safetensors",
                unet_config=model.config, return_lora_metadata=True)
            StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, alphas, model, adapter_name=name, metadata=metadata)
            StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(state, alphas, encoder, adapter_name=name, metadata=metadata)
            names.append(name)
        scales = [weight for _, weight in names_and_weights]
        set_weights_and_activate_adapters(model, names, scales)
        set_weights_and_activate_adapters(encoder, names, scales)
        return unet_out(model, io), text_out(encoder, ids)

    def check(name, unet_lora, text_lora, unet_scale, text_scale):
        """The file's own meaning, written out, is what diffusers makes of it."""
        model, encoder = unet(sd1), text_encoder(te)
        model.load_state_dict(manual(model.state_dict(), unet_lora, unet_scale))
        encoder.load_state_dict(manual(encoder.state_dict(), text_lora, text_scale))
        near(results[f"{name}.unet"], unet_out(model, io))
        near(results[f"{name}.text"], text_out(encoder, ids))

    def written_out(base, names_and_weights, loras):
        """W + weight * scale * B A, one after another."""
        state = base.state_dict()
        for name, weight in names_and_weights:
            lora, scale_of = loras[name]
            state = manual(state, lora, lambda module, rank: weight * scale_of(module, rank))
        base.load_state_dict(state)
        return base

    peft_scale = lambda module, rank: {"to_k": 8, "conv_in": 1}.get(module.split(".")[-1], 2) / rank
    kohya_scale = lambda module, rank: (1.0 if "conv2" in module else 0.5) / rank
    unet_loras = {"peft": (peft_unet, peft_scale), "diffusers": (plain, lambda *_: 1.0), "kohya": (kohya_unet, kohya_scale)}
    text_loras = {"peft": (peft_text, lambda _, rank: 3 / rank), "diffusers": (plain_text, lambda *_: 1.0), "kohya": (kohya_text, kohya_scale)}
    for name in ("peft", "diffusers", "kohya"):
        one = [(name, 1.0)]
        results[f"{name}.unet"], results[f"{name}.text"] = stacked(one)
        near(results[f"{name}.unet"], unet_out(written_out(unet(sd1), one, unet_loras), io))
        near(results[f"{name}.text"], text_out(written_out(text_encoder(te), one, text_loras), ids))
    stack = [("peft", 0.7), ("kohya", -0.4), ("diffusers", 1.3)]
    results["stack.unet"], _ = stacked(stack)
    near(results["stack.unet"], unet_out(written_out(unet(sd1), stack, unet_loras), io))
    # transformers starts a text encoder's first adapters anew when it loads the next ones: the formula it is.
    results["stack.text"] = text_out(written_out(text_encoder(te), stack, text_loras), ids)

    # kohya's names over the original UNet, as its script for SDXL writes them.
    model = unet(sdxl)
    lora = trained(model, 7, r=2, lora_alpha=2, target_modules=["to_q", "to_out.0", "conv1", "conv_shortcut", "time_emb_proj", "conv_in", "conv_out",
                   "downsamplers.0.conv", "upsamplers.0.conv", "proj_in"])
    original = {}
    names = {module: unet_name(f"{module}.weight", 1).removesuffix(".weight").replace(".", "_") for module in {name.split(".lora_")[0] for name in lora}}
    for name, value in lora.items():
        module, kind = name.split(".lora_")
        key = f"lora_unet_{names[module]}"
        original[f"{key}.lora_{'down' if kind[0] == 'A' else 'up'}.weight"] = value
        original[f"{key}.alpha"] = torch.tensor(1.5)
    save_file(contiguous(original), dir / "original.safetensors")
    model = unet(sdxl)
    state, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(dir, weight_name="original.safetensors", unet_config=model.config)
    StableDiffusionXLLoraLoaderMixin.load_lora_into_unet(state, alphas, model, adapter_name="original")
    merged = unet(sdxl)
    merged.load_state_dict(manual(merged.state_dict(), lora, lambda _, rank: 1.5 / rank))
    results["original.unet"] = unet_out(merged, io_xl)
    near(results["original.unet"], unet_out(model, io_xl))
    save_file(contiguous(results), dir / "io.safetensors")


# --------------------------------------------------------------------------------------------------------- single files

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}


def unet_name(name, layers, has_attention=lambda block: True):
    """The original name of a UNet's weight: the way back of convert_ldm_unet_checkpoint."""
    fixed = {v: k for k, v in single.DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"].items()}
    fixed = {**single.DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"], **single.DIFFUSERS_TO_LDM_MAPPING["unet"]["addition_embed_type"]}
    if name in fixed:
        return fixed[name]
    side, block, kind, i, *rest = name.split(".")
    if side == "mid_block":
        kind, i, rest = block, kind, [i, *rest]
    i, step = int(i), layers + 1
    if kind == "resnets":
        rest = [RESNET[rest[0]], *rest[1:]]
    rest = ".".join(rest)
    if side == "mid_block":
        return f"middle_block.{2 * i + (kind == 'attentions')}.{rest}"
    block = int(block)
    if side == "down_blocks":
        at = 1 + block * step + i
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * step}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{at}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{block * step + layers}.{2 if has_attention(block) else 1}.{rest}"
    return f"output_blocks.{block * step + i}.{int(kind == 'attentions')}.{rest}"


def vae_name(name, levels):
    """The way back of convert_ldm_vae_checkpoint."""
    if name in single.DIFFUSERS_TO_LDM_MAPPING["vae"]:
        return single.DIFFUSERS_TO_LDM_MAPPING["vae"][name]
    for new, old in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        name = name.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
    for i in (0, 1):
        name = name.replace(f"mid_block.resnets.{i}.", f"mid.block_{i + 1}.")
    for i in range(levels):
        name = name.replace(f"down_blocks.{i}.", f"down.{i}.").replace(f"up_blocks.{i}.", f"up.{levels - 1 - i}.")
    name = name.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")
    return name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")


def open_clip_rows(names):
    """The rows of the table for a text encoder under OpenCLIP's names."""
    rows = []
    for name in names:
        inner = name if name.startswith("text_") else f"text_model.{name}"
        if inner == "text_projection.weight":
            rows.append(("text_projection", [name], True))
            continue
        fixed = {new: old for new, old in single.DIFFUSERS_TO_LDM_MAPPING["openclip"]["layers"].items()}
        if inner in fixed:
            rows.append((fixed[inner], [name], False))
            continue
        _, _, _, layer, *rest = inner.split(".")
        rest = ".".join(rest)
        for new, old in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("self_attn", "attn")):
            rest = rest.replace(new, old)
        key = f"transformer.resblocks.{layer}.{rest}"
        if ".q_proj." in key:
            rows.append((key.replace("q_proj.", "in_proj_"), [name.replace("q_proj", f"{x}_proj") for x in "qkv"], False))
        elif ".k_proj." not in key and ".v_proj." not in key:
            rows.append((key, [name], False))
    return rows


def assembled(root, table):
    """A single file from a table of [name, folder, [names], transposed]."""
    folders = {folder: weights(root / folder) for _, folder, _, _ in table}
    made = {}
    for name, folder, parts, transposed in table:
        value = torch.cat([folders[folder][part] for part in parts])
        made[name] = value.T.contiguous() if transposed else value
    return made


def singles(root, dir):
    te, te2 = "recognise/text-encoder", "recognise/text-encoder-early"
    unet = lambda folder: [(f"model.diffusion_model.{unet_name(name, 1, ups(folder))}", folder, [name], False) for name in sorted(weights(root / folder))]
    ups = lambda folder: lambda block: any(f"up_blocks.{block}.attentions." in name for name in weights(root / folder))
    vae = [(f"first_stage_model.{vae_name(name, 3)}", "vae", [name], False) for name in sorted(weights(root / "vae"))]
    clip = lambda prefix: [(prefix + (name if name.startswith("text_") else f"text_model.{name}"), te2, [name], False)
                           for name in sorted(weights(root / te2)) if name != "text_projection.weight"]
    open_clip = lambda prefix, folder: [(prefix + key, folder, parts, transposed) for key, parts, transposed in open_clip_rows(sorted(weights(root / folder)))]
    tables = {
        "v1": unet("sd1") + vae + clip("cond_stage_model.transformer."),
        "v2": unet("sd1") + open_clip("cond_stage_model.model.", te),
        "xl": unet("sdxl") + clip("conditioner.embedders.0.transformer.") + open_clip("conditioner.embedders.1.model.", te),
    }
    lines = {}
    for name, table in tables.items():
        made = assembled(root, table)
        folder = "sdxl" if name == "xl" else "sd1"
        # diffusers' converters lead back to the folders' weights.
        config = UNet2DConditionModel.load_config(root / folder)
        same(single.convert_ldm_unet_checkpoint(dict(made), config), weights(root / folder))
        if name == "v1":
            same(single.convert_ldm_vae_checkpoint(dict(made), AutoencoderKL.load_config(root / "vae")), weights(root / "vae"))
        if name != "v1":
            prefix = "cond_stage_model.model." if name == "v2" else "conditioner.embedders.1.model."
            back = single.convert_open_clip_checkpoint(text_encoder(root / te), dict(made), prefix=prefix)
            if name == "v2":
                # The last layer and the projection of Stable Diffusion 2 are left out.
                back["text_projection.weight"] = weights(root / te)["text_projection.weight"]
            same(split_again(back, made, prefix), {k if k.startswith("text_") else f"text_model.{k}": v for k, v in weights(root / te).items()})
        with tempfile.TemporaryDirectory() as temporary:
            file = pathlib.Path(temporary) / "model.safetensors"
            save_file(contiguous(made), file)
            loaded = UNet2DConditionModel.from_single_file(str(file), config=str(root / folder), local_files_only=True)
            near(unet_out(loaded.float(), floats(root / folder)), load_file(root / folder / "io.safetensors")["out"], 1e-4)
        lines[name] = [[key, source, parts, int(transposed)] for key, source, parts, transposed in table]
    (dir / "tables.json").write_text("{" + ",\n".join(f'"{name}": [\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "]" for name, rows in lines.items()) + "}\n")


def split_again(back, made, prefix):
    """diffusers splits at the width of the projection, which is the model's own width in published models alone."""
    for key, value in made.items():
        if key.startswith(prefix) and ".in_proj_" in key:
            layer = key.split("resblocks.")[1].split(".")[0]
            for which, part in zip("qkv", value.chunk(3)):
                back[f"text_model.encoder.layers.{layer}.self_attn.{which}_proj.{key.rsplit('_', 1)[1]}"] = part
    return back


def floats(folder):
    io = load_file(folder / "io.safetensors")
    io["timesteps"] = io["timesteps"].float()
    return io


def same(a, b):
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    for name in a:
        assert torch.equal(a[name].squeeze(), b[name].squeeze()), name


# The configurations of the published folders.
V1 = dict(sample_size=64, cross_attention_dim=768)
V2 = dict(sample_size=96, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True, upcast_attention=True)
XL_BOTH = dict(sample_size=128, addition_embed_type="text_time", addition_time_embed_dim=256, use_linear_projection=True)
XL = dict(**XL_BOTH, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], block_out_channels=[320, 640, 1280],
          up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], transformer_layers_per_block=[1, 2, 10],
          cross_attention_dim=2048, attention_head_dim=[5, 10, 20], projection_class_embeddings_input_dim=2816)
REFINER = dict(**XL_BOTH, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
               up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], block_out_channels=[384, 768, 1536, 1536],
               transformer_layers_per_block=4, cross_attention_dim=1280, attention_head_dim=[6, 12, 24, 24], projection_class_embeddings_input_dim=2560)
VAE = dict(block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2)
VIT_L = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu", projection_dim=768)
VIT_H = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu", projection_dim=512)
BIG_G = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu", projection_dim=1280)
MODELS = {
    # family: channels, UNet, its published number of weights, VAE, text encoders with their prefixes
    "v1": (4, V1, 859_520_964, (512, 0.18215), {"cond_stage_model.transformer.": ("text_encoder", VIT_L, 123_060_480)}),
    "v1-inpainting": (9, V1, 859_535_364, (512, 0.18215), {"cond_stage_model.transformer.": ("text_encoder", VIT_L, 123_060_480)}),
    "v2": (4, V2, 865_910_724, (768, 0.18215), {"cond_stage_model.model.": ("text_encoder", VIT_H, 340_387_840)}),
    "xl": (4, XL, 2_567_463_684, (1024, 0.13025), {"conditioner.embedders.0.transformer.": ("text_encoder", VIT_L, 123_060_480),
                                                  "conditioner.embedders.1.model.": ("text_encoder_2", BIG_G, 694_659_840)}),
    "refiner": (4, REFINER, None, (1024, 0.13025), {"conditioner.embedders.0.model.": ("text_encoder_2", BIG_G, 694_659_840)}),
}


def published(dir):
    """Names and shapes of the published models, thinned out, with what diffusers says they are."""
    out = {}
    for name, (channels, config, count, (size, factor), encoders) in MODELS.items():
        with torch.device("meta"):
            unet = UNet2DConditionModel(**config, in_channels=channels)
            vae = AutoencoderKL(**VAE, sample_size=size, scaling_factor=factor)
        numbers = sum(value.numel() for value in unet.parameters())
        assert count is None or numbers == count, (name, numbers)
        assert sum(value.numel() for value in vae.parameters()) == 83_653_863
        has = lambda block: "CrossAttn" in unet.config.up_block_types[block]
        rows = [[n, f"model.diffusion_model.{unet_name(n, 2, has)}", "unet", list(v.shape)] for n, v in unet.state_dict().items()]
        rows += [[n, f"first_stage_model.{vae_name(n, 4)}", "vae", list(v.shape)] for n, v in vae.state_dict().items()]
        text = {}
        for prefix, (part, text_config, count) in encoders.items():
            text[part] = text_config
            with torch.device("meta"):
                kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
                model = kind(CLIPTextConfig(vocab_size=49408, **text_config))
            assert sum(value.numel() for value in model.parameters()) == count, (name, part, sum(v.numel() for v in model.parameters()))
            state = {n if n.startswith("text_") else f"text_model.{n}": v for n, v in model.state_dict().items()}
            if prefix.endswith("transformer."):
                rows += [[n, prefix + n, part, list(v.shape)] for n, v in state.items()]
            else:
                for key, parts, transposed in open_clip_rows(sorted(state)):
                    shape = list(state[parts[0]].shape)
                    if len(parts) == 3:
                        shape[0] *= 3
                    rows.append([parts[0], prefix + key, part, shape[::-1] if transposed else shape])
        checkpoint = {key: torch.empty(shape, device="meta") for _, key, _, shape in rows}
        kind = single.infer_diffusers_model_type(checkpoint)
        # One weight of each kind of a layer is enough.
        thin = [row for row in rows if row[0].endswith("weight") and "transformer_blocks.1" not in row[0] and ".norm" not in row[0]
                and ".ff." not in row[0] and "to_v" not in row[0] and "attn1" not in row[0] and not any(f"layers.{i}." in row[0] for i in range(1, 31) if i != 9)]
        thin += [row for row in rows if row[1].endswith("resblocks.9.mlp.c_proj.bias")]
        if name == "v1-inpainting":
            thin = [row for row in thin if "input_blocks" in row[1]]
        out[name] = {"diffusers": kind, "in_channels": channels, "text": text,
                     "unet": {k: v for k, v in dict(unet.config).items() if not k.startswith("_")},
                     "vae": {k: v for k, v in dict(vae.config).items() if not k.startswith("_")}, "rows": thin}
    (dir / "published.json").write_text("{" + ",\n".join(
        f'"{name}": {{' + ",\n".join(f'"{k}": ' + ("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in v) + "]" if k == "rows" else json.dumps(v, separators=(",", ":")))
                                     for k, v in value.items()) + "}" for name, value in out.items()) + "}\n")


# ----------------------------------------------------------------------------------------------------------- ControlNet

def control(root, dir, name, base, model, size):
    model = randomised(model, torch.float16)
    folder = dir / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    save_file({key: value.detach().half().contiguous() for key, value in model.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors")
    unet = UNet2DConditionModel.from_pretrained(root / base, torch_dtype=torch.float32).eval()
    io = floats(root / base)
    image = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(8))
    added = {"text_embeds": io["pooled_text"], "time_ids": io["time_ids"]} if "time_ids" in io else None
    with torch.no_grad():
        down, mid = model(io["x"], io["timesteps"], encoder_hidden_states=io["text"], controlnet_cond=image, conditioning_scale=0.8,
                          added_cond_kwargs=added, return_dict=False)
        out = unet(io["x"], io["timesteps"], encoder_hidden_states=io["text"], added_cond_kwargs=added,
                   down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    results = {"image": image, "out": out, "mid": mid, **{f"down.{i}": value for i, value in enumerate(down)}}
    save_file(contiguous(results), folder / "io.safetensors")


# ------------------------------------------------------------------------------------------------------ tiles and words

def tiles(root, dir):
    vae = AutoencoderKL.from_pretrained(root / "vae", torch_dtype=torch.float32).eval()
    vae.enable_tiling()
    z, image = randn(1, 4, 11, 19, seed=9), randn(1, 3, 28, 52, seed=10)
    results = {"z": z, "image": image}
    # The default of this configuration, then smaller tiles with another overlap; edges are cut everywhere.
    for name, size, overlap in (("default", None, 0.25), ("small", 16, 0.5)):
        if size:
            vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor = size, size // 4, overlap
        with torch.no_grad():
            posterior = vae.encode(image).latent_dist
            results |= {f"{name}.decoded": vae.decode(z).sample, f"{name}.mean": posterior.mean, f"{name}.logvar": posterior.logvar}
    save_file(contiguous(results), dir / "tiles.safetensors")


class Words(TextualInversionLoaderMixin):
    hf_device_map = None
    components = {}

    def __init__(self, encoder, tokenizer):
        self.text_encoder, self.tokenizer = encoder, tokenizer


def words(root, dir):
    dir.mkdir(parents=True, exist_ok=True)
    save_file({"<cat>": randn(3, 32, seed=11).half()}, dir / "learned_embeds.safetensors")
    save_file({"emb_params": randn(1, 32, seed=12)}, dir / "style.safetensors")
    save_file({"clip_l": randn(2, 32, seed=13), "clip_g": randn(2, 48, seed=14)}, dir / "both.safetensors")
    tokens = root / "recognise/clip-f16"
    pipe = Words(text_encoder(root / "recognise/text-encoder-early"), CLIPTokenizer(vocab=str(tokens / "vocab.json"), merges=str(tokens / "merges.txt"), model_max_length=16))
    pipe.load_textual_inversion(load_file(dir / "learned_embeds.safetensors"))
    pipe.load_textual_inversion(load_file(dir / "style.safetensors"), token="style")
    prompts = ["a <cat> in style", "red", "a photo of <cat>, <cat> dog"]
    ids = pipe.tokenizer(pipe.maybe_convert_prompt(prompts, pipe.tokenizer), max_length=16, truncation=True, padding="max_length", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = pipe.text_encoder(input_ids=ids, output_hidden_states=True)
    save_file(contiguous({"ids": ids.to(torch.int32), "last": out.last_hidden_state, "before": out.hidden_states[-2], "embeds": out.text_embeds}), dir / "io.safetensors")


# --------------------------------------------------------------------------------------------------------------- DeepCache

def deep(root, dir):
    """A network of two levels of two layers: its result for inputs at half size, with the deep features of those at full size."""
    io = load_file(root / "upscaler" / "io.safetensors")
    more = {"encoder_hidden_states": io["text"], "class_labels": io["class"].long(), "timestep_cond": io["timestep_cond"]}
    results = {}
    for branch in range(5):
        unet = UNet2DConditionModel.from_pretrained(root / "upscaler", torch_dtype=torch.float32)
        times = [torch.tensor(417.0), torch.tensor(400.0)]
        pipe = types.SimpleNamespace(unet=unet, scheduler=types.SimpleNamespace(timesteps=times))
        cache = DeepCacheSDHelper(pipe=pipe)
        cache.set_params(cache_interval=2, cache_branch_id=branch)
        cache.enable()
        with torch.no_grad():
            pipe.unet(io["x"], times[0], **more)
            results[str(branch)] = pipe.unet(0.5 * io["x"], times[1], **more).sample.contiguous()
    save_file(results, dir / "deep.safetensors")


def main(root):
    dir = root / "sd-parts"
    dir.mkdir(exist_ok=True)
    (dir / "lora").mkdir(exist_ok=True)
    loras(root, dir / "lora")
    singles(root, dir)
    published(dir)
    small = dict(conditioning_embedding_out_channels=(4, 8), cross_attention_dim=24, layers_per_block=1)
    control(root, dir, "controlnet-sd1", "sd1", ControlNetModel(**small, block_out_channels=(32, 32), norm_num_groups=32, attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")), (16, 24))
    control(root, dir, "controlnet-sdxl", "sdxl", ControlNetModel(**{**small, "conditioning_embedding_out_channels": (4, 8, 12)}, block_out_channels=(16, 32),
            norm_num_groups=8, attention_head_dim=(2, 4), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), use_linear_projection=True,
            transformer_layers_per_block=(1, 2), addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=68,
            controlnet_conditioning_channel_order="bgr"), (32, 32))
    tiles(root, dir)
    words(root, dir / "words")
    deep(root, dir)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
