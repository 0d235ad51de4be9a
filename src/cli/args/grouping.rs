//! By what snapshots are grouped, as people write it. Not for: the groups (see `crate::forget`).

use crate::forget::Grouping;

/// Names with commas between them; "none" or nothing makes one group of all.
pub(in crate::cli) fn parse(text: &str) -> std::result::Result<Grouping, String> {
    let mut grouping = Grouping { host: false, paths: false, tags: false };
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "host" => grouping.host = true,
            "paths" | "path" => grouping.paths = true,
            "tags" | "tag" => grouping.tags = true,
            "none" => {}
            _ => {
                return Err(format!(
                    "\"{word}\" is nothing to group by; write host, paths, tags, several with commas, or none"
                ));
            }
        }
    }
    Ok(grouping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_what_is_none() {
        assert_eq!(parse(""), Ok(Grouping { host: false, paths: false, tags: false }));
        assert_eq!(parse("tags,host"), Ok(Grouping { host: true, paths: false, tags: true }));
        assert!(parse("size").is_err());
    }
}
