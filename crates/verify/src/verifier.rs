//! The cascade: trained on real images, asked about candidates.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use evenset_core::{Group, Progress, Seed};
use evenset_nn::classifier::ImageSet;
use serde::{Deserialize, Serialize};

use crate::calibration::{Calibration, GroupRecall};
use crate::gates::{
    Aim, Attributes, Decode, DecodeLimits, Gate, InDistribution, InDistributionLimit, Looks, Novelty, NoveltyLimits,
    Outcome, Ruling, Scale, Shown, Wish, wishes,
};
use crate::sight::{Sight, sightings};
use crate::stored::{References, Stored};
use crate::{AttributesConfig, DecodeConfig, GateConfig, RealImages, Share, VerifyError};

/// A generated image and what it was asked to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The place of its request: of two copies the one with the lower index is kept.
    pub request_index: usize,
    /// What it was asked to be.
    pub group: Group,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The pixels, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

/// What the gates say about a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Whether every gate kept it.
    pub accepted: bool,
    /// Why it was dropped; starts with the gate's name.
    pub reject_reason: Option<String>,
    /// The gate that dropped it.
    pub gate: Option<String>,
    /// The score of every gate that it was shown to.
    pub scores: BTreeMap<String, f64>,
}

/// The gates of a job, ready to be asked.
pub struct Verifier {
    width: usize,
    height: usize,
    attributes: Arc<Vec<(String, Vec<String>)>>,
    calibration: Calibration,
    /// The classifiers; none where no gate asks them.
    sight: Option<Sight>,
    /// The cheapest first.
    cascade: Vec<Box<dyn Gate>>,
}

impl Verifier {
    /// Trains the classifier on real images and finds the gates' limits on real images that were held out, then, with a
    /// folder, writes the verifier there. Gates are asked in the order of their cost, whatever the order in the job.
    ///
    /// # Errors
    /// [`VerifyError::Setting`] and [`VerifyError::Repeated`] for impossible gates, [`VerifyError::TooFew`],
    /// [`VerifyError::Rows`] and [`VerifyError::NoAttributes`] for impossible images, [`VerifyError::File`] where the
    /// folder cannot be written, [`VerifyError::Classifier`] where training fails or is interrupted.
    pub fn train(
        real: &RealImages,
        gates: &[GateConfig],
        seed: Seed,
        folder: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Self, VerifyError> {
        let gates = cascade_order(gates)?;
        real.check()?;
        let (learn, held_out) = real.split(seed.derive("held out"));
        let mut stored = Stored {
            width: real.images.width(),
            height: real.images.height(),
            attributes: real.attributes.clone(),
            calibration: Calibration {
                learned_from: learn.len(),
                held_out: held_out.len(),
                attributes: Vec::new(),
                groups: Vec::new(),
                decode: DecodeLimits::calibrate(&decode_config(&gates), &real.images),
                in_distribution: None,
                novelty: None,
            },
            gates,
        };
        let mut trained = None;
        if stored.gates.iter().any(needs_sight) {
            let config = attributes_config(&stored.gates);
            let seed = seed.derive("classifier");
            let (mut sight, recognised) = Sight::train(real, &learn, &held_out, &config, seed, progress)?;
            stored.calibration.attributes = recognised;
            let references = calibrate(&mut stored, real, &learn, &held_out, &mut sight)?;
            trained = Some((sight, references));
        }
        if let Some(folder) = folder {
            stored.save(folder, trained.as_ref())?;
        }
        Ok(Self::assemble(stored, trained))
    }

    /// Reads what [`train`](Self::train) wrote.
    ///
    /// # Errors
    /// [`VerifyError::File`], [`VerifyError::Malformed`] and [`VerifyError::Classifier`], naming the file.
    pub fn load(folder: &Path) -> Result<Self, VerifyError> {
        let (stored, trained) = Stored::load(folder)?;
        Ok(Self::assemble(stored, trained))
    }

    /// Asks the gates about candidates. `earlier` are candidates that were accepted in earlier rounds: copies of them are
    /// dropped too. The verdicts come in the order of the candidates.
    ///
    /// Splitting the candidates into batches, in the order of their requests and with the accepted ones of earlier batches
    /// in `earlier`, gives the same verdicts and scores.
    ///
    /// # Errors
    /// [`VerifyError::UnknownAttribute`] where a candidate was asked for with an attribute that no real image has,
    /// [`VerifyError::Interrupted`], [`VerifyError::Classifier`] and [`VerifyError::Tensor`].
    pub fn verify(
        &self,
        candidates: &[Candidate],
        earlier: &[Candidate],
        progress: &dyn Progress,
    ) -> Result<Vec<Verdict>, VerifyError> {
        for candidate in candidates {
            wishes(candidate, &self.attributes)?;
        }
        let fits = |candidate: &&Candidate| {
            (candidate.width as usize, candidate.height as usize) == (self.width, self.height)
                && candidate.rgb.len() == 3 * self.width * self.height
        };
        let earlier: Vec<&Candidate> = earlier.iter().filter(fits).collect();
        let earlier = self.looks(&earlier)?;

        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by_key(|&i| candidates[i].request_index);
        let mut verdicts = vec![
            Verdict { accepted: true, reject_reason: None, gate: None, scores: BTreeMap::new() };
            candidates.len()
        ];
        let shown = order.iter().map(|&i| &candidates[i]).collect();
        let mut shown = Shown { candidates: shown, looks: Looks::default(), earlier: &earlier };
        progress.begin("verify", self.cascade.len() as u64);
        for (place, gate) in self.cascade.iter().enumerate() {
            progress.check()?;
            progress.note(gate.name());
            // Whatever comes after `decode` looks at images of the right size.
            if place == 1 {
                shown.looks = self.looks(&shown.candidates)?;
            }
            let outcomes = gate.check(&shown)?;
            shown.retain(&outcomes);
            order = record(&mut verdicts, order, gate.name(), outcomes);
            progress.advance(1);
        }
        progress.end();
        Ok(verdicts)
    }

    /// What was measured on real images.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The gates' names, in the order in which they are asked.
    pub fn gate_names(&self) -> Vec<&'static str> {
        self.cascade.iter().map(|gate| gate.name()).collect()
    }

    fn assemble(stored: Stored, trained: Option<(Sight, References)>) -> Self {
        let Stored { width, height, gates, attributes, calibration } = stored;
        let attributes = Arc::new(attributes);
        let mut cascade: Vec<Box<dyn Gate>> = Vec::new();
        let (sight, references) = match trained {
            Some((sight, References { real, labels })) => (Some(sight), Some((Arc::new(real), labels))),
            None => (None, None),
        };
        for gate in gates {
            match (gate, &references) {
                (GateConfig::Decode(_), _) => cascade.push(Box::new(Decode::new(width, height, calibration.decode))),
                (GateConfig::Attributes(_), Some(_)) => {
                    let thresholds = calibration.thresholds();
                    cascade.push(Box::new(Attributes::new(attributes.to_vec(), thresholds)));
                }
                (GateConfig::InDistribution(config), Some((real, labels))) => {
                    let limit = calibration.in_distribution.unwrap_or(InDistributionLimit { distance: None });
                    let attributes = Arc::clone(&attributes);
                    cascade.push(Box::new(InDistribution::new(&config, limit, attributes, &real.features, labels)));
                }
                (GateConfig::Novelty(_), Some((real, _))) => {
                    let limits = calibration.novelty.unwrap_or(NoveltyLimits { pixels: 0.0, features: 0.0 });
                    cascade.push(Box::new(Novelty::new(limits, Arc::clone(real))));
                }
                // `train` and `load` give references wherever a gate needs them.
                (_, None) => {}
            }
        }
        Self { width, height, attributes, calibration, sight, cascade }
    }

    fn looks(&self, candidates: &[&Candidate]) -> Result<Looks, VerifyError> {
        let Some(sight) = &self.sight else { return Ok(Looks::default()) };
        let pixels = candidates.iter().flat_map(|candidate| &candidate.rgb).copied().collect();
        sight.looks(&ImageSet::new(self.width, self.height, pixels)?)
    }
}

/// Writes a gate's outcomes into the verdicts; gives the candidates that go on.
fn record(verdicts: &mut [Verdict], order: Vec<usize>, gate: &str, outcomes: Vec<Outcome>) -> Vec<usize> {
    let mut kept = Vec::with_capacity(order.len());
    for (i, outcome) in order.into_iter().zip(outcomes) {
        let verdict = &mut verdicts[i];
        verdict.scores.insert(gate.to_owned(), outcome.score);
        match outcome.ruling {
            Ruling::Keep => kept.push(i),
            Ruling::Drop(reason) => {
                verdict.accepted = false;
                verdict.gate = Some(gate.to_owned());
                verdict.reject_reason = Some(reason);
            }
        }
    }
    kept
}

/// The gates from the cheapest to the dearest; `decode` is always there, since the others need images of the right size,
/// and `novelty` comes last, since only accepted candidates make others copies.
fn cascade_order(gates: &[GateConfig]) -> Result<Vec<GateConfig>, VerifyError> {
    let mut ordered = Vec::new();
    for standard in GateConfig::default_cascade() {
        let mut named = gates.iter().filter(|gate| gate.name() == standard.name());
        match (named.next(), named.next()) {
            (Some(gate), None) => {
                gate.check()?;
                ordered.push(gate.clone());
            }
            (Some(gate), Some(_)) => return Err(VerifyError::Repeated(gate.name())),
            (None, _) if matches!(standard, GateConfig::Decode(_)) => ordered.push(standard),
            (None, _) => {}
        }
    }
    Ok(ordered)
}

fn needs_sight(gate: &GateConfig) -> bool {
    !matches!(gate, GateConfig::Decode(_))
}

fn decode_config(gates: &[GateConfig]) -> DecodeConfig {
    let config = |gate: &GateConfig| if let GateConfig::Decode(config) = gate { Some(config.clone()) } else { None };
    gates.iter().find_map(config).unwrap_or_default()
}

fn attributes_config(gates: &[GateConfig]) -> AttributesConfig {
    let config =
        |gate: &GateConfig| if let GateConfig::Attributes(config) = gate { Some(config.clone()) } else { None };
    gates.iter().find_map(config).unwrap_or_default()
}

/// Measures on real images what the gates need, and gathers the real images' looks.
fn calibrate(
    stored: &mut Stored,
    real: &RealImages,
    learn: &[usize],
    held_out: &[usize],
    sight: &mut Sight,
) -> Result<References, VerifyError> {
    let mut looks = sight.looks(&real.images)?;
    let scale = Scale::of(&looks.features);
    scale.apply(&mut looks.features);
    sight.scale = Some(scale);
    let apart = looks.select(held_out);
    let mut labels = vec![None; looks.len()];
    for &row in learn {
        labels[row] = real.labels[row].first().copied().flatten();
    }
    for gate in &stored.gates {
        match gate {
            GateConfig::Decode(_) => {}
            GateConfig::Attributes(config) => {
                let aim = Aim { false_accept: config.false_accept, fixed: config.threshold };
                for (a, attribute) in stored.calibration.attributes.iter_mut().enumerate() {
                    if let Some(head) = apart.heads.get(a) {
                        attribute.set_thresholds(&sightings(real, held_out, a, head), aim);
                    }
                }
                let gate = Attributes::new(real.attributes.clone(), stored.calibration.thresholds());
                stored.calibration.groups = recall(&gate, real, held_out, &apart);
            }
            GateConfig::InDistribution(config) => {
                let attributes = Arc::new(real.attributes.clone());
                let limit = InDistributionLimit { distance: None };
                let gate = InDistribution::new(config, limit, attributes, &looks.features, &labels);
                let of_apart: Vec<Option<u32>> =
                    held_out.iter().map(|&row| real.labels[row].first().copied().flatten()).collect();
                let (_, limit) = gate.calibrate(config, &apart, &of_apart, &real.balancing_weights(held_out))?;
                stored.calibration.in_distribution = Some(limit);
            }
            GateConfig::Novelty(config) => stored.calibration.novelty = Some(NoveltyLimits::calibrate(config, &looks)?),
        }
    }
    looks.heads.clear();
    Ok(References { real: looks, labels })
}

/// How many held-out real images of each group the gate would keep if they had been asked for.
fn recall(gate: &Attributes, real: &RealImages, held_out: &[usize], looks: &Looks) -> Vec<GroupRecall> {
    let mut groups = BTreeMap::<Group, (u64, u64)>::new();
    for (i, &row) in held_out.iter().enumerate() {
        let wish = |(head, class): (usize, &Option<u32>)| Some(Wish { head, class: Some((*class)? as usize) });
        let wishes: Vec<Wish> = real.labels[row].iter().enumerate().filter_map(wish).collect();
        let kept = gate.judge(looks, i, &wishes).ruling == Ruling::Keep;
        let of_group = groups.entry(real.group(row)).or_default();
        of_group.0 += u64::from(kept);
        of_group.1 += 1;
    }
    groups.into_iter().map(|(group, (kept, all))| GroupRecall { group, share: Share::new(kept, all) }).collect()
}
