//! `firn umount`: ends a mount. Not for: what the mount does then (see `mount`).

use super::context::Context;
use crate::error::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::process::{Command, Stdio};

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
        let shown = self.mountpoint.display();
        let mut reasons = Vec::new();
        // umount is for the administrator on a machine without FUSE's helpers.
        for (program, end, lazy) in [("fusermount3", "-u", "-z"), ("fusermount", "-u", "-z"), ("umount", "", "-l")] {
            let mut command = Command::new(program);
            command.args(Some(end).filter(|end| !end.is_empty())).args(self.lazy.then_some(lazy));
            match command.arg("--").arg(&self.mountpoint).stdin(Stdio::null()).output() {
                Ok(output) if output.status.success() => return Ok(0),
                Ok(output) => reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => reasons.push(format!("{program}: {error}")),
            }
            // The first helper that exists knows best why it does not work.
            if reasons.len() == 1 && !reasons[0].contains("os error 2") {
                break;
            }
        }
        let why = reasons.join("; ");
        let error =
            Error::new(ErrorKind::Failed, format!("\"{shown}\" could not be unmounted")).with_source(why.clone());
        Err(match why.contains("busy") {
            true => error.with_kind(ErrorKind::InUse).with_hint(
                "Something still uses it: a shell that stands in it, or an open file. Close it, or use --lazy.",
            ),
            false => error,
        })
    }
}
