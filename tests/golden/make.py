#!/usr/bin/env python3
"""Small models with random weights in diffusers' layout, with inputs and PyTorch's outputs beside them.

  make.py [DIR]     writes DIR/<name>/{config.json, *.safetensors, io.safetensors}; DIR is this script's folder by default

Every weight is random, biases and normalisations too: diffusers starts those at 0 and 1, which hides mistakes. Weights
are stored in three number types, in one file, in shards and under the names of an early version, to cover all ways of
reading; outputs are computed in float32 from the stored values. Inputs are three images, each with a timestep of its own.

Needs torch, diffusers and safetensors (made with torch 2.15 and diffusers 0.42). The same versions give the same bytes.
"""
import json, pathlib, sys
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file

torch.set_num_threads(1)
BATCH = 3
TIMESTEPS = torch.tensor([1.0, 417.0, 999.0])
WEIGHTS = "diffusion_pytorch_model"
EARLY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomised(model, dtype):
    """Random weights that `dtype` can hold, in a model that computes in float32."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                noise = noise / weight[0].numel() ** 0.5
            elif name.endswith("weight"):
                noise = 1 + 0.3 * noise
            else:
                noise = 0.3 * noise
            weight.copy_(noise.to(dtype).float())
    return model.eval()


def save(model, dir, dtype, layout):
    """Layouts: "" (one file), "fp16" (the variant's name), "shards" or "early" (names of attention before 0.15)."""
    model.save_config(dir)
    weights = {name: weight.detach().to(dtype).contiguous() for name, weight in model.state_dict().items()}
    if layout == "early":
        for today, early in EARLY.items():
            weights = {name.replace(f".{today}.", f".{early}."): weight for name, weight in weights.items()}
    if layout != "shards":
        return save_file(weights, dir / f"{WEIGHTS}{'.fp16' if layout == 'fp16' else ''}.safetensors")
    names = sorted(weights)
    shards = {f"{WEIGHTS}-{i + 1:05}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, part in shards.items():
        save_file({name: weights[name] for name in part}, dir / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (dir / f"{WEIGHTS}.safetensors.index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def unet(dir, model, size, dtype=torch.float32, layout="", timesteps=TIMESTEPS, **inputs):
    model = randomised(model, dtype)
    x = randn(BATCH, model.config.in_channels, *size, seed=1)
    names = {"text": "encoder_hidden_states", "class": "class_labels", "timestep_cond": "timestep_cond"}
    call = {names[name]: value for name, value in inputs.items() if name in names}
    if "time_ids" in inputs:
        call["added_cond_kwargs"] = {"text_embeds": inputs["pooled_text"], "time_ids": inputs["time_ids"]}
    if isinstance(model, UNet2DConditionModel):
        call.setdefault("encoder_hidden_states", None)
    with torch.no_grad():
        out = model(x, timesteps, **call).sample
    save(model, dir, dtype, layout)
    io = {"x": x, "timesteps": timesteps, "out": out.contiguous(), **inputs}
    save_file({name: value.to(torch.uint32) if value.dtype == torch.int64 else value for name, value in io.items()}, dir / "io.safetensors")


def vae(dir, model, size, dtype=torch.float32, layout=""):
    model = randomised(model, dtype)
    factor = 2 ** (len(model.config.block_out_channels) - 1)
    image = randn(BATCH, 3, size[0] * factor, size[1] * factor, seed=1)
    z = randn(BATCH, model.config.latent_channels, *size, seed=2)
    tiny = isinstance(model, AutoencoderTiny)
    with torch.no_grad():
        encoded, decoded = model.encode(image), model.decode(z).sample
    results = {"latents": encoded.latents} if tiny else {"mean": encoded.latent_dist.mean, "logvar": encoded.latent_dist.logvar}
    save(model, dir, dtype, layout)
    io = {"image": image, **results, "z": z, "decoded": decoded}
    save_file({name: value.contiguous() for name, value in io.items()}, dir / "io.safetensors")


def main(root):
    half, brain = torch.float16, torch.bfloat16
    text = randn(BATCH, 7, 24, seed=3)
    small = dict(block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=24, norm_num_groups=8)
    upper = dict(down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    lower = dict(down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))

    # Stable Diffusion 1: heads by number, convolutions around the transformers, 32 groups; not square.
    unet(root / "sd1", UNet2DConditionModel(**{**small, "block_out_channels": (32, 32), "norm_num_groups": 32}, **upper,
         attention_head_dim=4), (8, 12), half, text=text)

    # Stable Diffusion 2: linear projections, heads by level, three levels; a size that does not halve evenly.
    unet(root / "sd2", UNet2DConditionModel(**{**small, "block_out_channels": (16, 24, 16), "layers_per_block": (1, 2, 1)},
         down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=(2, 3, 4),
         up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True,
         upcast_attention=True), (9, 13), half, "fp16", text=text)

    # Stable Diffusion XL: no attention at the top, deeper transformers below, a pooled text and sizes.
    unet(root / "sdxl", UNet2DConditionModel(**small, **lower, attention_head_dim=(2, 4), use_linear_projection=True,
         transformer_layers_per_block=(1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
         projection_class_embeddings_input_dim=68), (8, 8), brain, "shards", text=text,
         pooled_text=randn(BATCH, 20, seed=4), time_ids=torch.tensor([[1024.0, 768, 0, 0, 1024, 768], [512, 512, 3, 9, 640, 640],
                                                                    [64, 96, 1, 2, 128, 256]]))

    # The x4 upscaler: classes, blocks whose every attention is to the text; and what only distilled or odd models have.
    unet(root / "upscaler", UNet2DConditionModel(**{**small, "layers_per_block": 2, "block_out_channels": (16, 24)}, **lower,
         attention_head_dim=4, in_channels=7, only_cross_attention=(True, True), num_class_embeds=5, center_input_sample=True,
         conv_in_kernel=5, conv_out_kernel=1, mid_block_type="UNetMidBlock2D", mid_block_scale_factor=1.4, time_cond_proj_dim=6,
         timestep_post_act="silu", time_embedding_act_fn="silu", transformer_layers_per_block=((1, 1), (1, 2)),
         reverse_transformer_layers_per_block=((1, 1, 2), (1, 1, 1)), norm_eps=1e-3), (6, 10), half, text=text,
         timestep_cond=randn(BATCH, 6, seed=5), **{"class": torch.tensor([4, 0, 2])})

    # Plain attention inside a conditional UNet, whose head widths diffusers takes in another order on the way up.
    unet(root / "mixed", UNet2DConditionModel(**{**small, "block_out_channels": (16, 16)}, down_block_types=("AttnDownBlock2D", "ResnetDownsampleBlock2D"),
         up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D"), attention_head_dim=(16, 8), mid_block_type=None,
         class_embed_type="projection", projection_class_embeddings_input_dim=9, time_embedding_type="fourier",
         resnet_time_scale_shift="scale_shift", time_embedding_dim=48), (8, 6), half, timesteps=torch.tensor([0.1, 0.5, 2.0]),
         **{"class": randn(BATCH, 9, seed=6)})

    # One level, texts of a width of their own, a class that one linear map projects, cosines behind sines.
    unet(root / "level", UNet2DConditionModel(block_out_channels=(16,), layers_per_block=1, cross_attention_dim=(24,), norm_num_groups=4,
         down_block_types=("CrossAttnDownBlock2D",), up_block_types=("UpBlock2D",), attention_head_dim=(2,), flip_sin_to_cos=False,
         class_embed_type="simple_projection", projection_class_embeddings_input_dim=9), (5, 7), half, text=text,
         **{"class": randn(BATCH, 9, seed=6)})

    # Pixels: attention at the bottom, 8 groups, the settings of the DDPM models.
    unet(root / "pixel", UNet2DModel(block_out_channels=(16, 24), layers_per_block=2, norm_num_groups=8, attention_head_dim=8,
         down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), freq_shift=1,
         flip_sin_to_cos=False, downsample_padding=0, norm_eps=1e-6), (12, 8))

    # Class-conditional pixels: scale and shift, residual blocks that resample, 32 groups.
    unet(root / "classes", UNet2DModel(block_out_channels=(32, 32), layers_per_block=1, norm_num_groups=32, attention_head_dim=None,
         down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
         downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift", num_class_embeds=5,
         mid_block_scale_factor=2.0, center_input_sample=True), (8, 8), half, **{"class": torch.tensor([4, 0, 2])})

    # Score-based pixels: random frequencies, an output divided by the noise level, attention of its own group count.
    unet(root / "fourier", UNet2DModel(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attn_norm_num_groups=4,
         down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), attention_head_dim=16,
         time_embedding_type="fourier", class_embed_type="identity"), (8, 12), half, timesteps=torch.tensor([0.1, 3.0, 80.0]),
         **{"class": randn(BATCH, 64, seed=6)})

    # Pixels with a table of timesteps and without any attention; classes that are numbers like timesteps.
    unet(root / "learned", UNet2DModel(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, add_attention=False,
         down_block_types=("ResnetDownsampleBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "ResnetUpsampleBlock2D"),
         time_embedding_type="learned", num_train_timesteps=12, class_embed_type="timestep", time_embedding_dim=20), (6, 4),
         timesteps=torch.tensor([0, 5, 11]), **{"class": torch.tensor([7, 0, 2])})

    # Autoencoders: of three levels; and of an early layout, with attention in all levels and a normalisation by channel.
    vae(root / "vae", AutoencoderKL(block_out_channels=(16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 3, norm_num_groups=8,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1), (4, 5), half)
    vae(root / "vae-early", AutoencoderKL(block_out_channels=(16, 16), down_block_types=("AttnDownEncoderBlock2D",) * 2, use_quant_conv=False,
        up_block_types=("AttnUpDecoderBlock2D",) * 2, layers_per_block=1, use_post_quant_conv=False, latent_channels=2, norm_num_groups=16,
        mid_block_add_attention=False), (4, 4), half, "early")

    # A tiny one of two levels, with unlike numbers of blocks.
    vae(root / "vae-tiny", AutoencoderTiny(encoder_block_out_channels=(12,) * 2, decoder_block_out_channels=(16,) * 2,
        num_encoder_blocks=(1, 2), num_decoder_blocks=(2, 1)), (4, 5), half)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
