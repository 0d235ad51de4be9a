//! How a run speaks. Not for: speaking (see `crate::cli::output`).

/// Options of every command.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct OutputArgs {
    /// Print nothing when all is well
    #[arg(short, long, global = true, help_heading = "Global options", conflicts_with = "verbose")]
    quiet: bool,

    /// Say more: list files, and show progress also where there is no terminal
    #[arg(short, long, global = true, help_heading = "Global options", overrides_with = "verbose")]
    verbose: bool,

    /// Print one JSON object a line, for programs
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

impl OutputArgs {
    /// What they mean.
    pub(crate) fn resolve(&self) -> Output {
        Output { quiet: self.quiet, verbose: self.verbose, json: self.json }
    }
}

/// How this run speaks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    /// Nothing is printed when all is well.
    pub(crate) quiet: bool,
    /// More is said, and progress is shown also where there is no terminal.
    pub(crate) verbose: bool,
    /// Objects for programs, one a line.
    pub(crate) json: bool,
}
