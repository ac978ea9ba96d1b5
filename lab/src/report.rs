//! Reports in other forms: JSON lines, JUnit XML and pages.

use serde_json::{Value, json};
use steadfast_timeline::junit::{Case, Suite, Verdict};
use steadfast_timeline::page::Page;

use crate::run::Report;

impl Report {
    /// One JSON object: `id`, `profile`, `seed`, `result` (`pass` or `fail`) and `virtual_seconds`. A failure adds
    /// `reason`; a run against a kernel adds `role`, the host that our stack plays.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "id": self.id,
            "title": self.title,
            "profile": self.profile.name(),
            "seed": self.seed,
            "result": if self.passed() { "pass" } else { "fail" },
            "virtual_seconds": self.virtual_seconds,
            "trace_hash": format!("{:016x}", self.hash),
        });
        if let Some(role) = &self.role {
            object["role"] = json!(role);
        }
        if !self.passed() {
            object["reason"] = json!(self.failures.join("\n"));
        }
        if !self.differences.is_empty() {
            object["differences"] = json!(self.differences);
        }
        object
    }
}

/// A JUnit document with all reports.
pub fn junit(reports: &[Report]) -> String {
    let case = |report: &Report| Case {
        class: report.id.clone(),
        name: format!("{} {} seed {}", report.id, report.profile, report.seed),
        seconds: report.virtual_seconds,
        result: if report.passed() { Verdict::Pass } else { Verdict::Failure },
        message: report.failures.first().cloned().unwrap_or_default(),
        text: report.failures.join("\n"),
    };
    Suite { name: "steadfast lab", cases: reports.iter().map(case).collect() }.to_xml()
}

/// The page of all reports: their connections, each with the name of its run.
pub fn page(reports: &[Report]) -> Page {
    let told = |report: &Report| {
        let result = if report.passed() { "passed" } else { "failed" };
        format!("{} {}, {}: {result}", report.id, report.title, report.profile)
    };
    let mut chapters = Vec::new();
    for report in reports {
        for chapter in &report.chapters {
            let mut chapter = chapter.clone();
            if reports.len() > 1 {
                chapter.set("name", format!("{} {}", report.id, report.profile).into());
                chapter.set("n", (chapters.len() + 1).into());
            }
            chapters.push(chapter);
        }
    }
    let (title, about) = match reports {
        [one] => {
            let result = if one.passed() { "passed" } else { "failed" };
            (
                format!("{} {}", one.id, one.title),
                format!("profile {}, seed {}: {result}", one.profile, one.seed),
            )
        }
        many => {
            let about = many.iter().take(3).map(told).collect::<Vec<_>>().join("; ");
            (format!("{} runs", many.len()), about)
        }
    };
    Page { title, about, chapters, ..Page::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::Profile;

    fn report(failures: &[&str]) -> Report {
        Report {
            id: "H1".into(),
            title: "First SYN lost".into(),
            profile: Profile::Linux,
            seed: 7,
            role: None,
            failures: failures.iter().map(|f| (*f).to_owned()).collect(),
            differences: Vec::new(),
            virtual_seconds: 61.04,
            ladder: String::new(),
            pcap: Vec::new(),
            chapters: Vec::new(),
            hash: 1,
        }
    }

    #[test]
    fn json_says_what_is_promised() {
        let pass = report(&[]).to_json();
        assert_eq!(
            (&pass["id"], &pass["profile"], &pass["seed"]),
            (&json!("H1"), &json!("linux"), &json!(7))
        );
        assert_eq!((&pass["result"], &pass["virtual_seconds"]), (&json!("pass"), &json!(61.04)));
        assert!(pass.get("reason").is_none());
        let fail = report(&["a", "b"]).to_json();
        assert_eq!((&fail["result"], &fail["reason"]), (&json!("fail"), &json!("a\nb")));
    }

    #[test]
    fn junit_counts_failures_and_escapes_what_it_quotes() {
        let text = junit(&[report(&[]), report(&["`wire C>S \"x\" & <y>`"])]);
        assert!(text.contains("tests=\"2\" failures=\"1\""));
        assert!(text.contains("message=\"`wire C&gt;S &quot;x&quot; &amp; &lt;y&gt;`\""));
        assert_eq!(text.matches("<testcase").count(), 2);
    }
}
