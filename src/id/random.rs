//! Random bytes for names, salts and secrets. Not for: deriving keys (see `chunk`).

use crate::error::{Error, ErrorKind, Result};

/// Fills `bytes` from the operating system's random numbers; `Failed` if it has none.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<()> {
    #[cfg(test)]
    if let Some(source) = seeded::current() {
        source.fill(bytes);
        return Ok(());
    }
    getrandom::fill(bytes)
        .map_err(|error| Error::new(ErrorKind::Failed, format!("the system gave no random numbers: {error}")))
}

/// Random numbers that come again, for tests that replay a run. Each thread has its own source, usually none.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex, PoisonError};

    thread_local! {
        static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
    }

    /// A stream of bytes that follows from a seed. Clones continue the same stream.
    #[derive(Clone)]
    pub(crate) struct Source(Arc<Mutex<blake3::OutputReader>>);

    impl Source {
        pub(crate) fn new(seed: &[u8]) -> Source {
            Source(Arc::new(Mutex::new(blake3::Hasher::new_derive_key("firn test").update(seed).finalize_xof())))
        }

        pub(crate) fn fill(&self, bytes: &mut [u8]) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        }
    }

    /// The source of this thread.
    pub(crate) fn current() -> Option<Source> {
        SOURCE.with_borrow(Clone::clone)
    }

    /// From now on this thread's random numbers come from `source`.
    pub(crate) fn set(source: Option<Source>) {
        SOURCE.set(source);
    }

    #[test]
    fn a_seed_brings_the_same_numbers_again_and_other_threads_do_not_notice() {
        let draw = || crate::id::SessionId::random().unwrap();
        let free = draw();
        let [one, two, other] = [b"a", b"a", b"b"].map(|seed| {
            set(Some(Source::new(seed)));
            let elsewhere = std::thread::spawn(draw).join().unwrap();
            let drawn = (draw(), draw());
            set(None);
            assert!(elsewhere != drawn.0 && drawn.0 != drawn.1);
            drawn
        });
        assert!(one == two && one != other && draw() != free);
    }
}
