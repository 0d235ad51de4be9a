//! Scenarios that must hold, and mistakes that must be found. Not for: how they are run (see `lab`).
//!
//! A share of some seconds runs always, more with `FIRN_TESTS=long`, all of it with `FIRN_EXPLORE=full`; `--nocapture` shows how much that was.

use super::actors::Role::{self, CarefulHeir, Forget, Heir, Pruner, Undelete, Writer, WriterOfMore};
use super::actors::Stuff;
use super::gate::Grain;
use super::lab::{Found, Lab, Scenario};
use super::search::{Legs, Random};
use super::step::Faults;
use crate::repository::mistake::Mistake;
use crate::testing::share;

const NONE: Faults = Faults { crashes: 0, failures: 0, hidden: 0, missing: 0, stale: 0, lags: false, revokes: true };

fn scenario(name: &'static str, roles: &[Role]) -> Scenario {
    Scenario {
        name,
        stuff: Stuff::Inline,
        copies: 1,
        is_forgotten: false,
        roles: roles.to_vec(),
        grain: Grain::Listings,
        faults: NONE,
        mistake: None,
    }
}

fn is_full() -> bool {
    share(false, false, true)
}

/// One line for each scenario, for whoever counts.
fn report(scenario: &Scenario, how: &str, found: &Found) {
    let schedules =
        if found.schedules < 1e9 { format!("{:.0}", found.schedules) } else { format!("{:.3e}", found.schedules) };
    eprintln!(
        "explore: scenario={} how={how} schedules={schedules} states={} runs={} lines={} complete={} violations={}",
        scenario.name,
        found.states,
        found.runs,
        found.lines,
        found.is_complete,
        u8::from(found.violation.is_some())
    );
}

/// Tries all orders; without `FIRN_EXPLORE=full`, so many states of them, and a third of that without `FIRN_TESTS=long`.
fn holds_in_all_orders(scenario: Scenario, long: u64) {
    let quick = if long == u64::MAX { long } else { share(long / 3, long, u64::MAX) };
    let found = Lab::new(scenario.clone()).explore(None, quick);
    report(&scenario, "all", &found);
    assert!(found.violation.is_none(), "{}", found.violation.unwrap_or_default());
    assert!(found.is_complete || (!is_full() && found.states >= quick));
}

/// Tries all orders in which an actor that could go on pauses at most so many times.
fn holds_with_pauses(scenario: Scenario, quick: u32, full: u32) {
    let pauses = if is_full() { full } else { quick };
    let found = Lab::new(scenario.clone()).explore(Some(pauses), u64::MAX);
    report(&scenario, &format!("up-to-{pauses}-pauses"), &found);
    assert!(found.violation.is_none(), "{}", found.violation.unwrap_or_default());
    assert!(found.is_complete);
}

/// Tries so many random orders; a third of `long` without `FIRN_TESTS=long`.
fn holds_in_random_orders(scenario: Scenario, long: u64, full: u64) {
    let found = Lab::new(scenario.clone()).sample(0..share(long / 3, long, full));
    report(&scenario, "random", &found);
    assert!(found.violation.is_none(), "{}", found.violation.unwrap_or_default());
}

/// A mistake must come to light within the random orders of these seeds. The first seed is one shortly before the first that shows
/// it, as the code is now; that saves time and nothing else.
fn is_found(mistake: Mistake, scenario: Scenario, from: u64, most: u64) {
    let scenario = Scenario { mistake: Some(mistake), ..scenario };
    let found = Lab::new(scenario.clone()).sample(from..from + most);
    report(&scenario, "random", &found);
    is_told(mistake, &found, most);
}

fn is_told(mistake: Mistake, found: &Found, most: u64) {
    let violation = found.violation.as_ref().unwrap_or_else(|| panic!("{mistake:?} was not found in {most} orders"));
    // The history is what a person would go by: it ends with the step that broke the promise.
    assert!(violation.contains("choices: ") && !violation.contains("not again"), "{violation}");
    for line in ["writer 1", "pruner 1", " lists index: "] {
        assert!(violation.contains(line), "{violation}");
    }
}

#[test]
fn the_same_choices_bring_the_same_run() {
    let faults = Faults { crashes: 1, failures: 1, hidden: 1, ..NONE };
    let scenario =
        Scenario { faults, stuff: Stuff::Content, ..scenario("replay", &[WriterOfMore, Heir, Pruner, Forget]) };
    let mut lab = Lab::new(scenario);
    for seed in 0..10 {
        let one = lab.run(Box::new(Random::new(seed, 4)), true);
        let two = lab.run(Box::new(Random::new(seed, 4)), true);
        assert!(one.violation.is_none() && one.history.len() > 20, "{one:?}");
        assert_eq!((one.choices, one.history), (two.choices, two.history));
    }
}

#[test]
fn a_writer_beside_a_pruner() {
    holds_in_all_orders(scenario("writer+pruner", &[Writer, Pruner]), u64::MAX);
    holds_in_all_orders(scenario("heir+pruner", &[Heir, Pruner]), u64::MAX);
    let copies = Scenario { copies: 2, ..scenario("writer+pruner, copies", &[Writer, Pruner]) };
    holds_in_all_orders(copies, u64::MAX);
}

#[test]
fn a_writer_a_pruner_and_a_forget() {
    holds_in_all_orders(scenario("writer+pruner+forget", &[Writer, Pruner, Forget]), 4_000);
    holds_in_all_orders(scenario("heir+pruner+forget", &[Heir, Pruner, Forget]), 4_000);
}

#[test]
fn two_writers_and_a_pruner() {
    holds_in_all_orders(scenario("2 writers+pruner", &[Writer, Writer, Pruner]), 4_000);
}

#[test]
fn two_writers_a_pruner_and_a_forget() {
    holds_in_all_orders(scenario("2 writers+pruner+forget", &[Writer, Writer, Pruner, Forget]), 4_000);
}

#[test]
fn a_writer_an_heir_a_pruner_and_a_forget() {
    holds_in_all_orders(scenario("writer+heir+pruner+forget", &[Writer, Heir, Pruner, Forget]), 4_000);
}

/// Ends of runs that are come to when no step is taken before its turn are come to when some are.
#[test]
fn no_end_is_missed_where_steps_are_taken_at_once() {
    for roles in [&[Writer, Writer, Pruner][..], &[Writer, Pruner, Forget], &[Heir, Pruner, Forget]] {
        let scenario = scenario("ends", roles);
        let mut lab = Lab::new(scenario.clone());
        let [all, turns] = [("all", None), ("turn-by-turn", Some(u32::MAX))].map(|(how, bound)| {
            let found = lab.explore(bound, u64::MAX);
            report(&scenario, how, &found);
            assert!(found.is_complete);
            lab.take_ends()
        });
        assert!(!all.is_empty() && all == turns);
    }
}

#[test]
fn few_pauses_among_many() {
    let all = scenario("2 writers+pruner+2 forgets", &[Writer, WriterOfMore, Pruner, Forget, Forget]);
    holds_with_pauses(all, 0, 2);
}

#[test]
fn few_pauses_with_an_undelete() {
    let undelete =
        scenario("writer+heir+pruner+forget+undelete", &[WriterOfMore, CarefulHeir, Pruner, Forget, Undelete]);
    holds_with_pauses(undelete, 0, 3);
}

#[test]
fn few_pauses_with_two_pruners() {
    let pruners = scenario("writer+heir+2 pruners+forget", &[WriterOfMore, Heir, Pruner, Pruner, Forget]);
    holds_with_pauses(Scenario { copies: 2, ..pruners }, 0, 1);
}

#[test]
fn few_pauses_with_faults() {
    let faults = Faults { crashes: 1, failures: 1, hidden: 1, ..NONE };
    let faulty = scenario("writer+heir+pruner+forget, faults", &[Writer, Heir, Pruner, Forget]);
    holds_with_pauses(Scenario { faults, ..faulty }, 0, 1);
}

#[test]
fn three_writers_two_pruners_and_forgets() {
    let roles = [WriterOfMore, Writer, Heir, Pruner, Pruner, Forget, Forget];
    let all = Scenario { copies: 2, ..scenario("3 writers+2 pruners+2 forgets", &roles) };
    holds_in_random_orders(all.clone(), 200, 30_000);
    let content = Scenario { stuff: Stuff::Content, name: "the same with content", ..all.clone() };
    holds_in_random_orders(content, 100, 15_000);
    let reads = Scenario { grain: Grain::Reads, name: "the same, read by read", ..all.clone() };
    holds_in_random_orders(reads, 100, 15_000);
    let undelete = [Writer, CarefulHeir, Pruner, Pruner, Forget, Undelete];
    holds_in_random_orders(scenario("2 writers+2 pruners+forget+undelete", &undelete), 100, 15_000);
}

#[test]
fn crashes_lost_acknowledgements_and_listings_that_lack_what_came_meanwhile() {
    let roles = [WriterOfMore, Heir, Pruner, Pruner, Forget];
    let faults = Faults { crashes: 2, failures: 2, hidden: 2, ..NONE };
    let all = Scenario { faults, ..scenario("2 writers+2 pruners+forget, faults", &roles) };
    holds_in_random_orders(all.clone(), 300, 30_000);
    let reads = Scenario { grain: Grain::Reads, name: "the same, read by read", ..all };
    holds_in_random_orders(reads, 100, 15_000);
}

#[test]
fn no_listing_of_packs_or_segments_proves_that_something_is_not_there() {
    let faults = Faults { missing: 1, ..NONE };
    let all = Scenario { faults, ..scenario("writer+pruner+forget, listings lack objects", &[Writer, Pruner, Forget]) };
    holds_in_random_orders(all, 300, 15_000);
}

/// Any listing of any kind that is not fresh may lack anything, and name what has gone.
#[test]
fn nothing_is_decided_by_listings_that_are_old() {
    let faults = Faults { stale: 3, ..NONE };
    let roles = [WriterOfMore, CarefulHeir, Pruner, Pruner, Forget, Undelete];
    let all = Scenario { faults, copies: 2, ..scenario("2 writers+2 pruners+forget+undelete, old listings", &roles) };
    holds_in_random_orders(all, 300, 30_000);
}

/// Fresh ones, too, lag behind here by as long as the place says.
#[test]
fn places_whose_listings_lag_are_waited_for() {
    let faults = Faults { stale: 3, lags: true, ..NONE };
    let few = Scenario { faults, ..scenario("writer+heir+pruner+forget, lagging", &[Writer, Heir, Pruner, Forget]) };
    holds_in_random_orders(few, 300, 30_000);
    let roles = [WriterOfMore, CarefulHeir, Pruner, Pruner, Forget, Undelete];
    let all = Scenario { faults, copies: 2, ..scenario("2 writers+2 pruners+forget+undelete, lagging", &roles) };
    holds_in_random_orders(all, 300, 30_000);
}

#[test]
fn acting_on_old_listings_is_found() {
    let faults = Faults { stale: 2, ..NONE };
    let old = Scenario { faults, ..scenario("old listings", &[Writer, Pruner, Forget]) };
    is_found(Mistake::StaleListings, old, 0, 30_000);
}

#[test]
fn not_waiting_where_listings_lag_is_found() {
    let faults = Faults { stale: 2, lags: true, ..NONE };
    let lagging = Scenario { faults, ..scenario("no wait for listings that lag", &[Writer, Pruner, Forget]) };
    is_found(Mistake::NoLagWait, lagging, 0, 30_000);
}

/// The search of all states finds them too.
#[test]
fn no_mistake_is_missed_in_all_orders() {
    use Mistake::{IndexBeforeMarks, NoPin, NoSecondLook, NoWait, StaleIndex};
    for mistake in [NoPin, IndexBeforeMarks, StaleIndex, NoSecondLook, NoWait] {
        let wrong = Scenario { mistake: Some(mistake), ..scenario("mistake", &[Writer, Pruner, Forget]) };
        let found = Lab::new(wrong.clone()).explore(None, u64::MAX);
        report(&wrong, "all", &found);
        is_told(mistake, &found, 1);
    }
}

#[test]
fn a_writer_without_a_pin_is_found() {
    is_found(Mistake::NoPin, scenario("no pin", &[Writer, Pruner, Forget]), 0, 3_000);
}

#[test]
fn an_index_read_before_marks_is_found() {
    is_found(Mistake::IndexBeforeMarks, scenario("index before marks", &[Writer, Pruner, Forget]), 100_000, 30_000);
}

#[test]
fn a_stale_index_is_found() {
    is_found(Mistake::StaleIndex, scenario("stale index", &[Writer, Pruner, Forget]), 0, 3_000);
}

#[test]
fn a_missing_second_look_at_the_revokes_is_found() {
    is_found(Mistake::NoSecondLook, scenario("no second look", &[Writer, Pruner, Forget]), 0, 3_000);
}

#[test]
fn a_pruner_that_does_not_wait_is_found() {
    is_found(Mistake::NoWait, scenario("no wait", &[Writer, Pruner, Forget]), 0, 3_000);
}

#[test]
fn a_pruner_that_counts_young_tombs_is_found() {
    let young = scenario("young tombs", &[Writer, Heir, Pruner, Forget]);
    // The writer's snapshot needs what the pruner condemns; the heir takes it over and relies on it; it is forgotten before the
    // pruner looks again, and the heir's own comes after that.
    let legs = [(0, Some(20)), (2, Some(30)), (0, None), (1, Some(20)), (3, None), (2, None), (1, None)];
    let right = Scenario { is_forgotten: true, ..young };
    let wrong = Scenario { mistake: Some(Mistake::YoungTombs), ..right.clone() };
    let found = Lab::new(wrong.clone()).sample_by(0..3_000, |seed| Box::new(Legs::new(seed, &legs)));
    report(&wrong, "directed", &found);
    is_told(Mistake::YoungTombs, &found, 3_000);
    let found = Lab::new(right.clone()).sample_by(0..300, |seed| Box::new(Legs::new(seed, &legs)));
    report(&right, "directed", &found);
    assert!(found.violation.is_none(), "{}", found.violation.unwrap_or_default());
}

#[test]
fn a_pruner_that_relies_on_what_others_condemned_is_found() {
    let others = scenario("others' marks", &[Writer, Pruner, Pruner, Forget]);
    is_found(Mistake::OthersMarks, Scenario { copies: 2, ..others }, 300_000, 30_000);
}
