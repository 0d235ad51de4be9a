//! What can happen to a stored object. Not for: what firn makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Half,
    Empty,
    Zero,
    /// One bit, so many thousandths of the object's length behind its beginning.
    FlipPart(usize),
    /// One bit at this offset.
    Flip(usize),
    /// One bit so many bytes before the end.
    FlipEnd(usize),
    Delete,
    /// The object and another of its kind change places.
    Swap,
    /// Its bytes become those of an object of another kind.
    Replace,
    Grow(usize),
}

/// All of them. The offsets: magic, version, kind, epoch, suite, reserved, salt, commitment, the frame's length, check, nonce
/// and ciphertext; then the middle, contents or padding, and the trailer.
pub(crate) const ACTIONS: &[Action] = &[
    Action::Half,
    Action::Empty,
    Action::Zero,
    Action::Flip(0),
    Action::Flip(8),
    Action::Flip(9),
    Action::Flip(10),
    Action::Flip(12),
    Action::Flip(20),
    Action::Flip(40),
    Action::Flip(70),
    Action::Flip(96),
    Action::Flip(100),
    Action::Flip(110),
    Action::Flip(130),
    Action::FlipPart(400),
    Action::FlipPart(700),
    Action::FlipPart(900),
    Action::FlipPart(980),
    Action::FlipEnd(20),
    Action::FlipEnd(12),
    Action::FlipEnd(1),
    Action::Delete,
    Action::Swap,
    Action::Replace,
    Action::Grow(1),
    Action::Grow(5000),
];

impl Action {
    /// Does it to `object`; returns all objects that are not what they were.
    pub(crate) fn apply(self, object: &Path, of_the_kind: &Path, of_another_kind: &Path) -> Vec<PathBuf> {
        let mut bytes = fs::read(object).unwrap();
        let length = bytes.len();
        let mut hit = vec![object.to_path_buf()];
        match self {
            Action::Half => bytes.truncate(length / 2),
            Action::Empty => bytes.clear(),
            Action::Zero => bytes.fill(0),
            Action::FlipPart(part) => bytes[length * part / 1000] ^= 1,
            Action::Flip(offset) => bytes[offset] ^= 8,
            Action::FlipEnd(back) => bytes[length - back] ^= 0x80,
            Action::Delete => {
                fs::remove_file(object).unwrap();
                return hit;
            }
            Action::Swap => {
                let other = fs::read(of_the_kind).unwrap();
                write(of_the_kind, &bytes);
                bytes = other;
                hit.push(of_the_kind.to_path_buf());
            }
            Action::Replace => bytes = fs::read(of_another_kind).unwrap(),
            Action::Grow(more) => bytes.resize(length + more, 0x55),
        }
        write(object, &bytes);
        hit
    }

    /// Whether a writer must notice it in a data pack without reading it: the pack is gone, or of another size.
    pub(crate) fn shows_in_a_listing(self) -> bool {
        matches!(self, Action::Half | Action::Empty | Action::Delete | Action::Replace | Action::Grow(_))
    }
}

/// Objects may be read-only.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    if path.exists() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(path, bytes).unwrap();
}
