//! `firn man`: the manual pages, from the definitions of the arguments. Not for: the page of the format, which is written by
//! hand.

use super::context::Context;
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
A safety brake stopped the command.
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
.SH SNAPSHOTS
A snapshot is named \fBlatest\fR, \fBlatest~1\fR (the one before the latest, and so on) or by the first digits of its id.
Behind a colon may follow an absolute path in it: \fBlatest:/home/me/work\fR.
.SH "OUTPUT FOR PROGRAMS"
With \fB\-\-json\fR every line is one object. Its field \fBmessage_type\fR says what it is: \fBstatus\fR, \fBsummary\fR,
\fBnode\fR and so on; errors are on standard error, \fBerror\fR for what was left out and \fBexit_error\fR (with \fBcode\fR,
\fBmessage\fR and \fBhint\fR) for what ended the command. Names that are not UTF\-8 are given once more, exactly, as base64 in a
field whose name ends in \fB_base64\fR. Unknown fields and types are to be ignored: there may be more of them in later versions.
.SH FILES
.TP
~/.cache/firn
Local state: index tables, the files cache and the history catalog, below a folder for each repository.
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
    let mut root = super::command();
    root.build();
    let mut pages = Vec::new();
    let names: Vec<String> = root
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().into())
        .collect();
    let rendered = |command: &clap::Command, name: &str, is_root: bool| -> std::io::Result<Vec<u8>> {
        let command = command.clone().display_name(name.to_owned());
        let man = clap_mangen::Man::new(command)
            .title(name.to_uppercase())
            .source(concat!("firn ", env!("CARGO_PKG_VERSION")))
            .manual("firn manual");
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        Ok(match is_root {
            true => {
                man.render_subcommands_section(&mut page)?;
                page.extend_from_slice(SECTIONS.as_bytes());
                page
            }
            false => page,
        })
    };
    let failed = |error| Error::io("The manual pages cannot be made", error);
    let mut page = rendered(&root, "firn", true).map_err(failed)?;
    let list: Vec<String> = names.iter().map(|name| format!("\\fBfirn\\-{name}\\fR(1)")).collect();
    page.extend_from_slice(format!(".SH \"SEE ALSO\"\n{}, \\fBfirn\\-repository\\fR(7)\n", list.join(", ")).as_bytes());
    pages.push(("firn.1".to_owned(), page));
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("firn-{}", command.get_name());
        let mut page = rendered(command, &name, false).map_err(failed)?;
        for below in command.get_subcommands() {
            page.extend_from_slice(&part(command, below).map_err(failed)?);
        }
        if command.get_name() == "mount" {
            page.extend_from_slice(super::mount_page::SECTIONS.as_bytes());
        }
        page.extend_from_slice(b".SH \"SEE ALSO\"\n\\fBfirn\\fR(1), for exit status and environment\n");
        pages.push((format!("{name}.1"), page));
    }
    Ok(pages)
}

/// The section about a command of a command, as `firn key add`.
fn part(above: &clap::Command, command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let name = format!("firn {} {}", above.get_name(), command.get_name());
    // Options that every command takes are on the page already.
    let mine = command.clone().display_name(&name).bin_name(&name).mut_args(|arg| match arg.is_global_set() {
        true => arg.hide(true),
        false => arg,
    });
    let man = clap_mangen::Man::new(mine);
    let mut page = format!(".SH \"{}\"\n", name.to_uppercase()).into_bytes();
    for render in [clap_mangen::Man::render_description_section, clap_mangen::Man::render_options_section] {
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
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
        }
    }
}
