#!/usr/bin/env python3
"""What diffusers' schedulers make of a model that is a formula, for every class, with many settings.

  make_schedulers.py [DIR]     writes DIR/{cases.json, values.safetensors}; DIR is schedulers/ beside this script by default

A case is a scheduler's configuration, a number of steps and a way to start. The model is

  0.7 tanh(x) + 0.3 sin(timestep / 100 + channel)

The noise that solvers draw is replaced by `draws`, in order; `noise` and `clean` start the walks, and `mask` says where
inpainting draws. All are in values.safetensors, with the results of all cases one behind the other: `samples` (the last
x), `timesteps` (of each call) and `sigmas` (noise over signal before each call). Only the first `batch` images are walked.
The loops are those of diffusers' StableDiffusionPipeline, its image-to-image and its inpainting form.

Needs torch, diffusers, safetensors and SciPy (made with torch 2.15, diffusers 0.42 and SciPy 1.17). The same versions give
the same bytes.
"""
import json, pathlib, sys
import diffusers, torch
from safetensors.torch import save_file

torch.set_num_threads(1)
BATCH, SHAPE, DRAWS = 3, (4, 6, 5), 50

CLASSES = {
    "DDIMScheduler": ("epsilon", "v_prediction", "sample"),
    "DDPMScheduler": ("epsilon", "v_prediction", "sample"),
    "PNDMScheduler": ("epsilon", "v_prediction"),
    "EulerDiscreteScheduler": ("epsilon", "v_prediction", "sample"),
    "EulerAncestralDiscreteScheduler": ("epsilon", "v_prediction"),
    "HeunDiscreteScheduler": ("epsilon", "v_prediction", "sample"),
    "DPMSolverMultistepScheduler": ("epsilon", "v_prediction", "sample"),
    "UniPCMultistepScheduler": ("epsilon", "v_prediction", "sample"),
    "LCMScheduler": ("epsilon", "v_prediction", "sample"),
}
DDIM, DDPM, PNDM, EULER, ANCESTRAL, HEUN, DPM, UNIPC, LCM = CLASSES
SPACINGS = ("leading", "linspace", "trailing")
STABLE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
# What Stable Diffusion 1.5, 2.1, XL and XL Turbo come with.
SD1 = dict(STABLE, _class_name=PNDM, clip_sample=False, num_train_timesteps=1000, set_alpha_to_one=False, skip_prk_steps=True,
           trained_betas=None)
SD2 = dict(SD1, _class_name=DDIM, prediction_type="v_prediction")
SDXL = dict(SD1, _class_name=EULER, interpolation_type="linear", prediction_type="epsilon", sample_max_value=1.0,
            timestep_spacing="leading", use_karras_sigmas=False)
TURBO = dict(SDXL, _class_name=ANCESTRAL, sigma_min=None, sigma_max=None, timestep_spacing="trailing", timestep_type="discrete")
# Solvers by the names that a job gives them, as classes and what overrides the file.
KINDS = {
    "ddim": (DDIM, {}), "ddpm": (DDPM, {}), "pndm": (PNDM, {}), "euler": (EULER, {}), "euler-ancestral": (ANCESTRAL, {}),
    "heun": (HEUN, {}), "unipc": (UNIPC, {}), "lcm": (LCM, {}),
    **{f"dpmpp-2m{'-sde' if sde else ''}{'-karras' if karras else ''}":
       (DPM, dict(algorithm_type=("sde-" if sde else "") + "dpmsolver++", solver_order=2, use_karras_sigmas=karras))
       for sde in (False, True) for karras in (False, True)},
}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INPUTS = {
    "noise": randn(BATCH, *SHAPE, seed=1),
    "clean": 0.6 * randn(BATCH, *SHAPE, seed=2),
    "draws": randn(DRAWS, BATCH, *SHAPE, seed=3),
    "mask": (randn(1, 1, *SHAPE[1:], seed=4) > 0).float(),
}


def model(x, timestep):
    channels = torch.arange(SHAPE[0], dtype=torch.float64).view(1, -1, 1, 1)
    return 0.7 * torch.tanh(x) + (0.3 * torch.sin(float(timestep) / 100 + channels)).float()


def cases():
    def case(cls, steps, strength=None, batch=1, mask=False, kind=None, **config):
        config = {"_class_name": cls, **config}
        config = {key: value for key, value in config.items() if key != "kind"}
        return dict(config=config, steps=steps, strength=strength, batch=batch, mask=mask, kind=kind)

    for cls, predictions in CLASSES.items():
        base = dict(STABLE, skip_prk_steps=True) if cls == PNDM else STABLE
        for spacing in SPACINGS:
            for prediction in predictions:
                for steps in (1, 2, 5, 20, 50) if prediction == "epsilon" else (5, 20):
                    yield case(cls, steps, **base, clip_sample=False, prediction_type=prediction, timestep_spacing=spacing)
        # Image-to-image, inpainting, batches.
        for strength in (0.3, 0.8, 1.0):
            yield case(cls, 5, strength, **base, clip_sample=False, batch=3)
            yield case(cls, 20, strength, **base, clip_sample=False, timestep_spacing="trailing")
        for strength in (0.8, 1.0):
            yield case(cls, 8, strength, mask=True, **base, clip_sample=False)
        # The defaults of the class; another table; the other schedules.
        yield case(cls, 10)
        # The squared cosine starts at sigma 20000. What is left of an image there in float32 is diffusers' own rounding (it
        # is 6e-4 to 3e-3 from a walk in float64), so solvers that carry sigma in x start below.
        strength = 0.8 if cls in (EULER, ANCESTRAL, HEUN) else None
        yield case(cls, 7, strength, **{**base, "beta_schedule": "squaredcos_cap_v2"}, prediction_type="v_prediction")
        yield case(cls, 6, **{**base, "beta_schedule": "linear"}, num_train_timesteps=400)
        yield case(cls, 3, skip_prk_steps=True, num_train_timesteps=60, trained_betas=[0.001 * (i + 1) for i in range(60)], clip_sample=False)
        # No signal at the last timestep; for predictions of noise only where the class keeps a rest of it.
        if cls not in (PNDM, HEUN):
            for spacing in SPACINGS:
                yield case(cls, 9, **base, clip_sample=False, rescale_betas_zero_snr=True, prediction_type="v_prediction",
                           timestep_spacing=spacing)
        if cls in (EULER, ANCESTRAL, DPM, UNIPC):
            yield case(cls, 9, **base, rescale_betas_zero_snr=True, timestep_spacing="trailing")
        # Limits.
        if cls in (DDIM, DDPM, HEUN, LCM):
            yield case(cls, 6, **base, clip_sample=True)
            yield case(cls, 6, **base, clip_sample=True, clip_sample_range=0.5, prediction_type="v_prediction", batch=3)
        if cls in (DDIM, DDPM, LCM, DPM, UNIPC):
            yield case(cls, 6, **base, thresholding=True, sample_max_value=2.0, batch=3)
            yield case(cls, 6, **base, thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1.5)
        # Curves of sigmas.
        if cls in (EULER, HEUN, DPM, UNIPC):
            for curve in ("karras", "exponential", "beta"):
                for steps in (1, 2, 5, 20, 50):
                    if steps < 50 or curve == "karras":
                        yield case(cls, steps, **base, **{f"use_{curve}_sigmas": True})
                yield case(cls, 8, 0.5, **base, **{f"use_{curve}_sigmas": True}, timestep_spacing="trailing")
            yield case(cls, 8, **{**base, "beta_schedule": "squaredcos_cap_v2"}, use_karras_sigmas=True, prediction_type="v_prediction")
        if cls in (EULER, DPM, UNIPC):
            yield case(cls, 8, **base, final_sigmas_type="sigma_min")
            yield case(cls, 8, **base, final_sigmas_type="sigma_min", use_karras_sigmas=True)

    for cls in (DDIM, PNDM):
        for one in (False, True):
            yield case(cls, 4, **STABLE, set_alpha_to_one=one, clip_sample=False, skip_prk_steps=True)
    for variance in ("fixed_small", "fixed_small_log", "fixed_large", None):
        yield case(DDPM, 6, **STABLE, variance_type=variance, clip_sample=False, timestep_spacing="trailing")
    # PNDM with its Runge-Kutta start.
    for steps in (4, 5, 20):
        for prediction in CLASSES[PNDM]:
            yield case(PNDM, steps, **STABLE, prediction_type=prediction)
    for spacing in SPACINGS:
        yield case(PNDM, 12, 0.6, **STABLE, timestep_spacing=spacing)

    yield case(EULER, 8, **STABLE, interpolation_type="log_linear")
    yield case(EULER, 8, **STABLE, interpolation_type="log_linear", use_karras_sigmas=True, sigma_min=0.05, sigma_max=10.0)
    yield case(EULER, 8, **STABLE, timestep_type="continuous", prediction_type="v_prediction", use_karras_sigmas=True)
    yield case(EULER, 8, **STABLE, timestep_type="continuous")
    for cls in (HEUN, DPM, UNIPC):
        yield case(cls, 8, **STABLE, use_karras_sigmas=True, sigma_min=0.05, sigma_max=10.0)

    for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
        for order in (1, 2, 3):
            for solver in ("midpoint", "heun"):
                for steps in (5, 20):
                    yield case(DPM, steps, **STABLE, algorithm_type=algorithm, solver_order=order, solver_type=solver)
        yield case(DPM, 8, **STABLE, algorithm_type=algorithm, solver_order=3, lower_order_final=False, final_sigmas_type="sigma_min")
        yield case(DPM, 20, **STABLE, algorithm_type=algorithm, euler_at_final=True, final_sigmas_type="sigma_min")
        yield case(DPM, 20, **STABLE, algorithm_type=algorithm, final_sigmas_type="sigma_min", use_karras_sigmas=True)
        yield case(DPM, 10, 0.8, **STABLE, algorithm_type=algorithm, batch=3)
        yield case(DPM, 8, 0.8, mask=True, **STABLE, algorithm_type=algorithm)
    for spacing in SPACINGS:
        yield case(DPM, 10, **{**STABLE, "beta_schedule": "squaredcos_cap_v2"}, lambda_min_clipped=-5.1, timestep_spacing=spacing)
    yield case(DPM, 6, **STABLE, algorithm_type="deis", solver_type="logrho", final_sigmas_type="sigma_min")

    for order in (1, 2, 3):
        for steps in (5, 20, 50):
            yield case(UNIPC, steps, **STABLE, solver_order=order)
        for solver in ("bh1", "bh2"):
            yield case(UNIPC, 12, **STABLE, solver_order=order, solver_type=solver, final_sigmas_type="sigma_min")
            yield case(UNIPC, 12, **STABLE, solver_order=order, solver_type=solver, lower_order_final=False, final_sigmas_type="sigma_min")
    yield case(UNIPC, 8, **STABLE, solver_order=3, disable_corrector=[0, 3], solver_type="midpoint")

    for original, scaling in ((50, 10.0), (100, 1.0), (7, 0.01)):
        for steps in (1, 4, 7):
            yield case(LCM, steps, **STABLE, original_inference_steps=original, timestep_scaling=scaling)

    for file in (SD1, SD2, SDXL, TURBO):
        yield dict(config=file, steps=4, strength=None, batch=1, mask=False, kind=None)
        for kind in KINDS:
            yield dict(config=file, steps=6, strength=None, batch=1, mask=False, kind=kind)
    # The ends of the curve of sigmas reach solvers that have no such key of their own.
    for kind in ("heun", "dpmpp-2m-karras", "unipc"):
        yield dict(config=dict(SDXL, sigma_min=0.05, sigma_max=10.0, use_karras_sigmas=True), steps=6, strength=None, batch=1, mask=False,
                   kind=kind)
    yield case(UNIPC, 8, **STABLE, use_karras_sigmas=True, sigma_min=0.05, sigma_max=10.0, final_sigmas_type="sigma_min")
    # What a solver's name does not say is the file's, and what the solver does not know is left alone.
    for kind in ("heun", "pndm", "ddim", "dpmpp-2m", "dpmpp-2m-sde-karras", "unipc"):
        file = dict(SD2, _class_name=DPM, rescale_betas_zero_snr=True, algorithm_type="sde-dpmsolver++", solver_order=3, solver_type="heun",
                    use_karras_sigmas=True, timestep_spacing="trailing")
        yield dict(config=file, steps=6, strength=None, batch=1, mask=False, kind=kind)
    # A file that says which of its values are only its own class's defaults.
    for kind in ("ddim", "euler", "dpmpp-2m"):
        yield dict(config=dict(SD1, timestep_spacing="leading", _use_default_values=["timestep_spacing", "set_alpha_to_one"]), steps=6,
                   strength=None, batch=1, mask=False, kind=kind)


def scheduler_of(case):
    own = getattr(diffusers, case["config"]["_class_name"]).from_config(case["config"])
    if case["kind"] is None:
        return own
    cls, overrides = KINDS[case["kind"]]
    return getattr(diffusers, cls).from_config(own.config, **overrides)


def walk(case):
    scheduler, draws = scheduler_of(case), iter(INPUTS["draws"])
    batch, steps, strength = case["batch"], case["steps"], case["strength"]
    module = sys.modules[type(scheduler).__module__]
    module.randn_tensor = lambda shape, **_: next(draws)[: shape[0]]
    noise, clean = INPUTS["noise"][:batch], INPUTS["clean"][:batch]

    scheduler.set_timesteps(steps)
    timesteps, begin = scheduler.timesteps, 0
    if len(timesteps) > 1 and timesteps[0] == timesteps[1]:
        # diffusers' text-to-image would look the first timestep up, find the second, and run over the end.
        scheduler.set_begin_index(0)
    if strength is not None:
        begin = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
    if strength is None or (case["mask"] and strength == 1.0):
        x = noise * scheduler.init_noise_sigma
    else:
        x = scheduler.add_noise(clean, noise, timesteps[:1].repeat(batch))

    for i, t in enumerate(timesteps):
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x, return_dict=False)[0]
        if case["mask"]:
            kept = clean
            if i < len(timesteps) - 1:
                kept = scheduler.add_noise(clean, noise, torch.tensor([timesteps[i + 1]]))
            x = (1 - INPUTS["mask"]) * kept + INPUTS["mask"] * x
    if hasattr(scheduler, "sigmas"):
        sigmas = scheduler.sigmas[begin : begin + len(timesteps)]
    else:
        alphas = scheduler.alphas_cumprod[timesteps]
        sigmas = ((1 - alphas) / alphas) ** 0.5
    assert torch.isfinite(x).all(), case
    return x, timesteps.float(), sigmas.float()


def main(root):
    root.mkdir(exist_ok=True)
    written, results = [], []
    for case in cases():
        x, timesteps, sigmas = walk(case)
        written.append({**case, "calls": len(timesteps)})
        results.append((x, timesteps, sigmas))
    lines = ",\n".join(json.dumps(case) for case in written)
    (root / "cases.json").write_text(f"[\n{lines}\n]\n")
    names = ("samples", "timesteps", "sigmas")
    packed = {name: torch.cat([result[i].flatten() for result in results]) for i, name in enumerate(names)}
    save_file({**INPUTS, **packed}, root / "values.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "schedulers")
