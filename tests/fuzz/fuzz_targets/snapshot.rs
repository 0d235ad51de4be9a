//! Snapshots. Not for: asking whether what is read is right.

#![no_main]

use firn::format::snapshot::Snapshot;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Snapshot::decode(data) {
        let again = value.encode().expect("what was read can be written");
        assert_eq!(Snapshot::decode(&again).expect("what was written can be read"), value);
    }
});
