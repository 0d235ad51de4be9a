//! What commands share while they run: the opened repository, the wish to stop, output. Not for: options of one command.

pub(in crate::cli) mod password;
pub(in crate::cli) mod password_file;
pub(in crate::cli) mod signals;

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::output::Output;
use crate::cli::args::repository::RepositorySettings;
use crate::cli::output::message::{self, output_failed};
use crate::cli::output::progress::Reporter;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Stop;
use crate::repository::keys::Credentials;
use crate::repository::missing::{self, Missing};
use crate::repository::snapshots::{Address, Snapshots};
use crate::repository::{DEFAULT_BLOCK_CACHE, OpenOptions, Repository};
use crate::store::LocalStore;
use crate::store::Store;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run of the program.
#[derive(Debug)]
pub(crate) struct Context {
    /// How it speaks.
    pub(crate) output: Output,
    /// How many threads may work.
    pub(crate) threads: usize,
    /// The repository that every command is about.
    pub(crate) repository: RepositorySettings,
    /// Set by signals.
    pub(crate) stop: Arc<Stop>,
}

impl Context {
    /// A run with these options.
    pub(crate) fn new(global: &GlobalArgs) -> Context {
        let (output, threads) = (global.output.resolve(), global.threads());
        Context { output, threads, repository: global.repository.resolve(), stop: Arc::default() }
    }

    /// The place that `--repo` names.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>> {
        store(&self.repository)
    }

    /// Finds the repository, then asks for what opens it. Starts no thread.
    pub(crate) fn open(&self) -> Result<Arc<Repository>> {
        Ok(self.open_keeping()?.0)
    }

    /// The same, with what opened it.
    pub(crate) fn open_keeping(&self) -> Result<(Arc<Repository>, Credentials)> {
        self.open_named(&self.repository)
    }

    /// The same for any repository.
    pub(crate) fn open_named(&self, settings: &RepositorySettings) -> Result<(Arc<Repository>, Credentials)> {
        let store = store(settings)?;
        crate::os::raise_open_files();
        let options = OpenOptions { cache: settings.cache(self.output)?, block_cache: DEFAULT_BLOCK_CACHE };
        let mut credentials = password::existing(settings, self.output, false)?;
        let mut opened = Repository::open(store.clone(), &credentials, &options);
        if matches!(&opened, Err(error) if error.kind() == ErrorKind::WrongKey) && password::could_ask(settings) {
            // The key file alone did not do; perhaps the key needs a password as well.
            credentials = password::existing(settings, self.output, true)?;
            opened = Repository::open(store, &credentials, &options);
        }
        let repository = opened?;
        self.warn_of(&repository);
        Ok((Arc::new(repository), credentials))
    }

    /// Opens the repository with a password, which is asked for, where there is a terminal, even if a key file is given.
    pub(crate) fn open_by_password(&self) -> Result<Arc<Repository>> {
        self.store()?;
        let ask = password::could_ask(&self.repository);
        let repository = self.open_with(&password::existing(&self.repository, self.output, ask)?)?;
        self.warn_of(&repository);
        Ok(repository)
    }

    /// Opens the repository once more, with what opened it before.
    pub(crate) fn open_with(&self, credentials: &Credentials) -> Result<Arc<Repository>> {
        let options = OpenOptions { cache: self.repository.cache(self.output)?, block_cache: DEFAULT_BLOCK_CACHE };
        Repository::open(self.store()?, credentials, &options).map(Arc::new)
    }

    fn warn_of(&self, repository: &Repository) {
        for warning in &repository.warnings {
            message::warning(warning, "open", self.output.json);
        }
    }

    /// Lets Ctrl-C and requests to end stop the work at the next safe point; a second Ctrl-C ends the process at once.
    /// Starts a thread.
    pub(crate) fn watch_signals(&self) -> Result<()> {
        crate::cli::context::signals::watch(self.stop.clone())
    }

    /// Reports the progress of `during`, as the options say.
    pub(crate) fn progress(&self, during: &'static str) -> Reporter {
        Reporter::new(during, self.output)
    }

    /// Writes to standard output.
    pub(crate) fn print(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(output_failed)
    }

    /// Writes what is not asked for but good to know: nothing with `--quiet`.
    pub(crate) fn tell(&self, text: &str) -> Result<()> {
        match self.output.quiet {
            true => Ok(()),
            false => self.print(text),
        }
    }

    /// Writes an object for programs as one line.
    pub(crate) fn print_json(&self, value: &serde_json::Value) -> Result<()> {
        self.print(&format!("{value}\n"))
    }

    /// All snapshots, for a command that is about some of them; damaged ones are left out, with a warning unless they are forgotten.
    pub(crate) fn snapshots(&self, repository: &Repository) -> Result<Snapshots> {
        self.snapshots_with(repository, &|_, error| message::warning(error, "snapshots", self.output.json))
    }

    /// The same for a command that is about all of them: damaged ones are missing in its answer, which its exit status says.
    pub(crate) fn all_snapshots(&self, repository: &Repository) -> Result<Snapshots> {
        self.snapshots_with(repository, &|name, error| message::failure(error, "snapshots", name, self.output.json))
    }

    fn snapshots_with(&self, repository: &Repository, tell: &dyn Fn(&str, &Error)) -> Result<Snapshots> {
        let snapshots = repository.snapshots()?;
        for (name, error) in snapshots.damaged.iter().filter(|(name, _)| !snapshots.tombs.contains_key(name)) {
            let error = Error::new(error.kind(), error.chain()).with_hint("\"firn check\" tells more.");
            tell(&name.to_string(), &error);
        }
        Ok(snapshots)
    }

    /// Warns of snapshots that are neither stored nor forgotten: in a sentence, with `--verbose` of each.
    pub(crate) fn warn_of_missing(&self, missing: &[Missing], during: &str) {
        let each = missing.iter().filter(|_| self.output.verbose).map(|one| one.error(ErrorKind::Damaged));
        for warning in each.chain(missing::summary(missing)) {
            message::warning(&warning, during, self.output.json);
        }
    }
}

fn store(settings: &RepositorySettings) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(LocalStore::open(&settings.folder()?)?))
}

/// The absolute path that a person means, with "." and ".." resolved as the kernel does and without a slash at the end; empty for
/// "/". It need not exist.
pub(crate) fn absolute(path: &OsStr) -> Result<Vec<u8>> {
    if path.is_empty() {
        return Err(Error::new(ErrorKind::Input, "An empty path names nothing"));
    }
    let path = Path::new(path);
    let folder = if path.is_absolute() { Ok(PathBuf::from("/")) } else { crate::os::current_folder() };
    let names = folder.and_then(|folder| crate::os::resolve_path(path, &folder));
    let names = names.map_err(|error| {
        Error::io(format!("The full path of \"{}\" cannot be found", path.display()), error)
            .with_hint("Name the absolute path, without \"..\".")
    })?;
    Ok(if names.is_empty() { Vec::new() } else { crate::os::join_names(&names) })
}

/// `Address::parse`, with a better answer for a path alone.
pub(crate) fn parse_address(text: &OsStr) -> Result<Address> {
    if text.as_bytes().first() == Some(&b'/') {
        let shown = text.to_string_lossy();
        return Err(Error::new(ErrorKind::Input, format!("\"{shown}\" is a path, but a snapshot is needed before it"))
            .with_hint(format!("For the newest snapshot write \"latest:{shown}\".")));
    }
    Address::parse(text.as_bytes())
}

/// An address whose path stands in an argument of its own, as restic's users write it: "latest /home/me".
pub(crate) fn join_address(address: &OsStr, path: Option<&OsStr>) -> Result<OsString> {
    let Some(path) = path else { return Ok(address.to_owned()) };
    let (snapshot, shown) = (address.to_string_lossy(), path.to_string_lossy());
    if address.as_bytes().iter().any(|byte| matches!(byte, b':' | b'/')) {
        let message = format!("\"{shown}\" is one path too many: \"{snapshot}\" is one already");
        return Err(Error::new(ErrorKind::Input, message).with_hint("Name one at a time, as in \"latest:/home/me\"."));
    }
    if path.as_bytes().first() != Some(&b'/') {
        let full = absolute(path)?;
        let message = format!("\"{shown}\" is no path in a snapshot: these begin with \"/\"");
        let hint =
            format!("If you mean what was backed up from here: \"{snapshot}:{}\".", String::from_utf8_lossy(&full));
        return Err(Error::new(ErrorKind::Input, message).with_hint(hint));
    }
    Ok([address, OsStr::new(":"), path].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_alone_gets_a_useful_answer() {
        let error = parse_address(OsStr::new("/home/me")).unwrap_err();
        assert_eq!(error.hint(), Some("For the newest snapshot write \"latest:/home/me\"."));
        assert_eq!(parse_address(OsStr::new("latest:/a/")).unwrap().path, b"/a");
    }

    #[test]
    fn a_path_may_stand_behind_its_snapshot() {
        let join = |address: &str, path: &str| join_address(OsStr::new(address), Some(OsStr::new(path)));
        assert_eq!(join_address(OsStr::new("12ab:/x"), None).unwrap(), "12ab:/x");
        assert_eq!(join("latest~1", "/home/me").unwrap(), "latest~1:/home/me");
        for (address, path) in [("latest:/a", "/b"), ("/a", "/b"), ("latest", "b"), ("latest", "")] {
            assert!(join(address, path).is_err(), "{address} {path}");
        }
        assert!(join("latest", "/work/../b").is_ok_and(|joined| parse_address(&joined).is_err()));
        assert!(join("latest", "x").unwrap_err().hint().unwrap().contains("\"latest:/"));
    }

    #[test]
    fn paths_as_people_write_them() {
        let path = |text: &str| String::from_utf8(absolute(OsStr::new(text)).unwrap()).unwrap();
        assert_eq!((path("/a/./b/../c//"), path("/"), path("/../x")), ("/a/c".into(), "".into(), "/x".into()));
        assert!(path("x").ends_with("/x") && path("x").len() > 2);
        assert!(absolute(OsStr::new("")).is_err());
    }
}
