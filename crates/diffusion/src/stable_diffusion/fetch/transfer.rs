//! One file on its way: it goes on where it broke off, and is checked before it gets its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::future::Future;
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use evenset_core::{Interrupted, Progress};
use futures_util::future::{Either, select};
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::LONGEST_TEXT;
use super::listing::{Hash, Listed};
use crate::error::{DiffusionError, Result};
use crate::http::{chain, retry};

/// A connection that is not made after this long will not be.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long will send nothing more.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Tries that bring nothing new, one after another, before it is given up.
const TRIES: u32 = 5;
/// The wait after the first of them; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often the user's wish for an end is looked for.
const LOOK: Duration = Duration::from_millis(200);
const MEGABYTE: u64 = 1_000_000;

/// Bytes that came, told in megabytes.
pub(super) struct Meter<'a> {
    progress: Option<&'a dyn Progress>,
    bytes: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress: Some(progress), bytes: 0 }
    }

    /// Tells nobody.
    pub(super) fn silent() -> Self {
        Self { progress: None, bytes: 0 }
    }

    pub(super) fn megabytes(bytes: u64) -> u64 {
        bytes / MEGABYTE
    }

    fn add(&mut self, bytes: u64) {
        let before = Self::megabytes(self.bytes);
        self.bytes += bytes;
        let more = Self::megabytes(self.bytes) - before;
        if let Some(progress) = self.progress.filter(|_| more > 0) {
            progress.advance(more);
        }
    }
}

/// A client of the hub.
pub(super) struct Transfer<'a> {
    client: Client,
    runtime: Runtime,
    progress: &'a dyn Progress,
}

/// How a try ended that brought nothing whole.
enum Halt {
    /// A later try may do better.
    Broken {
        why: String,
        /// How much later, where the server says so.
        after: Option<Duration>,
        /// Whether more came than ever before.
        moved: bool,
    },
    /// None will.
    Over(DiffusionError),
}

impl Halt {
    fn broken(why: impl Into<String>) -> Self {
        Self::Broken { why: why.into(), after: None, moved: false }
    }
}

impl From<Interrupted> for Halt {
    fn from(interrupted: Interrupted) -> Self {
        Self::Over(interrupted.into())
    }
}

impl From<DiffusionError> for Halt {
    fn from(error: DiffusionError) -> Self {
        Self::Over(error)
    }
}

impl<'a> Transfer<'a> {
    /// `headers` go to the hub with every request, and not to the servers that it sends on to.
    pub(super) fn new(headers: HeaderMap, progress: &'a dyn Progress) -> Result<Self> {
        let client = Client::builder()
            .user_agent(concat!("evenset/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::limited(5))
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| DiffusionError::HttpClient(chain(&error)))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| DiffusionError::HttpClient(error.to_string()))?;
        Ok(Self { client, runtime, progress })
    }

    /// What the hub says about the model `id`.
    pub(super) fn text(&self, address: &Url, id: &str) -> Result<String> {
        let bytes = self.runtime.block_on(self.tries(id, async || {
            let mut response = self.ask(address, id, 0).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = self.chunk(&mut response).await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > LONGEST_TEXT {
                    return Err(
                        failed(id, "the hub's answer is too long to be about a model; check `HF_ENDPOINT`").into()
                    );
                }
            }
            Ok(bytes)
        }))?;
        String::from_utf8(bytes).map_err(|_| failed(id, "the hub's answer is no text; check `HF_ENDPOINT`"))
    }

    /// The file in the folder `blobs`, fetched from `address` unless it is there.
    pub(super) fn fetch(&self, address: &Url, file: &Listed, blobs: &Path, meter: &mut Meter<'_>) -> Result<PathBuf> {
        let whole = blobs.join(file.hash.text());
        if std::fs::metadata(&whole).is_ok_and(|there| there.is_file() && there.len() == file.size) {
            meter.add(file.size);
            return Ok(whole);
        }
        let mut incoming = Incoming::open(file, blobs, meter)?;
        if !self.try_whole(address, &mut incoming)? && !self.try_whole(address, &mut incoming)? {
            let problem = "what came is twice not what the hub says it is (its hash differs), and was thrown away; try \
                           later, or from another network";
            return Err(failed(&file.name, problem));
        }
        std::fs::rename(&incoming.path, &whole).map_err(DiffusionError::file(&whole))?;
        Ok(whole)
    }

    /// Fetches what is missing of the file; whether it has its hash then. If not, nothing of it is left.
    fn try_whole(&self, address: &Url, incoming: &mut Incoming<'_, '_>) -> Result<bool> {
        let name = &incoming.listed.name;
        self.runtime.block_on(self.tries(name, async || self.rest(address, incoming).await))?;
        incoming.check()
    }

    /// One try at the rest of a file.
    async fn rest(&self, address: &Url, incoming: &mut Incoming<'_, '_>) -> Result<(), Halt> {
        let size = incoming.listed.size;
        let mut at = incoming.length()?;
        if at == size {
            return Ok(());
        }
        let mut response = self.ask(address, &incoming.listed.name, at).await?;
        if at > 0 && !goes_on_at(&response, at) {
            at = 0;
            incoming.start_over()?;
        }
        // Bytes that came before and come again do not count: a server without ranges that always breaks off is given up.
        let farthest = incoming.told;
        let broken = |why: String, at: u64| Halt::Broken { why, after: None, moved: at > farthest };
        loop {
            match self.chunk(&mut response).await {
                Ok(Some(chunk)) if at + chunk.len() as u64 > size => {
                    incoming.start_over()?;
                    return Err(
                        failed(&incoming.listed.name, format!("more came than its {size} bytes; try later")).into()
                    );
                }
                Ok(Some(chunk)) => {
                    incoming.write(&chunk, at)?;
                    at += chunk.len() as u64;
                }
                Ok(None) if at == size => return Ok(()),
                Ok(None) => return Err(broken(format!("it broke off at {at} of {size} bytes"), at)),
                Err(Halt::Broken { why, .. }) => return Err(broken(why, at)),
                Err(over) => return Err(over),
            }
        }
    }

    /// Sends a request for what lies behind the first `from` bytes.
    async fn ask(&self, address: &Url, what: &str, from: u64) -> Result<Response, Halt> {
        let mut request = self.client.get(address.clone());
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = self.unless_stopped(request.send()).await?.map_err(|error| Halt::broken(chain(&error)))?;
        let status = response.status();
        let over = |problem: &str| Err(failed(what, problem).into());
        match status {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => over(
                "the hub turns the request away; check the name, and for a model with terms accept them on its page and \
                 put a token into HF_TOKEN (`hf auth login`)",
            ),
            StatusCode::NOT_FOUND => over("the hub has nothing of this name and revision; check both"),
            // What is there is longer than what the server has: `goes_on_at` sees to a server that has none of it.
            StatusCode::RANGE_NOT_SATISFIABLE => over("the hub has less of it than it says; try later"),
            status if retry::is_worth_it(status) => {
                let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let after = asked.and_then(|value| retry::after(value, SystemTime::now()));
                Err(Halt::Broken { why: format!("the hub answered {status}"), after, moved: false })
            }
            status => over(&format!("the hub answered {status}; try later")),
        }
    }

    async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Halt> {
        self.unless_stopped(response.chunk()).await?.map_err(|error| Halt::broken(chain(&error)))
    }

    /// Tries until something whole came, or [`TRIES`] times in a row nothing did.
    async fn tries<T>(&self, what: &str, mut attempt: impl AsyncFnMut() -> Result<T, Halt>) -> Result<T> {
        let mut tried = 0;
        loop {
            let (why, after, moved) = match attempt().await {
                Ok(value) => return Ok(value),
                Err(Halt::Over(error)) => return Err(error),
                Err(Halt::Broken { why, after, moved }) => (why, after, moved),
            };
            tried = if moved { 1 } else { tried + 1 };
            if tried >= TRIES {
                let problem = format!(
                    "given up after {tried} tries in a row; the last: {why}; check the network, and run again to go on from \
                     here"
                );
                return Err(failed(what, problem));
            }
            tracing::info!(what, why, "a fetch is tried again");
            let wait = FIRST_WAIT * 2u32.pow(tried - 1);
            let wait = after.map_or(wait, |after| after.max(wait)).min(LONGEST_WAIT);
            self.unless_stopped(tokio::time::sleep(wait)).await?;
        }
    }

    /// Waits, and looks now and then whether an end was asked for.
    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Result<T, Interrupted> {
        let mut future = pin!(future);
        loop {
            self.progress.check()?;
            match select(future.as_mut(), pin!(tokio::time::sleep(LOOK))).await {
                Either::Left((value, _)) => return Ok(value),
                Either::Right(_) => {}
            }
        }
    }
}

fn failed(what: &str, problem: impl Into<String>) -> DiffusionError {
    DiffusionError::Fetch { what: what.to_owned(), problem: problem.into() }
}

/// Whether an answer begins where a file broke off, and not at its beginning.
fn goes_on_at(response: &Response, at: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

/// A file of which a part is there.
struct Incoming<'a, 'm> {
    listed: &'a Listed,
    path: PathBuf,
    file: File,
    /// Bytes that the meter was told.
    told: u64,
    meter: &'a mut Meter<'m>,
}

impl<'a, 'm> Incoming<'a, 'm> {
    /// The part in the folder `blobs`, which no other program may write meanwhile.
    fn open(listed: &'a Listed, blobs: &Path, meter: &'a mut Meter<'m>) -> Result<Self> {
        std::fs::create_dir_all(blobs).map_err(DiffusionError::file(blobs))?;
        let path = blobs.join(format!("{}.incomplete", listed.hash.text()));
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let file = file.map_err(DiffusionError::file(&path))?;
        // Where a file system knows no locks, nothing is locked.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(failed(&listed.name, "another program is fetching it; wait for that, and run again"));
        }
        let mut incoming = Self { listed, path, file, told: 0, meter };
        match incoming.length()? {
            length if length > listed.size => incoming.start_over()?,
            length => incoming.tell(length),
        }
        Ok(incoming)
    }

    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(DiffusionError::file(&self.path))?.len())
    }

    fn start_over(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(DiffusionError::file(&self.path))
    }

    /// Appends what came for the place `at`.
    fn write(&mut self, chunk: &[u8], at: u64) -> Result<()> {
        self.file.write_all(chunk).map_err(DiffusionError::file(&self.path))?;
        self.tell(at + chunk.len() as u64);
        Ok(())
    }

    /// Tells the meter how far it is; bytes that come again are not told again.
    fn tell(&mut self, reached: u64) {
        let more = reached.saturating_sub(self.told);
        self.told += more;
        self.meter.add(more);
    }

    /// Whether the whole file has its hash. If not, it is emptied.
    fn check(&mut self) -> Result<bool> {
        let found = match self.listed.hash {
            Hash::Sha256(_) => self.digest(Sha256::new()),
            Hash::Git(_) => self.digest(Sha1::new_with_prefix(format!("blob {}\0", self.listed.size))),
        };
        let right = found.map_err(DiffusionError::file(&self.path))? == self.listed.hash.text();
        match right {
            true => self.file.sync_all().map_err(DiffusionError::file(&self.path))?,
            false => self.start_over()?,
        }
        Ok(right)
    }

    fn digest(&mut self, mut hash: impl Digest) -> std::io::Result<String> {
        self.file.rewind()?;
        let mut part = vec![0; 1 << 20];
        loop {
            match self.file.read(&mut part) {
                Ok(0) => break,
                Ok(read) => hash.update(&part[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
