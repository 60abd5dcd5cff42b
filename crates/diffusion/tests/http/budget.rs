//! What may be spent, and that it is never more.

use evenset_core::Silent;
use evenset_diffusion::DiffusionError;
use serde_json::json;

use crate::support::{Case, draw, draw_with, requests, with_ledger};

#[test]
fn a_budget_ends_the_call_with_what_it_paid_for() {
    let case = Case::new("good");
    let drawn = draw(case.config(json!({"budget": {"images": 3}})), 0..8);
    assert!(matches!(drawn.error, Some(DiffusionError::Budget { .. })));
    assert!(drawn.said().contains("spent 3 images of 3 images"), "{}", drawn.said());
    assert_eq!((drawn.numbers().len(), case.asked()), (3, 3));
}

#[test]
fn money_ends_the_call_before_the_images_do() {
    let case = Case::new("good");
    let budget = json!({"images": 50, "money": 0.1, "price_per_image": 0.04, "currency": "USD"});
    let drawn = draw(case.config(json!({"budget": budget, "concurrency": 1})), 0..8);
    assert!(drawn.said().contains("2 images for 0.08 USD of 50 images for 0.10 USD"), "{}", drawn.said());
    assert_eq!((drawn.numbers().len(), case.asked()), (2, 2));
}

#[test]
fn retries_that_may_have_been_charged_use_up_the_budget() {
    let case = Case::new("truncated");
    let drawn = draw(case.config(json!({"budget": {"images": 2}, "retries": 20})), [1]);
    assert!(matches!(drawn.error, Some(DiffusionError::Budget { .. })), "{}", drawn.said());
    assert_eq!(case.asked(), 2);
}

#[test]
fn another_run_goes_on_from_what_was_spent() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("spent.json");
    let case = Case::new("good");
    let budget = json!({"images": 3, "money": 9, "price_per_image": 0.5, "currency": "EUR"});
    let settings = case.config(json!({"budget": budget}));

    let first = with_ledger(settings.clone(), &ledger);
    assert_eq!(first.left(), 3);
    assert!(draw_with(&first, &requests(0..2), &Silent).error.is_none());
    drop(first);

    let second = with_ledger(settings, &ledger);
    assert_eq!((second.left(), second.spent().images, second.spent().millionths), (1, 2, 1_000_000));
    let drawn = draw_with(&second, &requests(2..9), &Silent);
    assert_eq!(drawn.images().len(), 1);
    assert!(drawn.said().contains("spent 3 images for 1.50 EUR"), "{}", drawn.said());
    assert_eq!(case.asked(), 3);
}

#[test]
fn a_request_is_in_the_ledger_while_it_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("spent.json");
    let case = Case::new("short-pause");
    let generator = with_ledger(case.config(json!({"concurrency": 1})), &ledger);
    std::thread::scope(|scope| {
        let drawing = scope.spawn(|| draw_with(&generator, &requests([1]), &Silent));
        while case.asked() == 0 {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let written = std::fs::read_to_string(&ledger).unwrap();
        assert!(written.contains(r#""images":1"#), "{written}");
        assert_eq!(drawing.join().unwrap().numbers(), [(0, 1)]);
    });
}

#[test]
fn an_outcome_that_cannot_be_kept_ends_the_call() {
    let case = Case::new("good");
    let generator = crate::support::generator(case.config(json!({"concurrency": 1})));
    let full = || DiffusionError::TrainingSet("the disk is full".into());
    let error = generator.generate::<DiffusionError>(&requests(0..9), &Silent, &mut |_, _| Err(full())).unwrap_err();
    assert!(error.to_string().contains("the disk is full"));
    assert!(case.asked() <= 2, "{}", case.asked());
}
