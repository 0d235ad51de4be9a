//! What went wrong, as the snapshot tells it: bounded, so that a snapshot can always be written. Not for: telling a person at
//! once (`Progress::issue` does, of everything).

use crate::format::bounds::MAX_ISSUES;
use crate::format::json::PathText;
use crate::format::snapshot::{Issue, IssueKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes kept of a path. Deep paths are longer than the system takes at once; the beginning tells where to look.
const MAX_PATH: usize = 4096;
/// Characters kept of a message.
const MAX_MESSAGE: usize = 1000;
/// Bytes of all paths and messages. JSON writes a byte with at most 6, so that this stays below a snapshot's 16 MiB.
const MAX_TOTAL: usize = 2 << 20;

/// Collects issues in order; those that have no room are counted.
#[derive(Clone, Debug, Default)]
pub struct Issues {
    kept: Vec<Issue>,
    bytes: usize,
    total: u64,
}

impl Issues {
    /// Takes one more.
    pub fn add(&mut self, path: &Path, kind: IssueKind, message: &str) {
        let path = path.as_os_str().as_bytes();
        let path = path[..path.len().min(MAX_PATH)].to_vec();
        self.append(Issue { path: PathText(path), kind, message: message.chars().take(MAX_MESSAGE).collect() });
        self.total += 1;
    }

    /// Takes those of `later` behind its own.
    pub fn extend(&mut self, later: Issues) {
        for issue in later.kept {
            self.append(issue);
        }
        self.total += later.total;
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Those that are kept, the first ones.
    pub fn into_kept(self) -> Vec<Issue> {
        self.kept
    }

    fn append(&mut self, issue: Issue) {
        let bytes = self.bytes + issue.path.0.len() + issue.message.len();
        // Once one had no room, no smaller one gets in behind it: what is kept is the beginning.
        if self.kept.len() < MAX_ISSUES && bytes <= MAX_TOTAL {
            self.kept.push(issue);
        }
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_long_issues_fit_into_a_snapshot() {
        let mut issues = Issues::default();
        let path = format!("/{}", "\u{1}".repeat(45_000));
        for _ in 0..3000 {
            issues.add(Path::new(&path), IssueKind::Unreadable, &"\u{1}".repeat(5000));
        }
        assert_eq!(issues.total(), 3000);
        let kept = issues.into_kept();
        assert!(kept.len() > 100 && kept.iter().all(|issue| issue.path.0.len() == 4096 && issue.message.len() == 1000));
        let json = serde_json::to_vec(&kept).unwrap();
        assert!(json.len() < 15 << 20, "{}", json.len());
    }

    #[test]
    fn the_first_ones_are_kept_and_all_are_counted() {
        let (mut first, mut later) = (Issues::default(), Issues::default());
        for n in 0..MAX_ISSUES {
            later.add(Path::new(&n.to_string()), IssueKind::Vanished, "gone");
        }
        first.add(Path::new("/named"), IssueKind::Unreadable, "is missing");
        first.extend(later);
        assert_eq!(first.total(), MAX_ISSUES as u64 + 1);
        let kept = first.into_kept();
        assert_eq!(kept.len(), MAX_ISSUES);
        assert_eq!((&kept[0].path.0[..], &kept[1].path.0[..]), (&b"/named"[..], &b"0"[..]));
        let mut issues = Issues::default();
        for _ in 0..2000 {
            issues.add(Path::new(&"x".repeat(4096)), IssueKind::Unreadable, "");
        }
        let full = issues.clone().into_kept().len();
        issues.add(Path::new("/short"), IssueKind::Unreadable, "");
        assert_eq!(issues.into_kept().len(), full);
    }
}
