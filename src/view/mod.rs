//! What snapshots look like as files: the one place that turns trees into paths, attributes, listings and byte ranges.
//! Mount, restore, ls, dump use it. Not for: how trees are stored (`repository`), or the kernel's rules (`firn-fuse`).

pub mod content;
pub mod path;
