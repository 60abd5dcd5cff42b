//! The page: self-contained, well-formed and safe whatever the data says, and the same every time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_core::{Group, MISSING};
use evenset_report::{
    Acceptance, Arm, Balance, BalanceChange, Calibration, Evidence, Gain, GateRow, Generator, GroupAccuracy, GroupRow,
    Hook, LossPoint, Note, OutputFile, Outputs, Picture, Plan, ReasonCount, RejectedPicture, RejectedRows, ReportData,
    Round, Verdict, headline, render,
};

const ATTRIBUTES: [&str; 4] = ["garment", "colour", "season", "fabric"];

/// A report with every part, `values` to the power of `attributes` groups, and `text` wherever a name can stand.
fn full(attributes: usize, values: usize, text: &str) -> ReportData {
    let group = |mut index: usize| {
        let pairs = ATTRIBUTES.iter().take(attributes).map(|attribute| {
            let value = index % values;
            index /= values;
            (format!("{attribute}{text}"), format!("{value}{text}"))
        });
        Group::new(pairs).unwrap()
    };
    let groups: Vec<Group> = (0..values.pow(attributes as u32)).map(group).collect();
    let picture =
        || Picture::png(vec![137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 28], text);
    let arm = |name: &str, accuracy: f64| Arm {
        name: format!("{name}{text}"),
        accuracy,
        accuracy_interval: Some([accuracy - 0.1, accuracy + 0.1]),
        worst_group: accuracy / 2.0,
        worst_group_interval: None,
        gap: Some(0.3),
        gap_interval: None,
        groups: groups
            .iter()
            .map(|group| GroupAccuracy { values: group.clone(), accuracy, ..GroupAccuracy::default() })
            .collect(),
    };
    ReportData {
        name: text.into(),
        evenset: text.into(),
        label: Some(text.into()),
        attributes: vec![text.into()],
        grouping: vec![text.into()],
        job: text.into(),
        dataset: Some(evenset_report::Dataset {
            path: text.into(),
            kind: text.into(),
            rejected: vec![RejectedRows { reason: text.into(), rows: 1, examples: vec![text.into(); 30] }],
            ..Default::default()
        }),
        balance: Some(BalanceChange { before: Balance::default(), after: Some(Balance::default()) }),
        plan: Some(Plan {
            target: text.into(),
            limits: vec![text.into()],
            unreachable: vec![text.into()],
            ..Plan::default()
        }),
        acceptance: Some(Acceptance {
            candidates: 10,
            accepted: 6,
            rejected: 4,
            gates: vec![GateRow {
                gate: text.into(),
                checked: 10,
                dropped: 4,
                reasons: vec![ReasonCount { reason: text.into(), count: 4 }],
            }],
        }),
        rounds: vec![Round { round: 1, requested: 10, accepted: 6, remaining: 0 }],
        generator: Some(Generator {
            kind: text.into(),
            sampler: text.into(),
            model_sha256: Some(text.into()),
            loss: vec![
                LossPoint { step: 0, loss: 1.0 },
                LossPoint { step: 9, loss: f64::NAN },
                LossPoint { step: 20, loss: 0.5 },
            ],
            sample_grid: Some(picture()),
            ..Generator::default()
        }),
        calibration: vec![Calibration {
            attribute: text.into(),
            accuracy: 0.9,
            images: 10,
            classes: vec![text.into(), "b".into()],
            confusion: vec![vec![4, 1], vec![0, 5]],
        }],
        evidence: Some(Evidence {
            verdict: Verdict::Helped,
            sentence: text.into(),
            seeds: 3,
            gain: Some(Gain { over: format!("as-is{text}"), worst_group: 0.1, interval: [0.05, 0.15] }),
            arms: vec![arm("as-is", 0.6), arm("balanced", 0.8)],
        }),
        outputs: Some(Outputs {
            path: text.into(),
            formats: vec![text.into()],
            files: vec![OutputFile { path: text.into(), bytes: 1, sha256: text.into() }],
            ..Outputs::default()
        }),
        hook: Some(Hook { command: vec![text.into()], exit_code: None, output_tail: text.into() }),
        notes: vec![Note::warning(text), Note::info(text)],
        groups: groups
            .into_iter()
            .enumerate()
            .map(|(i, values)| GroupRow {
                values,
                before: i as u64 % 5,
                want: Some(10),
                generated: 10,
                accepted: 6,
                rejected: 4,
                after: Some(i as u64 % 5 + 6),
                acceptance_interval: Some([0.5, 0.7]),
                reasons: vec![ReasonCount { reason: text.into(), count: 4 }],
                samples_real: vec![picture()],
                samples_generated: vec![picture()],
                samples_rejected: vec![RejectedPicture { picture: picture(), reason: text.into() }],
            })
            .collect(),
        ..ReportData::default()
    }
}

/// The attributes' text of every tag, after checking that tags are closed in the order in which they were opened.
fn tags(page: &str) -> Vec<String> {
    const VOID: [&str; 3] = ["meta", "img", "br"];
    let mut open: Vec<&str> = Vec::new();
    let mut tags = Vec::new();
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("a tag is not closed: <{part:.80}"));
        assert_eq!(tag.matches('"').count() % 2, 0, "a quote is not closed: <{tag}>");
        if tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another element");
            continue;
        }
        let name = tag.split([' ', '/', '\n']).next().unwrap();
        if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        tags.push(tag.to_owned());
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    tags
}

#[test]
fn pages_of_every_shape_are_well_formed_and_the_same_every_time() {
    for (attributes, values) in [(1, 1), (1, 70), (2, 1), (2, 7), (2, 20), (3, 3), (4, 3)] {
        let data = full(attributes, values, "x");
        let page = render(&data).unwrap();
        tags(&page);
        assert_eq!(page, render(&data).unwrap());
    }
}

#[test]
fn names_from_strangers_stay_text() {
    let hostile = r#"</script></style></pre><script>alert("1")</script><img src=x onerror='a'> & "quoted" 'single'"#;
    for attributes in 1..=4 {
        let page = render(&full(attributes, 2, hostile)).unwrap();
        for tag in tags(&page) {
            assert!(!tag.starts_with("script"), "<{tag}>");
            // Outside quotes there are only the page's own attributes.
            let unquoted: String = tag.split('"').step_by(2).collect();
            assert!(!unquoted.contains("onerror") && !unquoted.contains('\''), "<{tag}>");
        }
        assert!(page.contains("&lt;script&gt;"));
    }
}

#[test]
fn the_page_asks_for_nothing_outside_itself() {
    let page = render(&full(2, 3, "x")).unwrap();
    assert!(page.contains("default-src 'none'"));
    for tag in tags(&page) {
        for attribute in ["src=\"", "href=\""] {
            for value in tag.split(attribute).skip(1) {
                assert!(value.starts_with("data:image/png;base64,") || value.starts_with('#'), "<{tag:.120}>");
            }
        }
        assert!(!tag.starts_with("link") && !tag.starts_with("iframe"));
    }
    assert!(!page.contains("url(") && !page.contains("@import") && !page.contains("://"));
}

#[test]
fn a_run_that_has_not_begun_or_is_half_way_still_has_a_page() {
    let page = render(&ReportData::default()).unwrap();
    tags(&page);
    assert!(page.contains("This run has no results yet."));

    let audited = ReportData { plan: None, acceptance: None, evidence: None, outputs: None, ..full(2, 3, "x") };
    let groups = audited.groups.iter().map(|group| GroupRow {
        values: group.values.clone(),
        before: group.before,
        ..GroupRow::default()
    });
    let audited = ReportData { groups: groups.collect(), ..audited };
    let page = render(&audited).unwrap();
    tags(&page);
    assert!(page.contains("Audit only") && page.contains("Before: real training images"));
    assert!(!page.contains("After: real"), "there is no after before anything is written");

    let planned = ReportData { plan: Some(Plan { images: 90, ..Plan::default() }), ..audited };
    assert!(headline(&planned).sentence.contains("0 of 90 images"), "{:?}", headline(&planned));
}

#[test]
fn the_headline_names_the_gain_its_interval_and_what_it_is_compared_with() {
    let mut data = full(2, 2, "");
    let evidence = data.evidence.as_mut().unwrap();
    evidence.gain = Some(Gain { over: "as-is".into(), worst_group: 0.19, interval: [0.12, 0.26] });
    let helped = headline(&data);
    assert_eq!((helped.chip.as_str(), helped.tone.as_str()), ("Helped", "good"));
    assert_eq!(
        helped.sentence,
        "It helped: accuracy in the worst group is 40 % with the generated images and 30 % without them."
    );
    assert!(helped.detail.contains("+19 points over “as-is” (95 % interval +12 to +26)"), "{}", helped.detail);
    assert!(helped.detail.contains("3 trainings of each kind"), "{}", helped.detail);

    for (verdict, begin) in [(Verdict::NoDifference, "No clear difference"), (Verdict::Harmed, "It did harm")] {
        data.evidence.as_mut().unwrap().verdict = verdict;
        assert!(headline(&data).sentence.starts_with(begin));
    }
}

#[test]
fn missing_values_empty_values_right_to_left_text_and_emoji_are_shown() {
    let values = [MISSING, "", "معطف", "🧥", &"very long ".repeat(60)];
    let groups = values.iter().map(|value| GroupRow {
        values: Group::new([("garment", *value)]).unwrap(),
        before: 1,
        ..GroupRow::default()
    });
    let page = render(&ReportData { groups: groups.collect(), ..ReportData::default() }).unwrap();
    tags(&page);
    for text in ["<bdi>(missing)</bdi>", "<bdi>(empty)</bdi>", "<bdi>معطف</bdi>", "<bdi>🧥</bdi>"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn every_cell_of_the_grids_has_its_count_and_many_groups_fold_away() {
    let group = |garment: &str, colour: &str| Group::new([("garment", garment), ("colour", colour)]).unwrap();
    let row = |values, before, after| GroupRow { values, before, after: Some(after), ..GroupRow::default() };
    let groups = vec![
        row(group("coat", "blue"), 12_345, 12_345),
        row(group("coat", "red"), 0, 6_000),
        row(group("bag", "red"), 77, 6_001),
    ];
    let page = render(&ReportData { groups, ..ReportData::default() }).unwrap();
    assert!(page.contains(r#"<td class="s7" title="coat, blue: 12,345 real">12,345</td>"#), "{page}");
    assert!(page.contains(r#"<td class="s0" title="coat, red: 0 real">0</td>"#));
    assert!(
        page.contains(r#"title="coat, red: 0 real, 6,000 generated">6,000<span class="share" style="width:100%">"#)
    );
    assert!(page.contains(r#"<td class="none">–</td>"#), "bag & blue is no group of this dataset");

    let many = render(&full(1, 70, "")).unwrap();
    assert!(many.contains("<summary>Show the other 30 groups</summary>"));
}

#[test]
fn numbers_that_are_not_finite_do_not_break_the_page() {
    let mut data = full(2, 2, "x");
    let evidence = data.evidence.as_mut().unwrap();
    for arm in &mut evidence.arms {
        (arm.accuracy, arm.worst_group, arm.worst_group_interval) = (f64::NAN, f64::INFINITY, Some([f64::NAN; 2]));
        arm.groups.iter_mut().for_each(|group| group.accuracy = f64::NAN);
    }
    data.groups.iter_mut().for_each(|group| group.acceptance_interval = Some([f64::NEG_INFINITY, f64::NAN]));
    let page = render(&data).unwrap();
    tags(&page);
    assert!(!page.contains("NaN") && !page.contains("inf%"));
}

#[test]
fn images_of_other_types_are_left_out() {
    let mut data = full(1, 1, "x");
    data.groups[0].samples_real[0].mime = "image/svg+xml".into();
    let page = render(&data).unwrap();
    assert!(!page.contains("image/svg"));
}
