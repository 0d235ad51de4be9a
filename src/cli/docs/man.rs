//! `firn man`: the manual pages, from the definitions of the arguments. Not for: the page of the format, which is written by
//! hand.

use crate::cli::context::Context;
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Write the manual pages into a folder
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// The folder
    #[arg(value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
}

const SECTIONS: &str = r#".SH "EXIT STATUS"
.TP
0
All is well.
.TP
1
The command failed.
.TP
2
The arguments make no sense.
.TP
3
The command ended, but something was left out: a file could not be read or restored.
.TP
4
Damage was found that can be repaired.
.TP
5
Damage was found, and data is lost or differs.
.TP
6
A safety check stopped the command; nothing was deleted.
.TP
10
There is no repository at that place.
.TP
11
Something else is using what the command needs.
.TP
12
Wrong password or key.
.TP
14
The target is full.
.TP
130, 143
Stopped by Ctrl\-C or by a request to end (128 and the number of the signal).
.SH ENVIRONMENT
An option counts more than a variable, and an empty variable counts as absent.
.TP
FIRN_REPOSITORY
The folder of the repository, as \fB\-\-repo\fR.
.TP
FIRN_PASSWORD
The password itself. Other processes of the same user can see it; a file or command is better.
.TP
FIRN_PASSWORD_FILE
A file whose first line is the password, as \fB\-\-password\-file\fR.
.TP
FIRN_PASSWORD_COMMAND
A command whose first line of output is the password, as \fB\-\-password\-command\fR. Only one of these three may be set.
Without any, the password is asked for on the terminal.
.TP
FIRN_KEY_FILE
A file whose bytes are a key, as \fB\-\-key\-file\fR.
.TP
FIRN_CACHE_DIR
The folder for local state, as \fB\-\-cache\-dir\fR. It can be deleted at any time, which costs time and nothing else.
.SH "NAMING SNAPSHOTS"
.TP
\fBlatest\fR
The newest snapshot, of all or of those that \fB\-\-host\fR, \fB\-\-path\fR and \fB\-\-tag\fR choose; which one that is, is printed.
The newest is the one that was made last, as far as clocks can be believed: one whose date lies in the future is not.
.TP
\fBlatest~\fIN\fR
The \fIN\fRth one before it: \fBlatest~1\fR is the second newest.
.TP
\fIID\fR
The first digits of its id, as \fBfirn snapshots\fR prints it; as many as make it unambiguous.
.PP
Behind a colon may follow an absolute path in it: \fBlatest:/home/me/work\fR names a folder or file in the newest snapshot. Commands
that print such names (\fBfirn history\fR, \fBfirn find\fR, \fBfirn deleted\fR) print them so that other commands take them as they
stand.
.SH PATTERNS
Options like \fB\-\-exclude\fR and \fB\-\-include\fR take patterns of paths. The rules are those of restic, with one exception.
.IP \(bu 2
A pattern is divided at each "/". In each part, \fB*\fR stands for any characters, \fB?\fR for one, \fB[a\-z]\fR for one of these,
\fB[^a\-z]\fR or \fB[!a\-z]\fR for one that is none of these, and \fB\e\fR takes the meaning from the next character. Nothing of
this stands for a "/".
.IP \(bu 2
The part \fB**\fR stands for any number of folders.
.IP \(bu 2
A pattern with a "/" in front begins at the root of the file system; any other matches at every depth: \fBcache\fR matches
/home/me/cache and /cache, \fBme/cache\fR only the first.
.IP \(bu 2
What matches a folder matches everything in it, at any depth.
.IP \(bu 2
A pattern that ends with "/" matches folders only. This is the exception: restic ignores that "/".
.IP \(bu 2
A pattern with \fB!\fR in front takes back what earlier ones matched; the last one that matches decides.
.IP \(bu 2
\fB$VAR\fR and \fB~\fR have no meaning in a pattern. In a shell, quote patterns, so that it does not replace them itself.
.PP
In a file of patterns each line is one; empty lines and those that begin with \fB#\fR do not count.
.SH "OUTPUT FOR PROGRAMS"
With \fB\-\-json\fR every line is one object. Its field \fBmessage_type\fR says what it is: \fBstatus\fR, \fBsummary\fR,
\fBnode\fR and so on; errors are on standard error, \fBerror\fR for what was left out, \fBwarning\fR for what deserves attention, and \fBexit_error\fR (with \fBcode\fR,
\fBmessage\fR and \fBhint\fR) for what ended the command. Names that are not UTF\-8 are given once more, exactly, as base64 in a
field whose name ends in \fB_base64\fR. \fBfirn\-json\fR(7) documents every type and field.
.SH FILES
.TP
$XDG_CACHE_HOME/firn, ~/.cache/firn, /var/cache/firn
Local state, in the first of these that can be written (the last one only for root); without any, there is none. Index tables, the files cache and the history catalog, below a folder for each repository.
"#;

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let pages = pages()?;
        for (name, page) in &pages {
            let path = self.folder.join(name);
            std::fs::write(&path, page)
                .map_err(|error| Error::io(format!("\"{}\" cannot be written", path.display()), error))?;
        }
        context.tell(&format!("Wrote {} pages into \"{}\"\n", pages.len(), self.folder.display()))?;
        Ok(0)
    }
}

/// File names and contents of all pages.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut root = crate::cli::command();
    root.build();
    let mut pages = Vec::new();
    let names: Vec<String> = root
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .map(|command| command.get_name().into())
        .collect();
    let rendered = |command: &clap::Command, name: &str, is_root: bool| -> std::io::Result<Vec<u8>> {
        let command = command.clone().display_name(name.to_owned());
        let man = clap_mangen::Man::new(command.clone())
            .title(name.to_uppercase())
            .source(concat!("firn ", env!("CARGO_PKG_VERSION")))
            .manual("firn manual");
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        clap_mangen::Man::new(own(&command)).render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        Ok(match is_root {
            true => {
                man.render_subcommands_section(&mut page)?;
                page.extend_from_slice(crate::cli::docs::examples::section("firn").as_bytes());
                page.extend_from_slice(SECTIONS.as_bytes());
                page
            }
            false => page,
        })
    };
    let failed = |error| Error::io("The manual pages cannot be made", error);
    let mut page = rendered(&root, "firn", true).map_err(failed)?;
    let list: Vec<String> = names.iter().map(|name| format!("\\fBfirn\\-{name}\\fR(1)")).collect();
    page.extend_from_slice(
        format!(".SH \"SEE ALSO\"\n{}, \\fBfirn\\-json\\fR(7), \\fBfirn\\-repository\\fR(7)\n", list.join(", "))
            .as_bytes(),
    );
    pages.push(("firn.1".to_owned(), page));
    for command in root.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let name = format!("firn-{}", command.get_name());
        let mut page = rendered(command, &name, false).map_err(failed)?;
        for below in command.get_subcommands() {
            page.extend_from_slice(&part(command, below).map_err(failed)?);
        }
        page.extend_from_slice(crate::cli::docs::examples::section(command.get_name()).as_bytes());
        if command.get_name() == "mount" {
            page.extend_from_slice(crate::cli::docs::mount_page::SECTIONS.as_bytes());
        }
        page.extend_from_slice(
            b".SH \"SEE ALSO\"\n\\fBfirn\\fR(1), for naming snapshots, patterns, exit status and environment\n",
        );
        pages.push((format!("{name}.1"), page));
    }
    Ok(pages)
}

/// The command without the options that every command takes.
fn own(command: &clap::Command) -> clap::Command {
    command.clone().mut_args(|arg| match arg.is_global_set() || arg.get_id() == "help" {
        true => arg.hide(true),
        false => arg,
    })
}

/// The section about a command of a command, as `firn key add`.
fn part(above: &clap::Command, command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let name = format!("firn {} {}", above.get_name(), command.get_name());
    let man = clap_mangen::Man::new(own(&command.clone().display_name(&name).bin_name(&name)));
    let mut page = format!(".SH \"{}\"\n", name.to_uppercase()).into_bytes();
    for render in [
        clap_mangen::Man::render_synopsis_section,
        clap_mangen::Man::render_description_section,
        clap_mangen::Man::render_options_section,
    ] {
        let mut text = Vec::new();
        render(&man, &mut text)?;
        // What is a section in a page of its own is a part of a section here.
        page.extend_from_slice(String::from_utf8_lossy(&text).replace(".SH ", ".SS ").as_bytes());
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"firn.1") && names.contains(&"firn-ls.1") && !names.contains(&"firn-man.1"));
        for (name, page) in &pages {
            let text = String::from_utf8(page.clone()).unwrap();
            for section in [".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES"] {
                assert!(text.contains(section), "{name}: {section}");
            }
            let synopsis = text.split(".SH SYNOPSIS").nth(1).unwrap().split(".SH").next().unwrap();
            assert!(!synopsis.contains("cache\\-dir"), "global options are not part of the synopsis: {synopsis}");
        }
    }
}
