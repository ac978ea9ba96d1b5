//! Patterns of packets: direction, flags, words, count, time.

use steadfast_core::Instant;
use steadfast_core::trace::State;
use steadfast_core::wire::tcp::Flags;
use steadfast_timeline::{Datagram, Segment};

use crate::text::{Bounds, Understood, Words};

/// One end of a direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `*`
    Any,
    /// A host, by name.
    Host(String),
}

impl End {
    fn parse(text: &str) -> Option<End> {
        match text {
            "*" => Some(End::Any),
            name if is_name(name) => Some(End::Host(name.to_owned())),
            _ => None,
        }
    }

    fn fits(&self, host: Option<&str>) -> bool {
        match self {
            End::Any => true,
            End::Host(name) => host == Some(name),
        }
    }
}

/// Returns whether `text` is a host name: letters, digits, `_` and `-`, starting with a letter.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The direction of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    /// The sender.
    pub from: End,
    /// The receiver.
    pub to: End,
    /// The reverse direction matches as well.
    pub both_ways: bool,
}

impl Direction {
    /// Parses `C>S`, `C|S`, `C>*` or `*`. A host alone means all its traffic.
    pub(crate) fn parse(text: &str) -> Option<Direction> {
        let ends =
            |from, to, both_ways| Some(Direction { from: End::parse(from)?, to: End::parse(to)?, both_ways });
        match (text.split_once('>'), text.split_once('|')) {
            (Some((from, to)), None) => ends(from, to, false),
            (None, Some((a, b))) => ends(a, b, true),
            (None, None) => ends(text, "*", true),
            _ => None,
        }
    }

    /// Returns whether a packet between two hosts has this direction. `None` stands for an address without a host.
    pub fn fits(&self, from: Option<&str>, to: Option<&str>) -> bool {
        (self.from.fits(from) && self.to.fits(to))
            || (self.both_ways && self.from.fits(to) && self.to.fits(from))
    }

    pub(crate) fn hosts(&self) -> Vec<&str> {
        [&self.from, &self.to]
            .into_iter()
            .filter_map(|end| match end {
                End::Any => None,
                End::Host(name) => Some(name.as_str()),
            })
            .collect()
    }
}

/// A pattern of flags: a value under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagPattern {
    /// Flags that must be set.
    pub set: Flags,
    /// Flags that are compared.
    pub mask: Flags,
}

impl FlagPattern {
    /// Flags that must be clear unless the pattern lists them.
    const STRICT: Flags = Flags(0b11_0111 & !(1 << 3));

    /// Parses `[S.]`, which means exactly these of S, F, R, `.`, U, or `[S*]`, which means at least these.
    pub(crate) fn parse(text: &str) -> Option<FlagPattern> {
        let letters = text.strip_prefix('[')?.strip_suffix(']')?;
        let (letters, open) = match letters.strip_suffix('*') {
            Some(letters) => (letters, true),
            None => (letters, false),
        };
        let set = letters.parse().ok()?;
        Some(FlagPattern { set, mask: if open { set } else { set | FlagPattern::STRICT } })
    }

    /// Returns whether a segment with these flags matches.
    pub fn fits(self, flags: Flags) -> bool {
        flags.0 & self.mask.0 == self.set.0
    }
}

/// The protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP segments.
    Tcp,
    /// UDP datagrams and their fragments.
    Udp,
    /// ICMP messages.
    Icmp,
    /// Anything.
    Any,
}

/// Which of the matching packets count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// All.
    Every,
    /// The first to the last of these, counted from 1.
    Nth(u64, u64),
    /// Each with this probability, in parts per million.
    Chance(u32),
}

/// A span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The start, included.
    pub from: Option<Instant>,
    /// The end, excluded.
    pub until: Option<Instant>,
}

impl Window {
    /// Returns whether `at` lies within the span.
    pub fn contains(self, at: Instant) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }

    /// Consumes `from T` or `until T`.
    pub(crate) fn take(&mut self, words: &mut Words<'_>) -> Understood<bool> {
        if words.take("from") {
            self.from = Some(words.time("a time after `from`")?);
        } else if words.take("until") {
            self.until = Some(words.time("a time after `until`")?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

/// A pattern that packets are matched against.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// The direction.
    pub direction: Direction,
    /// TCP, UDP, ICMP or all.
    pub protocol: Protocol,
    /// TCP flags.
    pub flags: Option<FlagPattern>,
    /// True: only with payload; false: only without.
    pub data: Option<bool>,
    /// Payload in bytes.
    pub len: Option<Bounds>,
    /// Size of the IP packet in bytes.
    pub size: Option<Bounds>,
    /// Relative sequence number of the first byte.
    pub seq: Option<Bounds>,
    /// Relative acknowledgment number.
    pub ack: Option<Bounds>,
    /// The window field.
    pub win: Option<Bounds>,
    /// The sender's state.
    pub state: Option<State>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// True: only retransmissions; false: none.
    pub retransmission: Option<bool>,
    /// Which of the matching packets count.
    pub count: Count,
    /// When the packet is sent.
    pub window: Window,
}

/// The properties of a packet that patterns look at.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// When it is sent.
    pub at: Instant,
    /// The sender; `None`: forged.
    pub from: Option<&'a str>,
    /// The destination host.
    pub to: Option<&'a str>,
    /// The TCP part, if it is a TCP segment.
    pub tcp: Option<Segment>,
    /// The datagram, if it is UDP.
    pub udp: Option<Datagram>,
    /// It is an ICMP message.
    pub icmp: bool,
    /// Size of the IP packet in bytes.
    pub size: usize,
}

impl Pattern {
    /// A pattern that matches every TCP segment of a direction.
    pub fn new(direction: Direction) -> Pattern {
        Pattern {
            direction,
            protocol: Protocol::Tcp,
            flags: None,
            data: None,
            len: None,
            size: None,
            seq: None,
            ack: None,
            win: None,
            state: None,
            source_port: None,
            destination_port: None,
            retransmission: None,
            count: Count::Every,
            window: Window::default(),
        }
    }

    /// Returns whether a packet matches, regardless of [`Count`].
    pub fn fits(&self, packet: &Observed<'_>) -> bool {
        let number = |wanted: Option<Bounds>, n: u64| wanted.is_none_or(|bounds| bounds.contains(n));
        if !self.direction.fits(packet.from, packet.to)
            || !self.window.contains(packet.at)
            || !number(self.size, packet.size as u64)
        {
            return false;
        }
        let Some(tcp) = packet.tcp else {
            return match (self.protocol, packet.udp) {
                (Protocol::Tcp, _) | (Protocol::Udp, None) => false,
                (Protocol::Icmp, _) => packet.icmp,
                (Protocol::Udp | Protocol::Any, Some(datagram)) => self.fits_datagram(&datagram),
                (Protocol::Any, None) => !self.asks_for_tcp() && !self.asks_for_payload_or_ports(),
            };
        };
        matches!(self.protocol, Protocol::Tcp | Protocol::Any)
            && self.flags.is_none_or(|flags| flags.fits(tcp.flags))
            && self.data.is_none_or(|data| data == (tcp.len > 0))
            && number(self.len, tcp.len as u64)
            && number(self.seq, u64::from(tcp.seq))
            && self.ack.is_none_or(|ack| tcp.flags.ack() && ack.contains(u64::from(tcp.ack)))
            && number(self.win, u64::from(tcp.win))
            && self.state.is_none_or(|state| state == tcp.state)
            && self.source_port.is_none_or(|port| port == tcp.source_port)
            && self.destination_port.is_none_or(|port| port == tcp.destination_port)
            && self.retransmission.is_none_or(|wanted| wanted == tcp.retransmission)
    }

    /// Returns whether a datagram or a fragment matches. Only the first fragment has ports.
    fn fits_datagram(&self, datagram: &Datagram) -> bool {
        let port = |wanted: Option<u16>, port: Option<u16>| wanted.is_none() || wanted == port;
        let (source, destination) = datagram.ports.unzip();
        !self.asks_for_tcp()
            && self.data.is_none_or(|data| data == (datagram.len > 0))
            && self.len.is_none_or(|bounds| bounds.contains(datagram.len as u64))
            && port(self.source_port, source)
            && port(self.destination_port, destination)
    }

    /// Returns whether the pattern has a condition that an ICMP message cannot meet, but a datagram can.
    fn asks_for_payload_or_ports(&self) -> bool {
        self.data.is_some()
            || self.len.is_some()
            || self.source_port.is_some()
            || self.destination_port.is_some()
    }

    /// Returns whether the pattern has a condition that only a TCP segment can meet.
    fn asks_for_tcp(&self) -> bool {
        self.flags.is_some()
            || self.seq.is_some()
            || self.ack.is_some()
            || self.win.is_some()
            || self.state.is_some()
            || self.retransmission.is_some()
    }

    /// Parses a pattern, and leaves all other words.
    pub(crate) fn parse(words: &mut Words<'_>) -> Understood<Pattern> {
        let direction = words.parse("a direction such as `C>S`, `C|S`, `C>*` or `*`", Direction::parse)?;
        let mut pattern = Pattern::new(direction);
        while let Some(word) = words.peek() {
            if word.starts_with('[') {
                let what = "flags as tcpdump writes them, such as `[S.]` or `[F*]`";
                pattern.flags = Some(words.parse(what, FlagPattern::parse)?);
            } else if !pattern.take_word(word, words)? && !pattern.window.take(words)? {
                match words.maybe(parse_count) {
                    Some(count) => pattern.count = count,
                    None => break,
                }
            }
        }
        Ok(pattern)
    }

    fn take_word(&mut self, word: &str, words: &mut Words<'_>) -> Understood<bool> {
        let bounds = |words: &mut Words<'_>| {
            words.next();
            words.parse("a number such as `5`, `>=5` or `5..9`", Bounds::parse).map(Some)
        };
        let port = |words: &mut Words<'_>| {
            words.next();
            words.number("a port").map(Some)
        };
        match word {
            "data" => self.data = Some(true),
            "nodata" => self.data = Some(false),
            "new" => self.retransmission = Some(false),
            "again" => self.retransmission = Some(true),
            "udp" => self.protocol = Protocol::Udp,
            "icmp" => self.protocol = Protocol::Icmp,
            "all" => self.protocol = Protocol::Any,
            "len" => return bounds(words).map(|b| self.len = b).map(|()| true),
            "size" => return bounds(words).map(|b| self.size = b).map(|()| true),
            "seq" => return bounds(words).map(|b| self.seq = b).map(|()| true),
            "ack" => return bounds(words).map(|b| self.ack = b).map(|()| true),
            "win" => return bounds(words).map(|b| self.win = b).map(|()| true),
            "sport" => return port(words).map(|p| self.source_port = p).map(|()| true),
            "dport" => return port(words).map(|p| self.destination_port = p).map(|()| true),
            "state" => {
                words.next();
                self.state = Some(words.parse("a state such as `ESTABLISHED`", |w| w.parse().ok())?);
                return Ok(true);
            }
            _ => return Ok(false),
        }
        words.next();
        Ok(true)
    }
}

/// Parses `2.5%`, as parts per million.
pub(crate) fn percent(text: &str) -> Option<u32> {
    let percent = text.strip_suffix('%')?.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p))?;
    Some((percent * 10_000.0).round() as u32)
}

/// Parses `1`, `2..4`, `3..`, `10%` or `every`.
fn parse_count(text: &str) -> Option<Count> {
    if text == "every" {
        return Some(Count::Every);
    }
    if text.ends_with('%') {
        return percent(text).map(Count::Chance);
    }
    let number = |s: &str| s.parse::<u64>().ok().filter(|n| *n > 0);
    match text.split_once("..") {
        Some((from, "")) => Some(Count::Nth(number(from)?, u64::MAX)),
        Some((from, to)) => {
            Some(Count::Nth(number(from)?, number(to)?)).filter(|_| number(from) <= number(to))
        }
        None => number(text).map(|n| Count::Nth(n, n)),
    }
}
