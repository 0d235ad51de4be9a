//! Pages of a long file's list of extents ⇄ bytes. Not for: where they are cut, storing them.

use crate::error::Result;
use crate::format::bounds::{MAX_LEVEL, MAX_PAGE};
use crate::format::bytes::{Put, Reader, unfit, varint_len};
use crate::format::entry::{Check, check_extents, put_extent, read_extent};
use crate::format::tree::Extent;
use crate::id::ChunkId;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListPage {
    /// At least one extent.
    Extents(Vec<Extent>),
    /// Pages one level lower.
    Interior {
        /// 1 to 16.
        level: u8,
        /// At least one.
        children: Vec<ListChild>,
    },
}

/// What a list page says about a page one level lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListChild {
    /// The page.
    pub page: ChunkId,
    /// Bytes of the file that the extents below it cover.
    pub bytes: u64,
    /// Extents below it.
    pub extents: u64,
}

impl ListPage {
    /// Its level.
    pub fn level(&self) -> u8 {
        match self {
            ListPage::Extents(_) => 0,
            ListPage::Interior { level, .. } => *level,
        }
    }

    /// Bytes of the file covered, and extents, in and below the page. `Damaged` if they exceed 64 bits.
    pub fn totals(&self) -> Result<(u64, u64)> {
        self.sums().map_err(|why| unfit("list page", why).with_kind(crate::error::ErrorKind::Damaged))
    }

    fn sums(&self) -> std::result::Result<(u64, u64), &'static str> {
        match self {
            ListPage::Extents(extents) => Ok((check_extents(extents)?, extents.len() as u64)),
            ListPage::Interior { children, .. } => {
                let mut sums = (0u64, 0u64);
                for child in children {
                    if child.extents == 0 || child.bytes < child.extents {
                        return Err("a page covers less than its extents");
                    }
                    let bytes = sums.0.checked_add(child.bytes).ok_or("the extents are longer than any file")?;
                    // There are never more extents than bytes.
                    sums = (bytes, sums.1 + child.extents);
                }
                Ok(sums)
            }
        }
    }

    fn check(&self) -> Check {
        let number = match self {
            ListPage::Extents(extents) => extents.len(),
            ListPage::Interior { children, .. } => children.len(),
        };
        if number == 0 {
            return Err("it is empty");
        }
        self.sums().map(|_| ())
    }

    /// The bytes as stored. Fails if the format cannot hold it, also if it is too long for one page.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check().map_err(|why| unfit("list page", why))?;
        let mut builder = ListBuilder::new(self.level())?;
        match self {
            ListPage::Extents(extents) => {
                for extent in extents {
                    builder.push_extent(extent)?;
                }
            }
            ListPage::Interior { level, children } => {
                if *level == 0 {
                    return Err(unfit("list page", "pages are not at level 0"));
                }
                for child in children {
                    builder.push_child(child)?;
                }
            }
        }
        Ok(builder.finish().bytes)
    }

    /// Reads a page.
    pub fn decode(bytes: &[u8]) -> Result<ListPage> {
        let mut reader = Reader::new("list page", bytes);
        if bytes.len() > MAX_PAGE {
            return Err(reader.damaged("it is too long"));
        }
        let level = reader.u8()?;
        if level > MAX_LEVEL {
            return Err(reader.damaged_at(0, "its level is too high"));
        }
        let number = reader.varint()?;
        let page = if level == 0 {
            let number = reader.count(number, 2)?;
            let mut extents = Vec::with_capacity(number);
            for _ in 0..number {
                extents.push(read_extent(&mut reader)?);
            }
            ListPage::Extents(extents)
        } else {
            let number = reader.count(number, 34)?;
            let mut children = Vec::with_capacity(number);
            for _ in 0..number {
                let page = ChunkId(reader.array()?);
                children.push(ListChild { page, bytes: reader.varint()?, extents: reader.varint()? });
            }
            ListPage::Interior { level, children }
        };
        page.check().map_err(|why| reader.damaged(why))?;
        reader.finish()?;
        Ok(page)
    }
}

/// A finished list page and what the page above says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltList {
    /// The page as stored.
    pub bytes: Vec<u8>,
    /// Bytes of the file covered by it.
    pub covered: u64,
    /// Extents in and below it.
    pub extents: u64,
}

/// Builds list pages of one level, one item at a time. After `finish` it is empty and can be used again.
pub struct ListBuilder {
    level: u8,
    items: Vec<u8>,
    number: u64,
    covered: u64,
    extents: u64,
    after_hole: bool,
}

impl ListBuilder {
    /// One without items. Fails if `level` is above 16.
    pub fn new(level: u8) -> Result<Self> {
        if level > MAX_LEVEL {
            return Err(unfit("list page", "a list has too many levels of pages"));
        }
        Ok(ListBuilder { level, items: Vec::new(), number: 0, covered: 0, extents: 0, after_hole: false })
    }

    /// How many items it has.
    pub fn items(&self) -> u64 {
        self.number
    }

    /// Whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.number == 0
    }

    /// Length of the page in bytes if it was finished now.
    pub fn encoded_len(&self) -> usize {
        1 + varint_len(self.number) + self.items.len()
    }

    /// Whether one more item of any kind could make the page too long.
    pub fn is_full(&self) -> bool {
        // The longest item: an id and two numbers.
        1 + varint_len(self.number + 1) + self.items.len() + 32 + 10 + 10 > MAX_PAGE
    }

    /// Appends an extent (level 0 only). Fails, without a change, if it does not fit or the format cannot hold it.
    pub fn push_extent(&mut self, extent: &Extent) -> Result<()> {
        let hole = matches!(extent, Extent::Hole(_));
        check_extents(std::slice::from_ref(extent)).map_err(|why| unfit("list page", why))?;
        if self.level != 0 || (hole && self.after_hole) {
            return Err(unfit("list page", "two holes touch, or an extent is above level 0"));
        }
        self.push(extent.len(), 1, |items| put_extent(items, extent))?;
        self.after_hole = hole;
        Ok(())
    }

    /// Appends a page one level lower (above level 0 only). Fails, without a change, if it does not fit or the format cannot
    /// hold it.
    pub fn push_child(&mut self, child: &ListChild) -> Result<()> {
        if self.level == 0 || child.extents == 0 || child.bytes < child.extents {
            return Err(unfit("list page", "a page covers less than its extents, or is at level 0"));
        }
        self.push(child.bytes, child.extents, |items| {
            items.extend_from_slice(&child.page.0);
            items.put_varint(child.bytes);
            items.put_varint(child.extents);
        })
    }

    fn push(&mut self, covered: u64, extents: u64, put: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let Some(covered) = self.covered.checked_add(covered) else {
            return Err(unfit("list page", "the extents are longer than any file"));
        };
        let len = self.items.len();
        put(&mut self.items);
        if 1 + varint_len(self.number + 1) + self.items.len() > MAX_PAGE {
            self.items.truncate(len);
            return Err(unfit("list page", "it would be too long"));
        }
        self.number += 1;
        self.covered = covered;
        // There are never more extents than bytes.
        self.extents += extents;
        Ok(())
    }

    /// The page of the items so far. The builder is empty afterwards. Without items the page is not valid.
    pub fn finish(&mut self) -> BuiltList {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.put_u8(self.level);
        bytes.put_varint(self.number);
        bytes.append(&mut self.items);
        self.number = 0;
        self.after_hole = false;
        BuiltList { bytes, covered: std::mem::take(&mut self.covered), extents: std::mem::take(&mut self.extents) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::tests as entries;
    use crate::format::mutation::{self, Rng};

    fn generate(rng: &mut Rng) -> ListPage {
        if rng.chance(2) {
            let number = 1 + rng.below(40);
            return ListPage::Extents(entries::extents(rng, number));
        }
        let children = (0..=rng.below(5))
            .map(|_| {
                let extents = 1 + (rng.number() >> 8);
                ListChild { page: ChunkId(rng.array()), bytes: extents + (rng.number() >> 8), extents }
            })
            .collect();
        ListPage::Interior { level: 1 + rng.below(16) as u8, children }
    }

    #[test]
    fn golden() {
        let page = ListPage::Extents(vec![Extent::Hole(65_536), Extent::Chunk { id: ChunkId([0xee; 32]), len: 5 }]);
        assert_eq!(
            crate::id::to_hex(&page.encode().unwrap()),
            format!("00020080800401 05{}", "ee".repeat(32)).replace(' ', "")
        );
        assert_eq!(page.totals().unwrap(), (65_541, 2));
        let children = vec![ListChild { page: ChunkId([1; 32]), bytes: 300, extents: 2 }; 2];
        let page = ListPage::Interior { level: 3, children };
        let child = format!("{}ac0202", "01".repeat(32));
        assert_eq!(crate::id::to_hex(&page.encode().unwrap()), format!("0302{child}{child}"));
        assert_eq!(page.totals().unwrap(), (600, 4));
    }

    #[test]
    fn refuses_what_cannot_be() {
        assert!(ListPage::Extents(vec![]).encode().is_err());
        assert!(ListPage::Extents(vec![Extent::Hole(1), Extent::Hole(1)]).encode().is_err());
        assert!(ListPage::Extents(vec![Extent::Hole(1); 1]).encode().is_ok());
        let child = ListChild { page: ChunkId([1; 32]), bytes: 300, extents: 2 };
        let page = |level, child| ListPage::Interior { level, children: vec![child, child] }.encode();
        assert!(page(1, child).is_ok());
        assert!(page(0, child).is_err());
        assert!(page(17, child).is_err());
        assert!(page(1, ListChild { extents: 0, ..child }).is_err());
        assert!(page(1, ListChild { extents: 301, ..child }).is_err());
        assert!(page(1, ListChild { bytes: u64::MAX, ..child }).is_err());
        assert!(ListPage::decode(&[0, 0]).is_err());
        assert!(ListPage::decode(&[]).is_err());
    }

    #[test]
    fn builder_fills_pages() {
        let mut rng = Rng::new(9);
        let extents = entries::extents(&mut rng, 4000);
        let mut builder = ListBuilder::new(0).unwrap();
        let mut again = Vec::new();
        let mut take = |built: BuiltList| {
            assert!(built.bytes.len() <= MAX_PAGE);
            let page = ListPage::decode(&built.bytes).unwrap();
            assert_eq!(page.totals().unwrap(), (built.covered, built.extents));
            let ListPage::Extents(some) = page else { panic!("not extents") };
            again.extend(some);
        };
        for extent in &extents {
            if builder.is_full() {
                take(builder.finish());
            }
            builder.push_extent(extent).unwrap();
        }
        take(builder.finish());
        assert_eq!(again, extents);
        let chunk = Extent::Chunk { id: ChunkId([0; 32]), len: 1 };
        while builder.push_extent(&chunk).is_ok() {}
        assert!(builder.is_full() && builder.finish().bytes.len() > MAX_PAGE - 64);
    }

    #[test]
    fn mutations() {
        let mut rng = Rng::new(10);
        let corpus: Vec<Vec<u8>> = (0..40).map(|_| generate(&mut rng).encode().unwrap()).collect();
        mutation::exercise(&corpus, |bytes| Some(ListPage::decode(bytes).ok()?.encode().unwrap()));
    }
}
