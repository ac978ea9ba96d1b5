//! A stream of all events of a stack, for captures, ladders, JSON and tests.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use crate::counters::{DropReason, ReplyReason};
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::wire::tcp::Header;

/// The states of RFC 9293 §3.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No connection.
    Closed,
    /// Waiting for a SYN.
    Listen,
    /// SYN sent, nothing received.
    SynSent,
    /// SYN received and sent, not acknowledged.
    SynReceived,
    /// Open in both directions.
    Established,
    /// FIN sent or queued, but not acknowledged.
    FinWait1,
    /// FIN acknowledged; the peer may still send.
    FinWait2,
    /// FIN received; the local side may still send.
    CloseWait,
    /// FINs crossed; the local one is not acknowledged.
    Closing,
    /// FIN received; the local one is sent or queued, but not acknowledged.
    LastAck,
    /// Both directions closed, waiting for 2MSL to pass.
    TimeWait,
}

impl State {
    /// Returns the name in the RFC: `SYN-SENT`.
    pub const fn name(self) -> &'static str {
        match self {
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        }
    }

    /// Returns the name in `ss`: `ESTAB`.
    pub const fn ss_name(self) -> &'static str {
        match self {
            State::Closed => "UNCONN",
            State::SynReceived => "SYN-RECV",
            State::Established => "ESTAB",
            other => other.name(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The timers of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// Retransmission, including SYN and SYN-ACK.
    Retransmit,
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

/// Why a retransmission began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// The kind of an event.
#[derive(Clone, Debug, PartialEq)]
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
