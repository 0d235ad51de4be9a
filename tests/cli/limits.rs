//! Little of what the system has to give. Not for: damage, or hostile input.

use crate::support::run::World;
use std::process::{Command, Stdio};

#[test]
fn a_backup_gets_by_with_few_open_files() {
    let world = World::with_repository();
    for n in 0..3000 {
        world.write(&format!("source/{:02}/{n}/file", n % 20), n.to_string());
    }
    world.write(&format!("source/deep/{}/file", "d/".repeat(300)), "deep");
    let firn = world.command(["backup", "source"], &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256 && exec \"$@\"", "sh"]).arg(firn.get_program()).args(firn.get_args());
    command.env_clear().envs(firn.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.current_dir(world.path("")).stdin(Stdio::null()).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "{said}{errors}");
    // Other tests make folders beside those of this one meanwhile, so the folders above, which are recorded too, may have changed.
    let summary = world.backup(0, ["source"]);
    let above = world.path("source").ancestors().count() as u64 - 1;
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(["files_unmodified", "files_new", "files_changed"].map(number), [3001, 0, 0], "{summary}");
    assert!(number("dirs_changed") <= above && number("data_added") <= above << 12, "{summary}");
}
