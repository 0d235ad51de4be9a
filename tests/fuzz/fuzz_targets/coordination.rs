//! Pins, revokes, tombs and marks. Not for: asking whether what is read is right.

#![no_main]

use firn::format::coordination::{Mark, Pin, Revoke, Tomb};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Pin::decode(data) {
        let again = value.encode().expect("what was read can be written");
        assert_eq!(Pin::decode(&again).expect("what was written can be read"), value);
    }
    if let Ok(value) = Revoke::decode(data) {
        let again = value.encode().expect("what was read can be written");
        assert_eq!(Revoke::decode(&again).expect("what was written can be read"), value);
    }
    if let Ok(value) = Tomb::decode(data) {
        let again = value.encode().expect("what was read can be written");
        assert_eq!(Tomb::decode(&again).expect("what was written can be read"), value);
    }
    if let Ok(value) = Mark::decode(data) {
        let again = value.encode().expect("what was read can be written");
        assert_eq!(Mark::decode(&again).expect("what was written can be read"), value);
    }
});
