//! The cascade: trained on real images, asked about candidates.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use evenset_core::{Group, Progress, Seed};
use evenset_nn::classifier::{FeatureSet, ImageSet};
use serde::{Deserialize, Serialize};

use crate::calibration::{AttributeCalibration, Calibration, GroupRecall};
use crate::config::attributes_config;
use crate::corrected::{CorrectedCount, Sighting, corrected};
use crate::gates::{
    Aim, Attributes, Decode, DecodeLimits, Diversity, DiversityLimit, Gate, InDistribution, InDistributionLimit, Looks,
    Novelty, NoveltyLimits, OrderedGate, Outcome, ProgramGate, Ruling, Safety, Scale, Shown, Wish, wishes,
};
use crate::nearest::Points;
use crate::shortage;
use crate::sight::{Council, Sight, sightings};
use crate::stored::{References, Stored};
use crate::{DecodeConfig, GateConfig, RealImages, Share, ShortcutConfig, VerifyError};

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
    /// Why there is no image to look at, where there is none: its generator met NaN, or refused to draw it.
    pub flaw: Option<String>,
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
    /// What is known of the real images; none without classifiers.
    known: Option<KnownImages>,
    diversity: Option<DiversityLimit>,
    shortcut: Option<ShortcutConfig>,
    /// Gates that look at one image by itself, the cheapest first.
    cascade: Vec<Box<dyn Gate>>,
    /// Gates that compare it with the ones kept before.
    ordered: Vec<Box<dyn OrderedGate>>,
    /// The user's programs: the dearest.
    programs: Vec<ProgramGate>,
}

/// What a verifier knows of the real images that it was trained on.
pub(crate) struct KnownImages {
    pub(crate) looks: Arc<Looks>,
    /// Their values of all attributes.
    pub(crate) values: Vec<Vec<Option<u32>>>,
    /// Which of them the classifier did not learn from.
    pub(crate) held_out: Vec<bool>,
}

impl Verifier {
    /// Finds out whether the gates can be used on images with these attributes (names, each with its values), before
    /// anything is trained: recognisers and safety models are opened, their classes compared with the values, and every
    /// program is looked for.
    ///
    /// # Errors
    /// What [`GateConfig::check_among`] says of impossible gates, [`VerifyError::Model`],
    /// [`VerifyError::File`] and [`VerifyError::Classifier`] for a model that is not there or does not fit, naming the
    /// file, [`VerifyError::CannotStart`] for a program that is not there.
    pub fn preflight(gates: &[GateConfig], attributes: &[(String, Vec<String>)]) -> Result<(), VerifyError> {
        let gates = cascade_order(gates, attributes)?;
        Council::open(&attributes_config(&gates), attributes)?;
        for gate in gates {
            match gate {
                GateConfig::Safety(config) => drop(Safety::open(&config)?),
                GateConfig::Command(config) => ProgramGate::new(config).look_for()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Trains the classifier on real images and finds the gates' limits on real images that were held out, then, with a
    /// folder, writes the verifier there. Gates are asked in the order of their cost, whatever the order in the job.
    ///
    /// # Errors
    /// What [`GateConfig::check_among`] says of impossible gates, [`VerifyError::TooFew`],
    /// [`VerifyError::Rows`] and [`VerifyError::NoAttributes`] for impossible images, [`VerifyError::File`] where the
    /// folder cannot be written, [`VerifyError::Classifier`] where training fails or is interrupted.
    pub fn train(
        real: &RealImages,
        gates: &[GateConfig],
        seed: Seed,
        folder: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Self, VerifyError> {
        let gates = cascade_order(gates, &real.attributes)?;
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
            diversity: None,
            gates,
        };
        let mut trained = None;
        if stored.gates.iter().any(GateConfig::needs_sight) {
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
        Self::assemble(stored, trained)
    }

    /// Reads what [`train`](Self::train) wrote.
    ///
    /// # Errors
    /// [`VerifyError::File`], [`VerifyError::Malformed`] and [`VerifyError::Classifier`], naming the file.
    pub fn load(folder: &Path) -> Result<Self, VerifyError> {
        let (stored, trained) = Stored::load(folder)?;
        Self::assemble(stored, trained)
    }

    /// Asks the gates about candidates. `earlier` are candidates that were accepted in earlier rounds: copies of them are
    /// dropped too. The verdicts come in the order of the candidates.
    ///
    /// Splitting the candidates into batches, in the order of their requests and with the accepted ones of earlier batches
    /// in `earlier`, gives the same verdicts and scores, as long as programs answer alike whatever else they are asked.
    ///
    /// # Errors
    /// [`VerifyError::UnknownAttribute`] where a candidate was asked for with an attribute that no real image has,
    /// [`VerifyError::Program`] and [`VerifyError::Temporary`] where a program fails, [`VerifyError::Interrupted`],
    /// [`VerifyError::Classifier`] and [`VerifyError::Tensor`].
    pub fn verify(
        &self,
        candidates: &[Candidate],
        earlier: &[Candidate],
        progress: &dyn Progress,
    ) -> Result<Vec<Verdict>, VerifyError> {
        for candidate in candidates {
            wishes(candidate, &self.attributes)?;
        }
        let earlier_candidates: Vec<&Candidate> = earlier.iter().filter(|candidate| self.fits(candidate)).collect();
        let earlier = self.looks(&earlier_candidates)?;

        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by_key(|&i| candidates[i].request_index);
        let mut verdicts = vec![
            Verdict { accepted: true, reject_reason: None, gate: None, scores: BTreeMap::new() };
            candidates.len()
        ];
        let shown = order.iter().map(|&i| &candidates[i]).collect();
        let mut shown = Shown {
            candidates: shown,
            looks: Looks::default(),
            earlier: &earlier,
            earlier_candidates: &earlier_candidates,
        };
        progress.begin("verify", self.gate_names().len() as u64);
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
        if self.cascade.len() < 2 {
            shown.looks = self.looks(&shown.candidates)?;
        }
        if !self.ordered.is_empty() || !self.programs.is_empty() {
            let judgements = in_order(&self.ordered, &self.programs, &shown, progress)?;
            for (i, judgement) in order.into_iter().zip(judgements) {
                for (gate, outcome) in judgement {
                    enter(&mut verdicts[i], gate, outcome);
                }
            }
            progress.advance((self.ordered.len() + self.programs.len()) as u64);
        }
        progress.end();
        Ok(verdicts)
    }

    /// What was measured on real images.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Where real images were too few to calibrate a gate, and how many are needed: one sentence each.
    pub fn shortages(&self) -> Vec<String> {
        shortage::sentences(&self.calibration, self.diversity)
    }

    /// The gates' names, in the order in which they are asked.
    pub fn gate_names(&self) -> Vec<&str> {
        let (alone, ordered) =
            (self.cascade.iter().map(|gate| gate.name()), self.ordered.iter().map(|gate| gate.name()));
        alone.chain(ordered).chain(self.programs.iter().map(ProgramGate::name)).collect()
    }

    /// The limit of `diversity`, if the gate is there.
    pub fn diversity_limit(&self) -> Option<DiversityLimit> {
        self.diversity
    }

    /// The settings of `shortcut`, if the job names it: a check of whole sets (see
    /// [`shortcut_report`](crate::shortcut_report)).
    pub fn shortcut(&self) -> Option<&ShortcutConfig> {
        self.shortcut.as_ref()
    }

    /// What the classifier sees in images, as vectors in which distances mean something; none where no gate needs a
    /// classifier.
    ///
    /// # Errors
    /// [`VerifyError::Classifier`] where the images are of another size.
    pub fn features(&self, images: &ImageSet) -> Result<Option<FeatureSet>, VerifyError> {
        let Some(sight) = &self.sight else { return Ok(None) };
        let Points { values, width } = sight.features(images)?;
        Ok(Some(FeatureSet::new(width, values)?))
    }

    /// How many of the accepted candidates truly have each value that they were asked for, for each attribute that the gate
    /// `attributes` checks (see [`corrected`]). Empty without that gate.
    ///
    /// # Errors
    /// [`VerifyError::UnknownAttribute`], [`VerifyError::Classifier`], [`VerifyError::Tensor`] and
    /// [`VerifyError::Interrupted`].
    pub fn corrected_counts(
        &self,
        candidates: &[Candidate],
        verdicts: &[Verdict],
        progress: &dyn Progress,
    ) -> Result<Vec<(String, Vec<CorrectedCount>)>, VerifyError> {
        // What `decode` dropped was never looked at.
        let seen = candidates
            .iter()
            .zip(verdicts)
            .filter(|(candidate, verdict)| self.fits(candidate) && verdict.scores.contains_key("attributes"));
        let (seen, verdicts): (Vec<&Candidate>, Vec<&Verdict>) = seen.unzip();
        let looks = self.looks(&seen)?;
        let mut sightings: Vec<Vec<Sighting>> = vec![Vec::new(); self.attributes.len()];
        for (row, (candidate, verdict)) in seen.iter().zip(verdicts).enumerate() {
            for Wish { head, class } in wishes(candidate, &self.attributes)? {
                let (Some(wanted), Some(prediction)) = (class, looks.heads.get(head)) else { continue };
                // Where recognisers do not agree, nothing is seen.
                let (seen, probability) = prediction.argmax(row);
                if let Some(sightings) = sightings.get_mut(head).filter(|_| probability > 0.0) {
                    sightings.push(Sighting { wanted, seen: seen as usize, accepted: verdict.accepted });
                }
            }
        }
        let known = self.calibration.attributes.iter().zip(sightings);
        let count = |(known, seen): (&AttributeCalibration, Vec<Sighting>)| {
            Ok((known.attribute.clone(), corrected(known, &seen, progress)?))
        };
        known.filter(|(attribute, _)| attribute.thresholds.is_some()).map(count).collect()
    }

    /// Whether a candidate has the size that gates look at.
    pub(crate) fn fits(&self, candidate: &Candidate) -> bool {
        (candidate.width as usize, candidate.height as usize) == (self.width, self.height)
            && candidate.rgb.len() == 3 * self.width * self.height
    }

    /// The attributes with their values; the label is the first.
    pub(crate) fn attributes(&self) -> &[(String, Vec<String>)] {
        &self.attributes
    }

    /// What is known of the real images; none where no gate needs a classifier.
    pub(crate) fn known(&self) -> Option<&KnownImages> {
        self.known.as_ref()
    }

    fn assemble(stored: Stored, trained: Option<(Sight, References)>) -> Result<Self, VerifyError> {
        let Stored { width, height, gates, attributes, calibration, diversity } = stored;
        let attributes = Arc::new(attributes);
        let (sight, known, labels) = match trained {
            Some((sight, References { real, labels, values, held_out })) => {
                (Some(sight), Some(KnownImages { looks: Arc::new(real), values, held_out }), labels)
            }
            None => (None, None, Vec::new()),
        };
        let mut cascade: Vec<Box<dyn Gate>> = Vec::new();
        let mut ordered: Vec<Box<dyn OrderedGate>> = Vec::new();
        let (mut programs, mut shortcut) = (Vec::new(), None);
        for gate in gates {
            match (gate, &known) {
                (GateConfig::Decode(_), _) => cascade.push(Box::new(Decode::new(width, height, calibration.decode))),
                (GateConfig::Safety(config), _) => cascade.push(Box::new(Safety::open(&config)?)),
                (GateConfig::Command(config), _) => programs.push(ProgramGate::new(config)),
                (GateConfig::Shortcut(config), _) => shortcut = Some(config),
                (GateConfig::Attributes(_), Some(_)) => {
                    let thresholds = calibration.thresholds();
                    cascade.push(Box::new(Attributes::new(attributes.to_vec(), thresholds)));
                }
                (GateConfig::InDistribution(config), Some(known)) => {
                    let limit = calibration.in_distribution.clone().unwrap_or_default();
                    let (attributes, features) = (Arc::clone(&attributes), &known.looks.features);
                    cascade.push(Box::new(InDistribution::new(&config, limit, attributes, features, &labels)));
                }
                (GateConfig::Novelty(_), Some(known)) => {
                    let limits = calibration.novelty.unwrap_or(NoveltyLimits::EXACT);
                    ordered.push(Box::new(Novelty::new(limits, Arc::clone(&known.looks), (width, height))));
                }
                (GateConfig::Diversity(config), Some(known)) => {
                    let limit = diversity.unwrap_or(DiversityLimit { distance: 0.0 });
                    let (attributes, looks) = (Arc::clone(&attributes), Arc::clone(&known.looks));
                    ordered.push(Box::new(Diversity::new(&config, limit, attributes, looks, known.values.clone())));
                }
                // `train` and `load` give references wherever a gate needs them.
                (_, None) => {}
            }
        }
        Ok(Self {
            width,
            height,
            attributes,
            calibration,
            sight,
            known,
            diversity,
            shortcut,
            cascade,
            ordered,
            programs,
        })
    }

    /// What images of the right size look like; nothing without classifiers.
    pub(crate) fn looks(&self, candidates: &[&Candidate]) -> Result<Looks, VerifyError> {
        let Some(sight) = &self.sight else { return Ok(Looks::default()) };
        let pixels = candidates.iter().flat_map(|candidate| &candidate.rgb).copied().collect();
        sight.looks(&ImageSet::new(self.width, self.height, pixels)?)
    }
}

/// Writes a gate's outcomes into the verdicts; gives the candidates that go on.
fn record(verdicts: &mut [Verdict], order: Vec<usize>, gate: &str, outcomes: Vec<Outcome>) -> Vec<usize> {
    let mut kept = Vec::with_capacity(order.len());
    for (i, outcome) in order.into_iter().zip(outcomes) {
        enter(&mut verdicts[i], gate, outcome);
        if verdicts[i].accepted {
            kept.push(i);
        }
    }
    kept
}

/// Writes what a gate says about a candidate into its verdict.
fn enter(verdict: &mut Verdict, gate: &str, outcome: Outcome) {
    verdict.scores.extend(outcome.score.map(|score| (gate.to_owned(), score)));
    if let Ruling::Drop(reason) = outcome.ruling {
        verdict.accepted = false;
        verdict.gate = Some(gate.to_owned());
        verdict.reject_reason = Some(reason);
    }
}

/// What gates said about a candidate, one after another, up to the first that drops it.
type Judgement<'a> = Vec<(&'a str, Outcome)>;

/// Asks the gates that compare candidates with those kept before, and the programs about whatever these keep.
///
/// What a program drops must not make another candidate a copy, but programs are asked about many candidates at a time. So
/// candidates that no program was asked about yet count as kept, and once a program dropped one, the comparing gates start
/// again without it. If they then keep others, the programs are asked about all that is left: of many copies of one image
/// each would otherwise cost a start of its own. At the end the verdicts are those of asking about one candidate after
/// another.
fn in_order<'a>(
    gates: &'a [Box<dyn OrderedGate>],
    programs: &'a [ProgramGate],
    shown: &Shown<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Judgement<'a>>, VerifyError> {
    let count = shown.candidates.len();
    let mut sessions = Vec::with_capacity(gates.len());
    for gate in gates {
        progress.check()?;
        progress.note(gate.name());
        sessions.push((gate.name(), gate.begin(shown)?));
    }
    let keeps = |judgement: &Judgement<'_>| judgement.iter().all(|(_, outcome)| outcome.ruling == Ruling::Keep);
    let mut answers: Vec<Option<Judgement<'a>>> = vec![programs.is_empty().then(Vec::new); count];
    let mut first = true;
    loop {
        let mut judgements: Vec<Judgement<'a>> = Vec::with_capacity(count);
        let mut unasked = Vec::new();
        for (row, answer) in answers.iter().enumerate() {
            let mut judgement = Judgement::new();
            for (name, session) in &mut sessions {
                judgement.push((*name, session.judge(row)?));
                if !keeps(&judgement) {
                    break;
                }
            }
            if keeps(&judgement) {
                match answer {
                    Some(answer) => judgement.extend(answer.iter().cloned()),
                    None => unasked.push(row),
                }
            }
            if keeps(&judgement) {
                sessions.iter_mut().for_each(|(_, session)| session.keep(row));
            }
            judgements.push(judgement);
        }
        if unasked.is_empty() {
            return Ok(judgements);
        }
        let mut left = match first {
            true => unasked.clone(),
            false => (0..count).filter(|&row| answers[row].is_none()).collect(),
        };
        first = false;
        for program in programs {
            progress.check()?;
            progress.note(program.name());
            let asked: Vec<&Candidate> = left.iter().map(|&row| shown.candidates[row]).collect();
            let outcomes = program.check(&asked, progress)?;
            for (&row, outcome) in left.iter().zip(outcomes) {
                answers[row].get_or_insert_default().push((program.name(), outcome));
            }
            left.retain(|&row| answers[row].as_ref().is_some_and(keeps));
        }
        if unasked.iter().all(|&row| answers[row].as_ref().is_some_and(keeps)) {
            // Whatever counted as kept was kept.
            for row in unasked {
                judgements[row].extend(answers[row].clone().unwrap_or_default());
            }
            return Ok(judgements);
        }
        sessions.iter_mut().for_each(|(_, session)| session.restart());
    }
}

/// The gates from the cheapest to the dearest; `decode` is always there, since the others need images of the right size.
fn cascade_order(gates: &[GateConfig], attributes: &[(String, Vec<String>)]) -> Result<Vec<GateConfig>, VerifyError> {
    let names: Vec<String> = attributes.iter().map(|(name, _)| name.clone()).collect();
    for (place, gate) in gates.iter().enumerate() {
        gate.check_among(&gates[..place], &names)?;
    }
    let mut ordered = gates.to_vec();
    if !ordered.iter().any(|gate| matches!(gate, GateConfig::Decode(_))) {
        ordered.push(GateConfig::Decode(DecodeConfig::default()));
    }
    // Programs keep the order in which the job names them.
    ordered.sort_by_key(GateConfig::place);
    Ok(ordered)
}

fn decode_config(gates: &[GateConfig]) -> DecodeConfig {
    let config = |gate: &GateConfig| if let GateConfig::Decode(config) = gate { Some(config.clone()) } else { None };
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
    let looks = Arc::new(looks);
    let mut labels = vec![None; looks.len()];
    for &row in learn {
        labels[row] = real.labels[row].first().copied().flatten();
    }
    for gate in &stored.gates {
        match gate {
            GateConfig::Decode(_) | GateConfig::Safety(_) | GateConfig::Command(_) | GateConfig::Shortcut(_) => {}
            GateConfig::Attributes(config) => {
                let aim = Aim { false_accept: config.false_accept, fixed: config.threshold };
                for (a, attribute) in stored.calibration.attributes.iter_mut().enumerate() {
                    if let Some(head) = apart.heads.get(a) {
                        let seen = sightings(real, held_out, a, head);
                        *attribute =
                            AttributeCalibration::new(&attribute.attribute, &attribute.classes, attribute.view, &seen);
                        if config.checks(&attribute.attribute) {
                            attribute.set_thresholds(&seen, aim);
                        }
                    }
                }
                let gate = Attributes::new(real.attributes.clone(), stored.calibration.thresholds());
                stored.calibration.groups = recall(&gate, real, held_out, &apart);
            }
            GateConfig::InDistribution(config) => {
                let attributes = Arc::new(real.attributes.clone());
                let limit = InDistributionLimit::default();
                let gate = InDistribution::new(config, limit, attributes, &looks.features, &labels);
                let of_apart: Vec<Option<u32>> =
                    held_out.iter().map(|&row| real.labels[row].first().copied().flatten()).collect();
                let groups: Vec<&[Option<u32>]> = held_out.iter().map(|&row| real.labels[row].as_slice()).collect();
                let limit = gate.measure(config, &apart, &of_apart, &groups)?;
                stored.calibration.in_distribution = Some(limit);
            }
            GateConfig::Novelty(config) => {
                stored.calibration.novelty = Some(NoveltyLimits::calibrate(config, &looks, &real.images)?);
            }
            GateConfig::Diversity(config) => {
                stored.diversity = Some(DiversityLimit::calibrate(config, &looks.features, &real.labels)?);
            }
        }
    }
    let real_looks = Looks { heads: Vec::new(), ..Arc::unwrap_or_clone(looks) };
    let mut apart = vec![false; real.images.len()];
    held_out.iter().for_each(|&row| apart[row] = true);
    Ok(References { real: real_looks, labels, values: real.labels.clone(), held_out: apart })
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
