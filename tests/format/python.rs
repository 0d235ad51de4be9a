//! firn and the independent reader, each with what the other wrote. Needs python3 with venv, and the packages of
//! `tests/reader/requirements.txt`; `FIRN_TEST_NO_PYTHON=1` leaves these tests out. Not for: the reader's own tests.

use super::golden::manifests;
use super::maker::SOURCE;
use super::manifest::{self, Manifest, as_restored_by_a_user};
use super::{GOLDEN, PASSWORD, golden_folder, open};
use std::fs;
use std::path::Path;
use std::process::Command;

fn left_out() -> bool {
    let out = std::env::var_os("FIRN_TEST_NO_PYTHON").is_some_and(|value| value == "1");
    if !out {
        let ready = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
        assert!(
            ready.is_ok_and(|output| output.status.success()),
            "python3 or its venv is missing (package python3-venv); FIRN_TEST_NO_PYTHON=1 leaves these tests out"
        );
    }
    out
}

/// Runs the reader (or, with `--sample`, the writer of samples) and returns what it printed.
fn reader(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/run"));
    command.arg("--venv").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("reader-venv"));
    command.args(arguments.iter().map(|argument| argument.as_ref()));
    let output = command.output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{text}\n{errors}");
    text.into_owned()
}

/// What the file system and this user's rights allow to be restored.
fn restorable(manifest: Manifest) -> Manifest {
    if rustix::process::geteuid().is_root() { manifest } else { as_restored_by_a_user(manifest) }
}

#[test]
fn the_independent_reader_restores_the_golden_repositories() {
    if left_out() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let password = scratch.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    for folder in GOLDEN {
        let repository = golden_folder().join(folder);
        let expected = manifests(folder);
        for (number, (name, expected)) in expected.iter().enumerate() {
            for mode in ["", "--no-index", "--frames-only"].iter().skip(if number > 0 { 2 } else { 0 }) {
                let target = scratch.path().join(format!("{folder}{number}{mode}"));
                let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--password-file", &password];
                if !mode.is_empty() {
                    arguments.push(mode);
                }
                // The reader's options stand before its command, and the repository before both.
                arguments.extend([&repository as &dyn AsRef<_>, &"restore", name, &target]);
                reader(&arguments);
                let found = restorable(manifest::of_folder(&target.join(&SOURCE[1..])));
                let differences = manifest::differences(&restorable(expected.clone()), &found);
                assert_eq!(differences, Vec::<String>::new(), "{folder} {name} {mode}");
            }
        }
        reader(&[&"--password-file", &password, &repository, &"check"]);
        reader(&[&repository, &"verify-names"]);
    }
}

#[test]
fn firn_reads_what_the_independent_writer_wrote() {
    if left_out() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (sample, target) = (scratch.path().join("sample"), scratch.path().join("target"));
    let name = reader(&[&"--sample", &sample]).trim().to_owned();
    let password = fs::read_to_string(sample.join("x/password")).unwrap();
    reader(&[&"--password-file", &sample.join("x/password"), &sample, &"restore", &name, &target]);
    // Whether the reader is right is for the writer to say.
    assert_eq!(reader(&[&"--sample", &"--compare", &target]), "equal\n");
    let repository = open(&sample, password.trim_end_matches('\n'));
    let snapshots = repository.snapshots().unwrap();
    assert_eq!((snapshots.live.len(), snapshots.forgotten.len(), snapshots.damaged.len()), (1, 1, 0));
    let found = restorable(manifest::of_snapshot(&repository, &name, b"/"));
    let expected = restorable(manifest::of_folder(&target));
    assert_eq!(manifest::differences(&expected, &found), Vec::<String>::new());
    assert!(found.len() > 300);
}
