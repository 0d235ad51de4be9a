//! Tests of templates, names and filters. Not for: folders that are made of them.

use super::*;
use crate::view::sample::{Sample, Thing, dir};

/// A snapshot of this time, host, user and tags.
fn named(number: u8, time: &str, host: &str, tags: &[&str]) -> Named {
    let sample = Sample::new();
    let mut named = sample.snapshot(time, host, tags, &dir([("a", Thing::Fifo)]));
    named.name = ObjectName([number; 32]);
    named.snapshot.user = "me:you".to_owned();
    named
}

fn places(layout: &Layout, snapshots: &[&Named]) -> Vec<Vec<String>> {
    let paths = |places: Places| places.paths.into_iter().map(|(path, _)| path.join("/")).collect();
    layout.places(snapshots).into_iter().map(paths).collect()
}

fn templates_of(texts: &[&str]) -> Layout {
    let templates = texts.iter().map(|text| Template::parse(text).unwrap()).collect();
    Layout::from(TimeZone::UTC).with_templates(templates)
}

#[test]
fn templates_are_filled_in() {
    let one = named(1, "2026-01-01T00:00:00Z", "al/pha", &["x", "y"]);
    let two = named(2, "2026-01-02T00:00:00Z", "beta", &[]);
    let layout = templates_of(&["by %h/%u/%t", "/%T/100%%/%t", "%i", "all/%I"]);
    let id = "01".repeat(32);
    let found = places(&layout, &[&two, &one]);
    let expected = [
        "by al_pha/me_you/2026-01-01_00-00-00",
        "x/100%/2026-01-01_00-00-00",
        "y/100%/2026-01-01_00-00-00",
        "01010101",
        &format!("all/{id}"),
    ];
    assert_eq!(found[0], expected);
    assert_eq!(found[1].len(), 3, "one without tags has no path with one: {found:?}");
    assert_eq!(places(&templates_of(&["%T/%t"]), &[&two]), Vec::<Vec<String>>::new());
    for wrong in ["", "/", "a/", "%x", "a%", "../%t", "%h/./%t", "a\n/%t"] {
        assert_eq!(Template::parse(wrong).unwrap_err().kind(), ErrorKind::Input, "{wrong}");
    }
}

#[test]
fn what_would_be_called_the_same_gets_a_number() {
    let one = named(1, "2026-01-01T00:00:00.1Z", "h", &[]);
    let two = named(2, "2026-01-01T00:00:00.2Z", "h", &[]);
    let three = named(3, "2026-01-01T00:00:09Z", "h", &[]);
    let all = [&three, &one, &two];
    assert_eq!(places(&templates_of(&["%h"]), &all), [["h"], ["h_2"], ["h_3"]]);
    let days = templates_of(&["%t"]).with_time("%Y/%m/%d").unwrap();
    assert_eq!(places(&days, &all), [["2026/01/01"], ["2026/01/01_2"], ["2026/01/01_3"]]);
    // What is inside another snapshot by its template stands beside it.
    assert_eq!(places(&templates_of(&["%h", "%h/%i"]), &[&one]), [["h", "h_2/01010101"]]);
    let zone = TimeZone::fixed(jiff::tz::offset(-3));
    let gmt = Layout::of(Style::PreviousVersions, zone.clone());
    let expected = [["@GMT-2026.01.01-00.00.00"], ["@GMT-2026.01.01-00.00.01"], ["@GMT-2026.01.01-00.00.09"]];
    assert_eq!(places(&gmt, &all), expected);
    assert_eq!(places(&Layout::of(Style::Flat, zone), &[&one]), [["2025-12-31_21-00-00"]]);
}

#[test]
fn names_of_times_are_tried_before() {
    let layout = || Layout::from(TimeZone::UTC);
    for wrong in ["", "%", "%!", "a\tb"] {
        assert_eq!(layout().with_time(wrong).unwrap_err().kind(), ErrorKind::Input, "{wrong}");
    }
    let one = named(1, "2026-01-01T12:30:00Z", "h", &[]);
    let with = |format: &str| places(&templates_of(&["%t"]).with_time(format).unwrap(), &[&one]);
    assert_eq!(with("%H:%M"), [["12:30"]]);
    assert_eq!(with("../%H"), [["_../12"]]);
    assert_eq!(with("//"), [["_"]]);
    assert!(with(&"%Y".repeat(200))[0][0].len() <= LONGEST);
}

#[test]
fn a_filter_wants_what_it_names() {
    let one = named(1, "2026-01-01T00:00:00Z", "alpha", &["x", "y"]).snapshot;
    let path = one.paths[0].0.clone();
    let wants = |hosts: &[&str], tags: &[&[&str]], paths: &[&[u8]]| {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let tags = tags.iter().map(|tags| owned(tags)).collect();
        let paths = paths.iter().map(|path| path.to_vec()).collect();
        Filter { hosts: owned(hosts), tags, paths }.wants(&one)
    };
    assert!(wants(&[], &[], &[]) && wants(&["beta", "alpha"], &[], &[]) && !wants(&["beta"], &[], &[]));
    assert!(wants(&[], &[&["y", "x"]], &[]) && wants(&[], &[&["z"], &["x"]], &[]));
    assert!(!wants(&[], &[&["x", "z"]], &[]) && !wants(&[], &[&[""]], &[]));
    assert!(wants(&[], &[], &[&path]) && !wants(&[], &[], &[&path, b"/other"]));
}
