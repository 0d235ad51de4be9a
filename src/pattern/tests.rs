//! Tests of patterns: what matches, which one decides, which were used. Not for: walks that follow them.

use super::*;

fn verdict(patterns: &[&str], path: &[u8], is_dir: bool) -> Verdict {
    Patterns::from_arguments(patterns).unwrap().matches(path, is_dir)
}

#[test]
fn single_patterns() {
    const YES: bool = true;
    const NO: bool = false;
    let table: &[(&str, &[u8], bool)] = &[
        ("a", b"/a", YES),
        ("a", b"/x/a", YES),
        ("a", b"/x/a/y/z", YES),
        ("a", b"/x/ab", NO),
        ("*.o", b"/x/m.o", YES),
        ("*.o", b"/x/.o", YES),
        ("*.o", b"/x/m.o.c", NO),
        ("*.o", b"/x.o/y", YES),
        ("*", b"/x", YES),
        ("/a", b"/a", YES),
        ("/a", b"/a/b", YES),
        ("/a", b"/b/a", NO),
        ("/a/*", b"/a", NO),
        ("/a/*", b"/a/b/c", YES),
        ("/a/*/c", b"/a/b/c", YES),
        ("/a/*/c", b"/a/b/b/c", NO),
        ("a/b", b"/x/a/b/y", YES),
        ("a/b", b"/x/a/c/b", NO),
        ("/a/**/c", b"/a/c", YES),
        ("/a/**/c", b"/a/1/2/3/c", YES),
        ("/a/**/c", b"/b/a/c", NO),
        ("/a/**", b"/a/b", YES),
        ("/a/**", b"/a", NO),
        ("/a/**", b"/a/b/c", YES),
        ("b/**", b"/a/b", NO),
        ("b/**", b"/a/b/c", YES),
        ("**", b"/a", YES),
        ("/**", b"/a", YES),
        ("/a/**/", b"/a", NO),
        ("/a/**/**/c/*/d", b"/a/c/c/x/c/y/d", YES),
        ("**/c", b"/c", YES),
        ("x/**/z", b"/1/x/2/3/z", YES),
        ("x/**/z", b"/1/x/2/3/y", NO),
        ("a**b", b"/axxb", YES),
        ("a**b", b"/ax/xb", NO),
        ("?", "/ä".as_bytes(), YES),
        ("??", "/ä".as_bytes(), NO),
        ("?", b"/\xff", YES),
        ("?\u{e4}", b"/\xe4\xc3\xa4", YES),
        ("*\u{e4}*", b"/\xff\xfe\xc3\xa4\xff", YES),
        ("[a-c]x", b"/bx", YES),
        ("[^a-c]x", b"/bx", NO),
        ("[!a-c]x", b"/dx", YES),
        ("[\u{e0}-\u{ef}]", "/ä".as_bytes(), YES),
        ("[]]", b"/]", YES),
        ("[a-]", b"/-", YES),
        ("[\\]a]", b"/]", YES),
        ("[^a]", b"/\xff", YES),
        ("\\*", b"/*", YES),
        ("\\*", b"/x", NO),
        ("{a,b}", b"/a", NO),
        ("~/x", b"/~/x", YES),
        ("$HOME", b"/$HOME", YES),
        ("a\nb", b"/a\nb", YES),
        ("a?b", b"/a\nb", YES),
        ("./a//b/.", b"/x/a/b", YES),
        ("*a*a*a*a*a*b", &[b"/".as_slice(), &[b'a'; 255]].concat(), NO),
        ("/", b"/a", NO),
    ];
    for (pattern, path, expected) in table {
        let found = verdict(&[pattern], path, false) == Verdict::Matched;
        assert_eq!(found, *expected, "{pattern:?} on {:?}", path.escape_ascii().to_string());
    }
}

#[test]
fn patterns_that_are_not_utf8() {
    let patterns = Patterns::from_arguments([&b"\xff*"[..], b"[\xf0-\xff]x", b"/\xc3"]).unwrap();
    for (path, expected) in [
        (&b"/\xffabc"[..], Verdict::Matched),
        (b"/a/\xf5x", Verdict::Matched),
        (b"/a/\xe5x", Verdict::Unmatched),
        (b"/\xc3", Verdict::Matched),
        (b"/\xc3\xa4", Verdict::Unmatched),
    ] {
        assert_eq!(patterns.matches(path, false), expected, "{}", path.escape_ascii());
    }
}

#[test]
fn the_last_match_decides() {
    let list = ["*.o", "!keep.o", "/x/keep.o", "!/x/y"];
    assert_eq!(verdict(&list, b"/a/b.o", false), Verdict::Matched);
    assert_eq!(verdict(&list, b"/a/keep.o", false), Verdict::Negated);
    assert_eq!(verdict(&list, b"/x/keep.o", false), Verdict::Matched);
    assert_eq!(verdict(&list, b"/x/y/a.o", false), Verdict::Negated, "!/x/y holds for what is below it");
    assert_eq!(verdict(&list, b"/x/y.c", false), Verdict::Unmatched);
    assert_eq!(verdict(&["a", "!a", "a"], b"/a", false), Verdict::Matched);
    assert_eq!(verdict(&["a", "!a"], b"/a", false), Verdict::Negated);
}

#[test]
fn patterns_that_matched_nothing_are_known() {
    let list = ["a", "!a", "*.o", "k.*", "/x/**", "none", "!/never/*", "d/", "none"];
    let patterns = Patterns::from_arguments(list).unwrap();
    let unused = || patterns.unused().iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect::<Vec<_>>();
    assert_eq!(unused().len(), 8);
    for path in [&b"/y/a"[..], b"/y/k.o", b"/x", b"/y/d"] {
        patterns.matches(path, false);
    }
    assert_eq!(unused(), ["/x/**", "none", "!/never/*", "d/"], "what a later one outdoes counts as well");
    patterns.matches(b"/x/y", false);
    patterns.matches(b"/y/d", true);
    assert_eq!(unused(), ["none", "!/never/*"]);
    assert_eq!(patterns.clone().note_of_unused().unwrap(), "Nothing matched these patterns: \"none\", \"!/never/*\"");
    patterns.clone().matches(b"/none", false);
    assert_eq!(patterns.note_of_unused().unwrap(), "Nothing matched the pattern \"!/never/*\"");
    assert_eq!(Patterns::new().note_of_unused(), None);
    // Also what is below something that a later one matches.
    let nested = Patterns::from_arguments(["/a/b", "/a"]).unwrap();
    nested.matches(b"/a/b", true);
    assert_eq!(nested.note_of_unused(), None);
}

#[test]
fn a_slash_at_the_end_means_directories() {
    assert_eq!(verdict(&["build/"], b"/x/build", true), Verdict::Matched);
    assert_eq!(verdict(&["build/"], b"/x/build", false), Verdict::Unmatched);
    assert_eq!(verdict(&["build/"], b"/x/build/f", false), Verdict::Matched);
}

#[test]
fn judging_step_by_step_is_the_same() {
    let patterns = Patterns::from_arguments(["b", "/a/*/c/", "!d", "**/e/f*", "?x"]).unwrap();
    let names = ["a", "b", "c", "d", "e", "fx", "xx"];
    let mut seed = 1_u32;
    for _ in 0..5000 {
        let mut path = Vec::new();
        let mut judgement = Judgement::default();
        for depth in 0..5 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            path.push(b'/');
            path.extend(names[(seed >> 16) as usize % names.len()].as_bytes());
            judgement = patterns.judge(&path, depth < 4, judgement);
            assert_eq!(patterns.verdict(judgement), patterns.matches(&path, depth < 4));
        }
    }
}

#[test]
fn files_of_patterns() {
    let mut patterns = Patterns::new();
    let content = b"\xef\xbb\xbf# comment\n\n  a \r\n\t\n\\#b\nc\\ \n!a/x\n\\!d\nlast";
    patterns.add_file("list", content).unwrap();
    let texts: Vec<_> = patterns.texts().iter().map(|t| String::from_utf8_lossy(t).into_owned()).collect();
    assert_eq!(texts, ["a", "\\#b", "c\\ ", "!a/x", "\\!d", "last"]);
    for path in [&b"/a"[..], b"/#b", b"/c ", b"/!d"] {
        assert_eq!(patterns.matches(path, false), Verdict::Matched, "{}", path.escape_ascii());
    }
    let error = patterns.add_file("list", b"ok\n[a\n").unwrap_err();
    assert!(error.to_string().contains("Line 2 of \"list\""), "{error}");
}

#[test]
fn what_is_no_pattern() {
    for text in ["", "!", "[", "[a", "[]", "[z-a]", "a\\", ".", "../a", "!//"] {
        let error = Patterns::from_arguments([text]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{text:?}");
    }
}

#[test]
fn includes_know_where_to_look() {
    let patterns = Patterns::from_arguments(["/a/b*/c", "!/a/bx/c/d", "/z"]).unwrap();
    for (dir, expected) in
        [("/", true), ("/a", true), ("/a/bx", true), ("/a/bx/c", true), ("/a/bx/c/e", true), ("/z/y", true)]
    {
        assert_eq!(patterns.could_match_below(dir.as_bytes()), expected, "{dir}");
    }
    for dir in ["/b", "/a/c", "/a/bx/d", "/a/bx/c/d", "/y/z"] {
        assert!(!patterns.could_match_below(dir.as_bytes()), "{dir}");
    }
    assert!(Patterns::from_arguments(["x"]).unwrap().could_match_below(b"/any/where"));
    assert!(Patterns::from_arguments(["/a/**/x"]).unwrap().could_match_below(b"/a/b/c/d"));
    assert!(!Patterns::new().could_match_below(b"/"));
}
