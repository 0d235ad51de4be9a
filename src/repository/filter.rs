//! Which snapshots are meant: by host, tags and paths. Not for: which of these a policy keeps (see `forget`).

use crate::format::snapshot::Snapshot;

/// Which snapshots are meant; all of them unless something is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of one of these hosts, if any are named.
    pub hosts: Vec<String>,
    /// With all tags of one of these lists, if any are given. An empty tag means to have none.
    pub tags: Vec<Vec<String>>,
    /// With all of these paths.
    pub paths: Vec<Vec<u8>>,
}

impl Filter {
    /// Whether a snapshot is meant.
    pub fn wants(&self, snapshot: &Snapshot) -> bool {
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && (self.tags.is_empty() || self.tags.iter().any(|tags| has_tags(&snapshot.tags, tags)))
            && self.paths.iter().all(|path| snapshot.paths.iter().any(|known| known.0 == *path))
    }

    /// Whether all snapshots are meant.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// What a snapshot has to have, as a person says it.
    pub fn words(&self) -> String {
        let quoted = |text: String| format!("\"{text}\"");
        let mut words = Vec::new();
        if !self.hosts.is_empty() {
            let hosts: Vec<String> = self.hosts.iter().cloned().map(quoted).collect();
            words.push(format!("the host {}", hosts.join(" or ")));
        }
        if !self.tags.is_empty() {
            let tags: Vec<String> = self.tags.iter().map(|tags| quoted(tags.join(","))).collect();
            words.push(format!("the tags {}", tags.join(" or ")));
        }
        if !self.paths.is_empty() {
            let paths = self.paths.iter().map(|path| quoted(String::from_utf8_lossy(path).into_owned()));
            words.push(format!("the paths {}", paths.collect::<Vec<_>>().join(" and ")));
        }
        words.join(" and ")
    }
}

/// Whether a snapshot with these tags has all of those that are wanted. An empty one is there if there are none. Blanks around a
/// tag do not count.
pub fn has_tags(tags: &[String], wanted: &[String]) -> bool {
    let has = |tag: &str| tags.iter().any(|known| known.trim() == tag) || (tag.is_empty() && tags.is_empty());
    wanted.iter().all(|tag| has(tag.trim()))
}

/// The tags of a list that is written with commas, without the blanks around them.
pub fn tag_list(text: &str) -> Vec<String> {
    text.split(',').map(|tag| tag.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_tags_do_not_count() {
        let list = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        assert_eq!(tag_list(" a b ,c,\td"), ["a b", "c", "d"]);
        assert_eq!((tag_list(""), tag_list(" ")), (list(&[""]), list(&[""])));
        // Also those of snapshots that were stored with them.
        assert!(has_tags(&list(&["a", " b"]), &list(&["b ", "a"])));
        assert!(!has_tags(&list(&["a"]), &list(&["a", ""])) && has_tags(&[], &list(&[" "])));
    }

    #[test]
    fn a_filter_in_words() {
        let filter = Filter { hosts: vec!["a".into(), "b".into()], paths: vec![b"/x".to_vec()], ..Filter::default() };
        assert_eq!(filter.words(), "the host \"a\" or \"b\" and the paths \"/x\"");
        assert!(!filter.is_empty() && Filter::default().is_empty());
    }
}
