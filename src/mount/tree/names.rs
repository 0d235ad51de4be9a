//! Names and numbers that snapshots get in a mounted tree: stable, unique, and safe on every system that may see them.
//! Pure functions. Not for: which folders there are (see `folders`).

use crate::id::ObjectName;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Longest name of a folder made from a host's name or a tag, in bytes.
const LONGEST: usize = 200;
/// How times are written unless told otherwise; no colons, which other systems refuse.
pub const DEFAULT_TIME: &str = "%Y-%m-%d_%H-%M-%S";

/// `2026-11-21_04-29-33`, in a time zone.
pub fn time_name(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime(DEFAULT_TIME).to_string()
}

/// Names for snapshots given by (time, name) in order, as `write` makes them of the time: the later one of two that would get
/// the same gets `_2`, and so on.
pub fn unique_times(
    sorted: &[(Timestamp, ObjectName)],
    write: &dyn Fn(Timestamp) -> String,
) -> HashMap<ObjectName, String> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut names = HashMap::with_capacity(sorted.len());
    for (time, snapshot) in sorted {
        let name = write(*time);
        let count = seen.entry(name.clone()).or_insert(0);
        *count += 1;
        let unique = if *count == 1 { name } else { format!("{name}_{count}") };
        names.insert(*snapshot, unique);
    }
    names
}

/// The first eight digits of a snapshot's name, or as many more as it takes to tell it from the others.
pub fn short_names(snapshots: &[ObjectName]) -> HashMap<ObjectName, String> {
    let mut sorted = snapshots.to_vec();
    sorted.sort();
    sorted.dedup();
    let full: Vec<String> = sorted.iter().map(ToString::to_string).collect();
    let shared = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let mut names = HashMap::with_capacity(sorted.len());
    for (at, snapshot) in sorted.iter().enumerate() {
        let before = at.checked_sub(1).map_or(0, |before| shared(&full[before], &full[at]));
        let after = full.get(at + 1).map_or(0, |after| shared(after, &full[at]));
        let digits = (before.max(after) + 1).clamp(8, full[at].len());
        names.insert(*snapshot, full[at][..digits].to_owned());
    }
    names
}

/// A host's name or a tag as the name of a folder. Different ones may get the same name; they share a folder then.
pub fn safe_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        let c = if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c };
        if name.len() + c.len_utf8() > LONGEST {
            break;
        }
        name.push(c);
    }
    match name.as_str() {
        "" => "_".to_owned(),
        "." => "_.".to_owned(),
        ".." => "_..".to_owned(),
        _ => name,
    }
}

/// Gives each key a number in `first..first + count`: the one it has in `known`, else the next free one from its hash on.
/// Keys come in the order in which they may choose. With fewer than `count` keys this always ends.
pub fn assign<K: Eq + Hash + Clone>(
    known: &HashMap<K, u64>,
    keys: impl Iterator<Item = (K, u64)>,
    first: u64,
    count: u64,
) -> HashMap<K, u64> {
    let keys: Vec<(K, u64)> = keys.collect();
    let mut numbers: HashMap<K, u64> = HashMap::with_capacity(keys.len());
    for (key, _) in &keys {
        if let Some(number) = known.get(key) {
            numbers.insert(key.clone(), *number);
        }
    }
    let mut used: HashSet<u64> = numbers.values().copied().collect();
    for (key, hash) in keys {
        if numbers.contains_key(&key) {
            continue;
        }
        let mut step = hash % count;
        while !used.insert(first + step) {
            step = (step + 1) % count;
        }
        numbers.insert(key, first + step);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first: u8, last: u8) -> ObjectName {
        let mut name = ObjectName([first; 32]);
        name.0[31] = last;
        name
    }

    #[test]
    fn times_in_the_same_second_are_told_apart_in_order() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut list = [
            (time("2026-11-21T04:29:33.9Z"), name(1, 0)),
            (time("2026-11-21T04:29:33.1Z"), name(9, 0)),
            (time("2026-11-21T04:29:33.9Z"), name(0, 0)),
            (time("2026-11-21T04:29:34Z"), name(5, 0)),
        ];
        list.sort();
        let names = unique_times(&list, &|time| time_name(time, &TimeZone::UTC));
        assert_eq!(names[&name(9, 0)], "2026-11-21_04-29-33");
        assert_eq!(names[&name(0, 0)], "2026-11-21_04-29-33_2");
        assert_eq!(names[&name(1, 0)], "2026-11-21_04-29-33_3");
        assert_eq!(names[&name(5, 0)], "2026-11-21_04-29-34");
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(unique_times(&list, &|time| time_name(time, &zone))[&name(9, 0)], "2026-11-21_01-29-33");
    }

    #[test]
    fn short_names_grow_only_where_they_must() {
        let names = short_names(&[name(1, 1), name(1, 2), name(2, 0)]);
        assert_eq!(names[&name(2, 0)], "02020202");
        assert_eq!(names[&name(1, 1)].len(), 64);
        assert_ne!(names[&name(1, 1)], names[&name(1, 2)]);
    }

    #[test]
    fn names_of_hosts_cannot_lead_elsewhere() {
        for (text, safe) in [("", "_"), (".", "_."), ("..", "_.."), ("a/b", "a_b"), ("x:y\n", "x_y_"), (".a", ".a")] {
            assert_eq!(safe_name(text), safe);
        }
        assert!(safe_name(&"ü".repeat(500)).len() <= LONGEST);
    }

    #[test]
    fn numbers_are_kept_and_collisions_probed() {
        let none = HashMap::new();
        let first = assign(&none, [("a", 3), ("b", 3), ("c", 4)].into_iter(), 1, 5);
        assert_eq!((first["a"], first["b"], first["c"]), (4, 5, 1));
        let second = assign(&first, [("x", 3), ("b", 3), ("c", 4)].into_iter(), 1, 5);
        assert_eq!((second["b"], second["c"], second["x"]), (5, 1, 4));
        assert_eq!(second.len(), 3);
    }
}
