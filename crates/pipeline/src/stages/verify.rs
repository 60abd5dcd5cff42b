//! Verify: each candidate is kept, or dropped with a reason.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_array::RecordBatch;
use evenset_core::{Fingerprint, Group};
use evenset_verify::{Verdict, Verifier};
use serde::{Deserialize, Serialize};

use super::generate::Candidate;
use crate::columns::{self, Reader};
use crate::error::{PipelineError, Result};
use crate::images::Frame;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json, write_json};

const VERDICTS: &str = "verdicts.parquet";
/// Some of the rejected images, for review.
const REJECTED: &str = "rejected.parquet";
/// How many of them the job wanted.
const REVIEW: &str = "review.json";

/// Asks the gates about the candidates of one round.
pub struct VerifyStage<'a> {
    /// From 1.
    pub round: u32,
    /// The trained gates.
    pub verifier: &'a Done<Verifier>,
    /// The round's candidates.
    pub candidates: &'a Done<Vec<Candidate>>,
    /// Candidates that were accepted in the rounds before, in order: a copy of one of them is no addition.
    pub accepted_before: &'a [Candidate],
    /// Rejected images that are kept for review.
    pub keep_rejected: u64,
    /// The size at which the gates look at images.
    pub frame: Frame,
}

impl Stage for VerifyStage<'_> {
    type Output = Vec<Verdict>;

    fn name(&self) -> String {
        format!("verify-{}", self.round)
    }

    fn fingerprint(&self) -> Fingerprint {
        // How many rejected images are kept is left out: verdicts do not depend on it, nor do the rounds after this one.
        fingerprint(&self.name(), &(), &[&self.verifier.fingerprint, &self.candidates.fingerprint])
    }

    /// Whether as many rejected images are kept as the job says.
    fn intact(&self, folder: &Path) -> bool {
        read_json(&folder.join(REVIEW)).is_ok_and(|review| review == Some(Review { keep_rejected: self.keep_rejected }))
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        // Verdicts that are there are whole: only the images for review are then to be chosen again.
        let verdicts = match folder.join(VERDICTS).is_file() {
            true => self.load(folder)?,
            false => self.judge(folder, context)?,
        };
        evenset_data::write_parquet(&folder.join(REJECTED), &self.rejected(&verdicts)?)?;
        write_json(&folder.join(REVIEW), &Review { keep_rejected: self.keep_rejected })?;
        let accepted = verdicts.iter().filter(|verdict| verdict.accepted).count() as u64;
        Ok(StageReport { rows: accepted, rejected: verdicts.len() as u64 - accepted })
    }

    fn load(&self, folder: &Path) -> Result<Vec<Verdict>> {
        let path = folder.join(VERDICTS);
        let mut verdicts = Vec::new();
        for batch in evenset_data::read_parquet(&path)? {
            let reader = Reader { batch: &batch, path: &path };
            let (accepted, gates) = (reader.flags("accepted")?, reader.texts("gate")?);
            let (reasons, scores) = (reader.texts("reject_reason")?, reader.strings("verify_scores")?);
            for (((accepted, gate), reject_reason), scores) in accepted.into_iter().zip(gates).zip(reasons).zip(scores)
            {
                let scores = serde_json::from_str(&scores).map_err(PipelineError::damaged(&path))?;
                verdicts.push(Verdict { accepted, reject_reason, gate, scores });
            }
        }
        if verdicts.len() != self.candidates.output.len() {
            return Err(PipelineError::damaged(&path)("it has another number of rows than there are candidates"));
        }
        Ok(verdicts)
    }
}

/// What the images for review were chosen by.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Review {
    keep_rejected: u64,
}

impl VerifyStage<'_> {
    /// Asks the gates, and writes down what they say.
    fn judge(&self, folder: &Path, context: &Context<'_>) -> Result<Vec<Verdict>> {
        let candidates = decode(&self.candidates.output, self.frame)?;
        let before = decode(self.accepted_before, self.frame)?;
        let verdicts = self.verifier.output.verify(&candidates, &before, context.progress)?;
        let ids = self.candidates.output.iter().map(|candidate| Some(candidate.request.id.as_str()));
        let scores = verdicts.iter().map(|v| serde_json::to_string(&v.scores).unwrap_or_default());
        let table = columns::table(vec![
            ("id", columns::texts(ids)),
            ("accepted", columns::flags(verdicts.iter().map(|v| v.accepted))),
            ("gate", columns::texts(verdicts.iter().map(|v| v.gate.as_deref()))),
            ("reject_reason", columns::texts(verdicts.iter().map(|v| v.reject_reason.as_deref()))),
            ("verify_scores", columns::strings(scores)),
        ])?;
        evenset_data::write_parquet(&folder.join(VERDICTS), &table)?;
        Ok(verdicts)
    }

    /// The rejected images that are kept for review: from every group and gate as many as from any other, as far as they
    /// go, in the order of their requests.
    fn rejected(&self, verdicts: &[Verdict]) -> Result<RecordBatch> {
        let all: Vec<(&Candidate, &Verdict)> =
            self.candidates.output.iter().zip(verdicts).filter(|(_, verdict)| !verdict.accepted).collect();
        let mut met: BTreeMap<(&Group, Option<&str>), usize> = BTreeMap::new();
        let mut order: Vec<(usize, usize)> = all
            .iter()
            .enumerate()
            .map(|(place, (candidate, verdict))| {
                let met = met.entry((&candidate.request.group, verdict.gate.as_deref())).or_default();
                *met += 1;
                (*met, place)
            })
            .collect();
        order.sort_unstable();
        order.truncate(usize::try_from(self.keep_rejected).unwrap_or(usize::MAX));
        let mut kept: Vec<usize> = order.into_iter().map(|(_, place)| place).collect();
        kept.sort_unstable();
        let rows: Vec<(&Candidate, &Verdict)> = kept.into_iter().map(|place| all[place]).collect();
        columns::table(vec![
            ("id", columns::texts(rows.iter().map(|(candidate, _)| Some(candidate.request.id.as_str())))),
            ("group", columns::strings(rows.iter().map(|(candidate, _)| candidate.request.group.to_string()))),
            ("gate", columns::texts(rows.iter().map(|(_, verdict)| verdict.gate.as_deref()))),
            ("reject_reason", columns::texts(rows.iter().map(|(_, verdict)| verdict.reject_reason.as_deref()))),
            ("png", columns::blobs(rows.iter().map(|(candidate, _)| candidate.png.as_slice()))),
        ])
    }
}

/// The candidates as gates take them: at the size at which real images are looked at.
pub(crate) fn decode(candidates: &[Candidate], frame: Frame) -> Result<Vec<evenset_verify::Candidate>> {
    use rayon::prelude::*;
    candidates
        .par_iter()
        .enumerate()
        .map(|(index, candidate)| {
            let image = evenset_data::decode(&candidate.png, &evenset_data::Limits::default())
                .map_err(PipelineError::damaged(Path::new(&candidate.request.id)))?;
            Ok(evenset_verify::Candidate {
                request_index: index,
                group: candidate.request.group.clone(),
                width: frame.width,
                height: frame.height,
                rgb: evenset_data::fit(&image.rgb, image.width, image.height, frame.width, frame.height),
                flaw: candidate.flaw.clone(),
            })
        })
        .collect()
}
