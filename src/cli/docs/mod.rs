//! Manual pages and completions, made from the definitions of the arguments. Not for: texts of one command (see `command`).

pub(in crate::cli) mod completions;
pub(in crate::cli) mod examples;
pub(in crate::cli) mod man;
pub(in crate::cli) mod mount_page;
