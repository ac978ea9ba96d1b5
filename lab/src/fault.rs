//! The vocabulary of faults: one language for scenario files, the command line and Rust.
//!
//! ```
//! use steadfast_lab::Fault;
//!
//! let fault: Fault = "lose S>C [S.] 1".parse().unwrap();
//! assert_eq!(fault.to_string(), "lose S>C [S.] 1");
//! let wrong = "lose S>C [S.] twice".parse::<Fault>().unwrap_err();
//! assert_eq!(wrong.to_string(), "--fault:1: expected the end of the line, found `twice`");
//! ```

mod parse;
pub(crate) mod pattern;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::wire::tcp::{Flags, Timestamps};
use steadfast_core::{Duration, Instant};

pub use self::pattern::{Count, Direction, End, FlagPattern, Observed, Pattern, Protocol, Window};
pub use crate::path::PathChange;
use crate::text::{ParseError, Words};

/// A fault and the time or the packets that it applies to.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    text: String,
    /// The kind of fault.
    pub kind: FaultKind,
}

/// The kinds of fault.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An effect on packets that match a pattern.
    Packets {
        /// The packets.
        pattern: Pattern,
        /// The effect on them.
        effect: Effect,
    },
    /// No packet passes.
    Partition {
        /// The direction.
        direction: Direction,
        /// When.
        window: Window,
    },
    /// A link of the path has a smaller MTU.
    Mtu {
        /// The direction.
        direction: Direction,
        /// The largest IP packet, in bytes.
        mtu: usize,
        /// Whether the router before the link sends an ICMP error.
        icmp: bool,
        /// When.
        window: Window,
    },
    /// The path changes.
    Path {
        /// The direction.
        direction: Direction,
        /// The change.
        change: PathChange,
        /// When the change takes effect, and when it ends.
        window: Window,
    },
    /// A host loses all its state and falls silent.
    Crash {
        /// The host.
        host: String,
        /// When.
        at: Instant,
    },
    /// A host boots with a fresh stack.
    Reboot {
        /// The host.
        host: String,
        /// When.
        at: Instant,
        /// Keep the secret from before the crash, so that the ISS generator repeats itself.
        same_secret: bool,
        /// Reset the clock to its start.
        same_clock: bool,
    },
    /// A host's stack and applications do not run. Its driver holds up to `netdev_max_backlog` packets meanwhile.
    Stall {
        /// The host.
        host: String,
        /// From when on.
        from: Instant,
        /// When it goes on.
        until: Instant,
    },
    /// A host has none of its addresses.
    LoseAddress {
        /// The host.
        host: String,
        /// From when on.
        from: Instant,
        /// When they return.
        until: Instant,
    },
    /// A host's clock jumps.
    Clock {
        /// The host.
        host: String,
        /// The jump, in nanoseconds.
        nanos: i64,
        /// When.
        at: Instant,
    },
    /// A forged segment arrives.
    Inject(Injection),
    /// A forged ICMP error arrives.
    InjectIcmp(IcmpInjection),
    /// SYNs from addresses that do not exist.
    Flood(Flood),
}

/// The effect on a packet that matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The packet is lost.
    Lose,
    /// Extra copies of it arrive.
    Duplicate {
        /// When.
        when: When,
        /// How many.
        times: u32,
    },
    /// It takes longer, by a random time between two bounds.
    Delay {
        /// The lower bound.
        low: Duration,
        /// The upper bound.
        high: Duration,
    },
    /// It is held until a given time.
    Hold {
        /// The time of its release.
        release: Instant,
    },
    /// It arrives after later packets of the same direction.
    Reorder {
        /// The number of packets that overtake it.
        past: u32,
    },
    /// One bit of it is flipped.
    Corrupt(Part),
    /// It is truncated.
    Truncate {
        /// Bytes of the IP packet that remain.
        len: usize,
    },
    /// Header fields change on the way.
    Rewrite(Vec<Rewrite>),
    /// TCP options are removed on the way.
    Strip(Vec<OptionName>),
    /// It arrives as several segments with these flags.
    Split(Vec<Flags>),
    /// It arrives in fragments.
    Fragment {
        /// The largest fragment, in bytes of the IP packet.
        size: usize,
        /// The fragment that is lost, from 1.
        lose: Option<usize>,
        /// Each fragment overlaps the end of the previous one.
        overlap: bool,
    },
    /// A router, or an impostor of the destination, rejects it.
    Reject(Rejection),
}

/// When a copy arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// This long after the original.
    After(Duration),
    /// At this time.
    At(Instant),
}

/// Where a bit flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The IP header.
    Ip,
    /// The TCP header.
    Header,
    /// The payload, or the header if there is no payload.
    Data,
    /// Anywhere in the segment.
    Segment,
}

/// A field that changes on the way.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Rewrite {
    Mss(u16),
    WindowScale(u8),
    Window(u16),
    Flags(Flags),
    SeqAdd(u32),
    AckAdd(u32),
    Ttl(u8),
    Ecn(u8),
    Cookie(Vec<u8>),
    TsVal(u32),
    TsEcr(u32),
    Urgent(u16),
    /// Replace the payload by this many bytes from the start of the stream.
    Data(usize),
    /// Add a loose source route through this address to an IPv4 packet.
    Route(Ipv4Addr),
    /// The source address.
    Source(IpAddr),
    /// The length field of UDP; its checksum stays as it was.
    Length(u16),
    /// The checksum of UDP.
    Checksum(u16),
}

/// The TCP options that can be stripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OptionName {
    Mss,
    WindowScale,
    Sack,
    Timestamps,
    FastOpen,
    All,
}

/// How a packet is rejected on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A router sends this ICMP error.
    Icmp(ErrorKind),
    /// A RST with the destination as its source.
    Rst,
}

/// A forged segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// The host that it claims to come from.
    pub from: String,
    /// The host that it is sent to.
    pub to: String,
    /// When it arrives.
    pub at: Instant,
    /// Its flags.
    pub flags: Flags,
    /// Its sequence number.
    pub seq: SeqSpec,
    /// Its acknowledgment number, if it has the ACK flag.
    pub ack: SeqSpec,
    /// Its window field.
    pub window: u16,
    /// Bytes of payload.
    pub len: usize,
    /// Source port; `None`: that of the pair's last connection.
    pub source_port: Option<u16>,
    /// Destination port; `None`: that of the pair's last connection.
    pub destination_port: Option<u16>,
    /// MSS option.
    pub mss: Option<u16>,
    /// Window scale option.
    pub window_scale: Option<u8>,
    /// SACK-permitted option.
    pub sack: bool,
    /// Timestamps option.
    pub timestamps: TimestampSpec,
    /// Urgent pointer.
    pub urgent: u16,
    /// How many segments are injected.
    pub times: u32,
    /// Time between them.
    pub every: Duration,
}

/// Which timestamps a forged segment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampSpec {
    /// The last timestamps in that direction, if any.
    Last,
    /// No timestamps.
    Absent,
    /// These timestamps.
    Given(Timestamps),
}

/// A sequence number of a forged segment, in terms of the connection that it claims to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeqSpec {
    /// Relative to the ISS.
    Relative(i64),
    /// Relative to the receiver's `RCV.NXT`.
    RcvNxt(i64),
    /// Relative to the right edge of the receiver's window.
    RcvEnd(i64),
    /// Relative to the sender's `SND.NXT`.
    SndNxt(i64),
    /// Absolute.
    Absolute(u32),
}

/// A forged ICMP error about the last segment in one direction, or without a connection about the last datagram.
#[derive(Clone, Debug, PartialEq)]
pub struct IcmpInjection {
    /// The sender of the segment, which receives the error.
    pub from: String,
    /// The destination of the segment.
    pub to: String,
    /// When it arrives.
    pub at: Instant,
    /// The kind of error.
    pub kind: ErrorKind,
    /// The sequence number that the error quotes; `None`: that of the last segment.
    pub seq: Option<SeqSpec>,
    /// The ports of source and destination that it quotes of a datagram; `None`: those of the last one.
    pub ports: (Option<u16>, Option<u16>),
}

/// Spoofed SYNs.
#[derive(Clone, Debug, PartialEq)]
pub struct Flood {
    /// The victim.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The number of SYNs.
    pub count: u32,
    /// The prefix that source addresses are drawn from.
    pub prefix: (IpAddr, u8),
    /// The length of the flood.
    pub over: Duration,
    /// When it begins.
    pub at: Instant,
}

impl Fault {
    /// Parses one fault. The error has no place: the caller adds file and line.
    pub(crate) fn read(text: &str) -> Result<Fault, String> {
        let mut words = Words::new(text);
        let kind = parse::fault(&mut words)?;
        words.end()?;
        Ok(Fault { text: text.split_whitespace().collect::<Vec<_>>().join(" "), kind })
    }

    /// The hosts that the fault names.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        match &self.kind {
            FaultKind::Packets { pattern, .. } => pattern.direction.hosts(),
            FaultKind::Partition { direction, .. }
            | FaultKind::Mtu { direction, .. }
            | FaultKind::Path { direction, .. } => direction.hosts(),
            FaultKind::Crash { host, .. }
            | FaultKind::Reboot { host, .. }
            | FaultKind::Stall { host, .. }
            | FaultKind::LoseAddress { host, .. }
            | FaultKind::Clock { host, .. } => {
                vec![host]
            }
            FaultKind::Inject(Injection { from, to, .. })
            | FaultKind::InjectIcmp(IcmpInjection { from, to, .. }) => vec![from, to],
            FaultKind::Flood(flood) => vec![&flood.host],
        }
    }
}

impl FromStr for Fault {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Fault, ParseError> {
        Fault::read(text).map_err(|message| ParseError { file: "--fault".into(), line: 1, message })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
