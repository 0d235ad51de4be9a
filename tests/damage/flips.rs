//! Every byte of a tiny repository, flipped one after the other: is any of it silent? A share of them unless
//! FIRN_FLIP_ALL=1 asks for all. Not for: larger damage.

use super::action::write;
use super::case::{Case, files};
use super::matrix::all;
use super::sample::Sample;
use crate::support::share;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn no_flipped_bit_is_silent() {
    let sample = Sample::new(200);
    let every = std::env::var_os("FIRN_FLIP_ALL").is_some_and(|value| value == "1");
    let total: usize = files(&sample.world.path("repository")).values().map(Vec::len).sum();
    // Not a multiple of anything in the format.
    let step = if every { 1 } else { (total / share(200, 600)).max(1) | 1 };
    let mut flips = Vec::new();
    let mut at = 0;
    for (path, bytes) in files(&sample.world.path("repository")) {
        flips.extend(
            (0..bytes.len()).filter(|offset| (at + offset).is_multiple_of(step)).map(|offset| (path.clone(), offset)),
        );
        at += bytes.len();
    }
    let halves: Vec<_> = flips.chunks(flips.len().div_ceil(2)).collect();
    let (detected, irrelevant) = (AtomicUsize::new(0), AtomicUsize::new(0));
    all(&halves, |flips| {
        let mut case = Case::new(&sample, String::new(), false);
        for (path, offset) in *flips {
            case.name = format!("{path:?} at {offset}");
            let path = case.repository().join(path);
            let whole = std::fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            bytes[*offset] ^= 1 << (offset % 8);
            write(&path, &bytes);
            let restored = [case.restore(&sample.ids[2], "expected3")];
            match case.check_knows(&restored).code {
                0 => irrelevant.fetch_add(1, Ordering::Relaxed),
                _ => detected.fetch_add(1, Ordering::Relaxed),
            };
            write(&path, &whole);
        }
    });
    let (detected, irrelevant) = (detected.into_inner(), irrelevant.into_inner());
    println!("{} of {total} bytes flipped: {detected} detected, {irrelevant} noted or irrelevant", flips.len());
    assert_eq!(detected + irrelevant, flips.len());
}
