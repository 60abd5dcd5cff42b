//! CLIP and SigLIP as recognisers: which sentence describes the image best.
//!
//! Each value of an attribute is put into the job's sentences; the mean of the sentences' embeddings stands for the value
//! (Radford et al. 2021, section 3.1.4), and softmax over the values gives the probabilities. SigLIP scores every pair of
//! image and sentence by itself, `sigmoid(logit)`; that exactly one of the values is true has then the probability
//! `p_i prod(1 - p_j)` up to a factor, which is softmax of the logits again.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use evenset_nn::classifier::{ImageSet, Prediction};
use evenset_nn::models::LoadOptions;
use evenset_nn::models::clip::{ClipModel, ImageProcessor, Tokenizer};
use evenset_nn::{no_grad, ops};

use super::classes::values_of;
use super::{Recogniser, ZeroShotConfig};
use crate::VerifyError;

/// What stands for a value in a sentence.
const PLACE: &str = "{value}";
/// Images that go through the network together.
const IMAGES: usize = 16;
/// Sentences that go through the network together.
const SENTENCES: usize = 32;
/// The most sentences of an attribute: values times sentences.
const MOST_SENTENCES: usize = 100_000;

/// A CLIP or SigLIP model with the sentences of a job.
#[derive(Debug)]
pub struct ZeroShot {
    model: ClipModel,
    processor: ImageProcessor,
    /// The attributes' names, and for each value an embedding of length one: `[values, width]`.
    attributes: Vec<(String, Tensor)>,
}

impl ZeroShot {
    /// Reads the model and encodes the sentences for the job's `attributes`.
    ///
    /// # Errors
    /// [`VerifyError::Model`] where attributes or values of the configuration are not the job's, or a sentence has no
    /// place for the value; [`VerifyError::Classifier`], naming the file, where the folder holds no such model.
    pub fn open(config: &ZeroShotConfig, attributes: &[(String, Vec<String>)]) -> Result<Self, VerifyError> {
        let sentences = sentences(config, attributes)?;
        let path = &config.path;
        if !path.join("config.json").is_file() {
            let reason =
                "no CLIP or SigLIP model here; name a folder with config.json, model.safetensors and a tokenizer";
            return Err(VerifyError::Model { path: path.clone(), reason: reason.into() });
        }
        let model = ClipModel::from_pretrained(path, &Device::Cpu, LoadOptions::default())?;
        let (text, vision) = (model.config().text, model.config().vision);
        let preprocessor = path.join("preprocessor_config.json");
        let processor = match preprocessor.is_file() {
            true => ImageProcessor::read(&preprocessor, vision.family, vision.image)?,
            false => ImageProcessor::standard(vision.family, vision.image),
        };
        let tokenizer = Tokenizer::from_folder(path, text.family, text.positions)?;
        let encode = |(name, values): (String, Vec<Vec<String>>)| {
            let rows = values.iter().map(|sentences| embedding(&model, &tokenizer, sentences));
            let rows: Vec<Tensor> = rows.collect::<Result<_, VerifyError>>()?;
            Ok::<_, VerifyError>((name, Tensor::stack(&rows, 0)?))
        };
        let attributes = sentences.into_iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Self { model, processor, attributes })
    }
}

impl Recogniser for ZeroShot {
    fn name(&self) -> &'static str {
        "clip"
    }

    fn recognise(&self, images: &ImageSet) -> Result<Vec<Prediction>, VerifyError> {
        let empty = |(name, texts): &(String, Tensor)| {
            Ok(Prediction { name: name.clone(), classes: texts.dim(0)?, probabilities: Vec::new() })
        };
        let mut predictions: Vec<Prediction> = self.attributes.iter().map(empty).collect::<Result<_, VerifyError>>()?;
        let rows: Vec<usize> = (0..images.len()).collect();
        for rows in rows.chunks(IMAGES) {
            no_grad(|| -> Result<(), VerifyError> {
                let pixels = self.processor.process(&images.select(rows.iter().copied()))?;
                let embeds = self.model.image_embeds(&pixels)?;
                for ((_, texts), prediction) in self.attributes.iter().zip(&mut predictions) {
                    let shares = ops::softmax(&self.model.logits(&embeds, texts)?)?;
                    prediction.probabilities.extend(shares.flatten_all()?.to_vec1::<f32>()?);
                }
                Ok(())
            })?;
        }
        Ok(predictions)
    }
}

/// The mean of the sentences' embeddings, each of length one. `[width]`.
fn embedding(model: &ClipModel, tokenizer: &Tokenizer, sentences: &[String]) -> Result<Tensor, VerifyError> {
    let mut parts = Vec::new();
    for sentences in sentences.chunks(SENTENCES) {
        let tokens = tokenizer.encode(sentences)?;
        let embeds = no_grad(|| model.text_embeds(&tokens))?;
        let lengths = embeds.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
        parts.push(embeds.broadcast_div(&lengths)?);
    }
    Ok(Tensor::cat(&parts, 0)?.mean(0)?)
}

/// For each attribute that the configuration names, and each of its values, the sentences.
#[allow(clippy::type_complexity)]
fn sentences(
    config: &ZeroShotConfig,
    attributes: &[(String, Vec<String>)],
) -> Result<Vec<(String, Vec<Vec<String>>)>, VerifyError> {
    let path: &Path = &config.path;
    let failed = |reason: String| VerifyError::Model { path: path.to_owned(), reason };
    if config.prompts.is_empty() {
        return Err(failed(
            "`prompts` names no attribute; write `{attribute: \"a photo of a {value} object\"}`".into(),
        ));
    }
    if let Some(attribute) = config.words.keys().find(|attribute| !config.prompts.contains_key(*attribute)) {
        return Err(failed(format!("`words` speaks of `{attribute}`, for which `prompts` has no sentence")));
    }
    let mut all = Vec::new();
    for (attribute, prompts) in &config.prompts {
        let values = values_of(path, attribute, attributes)?;
        let words = config.words.get(attribute);
        for value in words.into_iter().flat_map(|words| words.keys()) {
            if !values.contains(value) {
                let listed = values.join(", ");
                return Err(failed(format!("`words` has `{value}`, which is no value of `{attribute}`: {listed}")));
            }
        }
        let written = prompts.sentences();
        if let Some(bare) = written.iter().find(|sentence| !sentence.contains(PLACE)) {
            return Err(failed(format!(
                "the sentence {bare:?} for `{attribute}` has no `{PLACE}` in it; write where the value stands"
            )));
        }
        if written.is_empty() || values.is_empty() || written.len().saturating_mul(values.len()) > MOST_SENTENCES {
            let (sentences, values) = (written.len(), values.len());
            return Err(failed(format!(
                "{sentences} sentences and {values} values of `{attribute}` cannot be compared; write 1 to {MOST_SENTENCES} in all"
            )));
        }
        let of_value = |value: &String| {
            let words = words.and_then(|words| words.get(value)).unwrap_or(value);
            written.iter().map(|sentence| sentence.replace(PLACE, words)).collect()
        };
        all.push((attribute.clone(), values.iter().map(of_value).collect()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Vec<(String, Vec<String>)> {
        vec![("colour".to_owned(), vec!["navy".to_owned(), "red".to_owned()])]
    }

    /// Each attribute with the sentences of each of its values.
    type Sentences = Vec<(String, Vec<Vec<String>>)>;

    fn sentences_of(text: &str) -> Result<Sentences, String> {
        let config: ZeroShotConfig = serde_json::from_str(text).unwrap();
        sentences(&config, &attributes()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_value_is_put_into_every_sentence_in_its_words() {
        let found = sentences_of(
            r#"{"path":"clip","prompts":{"colour":["a {value} coat","{value} and {value}"]},"words":{"colour":{"navy":"dark blue"}}}"#,
        );
        let expected = [["a dark blue coat", "dark blue and dark blue"], ["a red coat", "red and red"]];
        assert_eq!(
            found.unwrap(),
            [("colour".to_owned(), expected.map(|list| list.map(str::to_owned).to_vec()).to_vec())]
        );
    }

    #[test]
    fn what_does_not_fit_the_job_is_refused_by_name() {
        for (text, expected) in [
            (r#"{"path":"clip","prompts":{"color":"a {value}"}}"#, "did you mean `colour`"),
            (r#"{"path":"clip","prompts":{"colour":"a red coat"}}"#, "has no `{value}`"),
            (r#"{"path":"clip","prompts":{}}"#, "names no attribute"),
            (r#"{"path":"clip","prompts":{"colour":[]}}"#, "0 sentences"),
            (r#"{"path":"clip","prompts":{"colour":"{value}"},"words":{"colour":{"blue":"x"}}}"#, "`blue`"),
            (r#"{"path":"clip","prompts":{"colour":"{value}"},"words":{"kind":{}}}"#, "`kind`"),
        ] {
            let error = sentences_of(text).unwrap_err();
            assert!(error.starts_with("clip: ") && error.contains(expected), "{error}");
        }
    }
}
