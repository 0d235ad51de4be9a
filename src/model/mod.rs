//! A random test of everything at once, against plain copies: files that are made, changed, linked, renamed and replaced, also during
//! backups; two machines with caches of their own; forgetting, pruning, damage, checks, repairs and restores. Not for: the order of
//! single operations of several actors (see `explore`), or crashes (see `tests/crash`).
//!
//! What must hold, after every step: what a backup has acknowledged comes back as one of the states that the files had during that
//! backup, with the same names for the same files if nothing changed meanwhile. Only what damage has hit may be missing, and then
//! restore and check name it. What could be read once is never lost by what is done next.

mod plain;
mod run;
mod script;
mod tests;
mod world;
