//! Tests of pages: round trips, golden bytes, canonical form, damage. Not for: rules of single entries.

use super::*;
use crate::format::attributes;
use crate::format::entry::tests as entries;
use crate::format::mutation::{self, Rng};
use crate::format::tree::{Body, Content, Metadata, Timestamp};

fn leaf(rng: &mut Rng, number: usize) -> Page {
    let owners: Vec<Owner> = (0..=rng.below(7)).map(|_| entries::owner(rng)).collect();
    let sets: Vec<Attributes> = (0..rng.below(7))
        .map(|_| match rng.below(3) {
            0 => Attributes::Chunk(ChunkId(rng.array()), 1025 + rng.below(9000) as u32),
            _ => Attributes::Inline(attributes::tests::generate(rng)),
        })
        .collect();
    let mut names: Vec<Vec<u8>> = (0..number).map(|n| format!("{:03}-{n}", rng.below(1000)).into_bytes()).collect();
    names.sort();
    Page::Leaf(names.into_iter().map(|name| entries::generate(rng, name, &owners, &sets)).collect())
}

fn interior(rng: &mut Rng) -> Page {
    let children = (0..=rng.below(6))
        .map(|n| {
            let totals = entries::totals(rng);
            let direct = 1 + rng.next() % totals.entries;
            Child { first_name: format!("n{n}").into_bytes(), page: ChunkId(rng.array()), direct, totals }
        })
        .collect();
    Page::Interior { level: 1 + rng.below(16) as u8, children }
}

fn plain(name: &[u8], uid: u32) -> Entry {
    let meta = Metadata {
        mode: 0o644,
        owner: Arc::new(Owner { uid, gid: 100, user: b"me".to_vec(), group: vec![] }),
        mtime: Timestamp { seconds: 1, nanos: 2 },
        btime: None,
        attributes: None,
        link: None,
        blocks: None,
        flags: 0,
        waypoint: false,
        unreliable: false,
    };
    Entry { name: name.to_vec(), meta, body: Body::File { size: 2, content: Content::Inline(b"hi".to_vec()) } }
}

#[test]
fn golden() {
    let page = Page::Leaf(vec![plain(b"a", 0), plain(b"b", 1000), plain(b"c", 0)]);
    let bytes = page.encode().unwrap();
    let expected = [
        "00",
        "02",
        "0064026d6500",
        "e80764026d6500",
        "00",
        "03",
        "01610100a403000202020068 69",
        "01620100a403010202020068 69",
        "01630100a403000202020068 69",
    ]
    .concat()
    .replace(' ', "");
    assert_eq!(crate::id::to_hex(&bytes), expected);
    let Page::Leaf(entries) = Page::decode(&bytes).unwrap() else { panic!("not a leaf") };
    assert!(Arc::ptr_eq(&entries[0].meta.owner, &entries[2].meta.owner));
    assert_eq!(Page::Leaf(entries), page);
    assert_eq!(crate::id::to_hex(&Page::Leaf(vec![]).encode().unwrap()), "00000000");

    let totals = Totals { entries: 300, files: 2, bytes: 3, linked: 4, attributed: 5 };
    let child = Child { first_name: b"x".to_vec(), page: ChunkId([0xcd; 32]), direct: 9, totals };
    let other = Child { first_name: b"y".to_vec(), ..child.clone() };
    let page = Page::Interior { level: 2, children: vec![child, other] };
    let expected = format!("02020178{0}09ac02020304050179{0}09ac0202030405", "cd".repeat(32));
    assert_eq!(crate::id::to_hex(&page.encode().unwrap()), expected);
    assert_eq!(Page::decode(&page.encode().unwrap()).unwrap(), page);
}

#[test]
fn round_trips() {
    let mut rng = Rng::new(5);
    for number in 0..200 {
        let page = if number % 3 == 0 { interior(&mut rng) } else { leaf(&mut rng, number / 4) };
        let again = Page::decode(&page.encode().unwrap()).unwrap();
        assert_eq!(again, page);
        assert_eq!(again.totals().unwrap(), page.totals().unwrap());
    }
}

#[test]
fn tables_must_be_used_in_order_and_once() {
    let hex = |text: &str| -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let (one, two) = ("0064026d6500", "e80764026d6500");
    let entry = |name: &str, owner: &str| format!("01{name}0100a403{owner}02020200{}", "6869");
    let good = format!("0002{one}{two}0002{}{}", entry("61", "00"), entry("62", "01"));
    assert!(Page::decode(&hex(&good)).is_ok());
    for bad in [
        // In the wrong order, one twice, one not used, one missing, an entry without one.
        format!("0002{one}{two}0002{}{}", entry("61", "01"), entry("62", "00")),
        format!("0002{one}{one}0002{}{}", entry("61", "00"), entry("62", "01")),
        format!("0002{one}{two}0002{}{}", entry("61", "00"), entry("62", "00")),
        format!("0001{one}0002{}{}", entry("61", "00"), entry("62", "01")),
        format!("00000001{}", entry("61", "00")),
        // Names twice or in the wrong order, an owner in a page without entries, more than there is.
        format!("0001{one}0002{}{}", entry("61", "00"), entry("61", "00")),
        format!("0001{one}0002{}{}", entry("62", "00"), entry("61", "00")),
        format!("0001{one}0000"),
        format!("0001{one}0003{}{}", entry("61", "00"), entry("62", "00")),
        format!("0001{one}0001{}00", entry("61", "00")),
        "0100".into(),
        "1101".into(),
    ] {
        assert!(Page::decode(&hex(&bad)).is_err(), "{bad}");
    }
}

#[test]
fn builder_knows_the_length_and_takes_back_what_does_not_fit() {
    let mut rng = Rng::new(6);
    let Page::Leaf(entries) = leaf(&mut rng, 2000) else { panic!("not a leaf") };
    let mut builder = LeafBuilder::new();
    let mut pages = Vec::new();
    for entry in &entries {
        let before = builder.encoded_len();
        let exceeds = builder.would_exceed(entry).unwrap();
        assert_eq!(builder.encoded_len(), before);
        assert_eq!(builder.try_push(entry).unwrap(), !exceeds);
        if exceeds {
            assert_eq!(builder.encoded_len(), before);
            pages.push(builder.finish());
            assert!(builder.is_empty());
            builder.push(entry).unwrap();
        }
    }
    pages.push(builder.finish());
    assert!(pages.len() > 2);
    let mut again = Vec::new();
    for built in pages {
        assert!(built.bytes.len() <= MAX_PAGE);
        let page = Page::decode(&built.bytes).unwrap();
        assert_eq!((page.direct(), page.totals().unwrap()), (built.direct, built.totals));
        let Page::Leaf(some) = page else { panic!("not a leaf") };
        assert_eq!(built.first_name, some[0].name);
        again.extend(some);
    }
    assert_eq!(again, entries);
}

#[test]
fn a_refused_entry_leaves_no_trace() {
    let mut builder = LeafBuilder::new();
    builder.push(&plain(b"b", 0)).unwrap();
    let mut bad = plain(b"c", 7);
    bad.meta.mode = 0xffff;
    bad.meta.attributes = Some(Arc::new(Attributes::Chunk(ChunkId([1; 32]), 2000)));
    assert!(builder.push(&bad).is_err());
    bad.meta.attributes = Some(Arc::new(Attributes::Chunk(ChunkId([1; 32]), 1024)));
    assert!(builder.push(&bad).is_err());
    assert!(builder.push(&plain(b"a", 0)).is_err());
    assert!(builder.push(&plain(b"b", 0)).is_err());
    assert_eq!(builder.finish().bytes, Page::Leaf(vec![plain(b"b", 0)]).encode().unwrap());
}

#[test]
fn interior_builder() {
    assert!(InteriorBuilder::new(0).is_err());
    assert!(InteriorBuilder::new(17).is_err());
    let mut builder = InteriorBuilder::new(1).unwrap();
    let mut rng = Rng::new(7);
    for number in 0u32.. {
        let totals = Totals { entries: 1 + rng.number() % 1000, ..Totals::default() };
        let first_name = number.to_be_bytes().map(|byte| byte % 40 + 65).to_vec();
        let child = Child { first_name, page: ChunkId(rng.array()), direct: 1, totals };
        if !builder.is_empty() && builder.push(&child).is_err() {
            break;
        }
        if builder.is_empty() {
            builder.push(&child).unwrap();
        }
        if number == 39 {
            let built = builder.finish();
            let page = Page::decode(&built.bytes).unwrap();
            assert_eq!((page.direct(), page.totals().unwrap()), (built.direct, built.totals));
            assert_eq!((page.direct(), built.first_name), (40, vec![65; 4]));
            return;
        }
    }
    panic!("40 children fit into a page");
}

#[test]
fn mutations() {
    let mut rng = Rng::new(8);
    let corpus: Vec<Vec<u8>> = (0..60)
        .map(|number| if number % 4 == 0 { interior(&mut rng) } else { leaf(&mut rng, number % 9) })
        .map(|page| page.encode().unwrap())
        .collect();
    mutation::exercise(&corpus, |bytes| {
        let page = Page::decode(bytes).ok()?;
        page.totals().unwrap();
        Some(page.encode().unwrap())
    });
}
