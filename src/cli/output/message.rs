//! What is said about errors, to people (`Error:`, `Caused by:`, `Hint:`) and to programs. Not for: results of commands.
//!
//! A message that cannot be written is dropped: there is nobody left to tell.

use crate::cli::output::text::{line, set_path};
use crate::error::{Error, ErrorKind};
use crate::progress::Stop;
use serde_json::json;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// The exit code of a run that ended with `error`. A signal's number counts from 128, as in a shell.
pub(crate) fn exit_code(error: &Error, stop: &Stop) -> u8 {
    match (error.kind(), stop.signal()) {
        (ErrorKind::Interrupted, Some(signal)) => 128 + signal,
        _ if is_broken_pipe(error) => 128 + libc::SIGPIPE as u8,
        (kind, _) => kind.exit_code(),
    }
}

/// Whether nobody reads our output any more, which ends a program quietly.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    error.raw_os_error() == Some(libc::EPIPE)
}

/// Tells about the error that ended the run.
pub(crate) fn fatal(error: &Error, code: u8, as_json: bool) {
    aside(&fatal_text(error, code, as_json));
}

/// Writes to standard error.
pub(crate) fn aside(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// What is to be said about the error that ended the run.
pub(crate) fn fatal_text(error: &Error, code: u8, as_json: bool) -> String {
    match as_json {
        true => {
            let value = json!({
                "message_type": "exit_error", "code": code, "message": error.chain(), "hint": error.hint(),
            });
            format!("{value}\n")
        }
        false => describe("Error", error),
    }
}

/// Tells about something that deserves attention and neither ended the run nor changes its exit status.
pub(crate) fn warning(error: &Error, during: &str, as_json: bool) {
    let text = match as_json {
        true => {
            let value = json!({
                "message_type": "warning", "message": error.chain(), "during": during, "hint": error.hint(),
            });
            format!("{value}\n")
        }
        false => describe("Warning", error),
    };
    aside(&text);
}

/// Tells that one thing of several failed, which the exit status will say; the others go on.
pub(crate) fn failure(error: &Error, during: &str, item: &str, as_json: bool) {
    aside(&if as_json { issue_json(error, during, item) } else { describe("Error", error) });
}

/// A line for programs about one thing that went wrong.
pub(crate) fn issue_json(error: &Error, during: &str, item: impl AsRef<OsStr>) -> String {
    let mut value = json!({
        "message_type": "error",
        "error": { "message": error.chain() },
        "during": during,
        "hint": error.hint(),
    });
    set_path(&mut value, "item", item.as_ref().as_bytes());
    format!("{value}\n")
}

/// The error, its causes and what to do next, for people.
pub(crate) fn describe(word: &str, error: &Error) -> String {
    let mut text = format!("{word}: {}\n", line(&error.to_string()));
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(line(&cause.to_string()));
        next = cause.source();
    }
    match &causes[..] {
        [] => {}
        [cause] => text.push_str(&format!("Caused by: {cause}\n")),
        causes => {
            text.push_str("Caused by:\n");
            causes.iter().enumerate().for_each(|(at, cause)| text.push_str(&format!("{:>3}: {cause}\n", at + 1)));
        }
    }
    if let Some(hint) = error.hint() {
        // Lists of candidates have a line each.
        let lines: Vec<String> = hint.lines().map(line).collect();
        text.push_str(&format!("Hint: {}\n", lines.join("\n      ")));
    }
    text
}

/// The error of a failed write to standard output.
pub(crate) fn output_failed(error: std::io::Error) -> Error {
    Error::io("The output could not be written", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_for_people() {
        let inner = Error::io("\"/x\x1b[0m\" cannot be read", std::io::Error::from_raw_os_error(libc::EACCES));
        let error = inner.with_hint("Try\nthis").context("Nothing works");
        assert_eq!(
            describe("Error", &error),
            "Error: Nothing works\nCaused by:\n  1: \"/x\\x1b[0m\" cannot be read\n  2: Permission denied (os error 13)\n\
             Hint: Try\n      this\n"
        );
        assert_eq!(describe("Warning", &Error::new(ErrorKind::Failed, "Odd")), "Warning: Odd\n");
    }

    #[test]
    fn codes() {
        let (calm, stop) = (Stop::new(), Stop::new());
        stop.trigger(15);
        assert_eq!(exit_code(&Error::new(ErrorKind::Interrupted, ""), &stop), 143);
        assert_eq!(exit_code(&Error::new(ErrorKind::WrongKey, ""), &calm), 12);
        assert_eq!(exit_code(&Error::new(ErrorKind::Full, ""), &stop), 14);
        let pipe = output_failed(std::io::Error::from_raw_os_error(libc::EPIPE));
        assert_eq!(exit_code(&pipe, &calm), 141);
    }
}
