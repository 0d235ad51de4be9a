//! A directory becomes a snapshot. This part reads the source: what to read, in which order, with which metadata.

pub mod content;
pub mod exclude;
pub mod meta;
pub mod source;
pub mod walk;
