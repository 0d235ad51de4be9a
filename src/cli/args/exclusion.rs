//! Options that leave files out of a backup, or out of a comparison with one. Not for: what a pattern matches (see `crate::pattern`).

use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// What is left out.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub(crate) struct ExclusionArgs {
    /// Leave out what matches PATTERN: a name, or a path with "*", "?", "[a-z]", "**"; "!" in front takes back
    #[arg(short = 'e', long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Leave out what matches a line of FILE; these patterns come before those of --exclude
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    exclude_file: Vec<PathBuf>,

    /// Leave out what is in folders with a CACHEDIR.TAG
    #[arg(long)]
    pub(crate) exclude_caches: bool,

    /// Stay on the file systems of the named paths
    #[arg(short = 'x', long)]
    pub(crate) one_file_system: bool,
}

impl ExclusionArgs {
    /// All patterns, in order.
    pub(crate) fn excludes(&self) -> Result<Vec<String>> {
        let mut excludes = Vec::new();
        for path in &self.exclude_file {
            excludes.extend(read_patterns(path)?);
        }
        excludes.extend(self.exclude.iter().cloned());
        Ok(excludes)
    }
}

/// The patterns of a file, one a line, as `Patterns::add_file` reads them.
fn read_patterns(path: &Path) -> Result<Vec<String>> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        Error::io(format!("The file with patterns \"{shown}\" cannot be read"), error).with_kind(ErrorKind::Failed)
    })?;
    let mut patterns = crate::pattern::Patterns::new();
    patterns.add_file(&shown.to_string(), &bytes)?;
    let text = |pattern: &Vec<u8>| {
        String::from_utf8(pattern.clone()).map_err(|_| {
            Error::new(ErrorKind::Input, format!("\"{}\" in \"{shown}\" is not UTF-8", text::escape(pattern)))
        })
    };
    patterns.texts().iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_patterns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("patterns");
        assert!(read_patterns(&path).is_err());
        std::fs::write(&path, "# comment\n\n*.o\n!keep.o\n").unwrap();
        assert_eq!(read_patterns(&path).unwrap(), ["*.o", "!keep.o"]);
        std::fs::write(&path, b"a\xff\n").unwrap();
        assert_eq!(read_patterns(&path).unwrap_err().kind(), ErrorKind::Input);
    }
}
