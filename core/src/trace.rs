//! A stream of all events of a stack, for captures, ladders, JSON and tests.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::counters::{DropReason, ReplyReason};
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::tcp::Header;

pub use crate::state::{State, UnknownState};

/// The timers of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerKind {
    /// Retransmission, including SYN and SYN-ACK.
    Retransmit,
    /// Wait for reordered data (RFC 8985).
    Reordering,
    /// Loss probe (RFC 8985 §7).
    LossProbe,
    /// Zero-window probe.
    Persist,
    /// Delayed ACK.
    DelayedAck,
    /// Keepalive.
    Keepalive,
    /// FIN-WAIT-2 of an orphan.
    FinWait2,
    /// End of an orphan that did not deliver its data.
    Orphan,
    /// End of TIME-WAIT.
    TimeWait,
}

impl TimerKind {
    /// Returns the name that `ss -o` has for it. Linux does not show a delayed ACK, so that name is our own.
    pub const fn ss_name(self) -> &'static str {
        match self {
            TimerKind::Retransmit | TimerKind::Reordering | TimerKind::LossProbe => "on",
            TimerKind::Persist => "persist",
            TimerKind::DelayedAck => "delack",
            TimerKind::Keepalive | TimerKind::Orphan => "keepalive",
            TimerKind::FinWait2 | TimerKind::TimeWait => "timewait",
        }
    }
}

/// Why a retransmission began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// The retransmission timer fired.
    Timeout,
    /// Duplicate ACKs or SACK.
    FastRetransmit,
    /// A router reported that the segment was too big.
    PacketTooBig,
    /// It left before the handshake was complete, and the peer did not take it.
    Handshake,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// Time of the event.
    pub at: Instant,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// The kind of event, with its details.
    pub kind: TraceKind,
}

impl TraceEvent {
    /// Returns an event.
    pub fn new(at: Instant, local: SocketAddr, remote: SocketAddr, kind: TraceKind) -> TraceEvent {
        TraceEvent { at, local, remote, kind }
    }
}

/// The kind of an event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TraceKind {
    /// A segment with a valid header arrived.
    SegmentIn {
        /// Its header.
        header: Header,
        /// Bytes of payload.
        payload_len: usize,
    },
    /// A segment was sent.
    SegmentOut {
        /// Its header.
        header: Header,
        /// Bytes of payload.
        payload_len: usize,
    },
    /// A connection changed its state.
    State {
        /// The old state.
        from: State,
        /// The new state.
        to: State,
    },
    /// A timer fired and took effect.
    Timer(TimerKind),
    /// A packet, segment or message was dropped.
    Drop(DropReason),
    /// The stack sent a reply.
    Reply(ReplyReason),
    /// A round trip was measured.
    Rtt {
        /// The sample.
        sample: Duration,
        /// The resulting RTO.
        rto: Duration,
    },
    /// Data is considered lost.
    Loss {
        /// First sequence number to retransmit.
        seq: SeqNum,
        /// The reason.
        why: Loss,
    },
    /// The path MTU towards the peer changed.
    PathMtu(u16),
}

/// Collects events while tracing is on. While it is off, it costs one test of a flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    events: VecDeque<TraceEvent>,
    pub(crate) lost: u64,
}

impl Trace {
    /// The most events that wait to be collected.
    const LIMIT: usize = 1 << 16;

    pub(crate) fn switch(&mut self, on: bool) {
        self.on = on;
        if !on {
            self.events.clear();
        }
    }

    /// Returns whether tracing is on, for events that cost more than a copy.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn pop(&mut self) -> Option<TraceEvent> {
        self.events.pop_front()
    }

    #[inline]
    pub(crate) fn push(&mut self, event: impl FnOnce() -> TraceEvent) {
        if self.on {
            self.keep(event());
        }
    }

    #[cold]
    fn keep(&mut self, event: TraceEvent) {
        if self.events.len() == Trace::LIMIT {
            self.lost += 1;
            return;
        }
        self.events.push_back(event);
    }
}
