//! A job with a hosted model, against a real HTTP server: a second process of this very program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../crates/diffusion/tests/http/server.rs"]
#[allow(dead_code, reason = "its other behaviours are tested where it lies")]
mod server;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{contents, fail, shapes, succeed};

/// The server's process; the tests start it.
#[test]
#[ignore = "is the server that the tests start"]
fn serve() {
    server::serve();
}

struct Server(Child, u16);

impl Server {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| Some(line.split_once(server::LISTENING)?.1.parse().unwrap()));
        Self(process, port.expect("the server ended before it listened"))
    }

    /// How many images it was asked for.
    fn asked(&self) -> usize {
        self.log().len()
    }

    /// The requests for images.
    fn log(&self) -> Vec<serde_json::Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        write!(stream, "GET /log/pictures/1 HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A job that misses two images of each of two groups.
fn job(root: &Path, server: &Server, budget: &str) {
    shapes(root, 8, 6, 4, 16);
    let port = server.1;
    let text = format!(
        r#"name: shapes
seed: 3
dataset: {{path: shapes, label: shape, attributes: [colour]}}
plan:
  target: {{type: at-least, images: 8}}
  prompts: {{template: ["a {{colour}} {{shape}}, item 1", "a {{colour}} {{shape}}, item 2"]}}
generate:
  model: {{type: http, base_url: "http://127.0.0.1:{port}/pictures/1", model: painter, size: 16x16, budget: {budget}}}
verify: {{gates: [decode], rounds: 6}}
evidence: {{seeds: 1, steps: 5, baselines: [as-is], variants: []}}
"#
    );
    std::fs::write(root.join("job.yaml"), text).unwrap();
}

#[test]
fn refusals_are_rejections_with_their_reason_and_nothing_is_asked_for_twice() {
    let (root, server) = (tempfile::tempdir().unwrap(), Server::start());
    job(root.path(), &server, "{images: 60, money: 3, price_per_image: 0.05, currency: USD}");
    let bill = succeed(root.path(), &["plan", "job.yaml"]);
    assert!(bill.contains("about 4 images will be asked of painter for about 0.20 USD"), "{bill}");
    assert_eq!(server.asked(), 0, "a plan costs nothing");
    let said = succeed(root.path(), &["run", "job.yaml"]);
    assert!(said.contains("4 generated"), "{said}");
    let report = std::fs::read_to_string(root.path().join("runs/shapes/report.json")).unwrap();
    assert!(report.contains("the hosted model refused: content_policy_violation"), "{report}");
    let asked = server.asked();
    assert!(asked >= 8, "half of all prompts are refused: {asked}");
    let spent = std::fs::read_to_string(root.path().join("runs/shapes/spent.json")).unwrap();
    assert!(spent.contains("USD"), "{spent}");

    let before = contents(&root.path().join("out"), &[]);
    succeed(root.path(), &["run", "job.yaml"]);
    assert_eq!(server.asked(), asked);
    assert!(contents(&root.path().join("out"), &[]) == before);
}

#[test]
fn a_spent_budget_ends_the_run_and_a_larger_one_goes_on_with_what_was_paid_for() {
    let (root, server) = (tempfile::tempdir().unwrap(), Server::start());
    job(root.path(), &server, "{images: 2}");
    let bill = succeed(root.path(), &["plan", "job.yaml"]);
    assert!(bill.contains("the budget pays for 2 and ends the run then"), "{bill}");
    let said = fail(root.path(), &["run", "job.yaml"], 1);
    assert!(said.contains("budget: spent 2 images of 2") || said.contains("budget: spent"), "{said}");
    assert_eq!(server.asked(), 2);
    let text = std::fs::read_to_string(root.path().join("job.yaml")).unwrap();
    std::fs::write(root.path().join("job.yaml"), text.replace("{images: 2}", "{images: 60}")).unwrap();
    succeed(root.path(), &["run", "job.yaml"]);
    let drawn = contents(&root.path().join("runs/shapes"), &[]);
    let kept = drawn.keys().filter(|name| name.starts_with("hosted")).count();
    assert_eq!(server.asked(), kept, "every image that was asked for is kept, and none was asked for twice");
}

#[test]
fn a_hosted_model_needs_a_budget_and_prompts_and_takes_no_sampler() {
    let (root, server) = (tempfile::tempdir().unwrap(), Server::start());
    job(root.path(), &server, "{images: 9}");
    let text = std::fs::read_to_string(root.path().join("job.yaml")).unwrap();
    let refused = |from: &str, to: &str| {
        std::fs::write(root.path().join("job.yaml"), text.replace(from, to)).unwrap();
        fail(root.path(), &["run", "job.yaml"], 2)
    };
    assert!(refused(", budget: {images: 9}", "").contains("budget"));
    assert!(refused("verify:", "  sampler: {steps: 3}\nverify:").contains("generate.sampler"));
    assert!(refused("size: 16x16", "size: wide").contains("wide"));
    let unprompted = text.lines().filter(|line| !line.contains("prompts:")).collect::<Vec<_>>().join("\n");
    std::fs::write(root.path().join("job.yaml"), unprompted).unwrap();
    assert!(fail(root.path(), &["run", "job.yaml"], 2).contains("plan.prompts"));
    assert!(refused("item 2\"]}", "item 2\"], negative: blurry}").contains("plan.prompts"));
    assert!(refused("verify:", "  guides: {below: 50}\nverify:").contains("strengths: [1]"));
    assert_eq!(server.asked(), 0);
}

#[test]
fn an_edit_takes_the_mask_of_the_real_image_along() {
    use base64::Engine;
    let (root, server) = (tempfile::tempdir().unwrap(), Server::start());
    job(root.path(), &server, "{images: 99}");
    let metadata = root.path().join("shapes/train/metadata.jsonl");
    let text = std::fs::read_to_string(&metadata).unwrap().replace("\"shape\"", "\"mask\":\"mask.png\",\"shape\"");
    std::fs::write(&metadata, text).unwrap();
    image::RgbImage::from_fn(8, 8, |x, _| image::Rgb([if x < 4 { 0 } else { 255 }; 3]))
        .save(root.path().join("shapes/train/mask.png"))
        .unwrap();
    let guides = "generate.guides={strengths: [1], noise: false, mask: mask}";
    succeed(root.path(), &["generate", "job.yaml", "--set", guides]);
    let log = server.log();
    assert!(!log.is_empty());
    for entry in &log {
        assert!(entry["path"].as_str().unwrap().ends_with("/images/edits"));
        let body = base64::prelude::BASE64_STANDARD.decode(entry["body"].as_str().unwrap()).unwrap();
        assert!(body.windows(11).any(|part| part == b"name=\"mask\""));
    }
    // The same edit with another mask has not been paid for.
    image::RgbImage::from_pixel(8, 8, image::Rgb([255; 3])).save(root.path().join("shapes/train/mask.png")).unwrap();
    succeed(root.path(), &["generate", "job.yaml", "--set", guides]);
    assert_eq!(server.asked(), 2 * log.len());
}

#[test]
fn other_words_for_the_same_request_are_another_image() {
    let (root, server) = (tempfile::tempdir().unwrap(), Server::start());
    job(root.path(), &server, "{images: 99}");
    succeed(root.path(), &["generate", "job.yaml"]);
    let asked = server.asked();
    succeed(
        root.path(),
        &["generate", "job.yaml", "--set", "plan.prompts.template=a photo of a {colour} {shape}, item 2"],
    );
    assert_eq!(server.asked(), 2 * asked);
}
