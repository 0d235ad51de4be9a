//! Configs. Not for: asking whether what is read is right.

#![no_main]

use firn::format::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Config::decode(data) {
        let again = value.encode().expect("what was read can be written");
        assert_eq!(Config::decode(&again).expect("what was written can be read"), value);
    }
});
