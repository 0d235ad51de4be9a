//! What is said of a finding of check or scrub, and the exit code that it leads to. Not for: finding anything (see `crate::check`).

use super::text;
use crate::check::{Affected, Finding, Severity};
use serde_json::json;

pub(in crate::cli) fn exit_code(worst: Option<Severity>) -> u8 {
    match worst {
        None | Some(Severity::Note) => 0,
        Some(Severity::Repairable) => 4,
        Some(Severity::Lost) => 5,
    }
}

pub(in crate::cli) fn words(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Note => "Note",
        Severity::Repairable => "Damage",
        Severity::Lost => "Lost",
    };
    let mut text = match finding.message.contains(&finding.object) {
        true => format!("{word}: {}\n", text::line(&finding.message)),
        false => format!("{word}: \"{}\": {}\n", finding.object, text::line(&finding.message)),
    };
    for Affected { snapshot, path } in &finding.affected {
        text.push_str(&format!("    {}:{}\n", snapshot.short(), text::escape(path)));
    }
    let shown = finding.affected.len() as u64;
    if finding.affected_total > shown {
        text.push_str(&format!("    and {} more\n", finding.affected_total - shown));
    }
    if let Some(hint) = &finding.hint {
        text.push_str(&format!("    Hint: {}\n", text::line(hint)));
    }
    text
}

pub(in crate::cli) fn json(finding: &Finding) -> serde_json::Value {
    let affected: Vec<_> = finding
        .affected
        .iter()
        .map(|Affected { snapshot, path }| {
            let mut value = json!({ "snapshot_id": snapshot });
            text::set_path(&mut value, "path", path);
            value
        })
        .collect();
    json!({
        "message_type": "finding",
        "severity": finding.severity,
        "object": finding.object,
        "message": finding.message,
        "hint": finding.hint,
        "affected": affected,
        "affected_total": finding.affected_total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectName;

    #[test]
    fn a_finding_names_what_is_hit() {
        let finding = Finding {
            severity: Severity::Lost,
            object: "data/ab".into(),
            message: "The pack \"data/ab\" is missing".into(),
            hint: Some("Do something.".into()),
            affected: vec![Affected { snapshot: ObjectName([0x12; 32]), path: b"/a\x1b\xff".to_vec() }],
            affected_total: 3,
        };
        assert_eq!(
            words(&finding),
            "Lost: The pack \"data/ab\" is missing\n    12121212:/a\\x1b\\xff\n    and 2 more\n    Hint: Do something.\n"
        );
        let unnamed = words(&Finding { message: "It is missing".into(), ..finding.clone() });
        assert!(unnamed.starts_with("Lost: \"data/ab\": It is missing\n"), "{unnamed}");
        let value = json(&finding);
        assert_eq!(value["severity"], "lost");
        assert_eq!(value["affected"][0]["path_base64"], "L2Eb/w==");
    }

    #[test]
    fn only_damage_counts() {
        assert_eq!(exit_code(None), 0);
        assert_eq!(exit_code(Some(Severity::Note)), 0);
        assert_eq!(exit_code(Some(Severity::Repairable)), 4);
        assert_eq!(exit_code(Some(Severity::Lost)), 5);
    }
}
