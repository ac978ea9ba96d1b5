//! Proportional rate reduction (RFC 9937): the window while losses are repaired. The sender sends what the ACKs report
//! as delivered, so that the flight reaches the threshold within a round trip, without silence and without a burst.

/// The state of one episode. All sizes are bytes.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Prr {
    /// The flight at the end of the episode.
    ssthresh: u32,
    /// Most bytes that may be delivered in the episode: RecoverFS.
    recover_fs: u32,
    /// Delivered and sent since the episode began: prr_delivered and prr_out.
    delivered: u32,
    out: u32,
}

/// The report of one ACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Newly delivered bytes: DeliveredData.
    pub(crate) delivered: u32,
    /// Bytes in the network after it.
    pub(crate) inflight: u32,
    /// It covers new data and shows no further loss: SafeACK (9937-2).
    pub(crate) safe: bool,
}

impl Prr {
    pub(crate) fn new(ssthresh: u32, recover_fs: u32) -> Prr {
        Prr { ssthresh, recover_fs: recover_fs.max(1), delivered: 0, out: 0 }
    }

    pub(crate) fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    pub(crate) fn recover_fs(&self) -> u32 {
        self.recover_fs
    }

    /// Something is sent: new data, or lost data again (9937-8).
    pub(crate) fn sent(&mut self, bytes: u32) {
        self.out = self.out.saturating_add(bytes);
    }

    /// The bytes delivered that count without SACK, where they are only guessed from duplicate ACKs: in all at most what
    /// was in flight (9937-7, THREAT-45).
    pub(crate) fn credible(&self, delivered: u32) -> u32 {
        delivered.min(self.recover_fs.saturating_sub(self.delivered))
    }

    /// The congestion window after an ACK; `None`: that of before. Segments are sent whole, so that the proportion is
    /// rounded up to the next of them, as in the figures of RFC 9937 §8.
    pub(crate) fn window(&mut self, ack: Report, mss: u32) -> Option<u32> {
        let Report { delivered, inflight, safe } = ack;
        let begins = self.delivered == 0 && self.out == 0;
        if delivered == 0 && !begins {
            return None;
        }
        self.delivered = self.delivered.saturating_add(delivered);
        let mut count = if inflight > self.ssthresh {
            let product = u64::from(self.delivered) * u64::from(self.ssthresh);
            let segment = u64::from(mss.max(1));
            let out = product.div_ceil(u64::from(self.recover_fs)).div_ceil(segment) * segment;
            out.saturating_sub(u64::from(self.out)).min(u64::from(u32::MAX)) as u32
        } else {
            let banked = self.delivered.saturating_sub(self.out).max(delivered);
            let grown = if safe { banked.saturating_add(mss) } else { banked };
            grown.min(self.ssthresh - inflight)
        };
        if self.out == 0 && count == 0 {
            // The first retransmission leaves whatever the proportion is (9937-3).
            count = mss;
        }
        Some(inflight.saturating_add(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 9937-1, 9937-10: whatever the numbers are, nothing overflows, and below the threshold no ACK lets out more than it
    /// delivered, what earlier ones left over, and a segment.
    fn bound(ssthresh: u32, recover_fs: u32, mss: u32, acks: &[(u32, u32, bool)]) {
        let mut prr = Prr::new(ssthresh, recover_fs);
        for &(delivered, inflight, safe) in acks {
            let (sent, known) = (u64::from(prr.out), u64::from(prr.delivered));
            let Some(window) = prr.window(Report { delivered, inflight, safe }, mss) else { continue };
            let room = window - inflight;
            let left = (known + u64::from(delivered)).saturating_sub(sent).max(u64::from(delivered));
            if inflight <= ssthresh {
                assert!(u64::from(room) <= left + u64::from(mss), "{room} of {left}");
                assert!(window <= ssthresh.max(inflight.saturating_add(mss)), "{window}");
            }
            prr.sent(room);
        }
    }

    proptest! {
        #[test]
        fn no_ack_lets_out_more_than_it_delivers_and_a_segment_9937_10(
            ssthresh: u32,
            recover_fs: u32,
            mss: u16,
            acks in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..50),
        ) {
            bound(ssthresh, recover_fs, u32::from(mss), &acks);
        }
    }
}
