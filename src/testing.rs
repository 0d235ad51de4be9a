//! How much of their work unit tests do. Not for: tests.

/// `short` for somebody who waits for an answer, `long` in CI (`FIRN_TESTS=long`), `full` in the campaigns (`FIRN_EXPLORE=full`).
pub(crate) fn share<T>(short: T, long: T, full: T) -> T {
    let says = |name, wanted| std::env::var_os(name).is_some_and(|value| value == wanted);
    match (says("FIRN_EXPLORE", "full"), says("FIRN_TESTS", "long")) {
        (true, _) => full,
        (false, true) => long,
        (false, false) => short,
    }
}
