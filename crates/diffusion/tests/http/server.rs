//! An images server on `std::net` that behaves, and misbehaves, as its path says: `/BEHAVIOUR/CASE/images/generations`.
//!
//! It prints its port, answers until its standard input ends, and keeps what it was asked: `GET /log/BEHAVIOUR/CASE`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use evenset_data::encode_png;
use serde_json::{Value, json};

/// Printed before the port.
pub const LISTENING: &str = "listening on port ";
/// Side of a good image.
pub const SIDE: u32 = 16;
/// What the server takes for a key.
pub const KEY: &str = "a-key-of-the-tests";
/// Longer than any timeout of a test that meets it.
const TOO_LONG: Duration = Duration::from_secs(30);

/// One request as it came in.
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// What was asked, by behaviour and case, and how many requests wait for their answer.
#[derive(Default)]
struct Shared {
    log: BTreeMap<String, Vec<Value>>,
    in_flight: usize,
}

/// Serves until standard input ends.
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::io::stdout().write_all(format!("{LISTENING}{port}\n").as_bytes()).unwrap();
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let shared = Arc::new(Mutex::new(Shared::default()));
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let _ = answer(stream, port, &shared);
        });
    }
}

fn answer(mut stream: TcpStream, port: u16, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let asked = read(&stream)?;
    let parts: Vec<String> = asked.path.split('/').skip(1).map(str::to_owned).collect();
    let [first, second, rest @ ..] = &parts[..] else { return Ok(()) };
    if first == "log" {
        let entries = shared.lock().unwrap().log.get(&format!("{second}/{}", rest[0])).cloned().unwrap_or_default();
        return send(&mut stream, 200, "application/json", &[], Value::from(entries).to_string().as_bytes());
    }
    let earlier = {
        let mut shared = shared.lock().unwrap();
        shared.in_flight += 1;
        let entry = json!({
            "method": asked.method, "path": asked.path, "headers": asked.headers, "in_flight": shared.in_flight,
            "body": BASE64_STANDARD.encode(&asked.body),
        });
        let entries = shared.log.entry(format!("{first}/{second}")).or_default();
        entries.push(entry);
        entries.iter().filter(|entry| entry["method"] == asked.method.as_str()).count() - 1
    };
    if first.ends_with("short-pause") {
        thread::sleep(Duration::from_millis(150));
    }
    // Before the answer: once that is sent, the next request may come.
    shared.lock().unwrap().in_flight -= 1;
    let case = format!("http://127.0.0.1:{port}/{first}/{second}");
    match asked.method.as_str() {
        "POST" => post(&mut stream, first, &case, &asked, earlier),
        _ => get(&mut stream, first, &case, &rest.join("/"), earlier),
    }
}

/// Answers the request for an image; `earlier` were asked for in this case before.
fn post(stream: &mut TcpStream, behaviour: &str, case: &str, asked: &Asked, earlier: usize) -> std::io::Result<()> {
    let number = number(&asked.body);
    let wait = [("Retry-After", "1")];
    let date = [("Retry-After", "Fri, 31 Dec 2100 23:59:59 GMT")];
    let busy = br#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#;
    match behaviour {
        "url" | "link-redirect" | "link-to-file" | "link-loop" | "link-huge" | "link-html" | "link-missing"
        | "link-busy-once" | "link-busy" | "link-short-pause" => {
            json_answer(stream, &json!({"data": [{"url": format!("{case}/files/{number}.png?sig=s3cret")}]}))
        }
        "link-ftp" => json_answer(stream, &json!({"data": [{"url": "ftp://127.0.0.1/1.png"}]})),
        "slow" => {
            thread::sleep(TOO_LONG);
            Ok(())
        }
        "drip" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")?;
            loop {
                stream.write_all(b" ")?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        "html" => send(stream, 200, "text/html", &[], b"<html>\n<title>Please sign in</title></html>"),
        "wrong-size" => {
            let png = encode_png(8, 4, 3, &[7; 96], &[]);
            json_answer(stream, &json!({"data": [{"b64_json": BASE64_STANDARD.encode(png)}]}))
        }
        "no-picture" => json_answer(stream, &json!({"data": [{"b64_json": BASE64_STANDARD.encode("hello")}]})),
        "no-image" => json_answer(stream, &json!({"data": []})),
        "huge" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"data\":[{\"b64_json\":\"")?;
            loop {
                stream.write_all(&[b'A'; 65536])?;
            }
        }
        "huge-and-says-so" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{")?;
            thread::sleep(TOO_LONG);
            Ok(())
        }
        "truncated" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n{\"data\":[")
        }
        "ends-early" => stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"data\":[{\"b64_j"),
        "vanish-once" if earlier == 0 => Ok(()),
        "busy-once" if earlier == 0 => send(stream, 429, "application/json", &wait, busy),
        "busy-until" if earlier == 0 => send(stream, 429, "application/json", &date, busy),
        "busy" => send(stream, 429, "application/json", &[], busy),
        "busy-after-two" if earlier >= 2 => send(stream, 429, "application/json", &[], busy),
        "failing-once" if earlier == 0 => send(stream, 500, "text/plain", &[], b"oh no"),
        "failing" => send(stream, 503, "text/plain", &[], b"out for lunch"),
        "refusal" if number % 2 == 1 => {
            let error = json!({"error": {
                "code": "content_policy_violation", "type": "image_generation_user_error", "message": "not this",
            }});
            send(stream, 400, "application/json", &[], error.to_string().as_bytes())
        }
        // Of the tests of whole jobs: every other prompt is refused, the others give pictures that are not blank.
        "pictures" if number % 2 == 1 => {
            let error = json!({"error": {"code": "content_policy_violation", "message": "not this"}});
            send(stream, 400, "application/json", &[], error.to_string().as_bytes())
        }
        "pictures" => {
            let value = |i: u32| (i.wrapping_mul(37) as usize + 11 * earlier) as u8;
            let pixels: Vec<u8> = (0..SIDE * SIDE * 3).map(value).collect();
            let png = encode_png(SIDE, SIDE, 3, &pixels, &[]);
            json_answer(stream, &json!({"data": [{"b64_json": BASE64_STANDARD.encode(png)}]}))
        }
        "other-json" => json_answer(stream, &json!({"images": ["?"]})),
        "redirect" => send(stream, 302, "text/plain", &[("Location", "ftp://127.0.0.1/x")], b""),
        "wrong-size-request" => send(
            stream,
            400,
            "application/json",
            &[],
            br#"{"error":{"message":"16x16 is not a size","code":"invalid_size"}}"#,
        ),
        "auth" if asked.headers.get("authorization") != Some(&format!("Bearer {KEY}")) => {
            // As some servers do, this one repeats what it was given.
            let said = json!({"error": {"message": format!("Incorrect API key provided: {:?}", asked.headers)}});
            send(stream, 401, "application/json", &[], said.to_string().as_bytes())
        }
        _ => image(stream, number),
    }
}

/// Answers the request for a file that an answer links to.
fn get(stream: &mut TcpStream, behaviour: &str, case: &str, path: &str, earlier: usize) -> std::io::Result<()> {
    let redirect = |stream: &mut TcpStream, to: &str| send(stream, 302, "text/plain", &[("Location", to)], b"");
    match behaviour {
        "link-redirect" if earlier == 0 => redirect(stream, &format!("{case}/{path}")),
        "link-loop" => redirect(stream, &format!("{case}/{path}")),
        "link-to-file" => redirect(stream, "file:///etc/passwd"),
        "link-html" => send(stream, 200, "text/html", &[], b"<html>gone</html>"),
        "link-missing" => send(stream, 404, "text/plain", &[], b"gone"),
        "link-busy" => send(stream, 503, "text/plain", &[], b"wait"),
        "link-busy-once" if earlier == 0 => send(stream, 503, "text/plain", &[], b"wait"),
        "link-huge" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[0; 65536])?;
            }
        }
        _ => {
            let name = path.rsplit('/').next().unwrap_or_default();
            send(stream, 200, "image/png", &[], &png(number(name.split('.').next().unwrap_or_default().as_bytes())))
        }
    }
}

fn image(stream: &mut TcpStream, number: u8) -> std::io::Result<()> {
    json_answer(
        stream,
        &json!({
            "created": 1, "data": [{"b64_json": BASE64_STANDARD.encode(png(number)), "revised_prompt": "as I see it"}],
        }),
    )
}

/// A flat image, so that a test can tell whose it is.
fn png(number: u8) -> Vec<u8> {
    encode_png(SIDE, SIDE, 3, &[number; (SIDE * SIDE * 3) as usize], &[])
}

/// The number after `item ` in a request, or the whole text's.
fn number(text: &[u8]) -> u8 {
    let text = String::from_utf8_lossy(text);
    let digits = text.split("item ").last().unwrap_or_default();
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

fn json_answer(stream: &mut TcpStream, body: &Value) -> std::io::Result<()> {
    send(stream, 200, "application/json", &[], body.to_string().as_bytes())
}

fn send(stream: &mut TcpStream, status: u16, kind: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}

fn read(stream: &TcpStream) -> std::io::Result<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Ok(Asked { method, path, headers, body })
}
