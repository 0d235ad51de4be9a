//! `firn undelete`, `firn pin` and `firn unpin`: what keeps snapshots from going. Not for: forgetting them (see `forget`).

use super::context::Context;
use super::text;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::snapshots::{Named, Snapshots, describe};
use serde_json::json;

/// Take back that snapshots were forgotten
///
/// Works until a prune has deleted them; "firn snapshots --forgotten" lists those that are still there. A snapshot counts again only
/// after it was found whole.
#[derive(Debug, clap::Args)]
pub(crate) struct Undelete {
    /// Forgotten snapshots
    #[arg(value_name = "SNAPSHOT", required_unless_present = "all", conflicts_with = "all")]
    snapshots: Vec<String>,

    /// All forgotten snapshots
    #[arg(long)]
    all: bool,
}

/// Pin snapshots: they are never forgotten, by no policy and by no name
#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// Snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

/// Let pinned snapshots be forgotten again
#[derive(Debug, clap::Args)]
pub(crate) struct Unpin {
    /// Snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

impl Undelete {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        context.watch_signals()?;
        let snapshots = repository.snapshots()?;
        let chosen: Vec<Named> = match self.all {
            true => snapshots.forgotten,
            false => {
                // What is forgotten is named as what is not.
                let forgotten = Snapshots { live: snapshots.forgotten, ..Snapshots::default() };
                let find = |text: &String| {
                    forgotten.resolve(text).cloned().map_err(|error| {
                        match snapshots.live.iter().any(|named| named.name.to_string().starts_with(text.as_str())) {
                            true => Error::new(ErrorKind::Input, format!("The snapshot \"{text}\" is not forgotten")),
                            false => error.context(format!("No forgotten snapshot \"{text}\" is stored any more")),
                        }
                    })
                };
                self.snapshots.iter().map(find).collect::<Result<_>>()?
            }
        };
        let progress = context.progress("undelete");
        for named in &chosen {
            let done = crate::forget::undelete::undelete(&repository, named.name, &progress, &context.stop);
            if done.is_err() {
                progress.finish();
            }
            done?;
            say(context, "undeleted", "Undeleted", named)?;
        }
        progress.finish();
        if chosen.is_empty() {
            context.tell("There are no forgotten snapshots\n")?;
        }
        Ok(0)
    }
}

impl Pin {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        repository.check_writable()?;
        for named in resolve_all(&context.snapshots(&repository)?, &self.snapshots)? {
            repository.put_hold(named.name)?;
            say(context, "pinned", "Pinned", &named)?;
        }
        Ok(0)
    }
}

impl Unpin {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        repository.check_writable()?;
        let held = repository.holds()?;
        for named in resolve_all(&context.snapshots(&repository)?, &self.snapshots)? {
            if !held.contains(&named.name) {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("The snapshot \"{}\" is not pinned", named.name.short()),
                ));
            }
            repository.delete_hold(named.name)?;
            say(context, "unpinned", "Unpinned", &named)?;
        }
        Ok(0)
    }
}

fn resolve_all(snapshots: &Snapshots, texts: &[String]) -> Result<Vec<Named>> {
    texts.iter().map(|text| snapshots.resolve(text).cloned()).collect()
}

fn say(context: &Context, message: &str, verb: &str, named: &Named) -> Result<()> {
    match context.global.json {
        true => context.print_json(&json!({ "message_type": message, "snapshot_id": named.name })),
        false => context.tell(&format!("{verb} {}\n", text::line(&describe(named)))),
    }
}
