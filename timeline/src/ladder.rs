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

use crate::Timeline;
use crate::event::{Event, Fate, Packet, Segment};

/// Width of the space between the two sides.
const FIELD: usize = 64;
/// Width of a state.
const CELL: usize = 12;

/// Draws a timeline. Beyond `limit` rows, those in the middle are left out.
pub fn draw(timeline: &Timeline, limit: usize) -> String {
    let mut ladder = Ladder::new(timeline);
    // A router's answer is recorded when it is caused, and shown when it arrives.
    let events = timeline.events.iter().filter(|event| !matches!(event, Event::Info { .. }));
    let mut shown: Vec<Shown<'_>> = events.clone().flat_map(late).chain(events.map(Shown::Event)).collect();
    shown.sort_by_key(Shown::at);
    for one in shown {
        match one {
            Shown::Event(event) => ladder.event(event),
            Shown::Late(at, packet) => ladder.late(at, packet),
        }
    }
    ladder.flush(None);
    let mut text = ladder.top();
    let first = limit * 3 / 4;
    text.extend(clipped(&ladder.rows, first, limit - first));
    if timeline.unrecorded > 0 {
        text.push_str(&format!("{:>12}  {} packets more were not recorded\n", "", timeline.unrecorded));
    }
    text
}

/// The first and the last rows, and between them how many are left out.
pub fn clipped(rows: &[String], first: usize, last: usize) -> impl Iterator<Item = String> {
    let left_out = rows.len().saturating_sub(first + last);
    let gap = (left_out > 0).then(|| format!("{:>12}  … {left_out} rows left out …\n", ""));
    let (head, rest) = rows.split_at(rows.len().min(first));
    let tail = &rest[left_out.min(rest.len())..];
    head.iter().cloned().chain(gap).chain(tail.iter().cloned())
}

/// An event that has a row.
enum Shown<'a> {
    Event(&'a Event),
    /// A delayed packet or a copy arrives.
    Late(Instant, &'a Packet),
}

impl Shown<'_> {
    fn at(&self) -> Instant {
        match self {
            Shown::Event(event) => event.at(),
            Shown::Late(at, _) => *at,
        }
    }
}

/// The arrivals that come later than the path's delay, or as copies. A reader needs a row at that time.
fn late(event: &Event) -> impl Iterator<Item = Shown<'_>> {
    let packet = if let Event::Packet(packet) = event { Some(packet) } else { None };
    packet.into_iter().flat_map(|packet| {
        packet.fates.iter().filter_map(move |fate| match fate {
            Fate::Arrived { at, note } if *at != packet.at && !note.is_empty() => {
                Some(Shown::Late(*at, packet))
            }
            _ => None,
        })
    })
}

/// Whether an event tells the state of a connection, or that there is none yet. Datagrams have no states.
fn tells_states(event: &Event) -> bool {
    matches!(event, Event::State { .. } | Event::Listening { .. })
}

struct Ladder<'a> {
    timeline: &'a Timeline,
    rows: Vec<String>,
    /// The state of each tuple, by host and endpoints.
    states: BTreeMap<(usize, SocketAddr, SocketAddr), State>,
    /// The endpoints of each host's last event.
    latest: Vec<Option<(SocketAddr, SocketAddr)>>,
    listeners: Vec<u32>,
    /// The timeline is of stacks. Packets alone do not tell the states of their ends.
    knows_states: bool,
    /// A state change that no row shows yet: its time and its host.
    unseen: Option<(Instant, usize)>,
    /// The last row that is a note, and how many times in a row it came.
    repeated: (String, u32),
}

impl<'a> Ladder<'a> {
    fn new(timeline: &'a Timeline) -> Ladder<'a> {
        let hosts = timeline.hosts.len();
        Ladder {
            timeline,
            rows: Vec::new(),
            states: BTreeMap::new(),
            latest: vec![None; hosts],
            listeners: vec![0; hosts],
            knows_states: timeline.events.iter().any(tells_states),
            unseen: None,
            repeated: (String::new(), 0),
        }
    }

    /// Names and addresses of the two sides.
    fn top(&self) -> String {
        let name = |host: usize| {
            let host = &self.timeline.hosts[host];
            host.addresses.first().map_or(host.name.clone(), |address| format!("{} {address}", host.name))
        };
        let middle = self.cell() + FIELD + 4 - name(0).len().min(self.cell());
        format!("{:>12}  {}{:middle$}{}\n", "time", name(0), "", name(1)).replace(" \n", "\n")
    }

    fn many_hosts(&self) -> bool {
        self.timeline.hosts.len() > 2
    }

    fn cell(&self) -> usize {
        if self.many_hosts() {
            CELL + 1 + self.timeline.hosts.iter().map(|host| host.name.len()).max().unwrap_or(0)
        } else {
            CELL
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Packet(packet) => self.packet(packet),
            Event::Call { at, host, text } => self.note(*at, Some(*host), None, text),
            Event::Note { at, host, ends, text } => self.note(*at, *host, *ends, text),
            Event::Info { .. } => {}
            Event::Listening { host, on, .. } => {
                let count = &mut self.listeners[*host];
                *count = if *on { *count + 1 } else { count.saturating_sub(1) };
            }
            Event::State { at, host, ends, to, .. } => {
                // Two changes of one host in a row: the first gets its own row.
                if self.unseen.is_some_and(|(since, of)| of == *host || since != *at) {
                    self.flush(None);
                }
                let (local, remote) = *ends;
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
            self.timeline.host_with(remote.ip())
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
        let state = if self.knows_states { known.unwrap_or(idle).name() } else { "" };
        if self.many_hosts() {
            format!("{} {state}", self.timeline.hosts[host].name)
        } else {
            state.to_owned()
        }
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
        let text = format!("{}: {text}", self.timeline.hosts[host].name);
        let field = if host == right {
            format!("{text:>w$} ", w = FIELD - 1)
        } else {
            format!(" {text:<w$}", w = FIELD - 1)
        };
        let ends = self.latest[host];
        self.row(at, left, right, ends, &field, "");
    }

    fn packet(&mut self, packet: &Packet) {
        self.flush(Some(packet.at));
        self.unseen = None;
        let placed = self.placed(packet);
        let arrived = packet.fates.iter().any(|fate| matches!(fate, Fate::Arrived { .. }));
        let field = arrow(
            &text(packet),
            FIELD,
            placed.rightward,
            arrived || packet.fates.is_empty(),
            packet.from.is_none() || packet.forged,
        );
        let note = self.remarks(packet);
        self.row(packet.at, placed.left, placed.right, placed.ends, &field, &note);
    }

    /// Draws the end of an arrow that began in an earlier row.
    fn late(&mut self, at: Instant, packet: &Packet) {
        self.flush(Some(at));
        self.unseen = None;
        let placed = self.placed(packet);
        let text = text(packet);
        let text = text.split(" win ").next().unwrap_or(&text);
        let field = if placed.rightward {
            format!("{:>FIELD$}", format!("of {}: {text} -->", packet.at))
        } else {
            format!("{:<FIELD$}", format!("<-- {text}, of {}", packet.at))
        };
        self.row(at, placed.left, placed.right, placed.ends, &field, "");
    }

    /// Returns the hosts and the direction of a segment, and makes its endpoints the latest of its sender.
    fn placed(&mut self, packet: &Packet) -> Placed {
        let ends = packet.flow.map(|flow| self.timeline.flows.all[flow].ends).map(|[a, b]| (a, b));
        let host = packet.from.or(packet.to).unwrap_or(0);
        if let (Some((a, b)), Some(from)) = (ends, packet.from.filter(|_| !packet.forged)) {
            let own = self.timeline.hosts[from].addresses.contains(&a.ip());
            self.latest[from] = Some(if own { (a, b) } else { (b, a) });
        }
        let other = if packet.from.is_some() { packet.to } else { None };
        let (left, right) = self.sides(host, other);
        let rightward = match packet.from {
            Some(from) => from == left,
            None => packet.to == Some(right),
        };
        Placed { left, right, rightward, ends }
    }

    fn remarks(&self, packet: &Packet) -> String {
        let mut remarks = Vec::new();
        if let Some(flow) = packet.flow.filter(|flow| *flow > 0 && self.timeline.flows.all.len() > 1) {
            remarks.push(format!("#{}", flow + 1));
        }
        if packet.tcp.is_some_and(|(tcp, _)| tcp.retransmission) {
            remarks.push("again".to_owned());
        }
        for fate in &packet.fates {
            match fate {
                Fate::Lost(why) => remarks.push(format!("lost: {why}")),
                Fate::Arrived { note, .. } if note.is_empty() => {}
                Fate::Arrived { at, note } if *at == packet.at => remarks.push(note.clone()),
                Fate::Arrived { at, note } => remarks.push(format!("{note}: arrives {at}")),
            }
        }
        remarks.join("; ")
    }
}

/// The hosts on both sides of a segment's row, and the direction of its arrow.
struct Placed {
    left: usize,
    right: usize,
    rightward: bool,
    ends: Option<(SocketAddr, SocketAddr)>,
}

fn text(packet: &Packet) -> String {
    match &packet.tcp {
        Some((tcp, header)) => tcp_text(tcp, header),
        None => packet.text.clone(),
    }
}

/// Draws `-- text ------->` in `width` columns, or its mirror image. The arrow of a lost segment ends in an X; that of
/// a forged one is dotted.
pub fn arrow(text: &str, width: usize, rightward: bool, arrived: bool, forged: bool) -> String {
    let line = if forged { "." } else { "-" };
    let length = width.saturating_sub(text.chars().count() + 5).max(1);
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
fn tcp_text(tcp: &Segment, header: &Header) -> String {
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

fn option_text(tcp: &Segment, header: &Header) -> Vec<String> {
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
        assert_eq!(arrow("[S] seq 0", FIELD, true, true, false).len(), FIELD);
        assert_eq!(arrow("[S] seq 0", FIELD, false, false, true).len(), FIELD);
        assert!(
            arrow("x", FIELD, true, true, false).starts_with("-- x --")
                && arrow("x", FIELD, true, true, false).ends_with("->")
        );
        assert!(
            arrow("x", FIELD, false, true, true).starts_with("<..")
                && arrow("x", FIELD, false, true, true).ends_with(" x ..")
        );
        let lost = arrow("x", FIELD, true, false, false);
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
        let mut tcp = Segment {
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
            retransmission: false,
        };
        assert_eq!(tcp_text(&tcp, &header), "[S.] seq 0 ack 1' win 1000 <mss 1460,sackOK,ws 7,sack 100:200>");
        tcp.len = 10;
        tcp.seq = u32::MAX;
        let header = Header { flags: Flags::PSH | Flags::ACK, options: Options::default(), ..header };
        assert_eq!(tcp_text(&tcp, &header), "[P.] seq -1:9 ack 1' win 1000");
    }
}
