//! File managers browse a mount: Thunar and PCManFM, with windows on a screen that is not there (Xvfb), worked by keys. Not for:
//! what they show (`FIRN_TEST_PICTURES=FOLDER` keeps pictures of their windows for a person).

use super::{Mount, listed, without_fuse};
use crate::support::compare::{Options, trees};
use crate::support::nasty::Random;
use crate::support::run::{Ran, World};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// For each two folders given: copies everything in the first one into a new folder, and opens the first file in the second.
const SCRIPT: &str = r#"
set -euo pipefail
manager=$1; shift
export XDG_RUNTIME_DIR=$PWD/run NO_AT_BRIDGE=1 GSETTINGS_BACKEND=memory LC_ALL=C.UTF-8
mkdir -p -m 700 run
rm -f display
Xvfb -displayfd 3 -screen 0 1000x700x24 3>display 2>screen.log & screen=$!
trap 'kill $screen' EXIT
for _ in $(seq 300); do [[ -s display ]] && break; sleep 0.1; done
export DISPLAY=:$(cat display)
# Opens a folder and brings its window to the front; its title begins with the folder's name. A window that goes away just when
# windows are looked through ends the search, so it is begun again.
show() {
    "$manager" "$1" >>"$manager.log" 2>&1 &
    for _ in $(seq 150); do
        sleep 0.4
        timeout 20 xdotool search --onlyvisible --name "^${1##*/}( |\$)" >window 2>/dev/null || continue
        sleep 1
        if timeout 20 xdotool windowfocus --sync "$(tail -n 1 window)" 2>/dev/null; then return; fi
    done
    echo "no window for $1" >&2
    return 1
}
# Closes all windows.
leave() {
    if [[ $manager == thunar ]]; then thunar --quit; else pkill -x -P $$ "$manager" || true; fi
    for job in $(jobs -p); do [[ $job == "$screen" ]] || wait "$job" || true; done
}
picture() {
    [[ -z ${FIRN_TEST_PICTURES:-} ]] || import -window root "$FIRN_TEST_PICTURES/$manager-$1.png"
}
number=0
while (($#)); do
    folder=$1 inner=$2; shift 2
    number=$((number + 1))
    files=("$inner"/*)
    to=copied-$manager-$number
    # A key that comes before the list is there does nothing: so again.
    for try in 1 2 3 4 5; do
        ((try == 1)) || leave
        rm -rf "$to"; mkdir "$to"
        show "$folder"
        picture "$number"
        xdotool key ctrl+a; sleep 0.3; xdotool key ctrl+c; sleep 0.5
        show "$to"
        xdotool key ctrl+v
        for _ in $(seq 40); do
            sleep 0.2
            if diff -r "$folder" "$to" >/dev/null; then break 2; fi
        done
    done
    diff -r "$folder" "$to"
    for _ in 1 2 3 4 5; do
        show "$inner"
        xdotool key Home; sleep 0.3; xdotool key Return; sleep 0.5; picture "open-$number"
        for _ in $(seq 40); do
            sleep 0.2
            if cmp -s opened "${files[0]}"; then break 2; fi
        done
    done
    cmp opened "${files[0]}"
    rm opened
    # The windows of the next one have the same titles.
    leave
done
"#;

/// Says that texts are opened by a program that leaves a copy.
fn viewer(world: &World) {
    let script = format!("#!/bin/sh\ncp --no-preserve=mode \"$1\" {}\n", world.text("opened"));
    world.write("viewer", script);
    fs::set_permissions(world.path("viewer"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let entry = format!(
        "[Desktop Entry]\nType=Application\nName=Viewer\nExec={} %f\nMimeType=text/plain;\n",
        world.text("viewer")
    );
    world.write("home/.local/share/applications/viewer.desktop", entry);
    world.write("home/.config/mimeapps.list", "[Default Applications]\ntext/plain=viewer.desktop\n");
}

#[test]
fn thunar_and_pcmanfm_browse_open_and_copy() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    viewer(&world);
    world.write("papers/letter/letter.txt", "Dear past,\n");
    world.write("papers/numbers.bin", Random(1).bytes(700_000));
    world.write("papers/inner/deeper/file", "deep");
    world.write("papers/old/notes.txt", "To be forgotten.\n");
    world.backup(0, ["papers", "--time", "2024-01-02 03:04:05"]);
    world.write("papers/letter/letter.txt", "Dear present,\n");
    fs::remove_dir_all(world.path("papers/old")).unwrap();
    world.backup(0, ["papers"]);
    let mount = Mount::of(&world, &[]);
    let papers = world.path("papers");
    let below = papers.strip_prefix("/").unwrap().to_owned();
    let at = |folder: &str, name: &str| mount.path(folder).join(&below).join(name);
    let earlier = "snapshots/2024-01-02_03-04-05";
    let places = [
        [at("latest", "."), at("latest", "letter")],
        [at(earlier, "."), at(earlier, "letter")],
        [at("versions", "letter/letter.txt"), at("versions", "letter/letter.txt")],
        [at("versions", "letter"), at("versions", "letter/2024-01-02_03-04-05")],
        [at("deleted", "."), at("deleted", "old")],
    ];
    // Their windows have the names of the folders.
    let places: Vec<_> = places.iter().flatten().map(|path| path.components().collect::<PathBuf>()).collect();
    for manager in ["thunar", "pcmanfm"] {
        let mut command = Command::new("dbus-run-session");
        command.args(["--", "bash", "-c", SCRIPT, "browse", manager]).args(&places);
        let pictures = std::env::var("FIRN_TEST_PICTURES").ok();
        world.surround(&mut command, &[("FIRN_TEST_PICTURES", pictures.as_deref())]);
        let ran = Ran::from(command.output().unwrap());
        let log = fs::read_to_string(world.path(&format!("{manager}.log"))).unwrap();
        assert_eq!(ran.code, 0, "{manager}: {ran:?}\n{log}");
        let copied = |number: u32| world.path(&format!("copied-{manager}-{number}"));
        // Folders that they make have the time at which they were made.
        let options = Options { top: false, attributes: false, times: false, ..Options::default() };
        assert_eq!(trees(&papers, &copied(1), options), Vec::<String>::new());
        let is = |number: u32, name: &str, text: &str| {
            assert_eq!(fs::read_to_string(copied(number).join(name)).unwrap(), text, "{manager}: {number} {name}");
        };
        is(2, "letter/letter.txt", "Dear past,\n");
        is(3, "2024-01-02_03-04-05.txt", "Dear past,\n");
        is(4, "2024-01-02_03-04-05/letter.txt", "Dear past,\n");
        is(5, "old/notes.txt", "To be forgotten.\n");
        assert_eq!((listed(&copied(3)).len(), listed(&copied(4)).len()), (2, 3));
        // PCManFM says what it starts.
        let log: String =
            log.lines().filter(|line| !line.contains("/viewer ")).map(|line| format!("{line}\n")).collect();
        no_errors(manager, &log, &mount.path(""));
    }
}

/// What they say is about their own surroundings, not about the mount.
#[track_caller]
fn no_errors(manager: &str, log: &str, point: &Path) {
    let bad =
        [point.to_str().unwrap(), "denied", "nput/output", "not supported", "tale", "ermission", "papers", "letter"];
    let lines: Vec<&str> = log.lines().filter(|line| bad.iter().any(|word| line.contains(word))).collect();
    assert!(lines.is_empty(), "{manager}: {lines:?}");
}
