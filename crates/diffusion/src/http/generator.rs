//! Drawing images from a hosted model: many requests at once, each with bounded tries, counted before it is sent.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use evenset_core::{Interrupted, Progress, Seed};
use futures_util::stream::{self, StreamExt};
use reqwest::StatusCode;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::address::{Base, shown};
use super::answer::{self, Encoded, Meaning};
use super::body::body;
use super::config::HttpConfig;
use super::exchange::{Failure, Reply, Wire};
use super::key::Key;
use super::ledger::{Account, Ledger, Spent};
use super::picture::picture;
use super::retry;
use crate::error::{DiffusionError, Result};
use crate::image::Generated;

/// How often a wait asks whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Redirects of one link that are followed.
const REDIRECTS: usize = 3;
/// So many answers without a usable image in a row are no accident, and each may have been paid for.
const UNUSABLE_IN_A_ROW: u32 = 3;
/// The longest prompt in bytes, and the longest side of an image to be edited in pixels.
const LONGEST_PROMPT: usize = 32_000;
const LONGEST_SIDE: u32 = 8192;

/// One image to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct HostedRequest {
    /// What it shows.
    pub prompt: String,
    /// Sent where the job names the server's `seed_field` (its upper 31 bits); it also spreads the waits between tries.
    pub seed: Seed,
    /// The image that is to be changed; drawn from nothing without one.
    pub edit: Option<HostedEdit>,
}

/// An image that a hosted model changes.
#[derive(Clone, Debug, PartialEq)]
pub struct HostedEdit {
    /// Width in pixels, from 1 to 8192.
    pub width: u32,
    /// Height in pixels, from 1 to 8192.
    pub height: u32,
    /// 1 (grey) or 3 (RGB).
    pub channels: u32,
    /// `[height, width, channels]`.
    pub pixels: Vec<u8>,
    /// `[height, width]`, 255 where the image is to be redrawn and 0 where it stays (as in diffusers' inpainting). Without
    /// one the server decides.
    pub mask: Option<Vec<u8>>,
}

/// An image that a hosted model has drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct HostedImage {
    /// RGB pixels of the size that was asked for.
    pub image: Generated,
    /// Whether the server was given the request's seed. Without, the image cannot be drawn again.
    pub seeded: bool,
    /// The prompt that the server has made of the request's, where it says so.
    pub revised_prompt: Option<String>,
}

/// Why a request has no image, although server and settings are fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The server does not draw this; the text is its code and reason.
    Refused(String),
    /// What the server gave is no image of the size that was asked for; the text says what it is.
    Unusable(String),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "the hosted model refused: {reason}"),
            Self::Unusable(reason) => write!(f, "the hosted model answered with {reason}"),
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum HostedOutcome {
    /// An image.
    Drawn(HostedImage),
    /// None, and why.
    Rejected(Rejection),
}

/// A hosted model, ready to draw.
pub struct HttpGenerator {
    config: HttpConfig,
    base: Base,
    wire: Wire,
    account: Account,
    unusable: AtomicU32,
    runtime: Runtime,
}

impl fmt::Debug for HttpGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpGenerator").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a request ends without an outcome.
enum Halt {
    Failed(DiffusionError),
    /// Another request failed for good, or the user asked for an end, before this one was done.
    Ended,
}

impl From<DiffusionError> for Halt {
    fn from(error: DiffusionError) -> Self {
        Self::Failed(error)
    }
}

impl From<Interrupted> for Halt {
    fn from(error: Interrupted) -> Self {
        Self::Failed(error.into())
    }
}

/// What one try came to.
enum Try<T> {
    Done(T),
    /// Why it is tried again, and after how long the server wants that.
    Again(String, Option<Duration>),
}

/// What the requests of one call share.
struct Walk<'a> {
    progress: &'a dyn Progress,
    ended: Cell<bool>,
}

impl Walk<'_> {
    fn check(&self) -> Result<(), Halt> {
        if self.ended.get() {
            return Err(Halt::Ended);
        }
        Ok(self.progress.check()?)
    }

    async fn wait(&self, whole: Duration) -> Result<(), Halt> {
        let begun = Instant::now();
        while let Some(rest) = whole.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
            self.check()?;
            tokio::time::sleep(rest.min(LOOK)).await;
        }
        self.check()
    }
}

impl HttpGenerator {
    /// Checks the settings, reads the key from `environment` (in a program, `|name| std::env::var(name).ok()`) and what
    /// was spent from `ledger`. Sends nothing.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`], [`DiffusionError::Key`], [`DiffusionError::HttpClient`], and those of the ledger.
    pub fn new(
        config: HttpConfig,
        ledger: Box<dyn Ledger>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        config.validate()?;
        let base = Base::parse(&config.base_url, config.allow_http)
            .map_err(|reason| DiffusionError::Setting { key: "base_url", reason })?;
        let key = config.key_env.as_ref().map(|variable| Key::read(variable, environment)).transpose()?;
        let wire = Wire::new(&base, key, config.timeout(), config.max_answer_bytes)?;
        let account = Account::open(config.budget.clone(), ledger)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| DiffusionError::HttpClient(error.to_string()))?;
        Ok(Self { config, base, wire, account, unusable: AtomicU32::new(0), runtime })
    }

    /// What this job has spent in all, over every run.
    pub fn spent(&self) -> Spent {
        self.account.spent()
    }

    /// Images that the rest of the budget pays for.
    pub fn left(&self) -> u64 {
        self.account.left()
    }

    /// Draws one image for each request, `concurrency` at the same time. Each outcome goes to `keep` with its request's
    /// place as soon as it is there, in no particular order: what was drawn may have been paid for, so keep it at once.
    ///
    /// An error ends the call: no further request is sent, those in flight are waited for, and their images are kept too.
    /// `progress` is asked whether to stop before each request and while waiting between tries. Must not be called from
    /// within an asynchronous runtime.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] before any request for an impossible prompt or edit; [`DiffusionError::Budget`] where
    /// the budget does not pay for the next image; [`DiffusionError::Server`] where the server cannot be reached, is busy
    /// or failing beyond `retries`, rejects the key or the settings, answers with something else than this API, or three
    /// times in a row with no usable image; [`DiffusionError::Interrupted`]; those of the ledger; and whatever `keep`
    /// gives. The first of them is returned.
    pub fn generate<E: From<DiffusionError>>(
        &self,
        requests: &[HostedRequest],
        progress: &dyn Progress,
        keep: &mut dyn FnMut(usize, HostedOutcome) -> Result<(), E>,
    ) -> Result<(), E> {
        requests.iter().try_for_each(check)?;
        let walk = Walk { progress, ended: Cell::new(false) };
        let draw = |(place, request)| {
            let walk = &walk;
            async move { (place, self.draw(request, walk).await) }
        };
        self.runtime.block_on(async {
            let mut first = None;
            let mut outcomes =
                stream::iter(requests.iter().enumerate()).map(draw).buffer_unordered(self.config.concurrency);
            while let Some((place, outcome)) = outcomes.next().await {
                let kept = match outcome {
                    Ok(outcome) => {
                        let usable = self.watch(&outcome);
                        keep(place, outcome).and_then(|()| usable.map_err(E::from))
                    }
                    Err(Halt::Ended) => Ok(()),
                    Err(Halt::Failed(error)) => Err(error.into()),
                };
                if let Err(error) = kept {
                    walk.ended.set(true);
                    first.get_or_insert(error);
                }
            }
            first.map_or(Ok(()), Err)
        })
    }

    /// Fails after so many answers in a row without a usable image.
    fn watch(&self, outcome: &HostedOutcome) -> Result<()> {
        match outcome {
            HostedOutcome::Drawn(_) => self.unusable.store(0, Ordering::Relaxed),
            HostedOutcome::Rejected(Rejection::Refused(_)) => {}
            HostedOutcome::Rejected(Rejection::Unusable(reason)) => {
                let in_a_row = self.unusable.fetch_add(1, Ordering::Relaxed) + 1;
                if in_a_row >= UNUSABLE_IN_A_ROW {
                    let problem = format!(
                        "{in_a_row} answers in a row held no usable image, the last one {reason}; check `model` and `size`"
                    );
                    return Err(self.failed(&self.base.images(""), problem));
                }
            }
        }
        Ok(())
    }

    async fn draw(&self, request: &HostedRequest, walk: &Walk<'_>) -> Result<HostedOutcome, Halt> {
        walk.check()?;
        let call = if request.edit.is_some() { "edits" } else { "generations" };
        let address = self.base.images(call);
        let body = body(&self.config, request);
        let rejected = |rejection| Ok(HostedOutcome::Rejected(rejection));
        let ask = async || -> Result<Try<Meaning>, Halt> {
            self.account.charge()?;
            let answered = self.wire.post(&address, &body).await;
            if !may_be_charged(&answered) {
                self.account.refund()?;
            }
            Ok(match self.answered(&address, answered)? {
                Try::Again(why, after) => Try::Again(why, after),
                Try::Done(reply) => match answer::meaning(&reply) {
                    Meaning::Torn(why) => Try::Again(why, None),
                    meaning => Try::Done(meaning),
                },
            })
        };
        let (encoded, revised_prompt) = match self.persist(&address, request.seed, Some(walk), ask).await? {
            Meaning::Image(encoded, revised_prompt) => (encoded, revised_prompt),
            Meaning::Refused(reason) => return rejected(Rejection::Refused(self.wire.strike(reason))),
            Meaning::Unusable(reason) => return rejected(Rejection::Unusable(self.wire.strike(reason))),
            Meaning::Torn(problem) | Meaning::Wrong(problem) => return Err(self.failed(&address, problem).into()),
        };
        let file = match encoded {
            Encoded::Bytes(bytes) => Ok(bytes),
            Encoded::Link(link) => self.fetch(&address, &link, request.seed).await?,
        };
        match file.and_then(|bytes| picture(&bytes, self.config.size)) {
            Ok(image) => Ok(HostedOutcome::Drawn(HostedImage {
                image,
                seeded: self.config.seed_field.is_some(),
                revised_prompt: revised_prompt.map(|prompt| self.wire.strike(prompt)),
            })),
            Err(reason) => rejected(Rejection::Unusable(self.wire.strike(reason))),
        }
    }

    /// The file behind a link, or why that is none. The tries are free: the image is drawn, and may be paid for. So they go on
    /// when an end was asked for, and a link that leads nowhere is an image without use: asked again, it would cost again.
    async fn fetch(&self, address: &Url, link: &str, seed: Seed) -> Result<Result<Vec<u8>, String>, Halt> {
        let mut url = self.base.link(link).map_err(|problem| self.failed(address, problem))?;
        for _ in 0..=REDIRECTS {
            let ask = async || -> Result<Try<Reply>, Halt> { self.answered(&url, self.wire.get(&url).await) };
            let reply = match self.persist(&url, seed, None, ask).await {
                Err(Halt::Failed(DiffusionError::Server { problem, .. })) => {
                    return Ok(Err(format!("a link to an image, and the link: {problem}")));
                }
                reply => reply?,
            };
            match (reply.status, reply.location) {
                (status, _) if status.is_success() => return Ok(Ok(reply.bytes)),
                (status, Some(location)) if status.is_redirection() => {
                    url = self.base.redirect(&url, &location).map_err(|problem| self.failed(&url, problem))?;
                }
                (status, _) => return Ok(Err(format!("a link to an image, and the link with {status}"))),
            }
        }
        Err(self.failed(&url, format!("a link that redirects more than {REDIRECTS} times")).into())
    }

    /// Tries until there is an answer, at most `retries` times more; ends between tries where `walk` does.
    async fn persist<T>(
        &self,
        address: &Url,
        seed: Seed,
        walk: Option<&Walk<'_>>,
        ask: impl AsyncFn() -> Result<Try<T>, Halt>,
    ) -> Result<T, Halt> {
        let mut tried = 0;
        loop {
            let (why, after) = match ask().await? {
                Try::Done(answer) => return Ok(answer),
                Try::Again(why, after) => (why, after),
            };
            tried += 1;
            if tried > self.config.retries {
                let tries = if tried == 1 { "1 try".to_owned() } else { format!("{tried} tries") };
                return Err(self.failed(address, format!("given up after {tries}; the last: {why}")).into());
            }
            let wait = retry::wait(&self.config, seed, tried, after);
            tracing::debug!("{}: {}; again in {wait:.1?}", shown(address), self.wire.strike(why));
            match walk {
                Some(walk) => walk.wait(wait).await?,
                None => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Sorts what came of one request: an answer to be read, another try, or an end.
    fn answered(&self, address: &Url, answered: Result<Reply, Failure>) -> Result<Try<Reply>, Halt> {
        Ok(match answered {
            Ok(reply) if retry::is_worth_it(reply.status) => {
                let remedy = match reply.status {
                    StatusCode::TOO_MANY_REQUESTS => {
                        "; lower `concurrency`, or raise `retries` or `longest_wait_seconds`"
                    }
                    _ => "",
                };
                Try::Again(format!("{}{remedy}", answer::said(&reply)), reply.retry_after)
            }
            Ok(reply) => Try::Done(reply),
            Err(Failure::Unreachable(why)) => Try::Again(format!("not reached ({why}); is the server up?"), None),
            Err(Failure::Broken(why)) => Try::Again(format!("the connection broke ({why})"), None),
            Err(Failure::TimedOut) => {
                let seconds = self.config.timeout_seconds;
                Try::Again(format!("no whole answer within {seconds} seconds (`timeout_seconds`)"), None)
            }
            Err(Failure::TooLarge) => {
                let limit = self.config.max_answer_bytes;
                let problem =
                    format!("an answer of more than {limit} bytes; raise `max_answer_bytes` if that is right");
                return Err(self.failed(address, problem).into());
            }
        })
    }

    fn failed(&self, address: &Url, problem: String) -> DiffusionError {
        DiffusionError::Server { address: shown(address), problem: self.wire.strike(problem) }
    }
}

/// Whether the server may have drawn an image for what came of a request. Some look at the image that they drew before
/// they refuse it, so a refusal counts.
fn may_be_charged(answered: &Result<Reply, Failure>) -> bool {
    match answered {
        Ok(reply) => retry::may_be_charged(reply.status) || answer::is_refusal(reply),
        Err(Failure::Unreachable(_)) => false,
        Err(Failure::Broken(_) | Failure::TimedOut | Failure::TooLarge) => true,
    }
}

/// Says why a request cannot be sent.
fn check(request: &HostedRequest) -> Result<()> {
    let fail = |key, reason| Err(DiffusionError::Setting { key, reason });
    let bytes = request.prompt.len();
    if request.prompt.trim().is_empty() || bytes > LONGEST_PROMPT {
        return fail("prompt", format!("{bytes} bytes are not a prompt of 1 to {LONGEST_PROMPT} bytes"));
    }
    let Some(HostedEdit { width, height, channels, pixels, mask }) = &request.edit else { return Ok(()) };
    let side = 1..=LONGEST_SIDE;
    if !side.contains(width) || !side.contains(height) || !matches!(channels, 1 | 3) {
        return fail(
            "edit",
            format!("{width}x{height}x{channels} is no image of 1 or 3 channels up to {LONGEST_SIDE} pixels"),
        );
    }
    let area = *width as usize * *height as usize;
    if pixels.len() != area * *channels as usize {
        return fail("edit", format!("{} bytes for an image of {width}x{height}x{channels}", pixels.len()));
    }
    match mask {
        Some(mask) if mask.len() != area => {
            fail("mask", format!("{} bytes for an image of {width}x{height}", mask.len()))
        }
        _ => Ok(()),
    }
}
