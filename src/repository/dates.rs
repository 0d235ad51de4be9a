//! When snapshots were made, as far as the clocks of machines and the dates that people state can be believed: their one order.
//! Not for: which of them a command means (see `filter`), or what a policy keeps of them (see `forget`).
//!
//! A snapshot says three times: the moment that it stands for, which a person may state, and the measured start and end of its
//! run. Its writer also numbers its snapshots, and that number needs no clock. So:
//!
//! * No snapshot stands for a moment after its end: a date that was stated ahead counts as the end.
//! * A writer's snapshots end in the order of their numbers. The longest series of them that does is believed; one that does not
//!   fit in ended while a clock was wrong, and gets the place that its number says.
//! * An end in the future is no end, unless the store's clock agrees: then it is the clock here that is behind.
//! * A start that was measured days before the end of the snapshot before it was measured on a wrong clock, or the run took very
//!   long: the snapshot counts from there on. A date in the past that a person stated counts as it is.

use super::snapshots::Named;
use crate::format::snapshot::Snapshot;
use crate::id::{ObjectName, WriterId};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

/// Clocks of machines that work together differ by no more than this.
pub const SLACK: SignedDuration = SignedDuration::from_hours(1);
/// A date that is wrong by more than this is worth a word, and no policy counts with it.
pub const TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// Why the date of a snapshot cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It lies in the future.
    Future,
    /// Snapshots that its writer made later are dated before it.
    Ahead,
    /// Snapshots that its writer made earlier are dated after it.
    Behind,
}

impl Doubt {
    /// As a person says it.
    pub fn words(self) -> &'static str {
        match self {
            Doubt::Future => "dated in the future",
            Doubt::Ahead => "dated after snapshots that were made later",
            Doubt::Behind => "dated before snapshots that were made earlier",
        }
    }
}

/// When a snapshot was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// The moment that it counts for.
    pub moment: Timestamp,
    /// Why that is not what it says itself, if that is far from it.
    pub doubt: Option<Doubt>,
}

/// What snapshots are ordered by, the oldest first.
pub type OrderKey = (Timestamp, u64, Timestamp, ObjectName);

/// The dates of snapshots, judged together.
#[derive(Clone, Debug, Default)]
pub struct Dates(HashMap<ObjectName, Date>);

/// The moment that a snapshot counts for if nothing is known of others.
fn claim(snapshot: &Snapshot) -> Timestamp {
    snapshot.time.min(snapshot.finished)
}

/// Whether a person stated a date before the run.
fn is_stated(snapshot: &Snapshot) -> bool {
    snapshot.time < snapshot.started
}

/// Whether a snapshot is dated noticeably later than its run ended, which only a person can have said.
pub fn is_ahead_of_itself(snapshot: &Snapshot) -> bool {
    snapshot.time.duration_since(snapshot.finished) > SLACK
}

impl Dates {
    /// Judges the dates of these snapshots; what the store's clock said when they were stored helps, where it is known.
    pub fn new<'s>(
        snapshots: impl Iterator<Item = (ObjectName, &'s Snapshot)>,
        stored: &BTreeMap<ObjectName, SystemTime>,
    ) -> Dates {
        Dates::at(snapshots, stored, Timestamp::now())
    }

    fn at<'s>(
        snapshots: impl Iterator<Item = (ObjectName, &'s Snapshot)>,
        stored: &BTreeMap<ObjectName, SystemTime>,
        now: Timestamp,
    ) -> Dates {
        let mut writers: BTreeMap<WriterId, Vec<(ObjectName, &Snapshot)>> = BTreeMap::new();
        for (name, snapshot) in snapshots {
            writers.entry(snapshot.writer).or_default().push((name, snapshot));
        }
        let mut dates = HashMap::new();
        let stored = |name: &ObjectName| stored.get(name).and_then(|time| Timestamp::try_from(*time).ok());
        for mut own in writers.into_values() {
            own.sort_by_key(|(name, snapshot)| (snapshot.sequence, snapshot.finished, *name));
            judge(&own, &stored, now, &mut dates);
        }
        Dates(dates)
    }

    /// That of a snapshot.
    pub fn of(&self, name: &ObjectName, snapshot: &Snapshot) -> Date {
        self.0.get(name).copied().unwrap_or(Date { moment: claim(snapshot), doubt: None })
    }

    /// Its place among others.
    pub fn key(&self, named: &Named) -> OrderKey {
        let Named { name, snapshot } = named;
        (self.of(name, snapshot).moment, snapshot.sequence, snapshot.finished, *name)
    }
}

/// The snapshots of one writer, in the order of their numbers.
fn judge(
    own: &[(ObjectName, &Snapshot)],
    stored: &dyn Fn(&ObjectName) -> Option<Timestamp>,
    now: Timestamp,
    dates: &mut HashMap<ObjectName, Date>,
) {
    let is_future = |(name, snapshot): &(ObjectName, &Snapshot)| {
        let is_after = |time: Timestamp| snapshot.finished.duration_since(time) > SLACK;
        is_after(now) && stored(name).is_none_or(is_after)
    };
    let future: Vec<bool> = own.iter().map(is_future).collect();
    let ends: Vec<Option<Timestamp>> =
        own.iter().zip(&future).map(|((_, snapshot), future)| (!future).then_some(snapshot.finished)).collect();
    let believed = longest_series(&ends);
    // From the newest to the oldest: the moments of believed ones, and behind each the next of them.
    let mut next: Vec<Option<usize>> = vec![None; own.len()];
    for at in (0..own.len().saturating_sub(1)).rev() {
        next[at] = if believed[at + 1] { Some(at + 1) } else { next[at + 1] };
    }
    let mut before: Option<(Timestamp, Timestamp)> = None;
    for (at, (name, snapshot)) in own.iter().enumerate() {
        let said = claim(snapshot);
        if is_stated(snapshot) {
            dates.insert(*name, Date { moment: said, doubt: None });
        } else if believed[at] {
            let moment = match before {
                Some((_, end)) if end.duration_since(said) > TOLERANCE => end,
                _ => said,
            };
            let is_far = snapshot.time.duration_since(snapshot.finished) > TOLERANCE;
            dates.insert(*name, Date { moment, doubt: is_far.then_some(Doubt::Future) });
        } else {
            let above = next[at].map(|next| moment_of_believed(own[next].1, before));
            let (moment, doubt) = match (above, before) {
                (Some(above), _) if future[at] || snapshot.finished > own[next[at].unwrap_or(at)].1.finished => {
                    (said.min(above), Doubt::Ahead)
                }
                (None, _) if future[at] => {
                    let known = stored(name).unwrap_or(now).min(now);
                    (before.map_or(known, |(before, _)| before.max(known)), Doubt::Future)
                }
                (_, Some((before, _))) => (said.max(before), Doubt::Behind),
                (_, None) => (said, Doubt::Behind),
            };
            let doubt = if future[at] { Doubt::Future } else { doubt };
            let is_far = future[at] || said.duration_since(moment).abs() > TOLERANCE;
            dates.insert(*name, Date { moment, doubt: is_far.then_some(doubt) });
        }
        if believed[at] {
            let moment = if is_stated(snapshot) { snapshot.started } else { dates[name].moment };
            before = Some((moment, snapshot.finished));
        }
    }
}

/// Where the run of a believed snapshot stands, if this is known of the one before it.
fn moment_of_believed(snapshot: &Snapshot, before: Option<(Timestamp, Timestamp)>) -> Timestamp {
    let said = if is_stated(snapshot) { snapshot.started } else { claim(snapshot) };
    match before {
        Some((_, end)) if end.duration_since(said) > TOLERANCE => end,
        _ => said,
    }
}

/// Which members of a series belong to its longest part that never falls; `None` belongs to no part.
fn longest_series(values: &[Option<Timestamp>]) -> Vec<bool> {
    // The index of the smallest last value of a part of each length, and for each value the one before it in its part.
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; values.len()];
    for (at, value) in values.iter().enumerate() {
        let Some(value) = value else { continue };
        let length = tails.partition_point(|tail| values[*tail].is_some_and(|tail| tail <= *value));
        before[at] = length.checked_sub(1).map(|below| tails[below]);
        if length == tails.len() {
            tails.push(at);
        } else {
            tails[length] = at;
        }
    }
    let mut within = vec![false; values.len()];
    let mut at = tails.last().copied();
    while let Some(index) = at {
        within[index] = true;
        at = before[index];
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::Totals;
    use crate::id::{ChunkId, SessionId};

    /// A snapshot: what it says, its start, its end, in hours of 2026.
    type Made = (i64, i64, i64);

    fn hour(hour: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + hour * 3600).unwrap()
    }

    fn snapshots(made: &[Made]) -> Vec<(ObjectName, Snapshot)> {
        let by = (WriterId([1; 16]), SessionId([1; 16]));
        let make = |(number, (time, started, finished)): (usize, &Made)| {
            let mut snapshot = Snapshot::of_tests(by, hour(*time), ChunkId([0; 32]), Totals::default());
            (snapshot.started, snapshot.finished) = (hour(*started), hour(*finished));
            snapshot.sequence = number as u64 + 1;
            (ObjectName([number as u8; 32]), snapshot)
        };
        made.iter().enumerate().map(make).collect()
    }

    /// The numbers of snapshots in their order, and those that are in doubt.
    fn order(made: &[Made], now: i64, stored: &[(u8, i64)]) -> (Vec<u8>, Vec<(u8, Doubt)>) {
        let list = snapshots(made);
        let stored = stored.iter().map(|(n, at)| (ObjectName([*n; 32]), SystemTime::from(hour(*at)))).collect();
        let dates = Dates::at(list.iter().map(|(name, snapshot)| (*name, snapshot)), &stored, hour(now));
        let mut named: Vec<Named> = list.into_iter().map(|(name, snapshot)| Named { name, snapshot }).collect();
        named.sort_by_key(|named| dates.key(named));
        let number = |named: &Named| named.name.0[0];
        let doubt = |named: &Named| Some((number(named), dates.of(&named.name, &named.snapshot).doubt?));
        (named.iter().map(number).collect(), named.iter().filter_map(doubt).collect())
    }

    fn plain(at: i64) -> Made {
        (at, at, at)
    }

    #[test]
    fn dates_that_are_right_stay_as_they_are() {
        assert_eq!(order(&[plain(1), plain(25), plain(49)], 50, &[]), (vec![0, 1, 2], vec![]));
        // A person states that one is of long ago.
        assert_eq!(order(&[plain(1), (-9000, 25, 25), plain(49)], 50, &[]), (vec![1, 0, 2], vec![]));
        assert_eq!(order(&[], 0, &[]), (vec![], vec![]));
    }

    #[test]
    fn nothing_is_newer_than_what_was_made_after_it() {
        // Stated 20 hours ahead, then an ordinary one; and with more years.
        for ahead in [20, 9000] {
            assert_eq!(order(&[plain(1), (10 + ahead, 10, 10), plain(12)], 13, &[]).0, [0, 1, 2]);
        }
        // Made on a clock that was ahead by hours, by years, and has been put right.
        assert_eq!(order(&[plain(1), plain(30), plain(12)], 13, &[]).0, [0, 1, 2]);
        let years = order(&[plain(1), plain(20_000), plain(12)], 13, &[]);
        assert_eq!(years, (vec![0, 1, 2], vec![(1, Doubt::Future)]));
        // By now, that time has come.
        let years = order(&[plain(1), plain(20_000), plain(12), plain(36)], 90_000, &[]);
        assert_eq!(years, (vec![0, 1, 2, 3], vec![(1, Doubt::Ahead)]));
        // A clock without a battery.
        let old = order(&[plain(1), plain(25), plain(-400_000), plain(49)], 50, &[]);
        assert_eq!(old, (vec![0, 1, 2, 3], vec![(2, Doubt::Behind)]));
        assert_eq!(order(&[plain(1), plain(25), plain(-400_000)], 50, &[]).0, [0, 1, 2]);
    }

    #[test]
    fn a_long_run_or_a_wrong_start_casts_no_doubt_on_others() {
        // The last one to end began first.
        let (sorted, doubts) = order(&[plain(24), plain(48), (0, 0, 72), plain(96)], 100, &[]);
        assert_eq!((sorted, doubts), (vec![0, 1, 2, 3], vec![]));
        // It began in 1970 and ended on the right clock.
        let (sorted, doubts) = order(&[plain(24), plain(48), (-400_000, -400_000, 72), plain(96)], 100, &[]);
        assert_eq!((sorted, doubts), (vec![0, 1, 2, 3], vec![]));
    }

    #[test]
    fn the_clock_here_may_be_the_one_that_is_wrong() {
        // A rescue system that thinks it is years ago; the store says when things were stored.
        let stored = [(0, 1), (1, 25)];
        assert_eq!(order(&[plain(1), plain(25)], -400_000, &stored), (vec![0, 1], vec![]));
        // Nobody knows better: they keep their order, and are in doubt.
        let doubts = vec![(0, Doubt::Future), (1, Doubt::Future)];
        assert_eq!(order(&[plain(1), plain(25)], -400_000, &[]), (vec![0, 1], doubts));
    }

    /// Whatever clocks did, of two snapshots of one writer with measured dates the one with the higher number never comes first,
    /// but where both are believed and the later run took in the earlier one.
    #[test]
    fn random_clocks_never_make_the_newest_old() {
        let mut state = 7u64;
        let mut roll = |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % sides) as i64
        };
        for _ in 0..3000 {
            let mut clock = 0;
            let mut made: Vec<Made> = Vec::new();
            for _ in 0..2 + roll(8) {
                clock += 1 + roll(48);
                let off = if roll(4) == 0 { [-400_000, -20, -2, 2, 20, 400_000][roll(6) as usize] } else { 0 };
                made.push((clock + off + [0, 0, 0, 20][roll(4) as usize], clock + off, clock + off));
            }
            // The last one is made on a right clock, as it is now.
            made.push(plain(clock + 1));
            let (sorted, _) = order(&made, clock + 2, &[]);
            assert_eq!(sorted.last(), Some(&(made.len() as u8 - 1)), "{made:?}");
        }
    }
}
