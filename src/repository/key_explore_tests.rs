//! Which commands are explored beside each other, and what must come out. Not for: how that is done (see `key_explore`).

use super::*;
use crate::testing::share;

/// Every two commands that have to do with each other.
fn pairs() -> Vec<(&'static str, Scenario)> {
    let all: [(&str, &[u8], [Command; 2]); 9] = [
        ("each removes the other", &[1, 2], [Remove { by: 1, of: 2 }, Remove { by: 2, of: 1 }]),
        ("two rotate", &[1], [Rotate { by: 1, with: None }, Rotate { by: 1, with: None }]),
        ("each rotates without the other", &[1, 2], [Rotate { by: 1, with: None }, Rotate { by: 2, with: None }]),
        ("one adds, one rotates", &[1], [Add { by: 1, new: 3 }, Rotate { by: 1, with: None }]),
        ("each rotates with both", &[1, 2], [Rotate { by: 1, with: Some(2) }, Rotate { by: 2, with: Some(1) }]),
        ("one removes, one rotates with it", &[1, 2], [Remove { by: 1, of: 2 }, Rotate { by: 2, with: Some(1) }]),
        ("one replaces, one removes", &[1, 2], [Replace { by: 1, new: 3 }, Remove { by: 2, of: 1 }]),
        ("one seals, one rotates", &[1, 2], [Seal { by: 1 }, Rotate { by: 1, with: Some(2) }]),
        ("two add", &[1], [Add { by: 1, new: 3 }, Add { by: 1, new: 4 }]),
    ];
    // Without `FIRN_EXPLORE=full` fewer, and fewer are stopped on their way.
    let few = |number| usize::from(number < 1);
    let crashes = |number| share(0, few(number), 2);
    let all = all.into_iter().take(share(4, 4, 9)).enumerate();
    all.map(|(number, (name, keys, commands))| (name, Scenario::new(keys, &commands, crashes(number)))).collect()
}

#[test]
fn no_two_changes_of_keys_lose_a_key_or_a_pack() {
    for (name, scenario) in pairs() {
        let found = scenario.explore();
        assert_eq!(found.violation, None, "{name}");
        println!("{name}: {} states, {} ends", found.states, found.ends);
        assert!(found.states > 50 && found.ends > 10, "{name}: {found:?}");
    }
}

#[test]
fn nor_do_three() {
    let all = [
        [Add { by: 1, new: 4 }, Add { by: 2, new: 5 }, Seal { by: 3 }],
        [Remove { by: 1, of: 2 }, Remove { by: 2, of: 1 }, Seal { by: 1 }],
        [Remove { by: 1, of: 2 }, Remove { by: 2, of: 3 }, Remove { by: 3, of: 1 }],
        [Rotate { by: 1, with: None }, Add { by: 2, new: 4 }, Seal { by: 1 }],
        [Rotate { by: 1, with: Some(2) }, Rotate { by: 2, with: Some(3) }, Seal { by: 2 }],
    ];
    for commands in all.into_iter().take(share(1, 2, 5)) {
        // Three commands have too many orders to try them all.
        let found = Scenario::new(&[1, 2, 3], &commands, 0).explore_up_to(share(2_000, 5_000, 200_000));
        assert_eq!(found.violation, None, "{commands:?}");
        println!("{commands:?}: {} states, {} ends", found.states, found.ends);
        assert!(found.states > 100, "{commands:?}: {found:?}");
    }
}

/// What all of this is for: without it there are ways to lose everything.
#[test]
fn changes_that_do_not_look_again_are_found() {
    for (name, mut scenario) in pairs() {
        if !["each removes the other", "each rotates without the other", "one adds, one rotates"].contains(&name) {
            continue;
        }
        scenario.mistake = Some(Mistake::KeysNotListedAgain);
        scenario.crashes = 0;
        assert!(scenario.explore().violation.is_some(), "{name}");
    }
}

/// Why slots are listed afresh: two commands that each see an old listing do not see each other.
#[test]
fn changes_that_believe_old_listings_are_found() {
    for (name, mut scenario) in pairs() {
        if !["each removes the other", "one adds, one rotates"].contains(&name) {
            continue;
        }
        scenario.crashes = 0;
        scenario.mistake = Some(Mistake::StaleListings);
        assert!(scenario.explore().violation.is_some(), "{name}");
        scenario.mistake = None;
        assert_eq!(scenario.explore().violation, None, "{name}");
        // The same program, where listings are never old.
        scenario.mistake = Some(Mistake::StaleListings);
        scenario.has_old_listings = false;
        assert_eq!(scenario.explore().violation, None, "{name}");
    }
}
