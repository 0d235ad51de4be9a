//! Makes a password file that `firn init` is given and that does not exist yet. Not for: reading one (see `password`).

use crate::cli::args::output::Output;
use crate::cli::args::repository::RepositorySettings;
use crate::cli::context::password::has_terminal;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Random bytes of a new password: 192 bits, 32 letters.
const RANDOM: usize = 24;

/// If the password file that was named does not exist: offers on the terminal to make it with a random password. Without a
/// terminal, an error that says how.
pub(crate) fn offer(settings: &RepositorySettings, output: Output) -> Result<()> {
    let named = settings.password_file();
    let Some(path) = named else { return Ok(()) };
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    let shown = text::line(&path.display().to_string());
    let missing = Error::new(ErrorKind::Input, format!("The password file \"{shown}\" does not exist")).with_hint(format!(
        "This makes one with a random password: (umask 077; head -c {RANDOM} /dev/urandom | base64 > FILE). Keep a copy of it in another place."
    ));
    if !has_terminal() {
        return Err(missing);
    }
    let question = format!("The password file \"{shown}\" does not exist. Make it, with a random password? [y/N] ");
    match ask(&question)? {
        false => Err(missing),
        true => {
            make(&path)?;
            let said = format!("Wrote a new password into \"{shown}\". Keep a copy of it in another place.");
            crate::cli::output::message::aside(&match output.json {
                true => format!("{}\n", serde_json::json!({ "message_type": "note", "message": said })),
                false => format!("Note: {said}\n"),
            });
            Ok(())
        }
    }
}

/// Asks a question on the terminal; anything but "y" or "yes" is no.
fn ask(question: &str) -> Result<bool> {
    let failed = |error| Error::io("The terminal cannot be asked", error);
    let mut terminal = std::fs::File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    std::io::BufReader::new(terminal).read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// A new file with a random password that only its owner can read, durable before a repository depends on it.
fn make(path: &Path) -> Result<()> {
    let shown = path.display();
    let failed = |error| Error::io(format!("The password file \"{shown}\" cannot be made"), error);
    let mut random = Zeroizing::new([0; RANDOM]);
    getrandom::fill(&mut *random).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let line = Zeroizing::new(text::base64(&*random) + "\n");
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_password_is_random_and_ones_own() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        make(&one).unwrap();
        make(&other).unwrap();
        let text = |path| std::fs::read_to_string(path).unwrap();
        assert!(text(&one).trim_end().len() == 32 && text(&one) != text(&other));
        assert_eq!(one.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(make(&one).is_err(), "what exists is never written over");
    }
}
