//! Forwarders: which destinations they take, the SYNs that wait for their decision, the datagrams that they carry, and the
//! answers to those that are refused.

mod datagram;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

pub use self::datagram::{Echo, UdpPacket};

use crate::config::Config;
use crate::error::Error;
use crate::ip::prefix::prefix_covers;
use crate::seq::SeqNum;
use crate::socket::SocketId;
use crate::table::Table;
use crate::tcp::listen::Offer;
use crate::tcp::segment::Segment;
use crate::time::{Duration, Tick};
use crate::tuple::FourTuple;
use crate::wheel::TimerId;
use crate::wire::icmp::ErrorKind;
use crate::wire::{Ecn, PROTOCOL_TCP, ipv4, ipv6};

/// The destinations that a forwarder takes.
///
/// ```
/// use steadfast_core::ForwardRule;
///
/// let web = ForwardRule::to("198.51.100.0".parse().unwrap(), 24).with_ports(80..=443);
/// assert!(web.covers("198.51.100.7:443".parse().unwrap()));
/// assert!(!web.covers("198.51.100.7:22".parse().unwrap()));
/// assert!(ForwardRule::all().covers("[2001:db8::1]:22".parse().unwrap()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRule {
    /// `None`: all addresses of both families.
    network: Option<(IpAddr, u8)>,
    ports: (u16, u16),
}

impl ForwardRule {
    /// All addresses and ports.
    pub fn all() -> ForwardRule {
        ForwardRule { network: None, ports: (1, u16::MAX) }
    }

    /// All ports of the addresses whose first `prefix_len` bits are those of `network`.
    pub fn to(network: IpAddr, prefix_len: u8) -> ForwardRule {
        ForwardRule { network: Some((network, prefix_len)), ..ForwardRule::all() }
    }

    /// Returns the rule for these ports alone.
    pub fn with_ports(self, ports: RangeInclusive<u16>) -> ForwardRule {
        ForwardRule { ports: (*ports.start(), *ports.end()), ..self }
    }

    /// Returns whether the rule covers a destination.
    pub fn covers(&self, destination: SocketAddr) -> bool {
        let (first, last) = self.ports;
        self.covers_address(destination.ip()) && (first..=last).contains(&destination.port())
    }

    pub(crate) fn covers_address(&self, address: IpAddr) -> bool {
        self.network.is_none_or(|(network, len)| prefix_covers(network, len, address))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let longest = |network: IpAddr| if network.is_ipv4() { 32 } else { 128 };
        let fits = self.network.is_none_or(|(network, len)| len <= longest(network));
        if fits && self.ports.0 <= self.ports.1 { Ok(()) } else { Err(Error::InvalidArgument) }
    }

    /// A rule is asked before those that are less specific: by the length of its prefix, then by the number of ports.
    pub(crate) fn rank(&self) -> (u8, u16) {
        let len = self.network.map_or(0, |(_, len)| len + 1);
        (u8::MAX - len, self.ports.1 - self.ports.0)
    }
}

/// The answer to a request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// A RST: nobody listens there (ECONNREFUSED). For a datagram of UDP, as `PortUnreachable`.
    Reset,
    /// ICMP: no route to the network (ENETUNREACH).
    NetUnreachable,
    /// ICMP: the host does not answer (EHOSTUNREACH).
    HostUnreachable,
    /// ICMP: no socket is bound to the port (ECONNREFUSED).
    PortUnreachable,
    /// ICMP: policy forbids it (EHOSTUNREACH, with IPv6 EACCES).
    AdminProhibited,
    /// ICMP: the hop limit was exceeded on the way.
    TimeExceeded,
    /// None: the timer of the peer's SYN decides.
    Silent,
}

impl Reject {
    /// Returns the answer that tells a peer what the dial on its behalf met.
    ///
    /// | error of the dial | answer |
    /// |---|---|
    /// | ENETUNREACH, ENETDOWN | [`NetUnreachable`](Reject::NetUnreachable) |
    /// | EHOSTUNREACH | [`HostUnreachable`](Reject::HostUnreachable) |
    /// | EACCES, EPERM | [`AdminProhibited`](Reject::AdminProhibited) |
    /// | ETIMEDOUT; EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL, as the next SYN may succeed | [`Silent`](Reject::Silent) |
    /// | ECONNREFUSED and all others | [`Reset`](Reject::Reset) |
    pub fn from_io(error: &io::Error) -> Reject {
        /// ENFILE and EMFILE everywhere, then ENOBUFS of Linux and of BSD. They have no kind.
        const EXHAUSTED: [i32; 4] = [23, 24, 105, 55];
        if error.raw_os_error().is_some_and(|errno| EXHAUSTED.contains(&errno)) {
            return Reject::Silent;
        }
        match error.kind() {
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Reject::NetUnreachable,
            io::ErrorKind::HostUnreachable => Reject::HostUnreachable,
            io::ErrorKind::PermissionDenied => Reject::AdminProhibited,
            io::ErrorKind::TimedOut | io::ErrorKind::OutOfMemory | io::ErrorKind::AddrNotAvailable => {
                Reject::Silent
            }
            _ => Reject::Reset,
        }
    }

    /// The ICMP error, if it is one.
    pub(crate) fn icmp(self) -> Option<ErrorKind> {
        Some(match self {
            Reject::Reset | Reject::Silent => return None,
            Reject::NetUnreachable => ErrorKind::NetworkUnreachable,
            Reject::HostUnreachable => ErrorKind::HostUnreachable,
            Reject::PortUnreachable => ErrorKind::PortUnreachable,
            Reject::AdminProhibited => ErrorKind::AdminProhibited,
            Reject::TimeExceeded => ErrorKind::TimeExceeded,
        })
    }
}

/// A SYN that waits for a decision, as its forwarder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Syn {
    /// Who asks.
    pub source: SocketAddr,
    /// The address that it asks for.
    pub destination: SocketAddr,
    /// The MSS option, or 536 (IPv4) or 1220 (IPv6) if it is missing (RFC 9293 §3.7.1).
    pub mss: u16,
    /// The shift of its windows, if it offers scaling.
    pub window_scale: Option<u8>,
    /// It offers selective acknowledgements.
    pub sack_permitted: bool,
    /// TSval of the last SYN, if it offers timestamps.
    pub timestamp: Option<u32>,
    /// It asks for ECN.
    pub ecn: bool,
    /// TTL or hop limit with which it arrived.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// SYNs that have arrived, the retransmitted ones included.
    pub count: u16,
}

/// A SYN that waits for a decision: what a SYN-ACK or an ICMP error needs of it.
#[derive(Clone, Debug)]
pub(crate) struct PendingSyn {
    pub(crate) tuple: FourTuple,
    pub(crate) irs: SeqNum,
    /// Chosen when the SYN arrives: it is above all numbers of the TIME-WAIT that the SYN replaced.
    pub(crate) iss: SeqNum,
    pub(crate) ts_val: u32,
    pub(crate) timer: TimerId,
    pub(crate) socket: SocketId,
    first: Tick,
    last: Tick,
    /// Milliseconds between the last two SYNs, or [`FIRST_GAP`].
    gap: u32,
    count: u16,
    peer_mss: u16,
    /// From the IP header of the last SYN.
    identification: u16,
    len: u16,
    offer_bits: u8,
    ttl: u8,
    tos: u8,
    dont_fragment: bool,
}

const _: () = assert!(Table::<PendingSyn>::ROW <= 96);

/// How long a peer is taken to wait for its second SYN (RFC 1122 §4.2.3.1 has three seconds), in milliseconds.
const FIRST_GAP: u32 = 3000;
/// A SYN that follows sooner is a copy that the network made, and says nothing about the peer's timer.
const COPY: u32 = 500;

impl PendingSyn {
    /// The caller gives it a timer.
    pub(crate) fn new(
        segment: &Segment<'_>,
        quote: &[u8],
        socket: SocketId,
        iss: SeqNum,
        offer: Offer,
        now: Tick,
    ) -> PendingSyn {
        let mut pending = PendingSyn {
            tuple: segment.tuple,
            irs: segment.seq(),
            iss,
            ts_val: 0,
            timer: TimerId::NONE,
            socket,
            first: now,
            last: now,
            gap: FIRST_GAP,
            count: 0,
            peer_mss: offer.peer_mss,
            identification: 0,
            len: 0,
            offer_bits: offer.bits,
            ttl: 0,
            tos: 0,
            dont_fragment: false,
        };
        pending.hear(segment, quote, now);
        pending
    }

    /// The SYN has come, for the first time or again. `quote`: its packet.
    pub(crate) fn hear(&mut self, segment: &Segment<'_>, quote: &[u8], now: Tick) {
        self.count = self.count.saturating_add(1);
        self.ts_val = segment.options().timestamps.map_or(self.ts_val, |ts| ts.val);
        let gap = now.elapsed(self.last);
        if gap >= COPY {
            (self.gap, self.last) = (gap, now);
        }
        self.len = u16::try_from(quote.len()).unwrap_or(u16::MAX);
        let service = |dscp: u8, ecn: Ecn| dscp << 2 | ecn.bits();
        if self.tuple.is_ipv4() {
            if let Some((header, _)) = ipv4::parse_quoted(quote) {
                (self.ttl, self.tos) = (header.ttl, service(header.dscp, header.ecn));
                (self.identification, self.dont_fragment) = (header.identification, header.dont_fragment);
            }
        } else if let Some((header, _)) = ipv6::parse_quoted(quote) {
            (self.ttl, self.tos) = (header.hop_limit, service(header.dscp, header.ecn));
        }
    }

    pub(crate) fn offer(&self) -> Offer {
        Offer { peer_mss: self.peer_mss, bits: self.offer_bits }
    }

    /// The time at which it is forgotten. A peer that doubles its intervals asks again within twice the last one, so
    /// after two and a half it has given up.
    pub(crate) fn deadline(&self, config: &Config) -> Tick {
        let patience = self.gap.saturating_mul(5) / 2;
        let limit = config.forward_pending_limit.min(Duration::from_millis(Tick::MAX_AHEAD.into()));
        let limit = Tick(self.first.0.wrapping_add(limit.as_millis() as u32));
        Tick(self.last.0.wrapping_add(patience.min(Tick::MAX_AHEAD))).earlier(limit)
    }

    pub(crate) fn shown(&self) -> Syn {
        let offer = self.offer();
        Syn {
            source: self.tuple.remote(),
            destination: self.tuple.local(),
            mss: self.peer_mss,
            window_scale: offer.wscale(),
            sack_permitted: offer.sack(),
            timestamp: offer.timestamps().then_some(self.ts_val),
            ecn: offer.ecn(),
            ttl: self.ttl,
            tos: self.tos,
            count: self.count,
        }
    }

    /// The start of its packet, for an ICMP error to quote: the IP header and the eight bytes after it, by which the
    /// peer finds its socket (RFC 792, RFC 4443 §2.4). The rest is not kept.
    pub(crate) fn quote(&self) -> Vec<u8> {
        let (dscp, ecn) = (self.tos >> 2, Ecn::from_bits(self.tos));
        let mut quote = match self.tuple.ipv4() {
            Some((destination, source)) => {
                let header = ipv4::Header {
                    ttl: self.ttl,
                    dscp,
                    ecn,
                    identification: self.identification,
                    dont_fragment: self.dont_fragment,
                    ..ipv4::Header::new(source, destination, PROTOCOL_TCP)
                };
                let mut quote = vec![0; ipv4::HEADER_LEN];
                header.emit(usize::from(self.len).saturating_sub(ipv4::HEADER_LEN), &mut quote);
                quote
            }
            None => {
                let FourTuple { local_address, remote_address, .. } = self.tuple;
                let header = ipv6::Header {
                    hop_limit: self.ttl,
                    dscp,
                    ecn,
                    ..ipv6::Header::new(remote_address, local_address, PROTOCOL_TCP)
                };
                let mut quote = vec![0; ipv6::HEADER_LEN];
                header.emit(usize::from(self.len).saturating_sub(ipv6::HEADER_LEN), &mut quote);
                quote
            }
        };
        quote.extend(self.tuple.remote_port.to_be_bytes());
        quote.extend(self.tuple.local_port.to_be_bytes());
        quote.extend(self.irs.0.to_be_bytes());
        quote
    }
}
