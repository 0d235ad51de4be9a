//! Tests of key slots' layout: golden bytes, bounds, damage. Not for: opening slots.

use super::*;
use crate::error::ErrorKind;
use crate::format::mutation::{self, Rng};
use crate::id::to_hex;

const COST: Argon2Cost = Argon2Cost { memory_kib: 0x10000, passes: 3, lanes: 4 };

fn head() -> SlotHead {
    SlotHead {
        password: Some(COST),
        key_file: true,
        secrets_len: 512,
        description_len: 256,
        salt: [0xaa; 32],
        commitment: [0xbb; 32],
    }
}

fn slot(head: SlotHead) -> KeySlot {
    KeySlot {
        secrets: vec![2; usize::from(head.secrets_len) + 16],
        description: vec![4; usize::from(head.description_len) + 16],
        head,
        secrets_nonce: [1; 24],
        description_nonce: [3; 24],
    }
}

fn secrets(epochs: u16) -> Secrets {
    Secrets {
        repository: RepositoryId([1; 32]),
        chunk_id: [2; 32],
        chunker: [3; 32],
        metadata: [4; 32],
        dedup_index: [5; 32],
        signing_seed: [6; 32],
        content: (0..epochs).map(|epoch| (epoch, [7; 32])).collect(),
    }
}

fn description() -> Description {
    let created = "2026-01-02T03:04:05Z".parse().unwrap();
    let (label, host, user) = ("l".into(), "h".into(), "u".into());
    Description { label, created, host, user, epoch: 0, secrets: Vec::new(), beside: None }
}

#[test]
fn golden() {
    let expected = [
        "6669726e0d0a1a0a01020300".to_string(),
        "000001000300000004000000".into(),
        "0002000100000000".into(),
        "aa".repeat(32),
        "bb".repeat(32),
    ];
    assert_eq!(to_hex(&head().encode().unwrap()), expected.concat());
    let bytes = slot(head()).encode().unwrap();
    assert_eq!(bytes.len(), 176 + 512 + 256);
    assert_eq!(bytes[120], 2);
    assert_eq!(bytes[136 + 512], 3);
    assert_eq!(bytes[160 + 512], 4);
    assert_eq!(KeySlot::decode(&bytes).unwrap(), slot(head()));

    let bytes = secrets(1).encode().unwrap();
    let each: String = (1..=6).map(|n| format!("{n:02x}").repeat(32)).collect();
    assert_eq!(to_hex(&bytes), format!("{each}01000000{}{}", "07".repeat(32), "00".repeat(512 - 228)));
    assert_eq!(Secrets::decode(&bytes).unwrap(), secrets(1));

    let text = "{\"label\":\"l\",\"created\":\"2026-01-02T03:04:05Z\",\"host\":\"h\",\"user\":\"u\"}";
    assert_eq!(description().encode().unwrap(), format!("{text:256}").into_bytes());
    assert_eq!(Description::decode(&description().encode().unwrap()).unwrap(), description());
}

#[test]
fn costs() {
    assert!(COST.is_valid());
    assert!(Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 }.is_valid());
    assert!(Argon2Cost { memory_kib: 4 << 20, passes: 20, lanes: 64 }.is_valid());
    for bad in [
        Argon2Cost { memory_kib: 31, ..COST },
        Argon2Cost { memory_kib: (4 << 20) + 1, ..COST },
        Argon2Cost { passes: 0, ..COST },
        Argon2Cost { passes: 21, ..COST },
        Argon2Cost { lanes: 0, ..COST },
        Argon2Cost { lanes: 65, ..COST },
        Argon2Cost { lanes: u32::MAX, memory_kib: u32::MAX, passes: 1 },
    ] {
        assert!(!bad.is_valid(), "{bad:?}");
        assert!(SlotHead { password: Some(bad), ..head() }.encode().is_err());
    }
}

#[test]
fn strict() {
    let wrong: [fn(&mut SlotHead); 5] = [
        |head| (head.password, head.key_file) = (None, false),
        |head| head.secrets_len = 0,
        |head| head.secrets_len = 513,
        |head| head.secrets_len = 3584,
        |head| head.description_len = 1024,
    ];
    for change in wrong {
        let mut bad = head();
        change(&mut bad);
        assert!(bad.encode().is_err(), "{bad:?}");
    }
    let good = slot(head()).encode().unwrap();
    for (at, value, kind) in [
        (0, 0, ErrorKind::Damaged),
        (8, 2, ErrorKind::Unsupported),
        (9, 1, ErrorKind::Damaged),
        (10, 2, ErrorKind::Damaged),
        (10, 7, ErrorKind::Damaged),
        (11, 1, ErrorKind::Damaged),
        (28, 1, ErrorKind::Damaged),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(KeySlot::decode(&bad).unwrap_err().kind(), kind, "{at} {value}");
    }
    assert!(KeySlot::decode(&good[..good.len() - 1]).is_err());
    assert!(KeySlot::decode(&[&good[..], &[0]].concat()).is_err());
}

#[test]
fn secrets_are_bounded_and_not_printed() {
    assert!(secrets(0).encode().is_err());
    assert!(secrets(65).encode().is_err());
    assert_eq!(secrets(64).encode().unwrap().len(), 2560);
    let mut disorder = secrets(2);
    disorder.content.swap(0, 1);
    assert!(disorder.encode().is_err());
    assert_eq!(format!("{:?}", secrets(1)), "Secrets(RepositoryId(01010101), 1 epochs)");
    let of = |secrets: &Secrets, epoch| secrets.content_secrets(epoch).count();
    assert_eq!((of(&secrets(3), 2), of(&secrets(3), 3)), (1, 0));
    // Several of one epoch, in one order only, and none of them twice.
    let mut several = secrets(2);
    several.content.push((1, [9; 32]));
    assert_eq!(Secrets::decode(&several.encode().unwrap()).unwrap(), several);
    assert_eq!((of(&several, 1), of(&several, 0)), (2, 1));
    several.content.swap(1, 2);
    assert!(several.encode().is_err());
    several.content[1] = several.content[2];
    assert!(several.encode().is_err());
    let mut merged = secrets(2);
    assert!(!merged.merge_content(&secrets(1)) && merged == secrets(2));
    several.content[1].1 = [9; 32];
    assert!(merged.merge_content(&several) && merged.content == [(0, [7; 32]), (1, [7; 32]), (1, [9; 32])]);
    assert_eq!(secrets(3).newest_epoch(), Some(2));
    let long = Description { label: "x".repeat(760), ..description() };
    assert!(long.encode().is_err());
}

#[test]
fn mutations() {
    let mut rng = Rng::new(12);
    let heads = [head(), SlotHead { password: None, ..head() }, SlotHead { key_file: false, ..head() }];
    let corpus: Vec<Vec<u8>> = heads.map(|head| slot(SlotHead { salt: rng.array(), ..head }).encode().unwrap()).into();
    mutation::exercise(&corpus, |bytes| Some(KeySlot::decode(bytes).ok()?.encode().unwrap()));
    let corpus: Vec<Vec<u8>> = [1, 2, 9, 64].map(|epochs| secrets(epochs).encode().unwrap().to_vec()).into();
    mutation::exercise(&corpus, |bytes| Some(Secrets::decode(bytes).ok()?.encode().unwrap().to_vec()));
    mutation::exercise(&[description().encode().unwrap()], |bytes| {
        Description::decode(bytes).ok()?;
        Some(bytes.to_vec())
    });
}
