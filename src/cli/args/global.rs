//! Options that every command takes, and the environment behind them. Not for: asking for passwords (see `password`).

use crate::error::{Error, ErrorKind, Result};
use crate::store::Location;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where a run works and how it speaks. A flag counts more than the environment.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Global {
    /// The repository: a folder [env: FIRN_REPOSITORY]
    #[arg(short, long, global = true, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    #[arg(help_heading = "Global options")]
    pub(crate) repo: Option<PathBuf>,

    /// Take the password from the first line of FILE [env: FIRN_PASSWORD_FILE]
    #[arg(short, long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(help_heading = "Global options", conflicts_with = "password_command")]
    pub(crate) password_file: Option<PathBuf>,

    /// Take the password from the first line that COMMAND prints; a shell runs it [env: FIRN_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandString)]
    #[arg(help_heading = "Global options")]
    pub(crate) password_command: Option<OsString>,

    /// A file whose bytes are a key, beside or instead of a password [env: FIRN_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(help_heading = "Global options")]
    pub(crate) key_file: Option<PathBuf>,

    /// Keep local state (index, files cache) below FOLDER [env: FIRN_CACHE_DIR] [default: see FILES in firn(1)]
    #[arg(long, global = true, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    #[arg(help_heading = "Global options", conflicts_with = "no_cache")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Keep no local state; slower, and every source file is read again
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_cache: bool,

    /// Use this many threads [default: one for each processor]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(help_heading = "Global options")]
    pub(crate) threads: Option<u16>,

    /// Print nothing when all is well
    #[arg(short, long, global = true, help_heading = "Global options", conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more: list files, and show progress also where there is no terminal
    #[arg(short, long, global = true, help_heading = "Global options", overrides_with = "verbose")]
    pub(crate) verbose: bool,

    /// Print one JSON object a line, for programs
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
}

/// Whether it was said that there is no place for a cache.
static WARNED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// A variable of the environment; an empty one counts as absent.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Global {
    /// Where the repository is.
    pub(crate) fn repository(&self) -> Result<PathBuf> {
        let given = self.repo.clone().or_else(|| variable("FIRN_REPOSITORY").map(PathBuf::from));
        let given = given.filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::Input, "No repository was named")
                .with_hint("Name its folder with --repo or in the environment variable FIRN_REPOSITORY.")
        })?;
        Location::local_folder(&given)
    }

    /// The key file, if one was named.
    pub(crate) fn key_file(&self) -> Option<PathBuf> {
        self.key_file.clone().or_else(|| variable("FIRN_KEY_FILE").map(PathBuf::from))
    }

    /// Where local state goes, as an absolute path: a process in the background stands elsewhere.
    pub(crate) fn cache(&self) -> Result<crate::repository::CacheChoice> {
        use crate::repository::CacheChoice;
        if self.no_cache {
            return Ok(CacheChoice::None);
        }
        let given = self.cache_dir.clone().or_else(|| variable("FIRN_CACHE_DIR").map(PathBuf::from));
        let Some(root) = given.or_else(crate::repository::cache::default_root) else {
            if !WARNED.swap(true, std::sync::atomic::Ordering::Relaxed) {
                let error = Error::new(ErrorKind::NotFound, "There is no place for a cache, so this takes longer")
                    .with_hint("Set HOME or XDG_CACHE_HOME, or name a folder with --cache-dir or FIRN_CACHE_DIR; --no-cache says that none is meant.");
                crate::cli::output::message::warning(&error, "open", self.json);
            }
            return Ok(CacheChoice::None);
        };
        let shown = root.display().to_string();
        let root = std::path::absolute(root)
            .map_err(|error| Error::io(format!("The path of the cache folder \"{shown}\" cannot be found"), error))?;
        Ok(CacheChoice::Root(root))
    }

    /// How many threads may work.
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(crate::os::available_cpus, usize::from)
    }
}
