//! Key slots, and what is sealed in them. Not for: asking whether what is read is right.

#![no_main]

use firn::format::key_slot::{Description, KeySlot, Secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = KeySlot::decode(data) {
        assert_eq!(value.encode().expect("what was read can be written"), data);
    }
    if let Ok(secrets) = Secrets::decode(data) {
        assert_eq!(*secrets.encode().expect("what was read can be written"), data);
    }
    let _ = Description::decode(data);
});
