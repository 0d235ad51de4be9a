//! How a running operation shows: a bar on a terminal, lines for programs and logs, or nothing. Not for: results.

use super::global::Global;
use super::message::issue_json;
use super::text;
use crate::error::Error;
use crate::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
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
    has_total: AtomicBool,
    now: Mutex<Now>,
    /// What was said already; hints are few, fixed sentences.
    hints: Mutex<std::collections::BTreeSet<String>>,
}

#[derive(Default)]
struct Now {
    stage: String,
    file: Vec<u8>,
}

impl Reporter {
    /// A reporter for the operation `during` that speaks as the options say.
    pub(crate) fn new(during: &'static str, global: &Global) -> Reporter {
        let voice = match () {
            () if global.quiet => Voice::Silent,
            () if global.json => Voice::Json,
            () if std::io::stderr().is_terminal() => Voice::Bar(bar()),
            () if global.verbose => Voice::Lines,
            () => Voice::Silent,
        };
        Reporter::with_voice(during, global, voice)
    }

    /// A reporter that passes on notes and issues only, and starts no thread: for what runs until it is ended.
    pub(crate) fn without_bar(during: &'static str, global: &Global) -> Reporter {
        Reporter::with_voice(during, global, Voice::Silent)
    }

    fn with_voice(during: &'static str, global: &Global, voice: Voice) -> Reporter {
        Reporter {
            during,
            voice,
            quiet: global.quiet,
            json: global.json,
            started: Instant::now(),
            next: AtomicU64::new(0),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total_files: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            issues: AtomicU64::new(0),
            has_total: AtomicBool::new(false),
            now: Mutex::new(Now { stage: during.to_owned(), file: Vec::new() }),
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

    fn speak_if_due(&self) {
        if self.is_due() {
            self.speak();
        }
    }

    fn speak(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.voice {
            Voice::Silent => {}
            Voice::Bar(bar) => {
                bar.set_prefix(format!("{}: {}", now.stage, self.file_count()));
                bar.set_message(text::escape(&now.file));
            }
            Voice::Lines => {
                let bytes = match self.total_bytes.load(Relaxed) {
                    0 => text::size(self.bytes.load(Relaxed)),
                    total => format!("{} of {}", text::size(self.bytes.load(Relaxed)), text::size(total)),
                };
                let elapsed = text::duration(self.started.elapsed());
                let line = format!("{}: {}, {bytes}, {elapsed}\n", now.stage, self.file_count());
                drop(std::io::stderr().lock().write_all(line.as_bytes()));
            }
            Voice::Json => {
                let line = format!("{}\n", self.status(&now));
                // Not worth ending a backup for: the results tell whether anybody listens.
                let mut out = std::io::stdout().lock();
                drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
            }
        }
    }

    fn file_count(&self) -> String {
        let files = self.files.load(Relaxed);
        match self.total_files.load(Relaxed) {
            0 => text::count(files, "file", "files"),
            total => format!("{files} of {}", text::count(total, "file", "files")),
        }
    }

    fn status(&self, now: &Now) -> serde_json::Value {
        let (bytes, total_bytes) = (self.bytes.load(Relaxed), self.total_bytes.load(Relaxed));
        let (files, total_files) = (self.files.load(Relaxed), self.total_files.load(Relaxed));
        let percent_done = match (total_bytes, total_files) {
            (0, 0) => 0.0,
            (0, total) => files as f64 / total as f64,
            (total, _) => bytes as f64 / total as f64,
        };
        let elapsed = self.started.elapsed().as_secs_f64();
        let remaining = (percent_done > 0.0).then(|| (elapsed / percent_done - elapsed).max(0.0) as u64);
        json!({
            "message_type": "status",
            "action": now.stage,
            "percent_done": percent_done.min(1.0),
            "total_files": total_files,
            "files_done": files,
            "total_bytes": total_bytes,
            "bytes_done": bytes,
            "error_count": self.issues.load(Relaxed),
            "seconds_elapsed": elapsed as u64,
            "seconds_remaining": remaining,
            "current_files": match now.file.is_empty() {
                true => Vec::new(),
                false => vec![String::from_utf8_lossy(&now.file)],
            },
        })
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

impl Progress for Reporter {
    fn stage(&self, name: &str) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).stage = name.to_owned();
        // A stage that is over in no time needs no line in a log.
        match self.voice {
            Voice::Bar(_) => self.speak(),
            _ => self.speak_if_due(),
        }
    }

    fn expect(&self, files: u64, bytes: u64) {
        self.total_files.fetch_add(files, Relaxed);
        self.total_bytes.fetch_add(bytes, Relaxed);
        if let Voice::Bar(bar) = &self.voice
            && bytes > 0
        {
            if !self.has_total.swap(true, Relaxed) {
                bar.set_style(with_total());
            }
            bar.set_length(self.total_bytes.load(Relaxed));
        }
        self.speak_if_due();
    }

    fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        if let Voice::Bar(bar) = &self.voice {
            bar.inc(bytes);
        }
        self.speak_if_due();
    }

    fn file(&self, path: &Path) {
        if self.is_due() {
            self.now.lock().unwrap_or_else(PoisonError::into_inner).file = path.as_os_str().as_bytes().to_vec();
            self.speak();
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
            true => issue_json(error, self.during, &shown),
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

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(style("{spinner} {prefix}, {binary_bytes}, {binary_bytes_per_sec}, {elapsed}\n  {wide_msg}"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn with_total() -> ProgressStyle {
    style(
        "{spinner} {prefix}, {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left\n\
         {bar:24} {percent}%  {wide_msg}",
    )
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid_and_a_status_adds_up() {
        drop((bar(), with_total()));
        let reporter = Reporter::new("test", &Global { json: true, ..Global::default() });
        reporter.next.store(u64::MAX, Relaxed);
        reporter.expect(4, 100);
        reporter.bytes(50);
        reporter.files(1);
        let now = Now { stage: "working".into(), file: b"/a\xff".to_vec() };
        let status = reporter.status(&now);
        assert_eq!(status["percent_done"], 0.5);
        assert_eq!((&status["files_done"], &status["total_files"]), (&json!(1), &json!(4)));
        assert_eq!(status["current_files"][0], "/a\u{fffd}");
    }

    #[test]
    fn speaks_at_most_once_in_a_while() {
        let reporter = Reporter::new("test", &Global { json: true, ..Global::default() });
        assert!(reporter.is_due());
        assert!(!reporter.is_due());
        let silent = Reporter::new("test", &Global { quiet: true, ..Global::default() });
        assert!(!silent.is_due());
    }
}
