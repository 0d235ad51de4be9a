//! Which snapshots of a group a policy keeps, and why. Not for: grouping, or anything that needs a repository.
//!
//! The rules are restic's as its manual documents them (restic 0.18, "Removing backup snapshots according to a policy"), so that a
//! policy that served there serves here: snapshots are looked at from the newest to the oldest; a rule keeps the newest snapshot of
//! each of its periods until its number is used up; while it is not, the oldest snapshot is kept as well; what no rule keeps goes.

use crate::repository::filter::has_tags;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// How many of something are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Most(u32),
    /// All of them.
    All,
}

/// A period of which the newest snapshot is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// Each snapshot is its own.
    Last,
    /// A minute of the clock.
    Minutely,
    /// An hour of the clock.
    Hourly,
    /// A day of the calendar.
    Daily,
    /// A week from Monday to Sunday (ISO 8601).
    Weekly,
    /// A month of the calendar.
    Monthly,
    /// Three months, from January, April, July or October on.
    Quarterly,
    /// Six months, from January or July on.
    HalfYearly,
    /// A year of the calendar.
    Yearly,
}

impl Period {
    /// All of them, the shortest first.
    pub const ALL: [Period; 9] = [
        Period::Last,
        Period::Minutely,
        Period::Hourly,
        Period::Daily,
        Period::Weekly,
        Period::Monthly,
        Period::Quarterly,
        Period::HalfYearly,
        Period::Yearly,
    ];

    /// As a person says it.
    pub fn word(self) -> &'static str {
        match self {
            Period::Last => "last",
            Period::Minutely => "minutely",
            Period::Hourly => "hourly",
            Period::Daily => "daily",
            Period::Weekly => "weekly",
            Period::Monthly => "monthly",
            Period::Quarterly => "quarterly",
            Period::HalfYearly => "half-yearly",
            Period::Yearly => "yearly",
        }
    }

    /// A number that is the same for all moments of one period and no others.
    fn of(self, time: DateTime, number: usize) -> i64 {
        let (year, month) = (i64::from(time.year()), i64::from(time.month()) - 1);
        let day = || i64::from(time.date().since(Date::ZERO).map_or(0, |span| span.get_days()));
        match self {
            Period::Last => number as i64,
            Period::Minutely => (day() * 24 + i64::from(time.hour())) * 60 + i64::from(time.minute()),
            Period::Hourly => day() * 24 + i64::from(time.hour()),
            Period::Daily => day(),
            Period::Weekly => {
                let week = time.date().iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }
            Period::Monthly => year * 12 + month,
            Period::Quarterly => year * 4 + month / 3,
            Period::HalfYearly => year * 2 + month / 6,
            Period::Yearly => year,
        }
    }
}

/// A stretch of time on the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Years.
    pub years: i32,
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Hours.
    pub hours: i32,
}

impl Stretch {
    /// Reads "1y5m7d2h": years, months, weeks (w), days and hours, each at most once or several times.
    pub fn parse(text: &str) -> Option<Stretch> {
        let mut stretch = Stretch::default();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let number: i32 = rest[..digits].parse().ok().filter(|number| *number <= 100_000)?;
            match rest.as_bytes()[digits] {
                b'y' => stretch.years = stretch.years.checked_add(number)?,
                b'm' => stretch.months = stretch.months.checked_add(number)?,
                b'w' => stretch.days = stretch.days.checked_add(number.checked_mul(7)?)?,
                b'd' => stretch.days = stretch.days.checked_add(number)?,
                b'h' => stretch.hours = stretch.hours.checked_add(number)?,
                _ => return None,
            }
            rest = &rest[digits + 1..];
        }
        (stretch != Stretch::default()).then_some(stretch)
    }

    /// The moment that lies this far before `time`. A day that its month does not have runs over into the next one, as in restic.
    fn before(self, time: Timestamp, zone: &TimeZone) -> Timestamp {
        let local = time.to_zoned(zone.clone()).datetime();
        let months = i64::from(local.year()) * 12 + i64::from(local.month())
            - 1
            - i64::from(self.years) * 12
            - i64::from(self.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        let first = i16::try_from(year).ok().and_then(|year| Date::new(year, month as i8, 1).ok());
        let moment = first
            .and_then(|first| first.checked_add((i64::from(local.day()) - 1 - i64::from(self.days)).days()).ok())
            .and_then(|date| date.to_datetime(local.time()).to_zoned(zone.clone()).ok())
            .and_then(|there| there.timestamp().checked_sub(i64::from(self.hours).hours()).ok());
        moment.unwrap_or(Timestamp::MIN)
    }
}

impl std::fmt::Display for Stretch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if number != 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The rule, in restic's words where restic has it.
    pub rule: String,
    /// For a rule of periods: which of the snapshots that it keeps this is, counted from the newest.
    pub nth: Option<Nth>,
}

/// Which of the snapshots that a rule keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nth {
    /// The rule's period.
    pub period: Period,
    /// From 1.
    pub number: u32,
    /// How many the rule keeps at most.
    pub of: Option<u32>,
}

impl Reason {
    /// One without a number.
    pub fn plain(rule: impl Into<String>) -> Reason {
        Reason { rule: rule.into(), nth: None }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.nth {
            None => write!(f, "{}", self.rule),
            Some(Nth { number, of: None, .. }) => write!(f, "{} ({number})", self.rule),
            Some(Nth { number, of: Some(of), .. }) => write!(f, "{} ({number} of {of})", self.rule),
        }
    }
}

/// What is kept of each group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest of so many periods.
    pub counts: Vec<(Period, Count)>,
    /// Everything within this time before the newest snapshot.
    pub within: Option<Stretch>,
    /// The newest of each period within this time before the newest snapshot.
    pub within_periods: Vec<(Period, Stretch)>,
    /// Snapshots with all tags of any of these lists. An empty tag means to have none.
    pub tags: Vec<Vec<String>>,
}

/// A snapshot as a policy sees it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The moment that it stands for.
    pub time: Timestamp,
    /// Its tags.
    pub tags: &'a [String],
}

impl Policy {
    /// For each snapshot, given from the newest to the oldest, why it is kept; no reason: it goes. `zone` says when days begin.
    pub fn apply(&self, snapshots: &[Candidate<'_>], zone: &TimeZone) -> Vec<Vec<Reason>> {
        let Some(newest) = snapshots.first().map(|newest| newest.time) else { return Vec::new() };
        let mut counts: Vec<_> = self
            .counts
            .iter()
            .map(|(period, count)| Rule { period: *period, count: *count, last: None, kept: 0 })
            .collect();
        let mut within: Vec<_> = self
            .within_periods
            .iter()
            .map(|(period, stretch)| {
                let rule = Rule { period: *period, count: Count::All, last: None, kept: 0 };
                (rule, stretch, stretch.before(newest, zone))
            })
            .collect();
        let since = self.within.map(|stretch| (stretch, stretch.before(newest, zone)));
        let mut reasons = Vec::with_capacity(snapshots.len());
        for (number, snapshot) in snapshots.iter().enumerate() {
            let local = snapshot.time.to_zoned(zone.clone()).datetime();
            let is_oldest = number + 1 == snapshots.len();
            let mut why = Vec::new();
            for tags in &self.tags {
                if has_tags(snapshot.tags, tags) {
                    why.push(Reason::plain(format!("has tags [{}]", tags.join(", "))));
                }
            }
            if let Some((stretch, since)) = since
                && snapshot.time > since
            {
                why.push(Reason::plain(format!("within {stretch}")));
            }
            for rule in &mut counts {
                why.extend(rule.keeps(local, number, is_oldest, "snapshot"));
            }
            for (rule, stretch, since) in &mut within {
                if snapshot.time > *since {
                    why.extend(rule.keeps(local, number, is_oldest, &format!("within {stretch}")));
                }
            }
            reasons.push(why);
        }
        reasons
    }
}

struct Rule {
    period: Period,
    count: Count,
    /// The period of the snapshot that was kept last.
    last: Option<i64>,
    kept: u32,
}

impl Rule {
    fn keeps(&mut self, time: DateTime, number: usize, is_oldest: bool, what: &str) -> Option<Reason> {
        if matches!(self.count, Count::Most(most) if self.kept >= most) {
            return None;
        }
        let period = self.period.of(time, number);
        let is_new = self.last != Some(period);
        if !is_new && !is_oldest {
            return None;
        }
        self.last = Some(period);
        self.kept += 1;
        let oldest = if is_new { "" } else { "oldest " };
        let of = if let Count::Most(most) = self.count { Some(most) } else { None };
        let nth = Some(Nth { period: self.period, number: self.kept, of });
        Some(Reason { rule: format!("{oldest}{} {what}", self.period.word()), nth })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn time(text: &str) -> Timestamp {
        format!("{text}Z").parse().unwrap()
    }

    fn kept(policy: &Policy, times: &[&str]) -> Vec<bool> {
        let snapshots: Vec<_> = times.iter().map(|text| Candidate { time: time(text), tags: &[] }).collect();
        policy.apply(&snapshots, &TimeZone::UTC).iter().map(|why| !why.is_empty()).collect()
    }

    fn text(reasons: &[Vec<Reason>]) -> Vec<Vec<String>> {
        reasons.iter().map(|why| why.iter().map(Reason::to_string).collect()).collect()
    }

    fn counts(counts: &[(Period, Count)]) -> Policy {
        Policy { counts: counts.to_vec(), ..Policy::default() }
    }

    #[test]
    fn each_period_keeps_its_newest_and_the_oldest_while_the_number_lasts() {
        let times = ["2026-03-02T12:00:00", "2026-03-02T08:00:00", "2026-03-01T23:00:00", "2026-03-01T01:00:00"];
        let daily = |count| kept(&counts(&[(Period::Daily, count)]), &times);
        assert_eq!(daily(Count::Most(1)), [true, false, false, false]);
        assert_eq!(daily(Count::Most(2)), [true, false, true, false]);
        // One is left over for the oldest.
        assert_eq!(daily(Count::Most(3)), [true, false, true, true]);
        assert_eq!(daily(Count::All), [true, false, true, true]);
        assert_eq!(kept(&counts(&[(Period::Last, Count::Most(3))]), &times), [true, true, true, false]);
        assert_eq!(kept(&counts(&[(Period::Hourly, Count::Most(2))]), &times), [true, true, false, false]);
        assert_eq!(kept(&counts(&[(Period::Yearly, Count::Most(1))]), &times), [true, false, false, false]);
        assert_eq!(kept(&Policy::default(), &times), [false; 4]);
    }

    #[test]
    fn weeks_are_those_of_iso_8601_and_longer_periods_begin_with_the_year() {
        // 2027-01-01 is a Friday of week 53 of 2026.
        let times = [
            "2027-01-03T12:00:00",
            "2027-01-01T12:00:00",
            "2026-12-28T12:00:00",
            "2026-12-27T12:00:00",
            "2026-06-30T00:00:00",
        ];
        assert_eq!(kept(&counts(&[(Period::Weekly, Count::Most(2))]), &times), [true, false, false, true, false]);
        assert_eq!(kept(&counts(&[(Period::Quarterly, Count::Most(3))]), &times), [true, false, true, false, true]);
        assert_eq!(kept(&counts(&[(Period::HalfYearly, Count::Most(3))]), &times), [true, false, true, false, true]);
        assert_eq!(kept(&counts(&[(Period::Monthly, Count::Most(2))]), &times), [true, false, true, false, false]);
    }

    #[test]
    fn stretches_run_over_the_ends_of_months_as_in_restic() {
        let before = |text: &str, at: &str| Stretch::parse(text).unwrap().before(time(at), &TimeZone::UTC);
        assert_eq!(before("1m", "2026-03-31T10:00:00"), time("2026-03-03T10:00:00"));
        assert_eq!(before("1y2m3d4h", "2026-05-06T10:00:00"), time("2025-03-03T06:00:00"));
        assert_eq!(before("2w", "2026-01-10T00:00:00"), time("2025-12-27T00:00:00"));
        assert!(before("9000y", "2026-01-10T00:00:00") < time("2000-01-01T00:00:00"));
        for wrong in ["", "5", "d", "1x", "0d", "1.5d", "-1d", "99999999999d", "1d5"] {
            assert_eq!(Stretch::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Stretch::parse("1y5m7d2h").unwrap().to_string(), "1y5m7d2h");
    }

    #[test]
    fn time_counts_from_the_newest_snapshot_and_not_from_the_clock() {
        let times = ["2020-03-02T12:00:00", "2020-03-01T12:00:01", "2020-03-01T12:00:00", "2020-02-01T12:00:00"];
        let within = |text| Policy { within: Stretch::parse(text), ..Policy::default() };
        assert_eq!(kept(&within("1d"), &times), [true, true, false, false]);
        assert_eq!(kept(&within("2y"), &times), [true; 4]);
        let daily =
            Policy { within_periods: vec![(Period::Daily, Stretch::parse("7d").unwrap())], ..Policy::default() };
        assert_eq!(kept(&daily, &times), [true, true, false, false]);
    }

    #[test]
    fn days_are_those_of_the_time_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let snapshots: Vec<_> = ["2026-03-01T22:30:00", "2026-03-01T21:30:00"]
            .iter()
            .map(|text| Candidate { time: time(text), tags: &[] })
            .collect();
        let policy = counts(&[(Period::Daily, Count::Most(2))]);
        let why = policy.apply(&snapshots, &zone);
        assert_eq!(text(&why)[1], ["daily snapshot (2 of 2)"]);
        assert_eq!(text(&policy.apply(&snapshots, &TimeZone::UTC))[1], ["oldest daily snapshot (2 of 2)"]);
        let within = vec![(Period::Hourly, Stretch { days: 3, ..Stretch::default() })];
        let policy = Policy { within_periods: within, ..counts(&[(Period::Yearly, Count::All)]) };
        assert_eq!(text(&policy.apply(&snapshots, &zone))[0], ["yearly snapshot (1)", "hourly within 3d (1)"]);
    }

    #[test]
    fn tags_keep_what_has_all_of_one_list() {
        let sets: Vec<Vec<String>> = [&["a", "b"][..], &["a"], &["c"], &[]]
            .iter()
            .map(|set| set.iter().map(|tag| tag.to_string()).collect())
            .collect();
        let snapshots: Vec<_> = sets.iter().map(|tags| Candidate { time: Timestamp::UNIX_EPOCH, tags }).collect();
        let lists = vec![vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]];
        let why = text(&Policy { tags: lists, ..Policy::default() }.apply(&snapshots, &TimeZone::UTC));
        assert_eq!(why, [vec!["has tags [a, b]".to_owned()], vec![], vec!["has tags [c]".to_owned()], vec![]]);
        let untagged = Policy { tags: vec![vec![String::new()]], ..Policy::default() };
        let why = untagged.apply(&snapshots, &TimeZone::UTC);
        assert_eq!(why.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 0, 1]);
    }

    /// The same rules told in another way: for each rule the set of snapshots that it keeps, found by grouping all of them.
    fn model(policy: &Policy, times: &[Timestamp]) -> HashSet<usize> {
        let mut kept = HashSet::new();
        let local = |at: usize| times[at].to_zoned(TimeZone::UTC).datetime();
        let text = |period: Period, at: usize| {
            let time = local(at);
            let quarter = (time.month() + 2) / 3;
            match period {
                Period::Last => at.to_string(),
                Period::Minutely => time.strftime("%Y-%m-%d %H:%M").to_string(),
                Period::Hourly => time.strftime("%Y-%m-%d %H").to_string(),
                Period::Daily => time.strftime("%Y-%m-%d").to_string(),
                Period::Weekly => time.strftime("%G-%V").to_string(),
                Period::Monthly => time.strftime("%Y-%m").to_string(),
                Period::Quarterly => format!("{} {quarter}", time.year()),
                Period::HalfYearly => format!("{} {}", time.year(), time.month() > 6),
                Period::Yearly => time.strftime("%Y").to_string(),
            }
        };
        let newest_of_each = |period: Period, among: &[usize]| -> Vec<usize> {
            let mut seen = HashSet::new();
            among.iter().copied().filter(|at| seen.insert(text(period, *at))).collect()
        };
        let all: Vec<usize> = (0..times.len()).collect();
        for (period, count) in &policy.counts {
            let mut chosen = newest_of_each(*period, &all);
            let most = if let Count::Most(most) = count { *most as usize } else { usize::MAX };
            if chosen.len() < most {
                chosen.extend(all.last());
            }
            kept.extend(chosen.into_iter().take(most));
        }
        for (period, stretch) in &policy.within_periods {
            let hours = i64::from(stretch.days * 24 + stretch.hours);
            let among: Vec<usize> =
                all.iter().copied().filter(|at| times[0].duration_since(times[*at]).as_secs() < hours * 3600).collect();
            kept.extend(newest_of_each(*period, &among));
            // The oldest of all, if it is within the time.
            kept.extend(among.last().filter(|at| **at + 1 == times.len()));
        }
        if let Some(stretch) = policy.within {
            let hours = i64::from(stretch.days * 24 + stretch.hours);
            kept.extend(all.iter().filter(|at| times[0].duration_since(times[**at]).as_secs() < hours * 3600));
        }
        kept
    }

    #[test]
    fn random_policies_agree_with_a_model_of_another_make() {
        let mut state = 1u64;
        let mut random = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        for round in 0..400 {
            let spacing = [600, 3600, 40_000, 90_000, 900_000][random(5) as usize];
            let mut at = 1_900_000_000i64;
            let times: Vec<Timestamp> = (0..1 + random(400))
                .map(|_| {
                    at -= random(spacing) as i64;
                    Timestamp::from_second(at).unwrap()
                })
                .collect();
            let mut policy = Policy::default();
            for _ in 0..1 + random(4) {
                let period = Period::ALL[random(9) as usize];
                match random(5) {
                    0 => policy.within = Some(Stretch { days: random(40) as i32 + 1, ..Stretch::default() }),
                    1 => {
                        let stretch =
                            Stretch { days: random(90) as i32, hours: 1 + random(30) as i32, ..Stretch::default() };
                        policy.within_periods.push((period, stretch));
                    }
                    2 => policy.counts.push((period, Count::All)),
                    _ => policy.counts.push((period, Count::Most(1 + random(40) as u32))),
                }
            }
            let snapshots: Vec<_> = times.iter().map(|time| Candidate { time: *time, tags: &[] }).collect();
            let why = policy.apply(&snapshots, &TimeZone::UTC);
            let kept: HashSet<usize> = (0..times.len()).filter(|at| !why[*at].is_empty()).collect();
            assert_eq!(kept, model(&policy, &times), "round {round}: {policy:?}");
        }
    }
}
