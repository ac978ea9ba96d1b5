//! Explicit congestion notification of a connection (RFC 3168).

use super::congestion::Cause;
use super::tcb::Connection;

/// The state of congestion marks, in both directions.
#[derive(Clone, Debug, Hash)]
pub(crate) struct EcnState {
    /// Both ends support ECN.
    pub(crate) on: bool,
    /// Send ECE, until CWR arrives.
    pub(crate) echo: bool,
    /// Send CWR with the next new data.
    pub(crate) cwr_pending: bool,
}

impl EcnState {
    pub(crate) fn new(on: bool) -> EcnState {
        EcnState { on, echo: false, cwr_pending: false }
    }
}

impl Connection {
    /// Reduces the window after a mark or a loss, at most once per window of data (RFC 3168 §6.1.2).
    /// FlightSize counts for `most` bytes at most. Returns whether it was reduced.
    pub(super) fn reduce_once(&mut self, cause: Cause, most: u32) -> bool {
        if self.reduced_already() {
            return false;
        }
        let (flight, mss) = (self.flight().min(most), u32::from(self.payload_mss()));
        let ssthresh = self.congestion.congested(cause, flight, mss);
        self.congestion.set_cwnd(ssthresh);
        self.note_reduction();
        true
    }

    /// Returns whether the window was reduced after the oldest data in flight was sent.
    pub(crate) fn reduced_already(&self) -> bool {
        let una = self.tcb.snd.una;
        self.tcb.ecn.on && self.flight.as_ref().is_some_and(|flight| una.lt(flight.cwr_until))
    }

    /// Records a window reduction of any cause: sends CWR to the peer, and ignores further marks in this window of
    /// data. Its flight is open.
    pub(crate) fn note_reduction(&mut self) {
        if self.tcb.ecn.on {
            self.tcb.ecn.cwr_pending = true;
            if let Some(flight) = &mut self.flight {
                flight.cwr_until = self.tcb.snd.nxt;
            }
        }
    }
}
