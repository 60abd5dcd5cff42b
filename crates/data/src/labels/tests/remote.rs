//! A web server on this machine that gives ranges of files, and what is asked of it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};

use super::*;
use crate::rows::write_parquet;

/// Serves the files of a folder; counts the bytes that it gave.
struct Server {
    address: String,
    given: Arc<Mutex<u64>>,
}

impl Server {
    fn of(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (given, folder) = (Arc::new(Mutex::new(0)), folder.to_path_buf());
        let counted = Arc::clone(&given);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, counted) = (folder.clone(), Arc::clone(&counted));
                std::thread::spawn(move || while answer(&stream, &folder, &counted).is_some() {});
            }
        });
        Self { address, given }
    }
}

/// Answers one request; none where the other side is gone.
fn answer(mut stream: &TcpStream, folder: &Path, counted: &Mutex<u64>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let request = lines.next()?;
    let range = lines.fold(None, |range, line| {
        let line = line.to_lowercase();
        line.strip_prefix("range: bytes=").map(str::to_owned).or(range)
    });
    let (method, path) = request.split_once(' ')?;
    let name = path.split(' ').next()?.trim_start_matches('/');
    let Ok(content) = fs::read(folder.join(name)) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok();
    };
    let (status, part) = match range.as_deref().and_then(|range| range.split_once('-')) {
        Some((begin, end)) => {
            let (begin, end): (usize, usize) = (begin.parse().ok()?, end.parse().ok()?);
            let header = format!("206 Partial Content\r\ncontent-range: bytes {begin}-{end}/{}", content.len());
            (header, content.get(begin..=end)?)
        }
        None => ("200 OK".to_owned(), &content[..]),
    };
    let date = "last-modified: Tue, 15 Nov 1994 12:45:26 GMT";
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{date}\r\n\r\n", part.len()).ok()?;
    if method == "GET" {
        *counted.lock().unwrap() += part.len() as u64;
        stream.write_all(part).ok()?;
    }
    Some(())
}

fn open_address(address: String) -> Result<LabelTable, DataError> {
    LabelTable::open(&LabelSpec { path: address, ..LabelSpec::default() })
}

#[test]
fn only_the_columns_that_are_asked_for_are_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("before", Arc::new(BinaryArray::from_iter_values((0..100u32).map(|row| vec![row as u8; 100_000])))),
        ("colour", Arc::new(StringArray::from_iter_values((0..100).map(|row| ["red", "blue"][row % 2])))),
        ("behind", Arc::new(StringArray::from_iter_values((0..100).map(|row| format!("{row}").repeat(20_000))))),
    ];
    write_parquet(&folder.path().join("a.parquet"), &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    write(folder.path(), &[("b.csv", "x\n1\n2\n"), ("c.jsonl", "{\"x\":1}\n{\"x\":2}\n")]);
    let server = Server::of(folder.path());
    let table = open_address(format!("{}/a.parquet", server.address)).unwrap();
    let found = rows(&table, &["colour"]).unwrap();
    assert_eq!((found.len(), &found[1]), (100, &vec!["blue".to_owned()]));
    let given = *server.given.lock().unwrap();
    assert!(given < 20_000, "{given} bytes were fetched");
    assert_eq!(table.fingerprint().unwrap(), table.fingerprint().unwrap());
    for name in ["b.csv", "c.jsonl"] {
        let table = open_address(format!("{}/{name}", server.address)).unwrap();
        assert_eq!(rows(&table, &["x"]).unwrap(), expected("1|2"), "{name}");
    }
}

#[test]
fn what_is_not_there_is_an_error_with_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::of(folder.path());
    let address = format!("{}/gone.parquet", server.address);
    let error = open_address(address.clone()).unwrap_err().to_string();
    assert!(error.starts_with(&address) && error.contains("credentials"), "{error}");
    let error = open_address(format!("{}/*.parquet", server.address)).unwrap_err().to_string();
    assert!(error.contains("does not list its files"), "{error}");
    let error = open_address(format!("{}/a.parquet?sig=1", server.address)).unwrap_err().to_string();
    assert!(error.contains("fetch the file first"), "{error}");
}
