//! The states of a connection: those of RFC 9293, and those of congestion control.

use std::fmt;

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

/// Congestion control state, as in `tcpi_ca_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum CaState {
    /// No sign of loss.
    #[default]
    Open,
    /// Duplicate ACKs or SACK blocks, but too few to act on.
    Disorder,
    /// Fast recovery.
    Recovery,
    /// Recovery after a retransmission timeout.
    Loss,
}
