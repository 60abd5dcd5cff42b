//! How images are seen: a classifier of the images as they are and, where that serves an attribute better, one of their
//! grey forms.
//!
//! Where two attributes go together in nearly every real image, a classifier takes one for the other, and the few images
//! in which they part are too few to teach it better, however often they are drawn. Grey forms take away the most common
//! such shortcut, colour, from attributes that are not about colour; an attribute that is about colour loses by them.
//! Which view an attribute gets is not guessed: held-out real images decide, all groups counting alike.
//!
//! Where the job names other recognisers (ONNX, CLIP), they vote with the trained classifier or in its place. Its features
//! are the gates' features in any case.

use std::path::Path;

use evenset_core::{Progress, Seed};
use evenset_nn::classifier::{Augment, Classifier, ClassifierConfig, Head, ImageSet, Prediction, Sampling};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::calibration::AttributeCalibration;
use crate::gates::{Looks, Scale, Seen, seen};
use crate::nearest::Points;
use crate::recognise::{Agreement, Recogniser, RecogniserConfig, Vote, combine, open};
use crate::{AttributesConfig, RealImages, VerifyError};

/// An attribute that is recognised at least this well, over all groups, is not tried in grey.
const GOOD_ENOUGH: f64 = 0.97;
/// The folder of the grey classifier within the verifier's.
const GREY: &str = "grey";

/// What the classifier of an attribute looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The image as it is.
    Colour,
    /// Its brightness alone, stretched over the whole range.
    Grey,
}

/// The classifiers of a verifier.
pub(crate) struct Sight {
    /// Of all attributes, in their order; its features are the gates' features.
    colour: Classifier,
    /// Of the attributes that are better recognised in grey.
    grey: Option<Classifier>,
    /// The view of each attribute.
    views: Vec<View>,
    /// How the features are brought to mean 0 and deviation 1; as they are until the real images were looked at.
    pub(crate) scale: Option<Scale>,
    /// Who else is asked what an image shows.
    council: Council,
}

/// Recognisers that vote with the trained classifier, or in its place.
pub(crate) struct Council {
    others: Vec<Box<dyn Recogniser>>,
    /// Whether the trained classifier has a vote.
    trained: bool,
    vote: Vote,
}

impl Council {
    /// Opens the job's recognisers.
    pub(crate) fn open(config: &AttributesConfig, attributes: &[(String, Vec<String>)]) -> Result<Self, VerifyError> {
        let is_trained = |recogniser: &&RecogniserConfig| matches!(recogniser, RecogniserConfig::Trained(_));
        let trained = config.recognisers.is_empty() || config.recognisers.iter().any(|r| is_trained(&r));
        let others = config.recognisers.iter().filter(|r| !is_trained(r));
        let others = others.map(|recogniser| open(recogniser, attributes)).collect::<Result<_, _>>()?;
        Ok(Self { others, trained, vote: config.vote })
    }

    /// What all see together. An attribute that no other recogniser covers is the trained classifier's in any case.
    fn consult(&self, heads: &mut [Prediction], images: &ImageSet) -> Result<(), VerifyError> {
        let seen = self.others.iter().map(|other| other.recognise(images)).collect::<Result<Vec<_>, _>>()?;
        for head in heads {
            let own = self.trained.then_some(&*head);
            let others = seen.iter().flatten().filter(|prediction| prediction.name == head.name);
            let votes: Vec<&Prediction> = own.into_iter().chain(others).collect();
            if votes.len() > usize::from(self.trained) {
                *head = agreed(combine(&votes, self.vote)?);
            }
        }
        Ok(())
    }
}

/// The mean prediction, changed so that its likeliest value is the one agreed on: likelier ones are taken away, and
/// everything where there is no agreement.
fn agreed(agreement: Agreement) -> Prediction {
    let Agreement { mut prediction, seen } = agreement;
    for (row, seen) in prediction.probabilities.chunks_exact_mut(prediction.classes.max(1)).zip(seen) {
        let most = seen.and_then(|class| row.get(class as usize).copied()).unwrap_or(-1.0);
        let own = seen.map(|class| class as usize);
        for (class, probability) in row.iter_mut().enumerate() {
            if *probability >= most && Some(class) != own {
                *probability = 0.0;
            }
        }
    }
    prediction
}

impl Sight {
    /// Trains on the real images at `learn`; the ones at `held_out` choose the views, and how well each attribute is
    /// recognised in them is what comes back.
    pub(crate) fn train(
        real: &RealImages,
        learn: &[usize],
        held_out: &[usize],
        config: &AttributesConfig,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<(Self, Vec<AttributeCalibration>), VerifyError> {
        let (images, apart) = (real.images.select(learn.iter().copied()), real.images.select(held_out.iter().copied()));
        let heads = real.heads(learn);
        // Every group is drawn equally often, so that one attribute does not stand in for another.
        let balanced = Sampling::Weighted(real.balancing_weights(learn));
        let fit = |images: &ImageSet, heads: &[Head], sampling: &Sampling, seed: Seed| {
            Classifier::fit(images, heads, sampling, None, &classifier_config(config), seed, progress)
        };
        let colour = fit(&images, &heads, &balanced, seed.derive("colour"))?;
        let mut found = recognition(real, held_out, View::Colour, &colour.predict(&apart)?);

        let weak: Vec<usize> = (0..found.len()).filter(|&a| found[a].group_accuracy < GOOD_ENOUGH).collect();
        let mut grey = None;
        if !weak.is_empty() {
            let weak_heads: Vec<Head> = weak.iter().map(|&a| heads[a].clone()).collect();
            // Without colour there is less to confuse: every value is drawn equally often, and from more images.
            let sampling = Sampling::Weighted(real.value_weights(learn, &weak));
            let classifier = fit(&greyed(&images), &weak_heads, &sampling, seed.derive("grey"))?;
            for in_grey in recognition(real, held_out, View::Grey, &classifier.predict(&greyed(&apart))?) {
                let in_colour = found.iter_mut().find(|found| found.attribute == in_grey.attribute);
                if let Some(worse) = in_colour.filter(|found| found.group_accuracy < in_grey.group_accuracy) {
                    *worse = in_grey;
                }
            }
            grey = found.iter().any(|found| found.view == View::Grey).then_some(classifier);
        }
        let views = found.iter().map(|found| found.view).collect();
        let council = Council::open(config, &real.attributes)?;
        Ok((Self { colour, grey, views, scale: None, council }, found))
    }

    /// What the images look like.
    pub(crate) fn looks(&self, images: &ImageSet) -> Result<Looks, VerifyError> {
        let mut inspection = self.colour.inspect(images)?;
        if let Some(grey) = &self.grey {
            let predictions = grey.predict(&greyed(images))?;
            for (head, view) in inspection.heads.iter_mut().zip(&self.views) {
                let in_grey = predictions.iter().find(|prediction| prediction.name == head.name);
                if let (View::Grey, Some(in_grey)) = (view, in_grey) {
                    *head = in_grey.clone();
                }
            }
        }
        self.council.consult(&mut inspection.heads, images)?;
        Ok(Looks::new(inspection, self.colour.feature_width(), self.scale.as_ref(), images))
    }

    /// The features of the images, each brought to mean 0 and deviation 1 over the real images.
    pub(crate) fn features(&self, images: &ImageSet) -> Result<Points, VerifyError> {
        let mut features = Points::new(self.colour.features(images)?, self.colour.feature_width());
        if let Some(scale) = &self.scale {
            scale.apply(&mut features);
        }
        Ok(features)
    }

    /// How many features an image has.
    pub(crate) fn feature_width(&self) -> usize {
        self.colour.feature_width()
    }

    /// The attributes with their values, in order.
    pub(crate) fn attributes(&self) -> Vec<(String, Vec<String>)> {
        self.colour.heads().map(|(name, values)| (name.to_owned(), values.to_vec())).collect()
    }

    /// Writes the classifiers into `folder`; the scale is kept with the references.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), VerifyError> {
        self.colour.save(folder)?;
        if let Some(grey) = &self.grey {
            let folder = folder.join(GREY);
            std::fs::create_dir_all(&folder).map_err(|source| VerifyError::File { path: folder.clone(), source })?;
            grey.save(&folder)?;
        }
        Ok(())
    }

    pub(crate) fn load(folder: &Path, views: Vec<View>, config: &AttributesConfig) -> Result<Self, VerifyError> {
        let colour = Classifier::load(folder)?;
        let grey = if views.contains(&View::Grey) { Some(Classifier::load(&folder.join(GREY))?) } else { None };
        let attributes: Vec<(String, Vec<String>)> =
            colour.heads().map(|(name, values)| (name.to_owned(), values.to_vec())).collect();
        let council = Council::open(config, &attributes)?;
        Ok(Self { colour, grey, views, scale: None, council })
    }
}

fn classifier_config(config: &AttributesConfig) -> ClassifierConfig {
    let augment = Augment { flip: config.flip, shift: 0 };
    ClassifierConfig { width: config.width, steps: config.steps, augment, ..Default::default() }
}

/// How well each attribute is recognised in held-out images.
fn recognition(
    real: &RealImages,
    held_out: &[usize],
    view: View,
    predictions: &[Prediction],
) -> Vec<AttributeCalibration> {
    let attributes = real.attributes.iter().enumerate();
    attributes
        .filter_map(|(a, (name, classes))| {
            let head = predictions.iter().find(|prediction| prediction.name == *name)?;
            Some(AttributeCalibration::new(name, classes, view, &sightings(real, held_out, a, head)))
        })
        .collect()
}

/// What is seen of one attribute in the held-out images that have a value of it.
pub(crate) fn sightings(real: &RealImages, held_out: &[usize], attribute: usize, head: &Prediction) -> Vec<Seen> {
    let others: Vec<String> = real.attributes.iter().map(|(name, _)| name.clone()).collect();
    let others: Vec<String> = others.into_iter().enumerate().filter(|(a, _)| *a != attribute).map(|(_, n)| n).collect();
    let seen = |(i, &row): (usize, &usize)| {
        Some(seen(head, i, real.labels[row][attribute]?, real.group(row).project(&others)))
    };
    held_out.iter().enumerate().filter_map(seen).collect()
}

/// The brightness of every pixel, each image stretched over the whole range: a red coat and a blue one look alike.
fn greyed(images: &ImageSet) -> ImageSet {
    let all: Vec<&[u8]> = images.iter().collect();
    let grey = |image: &&[u8]| -> Vec<u8> {
        let brightness: Vec<u32> = image
            .chunks_exact(3)
            .map(|pixel| pixel.iter().zip([299, 587, 114]).map(|(&value, part)| u32::from(value) * part).sum())
            .collect();
        let lowest = brightness.iter().copied().min().unwrap_or(0);
        let range = brightness.iter().copied().max().unwrap_or(0).saturating_sub(lowest).max(1000);
        brightness.iter().flat_map(|&value| [(255 * (value - lowest) / range) as u8; 3]).collect()
    };
    let pixels = all.par_iter().flat_map_iter(grey).collect();
    ImageSet::new(images.width(), images.height(), pixels).unwrap_or_else(|_| images.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_grey_a_picture_looks_the_same_in_every_colour_and_brightness() {
        let painted = |red: u32, green: u32, blue: u32| {
            let pixels = (0..64u32).flat_map(|i| [(i * red / 64) as u8, (i * green / 64) as u8, (i * blue / 64) as u8]);
            greyed(&ImageSet::new(8, 8, pixels.collect()).unwrap())
        };
        let (red, blue) = (painted(250, 20, 20), painted(40, 40, 240));
        let farthest = red.pixels().iter().zip(blue.pixels()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(farthest <= 8, "{farthest}");
        assert_eq!((red.pixels().iter().min(), red.pixels().iter().max()), (Some(&0), Some(&255)));
        assert_eq!(painted(0, 0, 0).pixels(), [0; 192]);
    }
}
