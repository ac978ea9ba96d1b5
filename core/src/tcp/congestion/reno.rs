//! Reno (RFC 5681).

use super::{Acknowledged, CongestionControl, reduced, slow_start};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(crate) struct Reno {
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged since the window last grew.
    acked: u32,
}

impl Reno {
    pub(super) fn new(initial_window: u32) -> Reno {
        Reno { cwnd: initial_window, ssthresh: u32::MAX, acked: 0 }
    }
}

impl CongestionControl for Reno {
    fn cwnd(&self) -> u32 {
        self.cwnd
    }

    fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    fn acknowledged(&mut self, ack: Acknowledged) {
        let rest = slow_start(&mut self.cwnd, self.ssthresh, &ack);
        self.acked = self.acked.saturating_add(rest);
        if self.cwnd >= self.ssthresh && self.acked >= self.cwnd {
            self.acked -= self.cwnd;
            self.cwnd = self.cwnd.saturating_add(ack.mss);
        }
    }

    fn loss(&mut self, _now: Instant, flight: u32, mss: u32) {
        self.ssthresh = reduced(flight, 5, mss);
        self.cwnd = self.ssthresh;
        self.acked = 0;
    }

    fn timeout(&mut self, _now: Instant, flight: u32, mss: u32, first: bool) {
        if first {
            self.ssthresh = reduced(flight, 5, mss);
        }
        self.cwnd = mss;
        self.acked = 0;
    }

    fn unused(&mut self) {}

    fn restart(&mut self, window: u32) {
        self.cwnd = self.cwnd.min(window);
        self.acked = 0;
    }

    fn set_initial(&mut self, window: u32) {
        self.cwnd = window;
    }
}
