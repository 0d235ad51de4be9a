//! Options that say what a guess of a password costs. Not for: deriving keys (see `crate::chunk::password`).

use crate::chunk::password::Cost;

/// What one guess of the password costs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct KdfArgs {
    /// Memory that each guess of the password takes, in MiB; opening the repository takes as much
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(64..=4096))]
    kdf_memory: u32,

    /// How often each guess of the password goes through that memory
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=20))]
    kdf_passes: u32,
}

impl KdfArgs {
    /// As the key slot wants it.
    pub(crate) fn cost(&self) -> Cost {
        Cost { memory: self.kdf_memory * 1024, passes: self.kdf_passes, ..Cost::DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_cost_is_the_default() {
        assert_eq!(KdfArgs { kdf_memory: 64, kdf_passes: 3 }.cost(), Cost::DEFAULT);
        assert!(KdfArgs { kdf_memory: 4096, kdf_passes: 20 }.cost().is_allowed());
    }
}
