//! `firn stats`: how much there is, and how well it packs. Not for: whether it is whole (see `check`).

use crate::cli::context::Context;
use crate::cli::output::text;
use crate::error::Result;
use crate::stats::{Objects, Stats, StatsOptions};
use serde_json::json;

/// Show how much the repository holds and how much space that takes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also count chunks, by reading every pack's list of contents
    #[arg(long)]
    deep: bool,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        context.watch_signals()?;
        let progress = context.progress("stats");
        let stats = crate::stats::run(&repository, &StatsOptions { deep: self.deep }, &progress, &context.stop);
        progress.finish();
        let stats = stats?;
        match context.output.json {
            true => context.print_json(&json(&stats, &repository.id().to_string()))?,
            false => context.print(&words(&stats, &repository.id().short()))?,
        }
        Ok(0)
    }
}

fn words(stats: &Stats, repository: &str) -> String {
    let objects = |objects: Objects, one: &str, many: &str| {
        format!("{} in {}", text::size(objects.bytes), text::count(objects.count, one, many))
    };
    let mut rows: Vec<(&str, String)> = vec![("Repository", repository.to_owned())];
    rows.push(("Snapshots", stats.snapshots.to_string()));
    if stats.forgotten > 0 {
        rows.push(("Forgotten", stats.forgotten.to_string()));
    }
    if stats.damaged > 0 {
        rows.push(("Unreadable", stats.damaged.to_string()));
    }
    rows.push(("Files of all", text::count(stats.files_all, "file", "files")));
    rows.push(("Size of all", text::size(stats.restore_all)));
    rows.push(("Size of latest", text::size(stats.restore_latest)));
    rows.push(("Stored", text::size(stats.stored())));
    rows.push(("  content", objects(stats.data_packs, "pack", "packs")));
    rows.push(("  trees", objects(stats.tree_packs, "pack", "packs")));
    rows.push(("  index", objects(stats.segments, "segment", "segments")));
    rows.push(("  others", objects(stats.others, "object", "objects")));
    rows.push(("Index entries", stats.index_entries.to_string()));
    if let Some(deep) = &stats.deep {
        let chunks = |count, bytes| format!("{} with {}", text::count(count, "chunk", "chunks"), text::size(bytes));
        rows.push(("Content", chunks(deep.content_chunks, deep.content_bytes)));
        rows.push(("Metadata", chunks(deep.metadata_chunks, deep.metadata_bytes)));
        rows.push(("Copies", text::size(deep.copied_bytes)));
        if deep.unreadable_packs > 0 {
            rows.push(("Not counted", text::count(deep.unreadable_packs, "unreadable pack", "unreadable packs")));
        }
    }
    if let Some(ratio) = stats.compression() {
        rows.push(("Compression", format!("{ratio:.2} to 1")));
    }
    if let Some(ratio) = stats.deduplication() {
        rows.push(("Deduplication", format!("{ratio:.2} to 1")));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    text::table(&rows, &[])
}

/// With restic's names where they mean the same.
fn json(stats: &Stats, repository: &str) -> serde_json::Value {
    let objects = |objects: Objects| json!({ "count": objects.count, "bytes": objects.bytes });
    let mut value = json!({
        "message_type": "stats",
        "repository_id": repository,
        "snapshots_count": stats.snapshots,
        "snapshots_forgotten": stats.forgotten,
        "snapshots_damaged": stats.damaged,
        "total_file_count": stats.files_all,
        "total_restore_size": stats.restore_all,
        "latest_restore_size": stats.restore_latest,
        "total_size": stats.stored(),
        "data_packs": objects(stats.data_packs),
        "tree_packs": objects(stats.tree_packs),
        "segments": objects(stats.segments),
        "others": objects(stats.others),
        "index_entries": stats.index_entries,
    });
    if let Some(deep) = &stats.deep {
        value["content_chunks"] = json!(deep.content_chunks);
        value["total_uncompressed_size"] = json!(deep.content_bytes + deep.metadata_bytes);
        value["metadata_chunks"] = json!(deep.metadata_chunks);
        value["copied_bytes"] = json!(deep.copied_bytes);
        value["unreadable_packs"] = json!(deep.unreadable_packs);
        value["compression_ratio"] = json!(stats.compression());
        value["deduplication_ratio"] = json!(stats.deduplication());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_objects_show_what_there_is() {
        let data_packs = Objects { count: 1, bytes: 2048 };
        let stats = Stats { snapshots: 3, forgotten: 1, data_packs, ..Stats::default() };
        let text = words(&stats, "abcd");
        assert!(text.contains("Snapshots       3\n") && text.contains("Forgotten       1\n"), "{text}");
        assert!(text.contains("  content       2.00 KiB in 1 pack\n") && !text.contains("Unreadable"), "{text}");
        assert_eq!(json(&stats, "abcd")["total_size"], 2048);
        assert!(json(&stats, "abcd").get("content_chunks").is_none());
    }
}
