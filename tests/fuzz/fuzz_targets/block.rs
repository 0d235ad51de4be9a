//! Bodies of blocks. Not for: asking whether what is read is right.

#![no_main]

use firn::format::block;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(ranges) = block::decode(data) {
        let chunks: Vec<&[u8]> = ranges.iter().map(|range| &data[range.clone()]).collect();
        let mut again = block::encode(&chunks).expect("what was read can be written");
        again.resize(data.len(), 0);
        assert_eq!(again, data);
    }
});
