//! How a running operation shows: a bar on a terminal, lines for programs and logs, or nothing. Not for: results.

use crate::cli::args::output::Output;
use crate::cli::output::message::issue_json;
use crate::cli::output::text;
use crate::error::Error;
use crate::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

enum Voice {
    Silent,
    /// A bar on standard error.
    Bar(ProgressBar),
    /// A line on standard error from time to time.
    Lines,
    /// An object on standard output from time to time.
    Json,
}

/// Tells what an operation does. Issues always reach standard error.
pub(crate) struct Reporter {
    during: &'static str,
    voice: Voice,
    quiet: bool,
    json: bool,
    started: Instant,
    /// Milliseconds after `started` before which nothing more is said.
    next: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
    issues: AtomicU64,
    now: Mutex<Now>,
    /// Hints that were printed already; they are few, fixed sentences.
    hints: Mutex<std::collections::BTreeSet<String>>,
}

/// The stage that is under way. Counts begin anew with each stage, so that a later one does not seem to undo an earlier one.
struct Now {
    stage: String,
    file: Vec<u8>,
    began: Instant,
    /// The largest share that was shown: totals grow while folders are still being read.
    share: f64,
}

/// What is shown of a stage.
struct Figures {
    files: u64,
    total_files: u64,
    bytes: u64,
    total_bytes: u64,
    /// The share that is done, from 0 to 1; `None` while no total is known.
    share: Option<f64>,
    /// Time since the stage began.
    elapsed: Duration,
    /// Seconds until it ends, at least one; `None` if there is nothing to calculate it from.
    remaining: Option<u64>,
}

thread_local! {
    /// The file that this thread works on. A large one is shown for as long as its bytes come, whatever other threads begin.
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A forecast needs this much of a stage: before, its speed says nothing.
const FORECAST_AFTER: Duration = Duration::from_secs(2);

impl Reporter {
    /// A reporter for the operation `during` that speaks as the options say.
    pub(crate) fn new(during: &'static str, output: Output) -> Reporter {
        let voice = match () {
            () if output.quiet => Voice::Silent,
            () if output.json => Voice::Json,
            () if std::io::stderr().is_terminal() => Voice::Bar(bar()),
            () if output.verbose => Voice::Lines,
            () => Voice::Silent,
        };
        Reporter::with_voice(during, output, voice)
    }

    /// A reporter that passes on notes and issues only, and starts no thread: for what runs until it is ended.
    pub(crate) fn without_bar(during: &'static str, output: Output) -> Reporter {
        Reporter::with_voice(during, output, Voice::Silent)
    }

    fn with_voice(during: &'static str, output: Output, voice: Voice) -> Reporter {
        Reporter {
            during,
            voice,
            quiet: output.quiet,
            json: output.json,
            started: Instant::now(),
            next: AtomicU64::new(0),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total_files: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            issues: AtomicU64::new(0),
            now: Mutex::new(Now { stage: during.to_owned(), file: Vec::new(), began: Instant::now(), share: 0.0 }),
            hints: Mutex::default(),
        }
    }

    /// Takes the bar away. Also happens when the reporter is dropped.
    pub(crate) fn finish(&self) {
        if let Voice::Bar(bar) = &self.voice {
            bar.finish_and_clear();
        }
    }

    /// Whether it is time to say something again; true for one caller only.
    fn is_due(&self) -> bool {
        let pause = match self.voice {
            Voice::Silent => return false,
            Voice::Bar(_) => Duration::from_millis(100),
            Voice::Json => Duration::from_secs(1),
            Voice::Lines => Duration::from_secs(10),
        };
        let elapsed = self.started.elapsed().as_millis() as u64;
        let next = self.next.load(Relaxed);
        let after = elapsed + pause.as_millis() as u64;
        elapsed >= next && self.next.compare_exchange(next, after, Relaxed, Relaxed).is_ok()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn speak_if_due(&self) {
        if self.is_due() {
            self.speak();
        }
    }

    fn speak(&self) {
        let mut now = self.now();
        FILE.with_borrow(|file| {
            if !file.is_empty() {
                now.file.clone_from(file);
            }
        });
        let figures = self.figures(&mut now);
        match &self.voice {
            Voice::Silent => {}
            Voice::Bar(bar) => {
                bar.set_style(if figures.share.is_some() { with_total() } else { without_total() });
                bar.set_position((figures.share.unwrap_or(0.0) * BAR as f64) as u64);
                bar.set_prefix(format!("{}: {}", now.stage, figures.words()));
                bar.set_message(text::escape(&now.file));
            }
            Voice::Lines => {
                let line = format!("{}: {}\n", now.stage, figures.words());
                drop(std::io::stderr().lock().write_all(line.as_bytes()));
            }
            Voice::Json => {
                let line = format!("{}\n", self.status(&now, &figures));
                // Not worth ending a backup for: the results tell whether anybody listens.
                let mut out = std::io::stdout().lock();
                drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
            }
        }
    }

    /// The figures of the stage; the share never falls while it lasts.
    fn figures(&self, now: &mut Now) -> Figures {
        let (bytes, total_bytes) = (self.bytes.load(Relaxed), self.total_bytes.load(Relaxed));
        let (files, total_files) = (self.files.load(Relaxed), self.total_files.load(Relaxed));
        let share = match (total_bytes, total_files) {
            (0, 0) => None,
            (0, total) => Some(files as f64 / total as f64),
            (total, _) => Some(bytes as f64 / total as f64),
        };
        now.share = share.unwrap_or(0.0).min(1.0).max(now.share);
        let elapsed = now.began.elapsed();
        let remaining = forecast(now.share, elapsed);
        Figures { files, total_files, bytes, total_bytes, share: share.map(|_| now.share), elapsed, remaining }
    }

    fn status(&self, now: &Now, figures: &Figures) -> serde_json::Value {
        json!({
            "message_type": "status",
            "action": now.stage,
            "percent_done": figures.share.unwrap_or(0.0),
            "total_files": figures.total_files,
            "files_done": figures.files,
            "total_bytes": figures.total_bytes,
            "bytes_done": figures.bytes,
            "error_count": self.issues.load(Relaxed),
            "seconds_elapsed": self.started.elapsed().as_secs(),
            "seconds_remaining": figures.remaining,
            "current_files": match now.file.is_empty() {
                true => Vec::new(),
                false => vec![String::from_utf8_lossy(&now.file)],
            },
        })
    }

    /// Writes a line to standard output. On a terminal its bytes cannot drive it. One that cannot be written is dropped: the results
    /// tell whether anybody listens.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut out = std::io::stdout().lock();
        let mut write = |line: &[u8]| drop(out.write_all(&[line, b"\n"].concat()).and_then(|()| out.flush()));
        match (&self.voice, std::io::stdout().is_terminal()) {
            (Voice::Bar(bar), true) => bar.suspend(|| write(text::escape(line).as_bytes())),
            (_, true) => write(text::escape(line).as_bytes()),
            (_, false) => write(line),
        }
    }

    fn write_aside(&self, line: &str) {
        let write = || drop(std::io::stderr().lock().write_all(line.as_bytes()));
        match &self.voice {
            Voice::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Seconds until a stage ends that has done `share` in `elapsed`.
fn forecast(share: f64, elapsed: Duration) -> Option<u64> {
    let seconds = elapsed.as_secs_f64() * (1.0 - share) / share;
    (elapsed >= FORECAST_AFTER && share >= 0.001 && seconds >= 1.0).then_some(seconds as u64)
}

impl Figures {
    /// For people: "12 of 30 files, 1.20 MiB of 3.00 MiB, 400 KiB/s, 0:05 min left".
    fn words(&self) -> String {
        let count = |done: u64, total: u64| match total {
            0 => text::count(done, "file", "files"),
            total => format!("{done} of {}", text::count(total.max(done), "file", "files")),
        };
        let mut parts = vec![count(self.files, self.total_files)];
        match (self.bytes, self.total_bytes) {
            (0, 0) => {}
            (bytes, 0) => parts.push(text::size(bytes)),
            // A file can grow while it is read.
            (bytes, total) => parts.push(format!("{} of {}", text::size(bytes), text::size(total.max(bytes)))),
        }
        if self.bytes > 0 && self.elapsed >= FORECAST_AFTER {
            parts.push(format!("{}/s", text::size((self.bytes as f64 / self.elapsed.as_secs_f64()) as u64)));
        }
        parts.push(match self.remaining {
            Some(seconds) => format!("{} left", text::duration(Duration::from_secs(seconds)).replace(".0 s", " s")),
            None => text::duration(self.elapsed),
        });
        parts.join(", ")
    }
}

impl Progress for Reporter {
    fn stage(&self, name: &str) {
        {
            let mut now = self.now();
            *now = Now { stage: name.to_owned(), file: Vec::new(), began: Instant::now(), share: 0.0 };
            FILE.with_borrow_mut(Vec::clear);
            for counter in [&self.files, &self.bytes, &self.total_files, &self.total_bytes] {
                counter.store(0, Relaxed);
            }
        }
        // A stage that is over in no time needs no line in a log.
        match self.voice {
            Voice::Bar(_) => self.speak(),
            _ => self.speak_if_due(),
        }
    }

    fn expect(&self, files: u64, bytes: u64) {
        self.total_files.fetch_add(files, Relaxed);
        self.total_bytes.fetch_add(bytes, Relaxed);
        self.speak_if_due();
    }

    fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.speak_if_due();
    }

    fn file(&self, path: &Path) {
        if !matches!(self.voice, Voice::Silent) {
            FILE.with_borrow_mut(|file| {
                file.clear();
                file.extend_from_slice(path.as_os_str().as_bytes());
            });
            self.speak_if_due();
        }
    }

    fn files(&self, files: u64) {
        self.files.fetch_add(files, Relaxed);
        self.speak_if_due();
    }

    fn issue(&self, path: &Path, error: &Error) {
        self.issues.fetch_add(1, Relaxed);
        let chain = error.chain();
        let shown = path.display().to_string();
        let line = match self.json {
            true => issue_json(error, self.during, path),
            false if shown.is_empty() || chain.contains(&shown) => format!("Error: {}\n", text::line(&chain)),
            false => format!("Error: \"{}\": {}\n", text::line(&shown), text::line(&chain)),
        };
        self.write_aside(&line);
        // Once: many files may be hit by the same damage.
        if let (false, Some(hint)) = (self.json, error.hint())
            && self.hints.lock().unwrap_or_else(PoisonError::into_inner).insert(hint.to_owned())
        {
            self.write_aside(&format!("Hint: {}\n", text::line(hint)));
        }
    }

    fn note(&self, message: &str) {
        if !self.quiet {
            let line = match self.json {
                true => format!("{}\n", json!({ "message_type": "note", "message": message })),
                false => format!("Note: {}\n", text::line(message)),
            };
            self.write_aside(&line);
        }
    }
}

/// Steps of the bar.
const BAR: u64 = 1000;

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(BAR), ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(without_total());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn without_total() -> ProgressStyle {
    style("{spinner} {prefix}\n  {wide_msg}")
}

fn with_total() -> ProgressStyle {
    style("{spinner} {prefix}\n{bar:24} {percent}%  {wide_msg}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> Reporter {
        let reporter = Reporter::new("test", Output { json: true, ..Output::default() });
        reporter.next.store(u64::MAX, Relaxed);
        reporter
    }

    #[test]
    fn templates_are_valid_and_a_status_adds_up() {
        drop((bar(), with_total()));
        let reporter = programs();
        reporter.stage("working");
        reporter.expect(4, 100);
        reporter.bytes(50);
        reporter.files(1);
        let mut now = reporter.now();
        now.file = b"/a\xff".to_vec();
        let figures = reporter.figures(&mut now);
        let status = reporter.status(&now, &figures);
        assert_eq!((&status["percent_done"], &status["action"]), (&json!(0.5), &json!("working")));
        assert_eq!((&status["files_done"], &status["total_files"]), (&json!(1), &json!(4)));
        assert_eq!(status["current_files"][0], "/a\u{fffd}");
        assert!(figures.words().starts_with("1 of 4 files, 50 B of 100 B, "), "{}", figures.words());
    }

    #[test]
    fn a_share_never_falls_and_a_stage_begins_anew() {
        let reporter = programs();
        let share = || reporter.figures(&mut reporter.now()).share;
        assert_eq!(share(), None);
        reporter.expect(1, 100);
        reporter.bytes(80);
        assert_eq!(share(), Some(0.8));
        reporter.expect(1, 900);
        assert_eq!(share(), Some(0.8), "more was found");
        reporter.bytes(920 + 5000);
        assert_eq!(share(), Some(1.0), "a file grew");
        reporter.stage("next");
        assert_eq!(share(), None);
    }

    #[test]
    fn a_forecast_is_never_of_nothing() {
        assert_eq!(forecast(0.5, Duration::from_secs(10)), Some(10));
        for (share, seconds) in [(0.0, 10), (0.99, 10), (1.0, 10), (0.5, 1)] {
            assert_eq!(forecast(share, Duration::from_secs(seconds)), None, "{share}");
        }
    }

    /// A file whose bytes still come is shown, though other threads have begun later ones.
    #[test]
    fn the_large_file_is_shown() {
        let reporter = programs();
        reporter.file(Path::new("/large"));
        std::thread::scope(|scope| drop(scope.spawn(|| reporter.file(Path::new("/small")))));
        reporter.next.store(0, Relaxed);
        reporter.bytes(1);
        assert_eq!(reporter.now().file, b"/large");
    }

    #[test]
    fn speaks_at_most_once_in_a_while() {
        let reporter = Reporter::new("test", Output { json: true, ..Output::default() });
        assert!(reporter.is_due());
        assert!(!reporter.is_due());
        let silent = Reporter::new("test", Output { quiet: true, ..Output::default() });
        assert!(!silent.is_due());
    }
}
