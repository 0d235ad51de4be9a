//! `firn completions`: what a shell needs to complete arguments. Not for: the manual (see `man`).

use crate::cli::context::Context;
use crate::error::Result;
use clap_complete::Shell;

/// Print a script that lets a shell complete firn's arguments
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: firn completions bash > ~/.local/share/bash-completion/completions/firn\n\
    For fish: firn completions fish > ~/.config/fish/completions/firn.fish\n\
    For zsh, into a folder of $fpath: firn completions zsh > ~/.zfunc/_firn")]
pub(crate) struct Args {
    /// Which shell
    #[arg(value_name = "SHELL", value_parser = clap::builder::EnumValueParser::<Shell>::new())]
    shell: Shell,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::cli::command(), "firn", &mut script);
        context.print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
