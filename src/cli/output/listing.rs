//! The lists of files that `backup` and `restore` print with `--verbose` and `--dry-run`. Not for: bars and messages (see `progress`).

use crate::cli::context::Context;
use crate::cli::output::progress::Reporter;
use crate::cli::output::text;
use crate::error::Error;
use crate::progress::{Compared, Placed, Progress};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Lists files beside what a reporter does.
pub(in crate::cli) struct Listing {
    reporter: Reporter,
    json: bool,
    verbose: bool,
    dry_run: bool,
}

impl Listing {
    /// For one command; a dry run lists what it would do.
    pub(in crate::cli) fn new(context: &Context, command: &'static str, dry_run: bool) -> Listing {
        let (json, verbose) = (context.output.json, context.output.verbose);
        Listing { reporter: context.progress(command), json, verbose, dry_run }
    }

    /// Nothing more follows.
    pub(in crate::cli) fn finish(&self) {
        self.reporter.finish();
    }

    /// One file. Those with which nothing happens are listed only if everything is.
    fn list(&self, path: &Path, size: u64, word: &str, happens: bool) {
        if !(self.verbose || self.dry_run && happens) {
            return;
        }
        let bytes = path.as_os_str().as_bytes();
        match self.json {
            true => {
                let mut value = json!({ "message_type": "verbose_status", "action": word, "size": size });
                text::set_path(&mut value, "path", bytes);
                self.reporter.line(value.to_string().as_bytes());
            }
            false => self.reporter.line(&[format!("{word:<10} ").as_bytes(), bytes].concat()),
        }
    }
}

impl Progress for Listing {
    fn stage(&self, name: &str) {
        self.reporter.stage(name);
    }
    fn expect(&self, files: u64, bytes: u64) {
        self.reporter.expect(files, bytes);
    }
    fn bytes(&self, bytes: u64) {
        self.reporter.bytes(bytes);
    }
    fn file(&self, path: &Path) {
        self.reporter.file(path);
    }
    fn files(&self, files: u64) {
        self.reporter.files(files);
    }
    fn issue(&self, path: &Path, error: &Error) {
        self.reporter.issue(path, error);
    }
    fn note(&self, message: &str) {
        self.reporter.note(message);
    }
    fn compared(&self, path: &Path, size: u64, found: Compared) {
        let word = match found {
            Compared::New => "new",
            Compared::Changed => "changed",
            Compared::Unchanged => "unchanged",
        };
        self.list(path, size, word, found != Compared::Unchanged);
    }
    fn placed(&self, path: &Path, size: u64, how: Placed) {
        let word = match how {
            Placed::New => "new",
            Placed::Replaced if self.dry_run && !self.json => "replace",
            Placed::Replaced => "replaced",
            Placed::Left => "left",
        };
        self.list(path, size, word, how != Placed::Left);
    }
}
