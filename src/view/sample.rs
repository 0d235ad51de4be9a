//! Repositories in memory for the tests of this folder. Not for: anything else.
#![cfg(test)]
