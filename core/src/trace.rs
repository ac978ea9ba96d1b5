//! One stream of everything that happens, for captures, ladders, JSON and tests.

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
    /// SYN received and sent.
    SynReceived,
    /// Open in both directions.
    Established,
    /// FIN sent (or queued), not acknowledged.
    FinWait1,
    /// FIN acknowledged, the peer may still send.
    FinWait2,
    /// FIN received, we may still send.
    CloseWait,
    /// FINs crossed, ours not acknowledged.
    Closing,
    /// FIN received, ours sent (or queued), not acknowledged.
    LastAck,
    /// Both directions closed, waiting out 2MSL.
    TimeWait,
}

impl State {
    /// As the RFC writes it: `SYN-SENT`.
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

    /// As `ss` writes it: `ESTAB`.
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
    /// Retransmission, SYN and SYN-ACK included.
    Retransmit,
    /// Zero-window probe.
    Persist,
    /// Delayed ACK.
    DelayedAck,
    /// Keepalive.
    Keepalive,
    /// FIN-WAIT-2 of an orphan.
    FinWait2,
    /// The end of an orphan that did not get its data through.
    Orphan,
    /// End of TIME-WAIT.
    TimeWait,
}

/// Why a retransmission began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The retransmission timer.
    Timeout,
    /// Duplicate ACKs or SACK.
    FastRetransmit,
    /// A router said that the segment was too big.
    PacketTooBig,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceEvent {
    /// When.
    pub at: Instant,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// What.
    pub kind: TraceKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum TraceKind {
    /// A segment arrived whose header is sound.
    SegmentIn {
        /// Its header.
        header: Header,
        /// Bytes of payload.
        payload_len: usize,
    },
    /// A segment left.
    SegmentOut {
        /// Its header.
        header: Header,
        /// Bytes of payload.
        payload_len: usize,
    },
    /// A connection changed its state.
    State {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// A timer fired and had something to do.
    Timer(TimerKind),
    /// Something was dropped.
    Drop(DropReason),
    /// Something was answered.
    Reply(ReplyReason),
    /// A round trip was measured.
    Rtt {
        /// The sample.
        sample: Duration,
        /// The RTO that follows from it.
        rto: Duration,
    },
    /// Data is held for lost.
    Loss {
        /// First sequence number to be sent again.
        seq: SeqNum,
        /// Why.
        why: Loss,
    },
    /// The path MTU towards the peer changed.
    PathMtu(u16),
}

/// Collects events while somebody wants them. Off, it costs one test of a flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    events: VecDeque<TraceEvent>,
    pub(crate) lost: u64,
}

impl Trace {
    /// Events that wait to be collected at the most.
    const LIMIT: usize = 1 << 16;

    pub(crate) fn switch(&mut self, on: bool) {
        self.on = on;
        if !on {
            self.events.clear();
        }
    }

    /// Whether somebody wants events: for those that take more than a copy.
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
