//! Messages and the Zstandard frames in them. Not for: asking whether what is read is right.

#![no_main]

use firn::chunk::compress::Decompressor;
use firn::format::frame::FrameTag;
use firn::format::message::{Codec, MESSAGE_HEAD_LEN, MessageHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for tag in [FrameTag::Block, FrameTag::Contents, FrameTag::Record] {
        let Ok(head) = MessageHead::decode(data, tag) else { continue };
        assert_eq!(head.encode(), data[..MESSAGE_HEAD_LEN]);
        if head.codec == Codec::Zstd {
            let (mut decompressor, mut body) = (Decompressor::new().expect("Zstandard is there"), Vec::new());
            let read = decompressor.decompress(&data[MESSAGE_HEAD_LEN..], head.body_len as usize, &mut body);
            assert_eq!(body.len(), if read.is_ok() { head.body_len as usize } else { 0 });
        }
    }
});
