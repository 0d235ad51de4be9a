//! Objects and the order in which they become durable; keys; the index; local state. The only place where a record is
//! encoded, sealed and stored. Not for: what trees and snapshots mean to a person (`view`, `backup`, `restore`).

mod as_read;
pub mod assemble;
pub mod cache;
pub mod coordination;
pub mod damage;
pub mod database;
pub mod dates;
pub mod epochs;
pub mod files;
pub mod filter;
pub mod index;
pub mod key_change;
#[cfg(test)]
mod key_explore;
pub mod keyring;
pub mod keys;
pub mod ledger;
mod life;
pub mod marks;
mod memory;
pub mod missing;
pub mod mistake;
#[cfg(test)]
mod mutations;
pub mod pack;
pub mod read;
pub mod refresh;
pub mod rotate;
pub mod segments;
pub mod snapshots;
mod stored_packs;
pub mod table;
#[cfg(test)]
mod tests;
pub mod tombs;
pub mod tree;
pub mod unlock;
#[cfg(test)]
mod vectors;
pub mod writer;

use crate::chunk::Splitter;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_RECORD_OBJECT;
use crate::format::config::{Access, CHUNKER, Chunker, Config, Features};
use crate::format::header::Kind;
use crate::format::json::{self, Record};
use crate::id::{ObjectName, RepositoryId, WriterId};
use crate::progress::Progress;
use crate::store::{Listed, ObjectKey, ObjectKind, Store};
use cache::CacheFolder;
use index::Index;
use keyring::{Keyring, Opened, object_name};
use keys::Credentials;
use memory::Memory;
use mistake::Mistake;
use read::{BlockCache, CACHED_HEADERS};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use unlock::Unlocked;

/// Bytes of decoded blocks kept in memory unless told otherwise.
pub const DEFAULT_BLOCK_CACHE: u64 = 96 << 20;

/// Where local state lives.
#[derive(Clone, Debug)]
pub enum CacheChoice {
    /// Below this folder.
    Root(PathBuf),
    /// In a temporary folder that is removed at the end.
    None,
}

/// How a repository is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Where local state lives.
    pub cache: CacheChoice,
    /// Bytes of decoded blocks kept in memory.
    pub block_cache: u64,
}

/// An unlocked repository.
#[derive(Debug)]
pub struct Repository {
    store: Arc<dyn Store>,
    keyring: Keyring,
    credentials: Credentials,
    slot: ObjectName,
    config: Config,
    access: Access,
    config_error: Option<String>,
    cache: CacheFolder,
    index: RwLock<Option<Arc<Index>>>,
    loading: Mutex<()>,
    /// Whether this program acts on what it lists: see `check_writable`.
    acts: AtomicBool,
    memory: Memory,
    blocks: BlockCache,
    headers: quick_cache::sync::Cache<ObjectName, Arc<Opened>>,
    /// Things that were wrong while opening and did not prevent it.
    pub warnings: Vec<Error>,
}

impl Repository {
    /// Makes a repository in an empty store: two config objects and one key slot. The store's folders exist already.
    pub fn init(
        store: &dyn Store,
        credentials: &Credentials,
        cost: crate::chunk::password::Cost,
        label: &str,
    ) -> Result<RepositoryId> {
        let secrets = keys::fresh_secrets()?;
        let keyring = Keyring::new(secrets);
        let config = default_config(keyring.repository());
        let slot = keys::create_slot(&keyring, credentials, cost, label)?;
        // The key first: a repository with a key and no config is only half made, one with data and no key is lost.
        store.put(&ObjectKey::new(ObjectKind::Key, object_name(&slot)), &slot)?;
        for number in 1..=2 {
            let bytes = keyring.seal_record(Kind::Config, &config.encode()?)?;
            store.put(&ObjectKey::new(ObjectKind::Config, number), &bytes)?;
        }
        store.keep_room();
        Ok(keyring.repository())
    }

    /// Unlocks a repository and reads its config. A damaged config still allows reading.
    pub fn open(store: Arc<dyn Store>, credentials: &Credentials, options: &OpenOptions) -> Result<Repository> {
        let Unlocked { mut keyring, slot, mut warnings } = unlock::unlock(store.as_ref(), credentials)?;
        unlock::renew_later(&mut keyring, store.clone(), credentials.clone());
        let id = keyring.repository();
        let (config, access, config_error) = match read_config(store.as_ref(), &keyring, &mut warnings) {
            Ok((config, access)) => (config, access, None),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                let text = error.chain();
                warnings.push(error);
                (default_config(id), Access::ReadOnly, Some(text))
            }
            Err(error) => return Err(error),
        };
        let cache = match &options.cache {
            CacheChoice::Root(root) => match CacheFolder::open(root, &id, &store.properties().place) {
                Ok(cache) => cache,
                // It only makes things faster, so it must not be what prevents a backup.
                Err(error) => {
                    warnings.push(error.context("No cache is used, so this takes longer"));
                    CacheFolder::temporary(homeless_writer(&keyring))?
                }
            },
            CacheChoice::None => CacheFolder::temporary(homeless_writer(&keyring))?,
        };
        let mut repository = Repository {
            store,
            keyring,
            credentials: credentials.clone(),
            slot,
            config,
            access,
            config_error,
            cache,
            index: RwLock::new(None),
            loading: Mutex::default(),
            acts: AtomicBool::new(false),
            memory: Memory::default(),
            blocks: read::block_cache(options.block_cache),
            headers: quick_cache::sync::Cache::new(CACHED_HEADERS),
            warnings,
        };
        let older = repository.older_keys();
        repository.warnings.extend(older);
        Ok(repository)
    }

    /// The store below.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The unlocked secrets.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// What opened the repository.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The key slot that was used.
    pub fn slot(&self) -> ObjectName {
        self.slot
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        self.keyring.repository()
    }

    /// The local folder.
    pub fn cache(&self) -> &CacheFolder {
        &self.cache
    }

    /// Who writes when this process does.
    pub fn writer_id(&self) -> WriterId {
        self.cache.writer()
    }

    /// How this repository cuts content.
    pub fn splitter(&self) -> Splitter {
        Splitter::new(&self.keyring.chunker_secret())
    }

    /// An error unless this program may write here. From now on all listings are fresh: whoever writes or deletes acts on what is
    /// listed and on what is not.
    pub fn check_writable(&self) -> Result<()> {
        let has_acted = self.acts.swap(true, Ordering::AcqRel);
        if !has_acted && self.store.properties().is_shared {
            // The listing with which this was opened may be from before a rotation.
            self.keyring.renew();
        }
        self.check_access()
    }

    /// The same for a run that only shows what would be done.
    pub fn check_access(&self) -> Result<()> {
        match (&self.config_error, self.access) {
            (Some(text), _) => Err(Error::damaged(format!(
                "No config of the repository can be read ({text}), so nothing may be written"
            ))
            .with_hint("Reading works. Run \"firn repair index\" to write a new config.")),
            (None, Access::ReadOnly) => {
                Err(Error::new(ErrorKind::Unsupported, "This repository uses features that this firn can only read")
                    .with_hint("Use a newer firn to write to it."))
            }
            (None, _) => self.check_keys_are_newest(),
        }
    }

    /// Writes config objects again, from defaults, if none can be read. Returns whether it did.
    pub fn repair_config(&self) -> Result<bool> {
        if self.config_error.is_none() {
            return Ok(false);
        }
        let mut highest = 0;
        self.list(ObjectKind::Config, &mut |object| {
            highest = highest.max(object.name.parse::<u64>().unwrap_or(0));
            Ok(())
        })?;
        for number in highest + 1..=highest + 2 {
            let bytes = self.keyring.seal_record(Kind::Config, &self.config.encode()?)?;
            self.store.put(&ObjectKey::new(ObjectKind::Config, number), &bytes)?;
        }
        Ok(true)
    }

    /// The index; loaded at first use. Readers list snapshots before they first call this, so that each snapshot they see
    /// is covered.
    pub fn index(&self) -> Result<Arc<Index>> {
        if let Some(index) = self.index.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(index.clone());
        }
        self.reload_index(&crate::progress::Silent)?;
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        index.ok_or_else(|| Error::new(ErrorKind::Failed, "The index could not be loaded"))
    }

    /// Brings the index up to date with the store.
    pub fn reload_index(&self, progress: &dyn Progress) -> Result<()> {
        // One load at a time within this process (both would build the same tables), while readers go on with the old index.
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_index(progress).map(drop)
    }

    /// Lists objects: fresh, where this program acts on it.
    pub(crate) fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        if self.acts.load(Ordering::Acquire) && !mistake::made(Mistake::StaleListings) {
            self.store.list_fresh(kind, visit)
        } else {
            self.store.list(kind, visit)
        }
    }

    /// Lists objects as they are now, for a reader that is about to say that something is missing. Where it may not write what that
    /// takes in a folder on a network, the listing may be as old as the caches of this machine. An object may come twice.
    pub(crate) fn list_latest(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        match self.store.list_fresh(kind, visit) {
            Err(error) if error.kind() == ErrorKind::Denied => self.store.list(kind, visit),
            listed => listed,
        }
    }

    /// Seals a JSON record and stores it.
    pub(crate) fn put_json<T: Record>(&self, kind: Kind, key: &ObjectKey, value: &T) -> Result<()> {
        let body = json::encode(value)?;
        self.store.put(key, &self.keyring.seal_record(kind, &body)?)
    }

    /// Reads a JSON record.
    pub(crate) fn get_json<T: Record>(&self, kind: Kind, key: &ObjectKey) -> Result<T> {
        let bytes = self.store.get(key, MAX_RECORD_OBJECT)?;
        let read = self.keyring.open_record(kind, bytes).and_then(|body| json::decode(&body));
        read.map_err(|error| error.context(format!("\"{key}\" cannot be read")))
    }
}

/// The writer that stands for all runs of this user on this machine that keep no local state.
fn homeless_writer(keyring: &Keyring) -> WriterId {
    let key = keyring.local_secret("firn v1 writer without state");
    let name = [crate::os::hostname(), crate::os::username()].join("\0");
    let hash = crate::chunk::secret::keyed_hash(&key, &[name.as_bytes()]);
    WriterId(*hash.first_chunk().expect("a hash has 32 bytes"))
}

/// The settings of a new repository.
fn default_config(repository: RepositoryId) -> Config {
    Config {
        version: 1,
        repository,
        created: jiff::Timestamp::now(),
        chunker: Chunker {
            id: CHUNKER,
            min: crate::chunk::split::MIN_CHUNK as u32,
            avg: crate::chunk::split::AVG_CHUNK as u32,
            max: crate::chunk::split::MAX_CHUNK as u32,
        },
        data_pack: 32 << 20,
        tree_pack: 8 << 20,
        features: Features::default(),
    }
}

/// The readable config with the highest number.
fn read_config(store: &dyn Store, keyring: &Keyring, warnings: &mut Vec<Error>) -> Result<(Config, Access)> {
    let mut numbers = Vec::new();
    store.list(ObjectKind::Config, &mut |object| {
        numbers.extend(object.name.parse::<u64>());
        Ok(())
    })?;
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    for number in numbers {
        let key = ObjectKey::new(ObjectKind::Config, number);
        let read = store
            .get(&key, MAX_RECORD_OBJECT)
            .and_then(|bytes| keyring.open_record(Kind::Config, bytes))
            .and_then(|body| {
                let config = Config::decode(&body)?;
                let access = config.access()?;
                Ok((config, access))
            });
        match read {
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Err(error) => warnings.push(error.context(format!("The config \"{key}\" cannot be read"))),
        }
    }
    Err(Error::damaged("No config of the repository can be read")
        .with_hint("Reading works; run \"firn repair index\" to write a new one."))
}
