//! A program that is asked once: what it is given, how long it may take, and how much it may say.
//!
//! It is started without a shell, in a process group of its own, so that its children can be ended with it.

use std::io::{Read, Write};
#[cfg(unix)]
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::outside::SCRIPTS;

/// How often it is looked whether the program has ended.
const GLANCE: Duration = Duration::from_millis(5);
/// How long its output may stay open after it has ended.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes of its standard error that are kept: the last ones.
const TAIL: usize = 2048;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The program could not be started.
    Start(std::io::Error),
    /// It was started and did something wrong: what, and the end of its standard error.
    Wrong { what: String, printed: String },
    /// The user asked for an end.
    Stopped,
}

/// What stands in the way of starting a program, as far as that can be said without starting it.
#[cfg(unix)]
pub(crate) fn obstacle(program: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let of_file = |path: &Path| match path.metadata() {
        Err(error) => Some(error.to_string()),
        Ok(found) if found.is_dir() => Some("it is a folder".to_owned()),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Some("it may not be executed; allow it with `chmod +x`, or name the program that reads it first".to_owned())
        }
        Ok(_) => None,
    };
    if program.contains('/') {
        return of_file(Path::new(program));
    }
    let folders = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&folders).any(|folder| of_file(&folder.join(program)).is_none());
    (!found).then(|| "there is no program of this name".to_owned())
}

/// What stands in the way of starting a program: nothing can be said without starting it, since the system looks for more
/// than files of this name.
#[cfg(not(unix))]
pub(crate) fn obstacle(_program: &str) -> Option<String> {
    None
}

/// That an argument names a script that is not there: an interpreter would say so only once it is started.
pub(crate) fn missing_script(argument: &str) -> Option<String> {
    let path = Path::new(argument);
    let extension = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    let script = SCRIPTS.contains(&extension);
    let one_word = !argument.contains(char::is_whitespace) && !argument.starts_with('-');
    (script && one_word && !path.exists()).then(|| format!("there is no `{argument}`"))
}

/// Starts the program, gives it `input` and returns what it wrote to standard output, at most `most` bytes.
pub(crate) fn ask(
    run: &[String],
    input: Vec<u8>,
    limit: Duration,
    most: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<u8>, Failure> {
    let [program, arguments @ ..] = run else {
        return Err(Failure::Start(std::io::Error::other("no program is named")));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(Failure::Start)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input closes the pipe; whether its answer is whole is seen from the answer.
        thread::spawn(move || {
            let _ = pipe.write_all(&input);
        });
    }
    let output = child.stdout.take().map(|pipe| read(pipe, move |bytes| bytes.len() > most));
    let errors = child.stderr.take().map(|pipe| {
        read(pipe, |bytes| {
            let surplus = bytes.len().saturating_sub(TAIL);
            bytes.drain(..surplus);
            false
        })
    });
    let ended = watch(&mut child, output.as_ref(), limit, most, stop);
    let wrong = |what: String| {
        let printed = errors.as_ref().and_then(|errors| errors.recv_timeout(GRACE).ok()).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed).trim().to_owned();
        Err(Failure::Wrong { what, printed })
    };
    match ended {
        Ok((status, answer)) if status.success() => Ok(answer),
        Ok((status, _)) => {
            // It may have left others running.
            end(&mut child);
            wrong(match status.code() {
                Some(code) => format!("ended with exit code {code}"),
                None => "was ended by a signal".to_owned(),
            })
        }
        Err(Some(what)) => {
            end(&mut child);
            wrong(what)
        }
        Err(None) => {
            end(&mut child);
            Err(Failure::Stopped)
        }
    }
}

/// Waits for the end of the program and of its output; what it did wrong, or nothing where the user asked for an end.
fn watch(
    child: &mut Child,
    output: Option<&Receiver<Vec<u8>>>,
    limit: Duration,
    most: usize,
    stop: &dyn Fn() -> bool,
) -> Result<(ExitStatus, Vec<u8>), Option<String>> {
    let start = Instant::now();
    let mut answer = None;
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        if ended.is_none() {
            let status = child.try_wait().map_err(|error| Some(format!("cannot be waited for ({error})")))?;
            ended = status.map(|status| (status, Instant::now()));
        }
        match output.map(|output| output.recv_timeout(GLANCE)) {
            Some(Ok(bytes)) if bytes.len() > most => {
                return Err(Some(format!("wrote more than {most} bytes; one short line for each image was expected")));
            }
            Some(Ok(bytes)) => answer = Some(bytes),
            Some(Err(RecvTimeoutError::Timeout)) => {}
            // The output was read to its end, or there is none.
            Some(Err(RecvTimeoutError::Disconnected)) | None => thread::sleep(GLANCE),
        }
        match (ended, answer.take()) {
            (Some((status, _)), Some(answer)) => return Ok((status, answer)),
            (Some((_, since)), None) if since.elapsed() > GRACE => {
                return Err(Some("ended, but a process that it started keeps its output open".to_owned()));
            }
            (_, unfinished) => answer = unfinished,
        }
        if stop() {
            return Err(None);
        }
        if start.elapsed() > limit {
            return Err(Some(format!("was ended after its {} seconds", limit.as_secs_f64())));
        }
    }
}

/// Reads a pipe to its end, or until `full` says that it is enough, on a thread of its own.
fn read(
    mut pipe: impl Read + Send + 'static,
    full: impl Fn(&mut Vec<u8>) -> bool + Send + 'static,
) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 8192]);
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..count]);
            if full(&mut bytes) {
                break;
            }
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Ends the program and, where processes come in groups, its children.
fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}
