//! Places that keep objects. Not for: stores around other stores (see `layer`).

pub(super) mod local;
pub(super) mod memory;
