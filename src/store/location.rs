//! Addresses of repositories: whether a text names a folder of this machine or a place elsewhere. Not for: opening the place (see
//! `local`).
//!
//! The rule is that of scp and rsync: a colon before the first slash ends the name of a scheme or of a machine. A folder with such a
//! name is written with its path: `./s3:bucket`.

use crate::error::{Error, ErrorKind, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The schemes of addresses that backup programs and copying programs use. The first word is what people write, the second what it
/// is called.
const SCHEMES: &[(&str, &str)] = &[
    ("azure", "Azure Blob Storage"),
    ("b2", "Backblaze B2"),
    ("file", "a file URL"),
    ("ftp", "FTP"),
    ("gs", "Google Cloud Storage"),
    ("http", "a web server"),
    ("https", "a web server"),
    ("rclone", "rclone"),
    ("rest", "a REST server"),
    ("s3", "S3"),
    ("sftp", "SFTP"),
    ("smb", "SMB"),
    ("ssh", "SSH"),
    ("swift", "OpenStack Swift"),
    ("webdav", "WebDAV"),
];

/// What an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A place that is reached by a protocol, by the name of its scheme.
    Scheme(String),
    /// A path on another machine, as scp and rsync write it.
    Host(String),
}

impl Location {
    /// Classifies an address as a person wrote it.
    pub fn parse(text: &OsStr) -> Location {
        let bytes = text.as_bytes();
        let first = bytes.split(|byte| *byte == b'/').next().unwrap_or_default();
        let folder = || Location::Folder(PathBuf::from(text));
        match first.iter().position(|byte| *byte == b':') {
            None | Some(0) => folder(),
            Some(at) => {
                let before = String::from_utf8_lossy(&first[..at]);
                let scheme = before.to_ascii_lowercase();
                let is_url = bytes[at..].starts_with(b"://") && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if is_url || SCHEMES.iter().any(|(known, _)| *known == scheme) {
                    return Location::Scheme(scheme);
                }
                let host = before.rsplit('@').next().unwrap_or_default().to_owned();
                Location::Host(host)
            }
        }
    }

    /// The folder of this machine that an address names. Every other place is refused: a folder of that name would be taken for a
    /// backup that is elsewhere.
    pub fn local_folder(path: &Path) -> Result<PathBuf> {
        let what = match Location::parse(path.as_os_str()) {
            Location::Folder(folder) => return Ok(folder),
            Location::Scheme(scheme) => match SCHEMES.iter().find(|(known, _)| *known == scheme) {
                Some((_, name)) => format!("an address of {name}"),
                None => format!("an address with the scheme \"{scheme}\""),
            },
            Location::Host(host) => format!("a path on the machine \"{host}\""),
        };
        let shown = without_secrets(&path.to_string_lossy());
        Err(Error::new(
            ErrorKind::Input,
            format!("\"{shown}\" is {what}, and this firn has repositories in folders only"),
        )
        .with_hint(format!(
            "Mount that place, for example with sshfs or rclone mount, and name the folder; for a folder of this name here \
             write \"./{shown}\"."
        )))
    }
}

/// An address without the password that may stand in it, as in `https://user:password@host/`.
fn without_secrets(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let name = before.rfind('/').map_or(0, |slash| slash + 1);
    match before[name..].find(':') {
        Some(colon) if before.contains("://") => format!("{}:***@{host}", &before[..name + colon]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_other_places_are_told_apart() {
        let parsed = |text: &str| Location::parse(OsStr::new(text));
        for folder in ["", "x", "/x", "./s3:bucket", "/a:b", "a/b:c", "../me@host:x", ":x", "me@host", "x y", "~/x"] {
            assert_eq!(parsed(folder), Location::Folder(folder.into()));
            assert_eq!(Location::local_folder(Path::new(folder)).unwrap(), Path::new(folder));
        }
        for (text, scheme) in [
            ("s3:bucket", "s3"),
            ("S3:https://host/bucket", "s3"),
            ("sftp:me@host:/x", "sftp"),
            ("rest:https://me:secret@host/", "rest"),
            ("https://host/x", "https"),
            ("gopher://host/x", "gopher"),
        ] {
            assert_eq!(parsed(text), Location::Scheme(scheme.to_owned()), "{text}");
        }
        for (text, host) in [("me@host:backup", "host"), ("host:/srv/x", "host"), ("host:", "host")] {
            assert_eq!(parsed(text), Location::Host(host.to_owned()), "{text}");
        }
        for (scheme, _) in SCHEMES {
            let error = Location::local_folder(Path::new(&format!("{scheme}:x"))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input);
            assert!(error.hint().unwrap().contains(&format!("\"./{scheme}:x\"")), "{error:?}");
        }
    }

    #[test]
    fn no_password_is_repeated() {
        for (text, shown) in [
            ("https://me:se:cret@host/x", "https://me:***@host/x"),
            ("rest:https://me:secret@host/", "rest:https://me:***@host/"),
            ("me@host:/x", "me@host:/x"),
            ("sftp:me@host:/x", "sftp:me@host:/x"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }
}
