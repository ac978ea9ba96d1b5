//! Finds the tests that cite each requirement, and every place where an id stands.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use regex::Regex;
use steadfast_drill::{is_drill_file, read_scripts};

/// Ids and the places that cite them.
#[derive(Default)]
pub(crate) struct Citations {
    places: BTreeMap<String, Vec<String>>,
}

impl Citations {
    pub(crate) fn collect(root: &Path) -> io::Result<Citations> {
        let patterns = Patterns::new();
        let mut citations = Citations::default();
        for path in crate::files(root)? {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            if is_drill_file(&path) {
                let scripts = read_scripts(&path).map_err(|e| io::Error::other(format!("{name}: {e}")))?;
                for script in scripts {
                    // A script of a family cites by its own name, any other script by its file name.
                    citations.add(&patterns, script.name.as_deref().unwrap_or(&name), &name);
                    citations.add(&patterns, &script.text, &name);
                }
                continue;
            }
            let text = fs::read_to_string(&path)?;
            if path.extension().is_some_and(|e| e == "rs") {
                citations.add_tests(&patterns, &name, &text);
            } else {
                let cites = text.lines().filter(|line| line.starts_with("cites"));
                cites.for_each(|line| citations.add(&patterns, line, &name));
            }
        }
        Ok(citations)
    }

    pub(crate) fn of(&self, id: &str) -> &[String] {
        self.places.get(id).map_or(&[], Vec::as_slice)
    }

    /// Finds every id in a comment, a document, a script or the name of a test, with the first place of each.
    pub(crate) fn mentioned(root: &Path) -> io::Result<BTreeMap<String, String>> {
        let patterns = Patterns::new();
        let mut mentioned = BTreeMap::new();
        for path in crate::written_files(root)? {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let text = fs::read_to_string(&path)?;
            let is_code = path.extension().is_some_and(|ending| ending == "rs");
            for (line, number) in text.lines().zip(1..) {
                // In code itself, a number minus a number is arithmetic.
                let comment = line.find("//").map_or("", |at| &line[at..]);
                let words = if is_code { comment } else { line };
                let named = if is_code { patterns.spelled_out(declared(line)) } else { String::new() };
                for id in patterns.ids(words).into_iter().chain(patterns.ids(&named)) {
                    mentioned.entry(id).or_insert_with(|| format!("{name}:{number}"));
                }
            }
        }
        Ok(mentioned)
    }

    fn add(&mut self, patterns: &Patterns, text: &str, place: &str) {
        for id in patterns.ids(text) {
            let places = self.places.entry(id).or_default();
            if places.last().is_none_or(|last| last != place) {
                places.push(place.to_owned());
            }
        }
    }

    /// Adds the tests of a Rust file: their names and doc comments.
    fn add_tests(&mut self, patterns: &Patterns, file: &str, text: &str) {
        let mut docs = String::new();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("///") {
                docs.push_str(doc);
                docs.push('\n');
            } else if line.starts_with("#[") {
                is_test |= line.contains("test]") || line.contains("test(");
            } else if line.contains("fn ") && is_test {
                let name = declared(line);
                let place = format!("{file}: {name}");
                self.add(patterns, &docs, &place);
                self.add(patterns, &patterns.spelled_out(name), &place);
                (docs, is_test) = (String::new(), false);
            } else if !line.is_empty() {
                (docs, is_test) = (String::new(), false);
            }
        }
    }
}

/// The name of the function that a line declares, or nothing.
fn declared(line: &str) -> &str {
    line.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next()).unwrap_or_default()
}

pub(crate) struct Patterns {
    written: Regex,
    in_name: Regex,
}

impl Patterns {
    pub(crate) fn new() -> Patterns {
        let written = r"\b(?:(?:MUST|SHLD|MAY|REC|THREAT|PACE|RATE|FWD)-\d+|SA-[A-Z_0-9]+-\d\d|DRILL-[FLX]\d\d|[1-9]\d{3}-(?:\d{1,2}|[a-n])|P[0-8])\b";
        let in_name = r"(?:^|_)(?:(sa_[a-z0-9_]+?)_(\d\d)|(drill)_([flx]\d\d)|(must|shld|may|rec|threat|pace|rate|fwd|[1-9]\d{3})_(\d{1,2}|[a-n]))(?:_|$)";
        Patterns {
            written: Regex::new(written).expect("a sound pattern"),
            in_name: Regex::new(in_name).expect("a sound pattern"),
        }
    }

    pub(crate) fn ids(&self, text: &str) -> Vec<String> {
        // A date looks like the number of an RFC with its first item.
        let dates = |found: &regex::Match<'_>| {
            let after = &text.as_bytes()[found.end()..];
            after.first() != Some(&b'-') || !after.get(1).is_some_and(u8::is_ascii_digit)
        };
        self.written.find_iter(text).filter(dates).map(|found| found.as_str().to_owned()).collect()
    }

    /// Converts ids in the name of a test to their usual spelling: `sa_fin_wait_1_03` is `SA-FIN_WAIT_1-03`.
    fn spelled_out(&self, name: &str) -> String {
        let mut ids = Vec::new();
        let mut at = 0;
        while let Some(found) = self.in_name.captures_at(name, at) {
            // Each alternative has a family and a number.
            let groups = [(1, 2), (3, 4), (5, 6)];
            let pair = groups.iter().find_map(|(family, number)| found.get(*family).zip(found.get(*number)));
            let Some((family, number)) = pair else { break };
            ids.push(match (family.as_str(), number.as_str()) {
                ("drill", number) => format!("DRILL-{}", number.to_uppercase()),
                (family, number) => match family.strip_prefix("sa_") {
                    Some(state) => format!("SA-{}-{number}", state.to_uppercase()),
                    None => format!("{}-{number}", family.to_uppercase()),
                },
            });
            // The separator may belong to the next id.
            at = number.end();
        }
        ids.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_names_as_in_comments() {
        let patterns = Patterns::new();
        let spelled = |name: &str| patterns.spelled_out(name);
        assert_eq!(spelled("a_rst_resets_sa_est_03_must_12"), "SA-EST-03 MUST-12");
        assert_eq!(spelled("x_sa_fin_wait_1_41"), "SA-FIN_WAIT_1-41");
        assert_eq!(spelled("x_6298_2_6298_3_9293_a"), "6298-2 6298-3 9293-a");
        assert_eq!(spelled("no_id_here_10_times"), "");
        let text = "On 2026-11-28: SA-SYN_RCVD-04, MUST-7 and 5961-10 (CVE-2016-5696).";
        assert_eq!(patterns.ids(text), ["SA-SYN_RCVD-04", "MUST-7", "5961-10"]);
        assert_eq!(patterns.spelled_out("a_flood_threat_1_threat_25"), "THREAT-1 THREAT-25");
        assert_eq!(patterns.spelled_out("numbers_drill_l01_drill_x31"), "DRILL-L01 DRILL-X31");
        assert_eq!(patterns.ids("DRILL-F05 and DRILL-X31, not DRILL-Q11"), ["DRILL-F05", "DRILL-X31"]);
    }

    #[test]
    fn only_tests_count() {
        let mut citations = Citations::default();
        let text = "/// MUST-1\nfn plain() {}\n\n/// MUST-2\n#[test]\nfn a_test_must_3() {}\n";
        citations.add_tests(&Patterns::new(), "x.rs", text);
        assert_eq!(citations.places.keys().collect::<Vec<_>>(), ["MUST-2", "MUST-3"]);
    }
}
