//! The ladder: what happened, as text that a person reads and a test compares.
//!
//! ```text
//!         time  C                                                                          S
//!     0.000000  SYN-SENT      |-- [S] seq 0 win 65535 <mss 1460,sackOK,ts,ws 5> ------->|  LISTEN
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;

use steadfast_core::Instant;
use steadfast_core::trace::State;
use steadfast_core::wire::tcp::Header;

use crate::fault::SightedTcp;
use crate::network::Network;
use crate::record::{Entry, Fate, Segment};
use crate::scenario::{Phase, Scenario};
use steadfast_core::Profile;

/// Width of the space between the two sides.
const FIELD: usize = 64;
/// Width of a state.
const CELL: usize = 12;

/// The heading above all phases.
pub(crate) fn heading(scenario: &Scenario, profile: Profile, kernel: Option<&str>) -> String {
    let kernel = kernel.map_or(String::new(), |host| format!(", {host} is the kernel"));
    format!("{}  {}  [{profile}{kernel}]\n", scenario.id, scenario.title)
}

/// The ladder of one phase.
pub(crate) fn draw(network: &Network, scenario: &Scenario, phase: &Phase) -> String {
    let mut ladder = Ladder::new(network);
    // A router's answer is recorded when it is caused, and shown when it arrives.
    let entries = network.record.entries.iter();
    let mut events: Vec<Event<'_>> =
        entries.clone().flat_map(late).chain(entries.map(Event::Entry)).collect();
    events.sort_by_key(Event::at);
    for event in events {
        match event {
            Event::Entry(entry) => ladder.entry(entry),
            Event::Late(at, segment) => ladder.late(at, segment),
        }
    }
    ladder.flush(None);
    let mut text = String::new();
    if !phase.name.is_empty() {
        text.push_str(&format!("\nphase {}: {}\n", phase.name, phase.title));
    }
    if scenario.ladder_rows == 0 {
        return text;
    }
    text.push('\n');
    text.push_str(&ladder.top());
    let rows = ladder.rows;
    let limit = scenario.ladder_rows;
    if rows.len() <= limit {
        rows.iter().for_each(|row| text.push_str(row));
    } else {
        let (first, last) = (limit * 3 / 4, limit - limit * 3 / 4);
        rows[..first].iter().for_each(|row| text.push_str(row));
        text.push_str(&format!("{:>12}  … {} rows left out …\n", "", rows.len() - limit));
        rows[rows.len() - last..].iter().for_each(|row| text.push_str(row));
    }
    if network.record.unrecorded > 0 {
        text.push_str(&format!("{:>12}  {} packets more were not recorded\n", "", network.record.unrecorded));
    }
    text
}

/// An event that has a row.
enum Event<'a> {
    Entry(&'a Entry),
    /// A delayed packet or a copy arrives.
    Late(Instant, &'a Segment),
}

impl Event<'_> {
    fn at(&self) -> Instant {
        match self {
            Event::Entry(entry) => entry.at(),
            Event::Late(at, _) => *at,
        }
    }
}

/// The arrivals that come later than the path's delay, or as copies. A reader needs a row at that time.
fn late(entry: &Entry) -> impl Iterator<Item = Event<'_>> {
    let segment = if let Entry::Segment(segment) = entry { Some(segment) } else { None };
    segment.into_iter().flat_map(|segment| {
        segment.fates.iter().filter_map(move |fate| match fate {
            Fate::Arrived { at, note } if *at != segment.at && !note.is_empty() => {
                Some(Event::Late(*at, segment))
            }
            _ => None,
        })
    })
}

struct Ladder<'a> {
    network: &'a Network,
    rows: Vec<String>,
    /// The state of each tuple, by host and endpoints.
    states: BTreeMap<(usize, SocketAddr, SocketAddr), State>,
    /// The endpoints of each host's last event.
    latest: Vec<Option<(SocketAddr, SocketAddr)>>,
    listeners: Vec<u32>,
    /// A state change that no row shows yet: its time and its host.
    unseen: Option<(Instant, usize)>,
    /// The last row that is a note, and how many times in a row it came.
    repeated: (String, u32),
}

impl<'a> Ladder<'a> {
    fn new(network: &'a Network) -> Ladder<'a> {
        let hosts = network.hosts.len();
        Ladder {
            network,
            rows: Vec::new(),
            states: BTreeMap::new(),
            latest: vec![None; hosts],
            listeners: vec![0; hosts],
            unseen: None,
            repeated: (String::new(), 0),
        }
    }

    /// Names and addresses of the two sides.
    fn top(&self) -> String {
        let ipv6 = self.network.directory.ipv6;
        let name = |host: usize| {
            let host = &self.network.hosts[host];
            format!("{} {}", host.name, if ipv6 { host.v6 } else { host.v4 })
        };
        let middle = self.cell() + FIELD + 4 - name(0).len().min(self.cell());
        format!("{:>12}  {}{:middle$}{}\n", "time", name(0), "", name(1)).replace(" \n", "\n")
    }

    fn many_hosts(&self) -> bool {
        self.network.hosts.len() > 2
    }

    fn cell(&self) -> usize {
        if self.many_hosts() {
            CELL + 1 + self.network.names.iter().map(String::len).max().unwrap_or(0)
        } else {
            CELL
        }
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Segment(segment) => self.segment(segment),
            Entry::Note { at, host, ends, text } => self.note(*at, *host, *ends, text),
            Entry::Listening { host, on, .. } => {
                let count = &mut self.listeners[*host];
                *count = if *on { *count + 1 } else { count.saturating_sub(1) };
            }
            Entry::State { at, host, tuple, to, .. } => {
                // Two changes of one host in a row: the first gets its own row.
                if self.unseen.is_some_and(|(since, of)| of == *host || since != *at) {
                    self.flush(None);
                }
                let (local, remote) = self.network.record.histories[*host][*tuple].key;
                self.states.insert((*host, local, remote), *to);
                self.latest[*host] = Some((local, remote));
                self.unseen = Some((*at, *host));
            }
        }
    }

    /// Draws a row for a pending state change from before `at`.
    fn flush(&mut self, at: Option<Instant>) {
        if let Some((since, host)) = self.unseen.take_if(|(since, _)| at.is_none_or(|at| at != *since)) {
            let (left, right) = self.sides(host, None);
            self.row(since, left, right, self.latest[host], &" ".repeat(FIELD), "");
        }
    }

    /// Returns the hosts on the left and on the right of a row about `host`.
    fn sides(&self, host: usize, other: Option<usize>) -> (usize, usize) {
        let peer = |host: usize| {
            let (_, remote) = self.latest[host]?;
            self.network.hosts.iter().position(|h| h.v4 == remote.ip() || h.v6 == remote.ip())
        };
        let other = other.or_else(|| peer(host)).unwrap_or(if host == 1 { 0 } else { 1 });
        // S stands on the right. Without S, the host declared later does.
        match (host, other) {
            (1, left) => (left, 1),
            (left, 1) => (left, 1),
            (a, b) => (a.min(b), a.max(b)),
        }
    }

    fn state(&self, host: usize, ends: Option<(SocketAddr, SocketAddr)>) -> String {
        let own = |(a, b): (SocketAddr, SocketAddr)| {
            [(a, b), (b, a)].into_iter().find_map(|(local, remote)| self.states.get(&(host, local, remote)))
        };
        let known = ends.or(self.latest[host]).and_then(own).copied();
        let idle = if self.listeners[host] > 0 { State::Listen } else { State::Closed };
        let state = known.unwrap_or(idle).name();
        if self.many_hosts() { format!("{} {state}", self.network.names[host]) } else { state.to_owned() }
    }

    fn row(
        &mut self,
        at: Instant,
        left: usize,
        right: usize,
        ends: Option<(SocketAddr, SocketAddr)>,
        field: &str,
        note: &str,
    ) {
        let cell = self.cell();
        let (left, right) = (self.state(left, ends), self.state(right, ends));
        let note = if note.is_empty() { String::new() } else { format!("  {note}") };
        let row = format!("{:>12}  {left:<cell$} |{field}| {right:<cell$}{note}", at.to_string());
        let row = row.trim_end();
        if self.repeated.0 == row {
            self.repeated.1 += 1;
            self.rows.pop();
            self.rows.push(format!("{row}  ({} times)\n", self.repeated.1));
        } else {
            self.repeated = (row.to_owned(), 1);
            self.rows.push(format!("{row}\n"));
        }
    }

    fn note(&mut self, at: Instant, host: Option<usize>, ends: Option<(SocketAddr, SocketAddr)>, text: &str) {
        self.flush(Some(at));
        self.unseen = None;
        let Some(host) = host else {
            let field = format!("{:^FIELD$}", format!("* {text} *"));
            let (left, right) = self.sides(0, None);
            self.row(at, left, right, None, &field, "");
            return;
        };
        if ends.is_some() {
            self.latest[host] = ends;
        }
        let (left, right) = self.sides(host, None);
        let text = format!("{}: {text}", self.network.names[host]);
        let field = if host == right {
            format!("{text:>w$} ", w = FIELD - 1)
        } else {
            format!(" {text:<w$}", w = FIELD - 1)
        };
        let ends = self.latest[host];
        self.row(at, left, right, ends, &field, "");
    }

    fn segment(&mut self, segment: &Segment) {
        self.flush(Some(segment.at));
        self.unseen = None;
        let way = self.way(segment);
        let arrived = segment.fates.iter().any(|fate| matches!(fate, Fate::Arrived { .. }));
        let field = arrow(
            &text(segment),
            way.rightward,
            arrived || segment.fates.is_empty(),
            segment.from.is_none() || segment.forged,
        );
        let note = self.remarks(segment);
        self.row(segment.at, way.left, way.right, way.ends, &field, &note);
    }

    /// Draws the end of an arrow that began in an earlier row.
    fn late(&mut self, at: Instant, segment: &Segment) {
        self.flush(Some(at));
        self.unseen = None;
        let way = self.way(segment);
        let text = text(segment);
        let text = text.split(" win ").next().unwrap_or(&text);
        let field = if way.rightward {
            format!("{:>FIELD$}", format!("of {}: {text} -->", segment.at))
        } else {
            format!("{:<FIELD$}", format!("<-- {text}, of {}", segment.at))
        };
        self.row(at, way.left, way.right, way.ends, &field, "");
    }

    /// Returns the hosts and the direction of a segment, and makes its endpoints the latest of its sender.
    fn way(&mut self, segment: &Segment) -> Way {
        let ends = segment.flow.map(|flow| self.network.flows.all[flow].ends).map(|[a, b]| (a, b));
        let host = segment.from.or(segment.to).unwrap_or(0);
        if let (Some((a, b)), Some(from)) = (ends, segment.from.filter(|_| !segment.forged)) {
            let sender = &self.network.hosts[from];
            let own = a.ip() == sender.v4 || a.ip() == sender.v6;
            self.latest[from] = Some(if own { (a, b) } else { (b, a) });
        }
        let other = if segment.from.is_some() { segment.to } else { None };
        let (left, right) = self.sides(host, other);
        let rightward = match segment.from {
            Some(from) => from == left,
            None => segment.to == Some(right),
        };
        Way { left, right, rightward, ends }
    }

    fn remarks(&self, segment: &Segment) -> String {
        let mut remarks = Vec::new();
        if let Some(flow) = segment.flow.filter(|flow| *flow > 0 && self.network.flows.all.len() > 1) {
            remarks.push(format!("#{}", flow + 1));
        }
        if segment.tcp.is_some_and(|(tcp, _)| tcp.again) {
            remarks.push("again".to_owned());
        }
        for fate in &segment.fates {
            match fate {
                Fate::Lost(why) => remarks.push(format!("lost: {why}")),
                Fate::Arrived { note, .. } if note.is_empty() => {}
                Fate::Arrived { at, note } if *at == segment.at => remarks.push(note.clone()),
                Fate::Arrived { at, note } => remarks.push(format!("{note}: arrives {at}")),
            }
        }
        remarks.join("; ")
    }
}

/// The hosts on both sides of a segment's row, and the direction of its arrow.
struct Way {
    left: usize,
    right: usize,
    rightward: bool,
    ends: Option<(SocketAddr, SocketAddr)>,
}

fn text(segment: &Segment) -> String {
    match &segment.tcp {
        Some((tcp, header)) => tcp_text(tcp, header),
        None => segment.text.clone(),
    }
}

/// Draws `-- text ------->`, or its mirror image. The arrow of a lost segment ends in an X; that of a forged one is
/// dotted.
fn arrow(text: &str, rightward: bool, arrived: bool, forged: bool) -> String {
    let line = if forged { "." } else { "-" };
    let length = FIELD.saturating_sub(text.chars().count() + 5).max(1);
    let (shaft, head) = if arrived {
        (line.repeat(length), if rightward { ">" } else { "<" }.to_owned())
    } else {
        let gap = (length / 3).min(8);
        let gap_text = " ".repeat(gap);
        let head = if rightward { format!("X{gap_text}") } else { format!("{gap_text}X") };
        (line.repeat(length - gap), head)
    };
    if rightward {
        format!("{line}{line} {text} {shaft}{head}")
    } else {
        format!("{head}{shaft} {text} {line}{line}")
    }
}

/// Formats a segment as tcpdump does, with relative numbers. Timestamps appear by name only, and only on a SYN.
fn tcp_text(tcp: &SightedTcp, header: &Header) -> String {
    let signed = |n: u32| i64::from(n as i32);
    let mut text = format!("[{}]", header.flags);
    let seq = signed(tcp.seq);
    // An apostrophe marks numbers of the previous incarnation.
    let old = |before: bool| if before { "'" } else { "" };
    let (seq_old, ack_old) = (old(tcp.seq_before), old(tcp.ack_before));
    if tcp.len > 0 {
        text.push_str(&format!(" seq {seq}:{}{seq_old}", seq + tcp.len as i64));
    } else if !header.flags.ack() || header.flags.syn() || header.flags.fin() || header.flags.rst() {
        text.push_str(&format!(" seq {seq}{seq_old}"));
    }
    if header.flags.ack() {
        text.push_str(&format!(" ack {}{ack_old}", signed(tcp.ack)));
    }
    text.push_str(&format!(" win {}", header.window));
    if header.flags.urg() {
        text.push_str(&format!(" urg {}", header.urgent));
    }
    let options = option_text(tcp, header);
    if !options.is_empty() {
        text.push_str(&format!(" <{}>", options.join(",")));
    }
    text
}

fn option_text(tcp: &SightedTcp, header: &Header) -> Vec<String> {
    let options = &header.options;
    let mut all = Vec::new();
    all.extend(options.mss.map(|mss| format!("mss {mss}")));
    if options.sack_permitted {
        all.push("sackOK".to_owned());
    }
    if options.timestamps.is_some() && header.flags.syn() {
        all.push("ts".to_owned());
    }
    all.extend(options.window_scale.map(|shift| format!("ws {shift}")));
    for (left, right) in options.sack.iter() {
        let relative =
            |n: steadfast_core::seq::SeqNum| i64::from((tcp.ack.wrapping_add(n.since(header.ack))) as i32);
        all.push(format!("sack {}:{}", relative(left), relative(right)));
    }
    if let Some(cookie) = &options.fast_open {
        all.push(if cookie.is_request() { "tfo request".to_owned() } else { "tfo cookie".to_owned() });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::seq::SeqNum;
    use steadfast_core::wire::tcp::{Flags, Options};

    #[test]
    fn arrows_have_one_width_and_mark_what_is_lost_or_forged() {
        assert_eq!(arrow("[S] seq 0", true, true, false).len(), FIELD);
        assert_eq!(arrow("[S] seq 0", false, false, true).len(), FIELD);
        assert!(
            arrow("x", true, true, false).starts_with("-- x --")
                && arrow("x", true, true, false).ends_with("->")
        );
        assert!(
            arrow("x", false, true, true).starts_with("<..")
                && arrow("x", false, true, true).ends_with(" x ..")
        );
        let lost = arrow("x", true, false, false);
        assert!(lost.contains("-X ") && !lost.contains('>'));
    }

    #[test]
    fn a_segment_reads_as_tcpdump_writes_it_with_relative_numbers() {
        let mut options =
            Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..Options::default() };
        options.sack.push(SeqNum(5100), SeqNum(5200));
        let header = Header {
            flags: Flags::SYN | Flags::ACK,
            ack: SeqNum(5001),
            window: 1000,
            options,
            ..Header::default()
        };
        let mut tcp = SightedTcp {
            flags: header.flags,
            len: 0,
            seq: 0,
            ack: 1,
            seq_before: false,
            ack_before: true,
            win: 1000,
            source_port: 1,
            destination_port: 2,
            state: State::Closed,
            again: false,
        };
        assert_eq!(tcp_text(&tcp, &header), "[S.] seq 0 ack 1' win 1000 <mss 1460,sackOK,ws 7,sack 100:200>");
        tcp.len = 10;
        tcp.seq = u32::MAX;
        let header = Header { flags: Flags::PSH | Flags::ACK, options: Options::default(), ..header };
        assert_eq!(tcp_text(&tcp, &header), "[P.] seq -1:9 ack 1' win 1000");
    }
}
