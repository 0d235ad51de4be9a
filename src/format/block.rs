//! The body of a block: lengths of chunks, then the chunks. Not for: the chunks' ids, compressing and sealing.

use crate::error::Result;
use crate::format::bounds::{MAX_BLOCK_CHUNKS, MAX_BODY, MAX_CHUNK};
use crate::format::bytes::{Put, Reader, unfit};
use std::ops::Range;

/// Length of a block's body with chunks of these lengths, without padding on purpose.
pub fn body_len(lens: &[u32]) -> u64 {
    4 + 4 * lens.len() as u64 + lens.iter().map(|len| u64::from(*len)).sum::<u64>()
}

/// What stands before the chunks in a block with chunks of these lengths; the chunks follow, one behind the other.
pub fn encode_head(lens: &[u32]) -> Result<Vec<u8>> {
    if !(1..=MAX_BLOCK_CHUNKS).contains(&lens.len()) {
        return Err(unfit("block", "it has no chunks, or too many"));
    }
    if lens.iter().any(|len| !(1..=MAX_CHUNK).contains(&(*len as usize))) {
        return Err(unfit("block", "a chunk is empty or too long"));
    }
    if body_len(lens) > MAX_BODY as u64 {
        return Err(unfit("block", "its chunks are too long together"));
    }
    let mut head = Vec::with_capacity(4 + 4 * lens.len());
    head.put_u32(lens.len() as u32);
    for len in lens {
        head.put_u32(*len);
    }
    Ok(head)
}

/// The whole body of a block of these chunks.
pub fn encode<C: AsRef<[u8]>>(chunks: &[C]) -> Result<Vec<u8>> {
    let mut lens = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        match u32::try_from(chunk.as_ref().len()) {
            Ok(len) => lens.push(len),
            Err(_) => return Err(unfit("block", "a chunk is too long")),
        }
    }
    let mut body = encode_head(&lens)?;
    body.reserve_exact(chunks.iter().map(|chunk| chunk.as_ref().len()).sum());
    for chunk in chunks {
        body.extend_from_slice(chunk.as_ref());
    }
    Ok(body)
}

/// Where the chunks are in a block's body, in their order.
pub fn decode(body: &[u8]) -> Result<Vec<Range<usize>>> {
    let mut reader = Reader::new("block", body);
    if body.len() > MAX_BODY {
        return Err(reader.damaged("it is too long"));
    }
    let number = reader.u32()?;
    if number == 0 || number as usize > MAX_BLOCK_CHUNKS {
        return Err(reader.damaged_at(0, "it has no chunks, or too many"));
    }
    // Four bytes of length and at least one of content.
    let number = reader.count(u64::from(number), 5)?;
    let mut start = 4 + 4 * number;
    let mut ranges = Vec::with_capacity(number);
    for _ in 0..number {
        let len = reader.u32()? as usize;
        if len == 0 || len > MAX_CHUNK {
            return Err(reader.damaged("a chunk is empty or too long"));
        }
        let end = start + len;
        if end > body.len() {
            return Err(reader.damaged("a chunk goes beyond its end"));
        }
        ranges.push(start..end);
        start = end;
    }
    if body[start..].iter().any(|byte| *byte != 0) {
        return Err(reader.damaged_at(start, "the padding is not zero"));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation::{self, Rng};

    #[test]
    fn golden() {
        let body = encode(&[&b"abc"[..], b"d"]).unwrap();
        assert_eq!(crate::id::to_hex(&body), "02000000030000000100000061626364");
        assert_eq!(decode(&body).unwrap(), [12..15, 15..16]);
        let padded = [&body[..], &[0; 5]].concat();
        assert_eq!(decode(&padded).unwrap(), [12..15, 15..16]);
        assert!(decode(&[&body[..], &[0, 1]].concat()).is_err());
        assert!(decode(&body[..15]).is_err());
    }

    #[test]
    fn bounds() {
        assert!(encode_head(&[]).is_err());
        assert!(encode_head(&[0]).is_err());
        assert!(encode_head(&[MAX_CHUNK as u32]).is_ok());
        assert!(encode_head(&[MAX_CHUNK as u32 + 1]).is_err());
        assert!(encode_head(&[MAX_CHUNK as u32, MAX_CHUNK as u32]).is_err());
        assert!(encode_head(&vec![1; MAX_BLOCK_CHUNKS]).is_ok());
        assert!(encode_head(&vec![1; MAX_BLOCK_CHUNKS + 1]).is_err());
        assert!(decode(&[0, 0, 0, 0]).is_err());
        assert!(decode(&[0xff; 4]).is_err());
        assert!(decode(&vec![0; MAX_BODY + 1]).is_err());
    }

    #[test]
    fn mutations() {
        let mut rng = Rng::new(1);
        let corpus: Vec<Vec<u8>> = (0..20)
            .map(|_| {
                let chunks: Vec<Vec<u8>> = (0..=rng.below(8))
                    .map(|_| {
                        let len = 1 + rng.below(60);
                        rng.bytes(len)
                    })
                    .collect();
                encode(&chunks).unwrap()
            })
            .collect();
        mutation::exercise(&corpus, |bytes| {
            let ranges = decode(bytes).ok()?;
            let chunks: Vec<&[u8]> = ranges.iter().map(|range| &bytes[range.clone()]).collect();
            let mut again = encode(&chunks).unwrap();
            again.resize(bytes.len(), 0);
            Some(again)
        });
    }
}
