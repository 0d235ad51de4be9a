//! Is the house in order? Layers, openings, sizes, banned calls, forgotten tests. Not for: what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which parts of `src` each part may name. This table is the architecture; `src/lib.rs` draws it.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("id", &["error"]),
    ("progress", &["error"]),
    ("os", &[]),
    ("pattern", &["error"]),
    ("format", &["error", "id"]),
    ("chunk", &["error", "id"]),
    ("store", &["error", "id", "os"]),
    ("repository", &["chunk", "error", "format", "id", "os", "progress", "store"]),
    ("view", &["chunk", "error", "format", "id", "os", "progress", "repository", "store"]),
    ("history", &["chunk", "error", "format", "id", "progress", "repository", "view"]),
    ("backup", &["chunk", "error", "format", "id", "os", "pattern", "progress", "repository", "view"]),
    ("diff", &["backup", "chunk", "error", "format", "id", "os", "pattern", "progress", "repository", "view"]),
    ("restore", &["chunk", "error", "format", "id", "os", "pattern", "progress", "repository", "view"]),
    ("check", &["chunk", "error", "format", "id", "os", "progress", "repository", "store", "view"]),
    ("prune", &["error", "format", "id", "os", "progress", "repository", "store", "view"]),
    ("forget", &["error", "format", "id", "progress", "prune", "repository", "store", "view"]),
    ("repair", &["chunk", "error", "forget", "format", "id", "os", "progress", "prune", "repository", "store", "view"]),
    ("stats", &["chunk", "error", "format", "id", "os", "progress", "repository", "store", "view"]),
    ("du", &["error", "format", "id", "progress", "repository", "view"]),
    // Tests only: nothing may name it, and what it names does not count.
    ("explore", &[]),
    ("model", &[]),
    ("testing", &[]),
    ("mount", &["error", "format", "history", "id", "os", "progress", "repository", "store", "view"]),
    (
        "cli",
        &[
            "backup",
            "check",
            "chunk",
            "diff",
            "du",
            "error",
            "forget",
            "format",
            "history",
            "id",
            "mount",
            "os",
            "pattern",
            "progress",
            "prune",
            "repair",
            "repository",
            "restore",
            "stats",
            "store",
            "view",
        ],
    ),
];

/// Crates that only one place may name.
const HOMES: &[(&str, &[&str])] = &[
    ("sled", &["src/repository/database.rs"]),
    ("fuser", &["fuse/"]),
    ("firn_fuse", &["src/mount/", "fuse/"]),
    ("clap", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("indicatif", &["src/cli/"]),
    ("rpassword", &["src/cli/"]),
    ("signal_hook", &["src/cli/"]),
    ("chacha20poly1305", &["src/chunk/"]),
    ("argon2", &["src/chunk/"]),
    ("zstd", &["src/chunk/"]),
    ("fastcdc", &["src/chunk/"]),
    ("similar", &["src/diff/"]),
];

/// Calls that have a better replacement here, and where they are allowed all the same.
const BANNED: &[(&str, &str, &[&str])] = &[
    ("unsafe {", "a function of `os`", &["src/os.rs"]),
    ("unsafe fn", "a function of `os`", &["src/os.rs"]),
    (".unwrap()", "`?` or `expect(\"why it holds\")`", &[]),
    ("todo!(", "the code", &[]),
    ("unimplemented!(", "the code", &[]),
    ("dbg!(", "nothing", &[]),
    ("process::exit(", "a returned exit code", &["src/cli/"]),
    ("println!(", "`progress`", &["src/cli/"]),
    ("FIXME", "a fix", &[]),
];

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 80;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn visit(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(path).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != "fuzz") {
                    visit(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    visit(&root().join(folder), &mut found);
    found.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// Names of the modules that exist in tests only: `#[cfg(test)]` before `mod name;`.
fn test_modules() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, text) in rust_files("src").into_iter().chain(rust_files("fuse/src")) {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(';')) {
            found.extend(pair[1].split_once("mod ").map(|(_, name)| name.trim_end_matches(';').to_owned()));
        }
    }
    found
}

/// The part of a file that is not tests: up to the first `#[cfg(test)]` that opens a module with a body.
fn without_tests(name: &str, text: &str) -> String {
    static MODULES: std::sync::LazyLock<BTreeSet<String>> = std::sync::LazyLock::new(test_modules);
    if name.ends_with("tests.rs") || name.split(['/', '.']).any(|part| MODULES.contains(part)) {
        return String::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{'))
        .unwrap_or(lines.len());
    lines[..end].iter().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn fail_on(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_part_looks_only_downwards() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut problems = Vec::new();
    for (name, text) in rust_files("src") {
        let part = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if part == "lib" || part == "main" {
            continue;
        }
        let Some(below) = allowed.get(part.as_str()) else {
            problems.push(format!("{name}: `{part}` is not in the table of layers"));
            continue;
        };
        for piece in without_tests(&name, &text).split("crate::").skip(1) {
            let named: String = piece.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            if !named.is_empty()
                && named != part
                && !below.contains(&named.as_str())
                && allowed.contains_key(named.as_str())
            {
                problems.push(format!("{name}: `{part}` must not look at `{named}`"));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn the_table_of_layers_has_no_cycle() {
    // Each part stands behind all that it names.
    let mut seen = BTreeSet::new();
    for (part, below) in LAYERS {
        for named in *below {
            assert!(seen.contains(named), "`{part}` names `{named}`, which does not stand before it");
        }
        seen.insert(part);
    }
}

#[test]
fn each_crate_has_its_home() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src").into_iter().chain(rust_files("fuse/src")) {
        let code = without_tests(&name, &text);
        for (library, homes) in HOMES {
            let at_home = homes.iter().any(|home| name == *home || (home.ends_with('/') && name.starts_with(home)));
            let path = format!("{library}::");
            let named = code.match_indices(&path).any(|(at, _)| {
                !code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':')
            });
            if !at_home && named {
                problems.push(format!("{name}: `{library}` may only be named in {}", homes.join(", ")));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut problems = Vec::new();
    for folder in ["src", "fuse", "tests", "benches"] {
        for (name, text) in rust_files(folder) {
            let opening: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
            if opening.len() < 30 {
                problems.push(format!("{name}: no `//!` sentence at the top"));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn files_and_functions_stay_short() {
    let mut problems = Vec::new();
    for folder in ["src", "fuse", "tests", "benches"] {
        for (name, text) in rust_files(folder) {
            let lines = text.lines().count();
            if lines > MAX_FILE_LINES {
                problems.push(format!("{name}: {lines} lines"));
            }
            problems.extend(long_functions(&name, &text));
        }
    }
    fail_on(&problems);
}

/// rustfmt puts the end of a function at the indentation of its beginning.
fn long_functions(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let words = code.trim_start_matches("pub ").trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        if !words.starts_with("fn ") {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[number..].iter().position(|line| **line == end).unwrap_or(0);
        if length > MAX_FUNCTION_LINES {
            problems.push(format!("{name}:{}: a function of {length} lines", number + 1));
        }
    }
    problems
}

#[test]
fn banned_calls_are_not_made() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("src").into_iter().chain(rust_files("fuse/src")) {
        let code = without_tests(&name, &text);
        for (call, instead, places) in BANNED {
            let allowed = places.iter().any(|place| name.starts_with(place));
            for (number, line) in code.lines().enumerate() {
                if !allowed && line.contains(call) {
                    problems.push(format!("{name}:{}: `{call}`; use {instead}", number + 1));
                }
            }
        }
    }
    fail_on(&problems);
}

/// The first literal of each hint ends the sentence, or with a list; what stands in a variable is written as a hint elsewhere.
#[test]
fn hints_of_the_program_end_with_a_full_stop() {
    let (mut problems, mut number) = (Vec::new(), 0);
    for (name, text) in rust_files("src") {
        for call in without_tests(&name, &text).split("with_hint(").skip(1) {
            let start = call.trim_start().trim_start_matches("format!(").trim_start();
            let Some(literal) = start.strip_prefix('"') else { continue };
            let ends = literal.match_indices('"').map(|(at, _)| at);
            let end = ends.into_iter().find(|at| !literal[..*at].ends_with('\\')).unwrap();
            number += 1;
            if !literal[..end].ends_with(['.', '}']) {
                problems.push(format!("{name}: {}", &literal[..end]));
            }
        }
    }
    assert!(number > 60, "only {number} hints were found");
    fail_on(&problems);
}

#[test]
fn no_test_file_is_forgotten() {
    let files = rust_files("tests");
    let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
    let mut problems = Vec::new();
    for (name, _) in &files {
        let path = Path::new(name);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let module = if stem == "mod" { path.parent().unwrap().file_name().unwrap().to_str().unwrap() } else { stem };
        if name != "tests/main.rs" && !all.contains(&format!("mod {module};")) {
            problems.push(format!("{name}: no `mod {module};` anywhere"));
        }
    }
    fail_on(&problems);
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let words = [["this ", "workplace"], ["this ", "session's"], ["tool ", "library"], ["sub", "agent"]]
        .map(|word| word.concat());
    let mut problems = Vec::new();
    for folder in ["src", "fuse/src", "tests", "benches"] {
        for (name, text) in rust_files(folder) {
            problems
                .extend(words.iter().filter(|word| text.contains(word.as_str())).map(|word| format!("{name}: {word}")));
        }
    }
    fail_on(&problems);
}
