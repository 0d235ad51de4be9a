//! `firn init`: makes a repository. Not for: further keys (see `key`).

use crate::cli::args::kdf::KdfArgs;
use crate::cli::context::Context;
use crate::cli::context::password;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::store::LocalStore;
use crate::store::{ObjectKind, Store};
use serde_json::json;
use std::path::Path;

/// Make a new repository in a folder that is empty or does not exist
///
/// Asks twice for a password unless one is given (see firn(1), ENVIRONMENT). The folder above the new one must exist: if it
/// does not, perhaps a disk is not mounted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A name for the first key
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,

    #[command(flatten)]
    kdf: KdfArgs,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let path = context.repository.folder()?;
        // Before a password is asked for.
        check_vacant(&path)?;
        crate::cli::context::password_file::offer(&context.repository, context.output)?;
        let credentials = password::first(&context.repository, context.output)?;
        let store = LocalStore::create(&path)?;
        let id = Repository::init(&store, &credentials, self.kdf.cost(), &self.label)?;
        let shown = path.display().to_string();
        if context.output.json {
            context.print_json(&json!({ "message_type": "initialized", "repository_id": id, "location": shown }))?;
            return Ok(0);
        }
        let secret = match (credentials.password.is_some(), credentials.key_file.is_some()) {
            (true, true) => "your password and your key file together",
            (true, false) => "your password",
            (false, _) => "your key file",
        };
        let (shown, short) = (text::line(&shown), id.short());
        context.tell(&format!(
            "Made the repository {short} in \"{shown}\"\n\n\
             The keys that encrypt it are in its folder \"keys\", and only {secret} can open them.\n\
             If you lose that, or the folder \"keys\", your backups are lost: nobody can help.\n\
             So keep the secret in a second place, not on this machine, and perhaps a copy of \"keys\" as well.\n"
        ))?;
        Ok(0)
    }
}

/// An error if there is a repository already. What an interrupted `init` left has no key or no config and is none.
fn check_vacant(path: &Path) -> Result<()> {
    let store = match LocalStore::open(path) {
        Ok(store) => store,
        Err(error) if error.kind() == ErrorKind::NoRepository => return Ok(()),
        Err(error) => return Err(error),
    };
    for kind in [ObjectKind::Key, ObjectKind::Config] {
        let mut found = false;
        store.list(kind, &mut |_| {
            found = true;
            Ok(())
        })?;
        if found {
            let message = format!("There is a repository already in \"{}\"", path.display());
            return Err(Error::new(ErrorKind::Exists, message)
                .with_hint("Use it as it is, or name another folder; nothing was changed."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_repository_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repository");
        check_vacant(&path).unwrap();
        let store = LocalStore::create(&path).unwrap();
        check_vacant(&path).unwrap();
        store.put(&crate::store::ObjectKey::new(ObjectKind::Config, 1), b"x").unwrap();
        assert_eq!(check_vacant(&path).unwrap_err().kind(), ErrorKind::Exists);
    }
}
