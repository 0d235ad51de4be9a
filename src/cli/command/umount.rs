//! `firn umount`: ends a mount. Not for: what the mount does then (see `mount`).

use crate::cli::context::Context;
use crate::cli::output::text::line;
use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A mount that is busy may be so for a moment only: a file that was just closed.
const BUSY: Duration = Duration::from_secs(2);
/// The program that served the mount has this long to end.
const ENDING: Duration = Duration::from_secs(30);
/// Between two looks.
const TICK: Duration = Duration::from_millis(50);

/// End a mount
#[derive(Debug, clap::Args)]
#[command(visible_alias = "unmount")]
pub(crate) struct Args {
    /// The folder on which snapshots are mounted
    #[arg(value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    mountpoint: PathBuf,

    /// Take it out of sight now and end it when nobody uses it any more
    #[arg(short = 'z', long)]
    lazy: bool,
}

impl Args {
    pub(crate) fn run(self, _context: &Context) -> Result<u8> {
        let shown = line(&self.mountpoint.display().to_string());
        let failed = |error| Error::io(format!("\"{shown}\" could not be unmounted"), error);
        let Some(mount) = crate::mount::mount_at(&self.mountpoint).map_err(failed)? else {
            return Err(Error::new(
                ErrorKind::Input,
                format!("\"{shown}\" could not be unmounted: no firn mount is there"),
            )
            .with_hint("\"findmnt --type fuse.firn\" lists all of them."));
        };
        let begun = Instant::now();
        while let Err(why) = end(&self.mountpoint, self.lazy) {
            let is_busy = why.contains("busy");
            if is_busy && begun.elapsed() < BUSY {
                std::thread::sleep(TICK);
                continue;
            }
            let error = Error::new(ErrorKind::Failed, format!("\"{shown}\" could not be unmounted"));
            let error = error.with_source(format!("\"{}\"", line(&why)));
            return Err(match is_busy {
                true => error.with_kind(ErrorKind::InUse).with_hint(
                    "Something still uses it: a shell that stands in it, or an open file. Close it, or use --lazy.",
                ),
                false => error,
            });
        }
        // Until then the repository is in use, and so is the disk that it is on.
        let begun = Instant::now();
        while !self.lazy && mount.is_served() && begun.elapsed() < ENDING {
            std::thread::sleep(TICK);
        }
        if !self.lazy && mount.is_served() {
            let message = format!("\"{shown}\" is unmounted, but the program that served it has not ended");
            return Err(Error::new(ErrorKind::InUse, message)
                .with_hint("It may still read from the repository, so do not unplug that disk yet."));
        }
        // Its last files are closed together with what told that it lives.
        std::thread::sleep(TICK);
        Ok(0)
    }
}

/// Unmounts with the first helper that there is; what it printed if it did not work.
fn end(mountpoint: &Path, is_lazy: bool) -> std::result::Result<(), String> {
    let mut reasons = Vec::new();
    // umount is for the administrator on a machine without FUSE's helpers.
    for (program, end, lazy) in [("fusermount3", "-u", "-z"), ("fusermount", "-u", "-z"), ("umount", "", "-l")] {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        command.args(Some(end).filter(|end| !end.is_empty())).args(is_lazy.then_some(lazy));
        match command.arg("--").arg(mountpoint).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(()),
            // The first helper that exists knows best why it does not work.
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => reasons.push(format!("{program}: {error}")),
        }
    }
    Err(reasons.join("; "))
}
