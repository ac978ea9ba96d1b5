//! Timestamps of peers, for `tcp_tw_recycle`.

use std::net::IpAddr;

use super::segment::is_earlier;
use crate::ip::recent::Recent;
use crate::time::{Duration, Instant};

/// The last timestamp of each peer, for `tcp_tw_recycle` (T9c).
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Peers(Recent<(u32, Instant)>);

impl Peers {
    /// For how long a timestamp counts.
    const MSL: Duration = Duration::from_secs(60);

    pub(crate) fn remember(&mut self, peer: IpAddr, ts_val: u32, now: Instant, limit: usize) {
        self.0.remember(peer, (ts_val, now), limit);
    }

    /// Whether a SYN of `peer` looks older than what it sent before.
    pub(crate) fn refuses(&self, peer: IpAddr, ts_val: u32, now: Instant) -> bool {
        self.0.get(peer).is_some_and(|(last, at)| now - *at < Peers::MSL && is_earlier(ts_val, *last))
    }
}
