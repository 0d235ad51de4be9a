//! Steps as they follow from a seed, and what is left of them when one has found something wrong. Not for: carrying them out.

use super::plain::Dice;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes the folder that is backed up.
    Change,
    Backup,
    /// Backs up while files change.
    BackupBeside,
    Forget,
    Prune,
    /// Damages something, checks, and mends what can be mended.
    Damage,
    Check,
    /// Restores a snapshot into an empty folder, or over what an earlier restore left.
    Restore,
    RestoreOver,
    /// Reads a snapshot as a mount shows it.
    View,
}

/// A step: what it does, and the seed of how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) dice: u64,
}

/// How often each kind comes, of all.
const WEIGHTS: [(Kind, u64); 10] = [
    (Kind::Change, 72),
    (Kind::Backup, 6),
    (Kind::BackupBeside, 3),
    (Kind::Forget, 3),
    (Kind::Prune, 3),
    (Kind::Damage, 2),
    (Kind::Check, 1),
    (Kind::Restore, 3),
    (Kind::RestoreOver, 3),
    (Kind::View, 4),
];

/// So many steps of this seed.
pub(super) fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let sum: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut step = || {
        let mut at = dice.roll(sum);
        let kind = WEIGHTS.iter().find(|(_, weight)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        Step { kind: kind.map_or(Kind::Change, |(kind, _)| *kind), dice: dice.next() }
    };
    (0..count).map(|_| step()).collect()
}

/// Leaves out what is not needed for `fails` to say so, as far as `tries` runs can tell.
pub(super) fn shrink(steps: Vec<Step>, tries: usize, fails: &mut dyn FnMut(&[Step]) -> bool) -> Vec<Step> {
    let (mut steps, mut left) = (steps, tries);
    let mut part = steps.len().div_ceil(2);
    while part > 0 && left > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < steps.len() && left > 0 {
            let rest = [&steps[..at], &steps[steps.len().min(at + part)..]].concat();
            left -= 1;
            if fails(&rest) {
                (steps, shorter) = (rest, true);
            } else {
                at += part;
            }
        }
        if part == 1 && !shorter {
            break;
        }
        part = if part == 1 { 1 } else { part.div_ceil(2) };
    }
    steps
}

#[test]
fn what_is_not_needed_is_left_out() {
    let all = steps(1, 300);
    assert_eq!(steps(1, 300), all, "the same seed, the same steps");
    assert!(WEIGHTS.iter().all(|(kind, _)| all.iter().any(|step| step.kind == *kind)));
    let (one, two) = (all[17], all[230]);
    let needed = |steps: &[Step]| {
        let at = |wanted| steps.iter().position(|step| *step == wanted);
        at(one).zip(at(two)).is_some_and(|(one, two)| one < two)
    };
    assert_eq!(shrink(all.clone(), 400, &mut |steps| needed(steps)), [one, two]);
    assert!(needed(&shrink(all, 5, &mut |steps| needed(steps))), "it never leaves out too much");
}
