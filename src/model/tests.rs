//! Runs the steps of a seed, and makes a short story of what it finds. Not for: what the steps are (see `script`).

use super::run::run;
use super::script::{Step, shrink, steps};
use crate::testing::share;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Steps of one world.
const EPISODE: usize = 250;
/// Runs that are made to shorten a story.
const TRIES: usize = 60;

/// What is told of steps that did something, and how often at least in 10,000 steps.
const WORDS: [(&str, usize); 10] = [
    ("with two names", 50),
    ("as editors do", 100),
    (": link ", 100),
    ("0 changes beside it", 100),
    ("8 changes beside it", 20),
    ("snapshots are hit", 10),
    ("repair index by", 10),
    (": prune by", 50),
    ("IfChanged", 50),
    (": view ", 50),
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn seed_of(seed: u64, episode: usize) -> u64 {
    seed.wrapping_mul(1_000_003).wrapping_add(episode as u64)
}

/// The shortest story that was found, as somebody reads it who is to mend what is wrong.
fn story(seed: u64, episode: usize, all: Vec<Step>, first: &str) -> String {
    let short = shrink(all, TRIES, &mut |steps| run(steps).1.is_err());
    let (trace, outcome) = run(&short);
    let what = outcome.err().unwrap_or_else(|| format!("{first} (not again when replayed)"));
    let count = short.len();
    format!(
        "FIRN_MODEL_SEED={seed}, episode {episode}, {count} steps are left of it: {what}\n  {}\n(at first: {first})",
        trace.join("\n  ")
    )
}

/// `FIRN_MODEL_STEPS` and `FIRN_MODEL_SEED` make it longer, or another one; `FIRN_MODEL_EPISODE` runs one part of it alone.
#[test]
fn random_steps_end_as_plain_copies_do() {
    let (count, seed) =
        (setting("FIRN_MODEL_STEPS", share(1_000, 10_000, 10_000)) as usize, setting("FIRN_MODEL_SEED", 1));
    let only = std::env::var("FIRN_MODEL_EPISODE").ok().map(|text| text.parse::<usize>().expect("a number"));
    let episodes: Vec<usize> = match only {
        Some(episode) => vec![episode],
        None => (0..count.div_ceil(EPISODE)).collect(),
    };
    let (next, found, told) = (AtomicUsize::new(0), Mutex::new(None), Mutex::new(Vec::new()));
    let work = || {
        while let Some(episode) = episodes.get(next.fetch_add(1, Ordering::Relaxed)) {
            if found.lock().unwrap().is_some() {
                return;
            }
            let all = steps(seed_of(seed, *episode), EPISODE);
            let (trace, outcome) = run(&all);
            told.lock().unwrap().extend_from_slice(&trace);
            if let Err(first) = outcome {
                let all = all[..trace.len()].to_vec();
                found.lock().unwrap().get_or_insert((*episode, all, first));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    if let Some((episode, all, first)) = found.into_inner().unwrap() {
        panic!("{}", story(seed, episode, all, &first));
    }
    let told = told.into_inner().unwrap();
    println!("model: seed={seed} steps={} in {} worlds, all as plain copies", told.len(), episodes.len());
    if let Ok(path) = std::env::var("FIRN_MODEL_TELL") {
        std::fs::write(path, told.join("\n")).unwrap();
    }
    // Steps of every kind have come to something.
    for (words, least) in WORDS {
        let count = told.iter().filter(|line| line.contains(words)).count();
        assert!(only.is_some() || count >= least * told.len() / 10_000, "{count} of {words:?}");
    }
}
