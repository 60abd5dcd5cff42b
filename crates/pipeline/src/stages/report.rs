//! Report: everything that the run found, on one page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evenset_core::{Fingerprint, Group};
use evenset_report as page;
use evenset_report::{Note, Picture, ReasonCount, ReportData};
use evenset_verify::gates::kind_of_reason;
use evenset_verify::{Verdict, wilson};

use super::generate::Candidate;
use super::model::sample_grid;
use super::scan::Row;
use crate::engine::Finished;
use crate::error::{PipelineError, Result};
use crate::job::{Job, Role};
use crate::run::{Context, Stage, StageReport, fingerprint, read_json, write_json};

mod found;

pub use found::{checks, evidence};

/// The page, in the stage's folder and, as a copy, at the top of the run.
pub const PAGE: &str = "report.html";
/// The page beside it with every figure of the audit.
const AUDIT_PAGE: &str = "audit.html";
/// What the page says, for machines.
pub const DATA: &str = "report.json";
/// Images of each kind that a group shows.
const SAMPLES: usize = 6;
/// Points that the loss curve keeps.
const LOSS_POINTS: usize = 300;

/// Draws the report page.
pub struct ReportStage<'a> {
    /// The job.
    pub job: &'a Job,
    /// What the run found.
    pub finished: &'a Finished,
}

impl Stage for ReportStage<'_> {
    type Output = PathBuf;

    fn name(&self) -> String {
        "report".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let finished = self.finished;
        let failure = finished.hook_failure.as_ref().map(|failure| fingerprint("hook failure", failure, &[]));
        let reads: Vec<&Fingerprint> = [
            Some(&finished.scan.fingerprint),
            finished.counts.as_ref().map(|done| &done.fingerprint),
            finished.plan.as_ref().map(|done| &done.fingerprint),
            finished.written.as_ref().map(|done| &done.fingerprint),
            finished.hook.as_ref().map(|done| &done.fingerprint),
            failure.as_ref(),
            finished.checks.as_ref().map(|done| &done.fingerprint),
            finished.evidence.as_ref().map(|done| &done.fingerprint),
            finished.held_out.as_ref().map(|done| &done.fingerprint),
        ]
        .into_iter()
        .flatten()
        .collect();
        fingerprint("report", &(self.job.to_yaml(), &finished.notes), &reads)
    }

    /// Whether what lies at the top of the run is this report, and not one of the job with other settings.
    fn intact(&self, folder: &Path) -> bool {
        let same = |name| {
            let (own, shown) = (std::fs::read(folder.join(name)).ok(), std::fs::read(self.job.run.join(name)).ok());
            own == shown && (own.is_some() || name == AUDIT_PAGE)
        };
        [PAGE, DATA, AUDIT_PAGE].into_iter().all(same)
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let data = self.data()?;
        write_json(&folder.join(DATA), &data)?;
        let html = page::render(&data)?;
        evenset_data::atomic::write_file(&folder.join(PAGE), html.as_bytes())?;
        let mut names = vec![PAGE, DATA];
        if let Some(counts) = &self.finished.counts {
            let (label, notes) = (self.job.dataset.label.as_deref(), &self.finished.notes);
            let audit = crate::describe::audit(&self.job.name, &counts.output.audit, label, notes);
            evenset_data::atomic::write_file(&folder.join(AUDIT_PAGE), audit.html(crate::VERSION)?.as_bytes())?;
            names.push(AUDIT_PAGE);
        }
        for name in names {
            let text = std::fs::read(folder.join(name)).map_err(PipelineError::io(&folder.join(name)))?;
            evenset_data::atomic::write_file(&context.run.root.join(name), &text)?;
        }
        Ok(StageReport::default())
    }

    fn load(&self, _folder: &Path) -> Result<PathBuf> {
        Ok(self.job.run.join(PAGE))
    }
}

/// What the report of a finished run says.
///
/// # Errors
/// [`PipelineError::NoReport`] where the run has no report yet.
pub fn read(run: &Path) -> Result<ReportData> {
    read_json(&run.join(DATA))?.ok_or_else(|| PipelineError::NoReport(run.to_owned()))
}

impl ReportStage<'_> {
    /// Whether the run has a report that shows something else.
    pub fn is_outdated(&self, context: &Context<'_>) -> Result<bool> {
        Ok(context.run.root.join(PAGE).exists() && !context.finished(self)?)
    }

    fn data(&self) -> Result<ReportData> {
        let (job, finished) = (self.job, self.finished);
        let grouping = job.plan.as_ref().map_or_else(|| job.dataset.columns(), |plan| plan.grouping.clone());
        Ok(ReportData {
            name: job.name.clone(),
            evenset: crate::VERSION.to_owned(),
            seed: job.seed.0,
            label: job.dataset.label.clone(),
            attributes: job.dataset.attributes.clone(),
            grouping: grouping.clone(),
            dataset: Some(self.dataset()),
            groups: self.groups(&grouping)?,
            balance: self.balance(&grouping),
            plan: self.plan(),
            acceptance: acceptance(job, finished),
            rounds: self.rounds(),
            generator: self.generator()?,
            calibration: self.calibration(),
            checks: finished.checks.as_ref().map(|checks| found::checks(&checks.output)),
            evidence: self.evidence(),
            outputs: self.outputs(),
            hook: self.hook(),
            notes: self.notes(),
            audit_page: finished.counts.as_ref().map(|_| AUDIT_PAGE.to_owned()),
            job: job.to_yaml(),
        })
    }

    /// The run's remarks, without those that the page words itself.
    fn notes(&self) -> Vec<Note> {
        let checks = self.finished.checks.as_ref().map(|checks| &checks.output);
        let bias = checks.into_iter().flat_map(|checks| &checks.bias).map(|warning| &warning.sentence);
        let shortcut = checks.and_then(|checks| checks.shortcut.as_ref()).map(|shortcut| &shortcut.sentence);
        let rejected = self.finished.scan.output.summary.rejected_note();
        let worded: Vec<&String> = bias.chain(shortcut).chain(&rejected).collect();
        self.finished.notes.iter().filter(|note| !worded.contains(note)).map(Note::warning).collect()
    }

    fn hook(&self) -> Option<page::Hook> {
        let failure = self.finished.hook_failure.as_ref();
        let done = self.finished.hook.as_ref().map(|done| &done.output);
        done.or(failure.map(|failure| &failure.record)).map(|record| page::Hook {
            command: record.command.clone(),
            exit_code: record.exit_code,
            failure: failure.map(|failure| failure.how.clone()),
            output_tail: record.output_tail.clone(),
        })
    }

    fn evidence(&self) -> Option<page::Evidence> {
        let held_out = self.finished.held_out.as_ref().map(|done| &done.output);
        self.finished.evidence.as_ref().map(|done| evidence(&done.output, held_out))
    }

    fn dataset(&self) -> page::Dataset {
        let summary = &self.finished.scan.output.summary;
        page::Dataset {
            path: self.job.dataset.path.display().to_string(),
            kind: match self.finished.dataset.kind {
                evenset_data::Kind::Parquet => "parquet".to_owned(),
                evenset_data::Kind::ImageFolder => "image-folder".to_owned(),
            },
            splits: [Role::Train, Role::Validation, Role::Test]
                .iter()
                .filter_map(|role| {
                    summary.rows.get(role.name()).map(|&rows| page::SplitRows { split: role.name().into(), rows })
                })
                .collect(),
            rejected: summary
                .rejected
                .iter()
                .map(|rejected| page::RejectedRows {
                    reason: rejected.reason.clone(),
                    rows: rejected.rows,
                    examples: rejected.examples.clone(),
                })
                .collect(),
        }
    }

    fn groups(&self, grouping: &[String]) -> Result<Vec<page::GroupRow>> {
        let finished = self.finished;
        let counts = match &finished.counts {
            Some(counts) => counts.output.cube.roll_up(grouping)?,
            None => Vec::new(),
        };
        let real = self.real_samples(grouping)?;
        let judged = self.judged();
        let row = |(group, before): (Group, u64)| {
            let planned = finished.plan.as_ref().and_then(|plan| plan.output.groups.iter().find(|g| g.values == group));
            let removed = planned.map_or(0, |group| group.remove);
            let progress = finished.progress.groups.iter().find(|progress| progress.group == group);
            let mine: &[(&Candidate, &Verdict)] = judged.get(&group).map_or(&[], Vec::as_slice);
            let accepted = mine.iter().filter(|(_, verdict)| verdict.accepted).count() as u64;
            let used = finished.accepted.iter().filter(|a| a.candidate.request.group == group).count() as u64;
            let show = |candidate: &Candidate| Picture::png(candidate.png.clone(), format!("generated: {group}"));
            page::GroupRow {
                before,
                want: planned.map(evenset_plan::PlannedGroup::goal),
                generated: mine.len() as u64,
                accepted,
                rejected: mine.len() as u64 - accepted,
                after: finished.written.as_ref().map(|_| before.saturating_sub(removed) + used),
                used: finished.written.as_ref().map(|_| used),
                acceptance_interval: (!mine.is_empty()).then(|| wilson(accepted, mine.len() as u64)),
                reasons: reasons(mine.iter().map(|(_, verdict)| *verdict)),
                unreachable: progress.and_then(|progress| progress.unreachable.clone()),
                samples_real: real.get(&group).cloned().unwrap_or_default(),
                samples_generated: finished
                    .accepted
                    .iter()
                    .filter(|a| a.candidate.request.group == group)
                    .take(SAMPLES)
                    .map(|a| show(&a.candidate))
                    .collect(),
                samples_rejected: mine
                    .iter()
                    .filter_map(|(candidate, verdict)| Some((candidate, verdict.reject_reason.clone()?)))
                    .take(SAMPLES)
                    .map(|(candidate, reason)| page::RejectedPicture { picture: show(candidate), reason })
                    .collect(),
                values: group,
            }
        };
        Ok(counts.into_iter().map(row).collect())
    }

    /// Some real training images of each group, as they are in the dataset.
    fn real_samples(&self, grouping: &[String]) -> Result<BTreeMap<Group, Vec<Picture>>> {
        let scan = &self.finished.scan.output;
        let columns: Vec<usize> = grouping.iter().filter_map(|name| scan.column(name)).collect();
        let mut wanted: BTreeMap<Group, Vec<&Row>> = BTreeMap::new();
        for row in scan.role(Role::Train) {
            let pairs = columns.iter().map(|&column| {
                (scan.columns[column].as_str(), row.values[column].as_deref().unwrap_or(evenset_core::MISSING))
            });
            let Ok(group) = Group::new(pairs) else { continue };
            let rows = wanted.entry(group).or_default();
            if rows.len() < SAMPLES {
                rows.push(row);
            }
        }
        let mut pictures: BTreeMap<Group, Vec<Picture>> = BTreeMap::new();
        for (index, unit) in self.finished.dataset.units.iter().enumerate() {
            if !wanted.values().flatten().any(|row| row.unit == index) {
                continue;
            }
            let table = self.finished.dataset.read(unit)?;
            for (group, rows) in &wanted {
                for row in rows.iter().filter(|row| row.unit == index) {
                    let Some((bytes, _)) = table.image(row.row) else { continue };
                    pictures.entry(group.clone()).or_default().push(picture(bytes, self.finished.frame, group));
                }
            }
        }
        Ok(pictures)
    }

    /// All candidates and verdicts by group, in the order of the requests.
    fn judged(&self) -> BTreeMap<Group, Vec<(&Candidate, &Verdict)>> {
        let mut judged: BTreeMap<Group, Vec<(&Candidate, &Verdict)>> = BTreeMap::new();
        for round in &self.finished.rounds {
            for (candidate, verdict) in round.candidates.iter().zip(&round.verdicts) {
                judged.entry(candidate.request.group.clone()).or_default().push((candidate, verdict));
            }
        }
        judged
    }

    fn balance(&self, grouping: &[String]) -> Option<page::BalanceChange> {
        let counts = self.finished.counts.as_ref()?;
        let before = counts.output.cube.roll_up(grouping).ok()?;
        let after = self.finished.written.as_ref().map(|_| {
            let used = |group: &Group| {
                self.finished.accepted.iter().filter(|a| a.candidate.request.group == *group).count() as u64
            };
            let planned = self.finished.plan.iter().flat_map(|plan| &plan.output.groups);
            let removed: BTreeMap<&Group, u64> = planned.map(|group| (&group.values, group.remove)).collect();
            let after = |group: &Group, count: u64| {
                count.saturating_sub(removed.get(group).copied().unwrap_or(0)) + used(group)
            };
            balance(&before.iter().map(|(group, count)| (group.clone(), after(group, *count))).collect::<Vec<_>>())
        });
        Some(page::BalanceChange { before: balance(&before), after })
    }

    fn plan(&self) -> Option<page::Plan> {
        let (plan, job) = (self.finished.plan.as_ref()?, self.job.plan.as_ref()?);
        let limits = limits(&job.limits);
        let mut unreachable: Vec<String> =
            plan.output.targets.iter().filter(|t| !t.satisfied).map(|t| t.explanation.clone()).collect();
        if !self.finished.rounds.is_empty() {
            let missed = self.finished.progress.groups.iter().filter(|group| group.remaining() > 0);
            unreachable.extend(missed.map(|group| {
                let (missing, add, rounds) = (group.remaining(), group.add, self.finished.rounds.len());
                let why = if group.unreachable.is_some() { "it was given up" } else { "the rounds ended" };
                let (accepted, requested) = (group.accepted, group.requested);
                format!(
                    "{}: {missing} of {add} images are missing after {rounds} rounds, since {why} ({accepted} of \
                     {requested} candidates were accepted)",
                    group.group
                )
            }));
        }
        Some(page::Plan {
            target: self.finished.target_sentence(),
            limits,
            images: plan.output.images,
            satisfied: self.finished.targets_met(),
            unreachable,
        })
    }

    fn rounds(&self) -> Vec<page::Round> {
        let round = |round: &crate::engine::Round| page::Round {
            round: round.round,
            requested: round.candidates.len() as u64,
            accepted: round.verdicts.iter().filter(|verdict| verdict.accepted).count() as u64,
            remaining: round.remaining,
        };
        self.finished.rounds.iter().map(round).collect()
    }

    fn generator(&self) -> Result<Option<page::Generator>> {
        let Some(model) = &self.finished.model else { return Ok(None) };
        let card = model.output.card();
        let every = card.loss.len().div_ceil(LOSS_POINTS).max(1);
        let loss = card.loss.chunks(every).filter_map(|chunk| {
            let mean = chunk.iter().map(|(_, loss)| loss).sum::<f64>() / chunk.len() as f64;
            chunk.last().map(|&(step, _)| page::LossPoint { step, loss: mean })
        });
        let loss = loss.collect();
        Ok(Some(page::Generator {
            kind: card.kind.into(),
            size: match card.kind {
                "conditional" => card.size,
                _ if card.size.is_empty() => card.id,
                _ => format!("{} ({})", card.id, card.size),
            },
            parameters: card.parameters,
            steps: card.training_steps,
            loss,
            sampler: card.sampler,
            sampler_steps: card.steps,
            guidance: card.guidance,
            device: card.device,
            model_sha256: card.sha256,
            sample_grid: sample_grid(&model.folder)?.map(|png| Picture::png(png, "one row of samples for each group")),
        }))
    }

    fn calibration(&self) -> Vec<page::Calibration> {
        let Some(verifier) = &self.finished.verifier else { return Vec::new() };
        verifier.output.calibration().attributes.iter().map(found::calibration).collect()
    }

    fn outputs(&self) -> Option<page::Outputs> {
        let written = &self.finished.written.as_ref()?.output;
        Some(page::Outputs {
            path: self.job.write.out.display().to_string(),
            formats: self.job.write.formats.iter().map(ToString::to_string).collect(),
            rows_real: written.rows_real,
            rows_generated: written.rows_generated,
            files: written
                .files
                .iter()
                .map(|file| page::OutputFile {
                    path: file.path.clone(),
                    bytes: file.bytes,
                    sha256: file.sha256.clone(),
                })
                .collect(),
        })
    }
}

/// What the gates did with all candidates; `None` before the first round.
pub fn acceptance(job: &Job, finished: &Finished) -> Option<page::Acceptance> {
    let verdicts: Vec<&Verdict> = finished.rounds.iter().flat_map(|round| &round.verdicts).collect();
    if verdicts.is_empty() {
        return None;
    }
    let mut asked = verdicts.len() as u64;
    let gates = job
        .verify
        .gates
        .iter()
        .map(|gate| {
            let dropped: Vec<&Verdict> =
                verdicts.iter().copied().filter(|verdict| verdict.gate.as_deref() == Some(gate.name())).collect();
            let row = page::GateRow {
                gate: gate.name().to_owned(),
                checked: asked,
                dropped: dropped.len() as u64,
                reasons: reasons(dropped.into_iter()),
            };
            asked = asked.saturating_sub(row.dropped);
            row
        })
        .collect();
    let accepted = verdicts.iter().filter(|verdict| verdict.accepted).count() as u64;
    let candidates = verdicts.len() as u64;
    Some(page::Acceptance { candidates, accepted, rejected: candidates - accepted, gates })
}

/// The limits that are set, in words.
fn limits(limits: &evenset_plan::Limits) -> Vec<String> {
    let evenset_plan::Limits { images, per_group, synthetic_share, forbid, min_examples, removed } = limits;
    let forbidden = (!forbid.is_empty()).then(|| format!("{} patterns that must not be generated", forbid.len()));
    [
        images.map(|n| format!("at most {n} generated images")),
        per_group.map(|n| format!("at most {n} generated images in one group")),
        synthetic_share.map(|share| format!("at most {:.0} % of the dataset generated", 100.0 * share)),
        min_examples.map(|n| format!("nothing for groups with fewer than {n} real images")),
        removed.map(|n| format!("at most {n} images left out")),
        forbidden,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A real image for the page: the original bytes where they are small, else a copy at the models' size.
fn picture(bytes: &[u8], frame: crate::images::Frame, group: &Group) -> Picture {
    const SMALL: usize = 8 << 10;
    let alt = format!("real: {group}");
    if bytes.len() <= SMALL && bytes.starts_with(b"\x89PNG") {
        return Picture::png(bytes.to_vec(), alt);
    }
    match evenset_data::decode(bytes, &evenset_data::Limits::default()) {
        Ok(image) => {
            let rgb = evenset_data::fit(&image.rgb, image.width, image.height, frame.width, frame.height);
            Picture::png(evenset_data::encode_png(frame.width, frame.height, 3, &rgb, &[]), alt)
        }
        Err(_) => Picture { alt, ..Picture::default() },
    }
}

/// The kinds of reasons, most frequent first.
fn reasons<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Vec<ReasonCount> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for reason in verdicts.filter_map(|verdict| verdict.reject_reason.as_ref()) {
        *counts.entry(kind_of_reason(reason)).or_default() += 1;
    }
    let mut reasons: Vec<ReasonCount> =
        counts.into_iter().map(|(reason, count)| ReasonCount { reason, count }).collect();
    reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    reasons
}

fn balance(groups: &[(Group, u64)]) -> page::Balance {
    use evenset_audit::statistics as s;
    let counts: Vec<u64> = groups.iter().map(|(_, count)| *count).collect();
    page::Balance {
        normalised_entropy: Some(s::normalised_entropy(&counts)),
        largest_to_smallest: s::largest_to_smallest(&counts),
        total_variation: Some(s::total_variation(&counts)),
        cramers_v: label_table(groups).and_then(|table| s::cramers_v(&table)),
        effective_groups: Some(s::effective_groups(&counts)),
    }
}

/// Counts with the grouping's first attribute (the label) as rows and the rest as columns.
fn label_table(groups: &[(Group, u64)]) -> Option<Vec<Vec<u64>>> {
    let mut rows: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for (group, count) in groups {
        let mut values = group.values();
        let label = values.next()?;
        let rest: Vec<&str> = values.collect();
        if rest.is_empty() {
            return None;
        }
        rows.entry(label).or_default().insert(rest.join("\u{1f}"), *count);
    }
    Some(rows.into_values().map(|row| row.into_values().collect()).collect())
}
