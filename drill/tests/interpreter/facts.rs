//! Facts on which scripts of others rest: each script of `tests/facts` passes under the profile that its first line names, and
//! each id of the family has a script.
//!
//! `FACTS=FOLDER cargo test -p steadfast-drill --test interpreter facts` runs the scripts of another folder.
//!
//! The first line is `// DRILL-L01, profile linux. A sentence.`, or with a definition `…, profile freebsd, -D FreeBSD.`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use steadfast_core::Profile;
use steadfast_drill::{DrillOptions, Verdict, run_script};

/// The profile and the definitions that the first line of a script names.
fn named(text: &str) -> Option<(Profile, BTreeMap<String, String>)> {
    let (head, _) = text.lines().next()?.strip_prefix("// ")?.split_once('.')?;
    let mut parts = head.split(", ").skip(1);
    let profile = parts.next()?.strip_prefix("profile ")?.parse().ok()?;
    let defined = parts.map(|part| part.strip_prefix("-D ").map(|name| (name.to_owned(), "1".to_owned())));
    Some((profile, defined.collect::<Option<_>>()?))
}

#[test]
fn every_script_passes_under_the_profile_that_it_names() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/facts");
    let folder = std::env::var_os("FACTS").map_or(own, PathBuf::from);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut wrong = Vec::new();
    for path in &paths {
        let (name, text) = (path.file_name().unwrap().to_string_lossy(), fs::read_to_string(path).unwrap());
        let Some((profile, defines)) = named(&text) else {
            wrong.push(format!("{name}: the first line names no id and profile"));
            continue;
        };
        let outcome = run_script(&text, &DrillOptions { profile, defines, ..DrillOptions::default() });
        if outcome.verdict != Verdict::Pass {
            let line = outcome.at.map_or(0, |at| at.line);
            let (verdict, reason) = (outcome.verdict.name(), &outcome.reason);
            wrong.push(format!("{name}:{line}: {verdict}: {reason}\n{}{}", outcome.details, outcome.ladder));
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong\n{}", wrong.len(), paths.len(), wrong.join("\n"));
}
