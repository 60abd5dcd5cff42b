//! Prompts as the network sees them.

use std::collections::HashMap;
use std::fs;

use candle_core::{DType, Device, Tensor};
use evenset_diffusion::stable_diffusion::{
    Additions, Components, Conditioning, LongPrompts, ModelFolder, Prompt, PromptOptions, TextEncoders,
};
use evenset_nn::models::Variant;
use serde::Deserialize;

use crate::{FAMILIES, copy, golden, model, set};

const CPU: &Device = &Device::Cpu;

#[derive(Deserialize)]
struct Case {
    name: String,
    prompts: Vec<String>,
    prompts_2: Option<Vec<String>>,
    negative: Option<Vec<String>>,
    negative_2: Option<Vec<String>>,
    clip_skip: Option<usize>,
    mode: String,
}

impl Case {
    fn prompts(&self) -> Vec<Prompt> {
        let at = |texts: &Option<Vec<String>>, i: usize| texts.as_ref().map(|texts| texts[i].clone());
        let prompt = |(i, text): (usize, &String)| Prompt {
            text: text.clone(),
            text_2: at(&self.prompts_2, i),
            // The cases of this project's own have an empty negative prompt where none is written.
            negative: at(&self.negative, i).or_else(|| (self.mode != "diffusers").then(String::new)),
            negative_2: at(&self.negative_2, i),
        };
        self.prompts.iter().enumerate().map(prompt).collect()
    }

    fn options(&self) -> PromptOptions {
        PromptOptions {
            long_prompts: if self.mode == "diffusers" { LongPrompts::Cut } else { LongPrompts::Windows },
            emphasis: self.mode == "emphasis",
            clip_skip: self.clip_skip.unwrap_or(0),
        }
    }
}

fn load(family: &str, dtype: DType) -> Components {
    let folder = ModelFolder::open(&model(family), Variant::Whole).unwrap();
    Components::load(&folder, &Additions::default(), CPU, dtype).unwrap()
}

fn encoders(family: &str) -> TextEncoders {
    load(family, DType::F32).text
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// `|found - expected| / |expected|` in the L2 norm.
fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    let norm = |x: Vec<f32>| x.into_iter().map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (found, expected) = (values(found), values(expected));
    norm(found.iter().zip(&expected).map(|(a, b)| a - b).collect()) / norm(expected).max(f64::MIN_POSITIVE)
}

/// All that a case's prompts become, one image behind another.
fn encoded(text: &TextEncoders, case: &Case) -> Vec<(&'static str, Tensor)> {
    let all: Vec<_> = case.prompts().iter().map(|prompt| text.encode(prompt, case.options(), true).unwrap()).collect();
    let positive = Conditioning::stack(&all.iter().map(|one| &one.positive).collect::<Vec<_>>()).unwrap();
    let negatives: Vec<_> = all.iter().map(|one| one.negative.as_ref().unwrap()).collect();
    let negative = Conditioning::stack(&negatives).unwrap();
    let mut found = vec![("positive", positive.tokens), ("negative", negative.tokens)];
    found.extend(positive.pooled.map(|pooled| ("pooled", pooled)));
    found.extend(negative.pooled.map(|pooled| ("negative_pooled", pooled)));
    found
}

fn cases(family: &str) -> (Vec<Case>, HashMap<String, Tensor>) {
    let cases = serde_json::from_slice(&fs::read(golden(family).join("cases.json")).unwrap()).unwrap();
    (cases, candle_core::safetensors::load(golden(family).join("io.safetensors"), CPU).unwrap())
}

#[test]
fn prompts_become_what_diffusers_makes_of_them() {
    for family in FAMILIES {
        let (text, (cases, io)) = (encoders(family), cases(family));
        assert!(cases.len() >= 11);
        let mut worst = 0f64;
        for case in &cases {
            let found = encoded(&text, case);
            assert_eq!(found.len(), if family == "sdxl" { 4 } else { 2 });
            for (key, found) in found {
                let name = format!("{}.{key}", case.name);
                assert_eq!(found.dims(), io[&name].dims(), "{family} {name}");
                let error = relative_error(&found, &io[&name]);
                assert!(error < 1e-4, "{family} {name}: {error}");
                worst = worst.max(error);
            }
        }
        println!("{family}: {worst:.1e}");
    }
}

#[test]
fn weights_in_half_the_memory_give_nearly_the_same() {
    for family in FAMILIES {
        let (text, (cases, io)) = (load(family, DType::F16).text, cases(family));
        for (key, found) in encoded(&text, &cases[0]) {
            let error = relative_error(&found, &io[&format!("plain.{key}")]);
            assert!(error < 1e-2, "{family} {key}: {error}");
        }
    }
}

#[test]
fn a_prompt_does_not_depend_on_what_was_encoded_before() {
    let options = PromptOptions::default();
    let (a, b) = (Prompt::new("a red coat").without("blurry"), Prompt::new("a shoe ".repeat(50)).without("blurry"));
    let bits = |text: &TextEncoders, prompt| {
        let found = text.encode(prompt, options, true).unwrap();
        [found.positive.tokens, found.negative.unwrap().tokens]
            .map(|x| values(&x).into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    for family in FAMILIES {
        let used = encoders(family);
        let first = bits(&used, &a);
        bits(&used, &b);
        assert_eq!(bits(&used, &a), first, "{family}");
        assert_eq!(bits(&used, &b), bits(&encoders(family), &b), "{family}");
    }
}

#[test]
fn a_long_prompt_is_seen_whole_or_cut() {
    let text = encoders("sd1");
    let prompt = Prompt::new("a ".repeat(76)).without("blurry");
    let with = |long_prompts| PromptOptions { long_prompts, ..PromptOptions::default() };
    let windows = text.encode(&prompt, with(LongPrompts::Windows), true).unwrap();
    assert_eq!((windows.tokens(), windows.negative.unwrap().tokens.dims()[1]), (154, 154));
    let cut = text.encode(&prompt, with(LongPrompts::Cut), true).unwrap();
    assert_eq!((cut.tokens(), cut.negative.unwrap().tokens.dims()[1]), (77, 77));
    assert_eq!(values(&cut.positive.tokens), values(&windows.positive.tokens.narrow(1, 0, 77).unwrap()));
    // Without guidance there is no negative prompt whose length could matter.
    let short = Prompt::new("a coat").without("a ".repeat(76));
    let unguided = text.encode(&short, with(LongPrompts::Windows), false).unwrap();
    assert_eq!((unguided.tokens(), unguided.negative.is_none()), (77, true));
}

#[test]
fn images_with_different_numbers_of_tokens_are_not_stacked() {
    let text = encoders("sd1");
    let encode = |words: String| text.encode(&Prompt::new(words), PromptOptions::default(), false).unwrap().positive;
    let (short, long) = (encode("a".into()), encode("a ".repeat(76)));
    assert!(Conditioning::stack(&[&short, &long]).is_err());
    assert_eq!(Conditioning::stack(&[&short, &short]).unwrap().tokens.dims(), [2, 77, 12]);
}

#[test]
fn prompts_that_cannot_be_read_say_why() {
    let (sd, xl) = (encoders("sd1"), encoders("sdxl"));
    let refusal =
        |text: &TextEncoders, prompt: Prompt, options| text.encode(&prompt, options, true).unwrap_err().to_string();
    let plain = PromptOptions::default();
    let novel = refusal(&sd, Prompt::new("coat ".repeat(10_000)), plain);
    assert!(novel.contains("tokens are more than the 1200") && novel.contains("long_prompts: cut"), "{novel}");
    let counted: usize = novel.split("its ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(counted >= 10_000, "{novel}");
    let cut = PromptOptions { long_prompts: LongPrompts::Cut, ..plain };
    assert!(sd.encode(&Prompt::new("coat ".repeat(10_000)), cut, true).is_ok());
    let huge = refusal(&sd, Prompt::new("x".repeat(300_000)), cut);
    assert!(huge.contains("300000 bytes") && huge.len() < 400, "{huge}");
    let second = Prompt { text_2: Some("an oil painting".into()), ..Prompt::new("a") };
    assert!(refusal(&sd, second, plain).contains("one text encoder"));
    let emphasis = PromptOptions { emphasis: true, ..plain };
    let weight = refusal(&sd, Prompt::new("a (red:1.2.3) coat"), emphasis);
    assert!(weight.contains("1.2.3") && weight.contains("a (red"), "{weight}");
    assert!(sd.encode(&Prompt::new("a (red:1.2.3) coat"), plain, true).is_ok());
    let skip = PromptOptions { clip_skip: 9, ..plain };
    assert!(refusal(&sd, Prompt::new("a"), skip).contains("clip_skip"));
    assert!(refusal(&xl, Prompt::new("a"), skip).contains("clip_skip"));
}

#[test]
fn no_negative_prompt_is_zeros_for_xl_unless_its_model_says_otherwise() {
    let encode = |text: &TextEncoders, prompt: Prompt| {
        text.encode(&prompt, PromptOptions::default(), true).unwrap().negative.unwrap()
    };
    let is_zero = |x: &Tensor| values(x).iter().all(|x| *x == 0.0);
    let xl = encoders("sdxl");
    let none = encode(&xl, Prompt::new("a coat"));
    assert!(is_zero(&none.tokens) && is_zero(&none.pooled.unwrap()));
    let empty = encode(&xl, Prompt::new("a coat").without(""));
    assert!(!is_zero(&empty.tokens) && !is_zero(empty.pooled.as_ref().unwrap()));
    let dir = copy("sdxl");
    set(&dir.path().join("model_index.json"), "force_zeros_for_empty_prompt", false.into());
    let folder = ModelFolder::open(dir.path(), Variant::Whole).unwrap();
    let found =
        encode(&Components::load(&folder, &Additions::default(), CPU, DType::F32).unwrap().text, Prompt::new("a coat"));
    assert_eq!(values(&found.tokens), values(&empty.tokens));
}

#[test]
fn filling_is_hidden_where_the_text_encoder_asks_for_it() {
    let dir = copy("sd1");
    set(&dir.path().join("text_encoder/config.json"), "use_attention_mask", true.into());
    let folder = ModelFolder::open(dir.path(), Variant::Whole).unwrap();
    let hidden = Components::load(&folder, &Additions::default(), CPU, DType::F32).unwrap().text;
    let encode = |text: &TextEncoders| {
        text.encode(&Prompt::new("a coat"), PromptOptions::default(), false).unwrap().positive.tokens
    };
    let (hidden, seen) = (encode(&hidden), encode(&encoders("sd1")));
    let part = |x: &Tensor, from, count| values(&x.narrow(1, from, count).unwrap());
    assert_eq!(part(&hidden, 0, 3), part(&seen, 0, 3));
    assert_ne!(part(&hidden, 40, 30), part(&seen, 40, 30));
}
