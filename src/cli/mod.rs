//! Everything a person or a script sees: arguments, dispatch, messages, exit codes, progress, JSON. One file per command.
//! Not for: doing the work (see `backup`, `restore`, `check`, `mount`, `repository`).

mod args;
mod command;
mod context;
mod docs;
mod output;

use crate::error::Result;
use args::global::GlobalArgs;
use args::pointers;
use clap::{CommandFactory, Parser, Subcommand};
use command::mount::helper as mount_helper;
use command::{
    backup, check, deleted, diff, du, dump, find, forget, history, init, key, ls, mount, prune, repair, restore, scrub,
};
use command::{snapshots, stats, umount, undelete};
use context::Context;
use docs::{completions, man};
use output::message;
use std::process::ExitCode;

/// Keeps encrypted, deduplicated snapshots of files and shows them as folders
#[derive(Debug, Parser)]
#[command(name = "firn", version, propagate_version = false, arg_required_else_help = true)]
#[command(subcommand_required = true, max_term_width = 100)]
#[command(long_about = "Keeps encrypted, deduplicated snapshots of files and shows them as folders.\n\n\
    A repository holds snapshots. Each is a complete picture of the folders that were backed up, but only what is new takes \
    space. Everything is encrypted before it leaves this machine; without the password or key file nobody can read it.")]
#[command(
    after_help = "Snapshots are named \"latest\", \"latest~1\" (the one before) or by the first digits of their id; \
    \":/path\" behind it names something inside, as in \"latest:/home/me\".\n\
    See firn(1) for the environment and the exit status."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Backup(backup::Args),
    Snapshots(snapshots::Args),
    Ls(ls::Args),
    Dump(dump::Args),
    History(history::Args),
    Find(Box<find::Args>),
    Diff(Box<diff::Args>),
    Deleted(deleted::Args),
    Restore(restore::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Check(check::Args),
    Scrub(scrub::Args),
    #[command(subcommand)]
    Key(key::Command),
    Forget(Box<forget::Args>),
    Undelete(undelete::Undelete),
    Pin(undelete::Pin),
    Unpin(undelete::Unpin),
    Prune(prune::Args),
    Stats(stats::Args),
    Du(du::Args),
    #[command(subcommand)]
    Repair(repair::Command),
    Completions(completions::Args),
    Man(man::Args),
}

/// The definitions of all arguments, complete enough to make pages and completions from.
fn command() -> clap::Command {
    Cli::command()
}

/// Reads the arguments, does what they say and returns the exit code.
pub fn run() -> ExitCode {
    crate::os::share_heaps();
    // Before any secret is in memory.
    crate::os::forbid_core_files();
    let argv: Vec<_> = std::env::args_os().collect();
    match mount_helper::called_by_mount(&argv) {
        None => ExitCode::from(run_line(&argv)),
        Some(arguments) => ExitCode::from(run_for_mount(arguments)),
    }
}

/// The same for mount(8).
fn run_for_mount(arguments: &[std::ffi::OsString]) -> u8 {
    match mount_helper::translate(arguments, &command()) {
        Ok(None) => 0,
        Ok(Some(line)) => mount_helper::exit_code(run_line(&line)),
        Err(why) => {
            message::fatal(&crate::error::Error::new(crate::error::ErrorKind::Input, why), 1, false);
            1
        }
    }
}

fn run_line(line: &[std::ffi::OsString]) -> u8 {
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            let code = error.exit_code() as u8;
            pointers::refuse(error, line);
            return code;
        }
    };
    let context = Context::new(&cli.global);
    match dispatch(cli.command, &context) {
        Ok(code) => code,
        Err(error) => {
            let code = message::exit_code(&error, &context.stop);
            if !message::is_broken_pipe(&error) {
                message::fatal(&error, code, context.output.json);
            }
            code
        }
    }
}

/// The exit code of a command that ended; 0 unless it has more to say.
fn dispatch(command: Command, context: &Context) -> Result<u8> {
    match command {
        Command::Init(args) => args.run(context),
        Command::Backup(args) => args.run(context),
        Command::Snapshots(args) => args.run(context),
        Command::Ls(args) => args.run(context),
        Command::Dump(args) => args.run(context),
        Command::History(args) => args.run(context),
        Command::Find(args) => args.run(context),
        Command::Diff(args) => args.run(context),
        Command::Deleted(args) => args.run(context),
        Command::Restore(args) => args.run(context),
        Command::Mount(args) => args.run(context),
        Command::Umount(args) => args.run(context),
        Command::Check(args) => args.run(context),
        Command::Scrub(args) => args.run(context),
        Command::Key(command) => command.run(context),
        Command::Forget(args) => args.run(context),
        Command::Undelete(args) => args.run(context),
        Command::Pin(args) => args.run(context),
        Command::Unpin(args) => args.run(context),
        Command::Prune(args) => args.run(context),
        Command::Stats(args) => args.run(context),
        Command::Du(args) => args.run(context),
        Command::Repair(command) => command.run(context),
        Command::Completions(args) => args.run(context),
        Command::Man(args) => args.run(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn options_count_before_and_behind_the_command() {
        for line in [&["firn", "-r", "/x", "--json", "snapshots"][..], &["firn", "snapshots", "-r", "/x", "--json"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.repository.resolve().folder().unwrap(), std::path::Path::new("/x"));
            assert!(cli.global.output.resolve().json);
        }
        assert_eq!(Cli::try_parse_from(["firn", "nonsense"]).unwrap_err().exit_code(), 2);
        assert_eq!(Cli::try_parse_from(["firn", "ls", "-q", "-v"]).unwrap_err().exit_code(), 2);
    }
}
