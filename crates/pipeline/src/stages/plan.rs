//! Plan: which groups miss how many images.

use std::path::Path;

use evenset_core::Fingerprint;
use evenset_plan::Search;

use super::audit::Counts;
use crate::error::Result;
use crate::job::Plan as PlanJob;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};

const PLAN: &str = "plan.json";

/// Turns counts and a target into deficits.
pub struct PlanStage<'a> {
    /// The part of the job that it follows.
    pub job: &'a PlanJob,
    /// The counts.
    pub counts: &'a Done<Counts>,
}

impl Stage for PlanStage<'_> {
    type Output = evenset_plan::Plan;

    fn name(&self) -> String {
        "plan".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint("plan", self.job, &[&self.counts.fingerprint])
    }

    fn run(&self, folder: &Path, _context: &Context<'_>) -> Result<StageReport> {
        let counts = self.counts.output.cube.roll_up(&self.job.grouping)?;
        let search = Search { surplus: self.job.surplus, ..Search::default() };
        let plan = evenset_plan::plan_with(&counts, &self.job.target, &self.job.limits, &search)?;
        write_json(&folder.join(PLAN), &plan)?;
        Ok(StageReport { rows: plan.images, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<evenset_plan::Plan> {
        read_json_of(&folder.join(PLAN))
    }
}
