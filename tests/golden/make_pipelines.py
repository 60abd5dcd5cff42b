#!/usr/bin/env python3
"""What diffusers' Stable Diffusion pipelines draw with the small folders of make_prompts.py, for given noise.

  make_pipelines.py [DIR]     DIR is `pipelines` beside this script by default

  DIR/cases.json              each case: folder, pipeline, solver and settings
  DIR/images.safetensors      its images before they are clamped, [batch, 3, height, width]
  DIR/inpaint                 a denoising network of nine channels, in place of the one in prompts/sd1/model

Noise and real images are closed forms that the test computes too: see `wave`. Outputs are computed in float32.

Needs torch, diffusers, transformers and safetensors (made with torch 2.15, diffusers 0.42, transformers 5.24). The same
versions give the same bytes.
"""
import contextlib, json, math, pathlib, sys
import numpy, torch
import diffusers
from diffusers import (StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline,
                       UNet2DConditionModel)
from safetensors.torch import save_file
from make import randomised, save

torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent
HEIGHT, WIDTH = 24, 16
PROMPTS = ["a red coat on a beach", "portrait of a woman, oil on canvas", ""]
NEGATIVES = ["blurry", "", "a man standing"]
SOLVERS = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp-2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp-2m-sde-karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
PIPELINES = {
    ("text", False): StableDiffusionPipeline, ("text", True): StableDiffusionXLPipeline,
    ("image", False): StableDiffusionImg2ImgPipeline, ("image", True): StableDiffusionXLImg2ImgPipeline,
    ("inpaint", False): StableDiffusionInpaintPipeline, ("inpaint", True): StableDiffusionXLInpaintPipeline,
}


def wave(shape, which):
    """A stand-in for noise: number `i` of kind `which`, of variance 1."""
    i = numpy.arange(math.prod(shape), dtype=numpy.float64)
    return torch.from_numpy(math.sqrt(2) * numpy.sin(i * 2.399963 + i * i * 0.0137 + which * 1.7)).float().reshape(shape)


def picture(batch):
    """Real images in 0..255."""
    i = numpy.arange(batch * HEIGHT * WIDTH * 3)
    return (i * 37 % 256).astype(numpy.uint8).reshape(batch, HEIGHT, WIDTH, 3)


def mask(batch):
    """The lower right part is free."""
    one = numpy.zeros((HEIGHT, WIDTH), numpy.uint8)
    one[10:, 5:] = 255
    return numpy.repeat(one[None], batch, 0)


@contextlib.contextmanager
def given_noise():
    """Draws become waves: 0 to start, 1 and 2 for the autoencoder in turn, 3 and up for the solver's steps."""
    drawn = {"vae": 0, "step": 0}
    patched = []

    def replace(module, which):
        def draw(shape, **_):
            kind = {"start": lambda: 0, "vae": lambda: 1 + drawn["vae"], "step": lambda: 3 + drawn["step"]}[which]()
            if which in drawn:
                drawn[which] += 1
            return wave(tuple(shape), kind)
        patched.append((module, module.randn_tensor))
        module.randn_tensor = draw

    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and "randn_tensor" in vars(module) and not name.startswith("diffusers.utils"):
            replace(module, "vae" if ".models." in name else "step" if ".schedulers." in name else "start")
    try:
        yield
    finally:
        for module, original in patched:
            module.randn_tensor = original


def cases():
    def case(folder, kind="text", **more):
        base = {"folder": folder, "kind": kind, "solver": None, "steps": 4, "guidance": 5.0, "rescale": 0.0, "batch": 1, "strength": 1.0}
        return {**base, **more}
    for folder in ("sd1", "sd2", "sdxl"):
        for solver in SOLVERS:
            yield case(folder, solver=solver)
        yield case(folder, batch=3)
        yield case(folder, steps=7)
        yield case(folder, guidance=1.0)
        yield case(folder, guidance=1.0, steps=1)
        if folder != "sdxl":
            yield case(folder, guidance=9.0, rescale=0.7, batch=3)
        else:
            yield case(folder, guidance=9.0, rescale=0.7)
        for strength in (0.5, 1.0):
            yield case(folder, "image", strength=strength, batch=3)
            yield case(folder, "inpaint", strength=strength, batch=3)
        for solver in ("ddim", "euler-ancestral", "heun", "dpmpp-2m", "unipc"):
            yield case(folder, "image", solver=solver, strength=0.8, steps=5)
            yield case(folder, "inpaint", solver=solver, strength=0.8, steps=5)
    for strength in (0.6, 1.0):
        yield case("inpaint", "inpaint", strength=strength)
        yield case("inpaint", "inpaint", strength=strength, solver="euler", batch=3)


def draw(one, nine):
    xl = one["folder"] == "sdxl"
    folder = HERE / "prompts" / ("sd1" if one["folder"] == "inpaint" else one["folder"]) / "model"
    more = {"unet": nine} if one["folder"] == "inpaint" else {}
    variant = "fp16" if any(folder.rglob("*.fp16.safetensors")) else None
    pipe = PIPELINES[one["kind"], xl].from_pretrained(folder, torch_dtype=torch.float32, variant=variant, **more)
    pipe.set_progress_bar_config(disable=True)
    if one["solver"]:
        name, settings = SOLVERS[one["solver"]]
        # The files of real models say that nothing is clipped; the small ones of make_prompts.py say nothing.
        unclipped = {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler") and one["kind"] != "inpaint" and not xl else {}
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **settings, **unclipped)
    batch = one["batch"]
    images = torch.from_numpy(picture(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
    settings = {"prompt": PROMPTS[:batch], "negative_prompt": NEGATIVES[:batch], "num_inference_steps": one["steps"],
                "guidance_scale": one["guidance"], "output_type": "latent"}
    if one["kind"] != "image":
        settings.update(height=HEIGHT, width=WIDTH)
    if one["kind"] == "text":
        settings.update(guidance_rescale=one["rescale"])
    else:
        settings.update(image=images, strength=one["strength"])
    if one["kind"] == "inpaint":
        settings.update(mask_image=torch.from_numpy(mask(batch)).float()[:, None] / 255)
    with torch.no_grad(), given_noise():
        latents = pipe(**settings).images
        return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample


def main(root):
    root.mkdir(parents=True, exist_ok=True)
    config = UNet2DConditionModel.load_config(HERE / "prompts/sd1/model/unet")
    nine = randomised(UNet2DConditionModel.from_config({**config, "in_channels": 9}), torch.float16)
    (root / "inpaint").mkdir(exist_ok=True)
    save(nine, root / "inpaint", torch.float16, "")
    all_cases, images = list(cases()), {}
    for i, one in enumerate(all_cases):
        images[str(i)] = draw(one, nine).contiguous()
        print(i, one, float(images[str(i)].abs().max()))
    (root / "cases.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in all_cases) + "\n]\n")
    save_file(images, root / "images.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "pipelines")
