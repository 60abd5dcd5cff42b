#!/usr/bin/env python3
"""The small folders of make_prompts.py as single files of original names.

  make_single_files.py [DIR]     writes DIR/prompts/single-files.json; DIR is this script's folder by default

The files are not stored: a table for each folder says of which of its tensors a file is made, in rows of the original name,
the part of the folder, the names there that lie behind one another, and whether rows and columns change places. Each
table is checked with diffusers: `from_single_file` leads back to the weights of the folder.

Needs torch, diffusers, transformers, peft and safetensors (made with torch 2.15, diffusers 0.42, transformers 5.24). The
same versions give the same bytes.
"""
import json, pathlib, sys, tempfile
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from make_sd_parts import contiguous, open_clip_rows, unet_name, vae_name


def weights(folder):
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def table(model, family):
    tensors = {part.name: weights(part) for part in sorted(model.iterdir()) if any(part.glob("*.safetensors"))}
    has_attention = lambda block: any(f"up_blocks.{block}.attentions." in name for name in tensors["unet"])
    rows = [(f"model.diffusion_model.{unet_name(name, 1, has_attention)}", "unet", [name], False) for name in sorted(tensors["unet"])]
    rows += [(f"first_stage_model.{vae_name(name, 2)}", "vae", [name], False) for name in sorted(tensors["vae"])]
    clip = lambda prefix: [(prefix + (name if name.startswith("text_") else f"text_model.{name}"), "text_encoder", [name], False)
                           for name in sorted(tensors["text_encoder"])]
    open_clip = lambda prefix, part: [(prefix + key, part, parts, transposed) for key, parts, transposed in open_clip_rows(sorted(tensors[part]))]
    if family == "sd1":
        return rows + clip("cond_stage_model.transformer.")
    if family == "sdxl":
        return rows + clip("conditioner.embedders.0.transformer.") + open_clip("conditioner.embedders.1.model.", "text_encoder_2")
    # Stable Diffusion 2 leaves out the last layer of the encoder in the file, and its projection: any will do.
    prefix = "cond_stage_model.model."
    text = open_clip(prefix, "text_encoder")
    last = [(key.replace("resblocks.2.", "resblocks.3."), *rest) for key, *rest in text if "resblocks.2." in key]
    square = next(name for name in tensors["text_encoder"] if name.endswith("layers.2.self_attn.out_proj.weight"))
    return rows + text + last + [(f"{prefix}text_projection", "text_encoder", [square], True)]


def check(model, family, rows):
    tensors = {part: weights(model / part) for _, part, _, _ in rows}
    made = {}
    for name, part, names, transposed in rows:
        value = torch.cat([tensors[part][name] for name in names])
        made[name] = value.T if transposed else value
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.safetensors"
        save_file(contiguous(made), file)
        kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
        pipe = kind.from_single_file(str(file), config=str(model), local_files_only=True, torch_dtype=torch.float16)
    for part, expected in tensors.items():
        found = getattr(pipe, part).state_dict()
        short = lambda name: name.removeprefix("text_model.")
        found, expected = ({short(name): value for name, value in state.items()} for state in (found, expected))
        assert found.keys() == expected.keys(), (family, part, found.keys() ^ expected.keys())
        for name, value in expected.items():
            assert torch.equal(found[name].half(), value.half()), (family, part, name)


def main(root):
    tables = {}
    for family in ("sd1", "sd2", "sdxl"):
        model = root / "prompts" / family / "model"
        tables[family] = table(model, family)
        check(model, family, tables[family])
    lines = {family: ",\n".join(json.dumps([key, part, names, int(transposed)], separators=(",", ":")) for key, part, names, transposed in rows)
             for family, rows in tables.items()}
    text = ",\n".join(f'"{family}": [\n{rows}]' for family, rows in lines.items())
    (root / "prompts/single-files.json").write_text("{" + text + "}\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
