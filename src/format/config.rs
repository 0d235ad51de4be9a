//! The repository's settings. Not for: settings of the user or of one run.

use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_CHUNK, MAX_PACK};
use crate::format::json::{self, Record, rfc3339};
use crate::id::RepositoryId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The number of the only chunker so far.
pub const CHUNKER: u32 = 1;
/// The features that this program knows.
const KNOWN_FEATURES: [&str; 0] = [];

/// The repository's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// 1.
    pub version: u32,
    /// The repository.
    pub repository: RepositoryId,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Timestamp,
    /// How files are cut.
    pub chunker: Chunker,
    /// Target size of data packs in bytes.
    pub data_pack: u64,
    /// Target size of tree packs in bytes.
    pub tree_pack: u64,
    /// Features in use.
    #[serde(default)]
    pub features: Features,
}

/// How files are cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunker {
    /// The procedure.
    pub id: u32,
    /// Least length of a chunk in bytes (but for the last).
    pub min: u32,
    /// Average length in bytes.
    pub avg: u32,
    /// Greatest length in bytes.
    pub max: u32,
}

impl Default for Chunker {
    fn default() -> Self {
        Chunker { id: CHUNKER, min: 524_288, avg: 1_048_576, max: 4_194_304 }
    }
}

/// Names of features in use, by what a program must not do that does not know them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// It must not open the repository.
    #[serde(default)]
    pub incompat: Vec<String>,
    /// It must not write.
    #[serde(default)]
    pub ro_compat: Vec<String>,
    /// It must not delete.
    #[serde(default)]
    pub prune_compat: Vec<String>,
    /// It need not care.
    #[serde(default)]
    pub compat: Vec<String>,
}

/// What this program may do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Only read.
    ReadOnly,
    /// Read and write, but not delete.
    NoPrune,
    /// Everything.
    Full,
}

fn all_known(names: &[String]) -> bool {
    names.iter().all(|name| KNOWN_FEATURES.contains(&name.as_str()))
}

impl Record for Config {
    const WHAT: &'static str = "config";

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is not 1");
        }
        let Chunker { min, avg, max, .. } = self.chunker;
        if min == 0 || min > avg || avg > max || max as usize > MAX_CHUNK {
            return Err("the lengths of chunks make no sense");
        }
        if self.chunker.id == CHUNKER && self.chunker != Chunker::default() {
            return Err("the lengths of chunks are not those of chunker 1");
        }
        if !(1..=MAX_PACK).contains(&self.data_pack) || !(1..=MAX_PACK).contains(&self.tree_pack) {
            return Err("the size of packs makes no sense");
        }
        Ok(())
    }
}

impl Config {
    /// The body as stored. Fails if it breaks a rule of the format.
    pub fn encode(&self) -> Result<Vec<u8>> {
        json::encode(self)
    }

    /// Reads a body. `Unsupported` for a higher version. Ask `access` before anything else is done.
    pub fn decode(body: &[u8]) -> Result<Config> {
        json::decode(body)
    }

    /// What this program may do with the repository, given the features in use. `Unsupported` if it must not open it.
    pub fn access(&self) -> Result<Access> {
        let features = &self.features;
        if !all_known(&features.incompat) {
            let names = features.incompat.join("\", \"");
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the repository uses features that this firn does not know: \"{}\"", names.escape_debug()),
            )
            .with_hint("Use a newer firn; nothing is damaged."));
        }
        // Chunks cut in another way would be stored a second time.
        if !all_known(&features.ro_compat) || self.chunker.id != CHUNKER {
            return Ok(Access::ReadOnly);
        }
        Ok(if all_known(&features.prune_compat) { Access::Full } else { Access::NoPrune })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation;

    fn config() -> Config {
        Config {
            version: 1,
            repository: RepositoryId([1; 32]),
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            chunker: Chunker::default(),
            data_pack: 1 << 26,
            tree_pack: 1 << 24,
            features: Features::default(),
        }
    }

    #[test]
    fn golden() {
        let expected = format!(
            "{{\"version\":1,\"repository\":\"{}\",\"created\":\"2026-01-02T03:04:05Z\",\"chunker\":{{\"id\":1,\"min\":524288,\
             \"avg\":1048576,\"max\":4194304}},\"data_pack\":67108864,\"tree_pack\":16777216,\"features\":{{\"incompat\":[],\
             \"ro_compat\":[],\"prune_compat\":[],\"compat\":[]}}}}",
            "01".repeat(32)
        );
        assert_eq!(String::from_utf8(config().encode().unwrap()).unwrap(), expected);
        assert_eq!(Config::decode(expected.as_bytes()).unwrap(), config());
    }

    #[test]
    fn features_restrict() {
        let with = |change: fn(&mut Config, Vec<String>)| {
            let mut config = config();
            change(&mut config, vec!["later".into()]);
            Config::decode(&config.encode().unwrap()).unwrap().access()
        };
        assert_eq!(config().access().unwrap(), Access::Full);
        assert_eq!(with(|config, names| config.features.compat = names).unwrap(), Access::Full);
        assert_eq!(with(|config, names| config.features.prune_compat = names).unwrap(), Access::NoPrune);
        assert_eq!(with(|config, names| config.features.ro_compat = names).unwrap(), Access::ReadOnly);
        assert_eq!(with(|config, _| config.chunker.id = 2).unwrap(), Access::ReadOnly);
        let error = with(|config, names| config.features.incompat = names).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let wrong: [fn(&mut Config); 4] = [
            |config| config.chunker.min = 0,
            |config| config.chunker.max = 4_194_305,
            |config| config.data_pack = 0,
            |config| config.tree_pack = MAX_PACK + 1,
        ];
        for change in wrong {
            let mut bad = config();
            change(&mut bad);
            assert!(bad.encode().is_err());
        }
    }

    #[test]
    fn mutations() {
        mutation::exercise(&[config().encode().unwrap()], |bytes| {
            let value = Config::decode(bytes).ok()?;
            assert_eq!(Config::decode(&value.encode().unwrap()).unwrap(), value);
            Some(bytes.to_vec())
        });
    }
}
