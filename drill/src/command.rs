//! Commands in backticks. They are interpreted, never executed: settings and queries go to the subject of the run.

mod sysctl;

use std::net::IpAddr;

use steadfast_core::PathMetrics;
use steadfast_core::time::Duration;
use steadfast_core::trace::State;

use super::subject::{Listed, Subject};
pub(crate) use sysctl::apply;

/// The effect of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Remarks on settings without a counterpart here.
    pub(crate) notes: Vec<String>,
    /// The duration of the command.
    pub(crate) takes: Duration,
}

/// Why a command was not carried out, or how it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Skip(String),
    /// Its assertion does not hold.
    Failed(String),
}

/// Reads a set-up script, given the path in the command.
pub(crate) type Files<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Limit of the nesting of set-up scripts.
const DEPTH: usize = 4;

/// Runs a command line, which may hold several commands.
pub(crate) fn run(text: &str, subject: &mut dyn Subject, files: Files<'_>) -> Result<Done, Refused> {
    let mut done = Done::default();
    Runner { subject, files, done: &mut done }.commands(text, 0)?;
    Ok(done)
}

struct Runner<'a> {
    subject: &'a mut dyn Subject,
    files: Files<'a>,
    done: &'a mut Done,
}

impl Runner<'_> {
    fn commands(&mut self, text: &str, depth: usize) -> Result<(), Refused> {
        let joined = expanded(&text.replace("\\\n", " "));
        for line in joined.lines() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if line.starts_with('#') {
                continue;
            }
            for command in line.split(';').flat_map(|part| part.split("&&")) {
                if !command.trim().is_empty() {
                    self.command(command.trim(), depth)?;
                }
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &str, depth: usize) -> Result<(), Refused> {
        if let Some((ask, filters)) = command.split_once('|') {
            return self.pipeline(command, ask.trim(), filters);
        }
        let words = words(command);
        let words = if words.first().is_some_and(|word| word == "echo") { words } else { plain(words) };
        let Some((first, arguments)) = words.split_first() else { return Ok(()) };
        let name = first.rsplit('/').next().unwrap_or(first);
        let unknown = || Refused::Skip(format!("the command `{command}` is not interpreted"));
        match name {
            "sysctl" => self.sysctl(arguments),
            "set_sysctls.py" => self.sysctl(arguments),
            "true" | ":" | "sync" | "set" | "exit" | "cd" => Ok(()),
            "echo" => match arguments {
                [value, arrow, path] if arrow == ">" && path.starts_with("/proc/sys/") => {
                    self.sysctl(&[format!("{path}={value}")])
                }
                // Bit 0 is the train of ACKs, bit 1 the delay, which HyStart++ watches.
                [value, arrow, path] if arrow == ">" && path.ends_with("/hystart_detect") => {
                    self.set("steadfast.tcp_hystart_detect", value)
                }
                [value, arrow, path] if arrow == ">" && path.ends_with("tcp_cubic/parameters/hystart") => {
                    self.set("steadfast.tcp_hystart", value)
                }
                _ if arguments.iter().any(|word| word.starts_with('>')) => Err(unknown()),
                _ => Ok(()),
            },
            "sleep" => match arguments.first().and_then(|time| time.parse::<f64>().ok()) {
                Some(time) if (0.0..1e6).contains(&time) => {
                    self.done.takes += Duration::from_secs_f64(time);
                    Ok(())
                }
                _ => Err(unknown()),
            },
            "tc" => self.traffic_control(command, arguments),
            // The device has no offloads, and no metrics of earlier connections are kept.
            "ethtool" | "nstat" | "modprobe" | "kldload" | "kldunload" => {
                self.done.notes.push(format!("`{command}` has no counterpart"));
                Ok(())
            }
            "rm" | "dd" if first.starts_with("/bin/") => Ok(()),
            "kldstat" | "setkey" | "tcpdrop" => Ok(()),
            // A set-up program would have written it, to put everything back.
            _ if name.ends_with(".sh") && first.contains("${PPID}") => Ok(()),
            "ip" => self.ip(command, arguments),
            _ if name.ends_with(".sh") || name.ends_with(".py") => {
                let script = (self.files)(first).filter(|_| depth < DEPTH && name.ends_with(".sh"));
                match script {
                    Some(script) => self.commands(&script, depth + 1),
                    None => Err(unknown()),
                }
            }
            _ => Err(unknown()),
        }
    }

    /// A queue of no length refuses every packet. Any other takes them, and has no counterpart here.
    // DRILL-L11
    fn traffic_control(&mut self, command: &str, arguments: &[String]) -> Result<(), Refused> {
        let refuses = arguments.ends_with(&["pfifo", "limit", "0"].map(str::to_owned));
        if !refuses {
            self.done.notes.push(format!("`{command}` has no counterpart"));
        }
        self.subject.refuse_packets(refuses).map_err(Refused::Skip)
    }

    /// Runs `ip route add|change|replace` and `ip tcp_metrics flush`. Metrics of earlier connections are not kept.
    // DRILL-L10
    fn ip(&mut self, command: &str, arguments: &[String]) -> Result<(), Refused> {
        let unknown = || Refused::Skip(format!("the command `{command}` is not interpreted"));
        let ipv6 = arguments.first().is_some_and(|word| word == "-6");
        let version = ipv6 || arguments.first().is_some_and(|word| word == "-4");
        let arguments = &arguments[usize::from(version)..];
        match arguments.first().map(String::as_str) {
            Some("tcp_metrics") => {
                self.subject.forget_peers();
                Ok(())
            }
            Some("route") => {
                let [_, verb, network, words @ ..] = arguments else { return Err(unknown()) };
                let (network, prefix_len) = network_of(network, ipv6).ok_or_else(unknown)?;
                let path = path_of(words).ok_or_else(unknown)?;
                if !matches!(verb.as_str(), "add" | "change" | "replace") {
                    return Err(unknown());
                }
                self.subject.set_path(network, prefix_len, path).map_err(Refused::Skip)
            }
            _ => Err(unknown()),
        }
    }

    fn sysctl(&mut self, arguments: &[String]) -> Result<(), Refused> {
        // With `-e` unknown names are ignored.
        let forgives = arguments.iter().any(|word| word.starts_with('-') && word.contains('e'));
        // `name = value` may be one word or three.
        let text =
            arguments.iter().filter(|word| !word.starts_with('-')).cloned().collect::<Vec<_>>().join("\u{1}");
        let text = text.replace("\u{1}=\u{1}", "=").replace("=\u{1}", "=");
        for assignment in text.split('\u{1}').filter(|word| !word.is_empty()) {
            // Without a value, the command prints the current one.
            let Some((name, value)) = assignment.split_once('=') else { continue };
            let name = name.strip_prefix("/proc/sys/").unwrap_or(name).replace('/', ".");
            match self.set(&name, value.trim()) {
                Err(Refused::Skip(reason)) if forgives => self.done.notes.push(reason),
                result => result?,
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        let note = self.subject.set(name, value).map_err(Refused::Skip)?;
        self.done.notes.extend(note);
        Ok(())
    }

    /// Runs a listing of sockets or counters, and the filters behind it: `sockstat … | grep -c ESTABLISHED | grep 1`,
    /// `nstat | grep -x "ListenDrops 2"`.
    fn pipeline(&mut self, command: &str, ask: &str, filters: &str) -> Result<(), Refused> {
        let unknown = || Refused::Skip(format!("the command `{command}` is not interpreted"));
        let name = ask.split_whitespace().next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or(name);
        let asked = plain(words(ask));
        let of_file = name == "grep" && asked.iter().any(|word| word.starts_with("/proc/net/tcp"));
        if !of_file && !matches!(name, "sockstat" | "netstat" | "ss" | "nstat") {
            return Err(unknown());
        }
        if name == "nstat" && self.is_unknown_counter(filters) {
            self.done.notes.push(format!("`{command}` has no counterpart"));
            return Ok(());
        }
        let listed = self.listing(name, &asked[1..]).ok_or_else(unknown)?;
        let mut lines = listed.clone();
        if of_file {
            let pattern: Vec<_> = asked.into_iter().filter(|word| !word.starts_with("/proc/")).collect();
            lines = filtered(&pattern, lines).ok_or_else(unknown)?;
        }
        for filter in filters.split('|') {
            lines = filtered(&plain(words(filter.trim())), lines).ok_or_else(unknown)?;
        }
        if lines.is_empty() || lines == ["0"] && !filters.contains("grep -c") {
            let shown = listed.into_iter().filter(|line| !line.ends_with(" 0"));
            let shown = shown.collect::<Vec<_>>().join("; ");
            let shown = if shown.is_empty() { "there is nothing" } else { &shown };
            return Err(Refused::Failed(format!("`{command}` finds nothing: {shown}")));
        }
        Ok(())
    }

    /// Whether filters ask for a counter of Linux, by its name alone, that is not kept.
    fn is_unknown_counter(&self, filters: &str) -> bool {
        let words = plain(words(filters));
        let [grep, name] = words.as_slice() else { return false };
        let plain = name.strip_prefix("TcpExt").unwrap_or(name);
        let counters = self.subject.counters().unwrap_or_default();
        grep == "grep" && !counters.iter().any(|(known, _)| known.contains(plain))
    }

    /// The lines of a listing. `None` if the subject has no such list.
    fn listing(&self, command: &str, arguments: &[String]) -> Option<Vec<String>> {
        if command == "nstat" {
            let counters = self.subject.counters()?;
            return Some(counters.iter().map(|(name, value)| format!("{name} {value}")).collect());
        }
        let mut entries = self.subject.sockets();
        if command != "sockstat" {
            entries.retain(|entry| entry.state != State::Closed);
        }
        let port = arguments.iter().position(|word| word == "-p").and_then(|at| arguments.get(at + 1));
        if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()).filter(|_| command == "sockstat") {
            entries.retain(|entry| [entry.local.port(), entry.remote.port()].contains(&port));
        }
        Some(entries.iter().map(|entry| listed(command, entry)).collect())
    }
}

/// The line of a socket.
fn listed(command: &str, entry: &Listed) -> String {
    let family = if entry.local.is_ipv4() { "tcp4" } else { "tcp6" };
    let (local, remote) = (entry.local, entry.remote);
    match (command, entry.fd) {
        ("ss", _) => format!("{family} {local} {remote} {}", entry.state.ss_name()),
        // Ports and states of /proc/net/tcp are hexadecimal.
        ("grep", _) => {
            let number = entry.state.linux_number();
            format!("0: 0:{:04X} 0:{:04X} {number:02X} 0:0", local.port(), remote.port())
        }
        // The name of the program fills ten letters.
        ("sockstat", Some(fd)) => {
            format!("root packetdril 100 {fd} {family} {local} {remote} {}", bsd_name(entry.state))
        }
        ("sockstat", None) => format!("? ? ? ? {family} {local} {remote} {}", bsd_name(entry.state)),
        _ => format!("{family} {local} {remote} {}", bsd_name(entry.state)),
    }
}

/// The words of a command without redirections of its output, which mean nothing here.
fn plain(words: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let target = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '&');
        match target.strip_prefix('>') {
            // The name of the file follows.
            Some("" | ">") => drop(words.next()),
            Some(_) => {}
            None => kept.push(word),
        }
    }
    kept
}

fn bsd_name(state: State) -> String {
    match state {
        State::SynReceived => "SYN_RCVD".to_owned(),
        State::FinWait1 => "FIN_WAIT_1".to_owned(),
        State::FinWait2 => "FIN_WAIT_2".to_owned(),
        other => other.name().replace('-', "_"),
    }
}

/// Applies a `grep`. `None` for an unknown command or option.
fn filtered(words: &[String], lines: Vec<String>) -> Option<Vec<String>> {
    let (name, arguments) = words.split_first()?;
    if name != "grep" {
        return None;
    }
    let (flags, patterns): (Vec<_>, Vec<_>) = arguments.iter().partition(|word| word.starts_with('-'));
    let flags: String = flags.iter().flat_map(|flag| flag.chars()).filter(|c| *c != '-').collect();
    let [pattern] = patterns.as_slice() else { return None };
    let plain = flags.contains('F') || !pattern.contains(['[', ']', '*', '\\', '(', '+']);
    if flags.chars().any(|c| !"cqvwxiEF".contains(c)) || !plain {
        return None;
    }
    let alternatives: Vec<&str> =
        if flags.contains('E') { pattern.split('|').collect() } else { vec![pattern.as_str()] };
    let folds = flags.contains('i');
    let fold = |text: &str| if folds { text.to_lowercase() } else { text.to_owned() };
    let matches = |line: &str, one: &str| {
        let (line, one) = (fold(line), fold(one));
        match (one.strip_prefix('^'), one.strip_suffix('$')) {
            _ if flags.contains('x') => line == one,
            (Some(start), None) => line.starts_with(start),
            (None, Some(end)) => line.ends_with(end),
            (Some(start), Some(_)) => line == start[..start.len().saturating_sub(1)],
            (None, None) => line.contains(&one),
        }
    };
    let found = |line: &String| alternatives.iter().any(|one| matches(line, one)) != flags.contains('v');
    let kept: Vec<_> = lines.into_iter().filter(found).collect();
    Some(if flags.contains('c') { vec![kept.len().to_string()] } else { kept })
}

/// Reads `192.0.2.1`, `192.0.2.0/24` or `default`.
fn network_of(text: &str, ipv6: bool) -> Option<(IpAddr, u8)> {
    if text == "default" {
        return Some((if ipv6 { [0; 16].into() } else { [0; 4].into() }, 0));
    }
    let (address, prefix_len) =
        text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    Some((address, prefix_len.map_or(Some(longest), |len| len.parse().ok())?))
}

/// Reads the properties of a path in the words of a route. The device and the gateway are those of the run.
fn path_of(words: &[String]) -> Option<PathMetrics> {
    let mut path = PathMetrics::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(name) = words.next() {
        match (name, words.next()?) {
            ("dev" | "via" | "src" | "proto" | "scope", _) => {}
            ("mtu", "lock") => (path.mtu, path.mtu_lock) = (words.next()?.parse().ok()?, true),
            ("mtu", mtu) => path.mtu = mtu.parse().ok()?,
            ("advmss", mss) => path.advmss = mss.parse().ok()?,
            ("initcwnd", segments) => path.initcwnd = segments.parse().ok()?,
            _ => return None,
        }
    }
    Some(path)
}

/// Replaces each `$((…))` by its value. Anything but a sum of products is left unchanged.
fn expanded(text: &str) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, (expression, after))) =
        rest.split_once("$((").and_then(|(before, rest)| Some((before, rest.split_once("))")?)))
    {
        expanded.push_str(before);
        match value(expression) {
            Some(value) => expanded.push_str(&value.to_string()),
            None => expanded.push_str(&format!("$(({expression}))")),
        }
        rest = after;
    }
    expanded.push_str(rest);
    expanded
}

/// Evaluates a sum of products.
fn value(expression: &str) -> Option<i64> {
    let product = |term: &str| {
        let mut factors = term.split('*').map(|factor| factor.trim().parse::<i64>().ok());
        factors.try_fold(1_i64, |product, factor| product.checked_mul(factor?))
    };
    expression.split('+').map(product).try_fold(0_i64, |sum, term| sum.checked_add(term?))
}

/// Splits a command into words; quoted text is one word.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut begun = false;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests;
