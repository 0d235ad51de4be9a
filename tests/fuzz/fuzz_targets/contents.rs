//! Contents lists of packs. Not for: asking whether what is read is right.

#![no_main]

use firn::format::contents::Contents;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Contents::decode(data) {
        assert_eq!(value.encode().expect("what was read can be written"), data);
    }
});
