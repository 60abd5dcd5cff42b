//! `evenset generate --prompt`: one image, and `evenset models`.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use evenset_pipeline::models::{Installed, installed};
use evenset_pipeline::single::Single;
use evenset_pipeline::{
    ControlConfig, DeepCache, LoraConfig, Precision, SchedulerKind, StableDiffusionConfig, StatedPrediction,
};

use crate::args::GenerateArgs;
use crate::progress::Reporter;
use crate::verbs::{print, print_json};
use crate::{UsageError, exit};

/// Draws one image and writes it.
pub fn draw(args: &GenerateArgs, prompt: &str, reporter: &Reporter) -> Result<u8> {
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if args.out.is_dir() || !folder.is_dir() {
        return usage(format!("`--out {}`: name a file in a folder that is there", args.out.display()));
    }
    let single = Single {
        model: StableDiffusionConfig {
            download: args.download,
            width: args.width,
            height: args.height,
            dtype: match args.dtype.as_str() {
                "f16" => Precision::F16,
                "bf16" => Precision::Bf16,
                _ => Precision::F32,
            },
            prediction: args.prediction.as_deref().map(|name| match name {
                "v-prediction" => StatedPrediction::VPrediction,
                _ => StatedPrediction::Epsilon,
            }),
            loras: args.lora.iter().map(|text| lora(text)).collect::<Result<_>>()?,
            controls: controls(args)?,
            deep_cache: args.deep_cache.map(DeepCache::every),
            small_decoder: args.small_decoder.clone(),
            ..StableDiffusionConfig::at(args.model.clone().unwrap_or_default())
        },
        prompt: prompt.to_owned(),
        negative_prompt: args.negative.clone(),
        seed: args.seed,
        sampler: args.sampler.as_deref().map(solver).transpose()?,
        steps: args.steps,
        guidance: args.guidance,
        image: args.image.clone().map(|path| (path, args.strength)),
        mask: args.mask.clone(),
        controls: args.control_image.clone(),
    };
    let png = single.draw(reporter)?;
    reporter.finish();
    std::fs::write(&args.out, png).map_err(|error| anyhow!("{}: {error}", args.out.display()))?;
    print(&format!("{}\n", args.out.display()))?;
    Ok(exit::DONE)
}

/// Lists models.
pub fn models(paths: &[PathBuf], check: bool, json: bool, reporter: &Reporter) -> Result<u8> {
    let found = installed(paths, check, reporter)?;
    reporter.finish();
    if json {
        print_json(&found)?;
    } else if found.is_empty() {
        print(
            "no Stable Diffusion models in the hub's cache; name folders or files, or fetch one with `hf download OWNER/NAME`\n",
        )?;
    } else {
        found.iter().try_for_each(|model| print(&described(model)))?;
    }
    Ok(if found.iter().any(|model| model.problem.is_some()) { exit::FAILED } else { exit::DONE })
}

fn described(model: &Installed) -> String {
    let mut text = format!("{}\n", model.name);
    if let Some(family) = &model.family {
        let size = model.bytes as f64 / 1e9;
        text.push_str(&format!("  {family}, {size:.2} GB: {}\n", model.can.join(", ")));
    }
    match (&model.problem, model.verified) {
        (Some(problem), _) => text.push_str(&format!("  cannot be used: {problem}\n")),
        (None, Some(0)) => text.push_str("  whole; no file says which hash it must have\n"),
        (None, Some(files)) => text.push_str(&format!("  whole; {files} files have the hash that they must have\n")),
        (None, None) => {}
    }
    text
}

/// The ControlNets with their weights; each has its picture.
fn controls(args: &GenerateArgs) -> Result<Vec<ControlConfig>> {
    let (nets, pictures, weights) = (args.controlnet.len(), args.control_image.len(), args.control_weight.len());
    if nets != pictures {
        return usage(format!(
            "{nets} `--controlnet` and {pictures} `--control-image`; each network needs its picture, in the same order"
        ));
    }
    if weights > 1 && weights != nets {
        return usage(format!(
            "{weights} `--control-weight` for {nets} `--controlnet`; give one for all of them, or one for each"
        ));
    }
    let weight = |place: usize| args.control_weight.get(place).or(args.control_weight.first()).copied().unwrap_or(1.0);
    let control = |(place, path): (usize, &String)| ControlConfig { weight: weight(place), ..ControlConfig::at(path) };
    Ok(args.controlnet.iter().enumerate().map(control).collect())
}

/// A file with its weight, where one follows a colon.
fn lora(text: &str) -> Result<LoraConfig> {
    let parts = text.rsplit_once(':').filter(|_| !Path::new(text).exists());
    match parts.map(|(path, weight)| (path, weight, weight.parse())) {
        Some((path, _, Ok(weight))) => Ok(LoraConfig { path: path.into(), weight }),
        Some((path, weight, Err(_))) if Path::new(path).is_file() => {
            usage(format!("`--lora {text}`: `{weight}` is no number; write a weight such as 0.8"))
        }
        _ => Ok(LoraConfig { path: text.into(), weight: 1.0 }),
    }
}

/// What the command line says wrong.
fn usage<T>(problem: String) -> Result<T> {
    Err(UsageError(problem).into())
}

fn solver(name: &str) -> Result<SchedulerKind> {
    match SchedulerKind::ALL.into_iter().find(|kind| kind.name() == name) {
        Some(kind) => Ok(kind),
        None => {
            let known: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.name()).collect();
            usage(format!("`--sampler {name}` is not known; expected {}", known.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_follows_a_colon_and_a_solver_goes_by_its_name() {
        let is =
            |text: &str, path: &str, weight| assert_eq!(lora(text).unwrap(), LoraConfig { path: path.into(), weight });
        is("style.safetensors:0.8", "style.safetensors", 0.8);
        is("C:/style.safetensors", "C:/style.safetensors", 1.0);
        let here = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
        assert!(lora(&(here + ":abc")).unwrap_err().to_string().contains("`abc` is no number"));
        assert_eq!(solver("euler").unwrap(), SchedulerKind::Euler);
        assert!(solver("eular").unwrap_err().to_string().contains("expected ddim, ddpm"));
    }
}
