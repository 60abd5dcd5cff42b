//! Verify: each candidate is kept, or dropped with a reason.

use std::path::Path;

use evenset_core::Fingerprint;
use evenset_verify::{Verdict, Verifier};

use super::generate::Candidate;
use crate::columns::{self, Reader};
use crate::error::{PipelineError, Result};
use crate::run::{Context, Done, Stage, StageReport, fingerprint};

const VERDICTS: &str = "verdicts.parquet";

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
}

impl Stage for VerifyStage<'_> {
    type Output = Vec<Verdict>;

    fn name(&self) -> String {
        format!("verify-{}", self.round)
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.name(), &(), &[&self.verifier.fingerprint, &self.candidates.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let candidates = decode(&self.candidates.output)?;
        let before = decode(self.accepted_before)?;
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

/// The candidates as gates take them.
pub(crate) fn decode(candidates: &[Candidate]) -> Result<Vec<evenset_verify::Candidate>> {
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
                width: image.width,
                height: image.height,
                rgb: image.rgb,
                finite: candidate.finite,
            })
        })
        .collect()
}
