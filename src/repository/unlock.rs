//! Unlocking: from credentials to all secrets that they open, then and later. Not for: making slots (see `keys`), or changing which
//! there are (see `key_change`).
//!
//! The secrets of every slot that opens with the credentials count, because a rotation that was cut off, or two that did not see
//! each other, leave slots with different secrets side by side. Argon2id runs only for slots that are known to hold something more:
//! the descriptions, which any key opens, state the ids of the secrets.

use super::keyring::{Content, Keyring};
use super::keys::{Credentials, Holding, fresh_slot_names, open_description, open_secrets, read_slot, slot_names};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_KEY_SLOT, MAX_KEY_SLOTS};
use crate::format::key_slot::{KeySlot, Secrets};
use crate::id::ObjectName;
use crate::store::{ObjectKey, ObjectKind, Store};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// So often slots are listed again because others came meanwhile.
const LISTINGS: usize = 4;

/// The outcome of unlocking.
pub struct Unlocked {
    /// The secrets.
    pub keyring: Keyring,
    /// The slot that opened: of several, one that is meant to stay and holds the newest epoch.
    pub slot: ObjectName,
    /// Slots that are damaged.
    pub warnings: Vec<Error>,
}

/// The first of these damaged slots whose secrets still open: its commitment and the seal vouch for them.
fn unlock_damaged(store: &dyn Store, names: &[ObjectName], credentials: &Credentials) -> Option<(ObjectName, Secrets)> {
    names.iter().take(MAX_KEY_SLOTS).find_map(|name| {
        let bytes = store.get(&ObjectKey::new(ObjectKind::Key, name), MAX_KEY_SLOT as u64).ok()?;
        let secrets = KeySlot::decode(&bytes).and_then(|slot| open_secrets(&slot, credentials)).ok()??;
        Some((*name, secrets))
    })
}

/// Tries the slots in the order of their names, at most `MAX_KEY_SLOTS` whole ones: whoever can write to the store must not be
/// able to keep us computing forever. A damaged slot is a warning as long as another one opens; if none does, those are
/// tried whose name does not agree: what is damaged may be the description alone.
pub fn unlock(store: &dyn Store, credentials: &Credentials) -> Result<Unlocked> {
    let mut names = slot_names(store)?;
    for _ in 0..LISTINGS {
        let unlocked = unlock_one_of(store, &names, credentials);
        if unlocked.is_ok() {
            return unlocked;
        }
        // Slots may have been replaced since they were listed, or the listing was old.
        let before = std::mem::replace(&mut names, fresh_slot_names(store)?);
        if before == names {
            return unlocked;
        }
    }
    unlock_one_of(store, &names, credentials)
}

fn unlock_one_of(store: &dyn Store, names: &[ObjectName], credentials: &Credentials) -> Result<Unlocked> {
    let mut warnings: Vec<Error> = Vec::new();
    let mut damaged = Vec::new();
    let mut tried = 0;
    for name in names {
        if tried == MAX_KEY_SLOTS {
            break;
        }
        match read_slot(store, *name).and_then(|slot| open_secrets(&slot, credentials)) {
            Ok(Some(secrets)) => {
                let gathered = gather(store, names, credentials, (Some(*name), secrets), &mut HashSet::new());
                let keyring = Keyring::of(gathered.content);
                return Ok(Unlocked { keyring, slot: gathered.slot.unwrap_or(*name), warnings });
            }
            Ok(None) => tried += 1,
            Err(error) => {
                damaged.extend((error.kind() == ErrorKind::Damaged).then_some(*name));
                warnings.push(error);
            }
        }
    }
    if let Some((slot, secrets)) = unlock_damaged(store, &damaged, credentials) {
        return Ok(Unlocked { keyring: Keyring::new(secrets), slot, warnings });
    }
    let needs_file =
        names.iter().take(MAX_KEY_SLOTS).any(|name| read_slot(store, *name).is_ok_and(|slot| slot.head.key_file));
    Err(refusal(names, tried, warnings, &what_to_check(credentials, needs_file)))
}

/// What somebody should look at who has given these credentials in vain. `needs_file`: there is a key that needs a key file.
fn what_to_check(credentials: &Credentials, needs_file: bool) -> String {
    const PASSWORD: &str = "the password (FIRN_PASSWORD, --password-file or --password-command)";
    const FILE: &str = "the key file (--key-file or FIRN_KEY_FILE)";
    let (given, also) = match (credentials.password.is_some(), credentials.key_file.is_some()) {
        (true, true) => (format!("{PASSWORD} and {FILE}"), String::new()),
        (true, false) if needs_file => {
            (PASSWORD.to_owned(), format!(" There is a key that needs a key file, too: name {FILE}."))
        }
        (true, false) => (PASSWORD.to_owned(), String::new()),
        (false, _) => (FILE.to_owned(), format!(" If the key needs a password, too, give {PASSWORD}.")),
    };
    format!("Check {given}, and that this is the right repository.{also}")
}

/// Why nothing opened.
fn refusal(names: &[ObjectName], tried: usize, mut warnings: Vec<Error>, hint: &str) -> Error {
    if let Some(at) = warnings.iter().position(|error| error.kind() == ErrorKind::Unsupported) {
        return warnings.swap_remove(at);
    }
    let left_out = tried == MAX_KEY_SLOTS && names.len() > MAX_KEY_SLOTS;
    match warnings.into_iter().next() {
        _ if left_out => Error::new(
            ErrorKind::WrongKey,
            format!("Wrong password or key: none of the first {MAX_KEY_SLOTS} key slots opens with it"),
        )
        .with_hint("There are more slots than firn makes or tries: somebody added some. Remove those that are not yours from \"keys\"."),
        _ if names.is_empty() => Error::damaged("The repository has no key slot: nothing in it can be opened")
            .with_hint("If you have a copy of its \"keys\" folder, put it back."),
        Some(error) if tried == 0 => error
            .context("No key slot of the repository can be read")
            .with_hint("If you have a copy of its \"keys\" folder, put it back."),
        damaged => {
            let error = Error::new(ErrorKind::WrongKey, "Wrong password or key: no key slot opens with it");
            match damaged {
                Some(damage) => error.with_hint(format!("At least one key slot is damaged as well: {}", damage.chain())),
                None => error.with_hint(hint),
            }
        }
    }
}

/// A whole slot whose description can be read.
struct Candidate {
    name: ObjectName,
    slot: KeySlot,
    holding: Holding,
}

/// What the slots yield together.
struct Gathered {
    content: Content,
    /// The slot to name as the one in use.
    slot: Option<ObjectName>,
    /// Nothing failed that may work the next time.
    is_whole: bool,
}

/// Whether what failed in this way fails always.
fn is_lasting(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported | ErrorKind::NotFound)
}

/// Opens slots, each once.
struct Opener<'a> {
    credentials: &'a Credentials,
    secrets: Secrets,
    opened: Vec<ObjectName>,
    /// Those that do not open.
    others: &'a mut HashSet<ObjectName>,
    /// See `Gathered`.
    is_whole: bool,
}

impl Opener<'_> {
    /// Takes the secrets along if the slot opens. Returns whether it does.
    fn open(&mut self, one: &Candidate) -> bool {
        if self.opened.contains(&one.name) || self.others.contains(&one.name) {
            return self.opened.contains(&one.name);
        }
        match open_secrets(&one.slot, self.credentials) {
            Ok(Some(found))
                if found.repository == self.secrets.repository && found.metadata == self.secrets.metadata =>
            {
                self.secrets.merge_content(&found);
                self.opened.push(one.name);
                true
            }
            // There may be too little memory at the moment.
            Err(error) if !is_lasting(&error) => {
                self.is_whole = false;
                false
            }
            _ => {
                self.others.insert(one.name);
                false
            }
        }
    }
}

/// Gathers the content secrets of all slots that open with the credentials, beginning with those of one that did. `others` are slots
/// that are known not to; more are added.
fn gather(
    store: &dyn Store,
    names: &[ObjectName],
    credentials: &Credentials,
    (first, secrets): (Option<ObjectName>, Secrets),
    others: &mut HashSet<ObjectName>,
) -> Gathered {
    let keyring = Keyring::new(secrets.clone());
    let mut is_whole = true;
    let mut read = |name: &ObjectName| {
        let slot = read_slot(store, *name).inspect_err(|error| is_whole &= is_lasting(error));
        Some((*name, slot.ok()?))
    };
    let mut all: Vec<Candidate> = names
        .iter()
        .filter_map(&mut read)
        .take(MAX_KEY_SLOTS)
        .filter_map(|(name, slot)| {
            let holding = Holding::of(&open_description(&keyring, &slot).ok()?);
            Some(Candidate { name, slot, holding })
        })
        .collect();
    all.sort_by_key(|one| (one.holding.is_temporary(), Reverse(one.holding.epoch), one.name));
    let mut opener = Opener { credentials, secrets, opened: first.into_iter().collect(), others, is_whole };
    for one in &all {
        if one.holding.may_add_to(&opener.secrets) {
            opener.open(one);
        }
    }
    // One that only stands beside another for a while is not to be named as the one in use.
    let is_opened = |one: &&Candidate| opener.opened.contains(&one.name);
    let slot = all.iter().find(is_opened);
    let needs_another = first.is_some() && slot.is_some_and(|one| one.holding.is_temporary());
    let slot = slot.map(|one| one.name).or(first);
    let lasting = || all.iter().filter(|one| !one.holding.is_temporary());
    let slot = if needs_another { lasting().find(|one| opener.open(one)).map(|one| one.name).or(slot) } else { slot };
    let Opener { secrets, is_whole, .. } = opener;
    let sealing = lasting().filter_map(|one| one.holding.newest_of(&secrets)).max();
    let sealing = sealing.or(secrets.newest_epoch()).unwrap_or(0);
    let elsewhere = all.iter().flat_map(|one| one.holding.missing_in(&secrets)).collect();
    Gathered { content: Content { secrets, sealing, elsewhere }, slot, is_whole }
}

/// How a keyring gets at secrets that were added after it was made: with the credentials kept in memory.
pub(super) fn renew_later(keyring: &mut Keyring, store: Arc<dyn Store>, credentials: Credentials) {
    // Slots that were there the last time, and those that do not open.
    let known: Mutex<(Vec<ObjectName>, HashSet<ObjectName>)> = Mutex::default();
    keyring.renew_by(Box::new(move |keyring| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let names = fresh_slot_names(store.as_ref()).ok()?;
        if names == known.0 {
            return None;
        }
        let begin = (None, Secrets::clone(&keyring.secrets()));
        let gathered = gather(store.as_ref(), &names, &credentials, begin, &mut known.1);
        // What could not be read or opened now is tried again the next time.
        known.0 = if gathered.is_whole { names } else { Vec::new() };
        Some(gathered.content)
    }));
}
