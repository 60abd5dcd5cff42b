//! Textual inversion, and what Stable Diffusion XL takes from its text encoders.

use std::fs;
use std::path::Path;

use candle_core::{DType, Tensor};
use evenset_nn::models::LoadOptions;
use evenset_nn::models::clip::{ClipTextEncoder, Family, LearnedToken, TextAdditions, Tokenizer};
use evenset_nn::{Part, no_grad};

use crate::{CPU, assert_near, golden, ids, parts, tensors};

const TEXT: &str = "recognise/text-encoder-early";

fn words() -> Vec<LearnedToken> {
    vec![
        LearnedToken::read(&parts("words/learned_embeds.safetensors"), None).unwrap(),
        LearnedToken::read(&parts("words/style.safetensors"), None).unwrap(),
    ]
}

fn encoder(learned: &[LearnedToken]) -> evenset_nn::Result<ClipTextEncoder> {
    let additions = TextAdditions { learned, ..TextAdditions::none(Part::TextEncoder) };
    ClipTextEncoder::from_pretrained_with(&golden(TEXT), CPU, LoadOptions::default(), &additions)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(&golden("recognise/clip-f16"), Family::Clip, 16).unwrap()
}

#[test]
fn learned_words_are_tokenised_and_encoded_as_diffusers_does() {
    let io = tensors(&parts("words/io.safetensors"));
    let words = words();
    let (mut tokenizer, encoder) = (tokenizer(), encoder(&words).unwrap());
    tokenizer.add_learned(&words, encoder.model().config().vocabulary - 4).unwrap();
    let tokens = tokenizer.encode(&["a <cat> in style", "red", "a photo of <cat>, <cat> dog"]).unwrap();
    let expected: Vec<Vec<u32>> = io["ids"].to_dtype(DType::U32).unwrap().to_vec2().unwrap();
    assert_eq!(tokens.ids, expected);
    let tokens = evenset_nn::models::clip::Tokens::unmasked(tokens.ids);
    no_grad(|| {
        assert_near("learned words", &encoder.model().encode(&tokens, 0).unwrap(), &io["last"]);
        let (before, embeds) = encoder.encode_xl(&tokens, 0).unwrap();
        assert_near("learned words, before the last layer", &before, &io["before"]);
        assert_near("learned words, embeds", &embeds, &io["embeds"]);
    });
}

#[test]
fn stable_diffusion_xl_takes_the_states_before_the_last_layer_and_the_projected_end() {
    for name in [TEXT, "recognise/text-encoder"] {
        let encoder = ClipTextEncoder::from_pretrained(&golden(name), CPU, LoadOptions::default()).unwrap();
        let (io, tokens) = (tensors(&golden(name).join("io.safetensors")), ids(name));
        let state = |i: usize| io["hidden"].narrow(1, i, 1).unwrap().squeeze(1).unwrap();
        for skip in [0, 1] {
            let (states, embeds) = no_grad(|| encoder.encode_xl(&tokens, skip)).unwrap();
            assert_near(&format!("{name}, {skip} skipped"), &states, &state(1 - skip));
            assert_near(&format!("{name}, embeds"), &embeds, &io["embeds"]);
        }
        let error = no_grad(|| encoder.encode_xl(&tokens, 2)).unwrap_err().to_string();
        assert!(error.contains("clip_skip of 2"), "{error}");
    }
}

#[test]
fn a_file_for_both_encoders_has_vectors_for_each() {
    let path = parts("words/both.safetensors");
    let word = LearnedToken::read(&path, Some("<style>")).unwrap();
    assert_eq!((word.word(), word.count()), ("<style>", 2));
    assert_eq!(word.names(), ["<style>", "<style>_1"]);
    assert_eq!(word.rows(Part::TextEncoder, 32).unwrap().dims(), [2, 32]);
    assert_eq!(word.rows(Part::TextEncoder2, 48).unwrap().dims(), [2, 48]);
    let message = word.rows(Part::TextEncoder2, 32).unwrap_err().to_string();
    assert!(message.contains("[2, 48]") && message.contains("32") && message.contains("both.safetensors"), "{message}");
    assert_eq!(LearnedToken::read(&path, None).unwrap().word(), "both");
    let message = words()[0].rows(Part::TextEncoder2, 32).unwrap_err().to_string();
    assert!(message.contains("text_encoder_2"), "{message}");
}

#[test]
fn words_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("word.safetensors");
    let refusal = |tensors: &[(&str, Tensor)], word: Option<&str>| {
        let tensors = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone()));
        candle_core::safetensors::save(&tensors.collect(), &path).unwrap();
        let message = LearnedToken::read(&path, word).unwrap_err().to_string();
        assert!(message.contains("word.safetensors"), "{message}");
        message
    };
    let ones = |dims: &[usize]| Tensor::ones(dims, DType::F32, CPU).unwrap();
    assert!(refusal(&[("a", ones(&[1, 4])), ("b", ones(&[1, 4]))], None).contains("2 tensors"));
    assert!(refusal(&[("clip_l", ones(&[1, 4])), ("clip_g", ones(&[2, 4]))], None).contains("equally many"));
    assert!(refusal(&[("a", ones(&[76, 4]))], None).contains("75"));
    assert!(refusal(&[("a", ones(&[1, 2, 2]))], None).contains("vectors are expected"));
    assert!(refusal(&[("a b", ones(&[4]))], None).contains("without spaces"));
    assert!(refusal(&[("a", ones(&[4]))], Some("")).contains("cannot be a word"));
    let nan = Tensor::new(&[f32::NAN, 1.0], CPU).unwrap();
    assert!(refusal(&[("a", nan)], None).contains("NaN"));
    fs::write(&path, b"PK\x03\x04").unwrap();
    assert!(LearnedToken::read(&path, None).unwrap_err().to_string().contains("pickle"));

    let words = words();
    let vocabulary = encoder(&[]).unwrap().model().config().vocabulary;
    let twice = [words[0].clone(), words[0].clone()];
    assert!(tokenizer().add_learned(&twice, vocabulary).unwrap_err().to_string().contains("exists already"));
    assert!(tokenizer().add_learned(&words, vocabulary + 1).unwrap_err().to_string().contains("different models"));
    let message = encoder(&[LearnedToken::read(&parts("words/both.safetensors"), None).unwrap()]).err();
    assert!(message.is_none(), "32 numbers are what the encoder has");
    let learned = [words[0].clone()];
    let additions = TextAdditions { learned: &learned, ..TextAdditions::none(Part::TextEncoder) };
    let dir: &Path = &golden(TEXT);
    let trained = ClipTextEncoder::from_pretrained_with(dir, CPU, LoadOptions::trainable(), &additions);
    assert!(trained.unwrap_err().to_string().contains("constants"));
}
