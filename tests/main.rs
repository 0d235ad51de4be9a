//! The one integration-test binary; each folder beside this file is a question that it answers.

mod format;
mod support;
