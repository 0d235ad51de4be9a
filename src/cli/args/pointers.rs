//! What commands and options of restic, borg, kopia and rustic are called here, for those who type them out of habit. Not for:
//! guesses by spelling: a command that only looks alike may do something else.

use crate::cli::output::message;
use crate::cli::output::text::line;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::json;
use std::ffi::OsString;

/// Commands of other programs, and the hint for each.
const COMMANDS: &[(&str, &str)] = &[
    ("archive", "\"firn backup\" makes snapshots."),
    ("benchmark", "There is no benchmark; the summary of \"firn backup\" tells sizes and times."),
    ("break-lock", "There are no locks, so nothing has to be unlocked."),
    ("cache", "The cache folder can be deleted at any time; see FILES in firn(1)."),
    ("change-passphrase", "\"firn key passwd\" changes the password."),
    ("compact", "\"firn prune\" frees space."),
    (
        "config",
        "There is no configuration file; see ENVIRONMENT in firn(1). \"firn stats\" tells about the repository.",
    ),
    ("copy", "Copying snapshots to another repository does not exist yet."),
    ("create", "\"firn backup\" makes a snapshot, \"firn init\" a repository."),
    ("delete", "\"firn forget\" takes snapshots away, \"firn prune\" then frees their space."),
    ("destroy", "\"firn forget\" takes snapshots away, \"firn prune\" then frees their space."),
    ("export-tar", "\"firn mount\", then tar, or \"firn restore\"; there is no export of archives yet."),
    ("extract", "\"firn restore\" restores a snapshot, \"firn dump\" writes one file."),
    ("features", "\"firn --version\" prints the version; repositories of all versions are opened as they are."),
    ("gc", "\"firn prune\" frees space."),
    ("generate", "\"firn completions\" prints what shells need; the manual pages are in man/."),
    ("grep", "\"firn find\" finds names; for contents, \"firn mount\" and grep."),
    ("import-tar", "There is no import of archives; \"firn backup\" reads files and folders."),
    ("info", "\"firn stats\" and \"firn du\" tell sizes, \"firn snapshots\" what there is."),
    ("label", "Labels are given with \"firn backup --label\"; a snapshot that exists is not changed."),
    ("log", "\"firn history PATH\" lists the versions of a file, \"firn snapshots\" the snapshots."),
    ("maintenance", "\"firn prune\" frees space, \"firn check\" verifies."),
    ("merge", "Snapshots cannot be merged; \"firn restore\" can restore several into one folder."),
    ("migrate", "Repositories of all versions are opened as they are; nothing has to be migrated."),
    ("options", "Options are listed by \"firn --help\" and by each command with --help."),
    ("policy", "Policies are options of \"firn forget\"."),
    ("rebuild-index", "\"firn repair index\" writes the index again."),
    ("recover", "\"firn undelete\" takes back forgotten snapshots; \"firn repair\" repairs."),
    ("recreate", "Snapshots are not rewritten; \"firn forget\" takes them away."),
    ("rename", "Snapshots have no names; \"firn backup --label\" gives a label to a new one."),
    ("repo-create", "\"firn init\" makes a repository."),
    ("repo-delete", "A repository is a folder: remove it with rm -r, after a second thought."),
    ("repo-info", "\"firn stats\" tells about the repository."),
    ("repo-list", "\"firn snapshots\" lists the snapshots."),
    ("repoinfo", "\"firn stats\" tells about the repository."),
    ("repository", "\"firn init\" makes a repository; --repo names it."),
    ("rewrite", "Snapshots are not rewritten; \"firn forget\" takes them away."),
    ("rcreate", "\"firn init\" makes a repository."),
    ("rdelete", "A repository is a folder: remove it with rm -r, after a second thought."),
    ("rinfo", "\"firn stats\" tells about the repository."),
    ("rlist", "\"firn snapshots\" lists the snapshots."),
    ("rm", "\"firn forget\" takes snapshots away, \"firn prune\" then frees their space."),
    ("save", "\"firn backup\" makes snapshots."),
    ("search", "\"firn find\" looks for names in all snapshots."),
    ("self-update", "firn is updated the way it was installed."),
    ("serve", "There is no server yet; a repository is a folder."),
    ("show", "\"firn ls\" lists a folder in a snapshot, \"firn dump\" writes a file."),
    ("show-config", "There is no configuration file; see ENVIRONMENT in firn(1)."),
    ("snapshot", "\"firn backup\" makes a snapshot, \"firn snapshots\" lists them."),
    ("status", "\"firn snapshots\" lists the snapshots, \"firn stats\" tells about the repository."),
    ("tag", "Tags are given with \"firn backup --tag\"; a snapshot that exists is not changed."),
    ("transfer", "Copying snapshots to another repository does not exist yet."),
    ("unforget", "\"firn undelete\" takes back that a snapshot was forgotten."),
    ("unlock", "There are no locks, so nothing has to be unlocked."),
    ("upgrade", "Repositories of all versions are opened as they are; nothing has to be upgraded."),
    ("version", "\"firn --version\" prints the version."),
    ("webdav", "\"firn mount\" shows the snapshots as folders."),
    ("with-lock", "There are no locks."),
];

/// The same below "key".
const KEY_COMMANDS: &[(&str, &str)] = &[
    ("change-location", "Keys are in the repository, or are files that --key-file names."),
    ("change-passphrase", "\"firn key passwd\" changes the password."),
    ("delete", "\"firn key remove\" removes a key."),
    (
        "export",
        "The keys are the files in the folder \"keys\" of the repository: copy them. They open with their passwords only.",
    ),
    ("import", "Put a copy of a key into the folder \"keys\" of the repository; \"firn key add\" makes another one."),
    ("rename", "A key's label is given with \"firn key add --label\" and stays; add another key and remove this one."),
    ("rm", "\"firn key remove\" removes a key."),
];

/// Arguments behind a command that takes none there, and what to write instead.
const ARGUMENTS: &[(&str, &str)] = &[
    ("diff", "Name the path behind the snapshot: \"firn diff latest~1:/home/me latest\"."),
    ("mount", "Name the path behind the snapshot: \"firn mount FOLDER latest:/home/me\"."),
    ("restore", "Name the path behind the snapshot: \"firn restore latest:/home/me --target FOLDER\"."),
    ("snapshots", "\"firn snapshots --latest 1\" lists the newest of each host, \"firn ls latest\" what is in one."),
    ("stats", "\"firn du latest\" tells the size of a snapshot, \"firn stats\" that of the repository."),
];

const KEEP: &str =
    "Policies are for \"firn forget\": \"firn forget --keep-daily 7 --prune\" forgets by rules and then frees space.";

/// Options of other programs: the commands for which the hint holds (none: all), the option, the hint.
const OPTIONS: &[(&[&str], &str, &str)] = &[
    (&[], "--append-only", "There is no such mode of a repository yet."),
    (&[], "--cacert", "Repositories are folders; there is no connection to secure."),
    (
        &[],
        "--insecure-no-password",
        "Every repository is encrypted; a key file opens it without a password (--key-file).",
    ),
    (&[], "--glob-archives", "There is no such option: \"latest\", \"latest~1\" or an id names a snapshot."),
    (&[], "--limit-download", "Repositories are folders; there is no connection to limit."),
    (&[], "--limit-upload", "Repositories are folders; there is no connection to limit."),
    (&[], "--lock-wait", "There are no locks to wait for."),
    (&[], "--no-lock", "There are no locks."),
    (&[], "--option", "There is no such option; see the manual page of the command."),
    (&[], "--pack-size", "There is no such option; the size of packs is not chosen."),
    (
        &[],
        "--passphrase",
        "A password on the command line can be seen by others; use --password-file or FIRN_PASSWORD.",
    ),
    (&[], "--password", "A password on the command line can be seen by others; use --password-file or FIRN_PASSWORD."),
    (&[], "--progress", "Progress is shown on a terminal; --verbose shows it elsewhere, too."),
    (&[], "--remote-path", "Repositories are folders."),
    (&[], "--repository", "The option is --repo (-r)."),
    (&[], "--repository-file", "Name the repository with --repo or FIRN_REPOSITORY."),
    (&[], "--retry-lock", "There are no locks to wait for."),
    (&[], "--rsh", "Repositories are folders; sshfs makes a folder of a remote one."),
    (&[], "--show-rc", "The exit status tells; see firn(1)."),
    (&["backup"], "-C", "The option is --compression."),
    (&["backup"], "--comment", "The option is --description."),
    (&["backup"], "--compression-level", "The option is --compression."),
    (
        &["backup"],
        "--content-from-command",
        "There is no backup of a command's output yet; write it into a file first.",
    ),
    (&["backup"], "--exclude-from", "The option is --exclude-file."),
    (
        &["backup"],
        "--exclude-if-present",
        "There is no such option yet; --exclude-caches leaves out folders with a CACHEDIR.TAG.",
    ),
    (&["backup"], "--exclude-larger-than", "There is no such option yet."),
    (
        &["backup"],
        "--exclude-nodump",
        "There is no such option: files with the flag \"nodump\" are backed up as others.",
    ),
    (&["backup"], "--files-cache", "--force reads all files again."),
    (&["backup"], "--files-from", "There is no such option yet; name the paths behind the command."),
    (&["backup"], "--files-from-raw", "There is no such option yet; name the paths behind the command."),
    (&["backup"], "--files-from-verbatim", "There is no such option yet; name the paths behind the command."),
    (&["backup"], "--group-by", "The snapshot before is the newest one of the same host and paths."),
    (&["backup"], "--hostname", "The option is --host."),
    (&["backup"], "--iexclude", "The option is --exclude; \"[aA]\" matches both cases of a letter."),
    (
        &["backup"],
        "--iexclude-file",
        "The option is --exclude-file; \"[aA]\" in its patterns matches both cases of a letter.",
    ),
    (&["backup"], "--ignore-ctime", "--trust-mtime ignores change times where the file system has none of its own."),
    (&["backup"], "--ignore-inode", "--trust-mtime ignores inode numbers where the file system has no change times."),
    (&["backup"], "--list", "--verbose lists files."),
    (&["backup"], "--no-scan", "Files are counted while they are backed up; nothing has to be switched off."),
    (&["backup"], "-o", "There is no such option; \"firn backup --help\" lists those that there are."),
    (&["backup", "restore"], "--numeric-ids", "There is no such option."),
    (&["backup"], "--parent", "The snapshot before is found by host and paths."),
    (&["backup"], "--pattern", "--exclude leaves out what matches; \"!\" in front of a pattern takes back."),
    (&["backup"], "--patterns-from", "--exclude-file reads patterns from a file; \"!\" in front of one takes back."),
    (&["backup"], "--read-concurrency", "The option is --threads."),
    (&["backup"], "--set-path", "There is no such option."),
    (&["backup"], "--skip-if-unchanged", "There is no such option yet."),
    (&["backup"], "--stats", "The summary is always printed; --json prints it for programs."),
    (&["backup"], "--stdin", "There is no backup of standard input yet; write it into a file first."),
    (&["backup"], "--stdin-filename", "There is no backup of standard input yet; write it into a file first."),
    (&["backup"], "--stdin-from-command", "There is no backup of a command's output yet; write it into a file first."),
    (&["backup"], "--timestamp", "The option is --time."),
    (&["backup"], "--with-atime", "Access times are not kept."),
    (&["check"], "--repair", "\"firn repair index\", \"firn repair packs\" and \"firn repair snapshots\" repair."),
    (&["check"], "--repository-only", "\"firn scrub\" verifies the stored objects alone."),
    (&["check"], "--verify-data", "The option is --read-data."),
    (&["check"], "--with-cache", "The cache is used without asking; --no-cache keeps none."),
    (&["diff"], "--content-only", "Without --metadata only contents are compared."),
    (&["find"], "--long", "What is found is always listed with its size and times."),
    (&["find"], "--newest", "The option is --older."),
    (&["find"], "--oldest", "The option is --newer."),
    (&["forget", "prune"], "--compact", "\"firn snapshots\" has one line a snapshot."),
    (&["forget"], "--force", "The option is --yes-really."),
    (&["forget"], "--keep-13weekly", "The option is --keep-quarterly."),
    (&["forget"], "--keep-3monthly", "The option is --keep-quarterly."),
    (&["forget"], "--keep-secondly", "There is no such rule; --keep-last keeps the newest ones."),
    (&["forget"], "--list", "The option is --explain."),
    (&["forget"], "--max-repack-size", "The option is --max-repack."),
    (&["forget"], "--unsafe-allow-remove-all", "The option is --yes-really."),
    (&["init"], "--copy-chunker-params", "There is no such option yet."),
    (&["init"], "-e", "Every repository is encrypted, with one method."),
    (&["init"], "--encryption", "Every repository is encrypted, with one method."),
    (&["init"], "--repository-version", "New repositories have the newest version."),
    (&["ls"], "--sort", "There is no such option; names are listed in order."),
    (&["mount"], "--allow-root", "\"firn mount --allow-other\" lets other users in, root among them."),
    (&["mount"], "--foreground", "A mount runs in the foreground unless --daemon is given."),
    (&["mount"], "--no-default-permissions", "With --owner me all files are yours."),
    (
        &["mount"],
        "-o",
        "Options have names here, as in \"firn mount --allow-other\"; with -o they are for mount(8) and /etc/fstab.",
    ),
    (&["mount"], "--owner-root", "The option is --owner root."),
    (&["mount"], "--snapshot-template", "The option is --path-template."),
    (&["prune"], "--keep-daily", KEEP),
    (&["prune"], "--keep-hourly", KEEP),
    (&["prune"], "--keep-id", KEEP),
    (&["prune"], "--keep-last", KEEP),
    (&["prune"], "--keep-monthly", KEEP),
    (&["prune"], "--keep-tag", KEEP),
    (&["prune"], "--keep-weekly", KEEP),
    (&["prune"], "--keep-within", KEEP),
    (&["prune"], "--keep-yearly", KEEP),
    (&["prune"], "--max-repack-size", "The option is --max-repack."),
    (&["prune"], "--repack-small", "Small packs are written again when that is worth it."),
    (&["prune"], "--repack-uncompressed", "Everything is stored compressed where that makes it smaller."),
    (&["prune"], "--threshold", "The option is --max-unused."),
    (&["restore"], "--delete", "Nothing that is in the target only is deleted; there is no such option yet."),
    (&["restore"], "--dest", "The option is --target."),
    (
        &["restore"],
        "--exclude-file",
        "There is no such option yet; --exclude takes one pattern, and may be given several times.",
    ),
    (&["restore"], "--exclude-xattr", "There is no such option."),
    (
        &["restore"],
        "--iexclude-file",
        "There is no such option yet; --exclude takes one pattern, and may be given several times.",
    ),
    (&["restore"], "--iinclude", "The option is --include; \"[aA]\" matches both cases of a letter."),
    (&["restore"], "--iexclude", "The option is --exclude; \"[aA]\" matches both cases of a letter."),
    (
        &["restore"],
        "--iinclude-file",
        "There is no such option yet; --include takes one pattern, and may be given several times.",
    ),
    (
        &["restore"],
        "--include-file",
        "There is no such option yet; --include takes one pattern, and may be given several times.",
    ),
    (&["restore"], "--sparse", "Holes are always restored."),
    (
        &["restore"],
        "--strip-components",
        "Name the folder behind the snapshot, as in \"latest:/home/me\": its content lands in the target.",
    ),
    (&["restore"], "--stdout", "\"firn dump\" writes a file to standard output."),
    (
        &["snapshots", "find", "diff"],
        "--last",
        "\"firn snapshots\" lists the oldest first, so the last lines are the newest.",
    ),
    (&["snapshots"], "-c", "Each snapshot has one line."),
    (&["snapshots"], "--compact", "Each snapshot has one line."),
    (&["stats"], "--mode", "\"firn du\" tells sizes of snapshots, and of paths in them."),
];

/// What is said about arguments that make no sense: clap's message, and where to find what was meant.
pub(crate) fn refuse(error: clap::Error, typed: &[OsString]) {
    if !error.use_stderr() {
        // Nobody is left to tell if this cannot be printed.
        drop(error.print());
        return;
    }
    let hint = hint(&error);
    let error = without_tip(error);
    let wants_json = typed.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    if wants_json {
        let text = error.render().to_string();
        let mut parts = text.split("\n\n");
        let message = parts.next().unwrap_or_default().trim_start_matches("error: ");
        // What clap prints then is the help, which says nothing of a mistake.
        let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let message = if is_help { "A command is missing; --help lists them" } else { message };
        let message: Vec<&str> = message.split_whitespace().collect();
        let value = json!({
            "message_type": "exit_error", "code": error.exit_code(), "message": line(&message.join(" ")), "hint": hint,
        });
        message::aside(&format!("{value}\n"));
        return;
    }
    drop(error.print());
    if let Some(hint) = hint {
        message::aside(&format!("\nHint: {hint}\n"));
    }
}

/// The error without clap's tip to pass an unknown option as a value, which hardly anybody means.
fn without_tip(mut error: clap::Error) -> clap::Error {
    error.remove(ContextKind::Suggested);
    // It has commands that are of no use to a person; --help lists the others.
    error.remove(ContextKind::ValidSubcommand);
    error
}

/// The pointer for a command or option of another program, if that is what is wrong.
fn hint(error: &clap::Error) -> Option<&'static str> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand)?;
            let list = match command(error).as_str() {
                "key" => KEY_COMMANDS,
                "repair" => &[],
                _ => COMMANDS,
            };
            list.iter().find(|(theirs, _)| *theirs == name).map(|(_, hint)| *hint)
        }
        ErrorKind::UnknownArgument => {
            let option = context(ContextKind::InvalidArg)?.split('=').next()?;
            let name = command(error);
            if !option.starts_with('-') {
                return ARGUMENTS.iter().find(|(theirs, _)| *theirs == name).map(|(_, hint)| *hint);
            }
            let name = name.as_str();
            let holds = |(commands, theirs, _): &&(&[&str], &str, &str)| {
                *theirs == option && (commands.is_empty() || commands.contains(&name))
            };
            OPTIONS.iter().find(holds).map(|(_, _, hint)| *hint)
        }
        ErrorKind::TooManyValues if context(ContextKind::InvalidArg).is_some_and(|arg| arg.contains("--verbose")) => {
            Some("--verbose (-v) takes no number.")
        }
        _ => None,
    }
}

/// The command that was read. Values of options look like commands, too ("-r backup"), so clap's usage tells.
fn command(error: &clap::Error) -> String {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    usage.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn answer(words: &[&str]) -> Option<&'static str> {
        let typed: Vec<OsString> = words.iter().map(OsString::from).collect();
        hint(&crate::cli::Cli::try_parse_from(&typed).unwrap_err())
    }

    #[test]
    fn habits_are_pointed_to_what_exists() {
        assert!(answer(&["firn", "rename", "a", "b"]).unwrap().contains("--label"));
        assert!(answer(&["firn", "delete"]).unwrap().contains("firn forget"));
        assert!(answer(&["firn", "upgrade"]).unwrap().contains("nothing has to be upgraded"));
        assert!(answer(&["firn", "check", "--repair"]).unwrap().contains("firn repair"));
        assert!(answer(&["firn", "backup", "--stdin-from-command", "x"]).unwrap().contains("command's output"));
        assert!(answer(&["firn", "--password=x", "backup", "."]).unwrap().contains("--password-file"));
        assert!(answer(&["firn", "--no-lock"]).unwrap().contains("no locks"));
        assert!(answer(&["firn", "-r", "backup", "check", "--repair"]).unwrap().contains("firn repair"));
        assert_eq!(answer(&["firn", "-r", "check", "backup", "--repair"]), None);
        assert!(answer(&["firn", "key", "rename", "a"]).unwrap().contains("label"));
        assert!(answer(&["firn", "--verbose=2", "ls"]).unwrap().contains("no number"));
        for line in ["ls -vv", "-v ls -v", "ls latest /tmp", "dump latest /tmp/x"] {
            assert!(crate::cli::Cli::try_parse_from(["firn"].into_iter().chain(line.split(' '))).is_ok(), "{line}");
        }
        for line in [
            "restore latest x9 -t o",
            "restore -t o latest /tmp",
            "snapshots latest",
            "list snapshots",
            "stats latest",
            "snapshots --compact",
            "snapshots -c",
            "prune --keep-daily 7",
            "backup --no-scan .",
            "backup --ignore-inode .",
            "backup -C zstd .",
            "backup . -o x=y",
            "init -e repokey",
            "init --encryption=repokey",
            "mount --allow-root m",
            "mount -o allow_other m",
            "label 12 x",
            "unforget 12",
            "benchmark",
            "config",
            "features",
            "options",
            "key export",
            "key import x",
            "backup --files-from-raw x",
            "backup --files-from-verbatim x",
            "backup --iexclude-file x .",
            "backup --pack-size 64 .",
            "backup --retry-lock 5m .",
            "backup --content-from-command x",
            "backup --exclude-nodump .",
            "backup --numeric-ids .",
            "restore latest -t o --numeric-ids",
            "restore latest -t o --exclude-file x",
            "restore latest -t o --include-file x",
            "find --newest 2026-01-01 x",
            "find --oldest 2026-01-01 x",
            "ls --sort size latest",
            "forget --max-repack-size 1G --prune",
            "check --glob-archives *x",
        ] {
            assert!(answer(&[&["firn"], &line.split(' ').collect::<Vec<_>>()[..]].concat()).is_some(), "{line}");
        }
    }

    #[test]
    fn nothing_is_guessed() {
        for words in [&["firn", "snapshto"][..], &["firn", "backup", "--repai"], &["firn", "ls", "--repair"]] {
            assert_eq!(answer(words), None, "{words:?}");
            let said = without_tip(crate::cli::Cli::try_parse_from(words).unwrap_err()).to_string();
            assert!(!said.contains("similar") && !said.contains("tip:"), "{said}");
        }
    }

    /// A pointer is of use only where the program refuses what it stands for, and names what exists.
    #[test]
    fn pointers_lead_somewhere() {
        let mut command = crate::cli::command();
        command.build();
        for (name, hint) in COMMANDS {
            assert!(command.find_subcommand(name).is_none(), "{name} exists");
            check(&command, hint);
        }
        for (name, hint) in KEY_COMMANDS {
            assert!(command.find_subcommand("key").unwrap().find_subcommand(name).is_none(), "{name} exists");
            check(&command, hint);
        }
        for (name, hint) in ARGUMENTS {
            assert!(command.find_subcommand(name).is_some(), "{name}");
            check(&command, hint);
        }
        for (commands, option, hint) in OPTIONS {
            // clap's own "help" takes no options.
            let all: Vec<_> = command.get_subcommands().filter(|command| command.get_name() != "help").collect();
            let wanted: Vec<&clap::Command> =
                commands.iter().map(|name| command.find_subcommand(name).expect(name)).collect();
            for wanted in if commands.is_empty() { all } else { wanted } {
                let is_it = |arg: &clap::Arg| match option.strip_prefix("--") {
                    Some(long) => arg.get_long() == Some(long),
                    None => arg.get_short() == option.chars().nth(1),
                };
                let exists = wanted.get_arguments().any(is_it);
                assert!(!exists, "{option} of {} exists", wanted.get_name());
                let named =
                    hint.strip_prefix("The option is --").map(|rest| rest.split([' ', '.', ';']).next().unwrap());
                let known = |named| wanted.get_arguments().any(|arg| arg.get_long() == Some(named));
                assert!(named.is_none_or(known), "{hint}");
            }
            check(&command, hint);
        }
    }

    fn check(command: &clap::Command, hint: &str) {
        assert!(hint.ends_with('.'), "{hint}");
        for named in hint.split("\"firn ").skip(1) {
            let name = named.split([' ', '"']).next().unwrap();
            assert!(name.starts_with('-') || command.find_subcommand(name).is_some(), "{hint}");
        }
    }
}
