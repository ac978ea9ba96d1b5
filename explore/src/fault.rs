//! The faults that may befall a packet, in the words of the lab.

use steadfast_core::{Duration, Instant};

use crate::ends::{END_NAMES, START};
use crate::forge::Forgery;

/// The MTU of a narrow link. IPv6 needs 1280.
pub(crate) const NARROW: u32 = 1300;

/// How long a host has no address.
pub(crate) const ADDRESS_LOST: Duration = Duration::from_secs(5);

/// The size of a fragment. The first one holds the header of TCP.
pub(crate) const FRAGMENT: usize = 112;

/// A fault that befalls a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is lost.
    Lose,
    /// A copy arrives 30 ms after it: while its connection lives.
    Duplicate,
    /// A copy arrives 3 s after it: an old duplicate.
    DuplicateLate,
    /// It arrives after the next packet of its direction.
    Reorder,
    /// It arrives 1.5 s late: after retransmissions.
    Delay,
    /// A router marks it with CE, if it may.
    Mark,
    /// Its receiver crashes before it arrives, and boots with a new secret.
    Reboot,
    /// The path is cut for 5 s, or for 40 s.
    Cut,
    /// As `Cut`, for 40 s.
    CutLong,
    /// A router drops it, and says that the host is unreachable.
    Reject,
    /// From it on, a link of its direction carries 1300 bytes at most, and says so.
    Narrow,
    /// A bit of it is flipped.
    Corrupt,
    /// It arrives in fragments of 112 bytes at most.
    Fragment,
    /// As `Fragment`, and the second one is lost.
    FragmentLost,
    /// Its receiver has no address from before its arrival on, for 5 s.
    LoseAddress,
    /// Somebody forges a packet 5 ms after it.
    Forge(Forgery),
}

impl Fault {
    /// The sorts of a [`Budget`](crate::Budget), by name. A forged packet counts as one sort, whatever its kind.
    pub(crate) const SORTS: [&str; 16] = [
        "lose",
        "duplicate",
        "duplicate-late",
        "reorder",
        "delay",
        "mark",
        "reboot",
        "cut",
        "cut-long",
        "reject",
        "narrow",
        "corrupt",
        "fragment",
        "fragment-lost",
        "lose-address",
        "forge",
    ];

    /// The faults of the path and of the hosts: all but forged packets.
    pub const ALL: [Fault; 15] = [
        Fault::Lose,
        Fault::Duplicate,
        Fault::DuplicateLate,
        Fault::Reorder,
        Fault::Delay,
        Fault::Mark,
        Fault::Reboot,
        Fault::Cut,
        Fault::CutLong,
        Fault::Reject,
        Fault::Narrow,
        Fault::Corrupt,
        Fault::Fragment,
        Fault::FragmentLost,
        Fault::LoseAddress,
    ];

    /// Everything that may befall a packet.
    pub fn every() -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().chain(Forgery::all().map(Fault::Forge))
    }

    /// Its sort.
    pub(crate) fn sort(self) -> usize {
        let place = Fault::ALL.iter().position(|fault| *fault == self);
        place.unwrap_or(Fault::ALL.len())
    }

    /// How long the path is cut.
    pub(crate) fn cut(self) -> Option<Duration> {
        match self {
            Fault::Cut => Some(Duration::from_secs(5)),
            Fault::CutLong => Some(Duration::from_secs(40)),
            _ => None,
        }
    }

    /// Returns whether the packet, or a copy, arrives after others that were sent later.
    pub(crate) fn is_late(self) -> bool {
        matches!(self, Fault::Duplicate | Fault::DuplicateLate | Fault::Reorder | Fault::Delay)
    }

    /// Returns whether connections survive it: TCP has to mend it, and applications notice nothing but time.
    pub(crate) fn is_mended(self) -> bool {
        !matches!(self, Fault::Reboot | Fault::Cut | Fault::CutLong | Fault::LoseAddress)
    }
}

/// A fault of a schedule, and the packet that it befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The sender: 0 is C, and 1 is S.
    pub from: usize,
    /// Its number among all packets of its sender, from 1 on.
    pub number: u32,
    /// When it is sent.
    pub at: Instant,
    /// The fault.
    pub fault: Fault,
}

impl std::fmt::Display for Choice {
    /// Writes the fault as `--fault` of `steadfast lab run` reads it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (END_NAMES[self.from], END_NAMES[1 - self.from]);
        let packet = format!("{from}>{to} all {}", self.number);
        let time = |at: Instant| format!("{:.3}", (at - START).as_secs_f64());
        match self.fault {
            Fault::Forge(forgery) => {
                let (other, victim) = if forgery.ahead { (from, to) } else { (to, from) };
                forgery.write(f, other, victim, &time(self.at + Duration::from_millis(5)))
            }
            Fault::Reject => write!(f, "reject {packet} with host-unreachable"),
            Fault::Narrow => write!(f, "mtu {from}>{to} {NARROW} icmp from {}", time(self.at)),
            Fault::Corrupt => write!(f, "corrupt {packet} tcp"),
            Fault::Fragment => write!(f, "fragment {packet} to {FRAGMENT}"),
            Fault::FragmentLost => write!(f, "fragment {packet} to {FRAGMENT} lose 2"),
            Fault::LoseAddress => {
                let from = self.at + Duration::from_millis(5);
                write!(f, "lose-address {to} from {} until {}", time(from), time(from + ADDRESS_LOST))
            }
            Fault::Lose => write!(f, "lose {packet}"),
            Fault::Duplicate => write!(f, "duplicate {packet} after 30ms"),
            Fault::DuplicateLate => write!(f, "duplicate {packet} after 3s"),
            Fault::Reorder => write!(f, "reorder {packet}"),
            Fault::Delay => write!(f, "delay {packet} by 1.5s"),
            Fault::Mark => write!(f, "rewrite {packet} ecn=3"),
            Fault::Reboot => write!(f, "reboot {to} at {}", time(self.at + Duration::from_millis(5))),
            Fault::Cut | Fault::CutLong => {
                let until = self.at + self.fault.cut().unwrap_or_default();
                write!(f, "partition C|S from {} until {}", time(self.at), time(until))
            }
        }
    }
}
