//! Packets that nobody sent: segments and ICMP errors of somebody who guesses numbers, or who knows them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::trace::State;
use steadfast_core::{Duration, Variables};
use steadfast_wire::build;
use steadfast_wire::icmp::{ErrorKind, Message};
use steadfast_wire::seq::SeqNum;
use steadfast_wire::tcp::{Flags, Header, Options, Timestamps};

use crate::arrival::parse;

/// A forged packet of a certain kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forgery {
    /// Its place in [`KINDS`].
    kind: u8,
    /// It is sent to the receiver of the packet that it goes with, in the name of the sender. Otherwise to the sender.
    pub(crate) ahead: bool,
}

/// A number in terms of its victim's variables, in the words of the lab.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// RCV.NXT in a sequence number; in an acknowledgment number, what the victim has heard acknowledged.
    RcvNxt(i32),
    /// The right edge of the victim's window.
    RcvEnd(i32),
    /// The victim's SND.NXT.
    SndNxt(i32),
}

use Number::{RcvEnd, RcvNxt, SndNxt};

impl Number {
    /// A number of the other side's sequence space.
    fn at(self, nxt: SeqNum, window: u32) -> SeqNum {
        match self {
            RcvNxt(add) | SndNxt(add) => nxt + add as u32,
            RcvEnd(add) => nxt + window + add as u32,
        }
    }

    /// A number of the victim's own sequence space.
    fn acknowledging(self, una: SeqNum, snd_nxt: SeqNum) -> SeqNum {
        match self {
            SndNxt(add) => snd_nxt + add as u32,
            RcvNxt(add) | RcvEnd(add) => una + add as u32,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, add) = match self {
            RcvNxt(add) => ("rcv.nxt", add),
            RcvEnd(add) => ("rcv.end", add),
            SndNxt(add) => ("snd.nxt", add),
        };
        if *add == 0 { f.write_str(name) } else { write!(f, "{name}{add:+}") }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Segment {
        flags: Flags,
        seq: Number,
        ack: Number,
        len: usize,
        more: More,
    },
    /// An error about a segment of the victim that begins there: at SND.UNA, or at SND.NXT.
    Error {
        kind: ErrorKind,
        words: &'static str,
        seq: Number,
    },
}

/// Properties that few forged segments have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    No,
    /// The same comes again after [`AGAIN`].
    Twice,
    /// It comes from port 0.
    NoPort,
    /// The urgent data ends 100 bytes after its first byte.
    Urgent,
}

/// When a segment comes again.
pub(crate) const AGAIN: Duration = Duration::from_millis(1);

const fn segment(flags: u16, seq: Number, ack: Number, len: usize) -> Kind {
    with(More::No, flags, seq, ack, len)
}

const fn with(more: More, flags: u16, seq: Number, ack: Number, len: usize) -> Kind {
    Kind::Segment { flags: Flags(flags), seq, ack, len, more }
}

const fn error(kind: ErrorKind, words: &'static str, seq: Number) -> Kind {
    Kind::Error { kind, words, seq }
}

const FIN: u16 = Flags::FIN.0;
const SYN: u16 = Flags::SYN.0;
const RST: u16 = Flags::RST.0;
const PSH: u16 = Flags::PSH.0;
const ACK: u16 = Flags::ACK.0;
const URG: u16 = Flags::URG.0;

/// The urgent pointer of forged segments.
const URGENT: u16 = 100;

/// An acknowledgment number that is too old for any window.
const STALE: i32 = -(1 << 30) - 1_000_000;

/// Each kind breaks one check of RFC 9293 §3.10.7, or of RFC 5961, and passes those before it. The first one passes all.
const KINDS: [Kind; 37] = [
    segment(RST, RcvNxt(0), RcvNxt(0), 0),
    segment(RST, RcvNxt(1), RcvNxt(0), 0),
    segment(RST, RcvEnd(-1), RcvNxt(0), 0),
    segment(RST, RcvEnd(0), RcvNxt(0), 0),
    segment(RST, RcvNxt(-2), RcvNxt(0), 0),
    segment(RST | ACK, RcvNxt(-2), SndNxt(1), 0),
    segment(RST | ACK, RcvNxt(-2), RcvNxt(0), 0),
    segment(SYN, RcvNxt(0), RcvNxt(0), 0),
    with(More::Twice, SYN, RcvNxt(-2), RcvNxt(0), 0),
    with(More::NoPort, SYN, RcvNxt(-2), RcvNxt(0), 0),
    segment(SYN, RcvNxt(-1), RcvNxt(0), 0),
    segment(SYN | ACK, RcvNxt(-1), SndNxt(0), 0),
    segment(SYN | ACK, RcvNxt(0), SndNxt(0), 0),
    segment(SYN | ACK, RcvNxt(0), SndNxt(1), 0),
    segment(SYN | ACK, RcvNxt(-2), RcvNxt(0), 0),
    segment(SYN | RST, RcvNxt(0), RcvNxt(0), 0),
    with(More::Twice, ACK, RcvEnd(0), RcvNxt(0), 0),
    segment(ACK, RcvEnd(0), SndNxt(0), 0),
    with(More::Twice, ACK, RcvNxt(-1), RcvNxt(0), 0),
    segment(ACK, RcvNxt(-1), SndNxt(0), 0),
    segment(PSH | ACK, RcvEnd(0), RcvNxt(0), 10),
    segment(PSH | ACK, RcvEnd(0), SndNxt(0), 10),
    segment(PSH | ACK, RcvNxt(-10), RcvNxt(0), 10),
    segment(PSH | ACK, RcvNxt(-10), SndNxt(0), 10),
    with(More::Urgent, URG | ACK, RcvNxt(0), RcvNxt(0), 0),
    with(More::Urgent, URG | PSH | ACK, RcvEnd(0), RcvNxt(0), 10),
    segment(ACK, RcvNxt(0), SndNxt(1), 0),
    segment(PSH | ACK, RcvNxt(0), SndNxt(1), 10),
    segment(ACK, RcvNxt(0), RcvNxt(STALE), 0),
    segment(PSH | ACK, RcvNxt(0), RcvNxt(STALE), 10),
    segment(PSH, RcvNxt(0), RcvNxt(0), 10),
    segment(FIN, RcvNxt(0), RcvNxt(0), 0),
    segment(FIN | ACK, RcvNxt(0), SndNxt(1), 0),
    segment(FIN | ACK, RcvNxt(-1), RcvNxt(0), 0),
    error(ErrorKind::PortUnreachable, "port-unreachable", RcvNxt(0)),
    error(ErrorKind::PortUnreachable, "port-unreachable", SndNxt(1)),
    error(ErrorKind::PacketTooBig { mtu: 576 }, "too-big 576", SndNxt(1)),
];

impl Forgery {
    /// All that may go with one packet.
    pub(crate) fn all() -> impl Iterator<Item = Forgery> {
        let kinds = || 0..KINDS.len() as u8;
        let to_sender = kinds().map(|kind| Forgery { kind, ahead: false });
        to_sender.chain(kinds().map(|kind| Forgery { kind, ahead: true }))
    }

    fn kind(self) -> Kind {
        KINDS[usize::from(self.kind)]
    }

    /// Returns whether the victim has to go on as if there were none.
    pub(crate) fn is_harmless(self, victim: &Variables, keeps_time_wait: bool) -> bool {
        let Variables { state, rcv, .. } = *victim;
        let (nxt, window) = rcv.unwrap_or_default();
        match self.kind() {
            // No host takes it.
            Kind::Segment { flags, .. } if flags.rst() && flags.syn() => true,
            // A listener answers nothing from port 0.
            Kind::Segment { more: More::NoPort, .. } => true,
            Kind::Segment { flags, seq, .. } if flags.rst() => match state {
                State::Closed | State::Listen | State::SynSent => true,
                State::TimeWait => keeps_time_wait,
                // The edge of a closed window is RCV.NXT. A RST with the number of a FIN counts.
                _ => !matches!(seq.at(nxt, window).since(nxt - 1), 0 | 1),
            },
            // It opens a connection, or takes a half-open one for an old one.
            Kind::Segment { flags, ack: RcvNxt(_) | SndNxt(0), .. } if flags.syn() => {
                !matches!(state, State::SynSent | State::SynReceived)
            }
            // It acknowledges what may be lost.
            Kind::Segment { flags, ack: SndNxt(0), .. } if flags.ack() => victim.snd.0 == victim.snd.1,
            // It refuses a connection that is not there yet.
            Kind::Error { seq: RcvNxt(0), .. } => !matches!(state, State::SynSent | State::SynReceived),
            _ => true,
        }
    }

    /// Returns whether it says that the port of a segment in flight is closed.
    pub(crate) fn refuses(self) -> bool {
        matches!(self.kind(), Kind::Error { kind: ErrorKind::PortUnreachable, seq: RcvNxt(0), .. })
    }

    /// Returns whether it comes a second time.
    pub(crate) fn is_sent_twice(self) -> bool {
        matches!(self.kind(), Kind::Segment { more: More::Twice, .. })
    }

    /// Returns whether an error about a connection quotes what is not in flight.
    pub(crate) fn is_stray(self, victim: &Variables) -> Option<bool> {
        victim.agreed.filter(|_| !matches!(victim.state, State::SynReceived))?;
        match self.kind() {
            Kind::Error { seq: RcvNxt(0), .. } => Some(victim.snd.0 == victim.snd.1),
            Kind::Error { .. } => Some(true),
            Kind::Segment { .. } => None,
        }
    }

    /// The packet to `local`, as if from `remote` or from a router.
    pub(crate) fn packet(
        self,
        local: SocketAddr,
        remote: SocketAddr,
        victim: &Variables,
        timestamps: Option<Timestamps>,
    ) -> Option<Bytes> {
        let (una, snd_nxt) = victim.snd;
        let (nxt, window) = victim.rcv.unwrap_or_default();
        match self.kind() {
            Kind::Segment { flags, seq, ack, len, more } => {
                let seq = seq.at(nxt, window);
                let mut remote = remote;
                if more == More::NoPort {
                    remote.set_port(0);
                }
                let urgent = if more == More::Urgent { URGENT } else { 0 };
                let ack = if flags.ack() { ack.acknowledging(una, snd_nxt) } else { SeqNum(0) };
                let options = Options { timestamps, ..Options::default() };
                let header = Header { seq, ack, flags, window: 65_535, urgent, options, ..Header::default() };
                build::tcp(remote, local, header, &[b'!'; 16][..len]).map(Bytes::from)
            }
            Kind::Error { kind, seq, .. } => {
                let seq = seq.acknowledging(una, snd_nxt);
                let header = Header { seq, ack: nxt, flags: Flags::ACK, ..Header::default() };
                let quoted = build::tcp(local, remote, header, b"")?;
                error_to(local.ip(), kind, &quoted)
            }
        }
    }

    /// Writes it as the lab reads it. `victim` is the name of its receiver.
    pub(crate) fn write(
        self,
        f: &mut fmt::Formatter<'_>,
        other: &str,
        victim: &str,
        at: &str,
    ) -> fmt::Result {
        match self.kind() {
            Kind::Segment { flags, seq, ack, len, more } => {
                let more = match more {
                    More::No => String::new(),
                    More::Twice => format!(" times 2 every {}ms", AGAIN.as_millis()),
                    More::NoPort => " sport 0".to_owned(),
                    More::Urgent => format!(" urg {URGENT}"),
                };
                write!(f, "inject {other}>{victim} [{flags}] seq {seq} ack {ack} len {len}{more} at {at}")
            }
            Kind::Error { words, seq, .. } => write!(f, "icmp {victim}>{other} {words} at {at} seq {seq}"),
        }
    }
}

/// The error of a router about a segment, to its sender.
pub(crate) fn router_error(kind: ErrorKind, packet: &[u8]) -> Option<Bytes> {
    let (_, sender, ..) = parse(packet)?;
    error_to(sender.ip(), kind, &packet[..packet.len().min(QUOTED)])
}

/// Bytes of a packet that an error quotes (RFC 1812 §4.3.2.3).
const QUOTED: usize = 548;

fn error_to(host: IpAddr, kind: ErrorKind, quoted: &[u8]) -> Option<Bytes> {
    let router = match host {
        IpAddr::V4(_) => IpAddr::from([10, 0, 0, 254]),
        IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0xfe]),
    };
    build::icmp(router, host, &Message::Error { kind, quoted }).map(Bytes::from)
}
