//! Signals become a wish to stop. Not for: what stopping means (each operation looks at `Stop`).

use crate::error::{Error, Result};
use crate::progress::Stop;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;

/// Starts a thread that turns SIGINT, SIGTERM and SIGHUP into `stop`. A second SIGINT ends the process at once, with 130.
///
/// A signal that is ignored stays ignored: `nohup` relies on it.
pub(crate) fn watch(stop: Arc<Stop>) -> Result<()> {
    watch_with(stop, None)
}

/// As `watch`, but what comes after the first signal triggers `harder`; only a third SIGINT ends the process at once.
pub(crate) fn watch_with(stop: Arc<Stop>, harder: Option<Arc<Stop>>) -> Result<()> {
    let failed = |error| Error::io("Signals cannot be received", error);
    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted).map_err(failed)?;
    let work = move || {
        for signal in signals.forever() {
            match (stop.signal(), &harder) {
                (None, _) => stop.trigger(signal as u8),
                (Some(_), Some(harder)) if harder.signal().is_none() => harder.trigger(signal as u8),
                _ if signal == SIGINT => std::process::exit(128 + SIGINT),
                _ => {}
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(work).map(drop).map_err(failed)
}

/// One bit for each signal that this process was started to ignore.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_ignored_and_seen_as_such() {
        // The Rust runtime ignores SIGPIPE before `main`.
        assert_eq!(ignored_signals() >> (libc::SIGPIPE - 1) & 1, 1);
        assert_eq!(ignored_signals() >> (libc::SIGSEGV - 1) & 1, 0);
    }
}
