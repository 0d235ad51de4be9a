//! Which metadata of two entries differs. Not for: what they hold.
//!
//! The time of birth and the number of allocated blocks do not count: no restore can bring them back, and nobody misses them. Of hard
//! links only their number counts, since each copy of a tree forms groups of its own.

use super::Job;
use crate::error::Result;
use crate::format::tree::{AttributeSet, Attributes, Entry, Timestamp};
use std::cmp::Ordering;
use std::sync::Arc;

/// Metadata that differs: before, and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Permissions.
    Mode(u16, u16),
    /// The owner, by number and name.
    User((u32, Vec<u8>), (u32, Vec<u8>)),
    /// The group, by number and name.
    Group((u32, Vec<u8>), (u32, Vec<u8>)),
    /// Time of the last change.
    Mtime(Timestamp, Timestamp),
    /// Names of the same file.
    Links(u32, u32),
    /// File flags, as `chattr` sets them.
    Flags(u32, u32),
    /// An extended attribute; `None` where there is none.
    Attribute(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
}

/// What differs, if the options ask for it.
pub(super) fn fields(job: &mut Job<'_>, old: &Entry, new: &Entry) -> Vec<Field> {
    let mut fields = Vec::new();
    // A way-point is recorded because paths lead through it; what becomes of it is nobody's concern.
    if !job.context.options.metadata || old.meta.waypoint || new.meta.waypoint {
        return fields;
    }
    let (before, after) = (&old.meta, &new.meta);
    if before.mode != after.mode {
        fields.push(Field::Mode(before.mode, after.mode));
    }
    let (owner, now) = (&before.owner, &after.owner);
    if owner.uid != now.uid {
        fields.push(Field::User((owner.uid, owner.user.clone()), (now.uid, now.user.clone())));
    }
    if owner.gid != now.gid {
        fields.push(Field::Group((owner.gid, owner.group.clone()), (now.gid, now.group.clone())));
    }
    if before.mtime != after.mtime {
        fields.push(Field::Mtime(before.mtime, after.mtime));
    }
    let links = |entry: &Entry| entry.meta.link.map_or(1, |link| link.links);
    if links(old) != links(new) {
        fields.push(Field::Links(links(old), links(new)));
    }
    if before.flags != after.flags {
        fields.push(Field::Flags(before.flags, after.flags));
    }
    if before.attributes != after.attributes {
        match attributes(job, &before.attributes).and_then(|old| Ok((old, attributes(job, &after.attributes)?))) {
            Ok((old, new)) => compare(old, new, &mut fields),
            Err(error) => job.issue(&error.context("Its extended attributes cannot be compared")),
        }
    }
    fields
}

fn attributes(job: &Job<'_>, attributes: &Option<Arc<Attributes>>) -> Result<AttributeSet> {
    match attributes {
        Some(attributes) => job.context.repository.attributes(attributes),
        None => Ok(AttributeSet(Vec::new())),
    }
}

/// Both are sorted by name.
fn compare(old: AttributeSet, new: AttributeSet, fields: &mut Vec<Field>) {
    let (mut old, mut new) = (old.0.into_iter().peekable(), new.0.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        let Some(name) = before.as_ref().or(after.as_ref()).map(|(name, _)| name.clone()) else { return };
        let (before, after) = (before.map(|(_, value)| value), after.map(|(_, value)| value));
        if before != after {
            fields.push(Field::Attribute(name, before, after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_by_name() {
        let set = |list: &[(&str, &str)]| {
            AttributeSet(
                list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
            )
        };
        let mut fields = Vec::new();
        compare(set(&[("a", "1"), ("b", "2"), ("d", "3")]), set(&[("b", "2"), ("c", "4"), ("d", "5")]), &mut fields);
        let some = |text: &str| Some(text.as_bytes().to_vec());
        let expected = [("a", some("1"), None), ("c", None, some("4")), ("d", some("3"), some("5"))];
        let expected = expected.map(|(name, old, new)| Field::Attribute(name.as_bytes().to_vec(), old, new));
        assert_eq!(fields, expected);
    }
}
