//! Who may look into a folder that is gathered from several snapshots: nobody who was kept out of it in any of them. Not for: what
//! is in a snapshot, of which the recorded permissions count.

use crate::error::Result;
use crate::format::tree::{AttributeSet, Attributes, Metadata};
use crate::mount::tree::numbers::Top;
use crate::repository::Repository;

/// Mode, owner and group.
pub(in crate::mount) type Rights = (u16, u32, u32);

/// What is recorded of who may look into a folder: mode, owner, group.
pub(super) fn rights(repository: &Repository, meta: &Metadata) -> Result<Rights> {
    let is_list = |set: &AttributeSet| set.0.iter().any(|(name, _)| name.as_slice() == b"system.posix_acl_access");
    let has_list = match meta.attributes.as_deref() {
        None => false,
        Some(Attributes::Inline(set)) => is_list(set),
        Some(attributes) => is_list(&repository.attributes(attributes)?),
    };
    // With an access control list, the mode does not say what the group may: then only the owner counts.
    let mode = if has_list { meta.mode & 0o500 } else { meta.mode & 0o555 };
    Ok((mode, meta.owner.uid, meta.owner.gid))
}

/// Of a directory that is shown without those above it: mode, owner and group that let nobody in whom one of these keeps out. `None`
/// if they keep nobody out.
pub(in crate::mount) fn of_top(repository: &Repository, top: &Top) -> Result<Option<Rights>> {
    let mut closed = None;
    for meta in &top.above {
        let (mode, uid, gid) = rights(repository, meta)?;
        // On the way to a directory, those above need only be searched.
        let way = (mode & 0o111) * 5;
        if way != 0o555 {
            closed = Some(closer(closed, (way, uid, gid)));
        }
    }
    closed.map(|closed| Ok(closer(Some(closed), rights(repository, &top.entry.meta)?))).transpose()
}

/// What lets in only those whom both let in.
pub(super) fn closer(one: Option<Rights>, other: Rights) -> Rights {
    let Some(one) = one else { return other };
    let (mut mode, mut uid, mut gid) = (one.0 & other.0, one.1, one.2);
    if (one.1, one.2) != (other.1, other.2) {
        // Different owners are let in only where everybody is.
        mode = if mode == 0o555 { mode } else { 0o500 };
        (uid, gid) = (0, 0);
    }
    (mode, uid, gid)
}
