//! Records ⇄ bytes, exactly as `man/firn-repository.7` says. Not for: keys, input or output.

pub mod tree;
