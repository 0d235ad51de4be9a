//! Which kinds of objects an actor can still change or look at, and so which steps nobody else has to do with. Not for: what it
//! does look at.
//!
//! A step that no other actor's later steps depend on, nor it on theirs, can be taken at once: what comes of all orders comes of
//! those in which it is taken first (the persistent sets of Godefroid, Partial-Order Methods for the Verification of Concurrent
//! Systems, 1996, of one actor each). That an actor keeps to what is said here is asserted at each of its steps.

use super::actors::Role;
use super::step::Step;
use crate::store::ObjectKind::{self, Data, Index, Mark, Pin, Revoke, Snapshot, Tomb, Tree};

/// A set of kinds of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(u16);

impl Kinds {
    pub(super) fn of(kinds: &[ObjectKind]) -> Kinds {
        kinds.iter().fold(Kinds(0), |set, kind| set.and(*kind))
    }

    pub(super) fn and(self, kind: ObjectKind) -> Kinds {
        Kinds(self.0 | 1 << kind as u16)
    }

    pub(super) fn with(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    fn is_within(self, other: Kinds) -> bool {
        self.0 & !other.0 == 0
    }
}

/// What an actor can still put or delete, and list or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    changes: Kinds,
    looks: Kinds,
}

impl Reach {
    /// Of an actor that has not come to its end. One that backs up reaches less once its snapshot is stored.
    pub(super) fn of(role: Role, has_snapshot: bool, has_content: bool) -> Reach {
        let (changes, looks): (&[ObjectKind], &[ObjectKind]) = match role {
            Role::Writer | Role::WriterOfMore | Role::Heir | Role::CarefulHeir if has_snapshot => {
                (&[Pin, Tomb], &[Revoke, Tomb])
            }
            Role::Writer | Role::WriterOfMore | Role::Heir | Role::CarefulHeir => {
                (&[Pin, Tree, Index, Snapshot, Tomb], &[Mark, Index, Tree, Snapshot, Tomb, Revoke, Data])
            }
            Role::Pruner => (
                &[Tree, Index, Snapshot, Tomb, Mark, Pin, Revoke],
                &[Tree, Index, Snapshot, Tomb, Mark, Pin, Revoke, Data],
            ),
            Role::Forget => (&[Tomb], &[Snapshot, Tomb]),
            Role::Undelete => (&[Tomb], &ObjectKind::ALL),
        };
        let mut reach = Reach { changes: Kinds::of(changes), looks: Kinds::of(looks) };
        if has_content && reach.changes.meets(Kinds::of(&[Tree])) {
            reach.changes = reach.changes.and(Data);
        }
        reach
    }

    pub(super) fn with(self, other: Reach) -> Reach {
        Reach { changes: self.changes.with(other.changes), looks: self.looks.with(other.looks) }
    }

    /// What a step changes and looks at, with what is read after it.
    pub(super) fn of_step(step: &Step, read: Kinds) -> Reach {
        let (changes, looks) = match step {
            Step::Put(key, _) | Step::Delete(key) => (Kinds::of(&[key.kind]), read),
            Step::List { kind, .. } => (Kinds::default(), read.and(*kind)),
            Step::Read(key) => (Kinds::default(), read.and(key.kind)),
            Step::Pick(_) | Step::Sleep => (Kinds::default(), read),
            Step::Wait(_) => (Kinds::of(&[Revoke]), read.with(Kinds::of(&[Pin, Revoke]))),
        };
        Reach { changes, looks }
    }

    pub(super) fn is_within(self, other: Reach) -> bool {
        self.changes.is_within(other.changes) && self.looks.is_within(other.looks)
    }

    /// Neither makes a difference to what the other does or sees, nor does what this changes to what was promised.
    pub(super) fn is_independent_of(self, other: Reach) -> bool {
        let judged = Kinds::of(&[Data, Tree, Index, Snapshot, Tomb]);
        !self.changes.meets(judged.with(other.changes).with(other.looks)) && !other.changes.meets(self.looks)
    }
}
