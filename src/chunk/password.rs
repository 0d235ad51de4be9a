//! A password becomes a key: Argon2id, version 0x13 (RFC 9106). Not for: asking for passwords, or the key slot's layout.

use crate::chunk::secret::Secret;
use crate::error::{Error, ErrorKind, Result};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

/// What one guess costs, for an attacker as for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB, 8 × lanes ... 4,194,304.
    pub memory: u32,
    /// Passes over the memory, 1 ... 20.
    pub passes: u32,
    /// Lanes, 1 ... 64.
    pub lanes: u32,
}

impl Cost {
    /// RFC 9106's second recommendation: 64 MiB, 3 passes, 4 lanes; small enough for a small computer.
    pub const DEFAULT: Cost = Cost { memory: 65_536, passes: 3, lanes: 4 };

    /// Whether the numbers are within the format's bounds; to be asked before any memory is taken.
    pub fn is_allowed(&self) -> bool {
        (1..=64).contains(&self.lanes)
            && (1..=20).contains(&self.passes)
            && (8 * self.lanes..=4_194_304).contains(&self.memory)
    }
}

/// The key that follows from a password, exactly these bytes, and a salt of 8 or more bytes.
///
/// Takes `cost.memory` KiB while it runs and wipes them. Fails with `Input` for a cost out of bounds (nothing is
/// allocated then) and with `Failed` when the memory is not to be had.
pub fn argon2id(password: &[u8], salt: &[u8], cost: Cost) -> Result<Secret> {
    let refused = |reason: &str| Error::new(ErrorKind::Input, format!("the key cannot be computed: {reason}"));
    if !cost.is_allowed() {
        return Err(refused("the Argon2id cost is out of bounds"));
    }
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).map_err(|e| refused(&e.to_string()))?;
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(blocks).map_err(|error| {
        Error::new(ErrorKind::Failed, format!("no {} MiB of memory to compute the key", cost.memory / 1024))
            .with_hint("close other programs, or use another key of this repository that costs less memory.")
            .with_source(error)
    })?;
    memory.resize_with(blocks, Block::new);
    let mut reason = String::new();
    let secret = Secret::fill_with(|out| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password, salt, out, &mut memory[..])
            .map_err(|error| reason = error.to_string())
    });
    memory.zeroize();
    secret.ok_or_else(|| refused(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::to_hex;

    // Python: argon2.low_level.hash_secret_raw(password, salt, time_cost=passes, memory_cost=memory,
    // parallelism=lanes, hash_len=32, type=argon2.low_level.Type.ID, version=0x13)
    #[test]
    fn known_answers() {
        let salt = [0x5a; 32];
        let one = argon2id(b"correct horse", &salt, Cost { memory: 256, passes: 3, lanes: 4 }).unwrap();
        assert_eq!(to_hex(one.bytes()), "1a7a7b7505fa23a2435035c1e857a85496dfec64cd1000d9ae52ca93f92267a3");
        let other = argon2id("Schnee".as_bytes(), &salt, Cost { memory: 8, passes: 1, lanes: 1 }).unwrap();
        assert_eq!(to_hex(other.bytes()), "6b0bddbde7f3377a69f0616bb69a229ada732b97d7ad28a3d8f8180530d77e3e");
        let empty = argon2id(b"", &salt, Cost { memory: 64, passes: 2, lanes: 2 }).unwrap();
        assert_eq!(to_hex(empty.bytes()), "25c5b1848379ab7d09961c8e8cebb6d6a9ddea771279801855ca01399a7dc2ae");
    }

    #[test]
    fn costs_out_of_bounds_are_refused_before_any_memory() {
        for (memory, passes, lanes) in
            [(7, 1, 1), (64, 0, 1), (64, 21, 1), (64, 1, 0), (4096, 1, 65), (63, 1, 8), (4_194_305, 1, 1)]
        {
            let error = argon2id(b"x", &[0; 32], Cost { memory, passes, lanes }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input);
        }
        assert!(!Cost { memory: 8, passes: 1, lanes: u32::MAX }.is_allowed());
        assert!(Cost::DEFAULT.is_allowed());
    }

    #[test]
    fn a_short_salt_is_an_error() {
        assert!(argon2id(b"x", &[0; 7], Cost { memory: 8, passes: 1, lanes: 1 }).is_err());
    }
}
