//! Does firn read what it wrote long ago, and does somebody else's program read it as well? Not for: making new backups.

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

mod golden;
mod maker;
mod manifest;
mod python;

use firn::repository::keys::Credentials;
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::store::LocalStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The golden repositories, oldest first. One is added with each format version, none is ever changed.
pub(crate) const GOLDEN: [&str; 1] = ["v1"];

/// Opens in all golden repositories.
pub(crate) const PASSWORD: &str = "Eis und Schnee, naïve";

/// Where the golden repositories and vectors are.
pub(crate) fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Opens a repository in a local folder, without local state.
pub(crate) fn open(folder: &Path, password: &str) -> Repository {
    let credentials = Credentials { password: Some(password.as_bytes().to_vec().into()), key_file: None };
    let store = Arc::new(LocalStore::open(folder).unwrap());
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 8 << 20 };
    Repository::open(store, &credentials, &options).unwrap()
}
