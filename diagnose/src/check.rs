//! One pass over a capture.

use std::collections::BTreeMap;

use steadfast_capture::link::{self, Unread};
use steadfast_capture::{Damage, Format, Interface, Record};

use crate::conn::Conn;
use crate::finding::{Confidence, Finding, Place, Severity};
use crate::many::Many;
use crate::packet::{self, Checksum, Content};
use crate::report::{Captured, Connection, Report};
use crate::rules::{self, Context, Quality};
use crate::track::Tracker;

/// Connections whose findings are kept in full.
const KEPT: usize = 20_000;
/// Findings of one id that are kept in full.
const OF_A_KIND: u32 = 1000;

/// Settings of a check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The key of the tables. Take it from the system's randomness for captures of strangers.
    pub key: [u64; 2],
    /// Limit of connections that are followed at once.
    pub connections: usize,
    /// Keep connections without findings, too.
    pub all: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { key: [0x7374_6561_6466_6173, 0x7421], connections: 1_000_000, all: false }
    }
}

/// The clock of an interface.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    high: i64,
    seen: bool,
    /// Times have gone back to this.
    low: i64,
    packet: u32,
    behind: u32,
    count: u64,
}

/// Checks a capture.
pub struct Check {
    options: Options,
    tracker: Tracker,
    quality: Quality,
    many: Many,
    clocks: Vec<Clock>,
    captured: Captured,
    connections: Vec<Connection>,
    kinds: BTreeMap<&'static str, u32>,
    more: BTreeMap<&'static str, u32>,
    endings: BTreeMap<&'static str, u32>,
    sound: u32,
    last: i64,
}

impl Check {
    /// Begins.
    pub fn new(options: Options) -> Check {
        Check {
            options,
            tracker: Tracker::new(options.key, options.connections),
            quality: Quality::default(),
            many: Many::default(),
            clocks: Vec::new(),
            captured: Captured::default(),
            connections: Vec::new(),
            kinds: BTreeMap::new(),
            more: BTreeMap::new(),
            endings: BTreeMap::new(),
            sound: 0,
            last: 0,
        }
    }

    /// Takes in a record.
    pub fn record(&mut self, record: &Record<'_>) {
        let number = record.number.min(u64::from(u32::MAX)) as u32;
        // Without a time, the last one is the best guess.
        let at = record.nanos.unwrap_or(self.last);
        self.last = at;
        self.clock(record.interface, number, at);
        let captured = &mut self.captured;
        if captured.packets == 0 {
            captured.start = at;
        }
        captured.packets += 1;
        captured.end = captured.end.max(at);
        let ip = match link::ip(record.link, record.data) {
            Ok(ip) => ip,
            Err(Unread::Unknown(link)) => {
                *captured.unread.entry(link).or_default() += 1;
                return;
            }
            Err(_) => return,
        };
        let head = record.data.len() - ip.bytes.len();
        match packet::parse(ip.bytes, (record.len as usize).saturating_sub(head)) {
            Content::Tcp(mut segment) => {
                captured.segments += 1;
                (segment.number, segment.at, segment.interface) = (number, at, record.interface as u32);
                segment.offload |= record.segmented_later;
                segment.retry = ip.retry;
                if record.checksum_not_ready {
                    segment.checksum = Checksum::Unknown;
                }
                if segment.options.cut || segment.short {
                    self.quality.snaplen.add(number);
                }
                self.tracker.segment(record.section, &segment);
                self.judge_ended();
            }
            Content::Icmp(mut icmp) => {
                (icmp.number, icmp.at) = (number, at);
                self.tracker.icmp(record.section, &icmp);
            }
            Content::Cut => self.quality.snaplen.add(number),
            Content::Fragment => self.quality.fragments += 1,
            Content::Other => {}
        }
    }

    /// Notes steps of an interface's clock.
    fn clock(&mut self, interface: usize, number: u32, at: i64) {
        /// Steps back below this are jitter of the capturing system, in nanoseconds.
        const JITTER: i64 = 1_000_000;
        /// Packets behind the step after which it is a step of the clock.
        const STAYS: u32 = 4;
        if interface >= self.clocks.len() {
            self.clocks.resize(interface + 1, Clock::default());
        }
        let clock = &mut self.clocks[interface];
        clock.count += 1;
        if !clock.seen || at >= clock.high - JITTER {
            if clock.packet != 0 {
                // It was only a packet or two.
                self.quality.reordered.add(clock.packet);
                clock.packet = 0;
            }
            clock.high = if clock.seen { clock.high.max(at) } else { at };
            clock.seen = true;
            return;
        }
        if clock.packet == 0 {
            (clock.packet, clock.low, clock.behind) = (number, at, 0);
        }
        clock.behind += 1;
        if clock.behind >= STAYS {
            self.quality.jumps.add(clock.packet);
            self.quality.jump = self.quality.jump.max(clock.high - clock.low);
            (clock.high, clock.packet) = (at, 0);
        }
    }

    fn judge_ended(&mut self) {
        while let Some(conn) = self.tracker.ended.pop() {
            self.judge(&conn);
        }
    }

    fn judge(&mut self, conn: &Conn) {
        let context = Context { end: self.captured.end, all: self.options.all };
        let findings = rules::judge(conn, &context, &mut self.quality);
        self.many.take(conn, &findings);
        *self.endings.entry(rules::ended(conn)).or_default() += 1;
        let bad = findings.iter().any(|finding| finding.severity > Severity::Info);
        self.sound += u32::from(!bad);
        if findings.is_empty() && !self.options.all {
            return;
        }
        let rare =
            findings.iter().any(|finding| self.kinds.get(finding.id).is_none_or(|count| *count < OF_A_KIND));
        if self.connections.len() < KEPT && rare || self.options.all {
            for finding in &findings {
                *self.kinds.entry(finding.id).or_default() += 1;
            }
            self.connections.push(Connection::new(conn, findings));
        } else {
            for finding in &findings {
                *self.more.entry(finding.id).or_default() += 1;
            }
        }
    }

    /// Ends, and returns the report.
    pub fn finish(mut self, format: Format, bytes: u64, interfaces: &[Interface], damage: &Damage) -> Report {
        for clock in &self.clocks {
            if clock.packet != 0 {
                self.quality.jumps.add(clock.packet);
                self.quality.jump = self.quality.jump.max(clock.high - clock.low);
            }
        }
        self.tracker.finish();
        self.judge_ended();
        self.connections.sort_by_key(|connection| connection.n);
        self.quality.dropped =
            interfaces.iter().map(|interface| interface.dropped).fold(0, u64::saturating_add);
        let mut captured = self.captured;
        captured.format = format.name();
        captured.bytes = bytes;
        captured.damage = damage.problems.iter().map(ToString::to_string).collect();
        captured.damaged = damage.count;
        captured.evicted = self.tracker.evicted;
        for (interface, clock) in interfaces.iter().zip(&self.clocks) {
            *captured.links.entry(interface.link).or_default() += clock.count;
            captured.interfaces.push((interface.name.clone(), clock.count));
        }
        let mut findings = self.quality.findings(captured.start, captured.end);
        if !captured.unread.is_empty() {
            let packets: u64 = captured.unread.values().sum();
            let text = format!("{packets} packets have a link type that is not supported.");
            findings.push(
                Finding::new("cap-unsupported", Severity::Info, Place::Capture)
                    .sure(Confidence::Certain)
                    .text(text),
            );
        }
        let (many, explained, scanners) = self.many.findings();
        findings.extend(many);
        let mut sound = self.sound;
        for connection in &mut self.connections {
            let before = connection.worst();
            connection.findings.retain(|finding| {
                let scanned =
                    scanners.contains(&{ connection.client.address }) && finding.id.starts_with("open-");
                !scanned && !explained.contains(&(finding.id, connection.server))
            });
            if before > Some(Severity::Info) && connection.worst() <= Some(Severity::Info) {
                sound += 1;
            }
        }
        if !self.options.all {
            self.connections.retain(|connection| !connection.findings.is_empty());
        }
        Report {
            captured,
            connections_total: self.tracker.count,
            sound,
            endings: self.endings,
            findings,
            connections: self.connections,
            more: self.more,
            services: self.many.services,
            clients: self.many.clients,
        }
    }
}
