//! The vocabulary of faults: one set of words for scenario files, the command line and Rust.
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

pub use self::pattern::{Count, Direction, End, FlagPattern, Pattern, Protocol, Sighted, SightedTcp, Window};
use crate::text::{ParseError, Words};

/// Something that goes wrong, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    text: String,
    /// What it does.
    pub kind: FaultKind,
}

/// The kinds of fault.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FaultKind {
    /// Something happens to packets that match.
    Packets {
        /// Which packets.
        pattern: Pattern,
        /// What happens to them.
        effect: Effect,
    },
    /// Nothing passes.
    Partition {
        /// Which way.
        direction: Direction,
        /// When.
        window: Window,
    },
    /// A link on the way carries at most so many bytes.
    Mtu {
        /// Which way.
        direction: Direction,
        /// The largest IP packet.
        mtu: usize,
        /// Whether the router in front of it says so.
        icmp: bool,
        /// When.
        window: Window,
    },
    /// The path changes its rate, queue or delay.
    Path {
        /// Which way.
        direction: Direction,
        /// What changes.
        change: PathChange,
        /// From when on.
        from: Instant,
    },
    /// A host loses all its state and falls silent.
    Crash {
        /// The host.
        host: String,
        /// When.
        at: Instant,
    },
    /// A host comes back, with a fresh stack.
    Reboot {
        /// The host.
        host: String,
        /// When.
        at: Instant,
        /// With the secret that it had before (so that the ISS generator repeats itself).
        same_secret: bool,
        /// With its clock where it began.
        same_clock: bool,
    },
    /// A host's clock jumps.
    Clock {
        /// The host.
        host: String,
        /// By how many nanoseconds.
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

/// What happens to a packet that matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// It is lost.
    Lose,
    /// Copies of it arrive as well.
    Duplicate {
        /// When.
        when: When,
        /// How many.
        times: u32,
    },
    /// It takes longer, by something between the two.
    Delay {
        /// At least.
        low: Duration,
        /// At the most.
        high: Duration,
    },
    /// It arrives at this time and not before.
    Hold {
        /// When.
        release: Instant,
    },
    /// It arrives after the next packets of its direction.
    Reorder {
        /// After how many.
        past: u32,
    },
    /// One bit of it is flipped.
    Corrupt(Part),
    /// It is cut off.
    Truncate {
        /// Bytes of the IP packet that are left.
        len: usize,
    },
    /// Header fields change on the way.
    Rewrite(Vec<Rewrite>),
    /// TCP options vanish on the way.
    Strip(Vec<OptionName>),
    /// It arrives as several segments with these flags.
    Split(Vec<Flags>),
    /// It arrives in fragments.
    Fragment {
        /// The largest one, bytes of the IP packet.
        size: usize,
        /// The one that is lost, from 1.
        lose: Option<usize>,
        /// Each begins before the end of the one before.
        overlap: bool,
    },
    /// A router, or someone who pretends to be the destination, refuses it.
    Reject(Rejection),
}

/// When a copy arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after the original.
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
    /// The payload, or the header where there is none.
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
    /// So many bytes of the stream are put into the segment.
    Data(usize),
    /// An IPv4 packet is to go by this address first.
    Route(Ipv4Addr),
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

/// How a packet is refused on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A router sends this ICMP error.
    Icmp(ErrorKind),
    /// A RST comes back in the name of the destination.
    Rst,
}

/// A change of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// Bits per second, and packets that may wait.
    Rate {
        /// Bits per second.
        rate: u64,
        /// Packets; `None`: no limit.
        queue: Option<usize>,
    },
    /// One-way delay.
    Delay(Duration),
}

/// A forged segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// In whose name.
    pub from: String,
    /// To whom.
    pub to: String,
    /// When it arrives.
    pub at: Instant,
    /// Its flags.
    pub flags: Flags,
    /// Its sequence number.
    pub seq: SeqSpec,
    /// Its acknowledgment number, where it has the ACK flag.
    pub ack: SeqSpec,
    /// Its window field.
    pub window: u16,
    /// Bytes of payload.
    pub len: usize,
    /// Ports; `None`: those of the pair's last connection.
    pub source_port: Option<u16>,
    /// See `source_port`.
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
    /// How many of them.
    pub times: u32,
    /// Time between them.
    pub every: Duration,
}

/// Which timestamps a forged segment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampSpec {
    /// The last that went that way, if any.
    Last,
    /// None.
    Absent,
    /// These.
    Given(Timestamps),
}

/// A sequence number of a forged segment, in terms of the connection that it pretends to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeqSpec {
    /// Relative to the ISS.
    Relative(i64),
    /// Relative to what the receiver expects next.
    RcvNxt(i64),
    /// Relative to the right edge of the receiver's window.
    RcvEnd(i64),
    /// Relative to what the sender would send next.
    SndNxt(i64),
    /// As it is.
    Absolute(u32),
}

/// A forged ICMP error about the last segment that went a way.
#[derive(Clone, Debug, PartialEq)]
pub struct IcmpInjection {
    /// Sender of the segment, who gets the error.
    pub from: String,
    /// Where the segment went.
    pub to: String,
    /// When it arrives.
    pub at: Instant,
    /// What it says.
    pub kind: ErrorKind,
    /// The sequence number that it quotes; `None`: that of the last segment.
    pub seq: Option<SeqSpec>,
}

/// Spoofed SYNs.
#[derive(Clone, Debug, PartialEq)]
pub struct Flood {
    /// The victim.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How many.
    pub count: u32,
    /// Where their sources are drawn from.
    pub prefix: (IpAddr, u8),
    /// How long it takes.
    pub over: Duration,
    /// When it begins.
    pub at: Instant,
}

impl Fault {
    /// Reads one fault; the caller of a file knows the place.
    pub(crate) fn read(text: &str) -> Result<Fault, String> {
        let mut words = Words::new(text);
        let kind = parse::fault(&mut words)?;
        words.end()?;
        Ok(Fault { text: text.split_whitespace().collect::<Vec<_>>().join(" "), kind })
    }

    /// The hosts that it names.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        match &self.kind {
            FaultKind::Packets { pattern, .. } => pattern.direction.hosts(),
            FaultKind::Partition { direction, .. }
            | FaultKind::Mtu { direction, .. }
            | FaultKind::Path { direction, .. } => direction.hosts(),
            FaultKind::Crash { host, .. }
            | FaultKind::Reboot { host, .. }
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
