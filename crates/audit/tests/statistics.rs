//! The statistics against SciPy's and statsmodels' (`tests/golden/statistics/statistics.py` makes the file).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_audit::statistics::{
    self, Method, RANDOM_TABLES, auc, benjamini_hochberg, cells, cramers_v, distances_to, fisher_exact, g_test,
    goodman, mantel_haenszel, mutual_information, newcombe, vendi_of_embeddings, wilson,
};
use evenset_core::Seed;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn golden<T: DeserializeOwned>(part: &str) -> Vec<T> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/statistics/statistics.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let cases: Vec<T> = serde_json::from_value(all[part].clone()).unwrap();
    assert!(!cases.is_empty(), "{part}");
    cases
}

/// Equal to `digits` digits, or so near to 0 that the reference itself is rounding.
fn close(found: f64, expected: f64, digits: i32, what: impl Fn() -> String) {
    let bound = 10f64.powi(-digits) * expected.abs() + 1e-14;
    assert!((found - expected).abs() <= bound, "{}: {found:e} where {expected:e} is expected", what());
}

fn close_limits(found: [f64; 2], expected: [f64; 2], digits: i32, what: impl Fn() -> String) {
    found.into_iter().zip(expected).for_each(|(f, e)| close(f, e, digits, || format!("limit of {}", what())));
}

#[test]
fn intervals_of_shares_agree() {
    #[derive(Deserialize)]
    struct Case {
        count: u64,
        total: u64,
        wilson: [f64; 2],
    }
    for case in golden::<Case>("shares_of_counts") {
        let found = wilson(case.count, case.total, statistics::Z95);
        close_limits(found, case.wilson, 12, || format!("{}/{}", case.count, case.total));
    }
}

#[test]
fn simultaneous_intervals_agree() {
    #[derive(Deserialize)]
    struct Case {
        counts: Vec<u64>,
        goodman: Vec<[f64; 2]>,
    }
    for case in golden::<Case>("multinomials") {
        let found = goodman(&case.counts, 0.95);
        assert_eq!(found.len(), case.goodman.len());
        // The reference takes small numbers from large ones where a count is small in a large sample.
        let total: f64 = case.counts.iter().map(|&n| n as f64).sum();
        for (found, expected) in found.into_iter().zip(case.goodman) {
            for (f, e) in found.into_iter().zip(expected) {
                assert!((f - e).abs() <= 1e-10 * e + 1e-15 + 1e-9 / total, "{:?}: {f:e} {e:e}", case.counts);
            }
        }
    }
}

#[test]
fn intervals_of_differences_agree() {
    #[derive(Deserialize)]
    struct Case {
        a: (u64, u64),
        b: (u64, u64),
        newcombe: [f64; 2],
    }
    for case in golden::<Case>("differences") {
        close_limits(newcombe(case.a, case.b), case.newcombe, 10, || format!("{:?} - {:?}", case.a, case.b));
    }
}

#[test]
fn distances_agree() {
    #[derive(Deserialize)]
    struct Case {
        counts: Vec<u64>,
        reference: Vec<f64>,
        total_variation: f64,
        kullback_leibler: f64,
        jensen_shannon: f64,
    }
    for case in golden::<Case>("distances") {
        let found = distances_to(&case.counts, &case.reference, Seed(1)).unwrap();
        let what = || format!("{:?}", case.counts);
        close(found.total_variation.value, case.total_variation, 12, what);
        close(found.kullback_leibler.unwrap().value, case.kullback_leibler, 12, what);
        close(found.jensen_shannon.value, case.jensen_shannon, 12, what);
    }
}

#[derive(Deserialize)]
struct Table {
    table: Vec<Vec<u64>>,
    g: f64,
    degrees_of_freedom: u64,
    cramers_v: f64,
    method: String,
    p: f64,
    mutual_information: Information,
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Information {
    plug_in: f64,
    normalised: f64,
    corrected: f64,
}

#[derive(Deserialize)]
struct Cell {
    count: u64,
    p: f64,
    q: f64,
    npmi: f64,
    odds_ratio: f64,
    odds_ratio_interval: [f64; 2],
}

#[test]
fn tests_of_independence_agree() {
    for case in golden::<Table>("associations") {
        let what = || format!("{:?}", case.table);
        let found = g_test(&case.table, Seed(7)).unwrap();
        close(found.statistic, case.g, 10, what);
        assert_eq!(found.degrees_of_freedom, case.degrees_of_freedom, "{}", what());
        match (found.method, case.method.as_str()) {
            (Method::ChiSquared, "chi-squared") | (Method::Fisher, "fisher") => close(found.p, case.p, 10, what),
            (Method::MonteCarlo { tables: RANDOM_TABLES }, "monte-carlo") => {
                // Four standard errors of the difference of 9,999 and 40,000 draws, and one draw of the smaller.
                let error = (case.p * (1.0 - case.p) * (1.0 / f64::from(RANDOM_TABLES) + 1.0 / 40_000.0)).sqrt();
                assert!((found.p - case.p).abs() <= 4.0 * error + 3e-4, "{}: {} {}", what(), found.p, case.p);
            }
            (method, expected) => panic!("{}: {method:?} where {expected} is expected", what()),
        }
    }
}

#[test]
fn measures_of_association_agree() {
    for case in golden::<Table>("associations") {
        let what = || format!("{:?}", case.table);
        close(cramers_v(&case.table).unwrap(), case.cramers_v, 8, what);
        let found = mutual_information(&case.table).unwrap();
        close(found.plug_in, case.mutual_information.plug_in, 10, what);
        close(found.normalised, case.mutual_information.normalised, 10, what);
        close(found.corrected, case.mutual_information.corrected, 9, what);
    }
}

#[test]
fn cells_agree() {
    for case in golden::<Table>("associations") {
        let found = cells(&case.table);
        assert_eq!(found.len(), case.cells.len());
        for (found, expected) in found.iter().zip(&case.cells) {
            let what = || format!("{:?} {found:?}", case.table);
            assert_eq!(found.count, expected.count);
            close(found.p, expected.p, 9, what);
            close(found.q, expected.q, 9, what);
            close(found.npmi, expected.npmi, 9, what);
            close(found.odds_ratio, expected.odds_ratio, 12, what);
            close_limits(found.odds_ratio_interval, expected.odds_ratio_interval, 12, what);
        }
    }
}

#[test]
fn fishers_test_agrees() {
    #[derive(Deserialize)]
    struct Case {
        table: [[u64; 2]; 2],
        p: f64,
    }
    for case in golden::<Case>("fishers") {
        close(fisher_exact(case.table).unwrap(), case.p, 9, || format!("{:?}", case.table));
    }
}

#[test]
fn pooled_odds_ratios_agree() {
    #[derive(Deserialize)]
    struct Case {
        strata: Vec<[[u64; 2]; 2]>,
        odds_ratio: f64,
        interval: [f64; 2],
        statistic: f64,
        p: f64,
    }
    for case in golden::<Case>("strata") {
        let what = || format!("{:?}", case.strata);
        let found = mantel_haenszel(&case.strata).unwrap();
        close(found.odds_ratio.unwrap(), case.odds_ratio, 12, what);
        close_limits(found.interval.unwrap(), case.interval, 11, what);
        close(found.statistic, case.statistic, 9, what);
        close(found.p, case.p, 9, what);
    }
}

#[test]
fn areas_under_the_curve_agree() {
    #[derive(Deserialize)]
    struct Case {
        group: Vec<f64>,
        rest: Vec<f64>,
        auc: f64,
        interval: [f64; 2],
    }
    for case in golden::<Case>("areas") {
        let found = auc(&case.group, &case.rest).unwrap();
        let what = || format!("{} against {}", case.group.len(), case.rest.len());
        close(found.value, case.auc, 12, what);
        close_limits(found.interval, case.interval, 10, what);
    }
}

#[test]
fn vendi_scores_agree() {
    #[derive(Deserialize)]
    struct Case {
        embeddings: Vec<f32>,
        n: usize,
        score: f64,
    }
    for case in golden::<Case>("vendi") {
        close(vendi_of_embeddings(&case.embeddings, case.n).unwrap(), case.score, 10, || format!("{} items", case.n));
    }
}

#[test]
fn discovery_rates_agree() {
    #[derive(Deserialize)]
    struct Case {
        p: Vec<f64>,
        q: Vec<f64>,
    }
    for case in golden::<Case>("discoveries") {
        for (found, expected) in benjamini_hochberg(&case.p).into_iter().zip(case.q) {
            close(found, expected, 12, || format!("{} p values", case.p.len()));
        }
    }
}
