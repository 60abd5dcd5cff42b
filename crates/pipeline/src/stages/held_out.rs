//! Held-out combinations: can the generator compose what it has never seen, and does that teach a classifier?
//!
//! Whole groups are taken out of the training images: the generator, the gates and the classifiers learn without them. The
//! generator then draws them all the same, from what it knows of their values apart, the gates check what it drew, and
//! classifiers with and without these images are judged on the real test images of exactly these groups.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::Device;
use evenset_core::{Fingerprint, Group, SampleId, Seed};
use evenset_data::Dataset;
use evenset_diffusion::{ConditionalConfig, ImageRequest, SamplerConfig};
use evenset_evidence::{Arm, ArmRun, EvidenceConfig, EvidenceData, HeldOutSummary, Labelled};
use evenset_verify::{GateConfig, Share, Verifier};
use serde::{Deserialize, Serialize};

use super::model::training_set;
use super::scan::{Row, Scan};
use super::verifier::real_images;
use crate::error::Result;
use crate::images::Frame;
use crate::job::Role;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};
use crate::trainings::{Training, complete_all};
use crate::within::Within;

const HELD_OUT: &str = "held-out.json";
/// Images that are drawn of each group, times the number that would make it as large as the median group.
const OVER_ASK: f64 = 1.5;
/// Images of a group at most.
const MOST_IMAGES: u64 = 1000;
/// What is compared: with the images and without.
const ARMS: [Arm; 4] = [Arm::AsIs, Arm::Oversample, Arm::Reweight, Arm::Balanced];

/// Holds groups out of everything, composes them, and judges classifiers on them.
pub struct HeldOutStage<'a> {
    /// How the classifiers are trained, and how many groups are held out.
    pub config: &'a EvidenceConfig,
    /// The generator.
    pub model: &'a ConditionalConfig,
    /// How it draws.
    pub sampler: &'a SamplerConfig,
    /// The gates.
    pub gates: &'a [GateConfig],
    /// The files that the gates read, each with its SHA-256.
    pub outside: Vec<(PathBuf, String)>,
    /// The attributes whose combinations are the groups.
    pub grouping: &'a [String],
    /// All images, as the evidence takes them, without the images that the main run made.
    pub data: &'a dyn Fn() -> Result<EvidenceData>,
    /// The job's seed.
    pub seed: Seed,
    /// The images.
    pub dataset: &'a Dataset,
    /// The scanned rows.
    pub scan: &'a Done<Scan>,
    /// The size that models work at.
    pub frame: Frame,
    /// Held-out images that stand, exactly or nearly, in another split too: they are no test.
    pub overlap: &'a BTreeSet<SampleId>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldOut {
    /// The classifiers on the held-out groups.
    #[serde(flatten)]
    pub summary: HeldOutSummary,
    /// How many images of each held-out group the gates accepted.
    pub accepted: Vec<(Group, Share)>,
}

impl Stage for HeldOutStage<'_> {
    type Output = HeldOut;

    fn name(&self) -> String {
        "held-out".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let models = (self.model, self.sampler, self.gates, &self.outside);
        let trainings = (self.config.of_one_training(), self.config.seeds, self.config.held_out_groups);
        let config = (trainings, models, self.grouping, self.seed, self.frame, self.overlap);
        fingerprint("held-out", &config, &[&self.scan.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let seed = self.seed.derive("held out groups");
        let data = (self.data)()?;
        let chosen = self.choose(&data, seed)?;
        let (generated, accepted) = self.compose(folder, &chosen, &data, context)?;
        let data = without(data, &chosen, generated);
        let runs_folder = folder.join("runs");
        std::fs::create_dir_all(&runs_folder).map_err(crate::error::PipelineError::io(&runs_folder))?;
        let steps = u64::from(self.config.steps);
        context.progress.begin("held-out groups", (ARMS.len() as u64) * u64::from(self.config.seeds) * steps);
        let (config, data_of_all) = (self.config, &data);
        let training = |(number, arm): (u32, Arm)| Training {
            path: runs_folder.join(format!("{arm}-{number}.json")),
            note: format!("{arm}, seed {number}"),
            steps,
            train: Box::new(move |inside: &Within<'_>| {
                Ok(evenset_evidence::run_arm(arm, data_of_all, seed, number, config, inside)?)
            }),
        };
        let of_seed = |number| ARMS.into_iter().map(move |arm| (number, arm));
        let trainings: Vec<_> = (0..config.seeds).flat_map(of_seed).map(training).collect();
        let runs: Vec<ArmRun> = complete_all(&trainings, context.progress)?;
        context.progress.end();
        let summary = evenset_evidence::summarise_held_out(&runs, &chosen)?;
        write_json(&folder.join(HELD_OUT), &HeldOut { summary, accepted })?;
        Ok(StageReport { rows: chosen.len() as u64, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<HeldOut> {
        read_json_of(&folder.join(HELD_OUT))
    }
}

impl HeldOutStage<'_> {
    /// The groups to hold out, of those with training and test images.
    fn choose(&self, data: &EvidenceData, seed: Seed) -> Result<Vec<Group>> {
        let has = |part: &Labelled, group: usize| part.groups.iter().any(|&of| of as usize == group);
        let groups: Vec<Group> = (0..data.groups.len())
            .filter(|&group| has(&data.train, group) && has(&data.test, group))
            .map(|group| data.groups[group].clone())
            .collect();
        let places = evenset_evidence::hold_out(&groups, self.config.held_out_groups as usize, seed)?;
        Ok(places.into_iter().filter_map(|place| groups.get(place)).cloned().collect())
    }

    /// Accepted images of the chosen groups, drawn by a generator and judged by gates that have never seen them.
    fn compose(
        &self,
        folder: &Path,
        chosen: &[Group],
        data: &EvidenceData,
        context: &Context<'_>,
    ) -> Result<(Labelled, Vec<(Group, Share)>)> {
        let scan = &self.scan.output;
        let rows: Vec<&Row> = scan
            .role(Role::Train)
            .filter(|row| scan.group(row, self.grouping).is_none_or(|group| !chosen.contains(&group)))
            .collect();
        let seed = self.seed.derive("held out groups");
        let set = training_set(self.dataset, &scan.columns, &rows, self.frame)?;
        let (config, path) = (self.model, folder.join("generator"));
        let model = evenset_diffusion::train(&set, config, seed, &path, context.progress, &Device::Cpu)?;
        drop(set);
        let real = real_images(self.dataset, scan, &rows, self.frame, self.grouping)?;
        let verifier =
            Verifier::train(&real, self.gates, seed.derive("gates"), Some(&folder.join("gates")), context.progress)?;
        drop(real);
        let wanted = (median_size(data, chosen) as f64 * OVER_ASK).ceil() as u64;
        let (mut pixels, mut labels, mut groups, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        context.progress.begin("compose held-out groups", chosen.len() as u64 * wanted);
        for group in chosen {
            let request =
                |i: u64| ImageRequest::new(group.clone(), Seed::of_request(seed, group, 0, i, "held-out image"));
            let requests: Vec<ImageRequest> = (0..wanted).map(request).collect();
            let images = model.generate(&requests, self.sampler, context.progress)?;
            let candidates: Vec<evenset_verify::Candidate> = images
                .into_iter()
                .enumerate()
                .map(|(request_index, image)| evenset_verify::Candidate {
                    request_index,
                    group: group.clone(),
                    width: image.width,
                    height: image.height,
                    flaw: crate::generator::flaw(&image),
                    rgb: image.pixels,
                })
                .collect();
            let verdicts = verifier.verify(&candidates, &[], &Within(context.progress))?;
            let kept = verdicts.iter().filter(|verdict| verdict.accepted).count() as u64;
            shares.push((group.clone(), Share::new(kept, wanted)));
            let class = data.classes.iter().position(|class| group.get(&data.label) == Some(class));
            let place = data.groups.iter().position(|known| known == group);
            let (Some(class), Some(place)) = (class, place) else { continue };
            for (candidate, _) in candidates.iter().zip(&verdicts).filter(|(_, verdict)| verdict.accepted) {
                pixels.extend_from_slice(&candidate.rgb);
                labels.push(class as u32);
                groups.push(place as u32);
            }
            context.progress.advance(wanted);
        }
        context.progress.end();
        let images = self.frame.image_set(pixels)?;
        Ok((Labelled { images, labels, groups, features: None }, shares))
    }
}

/// The data whose training and validation images show none of the chosen groups, with these generated images.
fn without(data: EvidenceData, chosen: &[Group], generated: Labelled) -> EvidenceData {
    let outside = |part: &Labelled| {
        let kept = |row: &usize| !chosen.contains(&data.groups[part.groups[*row] as usize]);
        part.select(&(0..part.groups.len()).filter(kept).collect::<Vec<_>>())
    };
    let (train, validation) = (outside(&data.train), data.validation.as_ref().map(outside));
    EvidenceData { train, validation, generated, left_out: Vec::new(), ..data }
}

/// The median size of the groups that stay.
fn median_size(data: &EvidenceData, chosen: &[Group]) -> u64 {
    let mut sizes = BTreeMap::<u32, u64>::new();
    for &group in &data.train.groups {
        *sizes.entry(group).or_default() += 1;
    }
    let mut sizes: Vec<u64> = sizes
        .into_iter()
        .filter(|(group, _)| !chosen.contains(&data.groups[*group as usize]))
        .map(|(_, size)| size)
        .collect();
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).copied().unwrap_or(1).clamp(1, MOST_IMAGES)
}

#[cfg(test)]
mod tests {
    use evenset_nn::classifier::ImageSet;

    use super::*;

    fn part(groups: &[u32]) -> Labelled {
        let images = ImageSet::new(8, 8, vec![0; groups.len() * 8 * 8 * 3]).unwrap();
        Labelled { images, labels: vec![0; groups.len()], groups: groups.to_vec(), features: None }
    }

    #[test]
    fn no_image_of_a_group_that_is_held_out_is_learned_from_or_chosen_by() {
        let groups = ["red", "blue", "green"].map(|colour| Group::of("colour", colour)).to_vec();
        let data = EvidenceData {
            train: part(&[0, 1, 2, 1]),
            left_out: vec![0],
            generated: part(&[2]),
            planned: BTreeMap::new(),
            further: None,
            validation: Some(part(&[1, 0, 1])),
            test: part(&[0, 1]),
            classes: vec!["a".into(), "b".into()],
            groups: groups.clone(),
            label: "shape".into(),
        };
        let data = without(data, &groups[1..2], part(&[1, 1]));
        assert_eq!(data.train.groups, [0, 2]);
        assert_eq!(data.validation.unwrap().groups, [0]);
        assert_eq!((data.generated.groups, data.test.groups), (vec![1, 1], vec![0, 1]));
        assert!(data.left_out.is_empty());
    }
}
