//! Options that every command takes. Not for: what they mean (see `repository`, `output`).

use super::output::OutputArgs;
use super::repository::RepositoryArgs;

/// Where a run works and how it speaks.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct GlobalArgs {
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,

    /// Use this many threads [default: one for each processor]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(help_heading = "Global options")]
    threads: Option<u16>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl GlobalArgs {
    /// How many threads may work.
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(crate::os::available_cpus, usize::from)
    }
}
