//! `firn dump`: the bytes of one file. Not for: folders (see `restore` and `mount`).

use crate::cli::args::select::Selection;
use crate::cli::context::{Context, join_address};
use crate::cli::output::message::output_failed;
use crate::cli::output::progress::Reporter;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Body, Content};
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::restore::partial::Names;
use crate::view::content::{Sink, copy};
use crate::view::path::find;
use std::ffi::OsString;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Write the content of one file in a snapshot to standard output
#[derive(Debug, clap::Args)]
#[command(visible_alias = "cat")]
pub(crate) struct Args {
    /// The snapshot and the file in it
    #[arg(value_name = "SNAPSHOT:/PATH")]
    address: OsString,

    /// The path, if it does not stand behind the snapshot
    #[arg(value_name = "PATH")]
    path: Option<OsString>,

    /// Write to FILE, which appears only when it is complete; "-" is standard output
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,

    #[command(flatten)]
    selection: Selection,
}

/// Ends the copy when somebody asks for it.
struct Stoppable<'a, W> {
    out: W,
    stop: &'a Stop,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stop.check().map_err(std::io::Error::other)?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Sink for Stoppable<'_, W> {}

/// A new regular file, in which holes stay holes: a file of a few bytes may have terabytes of them.
struct Sparse<'a>(Stoppable<'a, &'a std::fs::File>);

impl Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Sparse<'_> {
    fn zeros(&mut self, length: u64) -> std::io::Result<()> {
        let length = i64::try_from(length).map_err(std::io::Error::other)?;
        self.0.out.seek(SeekFrom::Current(length)).map(drop)
    }
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        self.check_is_a_file()?;
        let address = join_address(&self.address, self.path.as_deref())?;
        let repository = context.open()?;
        let (named, path) = context.resolve(&repository, &address, &self.selection)?;
        context.watch_signals()?;
        let entry = find(&repository, &named.snapshot, &path)?;
        let shown = text::escape(&path);
        let Body::File { size, content } = &entry.body else {
            return Err(refuse(&entry.body, &shown, &named.name.short()));
        };
        let told = match entry.meta.unreliable {
            true if path.ends_with(crate::repair::DAMAGED_SUFFIX.as_bytes()) => {
                "is what a repair has left of a file: zeros stand where bytes are lost"
            }
            true => "changed while it was read: it may be a mixture of two states",
            false => "",
        };
        let stop = &*context.stop;
        let copied = match self.output.as_deref().filter(|target| *target != Path::new("-")) {
            None => to_stdout(&repository, *size, content, stop),
            Some(target) => {
                remove_stale(target, &Reporter::without_bar("dump", context.output))?;
                to_file(&repository, *size, content, entry.meta.mode, target, stop)
            }
        };
        if let Err(error) = copied {
            stop.check()?;
            return Err(error.context(format!("\"{shown}\" was not written completely")));
        }
        if !told.is_empty() {
            let error = Error::new(ErrorKind::Incomplete, format!("\"{shown}\" {told}"));
            crate::cli::output::message::warning(&error, "dump", context.output.json);
        }
        Ok(0)
    }
}

/// What restic's "cat" prints.
const OBJECTS: &[&str] = &["blob", "config", "index", "key", "lock", "masterkey", "pack", "snapshot", "tree"];

impl Args {
    /// An error for those who want to see the repository's own objects.
    fn check_is_a_file(&self) -> Result<()> {
        match OBJECTS.iter().find(|object| self.address == **object) {
            None => Ok(()),
            Some(object) => Err(Error::new(ErrorKind::Input, format!("\"{object}\" names no file in a snapshot")).with_hint(
                "Objects of the repository are not printed: \"firn stats\", \"firn snapshots --json\" and \"firn key list\" tell what is in them.",
            )),
        }
    }
}

fn refuse(body: &Body, shown: &str, snapshot: &str) -> Error {
    match body {
        Body::Directory { .. } => Error::new(ErrorKind::Input, format!("\"{shown}/\" is a folder")).with_hint(format!(
            "\"firn restore {} -t FOLDER\" copies it out, \"firn mount\" lets you look into it.",
            text::shell(Path::new(&format!("{snapshot}:{shown}/")))
        )),
        Body::Symlink(target) => Error::new(ErrorKind::Input, format!("\"{shown}\" is a symbolic link"))
            .with_hint(format!("It points to \"{}\".", text::escape(target))),
        _ => Error::new(ErrorKind::Input, format!("\"{shown}\" is not a regular file and has no content")),
    }
}

fn to_stdout(repository: &Repository, size: u64, content: &Content, stop: &Stop) -> Result<()> {
    let mut out = Stoppable { out: std::io::stdout().lock(), stop };
    copy(repository, size, content, &mut out)?;
    out.flush().map_err(output_failed)
}

/// Removes what killed dumps into the same folder have left.
fn remove_stale(target: &Path, progress: &dyn Progress) -> Result<()> {
    if std::fs::metadata(target).is_ok_and(|there| !there.is_file()) {
        return Ok(());
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Why it cannot be opened is said when the file is made.
    let Ok(opened) = std::fs::File::open(folder) else { return Ok(()) };
    Names::new()?.remove_stale(&opened.into(), &mut |name| {
        let left = target.with_file_name(std::ffi::OsStr::from_bytes(name));
        progress.note(&format!("Removed \"{}\", which an earlier dump or restore left unfinished", left.display()));
    });
    Ok(())
}

/// Through a temporary file beside it, unless `target` is something special like a pipe. Until it is complete nobody else
/// may read it; then it gets the rights of the file that it replaces, or those of the file in the snapshot (`mode`).
fn to_file(repository: &Repository, size: u64, content: &Content, mode: u16, target: &Path, stop: &Stop) -> Result<()> {
    let shown = target.display().to_string();
    let failed = |error| Error::io(format!("\"{shown}\" cannot be written"), error);
    let mode = match std::fs::metadata(target) {
        Ok(there) if there.is_dir() => {
            return Err(Error::new(ErrorKind::Input, format!("\"{shown}\" is a folder; name a file")));
        }
        Ok(there) if !there.is_file() => {
            let out = std::fs::OpenOptions::new().write(true).open(target).map_err(failed)?;
            return copy(repository, size, content, &mut Stoppable { out, stop });
        }
        Ok(there) => there.permissions().mode() & 0o777,
        Err(_) => u32::from(mode) & 0o666 & !crate::os::umask(),
    };
    if target.file_name().is_none() {
        return Err(Error::new(ErrorKind::Input, format!("\"{shown}\" is no file name")));
    }
    let names = Names::new()?;
    let temporary = target.with_file_name(std::ffi::OsStr::from_bytes(&names.next()));
    let write = || -> Result<()> {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let file = file.map_err(failed)?;
        copy(repository, size, content, &mut Sparse(Stoppable { out: &file, stop }))?;
        file.set_len(size).map_err(failed)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        // What is replaced goes only once this is on the disk.
        file.sync_all().map_err(failed)?;
        std::fs::rename(&temporary, target).map_err(failed)
    };
    let written = write();
    if written.is_err() {
        // The error that counts is the one before.
        drop(std::fs::remove_file(&temporary));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_gets_a_useful_answer() {
        let page = crate::id::ChunkId([0; 32]);
        let folder = Body::Directory { size: 0, page, totals: Default::default() };
        assert!(refuse(&folder, "/d", "12").hint().unwrap().contains("firn restore 12:/d/ -t"));
        assert!(refuse(&folder, "/a b", "12").hint().unwrap().contains("firn restore '12:/a b/' -t"));
        assert!(refuse(&Body::Symlink(b"\x1b".to_vec()), "/l", "12").hint().unwrap().contains("\"\\x1b\""));
        assert_eq!(refuse(&Body::Fifo, "/f", "12").kind(), ErrorKind::Input);
    }

    #[test]
    fn secrets_stay_secret() {
        let repository = crate::check::fixture::open(std::sync::Arc::new(crate::check::fixture::repository().0));
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let content = Content::Inline(b"secret".to_vec());
        let write = |mode| to_file(&repository, 6, &content, mode, &target, &Stop::new()).unwrap();
        let mode = || std::fs::metadata(&target).unwrap().permissions().mode() & 0o7777;
        write(0o600);
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o640)).unwrap();
        write(0o600);
        assert_eq!(mode(), 0o640, "that of the file before");
        std::fs::remove_file(&target).unwrap();
        write(0o4777);
        assert_eq!(mode(), 0o666 & !crate::os::umask());
        assert_eq!(std::fs::read(&target).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // Incomplete, and gone.
        let stopped = Stop::new();
        stopped.trigger(2);
        assert!(to_file(&repository, 6, &content, 0o644, &dir.path().join("g"), &stopped).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_copy_can_be_stopped() {
        let stop = Stop::new();
        let mut out = Stoppable { out: Vec::new(), stop: &stop };
        out.write_all(b"a").unwrap();
        stop.trigger(2);
        assert!(out.write_all(b"b").is_err());
    }
}
