//! Which repository, what opens it, and where its local state goes: a flag counts more than the environment. Not for: reading
//! passwords or opening anything (see `crate::cli::context`).

use super::output::Output;
use crate::cli::output::message;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::CacheChoice;
use crate::repository::cache::default_root;
use crate::store::Location;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;

/// Options of every command that works on a repository.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct RepositoryArgs {
    /// The repository: a folder [env: FIRN_REPOSITORY]
    #[arg(short, long, global = true, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    #[arg(help_heading = "Global options")]
    repo: Option<PathBuf>,

    /// Take the password from the first line of FILE [env: FIRN_PASSWORD_FILE]
    #[arg(short, long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(help_heading = "Global options", conflicts_with = "password_command")]
    password_file: Option<PathBuf>,

    /// Take the password from the first line that COMMAND prints; a shell runs it [env: FIRN_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", value_hint = clap::ValueHint::CommandString)]
    #[arg(help_heading = "Global options")]
    password_command: Option<OsString>,

    /// A file whose bytes are a key, beside or instead of a password [env: FIRN_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(help_heading = "Global options")]
    key_file: Option<PathBuf>,

    /// Keep local state (index, files cache) below FOLDER [env: FIRN_CACHE_DIR] [default: see FILES in firn(1)]
    #[arg(long, global = true, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    #[arg(help_heading = "Global options", conflicts_with = "no_cache")]
    cache_dir: Option<PathBuf>,

    /// Keep no local state; slower, and every source file is read again
    #[arg(long, global = true, help_heading = "Global options")]
    no_cache: bool,
}

/// A variable of the environment; an empty one counts as absent.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl RepositoryArgs {
    /// What they mean, with the environment behind them.
    pub(crate) fn resolve(&self) -> RepositorySettings {
        let path = |flag: &Option<PathBuf>, name| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        RepositorySettings {
            folder: path(&self.repo, "FIRN_REPOSITORY"),
            passwords: self.passwords(),
            key_file: path(&self.key_file, "FIRN_KEY_FILE"),
            cache: match self.no_cache {
                true => CacheSetting::None,
                false => match path(&self.cache_dir, "FIRN_CACHE_DIR") {
                    Some(folder) => CacheSetting::Folder(folder),
                    None => CacheSetting::Default,
                },
            },
        }
    }

    /// A flag, or else every variable that is set.
    fn passwords(&self) -> Vec<PasswordSource> {
        let file = self.password_file.clone().map(PasswordSource::File);
        let flag = file.or_else(|| self.password_command.clone().map(PasswordSource::Command));
        if let Some(source) = flag {
            return vec![source];
        }
        let given = std::env::var_os("FIRN_PASSWORD");
        let given = given.map(|value| PasswordSource::Given(Zeroizing::new(value.into_vec())));
        let file = variable("FIRN_PASSWORD_FILE").map(|path| PasswordSource::File(path.into()));
        let command = variable("FIRN_PASSWORD_COMMAND").map(PasswordSource::Command);
        [given, file, command].into_iter().flatten().collect()
    }
}

/// Where a password is to be found.
#[derive(Clone, Debug)]
pub(crate) enum PasswordSource {
    /// This is it.
    Given(Zeroizing<Vec<u8>>),
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a command prints.
    Command(OsString),
}

/// Where local state goes.
#[derive(Clone, Debug, Default)]
enum CacheSetting {
    /// To where FILES of firn(1) says.
    #[default]
    Default,
    Folder(PathBuf),
    None,
}

/// One repository: which, what opens it, and where its local state goes. A command may have several.
#[derive(Clone, Debug, Default)]
pub(crate) struct RepositorySettings {
    folder: Option<PathBuf>,
    passwords: Vec<PasswordSource>,
    key_file: Option<PathBuf>,
    cache: CacheSetting,
}

/// Whether it was said that there is no place for a cache.
static WARNED: AtomicBool = AtomicBool::new(false);

impl RepositorySettings {
    /// Where the repository is.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        let given = self.folder.as_ref().filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::Input, "No repository was named")
                .with_hint("Name its folder with --repo or in the environment variable FIRN_REPOSITORY.")
        })?;
        Location::local_folder(given)
    }

    /// The source of the password, if there is one.
    pub(crate) fn password(&self) -> Result<Option<PasswordSource>> {
        match self.passwords.as_slice() {
            [] => Ok(None),
            [source] => Ok(Some(source.clone())),
            _ => Err(Error::new(
                ErrorKind::Input,
                "More than one of FIRN_PASSWORD, FIRN_PASSWORD_FILE and FIRN_PASSWORD_COMMAND is set",
            )
            .with_hint("Leave only the one that shall count, or use --password-file or --password-command.")),
        }
    }

    /// The password file, if one was named, whatever else was.
    pub(crate) fn password_file(&self) -> Option<PathBuf> {
        self.passwords.iter().find_map(|source| match source {
            PasswordSource::File(path) => Some(path.clone()),
            _ => None,
        })
    }

    /// The key file, if one was named.
    pub(crate) fn key_file(&self) -> Option<PathBuf> {
        self.key_file.clone()
    }

    /// Where local state goes, as an absolute path: a process in the background stands elsewhere.
    pub(crate) fn cache(&self, output: Output) -> Result<CacheChoice> {
        let root = match &self.cache {
            CacheSetting::None => return Ok(CacheChoice::None),
            CacheSetting::Folder(folder) => Some(folder.clone()),
            CacheSetting::Default => default_root(),
        };
        let Some(root) = root else {
            if !WARNED.swap(true, Ordering::Relaxed) {
                let error = Error::new(ErrorKind::NotFound, "There is no place for a cache, so this takes longer")
                    .with_hint("Set HOME or XDG_CACHE_HOME, or name a folder with --cache-dir or FIRN_CACHE_DIR; --no-cache says that none is meant.");
                message::warning(&error, "open", output.json);
            }
            return Ok(CacheChoice::None);
        };
        let shown = root.display().to_string();
        let root = std::path::absolute(root)
            .map_err(|error| Error::io(format!("The path of the cache folder \"{shown}\" cannot be found"), error))?;
        Ok(CacheChoice::Root(root))
    }
}
