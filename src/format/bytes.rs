//! Reading and writing the primitive values of the format within bounds. Not for: any record's layout.

use crate::error::{Error, ErrorKind, Result};

/// Reads values one behind the other; every error names the record and the offset.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start; `what` names the record in errors ("tree page").
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Reader { what, bytes, at: 0 }
    }

    /// How far it has read.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Damage found at offset `at`.
    #[cold]
    pub fn damaged_at(&self, at: usize, why: &str) -> Error {
        Error::damaged(format!("a {} is damaged at offset {at}: {why}", self.what))
    }

    /// Damage found just before the current offset.
    #[cold]
    pub fn damaged(&self, why: &str) -> Error {
        self.damaged_at(self.at, why)
    }

    /// The next `count` bytes.
    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..count)) {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None => Err(self.damaged("it ends too early")),
        }
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.damaged("it ends too early")),
        }
    }

    /// An unsigned byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Unsigned LEB128, shortest form only.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.damaged_at(start, "a number is too large"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.damaged_at(start, "a number is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.damaged_at(start, "a number is too long"))
    }

    /// A varint of at most `max`.
    #[inline]
    pub fn varint_to(&mut self, max: u64) -> Result<u64> {
        let start = self.at;
        let value = self.varint()?;
        if value > max {
            return Err(self.damaged_at(start, "a number is out of bounds"));
        }
        Ok(value)
    }

    /// A varint that fits in 32 bits.
    #[inline]
    pub fn varint_u32(&mut self) -> Result<u32> {
        self.varint_to(u64::from(u32::MAX)).map(|value| value as u32)
    }

    /// A signed number in zigzag form.
    #[inline]
    pub fn svarint(&mut self) -> Result<i64> {
        self.varint().map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A byte with a length, then that many bytes.
    #[inline]
    pub fn short(&mut self) -> Result<&'a [u8]> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }

    /// Accepts `number` of items to come, each at least `least` bytes long, if the bytes left can hold so many: so that
    /// nothing is allocated for items that cannot be there.
    #[inline]
    pub fn count(&self, number: u64, least: usize) -> Result<usize> {
        if number > (self.remaining() / least.max(1)) as u64 {
            return Err(self.damaged("it announces more than it can hold"));
        }
        Ok(number as usize)
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        if self.remaining() > 0 {
            return Err(self.damaged("something follows its end"));
        }
        Ok(())
    }
}

/// Appends values to a buffer.
pub trait Put {
    /// An unsigned byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes, little-endian.
    fn put_u16(&mut self, value: u16);
    /// Four bytes, little-endian.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes, little-endian.
    fn put_u64(&mut self, value: u64);
    /// Unsigned LEB128, shortest form.
    fn put_varint(&mut self, value: u64);
    /// A signed number in zigzag form.
    fn put_svarint(&mut self, value: i64);
    /// A byte with the length, then the bytes; the caller has checked that there are at most 255.
    fn put_short(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_svarint(&mut self, value: i64) {
        self.put_varint((value << 1 ^ value >> 63) as u64);
    }

    fn put_short(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= 255);
        self.push(bytes.len() as u8);
        self.extend_from_slice(bytes);
    }
}

/// Bytes that `value` takes as a varint, 1 to 10.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The error of an encoder that was given something the format cannot hold.
#[cold]
pub(crate) fn unfit(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Input, format!("a {what} cannot be recorded: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation;

    #[test]
    fn varints_round_trip_and_have_the_announced_length() {
        let mut values = vec![0, 1, 127, 128, 16_383, 16_384, u64::MAX, u64::MAX - 1];
        values.extend((0..64).map(|bit| 1u64 << bit));
        for value in values {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(bytes.len(), varint_len(value));
            let mut reader = Reader::new("test", &bytes);
            assert_eq!(reader.varint().unwrap(), value);
            reader.finish().unwrap();
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX, -1_000_000_007] {
            let mut bytes = Vec::new();
            bytes.put_svarint(value);
            assert_eq!(Reader::new("test", &bytes).svarint().unwrap(), value);
        }
    }

    #[test]
    fn golden_numbers() {
        let mut bytes = Vec::new();
        bytes.put_varint(300);
        bytes.put_svarint(-1);
        bytes.put_svarint(1);
        bytes.put_u16(0x0102);
        bytes.put_u32(0x0304_0506);
        bytes.put_u64(7);
        bytes.put_short(b"ab");
        assert_eq!(crate::id::to_hex(&bytes), "ac02010202010605040307000000000000000261 62".replace(' ', ""));
    }

    #[test]
    fn long_forms_of_numbers_are_rejected() {
        for bad in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0x80],
            &[],
        ] {
            let error = Reader::new("test", bad).varint().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
    }

    #[test]
    fn errors_name_record_and_offset() {
        let mut reader = Reader::new("thing", &[1, 2, 3]);
        reader.u16().unwrap();
        assert_eq!(reader.u32().unwrap_err().to_string(), "a thing is damaged at offset 2: it ends too early");
        assert!(reader.count(2, 1).is_err());
        assert!(reader.count(u64::MAX, 1).is_err());
        assert_eq!(reader.count(1, 1).unwrap(), 1);
        assert!(reader.finish().is_err());
    }

    #[test]
    fn mutated_numbers_never_panic() {
        let mut corpus = Vec::new();
        for shift in 0..64 {
            let mut bytes = Vec::new();
            bytes.put_varint(u64::MAX >> shift);
            corpus.push(bytes);
        }
        mutation::exercise(&corpus, |bytes| {
            let mut reader = Reader::new("number", bytes);
            let value = reader.varint().ok()?;
            reader.finish().ok()?;
            let mut again = Vec::new();
            again.put_varint(value);
            Some(again)
        });
    }
}
