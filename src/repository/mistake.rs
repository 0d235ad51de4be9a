//! Mistakes that the protocol of CONCURRENCY in `man/firn-repository.7` must not make, to be made on purpose by the tests
//! that have to find them. Not for: anything outside tests, where no mistake is ever made and all of this compiles to nothing.

/// A step of the protocol left out or done at the wrong time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A writer puts no pin.
    NoPin,
    /// A writer lists the index, and believes it, before it lists marks.
    IndexBeforeMarks,
    /// A writer believes an index that it had loaded before it put its pin.
    StaleIndex,
    /// A writer does not look at the revokes again after its snapshot.
    NoSecondLook,
    /// A pruner does not wait for pins.
    NoWait,
    /// A pruner counts tombs that are younger than its plan.
    YoungTombs,
    /// A pruner relies on packs that another one has condemned.
    OthersMarks,
    /// A change of key slots does not list them again after what it puts and removes.
    KeysNotListedAgain,
    /// Listings that may be old are acted on.
    StaleListings,
    /// A pruner does not wait for a place whose listings lag.
    NoLagWait,
    /// A pruner condemns packs that were stored a moment ago.
    NoAgeGuard,
    /// A pruner takes others' marks away once their packs are gone, though their snapshots are not.
    MarksOfPacksAlone,
    /// A pruner lets a copy of a chunk go and has not read the one that stays.
    UnreadCopy,
}

/// Whether the mistake is to be made by this thread.
#[cfg(not(test))]
pub const fn made(_: Mistake) -> bool {
    false
}

#[cfg(test)]
pub use chosen::{choose, made};

#[cfg(test)]
mod chosen {
    use super::Mistake;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Whether the mistake is to be made by this thread.
    pub fn made(mistake: Mistake) -> bool {
        CHOSEN.get() == Some(mistake)
    }

    /// From now on this thread makes this mistake.
    pub fn choose(mistake: Option<Mistake>) {
        CHOSEN.set(mistake);
    }
}
