//! Fast Open (RFC 7413): the cookies that servers gave us, and the requests of our clients that nothing has confirmed
//! yet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use crate::config::Config;
use crate::ip::recent::Recent;
use crate::time::Instant;
use crate::wire::tcp::Cookie;

/// A server, as it answered our requests for Fast Open (RFC 7413 §4.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// The cookie that it gave last.
    pub(crate) cookie: Option<Cookie>,
    /// The MSS option of its last SYN-ACK.
    pub(crate) mss: u16,
    /// Until then it gets no Fast Open.
    refused_until: Option<Instant>,
    asks: Asks,
}

/// The option that asks a server for its first cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Asks {
    /// That of RFC 7413.
    #[default]
    Standard,
    /// It was not answered: the experimental one, once.
    Experiment,
    /// Neither was answered: that of RFC 7413, for good.
    StandardForGood,
}

impl Server {
    /// Returns the option of the SYN of a connect.
    // DRILL-X38, DRILL-X40
    pub(crate) fn option(&self, without_cookie: bool, now: Instant) -> FastOpen {
        if self.refused_until.is_some_and(|until| now < until) {
            return FastOpen::Off;
        }
        let request = || Cookie::default().carried_by_experiment(self.asks == Asks::Experiment);
        match self.cookie {
            _ if without_cookie => FastOpen::Data(None),
            Some(cookie) => FastOpen::Data(Some(cookie)),
            None => FastOpen::Request(request()),
        }
    }
}

/// The Fast Open option of our SYN, and whether data goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FastOpen {
    Off,
    /// Ask for a cookie.
    Request(Cookie),
    /// Data goes with the cookie, or without any.
    Data(Option<Cookie>),
}

impl FastOpen {
    /// The option of the SYN.
    pub(crate) fn option(self) -> Option<Cookie> {
        match self {
            FastOpen::Off => None,
            FastOpen::Request(request) => Some(request),
            FastOpen::Data(cookie) => cookie,
        }
    }
}

/// The answer of a server to a SYN with Fast Open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lesson {
    pub(crate) asked: FastOpen,
    pub(crate) cookie: Option<Cookie>,
    pub(crate) mss: u16,
    /// Our SYN was retransmitted, without the option.
    pub(crate) retried: bool,
    /// No data of our SYN was taken, if it had any.
    pub(crate) took_nothing: bool,
}

/// Servers by address, at most `tcp_fastopen_cache` of them; the one used least recently gives way.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct CookieCache(Recent<Server>);

impl CookieCache {
    pub(crate) fn server(&mut self, address: IpAddr) -> Server {
        self.0.touch(address).copied().unwrap_or_default()
    }

    pub(crate) fn knows(&self, address: IpAddr) -> bool {
        self.0.get(address).is_some_and(|server| server.cookie.is_some())
    }

    // DRILL-X36, DRILL-X40
    pub(crate) fn learn(&mut self, address: IpAddr, lesson: &Lesson, config: &Config, now: Instant) {
        let (limit, rest) = (config.tcp_fastopen_cache as usize, config.tcp_fastopen_path_disable);
        let mut server = self.server(address);
        server.mss = lesson.mss;
        if lesson.cookie.is_some() {
            server.cookie = lesson.cookie;
        } else if !rest.is_zero() {
            // DRILL-F32
            server.refused_until = lesson.took_nothing.then(|| now + rest);
        } else if let FastOpen::Request(request) = lesson.asked
            && !lesson.retried
            && server.cookie.is_none()
        {
            server.asks = match (request.is_experiment(), server.asks) {
                (false, Asks::Standard) => Asks::Experiment,
                (true, _) => Asks::StandardForGood,
                (false, asks) => asks,
            };
        }
        self.0.remember(address, server, limit);
    }

    /// Forgets all servers.
    pub(crate) fn forget(&mut self) {
        self.0 = Recent::default();
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

/// A heap has no order of its own.
impl Hash for PendingRequests {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.waiting, self.ended.clone().into_sorted_vec()).hash(state);
    }
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
    use crate::time::Duration;

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
        let lesson = lesson(FastOpen::Off, Cookie::new(&[1; 8]));
        let config = Config { tcp_fastopen_cache: 2, ..Config::default() };
        let mut cache = CookieCache::default();
        cache.learn(server(1), &lesson, &config, Instant::ZERO);
        cache.learn(server(2), &lesson, &config, Instant::ZERO);
        assert_eq!(cache.server(server(1)).cookie, lesson.cookie);
        cache.learn(server(3), &lesson, &config, Instant::ZERO);
        assert!(!cache.knows(server(2)));
        assert!(cache.knows(server(1)) && cache.knows(server(3)));
        cache.forget();
        assert!(!cache.knows(server(1)));
    }

    fn lesson(asked: FastOpen, cookie: Option<Cookie>) -> Lesson {
        Lesson { asked, cookie, mss: 1000, retried: false, took_nothing: false }
    }

    // DRILL-X40
    #[test]
    fn an_unanswered_request_is_repeated_once_by_the_experimental_option() {
        let (server, mut cache) = (IpAddr::from([10, 0, 0, 1]), CookieCache::default());
        let config = Config::default();
        for experiment in [false, true, false, false] {
            let asked = cache.server(server).option(false, Instant::ZERO);
            assert_eq!(asked.option().map(|cookie| cookie.is_experiment()), Some(experiment));
            cache.learn(server, &Lesson { retried: true, ..lesson(asked, None) }, &config, Instant::ZERO);
            assert_eq!(
                cache.server(server).option(false, Instant::ZERO),
                asked,
                "the SYN with the option may be lost"
            );
            cache.learn(server, &lesson(asked, None), &config, Instant::ZERO);
        }
        let cookie = Cookie::new(&[1; 8]).map(|cookie| cookie.carried_by_experiment(true));
        cache.learn(
            server,
            &lesson(cache.clone().server(server).option(false, Instant::ZERO), cookie),
            &config,
            Instant::ZERO,
        );
        assert_eq!(cache.server(server).option(false, Instant::ZERO), FastOpen::Data(cookie));
        assert_eq!(cache.server(server).option(true, Instant::ZERO), FastOpen::Data(None));
        assert_eq!(cache.server(server).mss, 1000);
    }

    // DRILL-F32
    #[test]
    fn a_path_that_took_no_data_and_gave_no_cookie_rests() {
        let (server, mut cache) = (IpAddr::from([10, 0, 0, 1]), CookieCache::default());
        let config = Config { tcp_fastopen_path_disable: Duration::from_secs(900), ..Config::default() };
        let cookie = Cookie::new(&[1; 8]);
        cache.learn(server, &lesson(FastOpen::Off, cookie), &config, Instant::ZERO);
        let asked =
            |cache: &mut CookieCache, secs| cache.server(server).option(false, Instant::from_secs(secs));
        let data = FastOpen::Data(cookie);
        cache.learn(server, &lesson(data, None), &config, Instant::ZERO);
        assert_eq!(asked(&mut cache, 0), data, "its data was taken");
        cache.learn(server, &Lesson { took_nothing: true, ..lesson(data, None) }, &config, Instant::ZERO);
        assert_eq!([asked(&mut cache, 899), asked(&mut cache, 900)], [FastOpen::Off, data]);
    }
}
