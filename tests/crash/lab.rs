//! Small repositories, and the question asked after every interruption: is all that was acknowledged still there, and does
//! work go on? Not for: interrupting.

use crate::support::compare;
use crate::support::nasty::Random;
use crate::support::quick_folder;
use crate::support::run::FIRN;
use firn::backup::{self, BackupOptions};
use firn::check::{self, CheckOptions, Severity};
use firn::chunk::password::Cost;
use firn::error::Result;
use firn::format::header::Kind;
use firn::id::ObjectName;
use firn::progress::{Silent, Stop};
use firn::repository::keys::Credentials;
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::restore::{self, Overwrite, RestoreOptions};
use firn::store::{MemoryStore, ObjectKey, ObjectKind, Store};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The least work: what is tested here is not the password.
pub(crate) const COST: Cost = Cost { memory: 8, passes: 1, lanes: 1 };

/// Key files that open the repositories.
pub(crate) fn key(number: u8) -> Credentials {
    Credentials { password: None, key_file: Some(vec![number; 100].into()) }
}

/// Sources to back up, and room for copies of a repository.
pub(crate) struct Lab {
    /// Nothing in it changes, so that a second backup finds everything as it was.
    sources: tempfile::TempDir,
    folder: tempfile::TempDir,
}

/// A snapshot that was acknowledged, and a plain folder with what it must hold.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) name: ObjectName,
    /// The folder that was backed up, by the name it had then.
    pub(crate) source: PathBuf,
}

impl Lab {
    /// Four folders, "a" to "d", each sharing much with the one before: every one has small files, a folder, a link, and
    /// files of several chunks, blocks and packs.
    pub(crate) fn new() -> Lab {
        let lab = Lab { sources: quick_folder(), folder: quick_folder() };
        for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            for file in number..number + 3 {
                lab.write(&format!("{name}/large/{file}"), &Random(file as u64).bytes(140_000 + 9_000 * file));
                lab.write(&format!("{name}/small/{file}"), format!("small {file}\n").repeat(file * 3).as_bytes());
            }
            lab.write(&format!("{name}/changes"), name.as_bytes());
            std::os::unix::fs::symlink("large/2", lab.source(&format!("{name}/link"))).unwrap();
        }
        std::fs::write(lab.path("key"), [1; 100]).unwrap();
        lab
    }

    /// A path in the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder to back up.
    pub(crate) fn source(&self, name: &str) -> PathBuf {
        self.sources.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.source(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// An empty folder for local state.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Gives a command what the program needs: the repository "repository", the first key, local state in "cache".
    pub(crate) fn surround(&self, command: &mut Command) {
        command.env_clear().current_dir(self.sources.path()).stdin(std::process::Stdio::null());
        let at = |name: &str| self.path(name).display().to_string();
        for (name, value) in [
            ("FIRN_REPOSITORY", at("repository")),
            ("FIRN_CACHE_DIR", at("cache")),
            ("FIRN_KEY_FILE", at("key")),
            ("HOME", at("home")),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("TZ", "UTC".to_owned()),
        ] {
            command.env(name, value);
        }
    }

    /// The program, ready to be started.
    pub(crate) fn firn(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(FIRN);
        command.args(arguments);
        self.surround(&mut command);
        command
    }

    /// A repository in memory whose packs are so small that a backup stores several.
    pub(crate) fn repository(&self) -> MemoryStore {
        let store = MemoryStore::new();
        init(&store).unwrap();
        small_packs(&(Arc::new(store.clone()) as Arc<dyn Store>));
        store
    }

    /// Backs up a folder of the lab; what comes back was acknowledged.
    pub(crate) fn backup(&self, repository: &Arc<Repository>, name: &str) -> Result<Acknowledged> {
        let source = self.source(name);
        let options = BackupOptions { paths: vec![source.clone()], level: 1, threads: 2, ..BackupOptions::default() };
        let report = backup::run(repository, &options, &Silent, &Stop::new())?;
        Ok(Acknowledged { name: report.snapshot.unwrap(), source })
    }

    /// Nothing is damaged, each of these snapshots is there bit for bit, and the next backup succeeds and is whole, too.
    pub(crate) fn is_whole(&self, repository: &Arc<Repository>, acknowledged: &[Acknowledged], moment: &str) {
        // What an interruption leaves behind is worth a note at most.
        self.is_clean(repository, Severity::Note, moment);
        for one in acknowledged {
            self.restores(repository, one, moment);
        }
        let next = self.backup(repository, "d").unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        self.restores(repository, &next, moment);
        self.is_clean(repository, Severity::Note, moment);
    }

    /// A check of every byte finds nothing worse than this.
    pub(crate) fn is_clean(&self, repository: &Arc<Repository>, worst: Severity, moment: &str) {
        let options = CheckOptions { read_data: true, threads: 2, ..CheckOptions::default() };
        let report = check::run(repository, &options, &Silent, &Stop::new());
        let report = report.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        assert!(report.worst() <= Some(worst), "{moment}: {:#?}", report.findings);
    }

    /// The snapshot is live and holds what its source held.
    pub(crate) fn restores(&self, repository: &Arc<Repository>, one: &Acknowledged, moment: &str) {
        let found = repository.snapshots().unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        let snapshot = found.live.iter().find(|named| named.name == one.name);
        let snapshot = snapshot.unwrap_or_else(|| panic!("{moment}: \"{}\" was acknowledged and is gone", one.name));
        let target = self.path("restored");
        drop(std::fs::remove_dir_all(&target));
        let options = RestoreOptions {
            target: target.clone(),
            overwrite: Overwrite::Always,
            include: Vec::new(),
            exclude: Vec::new(),
            dry_run: false,
            verify: false,
            threads: 2,
        };
        let report = restore::run(repository, &snapshot.snapshot, b"", &options, &Silent, &Stop::new());
        let report = report.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        assert_eq!(report.issues, 0, "{moment}: {report:?}");
        let restored = target.join(one.source.strip_prefix("/").unwrap());
        let differences = compare::trees(&one.source, &restored, compare::Options::default());
        assert!(differences.is_empty(), "{moment}: {differences:?}");
    }
}

/// Makes a repository that the first key opens.
pub(crate) fn init(store: &dyn Store) -> Result<()> {
    Repository::init(store, &key(1), COST, "first").map(drop)
}

/// A config of packs of 64 KiB, so that little content fills several.
pub(crate) fn small_packs(store: &Arc<dyn Store>) {
    let repository = open(store.clone(), &key(1), None).unwrap();
    let mut config = repository.config().clone();
    (config.data_pack, config.tree_pack) = (64 << 10, 2 << 10);
    let bytes = repository.keyring().seal_record(Kind::Config, &config.encode().unwrap()).unwrap();
    store.put(&ObjectKey::new(ObjectKind::Config, 3), &bytes).unwrap();
}

/// Opens a repository, with local state in this folder if one is given.
pub(crate) fn open(store: Arc<dyn Store>, with: &Credentials, cache: Option<&Path>) -> Result<Arc<Repository>> {
    let cache = cache.map_or(CacheChoice::None, |path| CacheChoice::Root(path.to_path_buf()));
    Repository::open(store, with, &OpenOptions { cache, block_cache: 8 << 20 }).map(Arc::new)
}

/// Another store with the same objects.
pub(crate) fn twin(store: &MemoryStore) -> MemoryStore {
    let other = MemoryStore::new();
    for key in store.raw_keys() {
        other.raw_set(&key, store.raw_get(&key).expect("it was listed just now"));
    }
    other
}
