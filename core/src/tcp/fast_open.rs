//! Fast Open (RFC 7413): the cookies that servers gave us.

use std::net::IpAddr;

use crate::ip::recent::Recent;
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

#[cfg(test)]
mod tests {
    use super::*;

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
