//! Plan: which groups miss how many images.

use std::path::Path;

use evenset_core::{Fingerprint, Seed};
use evenset_plan::{AskPolicy, CheckedPrompts, Plan, Search};

use super::audit::Counts;
use super::generate::request_table;
use crate::error::Result;
use crate::job::Plan as PlanJob;
use crate::rounds::{Progress, asks};
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};

const PLAN: &str = "plan.json";
/// The most requests that are written before they are needed.
const MOST_REQUESTS: u64 = 1_000_000;

/// The requests of the first round; later ones depend on what is accepted.
const REQUESTS: &str = "requests.parquet";

/// Turns counts and a target into deficits, and these into the first round's requests.
pub struct PlanStage<'a> {
    /// The part of the job that it follows.
    pub job: &'a PlanJob,
    /// The job's seed.
    pub seed: Seed,
    /// How many images a round may ask for.
    pub ask: &'a AskPolicy,
    /// The counts.
    pub counts: &'a Done<Counts>,
    /// The fingerprint of the images, where there are any: whatever is drawn by this plan may start from them.
    pub scan: Option<&'a Fingerprint>,
}

/// What the requests of a plan say in words, checked against its groups.
pub(crate) fn prompts(job: &PlanJob, plan: &Plan) -> Result<Option<CheckedPrompts>> {
    let groups = plan.groups.iter().filter(|group| group.add > 0).map(|group| &group.values);
    Ok(job.prompts.as_ref().map(|prompts| prompts.check(groups)).transpose()?)
}

impl Stage for PlanStage<'_> {
    type Output = Plan;

    fn name(&self) -> String {
        "plan".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let reads: Vec<&Fingerprint> = self.scan.into_iter().chain([&self.counts.output.counted]).collect();
        fingerprint("plan", &(self.job, self.seed, self.ask), &reads)
    }

    fn run(&self, folder: &Path, _context: &Context<'_>) -> Result<StageReport> {
        let counts = self.counts.output.cube.roll_up(&self.job.grouping)?;
        let default = Search::default();
        let seconds = self.job.seconds.unwrap_or(default.seconds);
        let search = Search { surplus: self.job.surplus, seconds, ..default };
        let plan = evenset_plan::plan_with(&counts, &self.job.target, &self.job.limits, &search)?;
        let asks = asks(&Progress::start(&plan, 1.0), self.ask)?;
        // A plan so large that its requests cannot be held is still a plan.
        if asks.iter().map(|(_, images)| images).sum::<u64>() <= MOST_REQUESTS {
            let prompts = prompts(self.job, &plan)?;
            let requests = evenset_plan::requests_with(self.seed, 1, &asks, prompts.as_ref())?;
            evenset_data::write_parquet(&folder.join(REQUESTS), &request_table(&requests)?)?;
        }
        write_json(&folder.join(PLAN), &plan)?;
        Ok(StageReport { rows: plan.images, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Plan> {
        read_json_of(&folder.join(PLAN))
    }
}
