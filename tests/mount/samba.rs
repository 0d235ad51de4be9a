//! Windows' "Previous Versions": what a real Samba server makes of a mount. Not for: other layouts (see `layouts`).
//!
//! Needs smbd and smbclient, which `.ci/setup test` installs, and root, as smbd does.

use super::{Mount, Server, listed, without_fuse};
use crate::support::run::World;
use crate::support::without_root;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// A server with everything that it writes in the world.
struct Samba<'w> {
    world: &'w World,
    server: Server,
}

impl Samba<'_> {
    /// Serves the share that this stanza describes.
    fn start<'w>(world: &'w World, stanza: &str) -> Samba<'w> {
        let port = Server::free_port();
        let mut config = format!(
            "[global]\nserver role = standalone server\ninterfaces = 127.0.0.1/8\nbind interfaces only = yes\n\
             smb ports = {port}\ndisable netbios = yes\nload printers = no\nmap to guest = Bad User\nlog file = {}\n",
            world.text("smbd.log")
        );
        for name in ["lock", "state", "cache", "private", "pid", "ncalrpc"] {
            let folder = world.path(&format!("samba-{name}"));
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
            let key = if matches!(name, "private" | "ncalrpc") { "dir" } else { "directory" };
            config.push_str(&format!("{name} {key} = {}\n", folder.display()));
        }
        config.push_str(stanza);
        config.push_str("    guest ok = yes\n    read only = yes\n");
        world.write("smb.conf", config);
        let mut command = Command::new("/usr/sbin/smbd");
        command.args(["--foreground", "--no-process-group", "--configfile"]).arg(world.path("smb.conf"));
        Samba { world, server: Server::start(&mut command, port, world.path("smbd.log")) }
    }

    /// What smbclient says to these commands.
    #[track_caller]
    fn ask(&self, commands: &str) -> String {
        let mut client = Command::new("smbclient");
        client.args(["//127.0.0.1/share", "--no-pass", "--port", &self.server.port.to_string(), "--configfile"]);
        client.arg(self.world.path("smb.conf")).args(["--command", commands]).current_dir(self.world.path("got"));
        let output = client.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}\n{}", self.server.said());
        said
    }
}

#[test]
fn windows_finds_previous_versions() {
    if without_fuse() || without_root() {
        return;
    }
    let world = World::with_repository();
    // The folder of a test is closed to others, and guests of a share are others.
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(world.path("got")).unwrap();
    world.write("share/letter.txt", "first");
    world.write("share/folder/gone.txt", "kept in the past");
    world.backup(0, ["share", "--time", "2024-05-06T07:08:09Z"]);
    world.write("share/letter.txt", "second, longer");
    world.backup(0, ["share", "--time", "2024-06-01T12:00:00Z"]);
    fs::remove_file(world.path("share/folder/gone.txt")).unwrap();
    world.write("share/letter.txt", "of today");
    world.backup(0, ["share", "--time", "2025-01-02T03:04:05Z"]);
    // The words of the program are what the server gets.
    let point = world.path("mount-0");
    let words = ["mount", "--samba-help", "--root", &world.text("share"), point.to_str().unwrap()];
    let stanza = world.run(words).succeeds().stdout;
    let arguments =
        ["--layout", "previous-versions", "--root", &world.text("share"), "--allow-other", "--refresh", "1"];
    let mount = Mount::of(&world, &arguments);
    assert_eq!(mount.path(""), point.join(""));
    let times = ["@GMT-2024.05.06-07.08.09", "@GMT-2024.06.01-12.00.00", "@GMT-2025.01.02-03.04.05"];
    assert_eq!(listed(&point), times);
    let samba = Samba::start(&world, &stanza);
    let versions = |name: &str| {
        let said = samba.ask(&format!("allinfo {name}"));
        let versions = said.lines().filter(|line| line.starts_with("@GMT-")).map(str::to_owned);
        versions.collect::<Vec<String>>()
    };
    // The newest first, as Windows shows them.
    assert_eq!(versions("letter.txt"), [times[2], times[1], times[0]]);
    assert_eq!(samba.ask("get letter.txt today").matches("getting file").count(), 1);
    samba.ask(&format!("get {}\\letter.txt one; get {}\\letter.txt two", times[0], times[1]));
    samba.ask(&format!("get {}\\folder\\gone.txt gone", times[1]));
    let got = |name: &str| fs::read_to_string(world.path(&format!("got/{name}"))).unwrap();
    assert_eq!(["today", "one", "two", "gone"].map(got), ["of today", "first", "second, longer", "kept in the past"]);
    let listing = samba.ask(&format!("ls {}\\folder\\*", times[0]));
    assert!(listing.contains("gone.txt") && !samba.ask("ls folder\\*").contains("gone.txt"), "{listing}");
    // A snapshot that is made now is a version that can be had now.
    world.backup(0, ["share", "--time", "2025-02-03T04:05:06Z"]);
    let deadline = Instant::now() + Duration::from_secs(15);
    while listed(&point).len() < 4 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(versions("letter.txt")[0], "@GMT-2025.02.03-04.05.06");
}
