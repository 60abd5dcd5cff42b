//! Progress on standard error: bars with time left on a terminal, plain lines otherwise. And Ctrl-C.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evenset_core::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A plain line is written at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// Draws what long work says of itself, and hears Ctrl-C.
///
/// The first Ctrl-C (or SIGTERM) asks the work to stop at the next safe place; a second one ends the process at once,
/// which loses the unit in flight and nothing else.
pub struct Reporter {
    stop: Arc<AtomicBool>,
    style: Style,
    task: Mutex<Option<Task>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Bars,
    Lines,
    Silent,
}

struct Task {
    name: String,
    total: u64,
    done: u64,
    /// Steps that were done before the clock began to mean anything (units of an earlier run).
    remark: String,
    start: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Reporter {
    /// Starts to listen for Ctrl-C.
    pub fn start(quiet: bool) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The order matters: the flag must already be set by the first signal for the second to end the process.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                i32::from(crate::exit::INTERRUPTED),
                Arc::clone(&stop),
            )?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let style = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Style::Silent,
            (false, true) => Style::Bars,
            (false, false) => Style::Lines,
        };
        Ok(Self { stop, style, task: Mutex::new(None) })
    }

    /// Clears what is left of a bar.
    pub fn finish(&self) {
        self.end();
    }

    fn task(&self) -> std::sync::MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, text: &str) {
        // Nothing to be done about a standard error that is closed.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl Progress for Reporter {
    fn begin(&self, name: &str, total: u64) {
        self.end();
        let bar = (self.style == Style::Bars).then(|| {
            let bar = ProgressBar::new(total);
            let template = "{prefix:<28} {bar:30} {pos:>7}/{len:<7} {eta:>5} left  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━━ "));
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        if self.style == Style::Lines {
            // Of a stream nobody knows the length.
            self.line(&if total == 0 { name.to_owned() } else { format!("{name}: {total} to do") });
        }
        let now = Instant::now();
        *self.task() =
            Some(Task { name: name.to_owned(), total, done: 0, remark: String::new(), start: now, said: now, bar });
    }

    fn advance(&self, steps: u64) {
        let mut guard = self.task();
        let Some(task) = guard.as_mut() else { return };
        task.done += steps;
        if let Some(bar) = &task.bar {
            bar.inc(steps);
        }
        if self.style == Style::Lines && task.said.elapsed() >= EVERY {
            task.said = Instant::now();
            let line = task.line();
            drop(guard);
            self.line(&line);
        }
    }

    fn note(&self, remark: &str) {
        if let Some(task) = self.task().as_mut() {
            remark.clone_into(&mut task.remark);
            if let Some(bar) = &task.bar {
                bar.set_message(remark.to_owned());
            }
        }
    }

    fn end(&self) {
        let Some(task) = self.task().take() else { return };
        if let Some(bar) = &task.bar {
            bar.finish_and_clear();
        }
        if self.style != Style::Silent {
            let remark = if task.remark.is_empty() { String::new() } else { format!(", {}", task.remark) };
            self.line(&format!("{}: {} in {}{remark}", task.name, task.done, duration(task.start.elapsed())));
        }
    }

    fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Task {
    fn line(&self) -> String {
        let elapsed = self.start.elapsed();
        let left = match (self.done, self.total) {
            (0, _) | (_, 0) => String::new(),
            (done, total) => {
                let left = elapsed.as_secs_f64() * total.saturating_sub(done) as f64 / done as f64;
                format!(", about {} left", duration(Duration::from_secs_f64(left)))
            }
        };
        let remark = if self.remark.is_empty() { String::new() } else { format!(", {}", self.remark) };
        format!("{}: {} of {}{left}{remark}", self.name, self.done, self.total)
    }
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}
