//! Finds ids of our own in the documentation of public items: it cites RFC sections, and ids stand in `//`.

use std::path::Path;
use std::{fs, io};

use crate::cite::Patterns;

/// The crates whose documentation users read.
const LIBRARIES: [&str; 8] = ["checksum", "wire", "core", "device", "steadfast", "timeline", "drill", "lab"];

/// Returns one line for each id in public documentation below `root`.
pub(crate) fn ids_in_public_docs(root: &Path) -> io::Result<Vec<String>> {
    let patterns = Patterns::new();
    let mut found = Vec::new();
    for path in crate::files_where(root, |path| path.extension().is_some_and(|ending| ending == "rs"))? {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let mut parts = name.split('/');
        let library = parts.next().is_some_and(|first| LIBRARIES.contains(&first));
        // A file of tests has no public items.
        if library && parts.next() == Some("src") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(&path)?;
            let ids = in_docs(&patterns, &text).into_iter();
            found.extend(
                ids.map(|(line, id)| format!("{name}:{line}: {id} in public documentation: cite the RFC")),
            );
        }
    }
    Ok(found)
}

/// Returns the ids in the documentation of modules and public items, each with its line.
fn in_docs(patterns: &Patterns, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // The ids of the documentation whose item comes next.
    let mut waiting = Vec::new();
    // The indentation of the public enum whose variants follow.
    let mut in_public_enum = None;
    let mut lines = text.lines().zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        let (code, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        let ids = |text: &str| patterns.ids(text).into_iter().map(|id| (number, id)).collect::<Vec<_>>();
        // The tests end a file. Another item that only tests need does not.
        if code == "#[cfg(test)]" && lines.peek().is_some_and(|(next, _)| next.starts_with("mod tests")) {
            break;
        } else if let Some(doc) = code.strip_prefix("//!") {
            found.extend(ids(doc));
        } else if let Some(doc) = code.strip_prefix("///") {
            waiting.extend(ids(doc));
        } else if !code.is_empty() && !code.starts_with("//") && !code.starts_with("#[") {
            if is_public(code) || in_public_enum.is_some_and(|outer| indent > outer) {
                found.append(&mut waiting);
            }
            waiting.clear();
            if code.starts_with("pub enum ") {
                in_public_enum = Some(indent);
            } else if code == "}" && in_public_enum == Some(indent) {
                in_public_enum = None;
            }
        }
    }
    found
}

/// Returns whether a line begins a public item, or a row of a table of counters, reasons or settings.
fn is_public(code: &str) -> bool {
    let is_row = |rest: &str| rest.starts_with('"') && rest.ends_with([',', ';']);
    let row = code.split_once(' ').is_some_and(|(name, rest)| {
        name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') && is_row(rest)
    });
    code.starts_with("pub ") || row || code.starts_with("\"net.") || code.starts_with("\"steadfast.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the ids that are found, in order.
    fn found(text: &str) -> Vec<String> {
        in_docs(&Patterns::new(), text).into_iter().map(|(_, id)| id).collect()
    }

    #[test]
    fn an_id_in_the_documentation_of_a_public_item_is_found() {
        assert_eq!(found("//! A module (THREAT-3).\n"), ["THREAT-3"]);
        assert_eq!(found("/// A function (MUST-13).\n#[inline]\npub fn f() {}\n"), ["MUST-13"]);
        assert_eq!(found("/// Out of window (5961-1).\nRstOutOfWindow \"rst_out_of_window\",\n"), ["5961-1"]);
        assert_eq!(found("/// A counter (SA-EST-03).\nout_rsts \"OutRsts\";\n"), ["SA-EST-03"]);
        assert_eq!(
            found("/// A limit (P0).\n\"net.ipv4.x\" x: u8 as Count(0, 1), [1, 1], \"Linux\";\n"),
            ["P0"]
        );
        assert_eq!(found("pub enum E {\n    /// One (MUST-1).\n    One,\n}\n"), ["MUST-1"]);
        assert_eq!(found("#[cfg(test)]\nuse x::y;\n/// MUST-1\npub fn f() {}\n"), ["MUST-1"]);
    }

    #[test]
    fn an_id_in_a_comment_or_about_a_private_item_or_a_test_is_none() {
        assert_eq!(found("/// A function (RFC 9293 §3.6.1).\n// MUST-13\npub fn f() {}\n"), [""; 0]);
        assert_eq!(found("/// A function (MUST-13).\nfn f() {}\n"), [""; 0]);
        assert_eq!(found("/// A function (MUST-13).\npub(crate) fn f() {}\n"), [""; 0]);
        assert_eq!(found("enum E {\n    /// One (MUST-1).\n    One,\n}\n"), [""; 0]);
        assert_eq!(found("pub enum E {\n    One,\n}\n/// Private (MUST-2).\nfn f() {}\n"), [""; 0]);
        assert_eq!(found("#[cfg(test)]\nmod tests {\n    /// MUST-1\n    pub fn f() {}\n}\n"), [""; 0]);
    }
}
