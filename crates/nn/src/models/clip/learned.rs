//! Textual inversion (Gal et al. 2022): words whose vectors were learned, kept in files of their own.
//!
//! Read are diffusers' `learned_embeds.safetensors` (one tensor under the word itself), files with `emb_params`, and those
//! for the two encoders of Stable Diffusion XL with `clip_l` and `clip_g`. The last two do not say the word: it is the
//! caller's, or the file's name.
//!
//! A word of several vectors stands for as many tokens: `word`, `word_1`, `word_2`, .., as diffusers'
//! `load_textual_inversion` (0.42) names them.

use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::files::WeightFiles;
use crate::lora::Part;

/// The most vectors of a word: what a text has places for beside its two ends.
const MOST_VECTORS: usize = 75;
/// The longest word in bytes.
const LONGEST_WORD: usize = 256;
/// The names of tensors that do not say the word.
const NAMELESS: [&str; 3] = ["emb_params", "clip_l", "clip_g"];

/// A word with its vectors.
#[derive(Clone, Debug)]
pub struct LearnedToken {
    path: PathBuf,
    word: String,
    /// `[vectors, width]`, for one encoder or for both of Stable Diffusion XL; equally many in both.
    vectors: Vec<(Part, Tensor)>,
}

impl LearnedToken {
    /// Reads a file; `word` replaces the one that it was learned under.
    ///
    /// # Errors
    /// [`Error::Learned`], [`Error::Pickle`], [`Error::Malformed`] and [`Error::File`], naming the file: tensors under
    /// other names, more than 75 vectors, two encoders with unequal numbers of them, values that are not finite.
    pub fn read(path: &Path, word: Option<&str>) -> Result<Self> {
        let refusal = |reason: String| Error::Learned { path: path.to_owned(), reason };
        let files = WeightFiles::open(path)?;
        let names: Vec<&str> = files.names().collect();
        let tensor = |name: &str| vectors(&files, name).map_err(|reason| refusal(format!("`{name}` {reason}")));
        let vectors = match names.as_slice() {
            [only] if *only == "clip_g" => vec![(Part::TextEncoder2, tensor(only)?)],
            [only] => vec![(Part::TextEncoder, tensor(only)?)],
            ["clip_g", "clip_l"] => {
                vec![(Part::TextEncoder, tensor("clip_l")?), (Part::TextEncoder2, tensor("clip_g")?)]
            }
            names => {
                let some: Vec<&str> = names.iter().take(5).copied().collect();
                return Err(refusal(format!(
                    "no textual inversion: it holds {} tensors ({}); one under the learned word, `emb_params`, or `clip_l` \
                     and `clip_g` are expected",
                    names.len(),
                    some.join(", ")
                )));
            }
        };
        if let [(_, a), (_, b)] = vectors.as_slice()
            && a.dim(0)? != b.dim(0)?
        {
            return Err(refusal(format!("{:?} and {:?}: both encoders need equally many vectors", a.dims(), b.dims())));
        }
        let own = names.first().filter(|name| !NAMELESS.contains(name)).map(|name| (*name).to_owned());
        let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let word = word.map(str::to_owned).or(own).or_else(stem).unwrap_or_default();
        if word.is_empty() || word.len() > LONGEST_WORD || word.contains(char::is_whitespace) {
            return Err(refusal(format!("`{word}` cannot be a word; give it one without spaces")));
        }
        Ok(Self { path: path.to_owned(), word, vectors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The word.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// How many tokens the word is.
    pub fn count(&self) -> usize {
        self.vectors.first().map_or(0, |(_, vectors)| vectors.dims().first().copied().unwrap_or_default())
    }

    /// The tokens that the word is, by their names.
    pub fn names(&self) -> Vec<String> {
        let name = |i: usize| if i == 0 { self.word.clone() } else { format!("{}_{i}", self.word) };
        (0..self.count()).map(name).collect()
    }

    /// The vectors `[count, width]` for an encoder.
    ///
    /// # Errors
    /// [`Error::Learned`] where there are none for it, or where they are of another width.
    pub fn rows(&self, part: Part, width: usize) -> Result<&Tensor> {
        let refusal = |reason: String| Error::Learned { path: self.path.clone(), reason };
        let Some((_, rows)) = self.vectors.iter().find(|(of, _)| *of == part) else {
            return Err(refusal(format!(
                "there are no vectors for {part}; a word for Stable Diffusion XL has both `clip_l` and `clip_g`"
            )));
        };
        match rows.dims() {
            [_, found] if *found == width => Ok(rows),
            dims => Err(refusal(format!(
                "vectors of {dims:?} for a {part} of width {width}: the word was learned for another base model"
            ))),
        }
    }
}

/// `[n, width]` of finite numbers, or what is wrong.
fn vectors(files: &WeightFiles, name: &str) -> Result<Tensor, String> {
    let shape = files.shape(name).unwrap_or_default().to_vec();
    let rows = match shape.as_slice() {
        [_] => 1,
        [rows, _] => *rows,
        _ => return Err(format!("is {shape:?}; vectors are expected")),
    };
    if !(1..=MOST_VECTORS).contains(&rows) || shape.contains(&0) {
        return Err(format!("is {shape:?}; 1 to {MOST_VECTORS} vectors are expected"));
    }
    let tensor = files.read_whole(name).map_err(|error| error.to_string())?;
    let values: Vec<f32> = tensor.flatten_all().and_then(|x| x.to_vec1()).map_err(|error| error.to_string())?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(format!("holds {value}: the training had failed; use an earlier checkpoint of it"));
    }
    tensor.reshape((rows, ())).map_err(|error| error.to_string())
}
