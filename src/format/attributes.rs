//! Attribute sets ⇄ bytes. Not for: reading attributes of files (see `os`), where a set is kept (see `page`).

use crate::error::Result;
use crate::format::bounds::{MAX_ATTRIBUTE_SET, MAX_ATTRIBUTE_VALUE, MAX_NAME};
use crate::format::bytes::{Put, Reader, unfit, varint_len};
use crate::format::tree::AttributeSet;

impl AttributeSet {
    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.0.is_empty() {
            return Err("there are no attributes");
        }
        for (name, value) in &self.0 {
            if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) {
                return Err("an attribute's name is not one");
            }
            if value.len() > MAX_ATTRIBUTE_VALUE {
                return Err("an attribute's value is too long");
            }
        }
        if !self.0.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("the attributes are not in order");
        }
        Ok(())
    }

    /// Length in bytes when encoded.
    pub fn encoded_len(&self) -> usize {
        let each = self.0.iter().map(|(name, value)| 1 + name.len() + varint_len(value.len() as u64) + value.len());
        varint_len(self.0.len() as u64) + each.sum::<usize>()
    }

    /// The bytes as stored. Fails if the set is empty, out of order or too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let len = self.encoded_len();
        if len > MAX_ATTRIBUTE_SET {
            return Err(unfit("set of attributes", "it is too long"));
        }
        self.check().map_err(|why| unfit("set of attributes", why))?;
        let mut bytes = Vec::with_capacity(len);
        bytes.put_varint(self.0.len() as u64);
        for (name, value) in &self.0 {
            bytes.put_short(name);
            bytes.put_varint(value.len() as u64);
            bytes.extend_from_slice(value);
        }
        Ok(bytes)
    }

    /// Reads a set that fills `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<AttributeSet> {
        let mut reader = Reader::new("set of attributes", bytes);
        if bytes.len() > MAX_ATTRIBUTE_SET {
            return Err(reader.damaged("it is too long"));
        }
        let number = reader.varint()?;
        let number = reader.count(number, 3)?;
        let mut set = Vec::with_capacity(number);
        for _ in 0..number {
            let name = reader.short()?.to_vec();
            let len = reader.varint_to(MAX_ATTRIBUTE_VALUE as u64)?;
            set.push((name, reader.bytes(len as usize)?.to_vec()));
        }
        let set = AttributeSet(set);
        set.check().map_err(|why| reader.damaged_at(0, why))?;
        reader.finish()?;
        Ok(set)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::mutation::{self, Rng};

    pub(crate) fn generate(rng: &mut Rng) -> AttributeSet {
        let mut set: Vec<(Vec<u8>, Vec<u8>)> = (0..=rng.below(3))
            .map(|number| {
                let len = rng.below(40);
                (format!("user.{number}").into_bytes(), rng.bytes(len))
            })
            .collect();
        set.sort();
        AttributeSet(set)
    }

    #[test]
    fn golden() {
        let set = AttributeSet(vec![(b"user.a".to_vec(), vec![1, 2]), (b"user.b".to_vec(), vec![])]);
        assert_eq!(crate::id::to_hex(&set.encode().unwrap()), "0206757365722e6102010206757365722e6200");
        assert_eq!(AttributeSet::decode(&set.encode().unwrap()).unwrap(), set);
    }

    #[test]
    fn bounds() {
        let one = |name: &[u8], value: usize| AttributeSet(vec![(name.to_vec(), vec![0; value])]).encode();
        assert!(one(b"a", 65_536).is_ok());
        assert!(one(b"a", 65_537).is_err());
        assert!(one(b"", 1).is_err());
        assert!(one(b"a\0", 1).is_err());
        assert!(one(&[b'a'; 256], 1).is_err());
        assert!(AttributeSet(vec![]).encode().is_err());
        let set: Vec<_> = (0..129).map(|n| (format!("{n:03}").into_bytes(), vec![0; 65_536])).collect();
        assert!(AttributeSet(set[..127].to_vec()).encode().is_ok());
        assert!(AttributeSet(set).encode().is_err());
        assert!(AttributeSet(vec![(b"b".to_vec(), vec![]), (b"a".to_vec(), vec![])]).encode().is_err());
        assert!(AttributeSet(vec![(b"a".to_vec(), vec![]), (b"a".to_vec(), vec![])]).encode().is_err());
    }

    #[test]
    fn mutations() {
        let mut rng = Rng::new(4);
        let corpus: Vec<Vec<u8>> = (0..30).map(|_| generate(&mut rng).encode().unwrap()).collect();
        mutation::exercise(&corpus, |bytes| Some(AttributeSet::decode(bytes).ok()?.encode().unwrap()));
    }
}
