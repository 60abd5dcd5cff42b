#!/usr/bin/env python3
"""evenset's networks beside PyTorch and diffusers: the same weights, inputs and number of threads, in turn.

  compare-torch.py DIR [--rounds 5] [--only WHAT ...]

Makes the models in DIR where they are missing (4 GB of random weights in diffusers' folder layout, with inputs and
PyTorch's outputs beside them), builds the example `reference`, checks that both sides agree, and times them: in every
round each side runs once, after one call that does not count, so that a machine that slows down slows down both. Prints
the table of docs/performance.md: medians of the rounds, their ratio, the larger peak of memory.

Needs torch, diffusers and safetensors; THREADS sets the number of threads, 2 without it.
"""
import argparse, json, os, pathlib, resource, statistics, subprocess, sys, time

THREADS = os.environ.get("THREADS", "2")
CASES = [
    ("sd15-unet", "float32", "Stable Diffusion 1.5 UNet, 64x64 latents, batch 2"),
    ("sd15-vae", "float32", "its decoder, to 512x512"),
    ("pixel", "float32", "pixel UNet of 2.5 M weights, 64 images of 32x32"),
    ("pixel-train", "float32", "the same, forward, backward and a step of Adam"),
    ("sd15-unet", "bfloat16", "Stable Diffusion 1.5 UNet in bf16"),
]


def sd15_unet():
    from diffusers import UNet2DConditionModel
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def sd15_vae():
    from diffusers import AutoencoderKL
    return AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                         block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512)


def pixel_unet():
    from diffusers import UNet2DModel
    return UNet2DModel(sample_size=32, block_out_channels=(32, 64, 128), layers_per_block=1, norm_num_groups=8,
                       attention_head_dim=None, down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3)


def training(model, x, target):
    import torch
    adam = torch.optim.Adam(model.train().parameters(), lr=1e-3)

    def step():
        adam.zero_grad(set_to_none=True)
        loss = ((model(x, 500).sample.float() - target) ** 2).mean()
        loss.backward()
        adam.step()
        return loss.item()
    return step


def make(root):
    import torch
    from safetensors.torch import save_file
    torch.manual_seed(0)
    noise = torch.Generator().manual_seed(1)
    randn = lambda *shape: torch.randn(*shape, generator=noise)
    with torch.no_grad():
        unet, latents, text = sd15_unet().eval(), randn(2, 4, 64, 64), randn(2, 77, 768)
        unet.save_pretrained(root / "sd15" / "unet")
        vae, z = sd15_vae().eval(), randn(1, 4, 64, 64)
        vae.save_pretrained(root / "sd15" / "vae")
        outputs = {"unet": unet(latents, 500, text).sample.contiguous(), "image": vae.decode(z).sample.contiguous()}
        save_file({"latents": latents, "text": text, "z": z, **outputs}, root / "sd15" / "io.safetensors")
    pixel, x, target = pixel_unet(), randn(64, 3, 32, 32), randn(64, 3, 32, 32)
    pixel.save_pretrained(root / "pixel" / "unet")
    with torch.no_grad():
        out = pixel.eval()(x, 500).sample.contiguous()
    step = training(pixel, x, target)
    losses = torch.tensor([step() for _ in range(3)])
    save_file({"x": x, "target": target, "out": out, "losses": losses}, root / "pixel" / "io.safetensors")


def torch_call(root, what):
    """The call to time; the timestep is 500 everywhere."""
    from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
    from safetensors.torch import load_file
    folder = root / what.split("-")[0]
    io = load_file(folder / "io.safetensors")
    if what == "sd15-unet":
        unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
        return lambda: unet(io["latents"], 500, io["text"]).sample
    if what == "sd15-vae":
        vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
        return lambda: vae.decode(io["z"]).sample
    pixel = UNet2DModel.from_pretrained(folder / "unet").eval()
    return training(pixel, io["x"], io["target"]) if what == "pixel-train" else lambda: pixel(io["x"], 500).sample


def torch_time(root, what, dtype):
    """One JSON line, as the example `reference` prints it."""
    import torch
    torch.set_num_threads(int(THREADS))
    call = torch_call(root, what)
    grad = torch.enable_grad() if what == "pixel-train" else torch.inference_mode()
    with grad, torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        call()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def output(command, **environment):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}).stdout


def compare(root, rounds, only):
    cargo = ["cargo", "build", "--release", "--locked", "-p", "evenset-nn", "--example", "reference", "--message-format=json"]
    lines = [json.loads(line) for line in output(cargo).splitlines()]
    ours = next(line["executable"] for line in lines if line.get("target", {}).get("name") == "reference")
    rows = []
    for what, dtype, title in CASES:
        if only and what not in only:
            continue
        check = json.loads(output([ours, "check", str(root), what, "--dtype", dtype], THREADS=THREADS))
        commands = {
            "torch": [sys.executable, __file__, str(root), "--torch", what, "--dtype", dtype],
            "evenset": [ours, "time", str(root), what, "--dtype", dtype, "--runs", "1"],
        }
        found = {side: [] for side in commands}
        for _ in range(rounds):
            for side, command in commands.items():
                found[side].append(json.loads(output(command, THREADS=THREADS)))
        seconds = {side: statistics.median(line["seconds"] for line in lines) for side, lines in found.items()}
        peak = {side: max(line["peak_mb"] for line in lines) for side, lines in found.items()}
        print(json.dumps({"what": what, "dtype": dtype, "check": check, "seconds": {
            side: [round(line["seconds"], 4) for line in lines] for side, lines in found.items()}, "peak_mb": peak}), flush=True)
        error = check.get("relative_l2", check.get("largest_difference"))
        rows.append(f"| {title} | {seconds['torch']:.3g} s | {seconds['evenset']:.3g} s | "
                    f"**{seconds['evenset'] / seconds['torch']:.2f}** | {peak['torch']} | {peak['evenset']} | {error:.1e} |")
    print("\n| | PyTorch | evenset | evenset / PyTorch | PyTorch, MB | evenset, MB | difference |\n|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], metavar="WHAT")
    parser.add_argument("--torch", metavar="WHAT", help="time PyTorch once and print one JSON line (used by this script)")
    parser.add_argument("--dtype", default="float32", help="with --torch: float32 or bfloat16")
    arguments = parser.parse_args()
    if arguments.torch:
        return torch_time(arguments.dir, arguments.torch, arguments.dtype)
    if not (arguments.dir / "pixel" / "io.safetensors").exists():
        make(arguments.dir)
    compare(arguments.dir, arguments.rounds, arguments.only)


if __name__ == "__main__":
    main()
