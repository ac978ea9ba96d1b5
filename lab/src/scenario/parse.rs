//! Parses a file into a [`Scenario`]: lines, items, conditions.

use std::sync::Arc;

use steadfast_core::{Config, Profile};

use super::expect::Expectation;
use super::script::{self, App, Call, Start, Step};
use super::topology::{HostSpec, NatSpec, PathSpec};
use super::{Condition, KernelRole, Parts, Phase, Played, Scenario, Stated, Sysctl};
use crate::fault::Fault;
use crate::fault::pattern::is_name;
use crate::text::{ParseError, Understood, Words};

const KEYWORDS: &str = "a keyword: id, name, title, cites, profiles, settings, phase, ip, until, ladder, why, what, host, path, \
                        nat, sysctl, app, fault, expect or kernel";

/// Keywords of the heading with one line each.
const HEADING: [&str; 9] = ["id", "name", "title", "cites", "profiles", "settings", "phase", "ip", "ladder"];

/// The default limit of rows in a ladder.
const LADDER_ROWS: usize = 200;

/// A line with its number, without its comment.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// A line in the first column and the indented lines below it.
struct Item<'a> {
    head: Line<'a>,
    body: Vec<Line<'a>>,
}

pub(super) fn scenario(file: &str, text: &str) -> Result<Scenario, ParseError> {
    let file: Arc<str> = file.into();
    let wrong = |(line, message)| ParseError { file: file.clone(), line, message };
    let mut reader = Reader::new(file.clone());
    for item in items(text).map_err(wrong)? {
        reader.item(&item).map_err(wrong)?;
    }
    reader.finish(text.lines().count().max(1)).map_err(wrong)
}

/// A result whose error has a line number.
type Placed<T> = Result<T, (usize, String)>;

fn items(text: &str) -> Placed<Vec<Item<'_>>> {
    let mut items: Vec<Item<'_>> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let number = index + 1;
        let indent = raw.len() - raw.trim_start().len();
        if raw.contains('\t') {
            return Err((number, "expected blanks, found a tab".to_owned()));
        }
        let blank = raw.trim().is_empty();
        let prose = items.last().is_some_and(|item| matches!(item.head.text, "why" | "what" | "kernel"));
        let prose = prose && (indent > 0 || blank);
        let text = if prose { raw.trim() } else { without_comment(raw).trim() };
        if text.is_empty() && !prose {
            continue;
        }
        let line = Line { number, indent, text };
        match items.last_mut() {
            Some(item) if indent > 0 || blank => item.body.push(line),
            None if indent > 0 => {
                return Err((number, format!("expected {KEYWORDS}, found an indented line")));
            }
            _ => items.push(Item { head: line, body: Vec::new() }),
        }
    }
    Ok(items)
}

fn without_comment(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    line.find(" #").map_or(line, |at| &line[..at])
}

struct Reader {
    scenario: Scenario,
    hosts: Vec<String>,
    /// Hosts that were named before their declaration, with their lines.
    named: Vec<(usize, String)>,
    seen: Vec<String>,
}

impl Reader {
    fn new(file: Arc<str>) -> Reader {
        let scenario = Scenario {
            id: String::new(),
            name: String::new(),
            title: String::new(),
            cites: String::new(),
            profiles: Vec::new(),
            settings: Vec::new(),
            phases: Vec::new(),
            why: String::new(),
            what: String::new(),
            ipv6: false,
            kernel: Vec::new(),
            ladder_rows: LADDER_ROWS,
            file,
            parts: Parts::default(),
        };
        Reader { scenario, hosts: vec!["C".to_owned(), "S".to_owned()], named: Vec::new(), seen: Vec::new() }
    }

    fn item(&mut self, item: &Item<'_>) -> Placed<()> {
        let line = item.head.number;
        let here = |message| (line, message);
        let (condition, text) = self.condition(item.head.text).map_err(here)?;
        let mut words = Words::new(text);
        let keyword = words.word(KEYWORDS).map_err(here)?;
        if let (Some(below), true) = (item.body.first(), HEADING.contains(&keyword)) {
            return Err((below.number, format!("expected nothing indented below `{keyword}`")));
        }
        if self.heading(keyword, &mut words, item).map_err(here)? {
            return if condition == Condition::default() {
                Ok(())
            } else {
                Err((line, format!("expected no condition before `{keyword}`")))
            };
        }
        match keyword {
            "until" => {
                let at = words.time("a time").and_then(|at| words.end().map(|()| at)).map_err(here)?;
                self.scenario.parts.until.push((condition, at));
                no_body(item)
            }
            "host" | "path" | "nat" => {
                self.topology(keyword, condition, &mut words, line).map_err(here)?;
                no_body(item)
            }
            "app" => self.app(condition, &mut words, item),
            "kernel" => words.end().map_err(here).and_then(|()| self.kernel(item)),
            "sysctl" | "fault" | "expect" => self.entries(keyword, &condition, &mut words, item),
            other => Err((line, format!("expected {KEYWORDS}, found `{other}`"))),
        }
    }

    /// Strips a leading `[…]`.
    fn condition<'a>(&self, text: &'a str) -> Understood<(Condition, &'a str)> {
        let mut condition = Condition::default();
        let Some(rest) = text.strip_prefix('[') else { return Ok((condition, text)) };
        let (names, rest) = rest.split_once(']').ok_or("expected `]` after the condition")?;
        for name in names.split_whitespace() {
            let (name, wanted) = name.strip_prefix('!').map_or((name, true), |name| (name, false));
            if let Ok(profile) = name.parse::<Profile>() {
                condition.profiles.push((profile, wanted));
            } else if self.scenario.phases.iter().any(|phase| phase.name == name) {
                condition.phases.push((name.to_owned(), wanted));
            } else if let Some(played) = played(name) {
                condition.kernels.push((played, wanted));
            } else {
                return Err(format!(
                    "expected a profile, a phase declared above, `kernel` or `HOST=kernel`, found `{name}`"
                ));
            }
        }
        if condition == Condition::default() {
            return Err("expected a profile, a phase or `kernel` between `[` and `]`".to_owned());
        }
        Ok((condition, rest.trim()))
    }

    /// Parses an item of the heading. Returns false if the keyword is not one of these.
    fn heading(&mut self, keyword: &str, words: &mut Words<'_>, item: &Item<'_>) -> Understood<bool> {
        let prose = matches!(keyword, "why" | "what");
        if !prose && !HEADING.contains(&keyword) {
            return Ok(false);
        }
        if keyword != "phase" {
            if self.seen.iter().any(|seen| seen == keyword) {
                return Err(format!("expected `{keyword}` once only"));
            }
            self.seen.push(keyword.to_owned());
        }
        let scenario = &mut self.scenario;
        match keyword {
            "id" => {
                scenario.id = words
                    .parse("an id such as `H1b`: a letter, then letters, digits, `-` and `_`", |w| {
                        is_name(w).then(|| w.to_owned())
                    })?
            }
            "name" => {
                scenario.name =
                    words.parse("a name such as `syn-lost-every`", |w| is_spoken(w).then(|| w.to_owned()))?
            }
            "title" => scenario.title = words.rest().to_owned(),
            "cites" => scenario.cites = words.rest().to_owned(),
            "why" => scenario.why = prose_of(words, item),
            "what" => scenario.what = prose_of(words, item),
            "profiles" => {
                while !words.is_empty() {
                    let profile =
                        words.parse("a profile: default, linux, bsd, rfc or freebsd", |w| w.parse().ok())?;
                    scenario.profiles.push(profile);
                }
            }
            "settings" => {
                while !words.is_empty() {
                    let known = |w: &str| Config::setting(w).map(|s| s.short_name().to_owned());
                    scenario.settings.push(words.parse("a setting such as `tcp_syn_retries`", known)?);
                }
            }
            "phase" => {
                let free = |w: &str| is_name(w) && w != "kernel" && w.parse::<Profile>().is_err();
                let name = words.parse("the name of a phase", |w| free(w).then(|| w.to_owned()))?;
                if scenario.phases.iter().any(|phase| phase.name == name) {
                    return Err(format!("expected another name: there is a phase `{name}` already"));
                }
                scenario.phases.push(Phase { name, title: words.rest().to_owned() });
            }
            "ip" => {
                scenario.ipv6 = words.parse("`4` or `6`", |w| matches!(w, "4" | "6").then_some(w == "6"))?
            }
            _ => {
                scenario.ladder_rows = words.parse("how many rows, or `off`", |w| {
                    if w == "off" { Some(0) } else { w.parse().ok() }
                })?;
            }
        }
        words.end().map(|()| true)
    }

    fn topology(
        &mut self,
        keyword: &str,
        condition: Condition,
        words: &mut Words<'_>,
        line: usize,
    ) -> Understood<()> {
        match keyword {
            "host" => {
                let host = HostSpec::parse(words)?;
                if !self.hosts.contains(&host.name) {
                    self.hosts.push(host.name.clone());
                }
                self.scenario.parts.hosts.push((condition, host));
            }
            "path" => {
                let path = PathSpec::parse(words)?;
                self.named.extend(path.direction.hosts().into_iter().map(|h| (line, h.to_owned())));
                self.scenario.parts.paths.push((condition, path));
            }
            _ => {
                let nat = NatSpec::parse(words)?;
                let forwards = nat.forwards.iter().map(|(_, host, _)| host);
                self.named.extend(nat.inside.iter().chain(forwards).map(|h| (line, h.clone())));
                self.scenario.parts.nats.push((condition, nat));
            }
        }
        words.end()
    }

    /// Parses the entries of `sysctl`, `fault` or `expect`: one on the same line, and one on each indented line.
    fn entries(
        &mut self,
        keyword: &str,
        outer: &Condition,
        words: &mut Words<'_>,
        item: &Item<'_>,
    ) -> Placed<()> {
        if words.is_empty() && item.body.is_empty() {
            return Err((
                item.head.number,
                format!("expected something after `{keyword}`, or indented below it"),
            ));
        }
        if !words.is_empty() {
            self.entry(keyword, outer.clone(), words.rest(), item.head.number)
                .map_err(|m| (item.head.number, m))?;
        }
        for line in &item.body {
            let (condition, text) = self.condition(line.text).map_err(|m| (line.number, m))?;
            self.entry(keyword, both(outer, condition), text, line.number).map_err(|m| (line.number, m))?;
        }
        Ok(())
    }

    fn entry(&mut self, keyword: &str, condition: Condition, text: &str, line: usize) -> Understood<()> {
        let parts = &mut self.scenario.parts;
        match keyword {
            "fault" => {
                let fault = Fault::read(text)?;
                self.named.extend(fault.hosts().into_iter().map(|h| (line, h.to_owned())));
                parts.faults.push((condition, fault));
            }
            "sysctl" => {
                let sysctl = sysctl(text)?;
                self.named.extend(sysctl.host.iter().map(|h| (line, h.clone())));
                parts.sysctls.push((condition, sysctl));
            }
            _ => {
                let expectation = Expectation::parse(text)?;
                self.named.extend(expectation.hosts().into_iter().map(|h| (line, h.to_owned())));
                parts.expectations.push((condition, Stated { line, text: text.to_owned(), expectation }));
            }
        }
        Ok(())
    }

    /// Parses `S: a difference` and `not C: a reason`. Both may continue on the lines below.
    fn kernel(&mut self, item: &Item<'_>) -> Placed<()> {
        for line in item.body.iter().filter(|line| !line.text.is_empty()) {
            let (not, text) = line.text.strip_prefix("not ").map_or((false, line.text), |rest| (true, rest));
            let named = text.split_once(':').filter(|(host, _)| is_name(host));
            let roles = &mut self.scenario.kernel;
            let Some((host, text)) = named.map(|(host, text)| (host.to_owned(), text.trim().to_owned()))
            else {
                let last = roles.last_mut();
                let last = last.and_then(|role| role.not.as_mut().or(role.differences.last_mut()));
                let last = last.ok_or((line.number, "expected `HOST:` or `not HOST:`".to_owned()))?;
                *last = format!("{last} {text}");
                continue;
            };
            self.named.push((line.number, host.clone()));
            if !roles.iter().any(|role| role.host == host) {
                roles.push(KernelRole { host: host.clone(), ..KernelRole::default() });
            }
            let at = roles.iter().position(|role| role.host == host).unwrap_or(0);
            // The last role in the list is the one that continuation lines extend.
            let mut role = roles.remove(at);
            match not {
                true => role.not = Some(text),
                false if text.is_empty() => {}
                false => role.differences.push(text),
            }
            roles.push(role);
        }
        self.scenario.kernel.sort_by(|a, b| a.host.cmp(&b.host));
        Ok(())
    }

    fn app(&mut self, condition: Condition, words: &mut Words<'_>, item: &Item<'_>) -> Placed<()> {
        let here = |message| (item.head.number, message);
        let host = words.parse("the name of a host", |w| is_name(w).then(|| w.to_owned())).map_err(here)?;
        let start = if words.take("rebooted") {
            Start::Rebooted
        } else if words.take("always") {
            Start::Always
        } else {
            Start::First
        };
        words.end().map_err(here)?;
        self.named.push((item.head.number, host.clone()));
        let mut lines = item.body.iter().peekable();
        let indent = item.body.first().map_or(0, |line| line.indent);
        let steps = self.steps(&mut lines, indent)?;
        if let Some(line) = lines.next() {
            return Err((line.number, "expected the same indentation as the steps above".to_owned()));
        }
        if steps.is_empty() {
            return Err((item.head.number, "expected steps, indented below `app`".to_owned()));
        }
        self.scenario.parts.apps.push((condition, App { host, start, steps }));
        Ok(())
    }

    fn steps<'a, 'b: 'a>(
        &self,
        lines: &mut std::iter::Peekable<impl Iterator<Item = &'a Line<'b>>>,
        indent: usize,
    ) -> Placed<Vec<Step>> {
        let mut steps: Vec<Step> = Vec::new();
        while let Some(&line) = lines.peek() {
            let number = line.number;
            let here = |message| (number, message);
            let (condition, text) = self.condition(line.text).map_err(here)?;
            if let Some(outcome) = text.strip_prefix("=>") {
                let outcome = script::outcome(outcome).map_err(here)?;
                let step =
                    last_step(&mut steps).ok_or((number, "expected a step before its outcome".to_owned()))?;
                step.outcomes.push((condition, outcome));
                lines.next();
                continue;
            }
            if line.indent < indent {
                break;
            }
            if line.indent > indent {
                let Some(Step { call: Call::Repeat { body, .. }, .. }) = steps.last_mut() else {
                    return Err((number, "expected the same indentation as the step above".to_owned()));
                };
                *body = self.steps(lines, line.indent)?;
                continue;
            }
            let (call, outcome) =
                text.split_once("=>").map_or((text, None), |(call, o)| (call.trim(), Some(o)));
            let mut step = script::step(number, condition, call).map_err(here)?;
            if let Some(outcome) = outcome {
                step.outcomes.push((Condition::default(), script::outcome(outcome).map_err(here)?));
            }
            steps.push(step);
            lines.next();
        }
        Ok(steps)
    }

    fn finish(mut self, last_line: usize) -> Placed<Scenario> {
        for (missing, name) in
            [(self.scenario.id.is_empty(), "id"), (self.scenario.title.is_empty(), "title")]
        {
            if missing {
                return Err((
                    last_line,
                    format!("expected `{name}` somewhere above, found the end of the file"),
                ));
            }
        }
        if let Some((line, host)) = self.named.iter().find(|(_, host)| !self.hosts.contains(host)) {
            return Err((
                *line,
                format!("expected one of the hosts {}, found `{host}`", self.hosts.join(", ")),
            ));
        }
        if self.scenario.profiles.is_empty() {
            self.scenario.profiles.push(Profile::Default);
        }
        if self.scenario.phases.is_empty() {
            self.scenario.phases.push(Phase::default());
        }
        Ok(self.scenario)
    }
}

fn no_body(item: &Item<'_>) -> Placed<()> {
    match item.body.first() {
        None => Ok(()),
        Some(line) => Err((line.number, "expected a line that starts in the first column".to_owned())),
    }
}

/// Returns whether a text is lower-case words with hyphens between them.
fn is_spoken(text: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split('-').all(word)
}

fn prose_of(words: &mut Words<'_>, item: &Item<'_>) -> String {
    let mut text = words.rest().to_owned();
    for line in &item.body {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line.text);
    }
    text.trim().to_owned()
}

fn both(outer: &Condition, inner: Condition) -> Condition {
    let mut condition = outer.clone();
    condition.profiles.extend(inner.profiles);
    condition.phases.extend(inner.phases);
    condition.kernels.extend(inner.kernels);
    condition
}

/// Parses `kernel` or `S=kernel`.
fn played(text: &str) -> Option<Played> {
    match text.split_once('=') {
        None => (text == "kernel").then_some(Played::Any),
        Some((host, "kernel")) => is_name(host).then(|| Played::Host(host.to_owned())),
        Some(_) => None,
    }
}

fn sysctl(text: &str) -> Understood<Sysctl> {
    let before = text.split('=').next().unwrap_or("");
    match *before.split_whitespace().collect::<Vec<_>>() {
        [host, _] => {
            let host_name = if host == "*" { None } else { Some(host.to_owned()) };
            Sysctl::new(host_name, text.trim()[host.len()..].trim())
        }
        _ => Sysctl::new(None, text),
    }
}

/// Returns the last parsed step, at any depth.
fn last_step(steps: &mut [Step]) -> Option<&mut Step> {
    let step = steps.last_mut()?;
    let inside = matches!(&step.call, Call::Repeat { body, .. } if !body.is_empty());
    if !inside {
        return Some(step);
    }
    match &mut step.call {
        Call::Repeat { body, .. } => last_step(body),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
