//! Thousands of odd strings become the tokens that transformers' `CLIPTokenizer` makes, with the tokenizer's files of
//! every generation of Stable Diffusion. `tests/golden/make_prompts.py` made the strings.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use evenset_nn::models::clip::{Family, Filling, Tokenizer};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

const LENGTH: usize = 77;

#[derive(Deserialize)]
struct Strings {
    texts: Vec<String>,
    /// Of each text's tokens with those of its ends, for each tokenizer.
    hashes: BTreeMap<String, Vec<u32>>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/prompts").join(name)
}

/// Where the tokenizer of a generation lies.
fn folder(kind: &str) -> PathBuf {
    golden(match kind {
        "sd1" => "sd1/model/tokenizer",
        "sd2" => "sd2/model/tokenizer",
        "saved" => "sdxl/model/tokenizer",
        "xl2" => "sdxl/model/tokenizer_2",
        _ => "tokenizers/added",
    })
}

fn tokenizer(kind: &str) -> Tokenizer {
    Tokenizer::from_folder(&folder(kind), Family::Clip, LENGTH).unwrap()
}

/// FNV-1a over the numbers' bytes.
fn hash(ids: &[u32]) -> u32 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0x811c_9dc5, |value, byte| (value ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_reader(GzDecoder::new(File::open(golden(name)).unwrap())).unwrap()
}

/// Fails where the tokens of a text have another hash than its own.
fn check(kind: &str, tokenizer: &Tokenizer, texts: &[String], hashes: &[u32]) {
    assert!(texts.len() >= 2500 && hashes.len() == texts.len());
    let (start, end) = ends(tokenizer);
    let tokens = |text: &str| [vec![start], tokenizer.pieces(text).unwrap(), vec![end]].concat();
    let different: Vec<_> =
        texts.iter().zip(hashes).filter(|(text, expected)| hash(&tokens(text)) != **expected).collect();
    assert!(different.is_empty(), "{kind}: {} of them: {:?}", different.len(), &different[..different.len().min(20)]);
}

#[test]
fn odd_strings_become_the_tokens_that_transformers_makes() {
    let strings: Strings = read("strings.json.gz");
    assert_eq!(strings.hashes.len(), 5);
    for (kind, hashes) in &strings.hashes {
        check(kind, &tokenizer(kind), &strings.texts, hashes);
    }
}

#[test]
fn the_bundled_tokenizer_makes_the_same_tokens_as_transformers_with_clips_whole_vocabulary() {
    let strings: Strings = read("strings.json.gz");
    let hashes: BTreeMap<String, Vec<u32>> = read("whole.json.gz");
    for (kind, filling, pad) in [("sd1", Filling::End, 49_407), ("sd2", Filling::Exclamation, 0)] {
        let tokenizer = Tokenizer::clip(filling, LENGTH).unwrap();
        assert_eq!((tokenizer.words(), ends(&tokenizer)), (49_408, (49_406, 49_407)));
        assert_eq!(tokenizer.framed(&[])[2..], [pad; 75]);
        check(kind, &tokenizer, &strings.texts, &hashes[kind]);
    }
    // What everybody's tables say.
    let pieces = Tokenizer::clip(Filling::End, LENGTH).unwrap().pieces("a photo of a cat").unwrap();
    assert_eq!(pieces, [320, 1125, 539, 320, 2368]);
}

/// The tokens before and behind a text.
fn ends(tokenizer: &Tokenizer) -> (u32, u32) {
    let empty = tokenizer.framed(&[]);
    (empty[0], empty[1])
}

#[test]
fn what_is_encoded_is_the_pieces_between_the_ends_cut_or_filled_up() {
    for (kind, pad) in [("sd1", None), ("sd2", Some(0)), ("xl2", Some(0)), ("saved", None)] {
        let tokenizer = tokenizer(kind);
        let (start, end) = ends(&tokenizer);
        assert_eq!((tokenizer.room(), tokenizer.before(), end), (75, 1, start + 1), "{kind}");
        for text in ["", "a photo of a red coat", &"a ".repeat(75), &"a coat, ".repeat(40)] {
            let pieces = tokenizer.pieces(text).unwrap();
            let ids = &tokenizer.encode(&[text]).unwrap().ids[0];
            assert_eq!(*ids, tokenizer.framed(&pieces), "{kind}");
            let kept = pieces.len().min(75);
            assert_eq!((ids.len(), ids[0], ids[kept + 1]), (LENGTH, start, end), "{kind}");
            assert_eq!(ids[1..=kept], pieces[..kept], "{kind}");
            assert!(ids[kept + 2..].iter().all(|id| *id == pad.unwrap_or(end)), "{kind}");
        }
    }
}

#[test]
fn the_sign_that_fills_texts_up_is_the_same_token_inside_them() {
    let ids = |kind: &str| tokenizer(kind).pieces("no!").unwrap();
    assert_eq!(*ids("sd2").last().unwrap(), 0);
    assert_eq!(*ids("sd1").last().unwrap(), 256);
}

#[test]
fn added_tokens_have_numbers_behind_the_vocabulary() {
    let tokenizer = tokenizer("added");
    let plain = tokenizer.framed(&[])[1] + 1;
    assert_eq!(tokenizer.pieces("<thing>").unwrap(), [plain]);
    assert_eq!(tokenizer.words(), plain as usize + 2);
}

#[test]
fn a_text_without_room_between_its_ends_is_an_error() {
    for length in 0..3 {
        let error = Tokenizer::from_folder(&folder("sd1"), Family::Clip, length).unwrap_err().to_string();
        assert!(error.contains("no room"), "{error}");
    }
    assert_eq!(Tokenizer::from_folder(&folder("sd1"), Family::Clip, 3).unwrap().room(), 1);
}

#[test]
fn a_tokenizer_file_of_another_kind_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    for text in [
        "{}",
        r#"{"model": []}"#,
        r#"{"model": {"vocab": [], "merges": []}}"#,
        r#"{"model": {"vocab": {}, "merges": []}}"#,
    ] {
        fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        let error = Tokenizer::from_folder(dir.path(), Family::Clip, LENGTH).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }
}
