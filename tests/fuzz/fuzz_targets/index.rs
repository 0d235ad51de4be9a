//! Index segments. Not for: asking whether what is read is right.

#![no_main]

use firn::format::index::Segment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Segment::decode(data) {
        assert_eq!(value.encode().expect("what was read can be written"), data);
    }
});
