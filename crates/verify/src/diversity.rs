//! How diverse the accepted images of a group are, next to as many real ones.

use std::collections::BTreeMap;

use evenset_core::{Group, Seed};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::gates::{members, wishes};
use crate::vendi::vendi_score;
use crate::{Candidate, Verifier, VerifyError};

/// Images of a group, real and accepted each, that are looked at: the cost grows with their cube.
const COMPARED: usize = 300;

/// The diversity of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDiversity {
    /// The group that was asked for.
    pub group: Group,
    /// Its real images that the verifier knows.
    pub real: usize,
    /// Its accepted images.
    pub accepted: usize,
    /// How many of each were compared: a score grows with the number of images, so it is the same for both.
    pub compared: usize,
    /// The Vendi score of the real ones, from 1 (all alike) to `compared`; none with fewer than two of either.
    pub real_score: Option<f64>,
    /// The Vendi score of the accepted ones.
    pub accepted_score: Option<f64>,
    /// Both in words.
    pub sentence: String,
}

/// The diversity of every group with accepted images, in the groups' order: the Vendi scores (Friedman and Dieng 2023) of
/// what the verifier's classifier sees in at most 300 images, drawn with `seed`. Empty where no gate needs a classifier.
///
/// # Errors
/// [`VerifyError::UnknownAttribute`] for an attribute that no real image has, [`VerifyError::Classifier`] and
/// [`VerifyError::Tensor`].
pub fn diversity_report(
    verifier: &Verifier,
    accepted: &[Candidate],
    seed: Seed,
) -> Result<Vec<GroupDiversity>, VerifyError> {
    let Some(known) = verifier.known() else { return Ok(Vec::new()) };
    let mut groups = BTreeMap::<&Group, Vec<&Candidate>>::new();
    for candidate in accepted.iter().filter(|candidate| verifier.fits(candidate)) {
        groups.entry(&candidate.group).or_default().push(candidate);
    }
    let one = |(group, mut images): (&Group, Vec<&Candidate>)| -> Result<GroupDiversity, VerifyError> {
        let mut rows = members(&wishes(images[0], verifier.attributes())?, &known.values);
        let (real, accepted) = (rows.len(), images.len());
        let compared = real.min(accepted).min(COMPARED);
        let mut rng = seed.derive(&group.to_string()).rng();
        images.shuffle(&mut rng);
        rows.shuffle(&mut rng);
        let (mut real_score, mut accepted_score) = (None, None);
        if compared > 1 {
            real_score = vendi_score(&known.looks.features.select(rows.into_iter().take(compared)));
            accepted_score = vendi_score(&verifier.looks(&images[..compared])?.features);
        }
        let sentence = match (real_score, accepted_score) {
            (Some(real), Some(accepted)) => format!(
                "{group}: {compared} accepted images are as diverse as {accepted:.1} wholly different ones, {compared} real images as {real:.1}"
            ),
            _ => format!("{group}: {real} real and {accepted} accepted images are too few to compare"),
        };
        Ok(GroupDiversity { group: group.clone(), real, accepted, compared, real_score, accepted_score, sentence })
    };
    groups.into_iter().map(one).collect()
}
