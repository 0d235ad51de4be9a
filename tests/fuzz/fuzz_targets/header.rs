//! Headers of objects. Not for: asking whether what is read is right.

#![no_main]

use firn::format::header::{HEADER_LEN, Header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = Header::decode(data) {
        assert_eq!(header.encode(), data[..HEADER_LEN]);
    }
});
