//! What several questions need: trees to back up, comparisons, running the binary. Not for: tests.
