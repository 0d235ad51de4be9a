//! `firn mount`: snapshots as folders. Not for: how they are served (see `crate::mount`), or ending it (see `umount`).

pub(in crate::cli) mod helper;
pub(in crate::cli) mod layout;

use crate::cli::args::amount;
use crate::cli::command::mount::layout::LayoutArgs;
use crate::cli::context::Context;
use crate::cli::output::message;
use crate::cli::output::progress::Reporter;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::mount::indexers::Policy;
use crate::mount::xattrs::Answered;
use crate::mount::{MountOptions, OwnerView, What};
use crate::os::{Background, Forked, Outcome, Readiness};
use crate::progress::Progress;
use crate::repository::Repository;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Mount the snapshots as folders, to look into and copy from
///
/// Below the folder appear "latest", "snapshots/TIME", "hosts/HOST/TIME", "tags/TAG/TIME" and "ids/ID", "versions/PATH" with every
/// version of a path, and "deleted" with the last version of what is gone; with a snapshot, just what is in it. New snapshots appear while it is mounted. Nothing can be changed through it. Ctrl-C, "firn umount" or
/// "fusermount3 -u" end it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An empty folder to mount on
    #[arg(value_name = "FOLDER", value_hint = clap::ValueHint::DirPath, required_unless_present = "samba_help")]
    mountpoint: Option<PathBuf>,

    /// Show only this snapshot, or a folder in it
    #[arg(value_name = "SNAPSHOT[:/PATH]", conflicts_with_all = ["root", "layout", "path_template", "time_template"])]
    address: Option<OsString>,

    #[command(flatten)]
    layout: LayoutArgs,

    /// Who owns the files
    #[arg(long, value_name = "WHO", value_enum, default_value_t = Owner::Original)]
    owner: Owner,

    /// Let other users look at the mount as well, as far as the permissions of the files let them
    #[arg(long)]
    allow_other: bool,

    /// Look for new snapshots every SECONDS; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    refresh: u32,

    /// End when nothing was asked for that long and nothing is open
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    idle_exit: Option<Duration>,

    /// What thumbnailers and search indexes get of the contents of files
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Indexers::Cache)]
    indexers: Indexers,

    /// Where to answer what firn knows of a file as extended attributes, "user.firn.*"
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = Known::Auto)]
    xattrs: Known,

    /// Let no program be started from the mount
    #[arg(long)]
    noexec: bool,

    /// Return once it is mounted, and serve it in the background
    #[arg(short, long)]
    daemon: bool,

    /// Print what smb.conf needs for "Previous Versions" in Windows, and do nothing else
    #[arg(long, conflicts_with_all = ["address", "daemon"])]
    samba_help: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Owner {
    /// Whoever owned them when they were backed up
    Original,
    /// You
    Me,
    /// Root
    Root,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Known {
    /// By name, if any file that is shown has extended attributes
    Auto,
    /// By name, in every mount
    Named,
    /// In every mount, and in lists: programs show it, compare it and copy it with a file
    Listed,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Indexers {
    /// Nothing
    Deny,
    /// What is in memory already
    Cache,
    /// All they want
    Allow,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        if self.samba_help {
            return context.print(&self.layout.samba_help(self.mountpoint.as_deref())?).map(|()| 0);
        }
        let mountpoint = self.mountpoint.as_deref().unwrap_or(Path::new(""));
        // All questions come before the process leaves the terminal, and no thread is started until then.
        let repository = context.open()?;
        let options = self.options(context, &repository, mountpoint)?;
        let is_made = make_mountpoint(&options.mountpoint)?;
        // Obstacles are better told before a process goes into the background than by it.
        let prepared = crate::mount::prepare(&repository, &options, &Reporter::without_bar("mount", context.output));
        if prepared.is_err() && is_made {
            drop(std::fs::remove_dir(&options.mountpoint));
        }
        prepared?;
        if self.address.is_none() {
            self.tell_what_is_there(context, &repository)?;
        }
        if !self.daemon {
            let told = || drop(greet(context, mountpoint, "Ctrl-C or "));
            return serve(context, repository, &options, told);
        }
        let failed = |error| Error::io("The mount cannot go into the background", error);
        match crate::os::fork_into_background().map_err(failed)? {
            Forked::Parent(background) => {
                // What is open belongs to the other process now; above all it shall not lose a temporary cache.
                std::mem::forget(repository);
                wait(context, background, mountpoint)
            }
            Forked::Child(readiness) => Ok(in_background(context, repository, &options, readiness)),
        }
    }

    /// A mount in which nothing is may be what is wanted, as the first snapshot will appear in it; or a name is misspelt. Of several
    /// hosts "latest" is that of one.
    fn tell_what_is_there(&self, context: &Context, repository: &Repository) -> Result<()> {
        let filter = self.layout.selection.filter()?;
        let snapshots = repository.snapshots()?;
        if snapshots.live.iter().any(|named| filter.wants(&named.snapshot)) {
            if let Some(note) = self.layout.whose_latest(&snapshots, &filter)? {
                context.progress("mount").note(&note);
            }
            return Ok(());
        }
        let message = match filter.is_empty() {
            true => "The repository holds no snapshot, so the mount shows none".to_owned(),
            false => format!("There is no snapshot with {}, so the mount shows none", filter.words()),
        };
        let hint = match self.refresh {
            0 => "Mount again when there is one.",
            _ => "One that is made later appears by itself.",
        };
        message::warning(&Error::new(ErrorKind::NotFound, message).with_hint(hint), "mount", context.output.json);
        Ok(())
    }

    fn options(&self, context: &Context, repository: &Repository, mountpoint: &Path) -> Result<MountOptions> {
        let shown = mountpoint.display();
        let mountpoint = std::path::absolute(mountpoint)
            .map_err(|error| Error::io(format!("The full path of \"{shown}\" cannot be found"), error))?;
        let what = match &self.address {
            None => What::All(Box::new(self.layout.layout()?)),
            Some(address) => {
                let (snapshot, path) = context.resolve(repository, address, &self.layout.selection)?;
                What::One { snapshot: Box::new(snapshot), path }
            }
        };
        Ok(MountOptions {
            what,
            owner: match self.owner {
                Owner::Original => OwnerView::Original,
                Owner::Me => OwnerView::Me,
                Owner::Root => OwnerView::Root,
            },
            allow_other: self.allow_other,
            refresh: Duration::from_secs(self.refresh.into()),
            threads: context.threads,
            indexers: match self.indexers {
                Indexers::Deny => Policy::Deny,
                Indexers::Cache => Policy::Cache,
                Indexers::Allow => Policy::Allow,
            },
            known: match self.xattrs {
                Known::Auto => Answered::Auto,
                Known::Named => Answered::Named,
                Known::Listed => Answered::Listed,
            },
            no_exec: self.noexec,
            idle_exit: self.idle_exit.unwrap_or_default(),
            ..MountOptions::new(mountpoint)
        })
    }
}

/// Makes the folder to mount on, in a folder that exists. Returns whether it was missing.
fn make_mountpoint(point: &Path) -> Result<bool> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(point) {
        Ok(()) => Ok(true),
        // A dead mount, a file, or one that may not be seen: what stands in the way is told when it is looked into.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        // The folder above is missing as well, which looks like a mistake; that is told there, too.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(_) if point.symlink_metadata().is_ok() => Ok(false),
        Err(error) => Err(Error::io(format!("The mountpoint \"{}\" cannot be made", point.display()), error)),
    }
}

fn greet(context: &Context, point: &Path, how: &str) -> Result<()> {
    let text = welcome(point, how);
    match context.output.json {
        true => {
            context.progress("mount").note(text.lines().next().unwrap_or_default());
            Ok(())
        }
        false => context.tell(&text),
    }
}

fn welcome(point: &Path, how: &str) -> String {
    let (shown, word) = (text::line(&point.display().to_string()), text::shell(point));
    format!("Mounted on \"{shown}\"\nEnd it with {how}\"firn umount {word}\"\n")
}

fn serve(
    context: &Context,
    repository: Arc<Repository>,
    options: &MountOptions,
    mut ready: impl FnMut(),
) -> Result<u8> {
    crate::cli::context::signals::watch_with(context.stop.clone(), Some(options.detach.clone()))?;
    let progress = Reporter::without_bar("mount", context.output);
    crate::mount::run(repository, options, &progress, &context.stop, &mut ready)?;
    Ok(0)
}

/// The work of the process in the background. Its errors reach the terminal through the process that waits, until it is
/// ready; afterwards nobody is there to be told.
fn in_background(context: &Context, repository: Arc<Repository>, options: &MountOptions, readiness: Readiness) -> u8 {
    let mut readiness = Some(readiness);
    let served = serve(context, repository, options, || {
        if let Some(readiness) = readiness.take() {
            // Without /dev/null the streams stay as they are, which does no harm.
            drop(readiness.ready());
        }
    });
    match served {
        Ok(code) => code,
        Err(error) => {
            let code = message::exit_code(&error, &context.stop);
            if let Some(readiness) = readiness {
                drop(readiness.failed(code, &message::fatal_text(&error, code, context.output.json)));
            }
            code
        }
    }
}

/// The work of the process that was started: it passes on how it went.
fn wait(context: &Context, background: Background, point: &Path) -> Result<u8> {
    match background.wait().map_err(|error| Error::io("The process in the background gives no word", error))? {
        Outcome::Ready => {
            greet(context, point, "")?;
            Ok(0)
        }
        Outcome::Failed(code, text) => {
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            Ok(code)
        }
        Outcome::Died => Err(Error::new(ErrorKind::Failed, "The process in the background ended without a word")
            .with_hint("Mount without --daemon to see what happens.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_from_the_background_is_passed_on() {
        let text = welcome(Path::new("/mnt/past"), "Ctrl-C or ");
        assert_eq!(text, "Mounted on \"/mnt/past\"\nEnd it with Ctrl-C or \"firn umount /mnt/past\"\n");
    }

    #[test]
    fn the_end_can_be_pasted_into_a_shell() {
        for (path, word) in [("a b", "'a b'"), ("it's", r"'it'\''s'"), ("-z", "./-z"), ("~", "'~'"), ("a;b", "'a;b'")] {
            let text = welcome(Path::new(path), "");
            assert_eq!(text, format!("Mounted on \"{path}\"\nEnd it with \"firn umount {word}\"\n"));
        }
    }
}
