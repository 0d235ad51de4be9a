//! The EXAMPLES of the manual pages; a test reads each with the definitions of the arguments. Not for: what the options mean.

/// For each page: what the example does, and its lines.
pub(crate) const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "firn",
        &[(
            "The first backup, and the way back:",
            "export FIRN_REPOSITORY=/media/disk/backups FIRN_PASSWORD_FILE=~/.firn-password\nfirn init\nfirn backup ~\n\
             firn mount ~/past\nfirn restore latest:/home/me/work --target /tmp/work",
        )],
    ),
    (
        "init",
        &[
            ("A repository on an external disk; the password is asked for:", "firn init --repo /media/disk/backups"),
            (
                "With a key file instead of a password:",
                "(umask 077; head -c 64 /dev/urandom > ~/firn.key)\nfirn init -r /media/disk/backups --key-file ~/firn.key",
            ),
        ],
    ),
    (
        "backup",
        &[
            ("The home folder, without caches and downloads:", "firn backup ~ --exclude-caches --exclude ~/Downloads"),
            (
                "What a backup would do, file by file, with all folders named node_modules left out:",
                "firn backup --dry-run -v --exclude node_modules ~/work",
            ),
            ("The whole system, without other file systems:", "firn backup --one-file-system /"),
        ],
    ),
    ("snapshots", &[("All snapshots, for a program:", "firn snapshots --json")]),
    (
        "ls",
        &[
            ("The root of the latest snapshot:", "firn ls"),
            ("Everything below a folder, one snapshot ago:", "firn ls -lR latest~1:/home/me/work"),
        ],
    ),
    (
        "dump",
        &[
            ("A file as it was in a snapshot:", "firn dump 4f1c2a:/home/me/notes.txt | less"),
            ("Into a file:", "firn dump latest:/home/me/notes.txt -o notes.old.txt"),
        ],
    ),
    ("history", &[("All versions of a file, with the place of each:", "firn history ~/notes.txt")]),
    (
        "find",
        &[
            ("Where the photos of a day are:", "firn find \"IMG_20240131*\""),
            (
                "Every version of large text files that were changed within 30 days:",
                "firn find --all --size +10M --newer 30d \"work/*.txt\"",
            ),
        ],
    ),
    (
        "diff",
        &[
            ("What changed from one snapshot to the next:", "firn diff latest~1 latest"),
            ("How files that are there now differ from the latest snapshot:", "firn diff latest --content"),
        ],
    ),
    ("deleted", &[("Everything that is gone from a folder:", "firn deleted -R ~/work")]),
    (
        "restore",
        &[
            ("A folder, into a new place:", "firn restore latest:/home/me/work --target /tmp/work"),
            (
                "A whole snapshot in place, as root, then read again and compared:",
                "firn restore latest --target / --verify",
            ),
            ("Only the photos:", "firn restore latest:/home/me -t /tmp/photos --include \"*.jpg\""),
        ],
    ),
    (
        "mount",
        &[
            (
                "All snapshots, in the background:",
                "firn mount --daemon ~/past\nls ~/past/snapshots\nfirn umount ~/past",
            ),
            ("One snapshot, for copying a part of it with the usual programs:", "firn mount /mnt latest~2:/home/me"),
        ],
    ),
    ("umount", &[("The end of a mount:", "firn umount ~/past")]),
    (
        "check",
        &[
            ("Metadata, and that everything is there:", "firn check"),
            ("Also the data, for at most an hour a night; the next run goes on:", "firn check --max-time 1h"),
            ("All data that was not read within 30 days:", "firn check --read-data --max-age 30d"),
        ],
    ),
    (
        "scrub",
        &[(
            "Verify for two hours, where the repository is stored, without a key:",
            "firn scrub -r /srv/backup --max-time 2h",
        )],
    ),
    (
        "key",
        &[
            (
                "A second password:",
                "(umask 077; head -c 24 /dev/urandom | base64 > ~/second-password)\n\
                 firn key add --label \"in the safe\" --new-password-file ~/second-password",
            ),
            ("The keys, and the end of one:", "firn key list\nfirn key remove 3fa2"),
            (
                "After a password became known: a new one, and a new secret, also for what is stored already; the other key stays:",
                "firn key passwd\nfirn key rotate --re-encrypt --other-password-file ~/second-password",
            ),
        ],
    ),
    (
        "forget",
        &[
            (
                "What a policy would keep and why, then the same for good, with the space freed:",
                "firn forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --explain --dry-run\n\
                 firn forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --prune",
            ),
            ("One snapshot:", "firn forget 4f1c2a"),
        ],
    ),
    ("undelete", &[("All forgotten snapshots that are still there:", "firn undelete --all")]),
    ("pin", &[("A snapshot that stays:", "firn pin latest --reason \"before the move\"")]),
    ("unpin", &[("And no longer:", "firn unpin 4f1c2a")]),
    (
        "prune",
        &[
            ("What would be freed:", "firn prune --dry-run"),
            (
                "As much as possible, however much has to be written again:",
                "firn prune --max-unused 0 --max-repack unlimited",
            ),
        ],
    ),
    ("stats", &[("What is stored, and how well it compresses:", "firn stats --deep")]),
    (
        "du",
        &[
            ("What each snapshot takes:", "firn du"),
            ("What the folders of the latest one take:", "firn du --depth 2 latest:/home/me"),
        ],
    ),
    (
        "repair",
        &[(
            "After \"firn check --read-data\" found damage, in this order:",
            "firn repair index\nfirn backup ~\nfirn repair packs\nfirn repair snapshots\nfirn check --read-data",
        )],
    ),
    (
        "completions",
        &[
            (
                "For bash:",
                "mkdir -p ~/.local/share/bash-completion/completions\n\
                 firn completions bash > ~/.local/share/bash-completion/completions/firn",
            ),
            (
                "For fish:",
                "mkdir -p ~/.config/fish/completions\nfirn completions fish > ~/.config/fish/completions/firn.fish",
            ),
            (
                "For zsh, with fpath=(~/.zfunc $fpath) before compinit in ~/.zshrc:",
                "mkdir -p ~/.zfunc\nfirn completions zsh > ~/.zfunc/_firn",
            ),
        ],
    ),
];

/// The section of a page, as roff.
pub(crate) fn section(page: &str) -> String {
    let found = EXAMPLES.iter().find(|(name, _)| *name == page).map_or(&[][..], |(_, examples)| examples);
    let mut text = String::from(".SH EXAMPLES\n");
    for (what, lines) in found {
        let lines: Vec<String> = lines.lines().map(roff).collect();
        text += &format!(".PP\n{}\n.PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", roff(what), lines.join("\n"));
    }
    text
}

/// Text that roff takes as it is.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq").replace('~', "\\(ti").replace('\'', "\\(aq")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// The words of a line of shell, up to a pipe or a redirection; quotes hold words together.
    fn words(line: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (at, part) in line.split('"').enumerate() {
            if at % 2 == 1 {
                found.push(part.to_owned());
            } else {
                found.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        let end = found.iter().position(|word| matches!(word.as_str(), "|" | ">")).unwrap_or(found.len());
        found.truncate(end);
        found
    }

    #[test]
    fn every_example_is_understood_and_every_page_has_some() {
        let command = crate::cli::command();
        let pages = command.get_subcommands().filter(|command| !command.is_hide_set()).map(clap::Command::get_name);
        for page in pages.filter(|page| *page != "help").chain(["firn"]) {
            let (_, examples) = EXAMPLES.iter().find(|(name, _)| *name == page).unwrap_or_else(|| panic!("{page}"));
            let lines: Vec<_> = examples.iter().flat_map(|(_, lines)| lines.lines()).collect();
            assert!(lines.iter().any(|line| page == "firn" || line.starts_with(&format!("firn {page}"))), "{page}");
            for line in lines.iter().filter(|line| line.starts_with("firn ")) {
                crate::cli::Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
        assert_eq!(EXAMPLES.len(), command.get_subcommands().filter(|command| !command.is_hide_set()).count() + 1);
    }
}
