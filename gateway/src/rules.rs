//! The rules: which destinations guests may reach.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use steadfast::stack::prefix_covers;

use crate::malformed::Malformed;
use crate::subnet::Subnet;

/// The decision about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Allow,
    /// It is refused with the ICMP error that says that policy forbids it.
    Deny,
    /// It is dropped without an answer.
    Drop,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Drop => "drop",
        }
    }
}

/// A rule: `allow 10.0.0.0/8:5432`, `deny [2001:db8::/32]:80-443`, `drop *:25`.
///
/// The network is an address, an address with a prefix length, or `*`. It may also be a name, `example.com`, or the names
/// beneath one, `*.example.com`: the addresses that the gateway's name server has given for them to a guest. Ports are one
/// port or a range; without them, the rule covers all ports.
///
/// ```
/// use steadfast_gateway::Rule;
///
/// let rule: Rule = "deny 10.0.0.0/8:80-443".parse().unwrap();
/// assert!(rule.covers("10.1.2.3:443".parse().unwrap()));
/// assert!(!rule.covers("10.1.2.3:22".parse().unwrap()));
/// let wrong = "deny 10.0.0.0/33".parse::<Rule>().unwrap_err();
/// assert_eq!(wrong.to_string(), "`10.0.0.0/33`: expected a prefix from 0 to 32, found `33`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    action: Action,
    to: To,
    ports: (u16, u16),
}

/// The destinations of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    /// All addresses of both families.
    All,
    Network(IpAddr, u8),
    /// In small letters. Behind `*.`, all names beneath it.
    Name(String),
}

impl Rule {
    /// Parses the destinations of a rule: `10.0.0.0/8:5432`.
    ///
    /// # Errors
    ///
    /// The message says where the text is wrong and what was expected.
    pub fn new(action: Action, destinations: &str) -> Result<Rule, Malformed> {
        let (network, ports) = split(destinations)?;
        let wrong = |expected: String| Malformed::new(destinations, expected);
        let ports = ports.map_or(Ok((0, u16::MAX)), |text| {
            parse_ports(text)
                .ok_or_else(|| wrong(format!("a port or a range of ports, as 80 or 80-443, found `{text}`")))
        })?;
        if network == "*" || network.is_empty() {
            return Ok(Rule { action, to: To::All, ports });
        }
        if is_name(network) {
            return Ok(Rule { action, to: To::Name(network.to_ascii_lowercase()), ports });
        }
        let (address, len) = network.split_once('/').map_or((network, None), |(a, len)| (a, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| {
            wrong(format!("an address, a network as 10.0.0.0/8, a name, or `*`, found `{network}`"))
        })?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => longest,
            Some(text) => text
                .parse()
                .ok()
                .filter(|len| *len <= longest)
                .ok_or_else(|| wrong(format!("a prefix from 0 to {longest}, found `{text}`")))?,
        };
        Ok(Rule { action, to: To::Network(address, len), ports })
    }

    /// The rule that opens one destination.
    pub fn allow(destination: SocketAddr) -> Rule {
        let ip = destination.ip();
        let len = if ip.is_ipv4() { 32 } else { 128 };
        Rule {
            action: Action::Allow,
            to: To::Network(ip, len),
            ports: (destination.port(), destination.port()),
        }
    }

    /// Returns whether the rule is about a destination. One by name needs the names of the address: see
    /// [`covers_name`](Rule::covers_name).
    pub fn covers(&self, destination: SocketAddr) -> bool {
        let network = match &self.to {
            To::All => true,
            To::Network(network, len) => prefix_covers(*network, *len, destination.ip()),
            To::Name(_) => false,
        };
        network && (self.ports.0..=self.ports.1).contains(&destination.port())
    }

    /// Returns whether the rule is one by name, and about this one, which is in small letters.
    pub fn covers_name(&self, name: &str) -> bool {
        let To::Name(own) = &self.to else { return false };
        match own.strip_prefix('*') {
            // With its dot.
            Some(beneath) => name.len() > beneath.len() && name.ends_with(beneath),
            None => own == name,
        }
    }

    /// The greatest is the most specific: by its prefix, then by its ports. A name is as specific as an address.
    fn rank(&self) -> (u8, u16) {
        let rank = match &self.to {
            To::All => 0,
            To::Network(IpAddr::V4(_), len) => len + 97,
            To::Network(IpAddr::V6(_), len) => len + 1,
            To::Name(_) => 129,
        };
        (rank, u16::MAX - (self.ports.1 - self.ports.0))
    }
}

/// Returns whether a text is a name, or `*.` and one: its last label is no number.
fn is_name(text: &str) -> bool {
    let mut labels = text.strip_prefix("*.").unwrap_or(text).split('.');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    labels.clone().all(is_label)
        && labels.next_back().is_some_and(|last| last.bytes().any(|b| !b.is_ascii_digit()))
}

/// The network and the ports. Colons are part of an IPv6 address unless brackets enclose it.
fn split(text: &str) -> Result<(&str, Option<&str>), Malformed> {
    if let Some(rest) = text.strip_prefix('[') {
        let wrong = |expected: &str| Malformed::new(text, expected);
        let (network, rest) = rest.split_once(']').ok_or_else(|| wrong("`]` after the address"))?;
        // Both `[2001:db8::]/32` and `[2001:db8::/32]` are in use.
        if rest.starts_with('/') {
            return Err(wrong("the prefix within the brackets, as [2001:db8::/32]:443"));
        }
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((network, Some(ports))),
            None if rest.is_empty() => Ok((network, None)),
            None => Err(wrong("`:` and a port after `]`")),
        };
    }
    Ok(match text.split_once(':') {
        Some((network, ports)) if !ports.contains(':') => (network, Some(ports)),
        _ => (text, None),
    })
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

impl FromStr for Rule {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Rule, Malformed> {
        let (action, destinations) = text.split_once(' ').unwrap_or((text, ""));
        let action =
            [Action::Allow, Action::Deny, Action::Drop].into_iter().find(|known| known.name() == action);
        let Some(action) = action.filter(|_| !destinations.trim().is_empty()) else {
            let expected = "`allow`, `deny` or `drop`, and a network, as `deny 10.0.0.0/8`";
            return Err(Malformed::new(text, expected));
        };
        Rule::new(action, destinations.trim())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.name())?;
        match &self.to {
            To::All => f.write_str(" *")?,
            To::Network(address @ IpAddr::V4(_), len) => write!(f, " {address}/{len}")?,
            To::Network(address, len) => write!(f, " [{address}/{len}]")?,
            To::Name(name) => write!(f, " {name}")?,
        }
        match self.ports {
            (0, u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

/// A set of rules. The most specific rule that covers a destination decides: that with the longest prefix, then that
/// with the fewest ports, then the last one.
///
/// Beneath the given rules are those that close the addresses that belong to the machine itself: loopback, link-local
/// with the metadata service of clouds, the unspecified and the reserved ones. A rule at least as specific opens them:
/// `allow 127.0.0.1:5432`. Everything else is allowed.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The most specific first, and of equals the last given.
    sorted: Vec<Rule>,
}

/// Addresses that no guest reaches unless a rule says so.
const CLOSED: [&str; 10] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
    "64:ff9b::7f00:0/104",
];

impl Default for Rules {
    fn default() -> Rules {
        Rules::new([])
    }
}

impl Rules {
    /// The closed addresses, and on top of them these rules.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Rules {
        let closed = CLOSED.iter().filter_map(|network| Rule::new(Action::Deny, network).ok());
        let mut sorted: Vec<Rule> = closed.chain(rules).collect();
        sorted.reverse();
        sorted.sort_by_key(|rule| std::cmp::Reverse(rule.rank()));
        Rules { sorted }
    }

    /// Decides about a destination without a name. An IPv4-mapped address counts as the IPv4 address.
    pub fn decide(&self, destination: SocketAddr) -> Action {
        self.decide_by_names(destination, &[])
    }

    /// Decides about a destination whose address was given for these names.
    pub(crate) fn decide_by_names(&self, destination: SocketAddr, names: &[&str]) -> Action {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        let covers = |rule: &&Rule| {
            let by_name = || names.iter().any(|name| rule.covers_name(name));
            let port = (rule.ports.0..=rule.ports.1).contains(&destination.port());
            rule.covers(destination) || port && by_name()
        };
        self.sorted.iter().find(covers).map_or(Action::Allow, |rule| rule.action)
    }

    /// Returns whether an answer that gives an address for a name matters here. The addresses of the machine itself are
    /// never opened by a name: whoever has the name could choose them.
    pub(crate) fn wants(&self, name: &str, address: IpAddr) -> bool {
        let closed = |network: &str| {
            let rule = Rule::new(Action::Deny, network);
            rule.is_ok_and(|rule| rule.covers(SocketAddr::new(address, 1)))
        };
        self.sorted.iter().any(|rule| rule.covers_name(name)) && !CLOSED.iter().any(|network| closed(network))
    }

    /// Returns whether there are rules by name.
    pub(crate) fn has_names(&self) -> bool {
        self.sorted.iter().any(|rule| matches!(rule.to, To::Name(_)))
    }

    /// Closes the guests' own network: a packet to it that reaches the gateway is for nobody.
    pub(crate) fn close_subnet(&mut self, subnet: &Subnet) {
        let own = |network: IpAddr| Rule {
            action: Action::Deny,
            to: To::Network(network, Subnet::prefix_len(network)),
            ports: (0, u16::MAX),
        };
        self.sorted.push(own(subnet.v4.into()));
        self.sorted.extend(subnet.v6.map(|network| own(network.into())));
        self.sorted.sort_by_key(|rule| std::cmp::Reverse(rule.rank()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        Rules::new(texts.iter().map(|text| text.parse::<Rule>().unwrap()))
    }

    fn decide(rules: &Rules, destination: &str) -> Action {
        rules.decide(destination.parse().unwrap())
    }

    #[test]
    fn the_machine_itself_is_closed_and_the_world_is_open() {
        let rules = Rules::default();
        for closed in [
            "127.0.0.1:80",
            "127.8.8.8:80",
            "0.0.0.0:80",
            "169.254.169.254:80",
            "[::1]:80",
            "[::]:80",
            "[fe80::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:169.254.169.254]:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
        ] {
            assert_eq!(decide(&rules, closed), Action::Deny, "{closed}");
        }
        for open in ["1.1.1.1:53", "10.1.2.3:80", "[2001:db8::1]:443", "[fd00::1]:1"] {
            assert_eq!(decide(&rules, open), Action::Allow, "{open}");
        }
    }

    #[test]
    fn the_most_specific_rule_decides_in_any_order() {
        for order in [["deny *", "allow 10.0.0.0/8"], ["allow 10.0.0.0/8", "deny *"]] {
            let rules = rules(&order);
            assert_eq!(decide(&rules, "10.1.2.3:80"), Action::Allow);
            assert_eq!(decide(&rules, "11.1.2.3:80"), Action::Deny);
        }
        // All addresses are less specific than the loopback addresses, and one of these is more so.
        let rules = rules(&["allow *", "allow 127.0.0.1:5432", "drop 10.0.0.1:25"]);
        assert_eq!(decide(&rules, "127.0.0.1:5433"), Action::Deny);
        assert_eq!(decide(&rules, "127.0.0.1:5432"), Action::Allow);
        assert_eq!(decide(&rules, "10.0.0.1:25"), Action::Drop);
        assert_eq!(decide(&rules, "10.0.0.1:26"), Action::Allow);
    }

    #[test]
    fn of_two_rules_about_the_same_the_last_decides() {
        assert_eq!(decide(&rules(&["deny 10.0.0.0/8", "allow 10.0.0.0/8"]), "10.0.0.1:1"), Action::Allow);
        assert_eq!(decide(&rules(&["allow 127.0.0.0/8"]), "127.0.0.1:1"), Action::Allow);
    }

    #[test]
    fn a_rule_by_name_covers_the_addresses_of_the_name() {
        let rules = rules(&["deny *", "allow *.example.com:443", "deny bad.example.com", "deny 192.0.2.9"]);
        let decide = |end: &str, names: &[&str]| rules.decide_by_names(end.parse().unwrap(), names);
        assert_eq!(decide("192.0.2.1:443", &["www.example.com"]), Action::Allow);
        assert_eq!(decide("[2001:db8::1]:443", &["a.b.example.com", "other.example"]), Action::Allow);
        for names in [&[][..], &["example.com"], &["www.example.com.evil"], &["wwwexample.com"]] {
            assert_eq!(decide("192.0.2.1:443", names), Action::Deny, "{names:?}");
        }
        assert_eq!(decide("192.0.2.1:80", &["www.example.com"]), Action::Deny);
        // Fewer ports are more specific, and of equals the last decides.
        assert_eq!(decide("192.0.2.1:443", &["bad.example.com"]), Action::Allow);
        // Nobody opens the machine itself by a name.
        let wants = |name: &str, address: &str| rules.wants(name, address.parse().unwrap());
        assert!(wants("www.example.com", "192.0.2.1") && wants("bad.example.com", "10.0.0.1"));
        assert!(!wants("example.com", "192.0.2.1") && !wants("www.example.com", "127.0.0.1"));
        assert!(!wants("www.example.com", "169.254.169.254") && !wants("www.example.com", "::1"));
    }

    #[test]
    fn a_rule_reads_as_it_is_written() {
        for text in [
            "allow *",
            "allow *.example.com:443",
            "deny a-b.example",
            "deny 10.0.0.0/8:80-443",
            "drop [2001:db8::/32]:25",
            "allow 1.2.3.4/32:1",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for (text, same) in
            [("deny :25", "deny *:25"), ("deny 1.2.3.4", "deny 1.2.3.4/32"), ("deny ::1", "deny [::1/128]")]
        {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), same);
        }
    }

    #[test]
    fn a_bad_rule_says_what_was_expected() {
        for (text, expected) in [
            ("forbid 10.0.0.0/8", "`forbid 10.0.0.0/8`: expected `allow`, `deny` or `drop`, and a network"),
            ("deny", "`deny`: expected `allow`, `deny` or `drop`, and a network"),
            (
                "deny 10.0.0/8",
                "`10.0.0/8`: expected an address, a network as 10.0.0.0/8, a name, or `*`, found `10.0.0/8`",
            ),
            ("deny 10.0.0", "`10.0.0`: expected an address, a network as 10.0.0.0/8, a name, or `*`"),
            ("deny *example.com", "`*example.com`: expected an address, a network as 10.0.0.0/8, a name"),
            ("deny a..b", "`a..b`: expected an address, a network as 10.0.0.0/8, a name"),
            ("deny 10.0.0.0/33", "`10.0.0.0/33`: expected a prefix from 0 to 32, found `33`"),
            ("deny ::1/129", "`::1/129`: expected a prefix from 0 to 128, found `129`"),
            ("deny 1.2.3.4:http", "`1.2.3.4:http`: expected a port or a range of ports"),
            ("deny *:9-8", "`*:9-8`: expected a port or a range of ports"),
            ("deny [::1", "`[::1`: expected `]` after the address"),
            ("deny [::1]80", "`[::1]80`: expected `:` and a port after `]`"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
