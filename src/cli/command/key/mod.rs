//! `firn key`: the keys that open a repository. Not for: the first one (see `init`).

pub(in crate::cli) mod rotate;

use crate::cli::args::kdf::KdfArgs;
use crate::cli::command::key::rotate::{ReEncrypt, Rotate};
use crate::cli::context::Context;
use crate::cli::context::password::NewKey;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::keys::Slots;
use serde_json::json;

/// Add, list, remove, rotate keys, or change the password
///
/// Each key opens the whole repository. Removing one does not take back what its owner may have copied: the secrets inside
/// stay the same, also with a new password. "rotate" is for that: new data gets a new secret.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Add(Add),
    List(List),
    Remove(Remove),
    Passwd(Passwd),
    Rotate(Rotate),
    ReEncrypt(ReEncrypt),
}

/// Add a key, with a password or key file of its own
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// A name for the key
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,

    #[command(flatten)]
    new: NewKey,

    #[command(flatten)]
    kdf: KdfArgs,
}

/// List the keys; "*" marks the one in use
#[derive(Debug, clap::Args)]
pub(crate) struct List {}

/// Remove a key
#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The first digits of the key's id
    #[arg(value_name = "ID")]
    id: String,
}

/// Change the password: replaces the keys that it opens
///
/// Every key that the password opens, alone or with the key file that is given, is replaced by one with the new password. A key that
/// needed a key file still needs it, unless --new-key-file names another one. Keys that need a key file which is not given are named,
/// because the old password may still be theirs. If nothing but a key file is given, the keys that it opens alone are replaced.
#[derive(Debug, clap::Args)]
pub(crate) struct Passwd {
    #[command(flatten)]
    new: NewKey,

    #[command(flatten)]
    kdf: KdfArgs,
}

impl Command {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        match self {
            Command::Add(args) => {
                let repository = context.open()?;
                let credentials = args.new.credentials(context.output)?;
                let name = repository.add_key(&credentials, args.kdf.cost(), &args.label)?;
                told(context, "added", &[("key_id", name)], &format!("Added the key {}\n", name.short()))
            }
            Command::List(_) => list(context, &*context.open()?),
            Command::Remove(args) => remove(context, &*context.open()?, &args.id),
            Command::Passwd(args) => passwd(context, &*context.open_by_password()?, &args),
            Command::Rotate(args) => args.run(context),
            Command::ReEncrypt(args) => args.run(context, &context.open()?),
        }
    }
}

fn told(context: &Context, what: &str, ids: &[(&str, ObjectName)], text: &str) -> Result<u8> {
    if context.output.json {
        let mut value = json!({ "message_type": "key", "action": what });
        ids.iter().for_each(|(name, id)| value[*name] = json!(id));
        context.print_json(&value)?;
    } else {
        context.tell(text)?;
    }
    Ok(0)
}

fn passwd(context: &Context, repository: &Repository, args: &Passwd) -> Result<u8> {
    let replaced = repository.change_password(&args.new.credentials(context.output)?, args.kdf.cost())?;
    if context.output.json {
        context.print_json(&json!({
            "message_type": "key", "action": "replaced",
            "added": replaced.added, "removed": replaced.removed, "untried": replaced.untried,
        }))?;
    } else {
        let (new, old) = (short(&replaced.added), short(&replaced.removed));
        let verb = if replaced.added.len() == 1 { "replaces" } else { "replace" };
        context.tell(&format!("The password is changed: {new} {verb} {old}\n"))?;
    }
    if !replaced.untried.is_empty() {
        let message =
            format!("The old password may still open {}, with a key file that was not given", short(&replaced.untried));
        let warning = Error::new(ErrorKind::Incomplete, message)
            .with_hint("Change the password once more with --key-file, or remove that key.");
        crate::cli::output::message::warning(&warning, "key passwd", context.output.json);
    }
    Ok(0)
}

fn short(names: &[ObjectName]) -> String {
    names.iter().map(ObjectName::short).collect::<Vec<_>>().join(", ")
}

fn remove(context: &Context, repository: &Repository, text: &str) -> Result<u8> {
    let slots = repository.key_slots()?;
    let name = resolve(&slots, text)?;
    if name == repository.slot() && slots.iter().any(|(other, info)| *other != name && info.is_ok()) {
        let message = format!("The key \"{name}\" is the one that opened the repository just now");
        return Err(Error::new(ErrorKind::Input, message).with_hint("Use another key to remove it."));
    }
    repository.remove_key(name)?;
    let text = format!(
        "Removed the key {}\nNote: whoever has used it may have kept the secrets inside, which stay the same (see \"firn key rotate\").\n",
        name.short()
    );
    told(context, "removed", &[("key_id", name)], &text)
}

/// The one key whose id begins with these digits.
fn resolve(slots: &Slots, text: &str) -> Result<ObjectName> {
    let digits = text.to_ascii_lowercase();
    let found: Vec<ObjectName> =
        slots.iter().map(|(name, _)| *name).filter(|name| name.to_string().starts_with(&digits)).collect();
    match found[..] {
        [one] if !digits.is_empty() => Ok(one),
        [] => {
            let all: Vec<ObjectName> = slots.iter().map(|(name, _)| *name).collect();
            Err(Error::new(ErrorKind::NotFound, format!("There is no key \"{text}\""))
                .with_hint(format!("The keys are {}.", short(&all))))
        }
        _ => Err(Error::new(ErrorKind::Input, format!("\"{text}\" is ambiguous: {} keys begin with it", found.len()))
            .with_hint(format!("Write more digits of one of {}.", short(&found)))),
    }
}

fn list(context: &Context, repository: &Repository) -> Result<u8> {
    let slots = repository.key_slots()?;
    let mut code = 0;
    let mut rows = vec![["", "ID", "Needs", "Epoch", "Made", "By", "Label"].map(String::from).to_vec()];
    for (name, info) in &slots {
        let current = *name == repository.slot();
        let (info, description) = match info.as_ref().map(|info| (info, info.description.as_ref())) {
            Ok((info, Ok(description))) => (info, description),
            Ok((_, Err(error))) | Err(error) => {
                let error = Error::new(error.kind(), format!("The key \"{name}\" cannot be read: {}", error.chain()));
                crate::cli::output::message::failure(&error, "key list", &name.to_string(), context.output.json);
                code = code.max(error.kind().exit_code());
                continue;
            }
        };
        let needs = match (info.head.password.is_some(), info.head.key_file) {
            (true, true) => "password and key file",
            (true, false) => "password",
            (false, _) => "key file",
        };
        if context.output.json {
            context.print_json(&json!({
                "message_type": "key",
                "current": current,
                "temporary": description.beside.is_some(),
                "key_id": name,
                "username": description.user,
                "hostname": description.host,
                "created": description.created.to_string(),
                "label": description.label,
                "epoch": description.epoch,
                "needs_password": info.head.password.is_some(),
                "needs_key_file": info.head.key_file,
            }))?;
        }
        rows.push(vec![
            if current { "*" } else { "" }.to_owned(),
            name.short(),
            needs.to_owned(),
            description.epoch.to_string(),
            text::local_time(description.created),
            text::line(&format!("{}@{}", description.user, description.host)),
            match &description.beside {
                None => text::line(&description.label),
                // The next change of keys removes it.
                Some(_) => "(temporary, for a change of keys)".to_owned(),
            },
        ]);
    }
    if !context.output.json {
        context.print(&text::table(&rows, &[]))?;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_first_digits() {
        let damaged = || Err(Error::damaged("x"));
        let slots: Slots = vec![(ObjectName([0x12; 32]), damaged()), (ObjectName([0x13; 32]), damaged())];
        assert_eq!(resolve(&slots, "12").unwrap(), ObjectName([0x12; 32]));
        assert_eq!(resolve(&slots, "1").unwrap_err().kind(), ErrorKind::Input);
        assert_eq!(resolve(&slots, "").unwrap_err().kind(), ErrorKind::Input);
        assert_eq!(resolve(&slots, "zz").unwrap_err().hint(), Some("The keys are 12121212, 13131313."));
    }
}
