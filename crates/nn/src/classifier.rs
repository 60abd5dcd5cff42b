//! A small classifier with several heads, for checking and judging images, not for winning at them.
//!
//! [`Architecture`] says what it is made of. With convolutions, a stem and a few stages of convolution with stride 2, group normalisation and SiLU, down to about four pixels a side;
//! their mean over the pixels becomes a vector of features, and each attribute has one linear head on it. A 28x28 image
//! costs about 5 MFLOP forward. The others are layers of units on all pixels or on given features, and heads alone. Everything random comes from one seed, so the same call gives the same weights on any
//! number of threads.

use std::fs;
use std::path::Path;

use candle_core::Device;
use evenset_core::{Progress, Seed};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Weights, no_grad, ops};

mod cnn;
mod images;
mod inputs;
mod mlp;
mod network;
mod objective;
mod rand_augment;
mod sampling;
mod training;
mod trunk;

pub use images::ImageSet;
use inputs::{Changes, batch};
pub use inputs::{FeatureSet, Inputs};
pub use network::Architecture;
use network::{Description, HeadDescription, InputShape, Network};
pub use objective::Objective;
pub use rand_augment::RandAugment;
pub use sampling::{Augment, Sampling};
pub use training::{Checks, Kept, Training};

/// Images that go through the network together when it predicts.
const PREDICT_BATCH: usize = 128;
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// What it is made of.
    pub architecture: Architecture,
    /// With convolutions: channels of the stem, a multiple of four; stages double them up to four times as many, which is
    /// also the number of features.
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
    /// Stronger ones, after those.
    pub rand_augment: RandAugment,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::Cnn,
            width: 16,
            steps: 1000,
            batch: 32,
            learning_rate: 5e-3,
            weight_decay: 0.01,
            augment: Augment { flip: false, shift: 0 },
            rand_augment: RandAugment::none(),
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
    /// Trains on `images`, which stay as they are but for `config.augment` and `config.rand_augment`.
    ///
    /// `loss_weights`, one for each image, multiply its loss; a mean of one keeps the step size as it is.
    /// [`train`](Self::train) can do more.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn fit(
        images: &ImageSet,
        heads: &[Head],
        sampling: &Sampling,
        loss_weights: Option<&[f32]>,
        config: &ClassifierConfig,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (inputs, objective) = (Inputs::Images(images), Objective::Mean);
        let training = Training { inputs, heads, sampling, loss_weights, objective, config, seed };
        Ok(Self::train(&training, None, progress)?.0)
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
        self.inspect_inputs(&Inputs::Images(images))
    }

    /// [`inspect`](Self::inspect) for images or feature vectors.
    ///
    /// # Errors
    /// [`Error::Config`] where the inputs are not of the kind and size of those in training.
    pub fn inspect_inputs(&self, inputs: &Inputs<'_>) -> Result<Inspection> {
        match (self.description.input, inputs.shape()) {
            (expected, found) if expected == found => {}
            (InputShape::Image { width, height }, InputShape::Image { width: w, height: h }) => {
                return Err(Error::Config(format!(
                    "the classifier was trained on {width}x{height} images and is shown {w}x{h} ones; bring all images \
                     to one size"
                )));
            }
            (expected, found) => {
                return Err(Error::Config(format!(
                    "the classifier was trained on {expected} and is shown {found}; show it what it was trained on"
                )));
            }
        }
        let empty = |head: &HeadDescription| Prediction {
            name: head.name.clone(),
            classes: head.classes.len(),
            probabilities: Vec::new(),
        };
        let heads = self.description.heads.iter().map(empty).collect();
        let mut inspection = Inspection { heads, features: Vec::new() };
        let (rows, device): (Vec<usize>, _) = ((0..inputs.len()).collect(), self.weights.device());
        for rows in rows.chunks(PREDICT_BATCH) {
            no_grad(|| -> Result<()> {
                let x = batch(inputs, rows, Changes::none(), Seed(0), &self.description, device)?;
                let features = self.network.features(&x)?;
                for (logits, prediction) in self.network.logits(&features)?.iter().zip(&mut inspection.heads) {
                    let probabilities = ops::softmax(logits)?;
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

    /// What a training makes, before any step.
    fn describe(training: &Training<'_>) -> Description {
        let Training { inputs, heads, config, .. } = training;
        let (mean, deviation) = inputs.moments();
        let describe = |head: &Head| HeadDescription { name: head.name.clone(), classes: head.classes.clone() };
        Description {
            architecture: config.architecture.clone(),
            input: inputs.shape(),
            channels: config.width,
            mean,
            deviation,
            heads: heads.iter().map(describe).collect(),
        }
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
    fn the_fully_connected_network_and_the_linear_one_learn_are_saved_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (images, heads) = shapes(60);
        let features: Vec<f32> = images.iter().flat_map(|image| image[..90].iter().map(|&v| f32::from(v))).collect();
        let features = FeatureSet::new(90, features).unwrap();
        let linear = ClassifierConfig { architecture: Architecture::Linear, ..quick() };
        let mlp = ClassifierConfig { architecture: Architecture::Mlp(vec![20, 10]), ..quick() };
        for (config, inputs) in [
            (&mlp, Inputs::Images(&images)),
            (&mlp, Inputs::Features(&features)),
            (&linear, Inputs::Features(&features)),
        ] {
            let training = Training {
                inputs,
                heads: &heads[..1],
                sampling: &Sampling::Uniform,
                loss_weights: None,
                objective: Objective::Mean,
                config,
                seed: Seed(2),
            };
            let (classifier, kept) = Classifier::train(&training, None, &Silent).unwrap();
            assert_eq!(kept, None);
            let all = classifier.inspect_inputs(&inputs).unwrap();
            let right = (0..60).filter(|&i| Some(all.heads[0].argmax(i).0) == heads[0].labels[i]).count();
            assert!(right >= 58, "{right} of 60 with {:?}", config.architecture);
            classifier.save(folder.path()).unwrap();
            let loaded = Classifier::load(folder.path()).unwrap();
            assert_eq!(loaded.inspect_inputs(&inputs).unwrap(), all);
            if let Inputs::Features(_) = inputs {
                let error = loaded.inspect(&images).unwrap_err().to_string();
                assert!(error.contains("90 features and is shown 12x10 images"), "{error}");
            }
        }
    }

    #[test]
    fn the_weights_of_the_best_look_are_kept_and_heads_alone_can_be_trained() {
        let (images, heads) = shapes(60);
        let heads = &heads[..1];
        let config = ClassifierConfig { steps: 40, ..quick() };
        let training = Training {
            inputs: Inputs::Images(&images),
            heads,
            sampling: &Sampling::Uniform,
            loss_weights: None,
            objective: Objective::Mean,
            config: &config,
            seed: Seed(2),
        };
        // Looks after 15, 30 and 40 steps; the judge likes the first best, and remembers what it saw.
        let seen = std::cell::RefCell::new(Vec::new());
        let judge = |classifier: &Classifier| {
            let mut seen = seen.borrow_mut();
            seen.push(classifier.features(&images)?);
            Ok([if seen.len() == 1 { 1.0 } else { 0.0 }, 0.0])
        };
        let checks = Checks { every: 15, judge: &judge };
        let (classifier, kept) = Classifier::train(&training, Some(&checks), &Silent).unwrap();
        assert_eq!(kept, Some(Kept { step: 15, score: [1.0, 0.0] }));
        assert_eq!(seen.borrow().len(), 3);
        let (features, before) = (classifier.features(&images).unwrap(), classifier.predict(&images).unwrap());
        assert_eq!(features, seen.borrow()[0]);
        assert_eq!(classifier.train_heads(&training, None, &Silent).unwrap(), None);
        assert_eq!(classifier.features(&images).unwrap(), features);
        assert_ne!(classifier.predict(&images).unwrap(), before);
    }

    #[test]
    fn every_objective_learns() {
        let (images, heads) = shapes(60);
        let groups: Vec<u32> = (0..60).map(|i| i % 2 + 2 * (i % 3 / 2)).collect();
        for objective in [Objective::Mixup { alpha: 0.2 }, Objective::GroupDro { groups: &groups, step: 0.01 }] {
            let config = ClassifierConfig { rand_augment: RandAugment::moderate(), ..quick() };
            let training = Training {
                inputs: Inputs::Images(&images),
                heads: &heads[..1],
                sampling: &Sampling::Uniform,
                loss_weights: None,
                objective,
                config: &config,
                seed: Seed(2),
            };
            let (classifier, _) = Classifier::train(&training, None, &Silent).unwrap();
            let label = &classifier.predict(&images).unwrap()[0];
            let right = (0..60).filter(|&i| Some(label.argmax(i).0) == heads[0].labels[i]).count();
            assert!(right >= 57, "{right} of 60 with {objective:?}");
        }
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
