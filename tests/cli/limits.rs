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
    // Other tests make folders beside those of this one, and the times of the folders above are in the snapshot: there must be a
    // moment when these stand still.
    let again = || world.run(["--json", "backup", "source"]).succeeds().json().pop().unwrap();
    let summary = (0..40).map(|_| again()).find(|summary| summary["data_added"] == 0);
    let summary = summary.expect("a backup of what is known stores nothing");
    assert_eq!(summary["files_unmodified"], 3001, "{summary}");
}
