//! Servers that are busy, broken, slow or gone.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evenset_core::Progress;
use evenset_diffusion::DiffusionError;
use evenset_diffusion::http::HostedOutcome;
use serde_json::json;

use crate::support::{Case, Server, config, draw, draw_with, generator, requests};

#[test]
fn what_fails_once_is_tried_again() {
    for (behaviour, spent) in [("failing-once", 2), ("vanish-once", 2), ("busy-once", 1)] {
        let case = Case::new(behaviour);
        let drawn = draw(case.config(json!({})), [7]);
        assert_eq!(drawn.numbers(), [(0, 7)], "{behaviour}: {:?}", drawn.error);
        assert_eq!((case.asked(), drawn.spent.images), (2, spent), "{behaviour}");
    }
}

#[test]
fn the_wait_that_a_server_asks_for_is_kept_up_to_the_cap() {
    for behaviour in ["busy-once", "busy-until"] {
        let begun = Instant::now();
        let settings = json!({"first_wait_seconds": 0, "longest_wait_seconds": 0.4});
        assert_eq!(draw(Case::new(behaviour).config(settings), [7]).numbers(), [(0, 7)]);
        assert!(begun.elapsed() >= Duration::from_millis(400), "{behaviour}: {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(25), "{behaviour}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_server_that_stays_busy_ends_the_call_after_the_bounded_tries_and_what_was_drawn_is_kept() {
    let case = Case::new("busy-after-two");
    let drawn = draw(case.config(json!({"concurrency": 1})), 0..9);
    assert_eq!(drawn.numbers(), [(0, 0), (1, 1)]);
    let said = drawn.said();
    assert!(said.contains("given up after 3 tries; the last: 429 Too Many Requests: slow down"), "{said}");
    assert!(said.contains("concurrency"), "{said}");
    assert_eq!((case.asked(), drawn.spent.images), (5, 2));
}

#[test]
fn no_retries_means_one_try() {
    for behaviour in ["busy", "failing"] {
        let case = Case::new(behaviour);
        let said = draw(case.config(json!({"retries": 0})), [1]).said();
        assert!(said.contains("given up after 1 try;"), "{said}");
        assert_eq!(case.asked(), 1);
    }
}

#[test]
fn slow_and_dripping_answers_are_given_up_at_the_timeout_and_count_as_charged() {
    for behaviour in ["slow", "drip"] {
        let begun = Instant::now();
        let case = Case::new(behaviour);
        let drawn = draw(case.config(json!({"timeout_seconds": 0.5, "retries": 1})), [1]);
        let said = drawn.said();
        assert!(said.contains("2 tries") && said.contains("within 0.5 seconds (`timeout_seconds`)"), "{said}");
        assert!(begun.elapsed() >= Duration::from_secs(1), "{behaviour}: {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(20), "{behaviour}: {:?}", begun.elapsed());
        assert_eq!(drawn.spent.images, 2, "{behaviour}");
    }
}

#[test]
fn truncated_answers_are_tried_again_and_count_as_charged() {
    for (behaviour, reason) in [("truncated", "the connection broke"), ("ends-early", "ends in the middle")] {
        let case = Case::new(behaviour);
        let drawn = draw(case.config(json!({})), [1]);
        assert!(drawn.said().contains(reason), "{behaviour}: {}", drawn.said());
        assert_eq!((case.asked(), drawn.spent.images), (3, 3), "{behaviour}");
    }
}

#[test]
fn a_server_that_is_down_costs_nothing() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let drawn = draw(config(&format!("http://127.0.0.1:{port}/v1"), json!({})), 0..3);
    let said = drawn.said();
    assert!(said.contains("given up after 3 tries; the last: not reached") && said.contains("refused"), "{said}");
    assert!(said.starts_with(&format!("http://127.0.0.1:{port}/v1/images/generations: ")), "{said}");
    assert_eq!((drawn.outcomes.len(), drawn.spent.images), (0, 0));
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_what_was_drawn() {
    let mut server = Server::start();
    let case = Case::on(&server, "good");
    let generator = generator(case.config(json!({"concurrency": 1})));
    let mut kept = Vec::new();
    let error = generator
        .generate::<DiffusionError>(&requests(0..9), &evenset_core::Silent, &mut |place, _| {
            kept.push(place);
            if kept.len() == 2 {
                server.kill();
            }
            Ok(())
        })
        .unwrap_err();
    assert!(matches!(error, DiffusionError::Server { .. }), "{error}");
    assert_eq!((kept, generator.spent().images), (vec![0, 1], 2));
}

#[test]
fn requests_that_the_server_turns_away_are_not_tried_again() {
    let case = Case::new("wrong-size-request");
    let drawn = draw(case.config(json!({"concurrency": 1})), 0..5);
    let said = drawn.said();
    assert!(said.contains("400 Bad Request: 16x16 is not a size; check `model`, `size` and `fields`"), "{said}");
    assert_eq!((case.asked(), drawn.spent.images), (1, 0));
}

/// Stops when told to.
#[derive(Default)]
struct Stop(AtomicBool);

impl Progress for Stop {
    fn begin(&self, _task: &str, _total: u64) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, _remark: &str) {}
    fn end(&self) {}
    fn stop_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_stop_ends_the_call_between_requests_and_keeps_what_is_in_flight() {
    // Behind a link, too: its image is drawn when the link comes.
    for behaviour in ["short-pause", "link-short-pause"] {
        let stop = Stop::default();
        let case = Case::new(behaviour);
        let generator = generator(case.config(json!({"concurrency": 2})));
        let mut kept = 0;
        let error = generator.generate::<DiffusionError>(&requests(0..20), &stop, &mut |_, outcome| {
            assert!(matches!(outcome, HostedOutcome::Drawn(_)));
            kept += 1;
            stop.0.store(true, Ordering::Relaxed);
            Ok(())
        });
        assert!(matches!(error, Err(DiffusionError::Interrupted(_))));
        assert_eq!(kept, case.asked(), "{behaviour}");
        assert!((1..=3).contains(&kept), "{kept}");
    }
}

#[test]
fn a_stop_ends_a_long_wait_between_tries() {
    let stop = Stop::default();
    let settings = json!({"first_wait_seconds": 300, "longest_wait_seconds": 300});
    let generator = generator(Case::new("busy").config(settings));
    let begun = Instant::now();
    let drawn = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            stop.0.store(true, Ordering::Relaxed);
        });
        draw_with(&generator, &requests([1]), &stop)
    });
    assert!(matches!(drawn.error, Some(DiffusionError::Interrupted(_))));
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}
