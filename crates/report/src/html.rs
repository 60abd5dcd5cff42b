//! The report page: one HTML file that needs nothing else.
//!
//! Each part of the page is a small view (`html/*.rs`): plain text that the template escapes, and charts that come as
//! finished SVG. The template only lays them out. No script, no outside request: a content security policy says so.

mod checks;
mod counts;
mod evidence;
mod headline;
mod likeness;
mod limits;
mod made;
mod samples;
mod trust;

use evenset_core::Group;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde::Serialize;

pub(crate) use checks::biased;
pub(crate) use counts::step;
pub(crate) use evidence::{composed, plateau, test_images};
pub use headline::{Headline, headline};
pub(crate) use likeness::{found, too_small};

use crate::data::NoteLevel;
use crate::text::shown;
use crate::{ReportData, ReportError};

/// Groups that the top of the page warns about one by one.
pub(crate) const MOST_ALARMS: usize = 3;

/// The report as one self-contained HTML page.
///
/// # Errors
/// [`ReportError::Template`] if the page cannot be rendered.
pub fn render(data: &ReportData) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template("report.html", include_str!("../templates/report.html"))?;
    Ok(environment.get_template("report.html")?.render(Serde(Page::of(data)))?)
}

/// Everything the template shows.
#[derive(Serialize)]
struct Page<'a> {
    css: Value,
    name: &'a str,
    evenset: &'a str,
    headline: Headline,
    figures: Vec<headline::Figure>,
    warnings: Vec<String>,
    remarks: Vec<&'a str>,
    counts: Option<counts::Counts>,
    balance: Vec<counts::BalanceRow>,
    plan: Option<&'a crate::Plan>,
    unreachable: Folded<&'a str>,
    audit_page: Option<&'a str>,
    evidence: Option<evidence::EvidenceView>,
    samples: Folded<samples::Card>,
    left_over: String,
    checks: Option<checks::Checks>,
    rejected: Vec<samples::RejectedCard>,
    rounds: Vec<checks::RoundRow>,
    calibration: Vec<trust::CalibrationView>,
    likeness: Option<likeness::Likeness>,
    made: made::Made<'a>,
    limits: Vec<String>,
}

impl<'a> Page<'a> {
    fn of(data: &'a ReportData) -> Self {
        let notes = |level: NoteLevel| data.notes.iter().filter(move |note| note.level == level);
        Self {
            css: safe(include_str!("../templates/report.css").to_owned()),
            name: if data.name.is_empty() { "unnamed job" } else { &data.name },
            evenset: &data.evenset,
            headline: headline(data).unbroken(),
            figures: headline::figures(data),
            warnings: notes(NoteLevel::Warning).map(|note| unbroken(&note.text)).chain(alarms(data)).collect(),
            remarks: notes(NoteLevel::Info).map(|note| note.text.as_str()).collect(),
            counts: counts::counts(data),
            balance: counts::balance(data),
            plan: data.plan.as_ref(),
            unreachable: Folded::new(
                data.plan.iter().flat_map(|plan| &plan.unreachable).map(String::as_str).collect(),
                10,
                6,
            ),
            audit_page: data.audit_page.as_deref(),
            evidence: data.evidence.as_ref().and_then(evidence::evidence),
            samples: samples::cards(data),
            left_over: samples::left_over(data),
            checks: checks::checks(data),
            rejected: samples::rejected(data),
            rounds: checks::rounds(data),
            calibration: trust::trust(data),
            likeness: likeness::likeness(data),
            made: made::made(data),
            limits: limits::limits(data),
        }
    }
}

/// What the looks at the gates call for at the top of the page.
fn alarms(data: &ReportData) -> Vec<String> {
    let Some(checks) = &data.checks else { return Vec::new() };
    let mut alarms: Vec<String> = checks.bias.iter().take(MOST_ALARMS).map(biased).collect();
    if checks.bias.len() > MOST_ALARMS {
        alarms.push(format!(
            "{} more groups are thrown away far more often than the others; the part on the checks names them.",
            checks.bias.len() - MOST_ALARMS
        ));
    }
    alarms.extend(checks.shortcut.as_ref().filter(|shortcut| shortcut.found).map(found));
    alarms
}

/// Rows that are shown at once, and the others, which open on demand.
#[derive(Serialize)]
pub(crate) struct Folded<T> {
    shown: Vec<T>,
    folded: Vec<T>,
}

impl<T> Folded<T> {
    /// All rows where there are at most `limit`, else the first `shown` and the rest folded away.
    pub(crate) fn new(mut rows: Vec<T>, limit: usize, shown: usize) -> Self {
        let folded = if rows.len() > limit { rows.split_off(shown.min(rows.len())) } else { Vec::new() };
        Self { shown: rows, folded }
    }
}

/// Finished markup, which the template does not escape again.
pub(crate) fn safe(markup: String) -> Value {
    Value::from_safe_string(markup)
}

/// The values of a group as they are shown, one text each.
fn values(group: &Group) -> Vec<String> {
    group.values().map(shown).collect()
}

/// The values of a group in one plain text, for descriptions.
fn spoken(group: &Group) -> String {
    if group.is_empty() { "all images".to_owned() } else { values(group).join(", ") }
}

/// A sentence whose numbers stay on one line with their percent signs, and probabilities with their `p`.
fn unbroken(sentence: &str) -> String {
    sentence.replace(" %", "\u{a0}%").replace("p < ", "p\u{a0}<\u{a0}").replace("p = ", "p\u{a0}=\u{a0}")
}

/// Part of a whole, 0 where there is no whole.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
