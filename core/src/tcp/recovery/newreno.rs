//! NewReno: fast recovery with a peer that does not support SACK (RFC 6582). Each duplicate ACK shows that a segment
//! has left the network, but not which one.

use crate::tcp::flight::Flight;

impl Flight {
    /// Counts a duplicate ACK without SACK: one segment has left the network, at most `flight` in total (THREAT-45).
    pub(super) fn inflate(&mut self, mss: u32, flight: u32) {
        self.inflation = (self.inflation + mss).min(flight);
    }

    /// Handles a partial ACK of `acked` bytes: deflates by them and adds back one segment (6582-2).
    pub(super) fn deflate(&mut self, acked: u32, mss: u32) {
        self.inflation = self.inflation.saturating_sub(acked.saturating_sub(mss));
    }
}
