//! Judges whether a file's times prove that nobody writes to it. Not for: reading files (see `file`), or reading them again
//! (see `pipeline`).
//!
//! A call that writes sets the times once, when it begins, and may go on for minutes; a store into a mapped page that is dirty
//! sets none. So "same times before and after" proves only that no write *began* meanwhile. Calls that began before are waited for
//! where the file system's locks allow that (`os::wait_for_writes`). For all else, a file that was young when it was read is read
//! again a moment later, unless a lease proves that no writer had it open (`is_doubtful`).

use super::walk::{Handle, SourceItem};
use crate::os::{self, Stat, Writes};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// A file whose inode changed this short a time before it was read is not remembered, because it may change again unseen:
/// 1. Within the same tick of the file system's clock (up to 2 s), its times stay the same. (The racy-git problem, git's
///    Documentation/technical/racy-git.)
/// 2. Of a file that is mapped into memory, only the first store into a clean page sets its times; further stores into that
///    page leave no trace until the kernel has written it to the disk and protects it again. That happens once it has been
///    dirty for `vm.dirty_expire_centisecs` (30 s), at the next round of `vm.dirty_writeback_centisecs` (5 s).
///
/// This leaves room for a disk that is slow to take what is written. (On tmpfs stores through a mapping never set the times.)
pub(super) const YOUNG: Duration = Duration::from_secs(60);
/// How far the clock of a server or of a FUSE file system may be behind this machine's. It cannot be asked without writing there.
const SKEW: Duration = Duration::from_secs(3600);
/// A call that has been writing for longer than this is not waited for at all; see `Clocks::wait_for_writes`.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 3600);
/// So long a call that writes is waited for: what it writes may come from a disk or a server that does not answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The step of the clock from which file systems take their times is at most this (a jiffy of 10 ms, with room).
const TICK: Duration = Duration::from_millis(50);
/// File systems that keep whole seconds only.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// What the times of files prove, by the device that they are on.
#[derive(Debug, Default)]
pub struct Clocks(HashMap<u64, Clock>);

/// Of one file system. Any doubt means no.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    is_local: bool,
    keeps_change_times: bool,
}

impl Clocks {
    /// Whether the file's times come from this machine's clock and its size is what can be read of it. Any doubt means no.
    pub fn is_local(&mut self, item: &SourceItem) -> bool {
        self.clock(item).is_local
    }

    /// Whether the file cannot have been changed, or another one put in its place, without another change time. Where a file system
    /// has none (as sshfs, rclone, FAT), the time of the last modification stands in its place, and copying tools set that.
    pub fn has_change_time(&mut self, item: &SourceItem) -> bool {
        let Stat { ctime, mtime, .. } = item.stat;
        // SMB has the year 1601 for "unknown".
        ctime.seconds > 0 && (ctime != mtime || self.clock(item).keeps_change_times)
    }

    fn clock(&mut self, item: &SourceItem) -> Clock {
        if let Some(known) = self.0.get(&item.stat.dev) {
            return *known;
        }
        let (Handle::In(dir) | Handle::Itself(dir)) = &item.handle;
        // A file that something is mounted on tells nothing about its neighbours.
        if !os::stat_fd(dir).is_ok_and(|stat| stat.dev == item.stat.dev) {
            return Clock::default();
        }
        let clock = Clock {
            is_local: os::is_on_local_disk(dir).unwrap_or(false),
            keeps_change_times: os::keeps_change_times(dir),
        };
        self.0.insert(item.stat.dev, clock);
        clock
    }

    /// Whether a file that was read from `begun` on may change, or have changed, without another change time.
    pub fn is_young(&mut self, item: &SourceItem, begun: SystemTime) -> bool {
        is_racy(&item.stat, begun, young() + SKEW) && (is_racy(&item.stat, begun, young()) || !self.is_local(item))
    }

    /// Waits until no call writes to the open file that began before `item.stat` was taken, where that can be waited for.
    pub fn wait_for_writes(&mut self, item: &SourceItem, file: impl AsFd) -> Writes {
        if self.is_local(item) && is_racy(&item.stat, SystemTime::now(), LONGEST_CALL) {
            os::wait_for_writes(file, LONGEST_WAIT)
        } else {
            Writes::Ended
        }
    }

    /// Whether the open file, unchanged since `item.stat` was taken, may be in the middle of a write that began before.
    pub fn is_doubtful(&mut self, item: &SourceItem, writes: Writes, begun: SystemTime) -> bool {
        // Of an empty file nothing can be torn.
        item.stat.size > 0 && writes != Writes::None && self.is_young(item, begun)
    }
}

/// The step of the clock that file systems use, or of those that keep whole seconds only.
fn tick(stat: &Stat) -> Duration {
    let coarse = stat.ctime.nanos == 0 && stat.mtime.nanos == 0;
    if coarse { COARSE_TICK } else { TICK }
}

/// How long to wait before a file is read that was changed just now: a write that begins within the same tick leaves the same
/// times. An empty file has nothing to be torn.
pub(super) fn time_to_settle(stat: &Stat, now: SystemTime) -> Option<Duration> {
    // Times further in the future come from a clock that was wrong, and waiting for each such file would take for ever.
    let is_ahead = is_racy(stat, now + COARSE_TICK, Duration::ZERO);
    (stat.size > 0 && is_racy(stat, now, tick(stat)) && !is_ahead).then(|| tick(stat))
}

/// Whether the file changed less than `young` before `begun`, or later.
pub(super) fn is_racy(stat: &Stat, begun: SystemTime, young: Duration) -> bool {
    let Ok(begun) = begun.duration_since(SystemTime::UNIX_EPOCH) else { return true };
    let changed = i128::from(stat.ctime.seconds) * 1_000_000_000 + i128::from(stat.ctime.nanos);
    changed + young.as_nanos() as i128 > begun.as_nanos() as i128
}

/// How long a change may go unseen here: longer than usual where writing waits longer, as power-saving laptops have it.
pub(super) fn young() -> Duration {
    static YOUNG_HERE: OnceLock<Duration> = OnceLock::new();
    *YOUNG_HERE.get_or_init(|| {
        let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/vm/{name}")).ok()?.trim().parse().ok();
        let wait = ["dirty_expire_centisecs", "dirty_writeback_centisecs"].map(|name| setting(name).unwrap_or(0));
        young_for(wait)
    })
}

pub(super) fn young_for(centiseconds: [u32; 2]) -> Duration {
    let wait: u64 = centiseconds.iter().map(|part| u64::from(*part) * 10).sum();
    YOUNG.max(Duration::from_millis(wait) * 3 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::{FileTime, stat_fd};
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    #[test]
    fn what_changed_within_the_last_minute_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let stat = os::stat_fd(std::fs::File::open(dir.path()).unwrap()).unwrap();
        let racy = |seconds, nanos| is_racy(&Stat { ctime: FileTime { seconds, nanos }, ..stat }, begun, YOUNG);
        assert!(!racy(-5, 0) && !racy(999_000, 0) && !racy(999_940, 0));
        assert!(racy(999_940, 1) && racy(999_965, 0), "a page that is dirty takes further stores without a trace");
        assert!(racy(1_000_000, 0) && racy(1_000_000, 1) && racy(2_000_000, 0), "the clock of a server may be ahead");
        assert!(is_racy(&stat, SystemTime::UNIX_EPOCH - Duration::from_secs(1), YOUNG));
    }

    #[test]
    fn a_kernel_that_writes_late_makes_files_stay_young_for_longer() {
        assert_eq!(young_for([3000, 500]), YOUNG);
        assert_eq!(young_for([0, 0]), YOUNG);
        assert_eq!(young_for([6000, 6000]), Duration::from_secs(180));
        assert!(young_for([u32::MAX, u32::MAX]) > YOUNG);
        assert!(young() >= YOUNG);
    }

    #[test]
    fn a_file_that_was_just_changed_is_given_a_tick() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        let mut stat = stat_fd(std::fs::File::open(path).unwrap()).unwrap();
        let time = |seconds: i64, nanos: u32| FileTime { seconds, nanos };
        let now = UNIX_EPOCH + Duration::from_millis(1_000_000_500);
        let tick = Some(Duration::from_millis(50));
        // Changed 30 ms ago, 60 ms ago, and by a clock that is ahead.
        for (millis, wait) in [(470, tick), (440, None), (900, tick)] {
            stat.ctime = time(1_000_000, millis * 1_000_000);
            assert_eq!(time_to_settle(&stat, now), wait, "{millis}");
        }
        (stat.ctime, stat.mtime) = (time(999_999, 0), time(999_999, 0));
        assert_eq!(time_to_settle(&stat, now), Some(Duration::from_secs(2)), "whole seconds");
        stat.ctime = time(1_000_100, 5);
        assert_eq!(time_to_settle(&stat, now), None, "a clock that was set back");
        stat.ctime = time(1_000_000, 490_000_000);
        stat.size = 0;
        assert_eq!(time_to_settle(&stat, now), None, "empty");
    }

    /// Something in a folder, with the attributes of the folder.
    fn item_in(folder: &std::path::Path) -> SourceItem {
        let fd: std::os::fd::OwnedFd = std::fs::File::open(folder).unwrap().into();
        SourceItem {
            path: folder.into(),
            name: b"f".to_vec(),
            stat: stat_fd(&fd).unwrap(),
            handle: Handle::In(Arc::new(fd)),
            waypoint: false,
            named: false,
        }
    }

    #[test]
    fn a_clock_that_may_be_behind_makes_files_stay_young_for_longer() {
        let folder = tempfile::tempdir().unwrap();
        let mut item = item_in(folder.path());
        item.stat.size = 1;
        let now = SystemTime::now();
        let mut ago = |seconds| {
            let then = now.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 - seconds;
            item.stat.ctime = FileTime { seconds: then, nanos: 1 };
            let clock = |is_local| Clock { is_local, ..Clock::default() };
            let young = |local| Clocks([(item.stat.dev, clock(local))].into()).is_young(&item, now);
            (young(true), young(false), Clocks::default().is_young(&item, now))
        };
        let edge = young().as_secs() as i64;
        assert_eq!(ago(edge - 1), (true, true, true));
        assert_eq!(ago(-600), (true, true, true), "a clock that is ahead");
        assert_eq!(ago(edge + 2), (false, true, false), "the clock of a server may be minutes behind");
        assert_eq!(ago(edge + 3590), (false, true, false));
        assert_eq!(ago(edge + 3602), (false, false, false));
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(!os::is_on_local_disk(&proc).unwrap());
    }

    #[test]
    fn a_change_time_counts_where_no_program_can_have_set_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut item = item_in(folder.path());
        let mut counts = |ctime: i64, mtime: i64| {
            let time = |seconds| FileTime { seconds, nanos: 5 };
            (item.stat.ctime, item.stat.mtime) = (time(ctime), time(mtime));
            let with = |keeps_change_times| {
                let clock = Clock { keeps_change_times, is_local: false };
                Clocks([(item.stat.dev, clock)].into()).has_change_time(&item)
            };
            (with(true), with(false))
        };
        assert_eq!(counts(1_000_000, 999_999), (true, true));
        assert_eq!(counts(1_000_000, 1_000_000), (true, false), "it may be the modification time");
        assert_eq!(counts(-11_644_473_600, 1_000_000), (false, false), "none is known");
        assert!(os::keeps_change_times(std::fs::File::open(folder.path()).unwrap()));
        assert!(!os::keeps_change_times(std::fs::File::open("/proc").unwrap()));
    }
}
