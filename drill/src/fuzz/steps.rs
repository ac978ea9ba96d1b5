//! The steps of generated scripts.

use std::fmt;

use steadfast_core::Shutdown;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::wire::tcp::Flags;

/// A generator of numbers: SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// Who connects, and the options of the script's SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(super) active: bool,
    pub(super) ipv6: bool,
    pub(super) sack: bool,
    pub(super) scale: bool,
    pub(super) timestamps: bool,
}

impl Opening {
    /// A passive open over IPv4, with SACK and window scale.
    pub(super) const PLAIN: Opening =
        Opening { active: false, ipv6: false, sack: true, scale: true, timestamps: false };

    pub(super) fn generate(dice: &mut Dice) -> Opening {
        Opening {
            active: dice.roll(4) == 0,
            ipv6: dice.roll(4) == 0,
            sack: dice.roll(4) > 0,
            scale: dice.roll(4) > 0,
            timestamps: dice.roll(4) == 0,
        }
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.active { "connect" } else { "accept" })?;
        f.write_str(if self.ipv6 { ", IPv6" } else { "" })?;
        f.write_str(if self.sack { "" } else { ", no SACK" })?;
        f.write_str(if self.scale { "" } else { ", no window scale" })?;
        f.write_str(if self.timestamps { ", timestamps" } else { "" })
    }
}

/// A step: a packet to the subject, or a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Segment(SegmentStep),
    /// An ICMP error that quotes a segment of the subject.
    Icmp {
        kind: ErrorKind,
        seq: Edge,
    },
    Write {
        len: usize,
        more: bool,
        end_of_record: bool,
    },
    Read(usize),
    /// A number for an option of `IPPROTO_TCP`.
    Set(&'static str, i64),
    /// `SO_LINGER` with no time.
    LingerOff,
    /// `SO_ERROR`
    Error,
    Shutdown(Shutdown),
    Close,
}

/// Flags, places of SEQ and ACK, length, window field, whether the timestamp is an old one, and a SACK block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentStep {
    pub(crate) flags: Flags,
    pub(crate) seq: Edge,
    pub(crate) ack: Edge,
    pub(crate) len: u16,
    pub(crate) window: u16,
    pub(crate) old_timestamp: bool,
    /// Told if SACK was agreed to, and the segment has an ACK.
    pub(crate) sack: Option<Sack>,
}

/// The part of the subject's data that a SACK block covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sack {
    /// All but the first 1000 bytes.
    Rest,
    /// The second 1000 bytes.
    Second,
    /// The last segment, where all have 1000 bytes but that.
    Last,
    /// The last byte that the segment acknowledges: a duplicate.
    Below,
    /// A byte that was never sent.
    Beyond,
}

impl Sack {
    const ALL: [Sack; 5] = [Sack::Rest, Sack::Second, Sack::Last, Sack::Below, Sack::Beyond];

    /// The block, where all up to `ack` is acknowledged and all up to `sent` was sent. `None`: there is no such block.
    pub(super) fn of(self, ack: u32, sent: u32) -> Option<(u32, u32)> {
        let (left, right) = match self {
            Sack::Rest => (ack.wrapping_add(1000), sent),
            Sack::Second => (ack.wrapping_add(1000), ack.wrapping_add(2000)),
            Sack::Last => (ack.wrapping_add(sent.wrapping_sub(ack.wrapping_add(1)) / 1000 * 1000), sent),
            Sack::Below => return Some((ack.wrapping_sub(1), ack)),
            Sack::Beyond => return Some((sent, sent.wrapping_add(1))),
        };
        let inside = |number: u32| number.wrapping_sub(ack) <= sent.wrapping_sub(ack);
        (left != ack && left != right && inside(left) && inside(right)).then_some((left, right))
    }
}

/// A place near an edge of a window, or of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edge {
    FarBelow,
    Below,
    Left,
    Within,
    Right,
    Above,
    FarAbove,
}

impl Edge {
    const ALL: [Edge; 7] =
        [Edge::FarBelow, Edge::Below, Edge::Left, Edge::Within, Edge::Right, Edge::Above, Edge::FarAbove];

    /// The number at this place of the range from `left` to `right`.
    pub(super) fn of(self, left: u32, right: u32) -> u32 {
        let size = right.wrapping_sub(left);
        match self {
            Edge::FarBelow => left.wrapping_sub(100_000),
            Edge::Below => left.wrapping_sub(1),
            Edge::Left => left,
            Edge::Within => left.wrapping_add(if size > 1000 { 1000 } else { size / 2 }),
            Edge::Right => right,
            Edge::Above => right.wrapping_add(1),
            Edge::FarAbove => left.wrapping_add(100_000_000),
        }
    }
}

const ICMP: [ErrorKind; 6] = [
    ErrorKind::NetworkUnreachable,
    ErrorKind::HostUnreachable,
    ErrorKind::PortUnreachable,
    ErrorKind::ProtocolUnreachable,
    ErrorKind::AdminProhibited,
    ErrorKind::TimeExceeded,
];

const FLAGS: [Flags; 8] = [
    Flags::ACK,
    Flags(Flags::ACK.0 | Flags::PSH.0),
    Flags(Flags::ACK.0 | Flags::FIN.0),
    Flags::RST,
    Flags(Flags::RST.0 | Flags::ACK.0),
    Flags::SYN,
    Flags(Flags::SYN.0 | Flags::ACK.0),
    Flags::FIN,
];
/// The event of a segment with a SACK block.
const SACK: &str = ". sack";
const ICMP_EDGES: [Edge; 4] = [Edge::Left, Edge::Below, Edge::Within, Edge::Right];
const OPTIONS: [(&str, i64); 3] = [("TCP_NODELAY", 1), ("TCP_CORK", 1), ("TCP_CORK", 0)];
const SHUTDOWNS: [Shutdown; 3] = [Shutdown::Write, Shutdown::Read, Shutdown::Both];

/// All events of steps, each with the edges that it can be near.
pub(super) fn events() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for flags in FLAGS {
        for len in [0, 1] {
            let edges = Edge::ALL.iter().flat_map(|seq| Edge::ALL.map(|ack| (*seq, ack)));
            let step = |(seq, ack)| SegmentStep {
                flags,
                seq,
                ack,
                len,
                window: 0,
                old_timestamp: false,
                sack: None,
            };
            let classes: Vec<_> = edges.map(|edges| Step::Segment(step(edges)).class()).collect();
            all.extend(
                classes
                    .first()
                    .map(|(event, _)| event.clone())
                    .map(|event| (event, classes.into_iter().map(|(_, edges)| edges).collect())),
            );
        }
    }
    for kind in ICMP {
        let edges = ICMP_EDGES.map(|seq| Step::Icmp { kind, seq }.class());
        all.push((edges[0].0.clone(), edges.map(|(_, edges)| edges).to_vec()));
    }
    let mut calls = vec![Step::Write { len: 1, more: false, end_of_record: false }, Step::Read(1)];
    calls.extend(OPTIONS.map(|(name, value)| Step::Set(name, value)));
    calls.extend(SHUTDOWNS.map(Step::Shutdown));
    calls.extend([Step::LingerOff, Step::Error, Step::Close]);
    all.extend(calls.iter().map(|step| (step.class().0, vec![String::new()])));
    all
}

impl Step {
    /// As [`generate`](Step::generate), with a SACK block now and then.
    pub(super) fn generate_with_sack(dice: &mut Dice) -> Step {
        match dice.roll(8) {
            0 => Step::Segment(SegmentStep::with_sack(dice)),
            _ => Step::generate(dice),
        }
    }

    pub(super) fn generate(dice: &mut Dice) -> Step {
        match dice.roll(24) {
            0..=13 => Step::Segment(SegmentStep::generate(dice)),
            14..=16 => Step::Write {
                len: dice.pick(&[1, 100, 999, 1000, 1001, 2500, 10_000, 25_000]),
                more: dice.roll(5) == 0,
                end_of_record: dice.roll(5) == 0,
            },
            17 => Step::Read(dice.pick(&[1, 10_000])),
            18 => {
                let (name, value) = dice.pick(&OPTIONS);
                Step::Set(name, value)
            }
            19 => Step::Shutdown(dice.pick(&SHUTDOWNS)),
            20 => Step::Icmp {
                kind: dice.pick(&ICMP),
                seq: if dice.roll(2) == 0 { Edge::Left } else { dice.pick(&ICMP_EDGES) },
            },
            21 => Step::Error,
            22 => Step::LingerOff,
            _ => Step::Close,
        }
    }

    #[cfg(test)]
    pub(super) fn write(len: usize) -> Step {
        Step::Write { len, more: false, end_of_record: false }
    }

    /// The name of the event, and the edges that it is near.
    pub(super) fn class(&self) -> (String, String) {
        match self {
            Step::Segment(SegmentStep { sack: Some(sack), .. }) => (SACK.to_owned(), format!("{sack:?}")),
            Step::Segment(SegmentStep { flags, seq, ack, len, .. }) => {
                (format!("{flags}{}", if *len > 0 { " data" } else { "" }), format!("{seq:?}/{ack:?}"))
            }
            Step::Icmp { kind, seq } => (format!("ICMP {kind:?}"), format!("{seq:?}")),
            Step::Write { .. } => ("write".to_owned(), String::new()),
            Step::Shutdown(how) => (format!("shutdown {how:?}"), String::new()),
            Step::Read(_) => ("read".to_owned(), String::new()),
            step => (step.to_string(), String::new()),
        }
    }
}

impl SegmentStep {
    fn generate(dice: &mut Dice) -> SegmentStep {
        let flags = if dice.roll(4) == 0 { Flags::ACK } else { dice.pick(&FLAGS) };
        let usual = |dice: &mut Dice, edge| if dice.roll(3) > 0 { edge } else { dice.pick(&Edge::ALL) };
        SegmentStep {
            flags,
            seq: usual(dice, Edge::Left),
            ack: usual(dice, Edge::Right),
            len: dice.pick(&[0, 0, 0, 1, 1000]),
            window: dice.pick(&[300, 300, 300, 257, 16, 8, 0]),
            old_timestamp: dice.roll(8) == 0,
            sack: None,
        }
    }

    /// A segment in order with a SACK block.
    fn with_sack(dice: &mut Dice) -> SegmentStep {
        SegmentStep {
            flags: Flags::ACK,
            seq: Edge::Left,
            ack: dice.pick(&[Edge::Left, Edge::Left, Edge::Within]),
            len: dice.pick(&[0, 0, 0, 0, 1]),
            window: 300,
            old_timestamp: false,
            sack: Some(dice.pick(&Sack::ALL)),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Segment(SegmentStep { flags, seq, ack, len, window, old_timestamp, sack }) => {
                write!(f, "< {flags} {seq:?} len {len} ack {ack:?} win {window}")?;
                f.write_str(if *old_timestamp { " old timestamp" } else { "" })?;
                sack.map_or(Ok(()), |sack| write!(f, " sack {sack:?}"))
            }
            Step::Icmp { kind, seq } => write!(f, "< icmp {kind:?} of {seq:?}"),
            Step::Write { len, more, end_of_record } => {
                write!(f, "write {len}")?;
                f.write_str(if *more { " more" } else { "" })?;
                f.write_str(if *end_of_record { " eor" } else { "" })
            }
            Step::Read(len) => write!(f, "read {len}"),
            Step::Set(option, value) => write!(f, "{option} {value}"),
            Step::LingerOff => f.write_str("linger 0"),
            Step::Error => f.write_str("SO_ERROR"),
            Step::Shutdown(how) => write!(f, "shutdown {how:?}"),
            Step::Close => f.write_str("close"),
        }
    }
}
