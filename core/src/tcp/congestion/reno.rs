//! Reno (RFC 5681).

use super::{Acked, Cause, CongestionControl, Window, reduced};

/// β, and β_ecn of RFC 8511, in percent.
const BETA: u32 = 50;
const BETA_ECN: u32 = 80;

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Reno {
    /// Bytes acknowledged since the window last grew.
    acked: u32,
}

impl CongestionControl for Reno {
    fn acked(&mut self, window: &mut Window, ack: &Acked, bytes: u32) {
        self.acked = self.acked.saturating_add(bytes);
        if self.acked >= window.cwnd {
            self.acked -= window.cwnd;
            window.cwnd = window.cwnd.saturating_add(ack.progress.mss);
        }
    }

    fn congested(&mut self, _: &Window, cause: Cause, flight: u32, mss: u32) -> u32 {
        self.acked = 0;
        let beta = if cause == Cause::Ecn { BETA_ECN } else { BETA };
        reduced(flight, beta, mss)
    }
}
