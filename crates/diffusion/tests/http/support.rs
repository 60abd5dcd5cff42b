//! Starting the server, drawing from it, and asking it what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use evenset_core::{Progress, Seed, Silent};
use evenset_diffusion::http::{
    FileLedger, HostedImage, HostedOutcome, HostedRequest, HttpConfig, HttpGenerator, Ledger, Rejection, Spent,
};
use evenset_diffusion::{DiffusionError, Result};
use serde_json::{Value, json};

use crate::server::{KEY, LISTENING, SIDE};

/// A process of the server.
pub struct Server {
    process: Child,
    pub port: u16,
}

impl Server {
    pub fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port =
            lines.map_while(|line| line.ok()).find_map(|line| Some(line.split_once(LISTENING)?.1.parse().unwrap()));
        Self { process, port: port.expect("the server ended before it listened") }
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The server that all tests share. It ends with this process, which holds its standard input.
fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// One behaviour of the server with a log of its own.
pub struct Case {
    port: u16,
    name: String,
}

impl Case {
    pub fn new(behaviour: &str) -> Self {
        Self::on(shared(), behaviour)
    }

    pub fn on(server: &Server, behaviour: &str) -> Self {
        static CASES: AtomicU32 = AtomicU32::new(0);
        Self { port: server.port, name: format!("{behaviour}/{}", CASES.fetch_add(1, Ordering::Relaxed)) }
    }

    /// Settings for this case with short waits, and with `changes`.
    pub fn config(&self, changes: Value) -> HttpConfig {
        config(&format!("http://127.0.0.1:{}/{}", self.port, self.name), changes)
    }

    /// The requests that the server had, in the order of their arrival.
    pub fn log(&self) -> Vec<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET /log/{} HTTP/1.1\r\n\r\n", self.name).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// How many images the server was asked for.
    pub fn asked(&self) -> usize {
        self.log().iter().filter(|entry| entry["method"] == "POST").count()
    }
}

pub fn config(base_url: &str, changes: Value) -> HttpConfig {
    let mut settings = json!({
        "base_url": base_url, "model": "test-model", "size": format!("{SIDE}x{SIDE}"), "budget": {"images": 100},
        "timeout_seconds": 30, "retries": 2, "first_wait_seconds": 0.01, "longest_wait_seconds": 0.05,
    });
    for (key, value) in changes.as_object().unwrap() {
        settings[key] = value.clone();
    }
    serde_json::from_value(settings).unwrap()
}

/// The body that a request of the log carried.
pub fn body(entry: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(entry["body"].as_str().unwrap()).unwrap()
}

/// Requests whose images the server gives these numbers as their only colour.
pub fn requests(numbers: impl IntoIterator<Item = u8>) -> Vec<HostedRequest> {
    let request =
        |number: u8| HostedRequest { prompt: format!("item {number}"), seed: Seed(number.into()), edit: None };
    numbers.into_iter().map(request).collect()
}

pub fn environment(name: &str) -> Option<String> {
    (name == "TEST_KEY").then(|| KEY.to_owned())
}

pub fn generator(config: HttpConfig) -> HttpGenerator {
    HttpGenerator::new(config, Box::new(Forgetful), &environment).unwrap()
}

pub fn with_ledger(config: HttpConfig, path: &std::path::Path) -> HttpGenerator {
    HttpGenerator::new(config, Box::new(FileLedger::new(path)), &environment).unwrap()
}

/// A ledger that keeps nothing.
struct Forgetful;

impl Ledger for Forgetful {
    fn load(&self) -> Result<Spent> {
        Ok(Spent::default())
    }

    fn store(&self, _spent: &Spent) -> Result<()> {
        Ok(())
    }
}

/// What a call came to.
pub struct Drawn {
    pub outcomes: BTreeMap<usize, HostedOutcome>,
    pub error: Option<DiffusionError>,
    pub spent: Spent,
}

impl Drawn {
    pub fn images(&self) -> BTreeMap<usize, &HostedImage> {
        let images = self.outcomes.iter().filter_map(|(&place, outcome)| match outcome {
            HostedOutcome::Drawn(image) => Some((place, image)),
            HostedOutcome::Rejected(_) => None,
        });
        images.collect()
    }

    /// Place and number of each image, each checked to be whole.
    pub fn numbers(&self) -> Vec<(usize, u8)> {
        let number = |(place, image): (usize, &HostedImage)| {
            let image = &image.image;
            assert_eq!((image.width, image.height, image.channels, image.finite), (SIDE, SIDE, 3, true));
            assert_eq!(image.pixels, vec![image.pixels[0]; (SIDE * SIDE * 3) as usize]);
            (place, image.pixels[0])
        };
        self.images().into_iter().map(number).collect()
    }

    pub fn rejection(&self, place: usize) -> &Rejection {
        match &self.outcomes[&place] {
            HostedOutcome::Rejected(rejection) => rejection,
            HostedOutcome::Drawn(_) => panic!("{place} was drawn"),
        }
    }

    pub fn said(&self) -> String {
        self.error.as_ref().map(ToString::to_string).expect("the call did not fail")
    }
}

pub fn draw(config: HttpConfig, numbers: impl IntoIterator<Item = u8>) -> Drawn {
    draw_with(&generator(config), &requests(numbers), &Silent)
}

pub fn draw_with(generator: &HttpGenerator, requests: &[HostedRequest], progress: &dyn Progress) -> Drawn {
    let mut outcomes = BTreeMap::new();
    let error = generator
        .generate::<DiffusionError>(requests, progress, &mut |place, outcome| {
            assert!(outcomes.insert(place, outcome).is_none(), "{place} came twice");
            Ok(())
        })
        .err();
    Drawn { outcomes, error, spent: generator.spent() }
}
