//! What the server answers, and what becomes of it.

use std::time::{Duration, Instant};

use evenset_diffusion::DiffusionError;
use evenset_diffusion::http::Rejection;
use serde_json::json;

use crate::support::{Case, Server, draw};

#[test]
fn images_come_back_in_their_requests_places() {
    for behaviour in ["good", "url"] {
        let case = Case::new(behaviour);
        let drawn = draw(case.config(json!({})), [5, 6, 7, 8, 9, 10]);
        assert!(drawn.error.is_none(), "{}", drawn.said());
        assert_eq!(drawn.numbers(), [(0, 5), (1, 6), (2, 7), (3, 8), (4, 9), (5, 10)], "{behaviour}");
        assert_eq!((case.asked(), drawn.spent.images), (6, 6));
    }
}

#[test]
fn no_more_requests_are_in_flight_than_allowed() {
    for concurrency in [1, 3] {
        let server = Server::start();
        let case = Case::on(&server, "short-pause");
        let drawn = draw(case.config(json!({"concurrency": concurrency})), 0..8);
        assert_eq!(drawn.numbers().len(), 8);
        let most = case.log().iter().map(|entry| entry["in_flight"].as_u64().unwrap()).max();
        assert_eq!(most, Some(concurrency));
    }
}

#[test]
fn a_web_page_in_place_of_json_ends_the_call_and_is_quoted() {
    let case = Case::new("html");
    let drawn = draw(case.config(json!({"concurrency": 1})), 0..4);
    let said = drawn.said();
    assert!(said.contains("text/html: `<html> <title>Please sign in</title></html>`"), "{said}");
    assert!(said.contains("/images/generations") && said.contains("base_url"), "{said}");
    assert_eq!((case.asked(), drawn.spent.images), (1, 1));
}

#[test]
fn json_of_another_api_ends_the_call() {
    let said = draw(Case::new("other-json").config(json!({})), [1]).said();
    assert!(said.contains("missing field `data`") && said.contains(r#"`{"images":["?"]}`"#), "{said}");
}

#[test]
fn one_unusable_image_is_a_rejection_and_three_in_a_row_end_the_call() {
    let expected = [
        ("wrong-size", "an image of 8x4 where 16x16 was asked for"),
        ("no-picture", "what came as an image is none: not an image"),
        ("no-image", "the answer holds no image"),
        ("link-html", "what came as an image is none: not an image"),
        ("link-missing", "the link with 404 Not Found"),
    ];
    for (behaviour, reason) in expected {
        let one = draw(Case::new(behaviour).config(json!({})), [1]);
        assert!(one.error.is_none(), "{behaviour}: {}", one.said());
        let Rejection::Unusable(said) = one.rejection(0) else { panic!("{behaviour}") };
        assert!(said.contains(reason), "{behaviour}: {said}");

        let case = Case::new(behaviour);
        let many = draw(case.config(json!({"concurrency": 1})), 0..10);
        assert!(many.said().contains("3 answers in a row") && many.said().contains(reason), "{}", many.said());
        assert_eq!((case.asked(), many.outcomes.len()), (3, 3), "{behaviour}");
    }
}

#[test]
fn refusals_for_content_are_rejections_with_their_reason_and_the_rest_is_drawn() {
    let case = Case::new("refusal");
    let drawn = draw(case.config(json!({})), 0..10);
    assert!(drawn.error.is_none(), "{}", drawn.said());
    assert_eq!(drawn.numbers(), [(0, 0), (2, 2), (4, 4), (6, 6), (8, 8)]);
    for place in [1, 3, 5, 7, 9] {
        assert_eq!(drawn.rejection(place), &Rejection::Refused("content_policy_violation: not this".into()));
    }
    assert_eq!((case.asked(), drawn.spent.images), (10, 10));
}

#[test]
fn an_answer_without_end_is_cut_at_the_cap() {
    for behaviour in ["huge", "huge-and-says-so", "link-huge"] {
        let begun = Instant::now();
        let case = Case::new(behaviour);
        let drawn = draw(case.config(json!({"max_answer_bytes": 200_000})), [1]);
        let said = match behaviour {
            "link-huge" => drawn.rejection(0).to_string(),
            _ => drawn.said(),
        };
        assert!(said.contains("more than 200000 bytes") && said.contains("max_answer_bytes"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{behaviour}");
        assert_eq!(case.asked(), 1);
    }
}

#[test]
fn a_link_that_stays_dead_is_an_image_without_use_and_is_not_paid_for_again() {
    let case = Case::new("link-busy");
    let drawn = draw(case.config(json!({"retries": 1})), [1, 2]);
    assert!(drawn.error.is_none(), "{:?}", drawn.error);
    for place in 0..2 {
        let said = drawn.rejection(place).to_string();
        assert!(said.contains("the link: given up after 2 tries") && said.contains("503"), "{said}");
    }
    assert_eq!((case.asked(), drawn.spent.images), (2, 2));
}

#[test]
fn redirects_and_links_out_of_http_are_not_followed() {
    let expected = [
        ("redirect", "a redirect to `ftp://127.0.0.1/x`, which is not followed"),
        ("link-ftp", "a link to `ftp:`"),
        ("link-to-file", "a redirect from `http://` to `file://`"),
        ("link-loop", "redirects more than 3 times"),
    ];
    for (behaviour, reason) in expected {
        let case = Case::new(behaviour);
        let drawn = draw(case.config(json!({})), [1]);
        assert!(matches!(drawn.error, Some(DiffusionError::Server { .. })), "{behaviour}");
        assert!(drawn.said().contains(reason), "{behaviour}: {}", drawn.said());
        assert!(!drawn.said().contains("s3cret"), "{}", drawn.said());
        assert_eq!(case.asked(), 1);
    }
}

#[test]
fn a_link_is_followed_through_a_redirect_and_a_busy_moment_without_paying_again() {
    for behaviour in ["link-redirect", "link-busy-once"] {
        let case = Case::new(behaviour);
        let drawn = draw(case.config(json!({})), [9]);
        assert_eq!(drawn.numbers(), [(0, 9)], "{behaviour}: {:?}", drawn.error);
        assert_eq!((case.asked(), case.log().len(), drawn.spent.images), (1, 3, 1), "{behaviour}");
    }
}

#[test]
fn an_image_says_whether_it_was_seeded_and_how_its_prompt_was_rewritten() {
    let plain = draw(Case::new("good").config(json!({})), [1]);
    assert!(!plain.images()[&0].seeded);
    assert_eq!(plain.images()[&0].revised_prompt.as_deref(), Some("as I see it"));
    let seeded = draw(Case::new("good").config(json!({"seed_field": "seed"})), [1]);
    assert!(seeded.images()[&0].seeded);
}
