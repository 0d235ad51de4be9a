//! `firn undelete`, `firn pin` and `firn unpin`: what keeps snapshots from going. Not for: forgetting them (see `forget`).

use crate::cli::args::select::Selection;
use crate::cli::context::Context;
use crate::cli::output::message;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::forget::undelete::Undeleted;
use crate::repository::filter::Filter;
use crate::repository::snapshots::{Named, Snapshots, describe, is_latest};
use serde_json::json;

/// Take back that snapshots were forgotten
///
/// Works until a prune has deleted them; "firn snapshots --forgotten" lists those that are still there. A snapshot counts again only
/// after it was found whole. While a prune is at work nothing can be promised, so nothing is undeleted (exit status 11).
#[derive(Debug, clap::Args)]
pub(crate) struct Undelete {
    /// Forgotten snapshots
    #[arg(value_name = "SNAPSHOT", required_unless_present = "all", conflicts_with = "all")]
    snapshots: Vec<String>,

    /// All forgotten snapshots
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    selection: Selection,
}

/// Pin snapshots: they are never forgotten, by no policy and by no name
#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// Snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,

    /// Why; told where snapshots are listed and where policies are explained
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    #[command(flatten)]
    selection: Selection,
}

/// Let pinned snapshots be forgotten again
#[derive(Debug, clap::Args)]
pub(crate) struct Unpin {
    /// Snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,

    #[command(flatten)]
    selection: Selection,
}

impl Undelete {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let filter = self.selection.filter()?;
        let repository = context.open()?;
        context.watch_signals()?;
        let snapshots = repository.snapshots()?;
        let chosen: Vec<Named> = match self.all {
            true => snapshots.forgotten.into_iter().filter(|named| filter.wants(&named.snapshot)).collect(),
            false => {
                // The tombs of some do not count, and are there.
                let replayed = snapshots.live.iter().filter(|named| snapshots.replayed.contains(&named.name)).cloned();
                let live = snapshots.forgotten.into_iter().chain(replayed).collect();
                let forgotten = Snapshots { live, ..Snapshots::default() };
                let find = |text: &String| find_forgotten(&forgotten, &snapshots.live, text, &filter);
                self.snapshots.iter().map(find).collect::<Result<_>>()?
            }
        };
        if chosen.is_empty() {
            let with = if filter.is_empty() { String::new() } else { format!(" with {}", filter.words()) };
            let text = format!("There are no forgotten snapshots{}\n", text::line(&with));
            if !context.output.json {
                context.tell(&text)?;
            }
        }
        let mut code = 0;
        for named in &chosen {
            let progress = context.progress("undelete");
            let done = crate::forget::undelete::undelete(&repository, named.name, &progress, &context.stop);
            progress.finish();
            match done {
                Ok(undeleted) => {
                    say(context, "undeleted", "Undeleted", named)?;
                    if undeleted == Undeleted::MayBeWithdrawn {
                        message::warning(&may_be_withdrawn(named), "undelete", context.output.json);
                    }
                }
                // What is wrong with one snapshot says nothing about the next.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    code = code.max(error.kind().exit_code());
                    message::failure(&error, "undelete", &named.name.to_string(), context.output.json);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(code)
    }
}

impl Pin {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let filter = self.selection.filter()?;
        let repository = context.open()?;
        for named in choose_all(context, &context.snapshots(&repository)?, &self.snapshots, &filter)? {
            crate::forget::pin::pin(&repository, named.name, self.reason.clone().filter(|reason| !reason.is_empty()))?;
            say(context, "pinned", "Pinned", &named)?;
        }
        Ok(0)
    }
}

impl Unpin {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let filter = self.selection.filter()?;
        let repository = context.open()?;
        repository.check_writable()?;
        let held = repository.holds()?;
        let mut snapshots = context.snapshots(&repository)?;
        // One may be pinned and forgotten at the same time.
        let is_both = |named: &Named| held.contains(&named.name);
        snapshots.live.extend(snapshots.forgotten.extract_if(.., |named| is_both(named)));
        snapshots.live.sort_by_cached_key(|named| snapshots.dates.key(named));
        for named in choose_all(context, &snapshots, &self.snapshots, &filter)? {
            if !held.contains(&named.name) {
                let message = format!("The snapshot \"{}\" is not pinned", named.name.short());
                return Err(Error::new(ErrorKind::Input, message));
            }
            repository.delete_hold(named.name)?;
            say(context, "unpinned", "Unpinned", &named)?;
        }
        Ok(0)
    }
}

/// The forgotten snapshot that a person named, as those that are not forgotten are named.
fn find_forgotten(forgotten: &Snapshots, live: &[Named], text: &str, filter: &Filter) -> Result<Named> {
    let hint = "\"firn snapshots --forgotten\" lists those that can still be undeleted.";
    let resolved = match forgotten.live.is_empty() && !text.is_empty() {
        true => Err(Error::new(ErrorKind::NotFound, "No forgotten snapshot is stored any more")),
        false => forgotten.resolve(text, filter).cloned(),
    };
    resolved.map_err(|error| {
        let is_live = |named: &Named| named.name.to_string().starts_with(&text.to_ascii_lowercase());
        if !text.is_empty() && live.iter().any(is_live) {
            return Error::new(ErrorKind::Input, format!("The snapshot \"{text}\" is not forgotten"));
        }
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let message = match is_latest(text) && !filter.is_empty() {
            true => format!("There is no forgotten snapshot with {}", filter.words()),
            false => format!("No forgotten snapshot \"{text}\" is stored any more"),
        };
        Error::new(ErrorKind::NotFound, message).with_hint(hint)
    })
}

fn may_be_withdrawn(named: &Named) -> Error {
    let message = format!(
        "The backup that made the snapshot \"{}\" did not report success; if it still is at work or paused, it may forget the \
        snapshot again",
        named.name.short()
    );
    Error::new(ErrorKind::InUse, message)
        .with_hint("Wait for that backup to end, if there is one, and look at \"firn snapshots\" then.")
}

fn choose_all(context: &Context, snapshots: &Snapshots, texts: &[String], filter: &Filter) -> Result<Vec<Named>> {
    texts.iter().map(|text| context.choose(snapshots, text, b"", filter).cloned()).collect()
}

fn say(context: &Context, message: &str, verb: &str, named: &Named) -> Result<()> {
    match context.output.json {
        true => context.print_json(&json!({ "message_type": message, "snapshot_id": named.name })),
        false => context.tell(&format!("{verb} {}\n", text::line(&describe(named)))),
    }
}
