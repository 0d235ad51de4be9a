//! Where passwords and key files come from: flags, the environment, the terminal. Not for: what is done with them.

use crate::cli::args::output::Output;
use crate::cli::args::repository::{PasswordSource, RepositorySettings};
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::keys::Credentials;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::{Zeroize, Zeroizing};

type Bytes = Zeroizing<Vec<u8>>;

/// A password is a line, not a book.
const MAX_PASSWORD: usize = 64 << 10;
/// Enough for every key file; a larger file was named by mistake.
const MAX_KEY_FILE: usize = 1 << 20;
/// A new key file with fewer bytes could be guessed: no Argon2 stands before it.
const MIN_KEY_FILE: usize = 32;

/// Where the password of a repository can come from without a terminal.
const ELSEWHERE: &str = "Use --password-file, --password-command, or the environment variable FIRN_PASSWORD_FILE or FIRN_PASSWORD; for a key file, --key-file or FIRN_KEY_FILE.";

/// Reads a password.
fn read(source: PasswordSource, json: bool) -> Result<Bytes> {
    let (password, origin) = match source {
        PasswordSource::Given(password) => (password, "the environment variable FIRN_PASSWORD".to_owned()),
        PasswordSource::File(path) => (from_file(&path, json)?, format!("the password file \"{}\"", path.display())),
        PasswordSource::Command(command) => (from_command(&command)?, "the password command".to_owned()),
    };
    if password.is_empty() {
        return Err(Error::new(ErrorKind::Input, format!("The password from {origin} is empty")));
    }
    Ok(password)
}

/// What opens the repository. `ask`: whether a missing password may be asked for although there is a key file.
pub(crate) fn existing(settings: &RepositorySettings, output: Output, ask: bool) -> Result<Credentials> {
    let key_file = settings.key_file().map(|path| key_file(&path, 1, output.json)).transpose()?;
    let password = match settings.password()? {
        Some(source) => Some(read(source, output.json)?),
        None if key_file.is_some() && !ask => None,
        None => Some(prompt("Password of the repository: ")?),
    };
    Ok(Credentials { password, key_file })
}

/// Whether nothing but a question could still yield a password.
pub(crate) fn could_ask(settings: &RepositorySettings) -> bool {
    settings.key_file().is_some() && matches!(settings.password(), Ok(None)) && has_terminal()
}

/// The secrets of a new repository's first key.
pub(crate) fn first(settings: &RepositorySettings, output: Output) -> Result<Credentials> {
    let key_file = settings.key_file().map(|path| key_file(&path, MIN_KEY_FILE, output.json)).transpose()?;
    let source = settings.password()?;
    new_credentials(output, source, key_file, ELSEWHERE)
}

/// Where the secrets of a further key come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct NewKey {
    /// Take the new password from the first line of FILE
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "new_password_command")]
    new_password_file: Option<PathBuf>,

    /// Take the new password from the first line that COMMAND prints; a shell runs it
    #[arg(long, value_name = "COMMAND", value_hint = clap::ValueHint::CommandString)]
    new_password_command: Option<std::ffi::OsString>,

    /// A file whose bytes the new key needs, beside or instead of a password
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    new_key_file: Option<PathBuf>,
}

impl NewKey {
    /// The secrets; a password that is given nowhere is asked for.
    pub(crate) fn credentials(&self, output: Output) -> Result<Credentials> {
        let least = MIN_KEY_FILE;
        let key_file = self.new_key_file.as_deref().map(|path| key_file(path, least, output.json)).transpose()?;
        let file = self.new_password_file.clone().map(PasswordSource::File);
        let source = file.or_else(|| self.new_password_command.clone().map(PasswordSource::Command));
        new_credentials(output, source, key_file, "Use --new-password-file, --new-password-command or --new-key-file.")
    }
}

/// The first line of a file, as the password of a key that exists.
pub(crate) fn of_file(path: &Path, json: bool) -> Result<Bytes> {
    read(PasswordSource::File(path.to_owned()), json)
}

/// The key file of a key that exists.
pub(crate) fn existing_key_file(path: &Path, json: bool) -> Result<Bytes> {
    key_file(path, 1, json)
}

/// `hint`: where a new password can come from without a terminal.
fn new_credentials(
    output: Output,
    source: Option<PasswordSource>,
    key_file: Option<Bytes>,
    hint: &str,
) -> Result<Credentials> {
    let password = match source {
        Some(source) => Some(read(source, output.json)?),
        // A key file alone is enough where there is nobody to ask.
        None if key_file.is_some() && !has_terminal() => None,
        None if !has_terminal() => {
            return Err(Error::new(
                ErrorKind::Input,
                "A new password is needed, and there is no terminal to ask for it",
            )
            .with_hint(hint));
        }
        None => match (prompt_new(key_file.is_some())?, &key_file) {
            (password, _) if !password.is_empty() => Some(password),
            (_, Some(_)) => None,
            (_, None) => return Err(Error::new(ErrorKind::Input, "An empty password protects nothing")),
        },
    };
    Ok(Credentials { password, key_file })
}

pub(crate) fn has_terminal() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/tty").is_ok()
}

fn prompt(question: &str) -> Result<Bytes> {
    match rpassword::prompt_password(question) {
        Ok(answer) => Ok(Zeroizing::new(answer.into_bytes())),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT | libc::ENOTTY | libc::EIO)) => {
            Err(Error::new(ErrorKind::Input, "A password is needed, and there is no terminal to ask for it")
                .with_hint(ELSEWHERE))
        }
        Err(error) => Err(Error::io("The password could not be read from the terminal", error)),
    }
}

fn prompt_new(may_be_empty: bool) -> Result<Bytes> {
    let question = match may_be_empty {
        true => "New password (empty: the key file alone opens the repository): ",
        false => "New password: ",
    };
    let one = prompt(question)?;
    let other = prompt("The same again: ")?;
    match *one == *other {
        true => Ok(one),
        false => {
            Err(Error::new(ErrorKind::Input, "The two passwords differ").with_hint("Nothing was changed. Try again."))
        }
    }
}

/// Reads all of `reader` into memory that is wiped, if it has at most `limit` bytes.
fn read_secret(mut reader: impl Read, limit: usize) -> std::io::Result<Option<Bytes>> {
    // All of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; limit + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match reader.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes[length..].zeroize();
    Ok((length <= limit).then(|| Zeroizing::new(bytes[..length].to_vec())))
}

fn first_line(bytes: &[u8]) -> Bytes {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

fn from_file(path: &Path, json: bool) -> Result<Bytes> {
    let shown = path.display();
    let failed = |error| {
        let error = Error::io(format!("The password file \"{shown}\" cannot be read"), error);
        error.with_kind(ErrorKind::Failed)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    warn_if_open("password file", path, &file, json);
    let bytes = read_secret(file, MAX_PASSWORD).map_err(failed)?;
    bytes.map(|bytes| first_line(&bytes)).ok_or_else(|| too_long(&format!("The password file \"{shown}\"")))
}

/// Warns of a file with a secret that every user of the machine may read.
fn warn_if_open(what: &str, path: &Path, file: &std::fs::File, json: bool) {
    let is_open = file.metadata().is_ok_and(|meta| meta.is_file() && is_open_to_all(meta.permissions().mode()));
    if is_open {
        let shown = path.display();
        let text = format!("The {what} \"{shown}\" can be read by every user of this machine");
        let warning = Error::new(ErrorKind::Input, text)
            .with_hint(format!("Only its owner needs it: chmod go= {}.", text::shell(path)));
        crate::cli::output::message::warning(&warning, "open", json);
    }
}

fn is_open_to_all(mode: u32) -> bool {
    mode & 0o004 != 0
}

fn too_long(what: &str) -> Error {
    Error::new(
        ErrorKind::Input,
        format!("{what} gives more than {} KiB, which cannot be a password", MAX_PASSWORD >> 10),
    )
}

fn from_command(command: &OsStr) -> Result<Bytes> {
    let failed = |error| Error::io("The password command cannot be run", error).with_kind(ErrorKind::Failed);
    let mut child = Command::new("/bin/sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().expect("its output was asked for");
    let bytes = read_secret(output, MAX_PASSWORD).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    let bytes = bytes.ok_or_else(|| too_long("The password command"))?;
    match status.success() {
        true => Ok(first_line(&bytes)),
        false => Err(Error::new(ErrorKind::Failed, format!("The password command failed ({status})"))
            .with_hint("Run it by hand to see why.")),
    }
}

fn key_file(path: &Path, least: usize, json: bool) -> Result<Bytes> {
    let shown = path.display();
    let failed =
        |error| Error::io(format!("The key file \"{shown}\" cannot be read"), error).with_kind(ErrorKind::Failed);
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed(error)
            .with_hint("A new key file: head -c 64 /dev/urandom > FILE; keep a copy of it in another place."),
        _ => failed(error),
    })?;
    warn_if_open("key file", path, &file, json);
    let bytes = read_secret(file, MAX_KEY_FILE).map_err(failed)?.ok_or_else(|| {
        Error::new(ErrorKind::Input, format!("\"{shown}\" is larger than 1 MiB and hardly a key file"))
    })?;
    match bytes.len() {
        0 => Err(Error::new(ErrorKind::Input, format!("The key file \"{shown}\" is empty"))),
        length if length < least => Err(Error::new(
            ErrorKind::Input,
            format!(
                "The key file \"{shown}\" has only {length} bytes; {least} random ones are the least for a new key"
            ),
        )),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts() {
        for (text, password) in
            [("a\n", "a"), ("a", "a"), ("a b \r\nc\n", "a b "), ("\nx", ""), ("", ""), ("a\rb\n", "a\rb")]
        {
            assert_eq!(*first_line(text.as_bytes()), password.as_bytes());
        }
    }

    #[test]
    fn files_and_commands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        assert_eq!(from_file(&path, false).unwrap_err().kind(), ErrorKind::Failed);
        std::fs::write(&path, vec![b'x'; MAX_PASSWORD + 1]).unwrap();
        assert_eq!(from_file(&path, false).unwrap_err().kind(), ErrorKind::Input);
        std::fs::write(&path, b"\n").unwrap();
        assert_eq!(read(PasswordSource::File(path), false).unwrap_err().kind(), ErrorKind::Input);
        assert_eq!(*from_command(OsStr::new("echo one; echo two")).unwrap(), b"one");
        assert!(from_command(OsStr::new("echo one; exit 3")).unwrap_err().to_string().contains("exit status: 3"));
    }

    #[test]
    fn secrets_that_all_may_read_are_told_from_others() {
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o404, true), (0o001, false)] {
            assert_eq!(is_open_to_all(mode), is_open, "{mode:o}");
        }
    }

    #[test]
    fn key_files_must_be_hard_to_guess() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(key_file(&path, 1, false).unwrap_err().hint().is_some());
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(*key_file(&path, 1, false).unwrap(), b"short");
        assert_eq!(key_file(&path, MIN_KEY_FILE, false).unwrap_err().kind(), ErrorKind::Input);
        std::fs::write(&path, b"").unwrap();
        assert!(key_file(&path, 1, false).is_err());
    }
}
