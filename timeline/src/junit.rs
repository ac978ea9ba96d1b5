//! Reports for build servers, as JUnit XML.

use std::fmt::Write;

/// A document with one suite of tests.
#[derive(Clone, Debug)]
pub struct Suite<'a> {
    /// The tool that ran the tests.
    pub name: &'a str,
    /// The tests.
    pub cases: Vec<Case>,
}

/// One test.
#[derive(Clone, Debug)]
pub struct Case {
    /// Groups tests of one file or scenario.
    pub class: String,
    /// The name of the test.
    pub name: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How it ended.
    pub result: Verdict,
    /// The reason in one line; empty for a pass.
    pub message: String,
    /// The details.
    pub text: String,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Pass,
    /// It found something wrong.
    Failure,
    /// It could not run.
    Error,
    /// It does not apply.
    Skipped,
}

impl Suite<'_> {
    /// The document.
    pub fn to_xml(&self) -> String {
        let count = |result: Verdict| self.cases.iter().filter(|case| case.result == result).count();
        let head = format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"",
            self.cases.len(),
            count(Verdict::Failure),
            count(Verdict::Error),
            count(Verdict::Skipped)
        );
        let mut out = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {head}>\n");
        let _ = writeln!(out, "  <testsuite name=\"{}\" {head}>", escaped(self.name));
        self.cases.iter().for_each(|case| case.write(&mut out));
        out.push_str("  </testsuite>\n</testsuites>\n");
        out
    }
}

impl Case {
    fn write(&self, out: &mut String) {
        let (class, name, seconds) = (escaped(&self.class), escaped(&self.name), self.seconds);
        let _ = write!(out, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{seconds}\"");
        let tag = match self.result {
            Verdict::Pass => return out.push_str("/>\n"),
            Verdict::Failure => "failure",
            Verdict::Error => "error",
            Verdict::Skipped => "skipped",
        };
        let (message, text) = (escaped(&self.message), escaped(&self.text));
        let _ = writeln!(out, ">\n      <{tag} message=\"{message}\">{text}</{tag}>\n    </testcase>");
    }
}

/// Escapes text for XML, and drops characters that XML cannot represent.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_counts_its_cases_and_escapes_them() {
        let case = |result, message: &str| Case {
            class: "a<b".to_owned(),
            name: "x".to_owned(),
            seconds: 1.5,
            result,
            message: message.to_owned(),
            text: "two\nlines\u{7}".to_owned(),
        };
        let cases =
            vec![case(Verdict::Pass, ""), case(Verdict::Failure, "\"&\""), case(Verdict::Skipped, "no")];
        let text = Suite { name: "lab", cases }.to_xml();
        let head = "tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\"";
        assert_eq!(text.matches(head).count(), 2);
        assert!(text.contains("<testcase classname=\"a&lt;b\" name=\"x\" time=\"1.5\"/>"));
        assert!(text.contains("<failure message=\"&quot;&amp;&quot;\">two&#10;lines</failure>"));
    }
}
