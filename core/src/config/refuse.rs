//! Which SYNs are refused, and how.

use std::fmt;
use std::net::IpAddr;

use super::kinds::Kind;
use crate::ip::prefix::prefix_covers;

/// The rules of [`tcp_refuse`](super::Config::tcp_refuse); the first rule that covers a SYN applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(pub Vec<Refusal>);

impl Refusals {
    /// Returns how a SYN from `source` to `local_port` is refused, or `None` if it is not.
    pub fn decide(&self, source: IpAddr, local_port: u16) -> Option<RefuseWith> {
        self.0.iter().find(|rule| rule.covers(source, local_port)).map(|rule| rule.with)
    }
}

/// The reply to a refused SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefuseWith {
    /// RST: the client gets ECONNREFUSED.
    TcpReset,
    /// ICMP communication administratively prohibited: the client gets EHOSTUNREACH over IPv4 and EACCES over IPv6, as
    /// with Linux.
    AdminProhibited,
    /// No reply.
    Drop,
}

impl RefuseWith {
    const NAMES: [(&'static str, RefuseWith); 3] = [
        ("tcp-reset", RefuseWith::TcpReset),
        ("admin-prohibited", RefuseWith::AdminProhibited),
        ("drop", RefuseWith::Drop),
    ];

    fn name(self) -> &'static str {
        RefuseWith::NAMES.iter().find(|(_, with)| *with == self).map_or("", |(name, _)| name)
    }
}

/// One rule of [`tcp_refuse`](super::Config::tcp_refuse).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Network of the source.
    pub source: IpAddr,
    /// Prefix length of `source`, in bits.
    pub prefix_len: u8,
    /// Local port; `None`: all of them.
    pub port: Option<u16>,
    /// The reply.
    pub with: RefuseWith,
}

impl Refusal {
    fn covers(&self, source: IpAddr, local_port: u16) -> bool {
        self.port.is_none_or(|port| port == local_port) && prefix_covers(self.source, self.prefix_len, source)
    }

    fn parse(text: &str) -> Option<Refusal> {
        let (place, with) = text.trim().split_once(char::is_whitespace)?;
        let with = RefuseWith::NAMES.iter().find(|(name, _)| *name == with.trim())?.1;
        let (address, rest) = match place.split_once('/') {
            Some((address, rest)) => (address, Some(rest)),
            None => (place, None),
        };
        let source: IpAddr = address.parse().ok()?;
        let full = if source.is_ipv4() { 32 } else { 128 };
        let (prefix_len, port) = match rest {
            None => (full, None),
            Some(rest) => match rest.split_once(':') {
                None => (rest.parse().ok()?, None),
                Some((len, port)) => (len.parse().ok()?, Some(port.parse().ok().filter(|p| *p > 0)?)),
            },
        };
        (prefix_len <= full).then_some(Refusal { source, prefix_len, port, with })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.prefix_len)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, " {}", self.with.name())
    }
}

#[derive(Clone, Copy)]
pub(super) struct Refuse;

impl Refuse {
    pub(super) const fn unit(&self) -> &'static str {
        "network[:port] answer, …"
    }
}

impl Kind<Refusals> for Refuse {
    fn parse(&self, text: &str) -> Result<Refusals, String> {
        if text.is_empty() {
            return Ok(Refusals::default());
        }
        let rules: Option<Vec<_>> = text.split(',').map(Refusal::parse).collect();
        rules.map(Refusals).ok_or_else(|| {
            "rules like `10.0.0.0/8 tcp-reset` or `2001:db8::/32:80 admin-prohibited` or `192.0.2.1 drop`, \
             separated by commas"
                .to_owned()
        })
    }
    fn show(&self, value: &Refusals) -> String {
        let rules: Vec<_> = value.0.iter().map(Refusal::to_string).collect();
        rules.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_covers_a_source_decides() {
        let rules = Refuse
            .parse("10.1.0.0/16 drop, 10.0.0.0/8:80 tcp-reset, 2001:db8::/32 admin-prohibited")
            .unwrap();
        let decide = |source: &str, port| rules.decide(source.parse().unwrap(), port);
        assert_eq!(decide("10.1.2.3", 80), Some(RefuseWith::Drop));
        assert_eq!(decide("10.2.2.3", 80), Some(RefuseWith::TcpReset));
        assert_eq!(decide("10.2.2.3", 81), None);
        assert_eq!(decide("11.0.0.0", 80), None);
        assert_eq!(decide("2001:db8:ffff::1", 1), Some(RefuseWith::AdminProhibited));
        assert_eq!(decide("2001:db9::1", 1), None);
        assert_eq!(Refuse.parse(&Refuse.show(&rules)).unwrap(), rules);
        assert!(Refuse.parse("10.0.0.0/33 drop").is_err());
    }
}
