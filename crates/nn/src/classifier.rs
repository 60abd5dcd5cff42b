//! A small convolutional classifier with several heads, for checking and judging images, not for winning at them.
//!
//! A stem and a few stages of convolution with stride 2, group normalisation and SiLU, down to about four pixels a side;
//! their mean over the pixels becomes a vector of features, and each attribute has one linear head on it. A 28x28 image
//! costs about 5 MFLOP forward. Everything random comes from one seed, so the same call gives the same weights on any
//! number of threads.

use std::f64::consts::PI;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use evenset_core::{Progress, Seed};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{AdamW, AdamWConfig, Error, Result, Weights, no_grad, ops};

mod images;
mod network;
mod sampling;
mod trunk;

pub use images::ImageSet;
use images::moments;
use network::{Description, HeadDescription, Network};
pub use sampling::{Augment, Sampling};
use sampling::{Change, Rows};

/// Images that go through the network together when it predicts.
const PREDICT_BATCH: usize = 128;
/// Gradients longer than this are scaled down.
const CLIP_NORM: f64 = 1.0;
/// Share of the steps in which the learning rate rises from zero.
const WARM_UP: f64 = 0.05;
/// The classifier's two files in its folder.
const DESCRIPTION_FILE: &str = "classifier.json";
const WEIGHTS_FILE: &str = "classifier.safetensors";

/// One attribute to learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The attribute's name; becomes part of a weight's name, so it is unique among the heads.
    pub name: String,
    /// The names of its classes.
    pub classes: Vec<String>,
    /// For each image an index into `classes`, or `None` where it is unknown: the head learns nothing from that image.
    pub labels: Vec<Option<u32>>,
}

/// Size and training of a [`Classifier`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Channels of the stem, a multiple of four; stages double them up to four times as many, which is also the number of
    /// features.
    pub width: u32,
    /// Gradient steps.
    pub steps: u32,
    /// Images in a step.
    pub batch: u32,
    /// Highest learning rate: reached after a short warm-up, then falling to zero along a cosine.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Random changes to training images.
    pub augment: Augment,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            width: 16,
            steps: 1000,
            batch: 32,
            learning_rate: 5e-3,
            weight_decay: 0.01,
            augment: Augment { flip: false, shift: 0 },
        }
    }
}

/// What one head says about every image.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The attribute's name.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// `[images, classes]`, each row sums to one.
    pub probabilities: Vec<f32>,
}

impl Prediction {
    /// The probabilities of one image; empty beyond the last.
    pub fn row(&self, image: usize) -> &[f32] {
        self.probabilities.get(image * self.classes..(image + 1) * self.classes).unwrap_or_default()
    }

    /// The likeliest class of an image and its probability; of equally likely ones the first.
    pub fn argmax(&self, image: usize) -> (u32, f32) {
        let better = |best: (u32, f32), (class, &p): (usize, &f32)| if p > best.1 { (class as u32, p) } else { best };
        self.row(image).iter().enumerate().fold((0, f32::NEG_INFINITY), better)
    }
}

/// What the network makes of every image, in one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// One prediction for each head, in the heads' order.
    pub heads: Vec<Prediction>,
    /// `[images, feature_width]`: the vector that all heads read.
    pub features: Vec<f32>,
}

/// A trained classifier for images of one size.
#[derive(Debug)]
pub struct Classifier {
    description: Description,
    weights: Weights,
    network: Network,
}

impl Classifier {
    /// Trains on `images`, which stay as they are but for `config.augment`.
    ///
    /// `loss_weights`, one for each image, multiply its loss; a mean of one keeps the step size as it is.
    ///
    /// # Errors
    /// [`Error::Config`] where images, labels and weights do not fit each other, [`Error::Interrupted`] when the
    /// progress asks for an end, [`Error::Tensor`] and [`Error::NonFiniteGradient`] where the arithmetic fails.
    pub fn fit(
        images: &ImageSet,
        heads: &[Head],
        sampling: &Sampling,
        loss_weights: Option<&[f32]>,
        config: &ClassifierConfig,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        check_training(images, heads, sampling, loss_weights, config)?;
        let (mean, deviation) = moments(images);
        let describe = |head: &Head| HeadDescription { name: head.name.clone(), classes: head.classes.clone() };
        let classifier = Self::untrained(
            Description {
                image_width: images.width(),
                image_height: images.height(),
                channels: config.width,
                mean,
                deviation,
                heads: heads.iter().map(describe).collect(),
            },
            seed.derive("weights"),
        )?;
        let optimiser = AdamWConfig { weight_decay: config.weight_decay, ..AdamWConfig::default() };
        let mut optimiser = AdamW::new(classifier.weights.vars(), optimiser);
        let mut rows = Rows::new(images.len(), sampling, seed.derive("rows"));
        progress.begin("train the classifier", u64::from(config.steps));
        for step in 0..config.steps {
            progress.check()?;
            let rows = rows.next(config.batch as usize);
            let x = classifier.augmented(images, &rows, config.augment, seed.derive("augment").index(step.into()))?;
            let features = classifier.network.features(&x)?;
            if let Some(loss) = classifier.loss(&features, heads, &rows, loss_weights)? {
                optimiser.step(&loss.backward()?, learning_rate(config, step), Some(CLIP_NORM))?;
                if step % 50 == 0 {
                    progress.note(&format!("loss {:.3}", loss.to_scalar::<f32>()?));
                }
            }
            progress.advance(1);
        }
        progress.end();
        Ok(classifier)
    }

    /// For each head the probabilities of its classes for every image.
    ///
    /// # Errors
    /// [`Error::Config`] where the images are of another size.
    pub fn predict(&self, images: &ImageSet) -> Result<Vec<Prediction>> {
        Ok(self.inspect(images)?.heads)
    }

    /// The features of every image, `[images, feature_width]`.
    ///
    /// # Errors
    /// [`Error::Config`] where the images are of another size.
    pub fn features(&self, images: &ImageSet) -> Result<Vec<f32>> {
        Ok(self.inspect(images)?.features)
    }

    /// Probabilities and features in one pass. An image's result does not depend on the images beside it.
    ///
    /// # Errors
    /// [`Error::Config`] where the images are of another size.
    pub fn inspect(&self, images: &ImageSet) -> Result<Inspection> {
        let Description { image_width, image_height, heads, .. } = &self.description;
        if (images.width(), images.height()) != (*image_width, *image_height) {
            return Err(Error::Config(format!(
                "the classifier was trained on {image_width}x{image_height} images and is shown {}x{} ones; bring all \
                 images to one size",
                images.width(),
                images.height()
            )));
        }
        let empty = |head: &HeadDescription| Prediction {
            name: head.name.clone(),
            classes: head.classes.len(),
            probabilities: Vec::new(),
        };
        let mut inspection = Inspection { heads: heads.iter().map(empty).collect(), features: Vec::new() };
        let rows: Vec<usize> = (0..images.len()).collect();
        for rows in rows.chunks(PREDICT_BATCH) {
            no_grad(|| -> Result<()> {
                let x = self.augmented(images, rows, Augment::none(), Seed(0))?;
                let features = self.network.features(&x)?;
                for (head, prediction) in self.network.heads.iter().zip(&mut inspection.heads) {
                    let probabilities = ops::softmax(&head.forward(&features)?)?;
                    prediction.probabilities.extend(probabilities.flatten_all()?.to_vec1::<f32>()?);
                }
                inspection.features.extend(features.flatten_all()?.to_vec1::<f32>()?);
                Ok(())
            })?;
        }
        Ok(inspection)
    }

    /// How many features an image has.
    pub fn feature_width(&self) -> usize {
        self.network.feature_width
    }

    /// The heads' names and classes, in order.
    pub fn heads(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.description.heads.iter().map(|head| (head.name.as_str(), head.classes.as_slice()))
    }

    /// Writes `classifier.json` and `classifier.safetensors` into an existing folder.
    ///
    /// # Errors
    /// [`Error::File`] where a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(DESCRIPTION_FILE);
        let text = serde_json::to_vec_pretty(&self.description).map_err(|error| unreadable(&path, &error))?;
        fs::write(&path, text).map_err(|source| Error::File { path, source })?;
        self.weights.save(&folder.join(WEIGHTS_FILE))
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Config`], [`Error::Malformed`] and their like, naming the file.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(DESCRIPTION_FILE);
        let text = fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let description: Description = serde_json::from_slice(&text).map_err(|error| unreadable(&path, &error))?;
        let classifier = Self::untrained(description, Seed(0))?;
        classifier.weights.load(&folder.join(WEIGHTS_FILE))?;
        Ok(classifier)
    }

    fn untrained(description: Description, seed: Seed) -> Result<Self> {
        let weights = Weights::new(seed, &Device::Cpu);
        let network = Network::new(&weights.scope(""), &description)?;
        Ok(Self { description, weights, network })
    }

    /// The mean loss of a batch over its images, summed over the heads; none where no image has a label.
    fn loss(
        &self,
        features: &Tensor,
        heads: &[Head],
        rows: &[usize],
        loss_weights: Option<&[f32]>,
    ) -> Result<Option<Tensor>> {
        let mut total: Option<Tensor> = None;
        for (head, layer) in heads.iter().zip(&self.network.heads) {
            let labels: Vec<Option<u32>> = rows.iter().map(|&row| head.labels[row]).collect();
            let weight = |(&row, label): (&usize, &Option<u32>)| match label {
                Some(_) => loss_weights.map_or(1.0, |weights| weights[row]),
                None => 0.0,
            };
            let weights: Vec<f32> = rows.iter().zip(&labels).map(weight).collect();
            let sum: f32 = weights.iter().sum();
            if sum <= 0.0 {
                continue;
            }
            let labels: Vec<u32> = labels.into_iter().map(Option::unwrap_or_default).collect();
            // The weighted mean, times the sum of the weights over the batch: each image pulls with its own weight.
            let mean = ops::cross_entropy(&layer.forward(features)?, &labels, Some(&weights))?;
            let loss = (mean * f64::from(sum / rows.len() as f32))?;
            total = Some(match total {
                Some(total) => ops::add(&total, &loss)?,
                None => loss,
            });
        }
        Ok(total)
    }

    /// The images at `rows`, changed at random, normalised: `[rows, 3, height, width]`.
    fn augmented(&self, images: &ImageSet, rows: &[usize], augment: Augment, seed: Seed) -> Result<Tensor> {
        let Description { mean, deviation, .. } = &self.description;
        let (width, height, plane) = (images.width(), images.height(), images.width() * images.height());
        let mut values = vec![0f32; rows.len() * 3 * plane];
        values.par_chunks_mut(3 * plane).zip(rows).enumerate().for_each(|(i, (values, &row))| {
            let pixels = images.image(row);
            let change = Change::draw(augment, seed.index(i as u64));
            for y in 0..height {
                let from_row = change.source_row(y, height) * width;
                for x in 0..width {
                    let from = 3 * (from_row + change.source_column(x, width));
                    for (colour, plane) in values.chunks_exact_mut(plane).enumerate() {
                        plane[y * width + x] = (f32::from(pixels[from + colour]) - mean[colour]) / deviation[colour];
                    }
                }
            }
        });
        Ok(Tensor::from_vec(values, (rows.len(), 3, height, width), self.weights.device())?)
    }
}

/// Linear warm-up, then half a cosine down to zero.
fn learning_rate(config: &ClassifierConfig, step: u32) -> f64 {
    let (step, steps) = (f64::from(step), f64::from(config.steps));
    let warm_up = (WARM_UP * steps).ceil();
    if step < warm_up {
        return config.learning_rate * (step + 1.0) / warm_up;
    }
    config.learning_rate * 0.5 * (1.0 + (PI * (step - warm_up) / (steps - warm_up).max(1.0)).cos())
}

fn check_training(
    images: &ImageSet,
    heads: &[Head],
    sampling: &Sampling,
    loss_weights: Option<&[f32]>,
    config: &ClassifierConfig,
) -> Result<()> {
    let rows = images.len();
    let refuse = |reason: String| Err(Error::Config(format!("a classifier cannot be trained: {reason}")));
    if rows == 0 || config.steps == 0 || config.batch == 0 {
        return refuse(format!("{rows} images, {} steps, batches of {}", config.steps, config.batch));
    }
    for Head { name, classes, labels } in heads {
        if labels.len() != rows {
            return refuse(format!("{rows} images have {} labels of `{name}`", labels.len()));
        }
        if let Some(label) = labels.iter().flatten().find(|&&label| label as usize >= classes.len()) {
            return refuse(format!("`{name}` has {} classes but label {label} occurs", classes.len()));
        }
    }
    if let Sampling::Weighted(weights) = sampling {
        let usable = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
        if weights.len() != rows || !usable || weights.iter().sum::<f64>() <= 0.0 {
            return refuse(format!("{rows} images need as many sampling weights, none negative and not all zero"));
        }
    }
    match loss_weights {
        Some(weights)
            if weights.len() != rows || !weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0) =>
        {
            refuse(format!("{rows} images need as many loss weights, none negative"))
        }
        _ => Ok(()),
    }
}

fn unreadable(path: &Path, error: &serde_json::Error) -> Error {
    Error::Config(format!("{}: not the description of a classifier ({error}); train it again", path.display()))
}

#[cfg(test)]
mod tests {
    use evenset_core::Silent;
    use rand::RngExt;

    use super::*;

    /// `n` images of 12x10 pixels: class 0 has a bright left half, class 1 a bright upper half; every third is red.
    fn shapes(n: usize) -> (ImageSet, Vec<Head>) {
        let (width, height) = (12, 10);
        let mut pixels = Vec::new();
        let (mut shape, mut colour) = (Vec::new(), Vec::new());
        for i in 0..n {
            let (upper, red) = (i % 2 == 1, i % 3 == 0);
            let mut rng = Seed(5).index(i as u64).rng();
            for y in 0..height {
                for x in 0..width {
                    let lit = if upper { y < height / 2 } else { x < width / 2 };
                    let level = if lit { 180 } else { 40 } + rng.random_range(0..60u8);
                    pixels.extend([level, if red { 10 } else { level }, if red { 10 } else { level }]);
                }
            }
            shape.push(Some(u32::from(upper)));
            colour.push(if i % 5 == 4 { None } else { Some(u32::from(red)) });
        }
        let head = |name: &str, classes: [&str; 2], labels| Head {
            name: name.to_owned(),
            classes: classes.map(str::to_owned).to_vec(),
            labels,
        };
        let heads = vec![head("shape", ["left", "upper"], shape), head("colour", ["grey", "red"], colour)];
        (ImageSet::new(width, height, pixels).unwrap(), heads)
    }

    fn quick() -> ClassifierConfig {
        ClassifierConfig { width: 8, steps: 150, batch: 16, augment: Augment::standard(12), ..Default::default() }
    }

    fn fit(config: &ClassifierConfig, sampling: &Sampling) -> Classifier {
        let (images, heads) = shapes(60);
        Classifier::fit(&images, &heads, sampling, None, config, Seed(1), &Silent).unwrap()
    }

    fn share_right(classifier: &Classifier) -> [f64; 2] {
        let (images, heads) = shapes(90);
        let predictions = classifier.predict(&images).unwrap();
        [0, 1].map(|head| {
            let labelled = heads[head].labels.iter().enumerate().filter_map(|(i, label)| label.map(|l| (i, l)));
            let right: Vec<bool> = labelled.map(|(i, label)| predictions[head].argmax(i).0 == label).collect();
            right.iter().filter(|&&right| right).count() as f64 / right.len() as f64
        })
    }

    #[test]
    fn training_learns_every_head_though_some_labels_are_missing() {
        let untrained = fit(&ClassifierConfig { steps: 1, ..quick() }, &Sampling::Uniform);
        assert!(share_right(&untrained).iter().any(|&share| share < 0.9));
        let trained = share_right(&fit(&quick(), &Sampling::Uniform));
        assert!(trained.iter().all(|&share| share > 0.97), "{trained:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_weights_on_one_thread_and_on_two() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(&ClassifierConfig { steps: 5, ..quick() }, &Sampling::Uniform).features(&shapes(9).0))
        };
        assert_eq!(on(1).unwrap(), on(2).unwrap());
    }

    #[test]
    fn a_saved_classifier_predicts_the_same_and_an_image_does_not_depend_on_its_batch() {
        let folder = tempfile::tempdir().unwrap();
        let classifier = fit(&quick(), &Sampling::Uniform);
        classifier.save(folder.path()).unwrap();
        let loaded = Classifier::load(folder.path()).unwrap();
        let (images, _) = shapes(PREDICT_BATCH + 3);
        let all = classifier.inspect(&images).unwrap();
        assert_eq!(all, loaded.inspect(&images).unwrap());
        for row in [0, 5, PREDICT_BATCH + 2] {
            let alone = loaded.inspect(&images.select([row])).unwrap();
            assert_eq!(alone.features, all.features[row * 32..(row + 1) * 32]);
            assert_eq!(alone.heads[0].row(0), all.heads[0].row(row));
        }
    }

    #[test]
    fn a_damaged_or_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Classifier::load(folder.path()).unwrap_err().to_string().contains("classifier.json"));
        fs::write(folder.path().join(DESCRIPTION_FILE), "{}").unwrap();
        assert!(Classifier::load(folder.path()).unwrap_err().to_string().contains("classifier.json"));
    }

    #[test]
    fn the_learning_rate_rises_then_falls_to_zero() {
        let config = ClassifierConfig { steps: 100, learning_rate: 1.0, ..Default::default() };
        let rates: Vec<f64> = (0..100).map(|step| learning_rate(&config, step)).collect();
        assert!(rates[..5].is_sorted() && rates[4] == 1.0 && rates[5..].is_sorted_by(|a, b| a >= b));
        assert!(rates[99] < 0.001 && rates[0] > 0.0);
    }

    #[test]
    fn impossible_training_data_is_refused_with_a_reason() {
        let (images, mut heads) = shapes(6);
        let fit = |heads: &[Head], sampling: &Sampling, weights: Option<&[f32]>| {
            Classifier::fit(&images, heads, sampling, weights, &quick(), Seed(1), &Silent).unwrap_err().to_string()
        };
        assert!(fit(&heads, &Sampling::Weighted(vec![0.0; 6]), None).contains("sampling weights"));
        assert!(fit(&heads, &Sampling::Uniform, Some(&[1.0])).contains("loss weights"));
        heads[0].labels[3] = Some(2);
        assert!(fit(&heads, &Sampling::Uniform, None).contains("2 classes but label 2"));
        assert!(ImageSet::new(4, 4, vec![0; 47]).is_err() && ImageSet::new(0, 4, Vec::new()).is_err());
    }
}
