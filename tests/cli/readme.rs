//! Every command that the README shows does what it says. Not for: more than the README shows.

use crate::mount::without_fuse;
use crate::support::run::World;
use std::path::Path;
use std::process::Command;

fn blocks(text: &str) -> Vec<String> {
    let parts = text.split("```sh\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_of_the_readme() {
    if without_fuse() {
        return;
    }
    let readme = include_str!("../../README.md");
    let blocks = blocks(readme);
    assert!(!blocks.is_empty() && readme.matches("```sh").count() == blocks.len());
    let world = World::new();
    let home = world.path("empty-home");
    std::fs::create_dir(&home).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_firn")).parent().unwrap();
    for block in &blocks {
        // A tour that breaks off must not leave its mount behind.
        let script = format!("trap 'fusermount3 -qu ~/firn-tour/past 2>/dev/null || true' EXIT\n{block}");
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]).env_clear().current_dir(&home).env("HOME", &home);
        command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", program.display())).env("TZ", "UTC");
        let output = command.output().unwrap();
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{block}\n{said}\n{wrong}");
        let warnings: Vec<&str> = wrong.lines().filter(|line| !line.starts_with("Note: ")).collect();
        assert!(warnings.is_empty(), "a tour without a warning: {warnings:?}");
    }
    let text = |name: &str| std::fs::read_to_string(home.join("firn-tour").join(name)).unwrap();
    assert_eq!(text("rescued.txt"), "an old line\na new line\n");
    assert_eq!(text("restored/notes.txt"), text("work/notes.txt"));
}

/// The program's commands, as the README may name them outside of blocks.
#[test]
fn commands_that_are_named_exist() {
    let world = World::new();
    let text = include_str!("../../README.md");
    for word in text.split("`firn ").skip(1).map(|rest| rest.split(['`', ' ']).next().unwrap()) {
        if word.chars().all(|letter| letter.is_ascii_lowercase()) {
            world.run(["help", if word == "help" { "backup" } else { word }]).succeeds();
        }
    }
    for named in text.split('`').skip(1).step_by(2).filter(|named| named.contains('/') && !named.contains([' ', ':'])) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(named);
        let is_ours = ["src", "fuse", "man", "tests", "benches", ".ci"].iter().any(|start| named.starts_with(start));
        assert!(!is_ours || path.exists(), "{named}");
    }
}
