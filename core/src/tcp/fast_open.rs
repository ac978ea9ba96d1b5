//! Fast Open (RFC 7413): the cookies that servers gave us, and the requests of our clients that nothing has confirmed
//! yet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use crate::ip::recent::Recent;
use crate::time::Instant;
use crate::wire::tcp::Cookie;

/// Cookies by server address, at most `tcp_fastopen_cache` of them; the one used least recently gives way.
#[derive(Clone, Debug, Default)]
pub(crate) struct CookieCache(Recent<Cookie>);

impl CookieCache {
    pub(crate) fn cookie(&mut self, server: IpAddr) -> Option<Cookie> {
        self.0.touch(server).copied()
    }

    pub(crate) fn knows(&self, server: IpAddr) -> bool {
        self.0.get(server).is_some()
    }

    pub(crate) fn remember(&mut self, server: IpAddr, cookie: Cookie, limit: usize) {
        self.0.remember(server, cookie, limit);
    }
}

/// PendingFastOpenRequests of a listener (RFC 7413 §4.2): those whose third segment has not come. One that ends before
/// that counts for as long as it would have waited. Else each RST of a victim would let one more forged SYN in (§5.1).
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingRequests {
    waiting: usize,
    /// Until when those count that ended, the earliest first.
    ended: BinaryHeap<Reverse<Instant>>,
}

impl PendingRequests {
    /// So many that count no longer are forgotten at once. One makes room for the request that asks.
    const STEP: usize = 64;

    /// Whether there are fewer than `limit`.
    pub(crate) fn have_room(&mut self, now: Instant, limit: usize) -> bool {
        for _ in 0..PendingRequests::STEP {
            if self.ended.peek().is_none_or(|Reverse(until)| *until > now) {
                break;
            }
            self.ended.pop();
        }
        self.waiting + self.ended.len() < limit
    }

    /// Those that have not ended.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn add(&mut self) {
        self.waiting += 1;
    }

    /// The third segment of one of them has come.
    pub(crate) fn confirm(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// One of them ended; it counts until then.
    pub(crate) fn end(&mut self, now: Instant, until: Instant) {
        self.confirm();
        if until > now {
            self.ended.push(Reverse(until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 7413-2: requests count until their time, whatever the order in which they ended.
    #[test]
    fn requests_that_ended_count_until_their_time_and_go_in_steps() {
        let at = Instant::from_secs;
        let mut pending = PendingRequests::default();
        for until in [12, 11, 13] {
            pending.add();
            pending.end(at(10), at(until));
        }
        pending.add();
        // One that has waited long enough counts no longer.
        pending.add();
        pending.end(at(10), at(10));
        for (now, count) in [(10, 4), (11, 3), (12, 2), (13, 1)] {
            assert!(!pending.have_room(at(now), count), "at {now}");
            assert!(pending.have_room(at(now), count + 1), "at {now}");
        }
        for _ in 0..1000 {
            pending.add();
            pending.end(at(20), at(30));
        }
        assert!(pending.have_room(at(30), 1000));
        assert_eq!(pending.ended.len(), 1000 - PendingRequests::STEP);
    }

    #[test]
    fn the_cookie_used_least_recently_gives_way() {
        let server = |n: u8| IpAddr::from([10, 0, 0, n]);
        let cookie = Cookie::new(&[1; 8]).unwrap();
        let mut cache = CookieCache::default();
        cache.remember(server(1), cookie, 2);
        cache.remember(server(2), cookie, 2);
        assert!(cache.cookie(server(1)).is_some());
        cache.remember(server(3), cookie, 2);
        assert!(cache.cookie(server(2)).is_none());
        assert!(cache.cookie(server(1)).is_some() && cache.cookie(server(3)).is_some());
    }
}
