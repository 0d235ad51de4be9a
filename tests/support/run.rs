//! Runs the program as a person or a script would, with nothing of the surrounding environment. Not for: what it must say.

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Begins a script in a mount namespace of its own: it lets go of the mounts that other tests have just then, which could not end
/// as long as the script has them as well.
pub(crate) const ALONE: &str = "awk '$3 == \"fuse.firn\" { print $2 }' /proc/self/mounts \
     | sed 's/\\\\040/ /g' | tr '\\n' '\\0' | xargs -0 -r umount -l || true\n";

/// The password of every repository in these tests.
pub(crate) const PASSWORD: &str = "correct horse";

/// The program.
pub(crate) const FIRN: &str = env!("CARGO_BIN_EXE_firn");

/// A name as firn makes it up for a file until it is complete.
pub(crate) fn partial_name(text: &str) -> String {
    let hash = blake3::derive_key("firn 2026-12-01 name of a partial file", text.as_bytes());
    let check: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!(".firn-{text}-{check}.partial")
}

/// Tells `env` to start the program so that it hears signals, also where the tests run under `nohup` or in a script's background.
const HEARS: &str = "--default-signal=INT,HUP";

/// A temporary folder with a home, a cache and a place for a repository.
pub(crate) struct World {
    folder: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// An empty world.
    pub(crate) fn new() -> World {
        World::at(tempfile::tempdir().unwrap())
    }

    fn at(folder: tempfile::TempDir) -> World {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let variables = [
            ("HOME", path("home")),
            ("FIRN_CACHE_DIR", path("cache")),
            ("FIRN_REPOSITORY", path("repository")),
            ("FIRN_PASSWORD", PASSWORD.to_owned()),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("TZ", "UTC".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        std::fs::create_dir(folder.path().join("home")).unwrap();
        World { folder, variables }
    }

    /// A world with a new repository.
    pub(crate) fn with_repository() -> World {
        let world = World::new();
        // The least that is allowed: every run of the program derives the key anew.
        world.run(["init", "--kdf-memory", "64"]).succeeds();
        world
    }

    /// As `with_repository`, but a key file opens it, which takes no time: for tests with hundreds of runs.
    pub(crate) fn with_key_file() -> World {
        World::new().key_file()
    }

    /// As `with_key_file`, in memory where there is such a place.
    pub(crate) fn quick() -> World {
        World::at(super::quick_folder()).key_file()
    }

    fn key_file(self) -> World {
        let mut world = self;
        world.write("key", [7; 100]);
        // firn warns of one that everybody may read.
        std::fs::set_permissions(world.path("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        world.variables.remove("FIRN_PASSWORD");
        world.variables.insert("FIRN_KEY_FILE".to_owned(), world.text("key"));
        world.run(["init", "-q"]).succeeds();
        world
    }

    /// A path in this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in this world, as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The objects of a kind in the repository.
    pub(crate) fn objects(&self, kind: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("repository").join(kind)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    /// Runs the program with these arguments. It has no terminal.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        self.run_with(arguments, &[])
    }

    /// As `run`, with variables set, or removed where the value is `None`.
    pub(crate) fn run_with<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        variables: &[(&str, Option<&str>)],
    ) -> Ran {
        Ran::from(self.command(arguments, variables).output().unwrap())
    }

    /// Backs up with these arguments, which must end with this code; what the program says of it at the end.
    #[track_caller]
    pub(crate) fn backup<S: AsRef<OsStr>>(&self, code: i32, arguments: impl IntoIterator<Item = S>) -> Value {
        let mut all = vec![OsStr::new("backup").to_owned(), OsStr::new("--json").to_owned()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        let ran = self.run(all).fails(code, &[]);
        let summary = ran.json().pop().unwrap_or_default();
        assert_eq!(summary["message_type"], "summary", "{ran:?}");
        summary
    }

    /// As `run`, but as a user who may read only what all may: the whole world is given to them first.
    pub(crate) fn run_as_nobody(&self, arguments: &[&str]) -> Ran {
        if !rustix::process::geteuid().is_root() {
            return self.run(arguments);
        }
        // The program's own place may be in a folder that is closed to others.
        let program = self.path("firn");
        std::fs::copy(env!("CARGO_BIN_EXE_firn"), &program).unwrap();
        let given = Command::new("chown").args(["-R", "65534:65534"]).arg(self.folder.path()).status().unwrap();
        assert!(given.success());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program).args(arguments);
        command.env_clear().envs(&self.variables).current_dir(self.folder.path()).stdin(Stdio::null());
        Ran::from(command.output().unwrap())
    }

    /// The program, ready to be started: in a session of its own, so that it finds no terminal to ask.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        variables: &[(&str, Option<&str>)],
    ) -> Command {
        let mut command = Command::new("setsid");
        command.args(["--wait", "env", HEARS]).arg(FIRN).args(arguments);
        self.surround(&mut command, variables);
        command
    }

    /// Mounts a folder of this world by sshfs on a new one, as if it were another machine's, with these options of sshfs.
    #[track_caller]
    pub(crate) fn mount_sshfs(&self, folder: &str, point: &str, options: &str) -> Sshfs {
        // What sshfs starts instead of ssh is the server itself.
        let servers = "for server in /usr/lib/openssh /usr/libexec /usr/lib/ssh; do";
        let start = "[ -x $server/sftp-server ] && exec $server/sftp-server";
        self.write("sftp", format!("#!/bin/sh\n{servers}\n{start}\ndone\n"));
        let server = self.path("sftp");
        std::fs::set_permissions(&server, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(self.path(point)).unwrap();
        let mount = Command::new("sshfs")
            .arg(format!("server:{}", self.text(folder)))
            .arg(self.path(point))
            .args(["-o", &format!("ssh_command={}", server.display()), "-o", options])
            .output()
            .expect("sshfs must be installed (.ci/setup test)");
        assert!(mount.status.success(), "{mount:?}");
        Sshfs(self.path(point))
    }

    /// The program itself, ready to be started; signals reach it. Only where a key file opens the repository.
    pub(crate) fn direct<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("env");
        command.arg(HEARS).arg(FIRN).args(arguments);
        self.surround(&mut command, &[]);
        command
    }

    /// Gives a command the surroundings of this world.
    pub(crate) fn surround(&self, command: &mut Command, variables: &[(&str, Option<&str>)]) {
        command.env_clear().envs(&self.variables).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

/// A mount by sshfs, which ends when this is dropped.
pub(crate) struct Sshfs(pub(crate) PathBuf);

impl Drop for Sshfs {
    fn drop(&mut self) {
        drop(Command::new("fusermount3").arg("-uz").arg(&self.0).status());
    }
}

impl From<std::process::Output> for Ran {
    /// The code is -1 if a signal ended it.
    fn from(output: std::process::Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// It ended with 0.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Ran {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It ended with this code, without a panic, and said each of these on standard error.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, said: &[&str]) -> Ran {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        for text in said {
            assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        }
        self
    }

    /// Standard error but for notes, as which snapshot "latest" is.
    pub(crate) fn warnings(&self) -> String {
        self.stderr.split_inclusive('\n').filter(|line| !line.starts_with("Note: ")).collect()
    }

    /// Standard output as one JSON object a line.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        lines(&self.stdout)
    }

    /// Standard error as one JSON object a line.
    #[track_caller]
    pub(crate) fn json_errors(&self) -> Vec<serde_json::Value> {
        lines(&self.stderr)
    }
}

#[track_caller]
fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Changes one byte of a file.
pub(crate) fn patch(path: &Path, offset: usize, change: impl FnOnce(u8) -> u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] = change(bytes[offset]);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}
