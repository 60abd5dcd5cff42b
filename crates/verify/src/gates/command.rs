//! `command`: the user's own program keeps or drops each image.
//!
//! The program is started once for every [`BATCH`] images at most. It reads one line of JSON for each image, with the
//! image as a PNG file in a folder that is gone when it has ended, and answers with one line each, in any order. Whatever
//! goes wrong names the program and what was expected.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenset_core::{Group, Progress};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Outcome, Ruling};
use crate::program::{Failure, ask, missing_script, obstacle};
use crate::{Candidate, CommandConfig, OnError, VerifyError};

/// Images that a program is asked about at a time.
const BATCH: usize = 256;
/// Bytes of answer for each image, and for all together on top.
const ANSWER: usize = 4096;
const ON_TOP: usize = 65_536;
/// Characters of an answer that an error quotes.
const QUOTED: usize = 80;

/// The gate. Its score is the program's, or 1 for kept and 0 for dropped where it gives none.
#[derive(Debug)]
pub struct ProgramGate {
    config: CommandConfig,
}

/// What the program reads about one image.
#[derive(Serialize)]
struct Question<'a> {
    index: usize,
    group: &'a Group,
    width: u32,
    height: u32,
    path: &'a Path,
}

/// What it answers.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    index: usize,
    keep: bool,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    reason: Option<String>,
}

impl ProgramGate {
    pub(crate) fn new(config: CommandConfig) -> Self {
        Self { config }
    }

    /// The gate's name as it is written in jobs and verdicts.
    pub fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or("command")
    }

    /// Looks for the program without starting it.
    ///
    /// # Errors
    /// [`VerifyError::CannotStart`] where it, or a script that it is to read, is not there or may not be executed.
    pub(crate) fn look_for(&self) -> Result<(), VerifyError> {
        let (program, arguments) = self.config.run.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
        match obstacle(program).or_else(|| arguments.iter().find_map(|argument| missing_script(argument))) {
            Some(why) => Err(self.cannot_start(why)),
            None => Ok(()),
        }
    }

    /// One outcome for each candidate, in their order.
    ///
    /// # Errors
    /// [`VerifyError::CannotStart`]; [`VerifyError::Program`] where the program fails and `on_error` says to stop;
    /// [`VerifyError::Temporary`] where its images cannot be written; [`VerifyError::Interrupted`].
    pub(crate) fn check(
        &self,
        candidates: &[&Candidate],
        progress: &dyn Progress,
    ) -> Result<Vec<Outcome>, VerifyError> {
        let mut outcomes = Vec::with_capacity(candidates.len());
        for batch in candidates.chunks(BATCH) {
            progress.check()?;
            outcomes.extend(self.check_batch(batch, progress)?);
        }
        Ok(outcomes)
    }

    fn check_batch(&self, batch: &[&Candidate], progress: &dyn Progress) -> Result<Vec<Outcome>, VerifyError> {
        let folder =
            tempfile::Builder::new().prefix("evenset-gate-").tempdir().map_err(temporary(std::env::temp_dir()))?;
        let input = questions(batch, folder.path())?;
        let limit = Duration::from_secs(u64::from(self.config.timeout));
        let most = ON_TOP + ANSWER * batch.len();
        let stop = || progress.stop_requested();
        let answers = match ask(&self.config.run, input, limit, most, &stop) {
            Ok(output) => answers(&output, batch.len()).map_err(|what| (what, String::new())),
            Err(Failure::Wrong { what, printed }) => Err((what, printed)),
            Err(Failure::Stopped) => return Err(VerifyError::Interrupted(evenset_core::Interrupted)),
            // A misspelt name is not what `on_error` is for.
            Err(Failure::Start(error)) => return Err(self.cannot_start(error.to_string())),
        };
        let (what, printed) = match answers {
            Ok(answers) => return Ok(answers.into_iter().map(|answer| self.outcome(answer)).collect()),
            Err(failure) => failure,
        };
        let ruling = match self.config.on_error {
            OnError::Fail => return Err(self.failed(what, printed)),
            OnError::Keep => {
                let (gate, images) = (self.name(), batch.len());
                tracing::warn!(
                    "gate {gate}: the program {what}; {images} images are kept unchecked (`on_error: keep`)"
                );
                Ruling::Keep
            }
            OnError::Drop => Ruling::Drop(format!("{}: the program {what}", self.name())),
        };
        Ok(vec![Outcome { ruling, score: None }; batch.len()])
    }

    fn outcome(&self, Answer { keep, score, reason, .. }: Answer) -> Outcome {
        let score = score.unwrap_or(if keep { 1.0 } else { 0.0 });
        if keep {
            return Outcome::keep(score);
        }
        let reason = reason.filter(|reason| !reason.trim().is_empty());
        let reason = reason.unwrap_or_else(|| format!("dropped by the program (score {score:.3})"));
        Outcome::drop(score, format!("{}: {reason}", self.name()))
    }

    fn cannot_start(&self, why: String) -> VerifyError {
        VerifyError::CannotStart { gate: self.name().to_owned(), program: self.config.run.join(" "), why }
    }

    fn failed(&self, what: String, printed: String) -> VerifyError {
        let printed = if printed.is_empty() { printed } else { format!("\nIt wrote:\n{printed}") };
        VerifyError::Program { gate: self.name().to_owned(), program: self.config.run.join(" "), what, printed }
    }
}

/// Writes the images into `folder`; the lines that the program reads.
fn questions(batch: &[&Candidate], folder: &Path) -> Result<Vec<u8>, VerifyError> {
    let lines: Vec<String> = batch
        .par_iter()
        .enumerate()
        .map(|(index, candidate)| {
            let Candidate { group, width, height, .. } = *candidate;
            let path = folder.join(format!("{index}.png"));
            let bytes = png(candidate).map_err(|error| temporary(path.clone())(std::io::Error::other(error)))?;
            fs::write(&path, bytes).map_err(temporary(path.clone()))?;
            let question = Question { index, group, width: *width, height: *height, path: &path };
            serde_json::to_string(&question).map_err(|error| temporary(path.clone())(error.into()))
        })
        .collect::<Result<_, VerifyError>>()?;
    Ok(lines.into_iter().flat_map(|line| (line + "\n").into_bytes()).collect())
}

fn png(candidate: &Candidate) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, candidate.width, candidate.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&candidate.rgb)?;
    writer.finish()?;
    Ok(bytes)
}

/// For `map_err`: an error at a file or folder that the program was to read.
fn temporary(path: PathBuf) -> impl FnOnce(std::io::Error) -> VerifyError {
    move |source| VerifyError::Temporary { path, source }
}

/// The answers in the order of the images, or what is wrong with them.
fn answers(output: &[u8], count: usize) -> Result<Vec<Answer>, String> {
    let last = count - 1;
    let mut found = BTreeMap::new();
    for (line, text) in (1..).zip(String::from_utf8_lossy(output).lines()) {
        if text.trim().is_empty() {
            continue;
        }
        let wrote = || {
            let quoted: String = text.chars().take(QUOTED).collect();
            let rest = if text.chars().nth(QUOTED).is_some() { "..." } else { "" };
            format!("wrote `{quoted}{rest}` in line {line}")
        };
        let answer: Answer = serde_json::from_str(text).map_err(|error| {
            let expected = r#"{"index":0,"keep":true,"score":0.9,"reason":"..."}"#;
            format!("{} ({error}), where a line like `{expected}` was expected", wrote())
        })?;
        if answer.index > last {
            return Err(format!("{}, where an index from 0 to {last} was expected", wrote()));
        }
        if answer.score.is_some_and(|score| !score.is_finite()) {
            return Err(format!("{}, where a finite score was expected", wrote()));
        }
        let index = answer.index;
        if found.insert(index, answer).is_some() {
            return Err(format!("{}, where one answer for each image was expected: {index} has two", wrote()));
        }
    }
    if let Some(missing) = (0..count).find(|index| !found.contains_key(index)) {
        let answered = found.len();
        return Err(format!("answered for {answered} of {count} images; image {missing} has no line"));
    }
    Ok(found.into_values().collect())
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Instant;

    use evenset_core::Silent;

    use super::*;

    fn candidates(count: usize) -> Vec<Candidate> {
        let one = |i: usize| Candidate {
            request_index: 10 + i,
            group: Group::of("colour", if i.is_multiple_of(2) { "red" } else { "blue" }),
            width: 8,
            height: 8,
            rgb: vec![i as u8; 8 * 8 * 3],
            flaw: None,
        };
        (0..count).map(one).collect()
    }

    fn gate(script: &str, on_error: OnError) -> ProgramGate {
        let run = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        ProgramGate::new(CommandConfig { run, timeout: 2, name: Some("taste".into()), on_error })
    }

    fn asked(script: &str, count: usize, on_error: OnError) -> Result<Vec<Outcome>, VerifyError> {
        let candidates = candidates(count);
        gate(script, on_error).check(&candidates.iter().collect::<Vec<_>>(), &Silent)
    }

    /// Drops blue images; answers in the opposite order.
    const GOOD: &str = r#"i=0; all=''; while read line; do
        case "$line" in *blue*) answer='"keep":false,"reason":"too blue","score":0.25';; *) answer='"keep":true';; esac
        all="{\"index\":$i,$answer}
$all"; i=$((i+1)); done; printf '%s\n' "$all""#;

    #[test]
    fn a_program_keeps_and_drops_with_its_reason_over_several_batches() {
        let outcomes = asked(GOOD, BATCH + 3, OnError::Fail).unwrap();
        assert_eq!(outcomes.len(), BATCH + 3);
        for (i, outcome) in outcomes.iter().enumerate() {
            let expected = if (i % BATCH).is_multiple_of(2) {
                Outcome::keep(1.0)
            } else {
                Outcome::drop(0.25, "taste: too blue".into())
            };
            assert_eq!(*outcome, expected, "{i}");
        }
    }

    #[test]
    fn it_reads_the_image_as_a_png_file_that_is_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.png");
        let seen = folder.path().join("line");
        let script = format!(
            r#"read line; printf '%s' "$line" > {}; file="${{line##*path\":\"}}"; cp "${{file%%\"*}}" {}; echo '{{"index":0,"keep":true}}'"#,
            seen.display(),
            copy.display()
        );
        asked(&script, 1, OnError::Fail).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&fs::read(seen).unwrap()).unwrap();
        assert_eq!((&line["index"], &line["group"]["colour"], &line["width"]), (&0.into(), &"red".into(), &8.into()));
        assert!(!Path::new(line["path"].as_str().unwrap()).exists());
        let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(copy).unwrap()));
        assert_eq!(decoder.read_info().unwrap().info().width, 8);
    }

    #[test]
    fn what_a_program_does_wrong_is_named_with_what_was_expected() {
        for (script, expected) in [
            ("cat > /dev/null; echo oops >&2; exit 3", "ended with exit code 3; mend it"),
            ("exit 3", "ended with exit code 3"),
            ("echo nonsense", "wrote `nonsense` in line 1"),
            (r#"echo '{"index":7,"keep":true}'"#, "where an index from 0 to 2 was expected"),
            (r#"echo '{"index":1,"keep":true}'; echo '{"index":1,"keep":true}'"#, "1 has two"),
            (r#"echo '{"index":1,"keep":true}'"#, "answered for 1 of 3 images; image 0 has no line"),
            (r#"echo '{"index":1,"keep":"yes"}'"#, "where a line like `{\"index\":0"),
            (
                "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
                "wrote more than",
            ),
            ("kill -9 $$", "was ended by a signal"),
        ] {
            let error = asked(script, 3, OnError::Fail).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("the gate `taste`"), "{script}: {error}");
        }
        let error = asked("echo oops >&2; exit 3", 3, OnError::Fail).unwrap_err().to_string();
        assert!(error.ends_with("It wrote:\noops"), "{error}");
        let config = CommandConfig { run: vec!["/no/such/program".into()], ..gate("", OnError::Keep).config };
        let error = ProgramGate::new(config).check(&[&candidates(1)[0]], &Silent).unwrap_err().to_string();
        assert!(error.contains("`/no/such/program` of the gate `taste` cannot be started"), "{error}");
        assert!(!error.contains("on_error"), "it is set, and is not for this: {error}");
    }

    #[test]
    fn a_program_is_looked_for_as_it_will_be_started() {
        let folder = tempfile::tempdir().unwrap();
        let (script, notes) = (folder.path().join("judge"), folder.path().join("notes"));
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(&notes, "no program").unwrap();
        let looked_for = |program: &Path| {
            let run = vec![program.display().to_string(), "argument".into()];
            ProgramGate::new(CommandConfig { run, ..gate("", OnError::Keep).config }).look_for()
        };
        for there in [Path::new("sh"), Path::new("/bin/sh"), &script] {
            assert!(looked_for(there).is_ok(), "{}", there.display());
        }
        for (missing, why) in [
            (Path::new("no-such-program-anywhere"), "no program of this name"),
            (Path::new("/no/such/program"), "No such file"),
            (folder.path(), "a folder"),
            (&notes, "may not be executed"),
        ] {
            let error = looked_for(missing).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("cannot be started"), "{error}");
        }
        let read_by_sh = |argument: &str| {
            let run = vec!["sh".into(), argument.to_owned()];
            ProgramGate::new(CommandConfig { run, ..gate("", OnError::Keep).config }).look_for()
        };
        let error = read_by_sh("no/judge.sh").unwrap_err().to_string();
        assert!(error.contains("there is no `no/judge.sh`"), "{error}");
        for fine in ["-c", "sh no/judge.sh", "--log=no/judge.sh", "model.bin", &script.display().to_string()] {
            assert!(read_by_sh(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn what_a_failed_program_left_running_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("alive");
        let script = format!("(sleep 2; touch {}) > /dev/null 2>&1 & exit 3", mark.display());
        let error = asked(&script, 1, OnError::Fail).unwrap_err().to_string();
        assert!(error.contains("ended with exit code 3"), "{error}");
        std::thread::sleep(Duration::from_secs(3));
        assert!(!mark.exists(), "the child went on");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("alive");
        let script = format!("(sleep 4; touch {}) & sleep 60", mark.display());
        let start = Instant::now();
        let error = asked(&script, 2, OnError::Fail).unwrap_err().to_string();
        assert!(error.contains("was ended after its 2 seconds"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_secs(3));
        assert!(!mark.exists(), "the child went on");
    }

    #[test]
    fn on_error_says_what_becomes_of_the_images_of_a_failed_batch() {
        let kept = asked("exit 1", 2, OnError::Keep).unwrap();
        assert_eq!(kept, vec![Outcome { ruling: Ruling::Keep, score: None }; 2]);
        let dropped = asked("exit 1", 2, OnError::Drop).unwrap();
        let ruling = Ruling::Drop("taste: the program ended with exit code 1".into());
        assert_eq!(dropped, vec![Outcome { ruling, score: None }; 2]);
    }
}
