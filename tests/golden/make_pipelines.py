#!/usr/bin/env python3
"""What diffusers' Stable Diffusion pipelines draw with the small folders of make_prompts.py, for given noise.

  make_pipelines.py [DIR]     DIR is `pipelines` beside this script by default

  DIR/cases.json              each case: folder, pipeline, solver and settings
  DIR/images.safetensors      its images before they are clamped, [batch, 3, height, width]
  DIR/inpaint                 a denoising network of nine channels, in place of the one in prompts/sd1/model
  DIR/lcm                     one that is told the guidance scale, likewise, as latent consistency models have it
  DIR/control                 a ControlNet for prompts/sd1/model
  DIR/lora.safetensors        a LoRA for it, in PEFT's names; its effect is added here by its definition

Noise and real images are closed forms that the test computes too: see `wave`. Outputs are computed in float32.

Needs torch, diffusers, transformers, safetensors and DeepCache (made with torch 2.15, diffusers 0.42, transformers 5.24,
DeepCache 0.1.1). The same versions give the same bytes.
"""
import contextlib, json, math, pathlib, sys
import numpy, torch
import diffusers
from diffusers import (AutoencoderTiny, ControlNetModel, LatentConsistencyModelImg2ImgPipeline, LatentConsistencyModelPipeline,
                       StableDiffusionControlNetImg2ImgPipeline, StableDiffusionControlNetPipeline,
                       StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline,
                       UNet2DConditionModel)
from DeepCache.extension.deepcache import DeepCacheSDHelper
from safetensors.torch import save_file
from make import randn, randomised, save

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
        base = {"folder": folder, "kind": kind, "solver": None, "steps": 4, "guidance": 5.0, "rescale": 0.0, "batch": 1, "strength": 1.0, "deep_cache": None}
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
    yield case("control")
    yield case("control", batch=3, solver="euler", steps=6)
    yield case("control", "image", strength=0.7, solver="ddim", steps=6, batch=3)
    yield case("control", guidance=1.0)
    yield case("lora")
    yield case("lora", batch=3, solver="dpmpp-2m")
    yield case("lora", "image", strength=0.7)
    # An interval and a branch.
    yield case("sd1", solver="ddim", steps=6, deep_cache=[2, 0])
    yield case("sd1", solver="euler", steps=7, deep_cache=[3, 1], batch=3)
    yield case("sd1", solver="dpmpp-2m", steps=6, deep_cache=[6, 0], guidance=1.0)
    yield case("sd1", "inpaint", solver="ddim", steps=6, strength=0.8, deep_cache=[2, 1])
    yield case("sd2", "image", solver="ddim", steps=8, strength=0.7, deep_cache=[2, 0], batch=3)
    yield case("sdxl", solver="euler", steps=6, deep_cache=[3, 0])
    yield case("sdxl", solver="dpmpp-2m", steps=6, deep_cache=[2, 1], batch=3)
    yield case("control", solver="ddim", steps=6, deep_cache=[3, 1])
    yield case("small-decoder")
    yield case("small-decoder", "image", strength=0.7, solver="ddim", batch=3)
    yield case("lcm", guidance=8.5, batch=3)
    yield case("lcm", guidance=1.0, steps=8)
    yield case("lcm", "image", guidance=8.5, strength=0.6, batch=3)


RANK, ALPHA, LORA_WEIGHT = 3, 5.0, 0.8


def lora(pipe):
    """Random matrices for some layers of the denoising network and of the text encoder."""
    tensors, seed = {}, 100
    for part, model in (("unet", pipe.unet), ("text_encoder", pipe.text_encoder)):
        layers = [name for name, module in model.named_modules()
                  if isinstance(module, torch.nn.Linear) and name.endswith(("to_q", "to_v", "to_out.0", "q_proj", "out_proj"))]
        for name in layers:
            out, inputs = model.get_submodule(name).weight.shape
            tensors[f"{part}.{name}.lora_A.weight"] = randn(RANK, inputs, seed=seed)
            tensors[f"{part}.{name}.lora_B.weight"] = 0.3 * randn(out, RANK, seed=seed + 1)
            tensors[f"{part}.{name}.alpha"] = torch.tensor(ALPHA)
            seed += 2
    return tensors


def add_lora(pipe, tensors):
    with torch.no_grad():
        for key in tensors:
            if key.endswith(".lora_A.weight"):
                part, name = key.removesuffix(".lora_A.weight").split(".", 1)
                up, down = tensors[key.replace("lora_A", "lora_B")], tensors[key]
                getattr(pipe, part).get_submodule(name).weight.add_(LORA_WEIGHT * ALPHA / RANK * up @ down)


def draw(one, added):
    xl = one["folder"] == "sdxl"
    is_sd1 = one["folder"] in ("inpaint", "control", "lora", "small-decoder", "lcm")
    folder = HERE / "prompts" / ("sd1" if is_sd1 else one["folder"]) / "model"
    more = {"unet": added["inpaint"]} if one["folder"] == "inpaint" else {}
    kind = PIPELINES[one["kind"], xl]
    if one["folder"] == "control":
        kind = {"text": StableDiffusionControlNetPipeline, "image": StableDiffusionControlNetImg2ImgPipeline}[one["kind"]]
        more = {"controlnet": [added["control"]] * 2}
    variant = "fp16" if any(folder.rglob("*.fp16.safetensors")) else None
    pipe = kind.from_pretrained(folder, torch_dtype=torch.float32, variant=variant, **more)
    if one["folder"] == "lcm":
        kind = {"text": LatentConsistencyModelPipeline, "image": LatentConsistencyModelImg2ImgPipeline}[one["kind"]]
        parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor")}
        scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
        pipe = kind(**parts, unet=added["lcm"], scheduler=scheduler, requires_safety_checker=False)
    if one["folder"] == "lora":
        add_lora(pipe, added["lora"])
    pipe.set_progress_bar_config(disable=True)
    if one["solver"]:
        name, settings = SOLVERS[one["solver"]]
        # The files of real models say that nothing is clipped; the small ones of make_prompts.py say nothing.
        unclipped = {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler") and one["kind"] != "inpaint" and not xl else {}
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **settings, **unclipped)
    if one["deep_cache"]:
        cache = DeepCacheSDHelper(pipe=pipe)
        cache.set_params(cache_interval=one["deep_cache"][0], cache_branch_id=one["deep_cache"][1])
        cache.enable()
    batch = one["batch"]
    images = torch.from_numpy(picture(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
    settings = {"prompt": PROMPTS[:batch], "negative_prompt": NEGATIVES[:batch], "num_inference_steps": one["steps"],
                "guidance_scale": one["guidance"], "output_type": "latent"}
    if one["kind"] != "image":
        settings.update(height=HEIGHT, width=WIDTH)
    if one["folder"] == "lcm":
        settings.pop("negative_prompt")
    if one["kind"] == "text" and one["folder"] != "lcm":
        settings.update(guidance_rescale=one["rescale"])
    elif one["kind"] != "text":
        settings.update(image=images, strength=one["strength"])
    if one["folder"] == "control":
        pictures = torch.from_numpy(picture(batch)).permute(0, 3, 1, 2).float() / 255
        settings.pop("guidance_rescale", None)
        settings.update(controlnet_conditioning_scale=[0.9, 0.5], control_guidance_start=[0.0, 0.2], control_guidance_end=[1.0, 0.8])
        settings.update(**{"image" if one["kind"] == "text" else "control_image": [pictures] * 2})
    if one["kind"] == "inpaint":
        settings.update(mask_image=torch.from_numpy(mask(batch)).float()[:, None] / 255)
    with torch.no_grad(), given_noise():
        latents = pipe(**settings).images
        # Real images are encoded by the model's own autoencoder in any case.
        vae = AutoencoderTiny.from_pretrained(HERE / "vae-tiny") if one["folder"] == "small-decoder" else pipe.vae
        return vae.decode(latents / vae.config.scaling_factor).sample


def main(root):
    root.mkdir(parents=True, exist_ok=True)
    config = UNet2DConditionModel.load_config(HERE / "prompts/sd1/model/unet")
    nine = randomised(UNet2DConditionModel.from_config({**config, "in_channels": 9}), torch.float16)
    (root / "inpaint").mkdir(exist_ok=True)
    save(nine, root / "inpaint", torch.float16, "")
    told = randomised(UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": 12}), torch.float16)
    (root / "lcm").mkdir(exist_ok=True)
    save(told, root / "lcm", torch.float16, "")
    control = ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(HERE / "prompts/sd1/model/unet"),
                                        conditioning_channels=3, conditioning_embedding_out_channels=(4, 8))
    control = randomised(control, torch.float16)
    (root / "control").mkdir(exist_ok=True)
    save(control, root / "control", torch.float16, "")
    added = {"inpaint": nine, "lcm": told, "control": control, "lora": lora(StableDiffusionPipeline.from_pretrained(HERE / "prompts/sd1/model"))}
    save_file(added["lora"], root / "lora.safetensors")
    all_cases, images = list(cases()), {}
    for i, one in enumerate(all_cases):
        images[str(i)] = draw(one, added).contiguous()
        print(i, one, float(images[str(i)].abs().max()))
    (root / "cases.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in all_cases) + "\n]\n")
    save_file(images, root / "images.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "pipelines")
