//! Whether the program that serves a mount has ended. The kernel does not tell: what it lists of a connection goes with the mount, while
//! the program still has files to close. Not for: who uses a mount (see `holders`).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

fn name_of(device: &str) -> String {
    format!("firn-fuse/{device}")
}

/// Takes a name that the kernel gives back when this process has ended, however it ends.
pub(crate) fn announce(device: &str) {
    let bound = SocketAddr::from_abstract_name(name_of(device)).and_then(|address| UnixListener::bind_addr(&address));
    // Without it nobody can wait for the end, which is no reason not to mount.
    if let Ok(listener) = bound {
        // Open for as long as the process lives: the mount ends before.
        std::mem::forget(listener);
    }
}

/// Whether the program that serves, or has served, the mount on this device lives.
pub(crate) fn is_announced(device: &str) -> io::Result<bool> {
    let wanted = format!("@{}", name_of(device));
    let table = std::fs::read("/proc/net/unix")?;
    Ok(table.split(|byte| *byte == b'\n').any(|line| line.ends_with(wanted.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_there_while_it_lives() {
        let device = format!("test:{}", std::process::id());
        assert!(!is_announced(&device).unwrap());
        announce(&device);
        assert!(is_announced(&device).unwrap());
        assert!(!is_announced(&device[..device.len() - 1]).unwrap());
        // A name that is taken is no obstacle.
        announce(&device);
    }
}
