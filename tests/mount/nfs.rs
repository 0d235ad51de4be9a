//! A mount given on by an NFS server in user space. Not for: Windows (see `samba`).
//!
//! Needs nfs-ganesha and libnfs-utils, which `.ci/setup test` installs, and root, as the server does.

use super::{Mount, Server, without_fuse};
use crate::support::nasty::Random;
use crate::support::run::World;
use crate::support::without_root;
use std::fs;
use std::process::Command;

struct Ganesha(Server);

impl Ganesha {
    /// Gives the mount on, as the manual page says.
    fn start(world: &World, mount: &Mount) -> Ganesha {
        let port = Server::free_port();
        fs::create_dir(world.path("ganesha")).unwrap();
        let (point, run) = (mount.path("").display().to_string(), world.text("ganesha"));
        let point = point.trim_end_matches('/');
        world.write(
            "ganesha.conf",
            format!(
                "NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false;\n\
                 Enable_RQUOTA = false; }}\n\
                 NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {run}; Only_Numeric_Owners = true; }}\n\
                 EXPORT {{ Export_Id = 1; Path = {point}; Pseudo = /past; Filesystem_Id = 1.1; Access_Type = RO;\n\
                 Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }} }}\n"
            ),
        );
        let mut command = Command::new("ganesha.nfsd");
        command.args(["-F", "-f"]).arg(world.path("ganesha.conf")).arg("-L").arg(world.path("ganesha.log"));
        command.arg("-p").arg(world.path("ganesha/pid"));
        Ganesha(Server::start(&mut command, port, world.path("ganesha.log")))
    }

    /// What a client program gets for a path.
    #[track_caller]
    fn ask(&self, program: &str, path: &str) -> Vec<u8> {
        let address = format!("nfs://127.0.0.1/past{path}?version=4&nfsport={}", self.0.port);
        let output = Command::new("timeout").args(["30", program, &address]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{path}: {said}\n{}", self.0.said());
        output.stdout
    }
}

#[test]
fn an_nfs_server_gives_it_on() {
    if without_fuse() || without_root() {
        return;
    }
    let world = World::with_repository();
    world.write("source/letter", "first");
    world.write("source/large", Random(1).bytes(9 << 20));
    for number in 0..500 {
        world.write(&format!("source/many/{number}"), "x");
    }
    std::os::unix::fs::lchown(world.path("source/letter"), Some(1234), Some(4321)).unwrap();
    world.backup(0, ["source", "--time", "2024-05-06T07:08:09Z"]);
    world.write("source/letter", "second");
    world.backup(0, ["source", "--time", "2025-01-02T03:04:05Z"]);
    let mount = Mount::of(&world, &["--root", &world.text("source"), "--allow-other"]);
    let ganesha = Ganesha::start(&world, &mount);
    let names = |path: &str| {
        let said = String::from_utf8(ganesha.ask("nfs-ls", path)).unwrap();
        let mut names: Vec<String> = said.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let shown: Vec<_> = names("").into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(shown, ["2024-05-06_07-08-09", "2025-01-02_03-04-05", "README.txt", "latest"]);
    assert_eq!(names("/2024-05-06_07-08-09/many").len(), 500);
    assert_eq!(ganesha.ask("nfs-cat", "/2024-05-06_07-08-09/letter"), b"first");
    assert_eq!(ganesha.ask("nfs-cat", "/2025-01-02_03-04-05/letter"), b"second");
    assert!(ganesha.ask("nfs-cat", "/2024-05-06_07-08-09/large") == Random(1).bytes(9 << 20));
    let listing = String::from_utf8(ganesha.ask("nfs-ls", "/2024-05-06_07-08-09")).unwrap();
    let line = listing.lines().find(|line| line.ends_with(" letter")).unwrap();
    let owner: Vec<&str> = line.split_whitespace().skip(2).take(2).collect();
    assert_eq!(owner, ["1234", "4321"], "{listing}");
}
