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
    world.write("home/work/notes.txt", "an old line\n");
    world.write("home/photos/one.jpg", [0xff, 0xd8, 0xff]);
    world.write("home/.firn-password", "correct horse\n");
    world.write("home/.second-password", "battery staple\n");
    for folder in ["tmp", "home/past"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }
    let home = world.path("home");
    let program = Path::new(env!("CARGO_BIN_EXE_firn")).parent().unwrap();
    for block in &blocks {
        let script = block.replace("/tmp/", &format!("{}/", world.text("tmp")));
        // A tour that breaks off must not leave its mount behind.
        let script = format!("trap 'fusermount3 -qu ~/past 2>/dev/null || true' EXIT\n{script}");
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]).env_clear().current_dir(&home).env("HOME", &home);
        command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", program.display())).env("TZ", "UTC");
        let output = command.output().unwrap();
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{block}\n{said}\n{wrong}");
        assert_eq!(wrong, "", "a tour without a warning");
    }
    let text = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    assert_eq!(text("tmp/rescued.txt"), "an old line\na new line\n");
    assert_eq!(text("tmp/restored/notes.txt"), text("home/work/notes.txt"));
}

/// The program's commands, as the README may name them outside of blocks.
#[test]
fn commands_that_are_named_exist() {
    let world = World::new();
    let text = include_str!("../../README.md");
    for word in text.split("`firn ").skip(1).map(|rest| rest.split(['`', ' ']).next().unwrap()) {
        if word != "help" && word.chars().all(|letter| letter.is_ascii_lowercase()) {
            world.run([word, "--help"]).succeeds();
        }
    }
    for named in text.split('`').skip(1).step_by(2).filter(|named| named.contains('/') && !named.contains([' ', ':'])) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(named);
        let is_ours = ["src", "fuse", "man", "tests", "benches", ".ci"].iter().any(|start| named.starts_with(start));
        assert!(!is_ours || path.exists(), "{named}");
    }
}
