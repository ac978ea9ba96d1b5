//! The states of a connection: those of RFC 9293, and those of congestion control.

use std::fmt;
use std::str::FromStr;

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
    /// All states.
    pub const ALL: [State; 11] = [
        State::Closed,
        State::Listen,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
    ];

    /// Returns the number in Linux's `tcp_states.h`, as in `tcpi_state`.
    pub const fn linux_number(self) -> u8 {
        match self {
            State::Established => 1,
            State::SynSent => 2,
            State::SynReceived => 3,
            State::FinWait1 => 4,
            State::FinWait2 => 5,
            State::TimeWait => 6,
            State::Closed => 7,
            State::CloseWait => 8,
            State::LastAck => 9,
            State::Listen => 10,
            State::Closing => 11,
        }
    }

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

/// A text that names no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a state such as `SYN-SENT`")]
pub struct UnknownState;

impl FromStr for State {
    type Err = UnknownState;

    /// Parses the name in the RFC.
    fn from_str(text: &str) -> Result<State, UnknownState> {
        State::ALL.into_iter().find(|state| state.name() == text).ok_or(UnknownState)
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
    /// The window comes down after a congestion mark (ECN). Nothing is lost.
    Cwr,
    /// Fast recovery.
    Recovery,
    /// Recovery after a retransmission timeout.
    Loss,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_from_its_name_and_has_a_number_of_its_own() {
        for state in State::ALL {
            assert_eq!(state.name().parse(), Ok(state));
            assert_eq!(State::ALL.iter().filter(|s| s.linux_number() == state.linux_number()).count(), 1);
        }
        assert_eq!("SYN_SENT".parse::<State>(), Err(UnknownState));
    }
}
