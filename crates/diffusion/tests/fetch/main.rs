//! Models fetched from a hub, against a real HTTP server: a second process of this very program, whose behaviour is chosen by
//! path.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use evenset_core::{Progress, Silent};
use evenset_diffusion::stable_diffusion::fetch::{Hub, Kind};
use evenset_diffusion::stable_diffusion::hub::{HubCache, HubId};
use evenset_diffusion::stable_diffusion::{ModelFolder, ModelSource};
use evenset_nn::models::Variant;
use server::{COMMIT, FOLDER, LISTENING, TOKEN};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// The server's process; the other tests start it.
#[test]
#[ignore = "is the server that the other tests start"]
fn serve() {
    server::serve();
}

/// The model that the hub has.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/prompts/sd1/model")
}

/// The server that all tests share; it ends with this process, which holds its standard input.
fn port() -> u16 {
    static SERVER: OnceLock<(Child, u16)> = OnceLock::new();
    let start = || {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve", "--ignored", "--nocapture"])
            .env(FOLDER, model())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| Some(line.split_once(LISTENING)?.1.parse().unwrap()));
        (process, port.expect("the server ended before it listened"))
    };
    SERVER.get_or_init(start).1
}

/// One behaviour of the hub with a log of its own, and a cache.
struct Case {
    behaviour: &'static str,
    name: String,
    cache: tempfile::TempDir,
}

impl Case {
    fn new(behaviour: &'static str) -> Self {
        static CASES: AtomicU32 = AtomicU32::new(0);
        let name = CASES.fetch_add(1, Ordering::Relaxed).to_string();
        Self { behaviour, name, cache: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> HubCache {
        HubCache::at(self.cache.path().join("hub"))
    }

    fn fetch(&self) -> Result<(), String> {
        self.fetch_with(&[], &Silent)
    }

    fn fetch_with(&self, environment: &[(&str, &str)], progress: &dyn Progress) -> Result<(), String> {
        let endpoint = format!("http://127.0.0.1:{}/{}/{}", port(), self.behaviour, self.name);
        let variable = |name: &str| {
            let set = environment.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into());
            set.or_else(|| match name {
                "HF_ENDPOINT" => Some(endpoint.clone().into()),
                "HF_HOME" => Some(self.cache.path().into()),
                _ => None,
            })
        };
        let id = HubId::parse("own.er/tiny").unwrap();
        Hub::from_environment(variable)
            .and_then(|hub| hub.fetch(&id, Kind::Pipeline, Variant::Whole, &self.cache(), progress))
            .map_err(|error| error.to_string())
    }

    fn open(&self) -> Result<ModelFolder, String> {
        let id = HubId::parse("own.er/tiny").unwrap();
        self.cache().open(&id, Variant::Whole).map_err(|error| error.to_string())
    }

    /// Every file of the model is there, and is the same.
    fn is_whole(&self) {
        let folder = self.open().unwrap();
        assert!(folder.files().len() >= 8, "{:?}", folder.files());
        for path in folder.files() {
            let name = path.strip_prefix(folder.path()).unwrap();
            assert!(fs::read(path).unwrap() == fs::read(model().join(name)).unwrap(), "{}", name.display());
        }
        let left = fs::read_dir(self.repository().join("blobs")).unwrap();
        let left = left.filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count();
        assert_eq!(left, 0, "nothing half is left");
    }

    fn repository(&self) -> PathBuf {
        self.cache.path().join("hub/models--own.er--tiny")
    }

    /// What the server was asked for: host, path, range, authorization.
    fn log(&self) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port())).unwrap();
        write!(stream, "GET /log/{} HTTP/1.1\r\n\r\n", self.name).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The ranges that the other host was asked for of the largest file.
    fn ranges(&self) -> Vec<String> {
        let of = |line: &String| line.starts_with("localhost ") && line.contains(UNET);
        let range = |line: String| line.split(' ').nth(2).unwrap_or_default().to_owned();
        self.log().into_iter().filter(of).map(range).collect()
    }
}

#[test]
fn a_fetched_model_is_whole_lies_as_the_hubs_own_programs_lay_it_and_is_not_fetched_again() {
    let case = Case::new("plain");
    assert!(case.open().unwrap_err().contains("download: true"));
    case.fetch().unwrap();
    case.is_whole();
    assert_eq!(fs::read_to_string(case.repository().join("refs/main")).unwrap(), COMMIT);
    let unet = case.repository().join("snapshots").join(COMMIT).join(UNET);
    if cfg!(unix) {
        let target = fs::read_link(&unet).unwrap();
        assert!(target.starts_with("../../../blobs"), "{}", target.display());
    }
    assert!(!case.cache.path().join("escaped.json").exists());
    let asked = case.log();
    assert!(asked.iter().all(|line| !line.contains("escaped")), "{asked:?}");
    case.fetch().unwrap();
    assert_eq!(case.log().len(), asked.len() + 1, "the second time it asks for the list alone");
}

#[test]
fn a_file_that_breaks_off_goes_on_where_it_was_or_starts_again_where_the_server_knows_no_ranges() {
    let half = fs::metadata(model().join(UNET)).unwrap().len() / 2;
    for behaviour in ["breaks", "no-ranges"] {
        let case = Case::new(behaviour);
        case.fetch().unwrap();
        case.is_whole();
        assert_eq!(case.ranges(), [String::new(), format!("bytes={half}-")], "{behaviour}");
    }
}

#[test]
fn another_run_goes_on_where_the_first_was_stopped() {
    /// Asks for an end once so much has come.
    struct Impatient(AtomicU64);
    impl Progress for Impatient {
        fn begin(&self, _task: &str, _total: u64) {}
        fn advance(&self, _steps: u64) {}
        fn note(&self, _remark: &str) {}
        fn end(&self) {}
        fn stop_requested(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed) > 30
        }
    }
    let case = Case::new("plain");
    let stopped = case.fetch_with(&[], &Impatient(AtomicU64::new(0))).unwrap_err();
    assert!(stopped.contains("interrupted"), "{stopped}");
    assert!(case.open().is_err(), "what is not whole is not found");
    let before = case.log().len();
    case.fetch().unwrap();
    case.is_whole();
    let all = Case::new("plain");
    all.fetch().unwrap();
    assert!(case.log().len() - before < all.log().len(), "what had come was not asked for again");
}

#[test]
fn what_has_another_hash_gets_no_name_and_is_asked_for_once_more() {
    let once = Case::new("corrupt-once");
    once.fetch().unwrap();
    once.is_whole();
    assert_eq!(once.ranges().len(), 2);
    let always = Case::new("corrupt");
    let error = always.fetch().unwrap_err();
    assert!(error.contains(UNET) && error.contains("hash differs"), "{error}");
    assert!(always.open().is_err());
    let longer = Case::new("longer").fetch().unwrap_err();
    assert!(longer.contains(UNET) && longer.contains("more came"), "{longer}");
}

#[test]
fn a_busy_hub_is_asked_again_and_given_up_in_the_end() {
    let once = Case::new("busy-once");
    once.fetch().unwrap();
    once.is_whole();
    let error = Case::new("busy").fetch().unwrap_err();
    assert!(error.starts_with("own.er/tiny: given up after 5 tries") && error.contains("503"), "{error}");
    let endless = Case::new("breaks-always");
    let error = endless.fetch().unwrap_err();
    assert!(error.starts_with(UNET) && error.contains("given up after 5 tries"), "{error}");
    assert_eq!(endless.ranges().len(), 5, "the first try brought something, the others nothing new");
}

#[test]
fn what_no_try_mends_says_what_to_do() {
    for (behaviour, words) in [
        ("missing", "nothing of this name and revision"),
        ("gated", "HF_TOKEN"),
        ("html", "HF_ENDPOINT"),
        ("pickles", "no `.safetensors` of its `text_encoder`"),
        ("flux", "FluxPipeline"),
    ] {
        let error = Case::new(behaviour).fetch().unwrap_err();
        assert!(error.contains("own.er") && error.contains(words), "{behaviour}: {error}");
    }
    let flux = Case::new("flux");
    flux.fetch().unwrap_err();
    assert!(flux.log().iter().all(|line| !line.contains(".safetensors")), "nothing large is fetched to be refused");
    let offline = Case::new("plain").fetch_with(&[("HF_HUB_OFFLINE", "1")], &Silent).unwrap_err();
    assert!(offline.contains("HF_HUB_OFFLINE"), "{offline}");
    let nowhere = Case::new("plain").fetch_with(&[("HF_ENDPOINT", "ftp://here")], &Silent).unwrap_err();
    assert!(nowhere.contains("HF_ENDPOINT"), "{nowhere}");
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_the_host_that_it_sends_on_to() {
    let case = Case::new("gated");
    case.fetch_with(&[("HF_TOKEN", TOKEN)], &Silent).unwrap();
    case.is_whole();
    let log = case.log();
    for line in &log {
        assert_eq!(line.ends_with(&format!("Bearer {TOKEN}")), line.starts_with("127.0.0.1 "), "{line}");
    }
    assert!(log.iter().any(|line| line.starts_with("localhost ")));
    // As `hf auth login` leaves it.
    let case = Case::new("gated");
    fs::write(case.cache.path().join("token"), format!("{TOKEN}\n")).unwrap();
    case.fetch().unwrap();
}
