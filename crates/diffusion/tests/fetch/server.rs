//! A hub on `std::net` that behaves, and misbehaves, as its path says: `/BEHAVIOUR/CASE/...`. Large files lie on another host,
//! as the real hub's do: `localhost` instead of `127.0.0.1`.
//!
//! It prints its port, answers until its standard input ends, and keeps what it was asked: `GET /log/CASE`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Printed before the port.
pub const LISTENING: &str = "listening on port ";
/// The folder whose files it serves.
pub const FOLDER: &str = "EVENSET_TEST_HUB";
/// The token that `gated` asks for.
pub const TOKEN: &str = "hf_of_the_tests";
/// The commit that every model is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A model of another kind.
const FLUX: &str = r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}"#;

type Log = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// Serves until standard input ends.
pub fn serve() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::io::stdout().write_all(format!("{LISTENING}{port}\n").as_bytes()).unwrap();
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let log = Log::default();
    for stream in listener.incoming().flatten() {
        let (folder, log) = (folder.clone(), Arc::clone(&log));
        thread::spawn(move || answer(stream, port, &folder, &log));
    }
}

/// One request.
struct Asked {
    path: String,
    headers: BTreeMap<String, String>,
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.split('?').next()?.to_owned();
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    });
    Some(Asked { path, headers: headers.collect() })
}

fn answer(mut stream: TcpStream, port: u16, folder: &Path, log: &Log) -> Option<()> {
    let asked = read(&stream)?;
    let parts: Vec<&str> = asked.path.split('/').skip(1).collect();
    let [behaviour, case, rest @ ..] = &parts[..] else { return None };
    if *behaviour == "log" {
        let lines = log.lock().ok()?.get(*case).cloned().unwrap_or_default();
        return send(&mut stream, 200, &[], json!(lines).to_string().as_bytes());
    }
    let range = asked.headers.get("range").map_or("", String::as_str);
    let token = asked.headers.get("authorization").map_or("", String::as_str);
    let host = asked.headers.get("host").map_or("", |host| host.split(':').next().unwrap_or_default());
    let (name, times) = {
        let name = rest.join("/");
        let mut log = log.lock().ok()?;
        let lines = log.entry((*case).to_owned()).or_default();
        let same = format!("{host} {name} ");
        let times = lines.iter().filter(|line| line.starts_with(&same)).count();
        lines.push(format!("{same}{range} {token}"));
        (name, times)
    };
    let gated = *behaviour == "gated" && host == "127.0.0.1" && token != format!("Bearer {TOKEN}");
    match (*behaviour, rest) {
        _ if gated => send(&mut stream, 401, &[], b"terms"),
        ("missing", _) => send(&mut stream, 404, &[], b"nothing"),
        ("html", _) => send(&mut stream, 200, &[], b"<html>sign in</html>"),
        ("busy", _) => send(&mut stream, 503, &[("Retry-After", "0")], b"busy"),
        ("busy-once", _) if times == 0 => send(&mut stream, 429, &[("Retry-After", "0")], b"busy"),
        (_, ["api", ..]) => send(&mut stream, 200, &[], listing(folder, behaviour).to_string().as_bytes()),
        (_, [_, _, "resolve", commit, file @ ..]) if *commit == COMMIT => {
            let file = file.join("/");
            if file.ends_with(".safetensors") && host == "127.0.0.1" {
                let there = format!("http://localhost:{port}/{behaviour}/{case}/{name}");
                return send(&mut stream, 302, &[("Location", &there)], b"");
            }
            let mut content = fs::read(folder.join(&file)).ok()?;
            let large = file.ends_with("unet/diffusion_pytorch_model.safetensors");
            match *behaviour {
                "flux" if file == "model_index.json" => content = FLUX.into(),
                "corrupt" if large => content[100] ^= 1,
                "corrupt-once" if large && times == 0 => content[100] ^= 1,
                "longer" if large => content.push(0),
                _ => {}
            }
            content_of(&mut stream, behaviour, &content, range, (large, times == 0))
        }
        _ => send(&mut stream, 404, &[], b"nothing"),
    }
}

/// Sends a file, or what lies behind its beginning; it may be the large file, and be asked for the first time.
fn content_of(
    stream: &mut TcpStream,
    behaviour: &str,
    content: &[u8],
    range: &str,
    (large, first): (bool, bool),
) -> Option<()> {
    let from: Option<usize> = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok());
    let breaks = match behaviour {
        "breaks" | "no-ranges" => large && first,
        "breaks-always" => large,
        _ => false,
    };
    match (behaviour, from) {
        _ if breaks => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).ok()?;
            stream.write_all(&content[..content.len() / 2]).ok()
        }
        ("no-ranges", _) | (_, None) => send(stream, 200, &[], content),
        (_, Some(from)) => {
            let says = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            send(stream, 206, &[("Content-Range", &says)], &content[from..])
        }
    }
}

/// What the hub says of the model.
fn listing(folder: &Path, behaviour: &str) -> Value {
    let mut names = Vec::new();
    walk(folder, "", &mut names);
    let siblings = names.into_iter().map(|name| {
        let content = match (behaviour, name.as_str()) {
            ("flux", "model_index.json") => FLUX.into(),
            _ => fs::read(folder.join(&name)).unwrap(),
        };
        let git = hex(&Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(&content).finalize());
        let shown = match behaviour {
            "pickles" => name.replace(".safetensors", ".bin"),
            _ => name.clone(),
        };
        match name.ends_with(".safetensors") {
            true => json!({"rfilename": shown, "blobId": "1".repeat(40), "size": content.len(),
                "lfs": {"sha256": hex(&Sha256::digest(&content)), "size": content.len(), "pointerSize": 134}}),
            false => json!({"rfilename": shown, "blobId": git, "size": content.len()}),
        }
    });
    let stranger = json!({"rfilename": "../../../escaped.json", "blobId": "2".repeat(40), "size": 2});
    json!({"id": "own.er/tiny", "sha": COMMIT, "siblings": siblings.chain([stranger]).collect::<Vec<_>>()})
}

fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => walk(&entry.path(), &format!("{name}/"), names),
            false => names.push(name),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn send(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Option<()> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n").ok()?;
    stream.write_all(body).ok()
}
