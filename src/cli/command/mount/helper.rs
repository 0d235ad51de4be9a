//! `mount.firn` and `mount.fuse.firn`: what mount(8) starts for lines of /etc/fstab and systemd, as `firn mount --daemon` with the
//! options that it means. Not for: the mount itself (see `mount`).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Names by which mount(8) calls.
const NAMES: [&str; 2] = ["mount.firn", "mount.fuse.firn"];
/// What mount(8), systemd and mount.fuse3 say to each other or to the kernel, and what is always so here.
const IGNORED: &[&str] = &[
    "ro",
    "rw",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "defaults",
    "silent",
    "loud",
];
/// Beginnings of the like.
const IGNORED_PREFIXES: &[&str] = &["x-", "X-", "comment=", "user=", "uhelper=", "helper="];
/// Options of `firn mount` that make no sense in a table.
const UNFIT: &[&str] = &["repo", "daemon", "help", "samba-help", "json", "verbose"];

/// The arguments without the program's name, if mount(8) or mount.fuse3 calls: by its name, or as `firn /REPOSITORY FOLDER -o OPTIONS`.
pub(crate) fn called_by_mount(argv: &[OsString]) -> Option<&[OsString]> {
    let (program, rest) = argv.split_first()?;
    let name = Path::new(program).file_name()?;
    let by_name = NAMES.iter().any(|known| name == *known);
    let by_form = || rest.len() >= 4 && rest[0].as_bytes().starts_with(b"/") && rest[2] == "-o";
    (by_name || by_form()).then_some(rest)
}

/// The line for `firn` that these arguments of mount(8) mean; `None` if there is nothing to do.
pub(crate) fn translate(arguments: &[OsString], command: &clap::Command) -> Result<Option<Vec<OsString>>, String> {
    let mut places = Vec::new();
    let (mut options, mut sloppy, mut fake) = (Vec::new(), false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let letters = argument.to_str().and_then(|text| text.strip_prefix('-')).filter(|letters| !letters.is_empty());
        let Some(letters) = letters else {
            places.push(argument);
            continue;
        };
        for (at, letter) in letters.char_indices() {
            match letter {
                'f' => fake = true,
                's' => sloppy = true,
                'n' | 'v' | 'r' | 'w' => {}
                'o' | 't' => {
                    let behind = &letters[at + 1..];
                    let value = if behind.is_empty() { rest.next().cloned() } else { Some(behind.into()) };
                    let value = value.ok_or_else(|| format!("\"-{letter}\" needs a value"))?;
                    if letter == 'o' {
                        options.extend(split(value.as_bytes()));
                    }
                    break;
                }
                _ => return Err(format!("The option \"-{letter}\" is not known")),
            }
        }
    }
    let [repository, folder] = places[..] else {
        return Err("A repository and a folder are needed: mount.firn REPOSITORY FOLDER [-o OPTIONS]".to_owned());
    };
    if fake {
        return Ok(None);
    }
    let mut line: Vec<OsString> = ["firn", "mount", "--daemon", "--quiet", "--repo"].map(OsString::from).to_vec();
    line.push(repository.clone());
    let mut snapshot = None;
    for option in options {
        if let Some(value) = option.strip_prefix(b"snapshot=") {
            snapshot = Some(OsString::from_vec(value.to_vec()));
        } else {
            line.extend(argument(&option, command, sloppy)?);
        }
    }
    line.extend(["--".into(), folder.clone()]);
    line.extend(snapshot);
    Ok(Some(line))
}

/// What an option of mount(8) is among those of `firn mount`.
fn argument(option: &[u8], command: &clap::Command, sloppy: bool) -> Result<Option<OsString>, String> {
    let text = String::from_utf8_lossy(option);
    if IGNORED.contains(&text.as_ref()) || IGNORED_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        return Ok(None);
    }
    let end = option.iter().position(|byte| *byte == b'=').unwrap_or(option.len());
    let name = String::from_utf8_lossy(&option[..end]).replace('_', "-");
    let mount = command.find_subcommand("mount");
    let all = command.get_arguments().chain(mount.into_iter().flat_map(clap::Command::get_arguments));
    let is_known = all.filter_map(clap::Arg::get_long).any(|long| long == name);
    match is_known && !UNFIT.contains(&name.as_str()) {
        true => Ok(Some(OsString::from_vec([b"--", name.as_bytes(), &option[end..]].concat()))),
        false if sloppy => Ok(None),
        false => Err(format!("The option \"{text}\" is not known")),
    }
}

/// The options of a list: commas part them, but not `\,`.
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let mut bytes = list.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let last = options.last_mut().expect("there is always one");
        match byte {
            b'\\' if matches!(bytes.peek(), Some(b',' | b'\\')) => last.extend(bytes.next()),
            b',' => options.push(Vec::new()),
            _ => last.push(byte),
        }
    }
    options.retain(|option| !option.is_empty());
    options
}

/// The exit code that mount(8) understands: 1 for a wrong line, 32 for a mount that failed.
pub(crate) fn exit_code(code: u8) -> u8 {
    match code {
        0 => 0,
        2 => 1,
        _ => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(arguments: &[&str]) -> Result<Option<Vec<String>>, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let line = translate(&arguments, &crate::cli::command())?;
        Ok(line.map(|line| line.into_iter().map(|word| word.into_string().unwrap()).collect()))
    }

    fn options(list: &str) -> Vec<String> {
        let line = translated(&["/repo", "/mnt", "-o", list]).unwrap().unwrap();
        assert_eq!(line[..6], ["firn", "mount", "--daemon", "--quiet", "--repo", "/repo"]);
        line[6..].to_vec()
    }

    #[test]
    fn who_calls_is_known_by_name_or_form() {
        let by_mount = |line: &[&str]| called_by_mount(&line.iter().map(OsString::from).collect::<Vec<_>>()).is_some();
        assert!(by_mount(&["/sbin/mount.firn", "/repo", "/mnt"]) && by_mount(&["mount.fuse.firn"]));
        assert!(by_mount(&["firn", "/repo", "/mnt", "-o", "rw"]));
        assert!(!by_mount(&["firn", "mount", "/mnt", "-o", "x"]) && !by_mount(&["firn"]) && !by_mount(&[]));
    }

    #[test]
    fn options_become_those_of_firn() {
        let list = "rw,key-file=/k,allow_other,owner=me,user,owner,noauto,nofail,_netdev,x-systemd.automount,dev,suid";
        assert_eq!(options(list), ["--key-file=/k", "--allow-other", "--owner=me", "--", "/mnt"]);
        assert_eq!(options("noexec,idle_exit=5m,tag=a\\,b"), ["--noexec", "--idle-exit=5m", "--tag=a,b", "--", "/mnt"]);
        assert_eq!(options("snapshot=latest:/home"), ["--", "/mnt", "latest:/home"]);
        assert_eq!(options(",,"), ["--", "/mnt"]);
        for wrong in ["uid=5", "daemon", "repo=/x", "remount", "help"] {
            let error = translated(&["/repo", "/mnt", "-o", wrong]).unwrap_err();
            assert!(error.contains(wrong), "{error}");
            assert_eq!(translated(&["/repo", "/mnt", "-so", wrong]).unwrap().unwrap()[6..], ["--", "/mnt"]);
        }
    }

    #[test]
    fn the_letters_of_mount_are_understood() {
        assert_eq!(translated(&["/repo", "/mnt", "-f", "-o", "ro"]), Ok(None));
        assert!(translated(&["-t", "fuse.firn", "-nv", "/repo", "/mnt"]).unwrap().is_some());
        for wrong in [&["/repo"][..], &["/repo", "/mnt", "/more"], &["/repo", "/mnt", "-o"], &["/repo", "/mnt", "-x"]] {
            assert!(translated(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!([0, 1, 2, 12].map(exit_code), [0, 32, 1, 32]);
    }
}
