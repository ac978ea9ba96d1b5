//! The addresses that names have had: rules by name follow the answers that pass through the gateway's name server.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Addresses at a time. Beyond that the one that expires first gives up its place.
const ADDRESSES: usize = 4096;

/// Names of one address at a time, with the same rule.
const NAMES: usize = 16;

/// The time for which an answer counts. A program may use it somewhat longer than its TTL says.
const SHORTEST: u32 = 60;
const LONGEST: u32 = 3600;

/// The bytes of a header of DNS.
pub(crate) const HEADER_LEN: usize = 12;

/// The names that were asked for, by the addresses that the answers had.
#[derive(Debug, Default)]
pub(crate) struct Names {
    all: HashMap<IpAddr, Vec<(String, Instant)>>,
}

impl Names {
    /// Notes the addresses of an answer, for which `wanted` decides.
    pub(crate) fn learn(&mut self, message: &[u8], wanted: impl Fn(&str, IpAddr) -> bool) {
        let Some(answer) = parse(message) else { return };
        for (address, ttl) in answer.addresses.into_iter().filter(|(one, _)| wanted(&answer.name, *one)) {
            let until = Instant::now() + Duration::from_secs(ttl.clamp(SHORTEST, LONGEST).into());
            self.make_room(address);
            let names = self.all.entry(address).or_default();
            match names.iter_mut().find(|(name, _)| *name == answer.name) {
                Some((_, before)) => *before = until.max(*before),
                None => {
                    if names.len() >= NAMES {
                        let oldest = (0..names.len()).min_by_key(|at| names[*at].1).unwrap_or(0);
                        names.swap_remove(oldest);
                    }
                    names.push((answer.name.clone(), until));
                }
            }
        }
    }

    fn make_room(&mut self, address: IpAddr) {
        if self.all.len() < ADDRESSES || self.all.contains_key(&address) {
            return;
        }
        let last = |names: &Vec<(String, Instant)>| names.iter().map(|(_, until)| *until).max();
        let oldest = self.all.iter().min_by_key(|(_, names)| last(names)).map(|(address, _)| *address);
        oldest.map(|oldest| self.all.remove(&oldest));
    }

    /// The names that an address has had.
    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        let now = Instant::now();
        let names = self.all.get(&address).into_iter().flatten();
        names.filter(move |(_, until)| *until > now).map(|(name, _)| &**name)
    }
}

/// The question of an answer, and the addresses in it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// In small letters, without a dot at the end.
    name: String,
    /// With their TTLs in seconds.
    addresses: Vec<(IpAddr, u32)>,
}

/// Reads a message of DNS (RFC 1035 §4). `None`: it is no answer to one question, or malformed.
fn parse(message: &[u8]) -> Option<Answer> {
    const A: u16 = 1;
    const AAAA: u16 = 28;
    const IN: u16 = 1;
    let word = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    if message.get(2)? & 0x80 == 0 || word(4)? != 1 {
        return None;
    }
    let (name, end) = question(message)?;
    let mut at = end;
    let mut addresses = Vec::new();
    for _ in 0..word(6)? {
        at = skip_name(message, at)?;
        let (kind, class, len) = (word(at)?, word(at + 2)?, usize::from(word(at + 8)?));
        let ttl = u32::from(word(at + 4)?) << 16 | u32::from(word(at + 6)?);
        let data = message.get(at + 10..at + 10 + len)?;
        let v4 = || data.try_into().ok().map(|v4: [u8; 4]| IpAddr::from(v4));
        let v6 = || data.try_into().ok().map(|v6: [u8; 16]| IpAddr::from(v6));
        let address = match (class, kind) {
            (IN, A) => v4(),
            (IN, AAAA) => v6(),
            _ => None,
        };
        addresses.extend(address.map(|address| (address.to_canonical(), ttl)));
        at += 10 + len;
    }
    Some(Answer { name, addresses })
}

/// The name in the question, and where the question ends. A name there is never compressed.
fn question(message: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = HEADER_LEN;
    loop {
        let len = usize::from(*message.get(at)?);
        if len == 0 {
            return message.get(at + 1..at + 5).map(|_| (name, at + 5));
        }
        if len > 63 {
            return None;
        }
        let label = message.get(at + 1..at + 1 + len)?;
        if !name.is_empty() {
            name.push('.');
        }
        // A dot within a label must not look like one between labels.
        name.extend(label.iter().map(|byte| match byte {
            b'.' | 128.. => '?',
            other => char::from(other.to_ascii_lowercase()),
        }));
        at += 1 + len;
    }
}

/// Where the name ends that begins at `at`.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            // A pointer is the end.
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer to a question for `name`: a CNAME, and these addresses behind it.
    pub(crate) fn answer(name: &str, addresses: &[(&str, u32)]) -> Vec<u8> {
        let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, addresses.len() as u8 + 1, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.extend(b"\0\0\x01\0\x01");
        message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x06\x03cdn\xc0\x0c");
        for (address, ttl) in addresses {
            let (kind, octets) = match address.parse().unwrap() {
                IpAddr::V4(v4) => (1, v4.octets().to_vec()),
                IpAddr::V6(v6) => (28, v6.octets().to_vec()),
            };
            message.extend([3, b'c', b'd', b'n', 0xc0, 0x0c, 0, kind, 0, 1]);
            message.extend(ttl.to_be_bytes());
            message.extend((octets.len() as u16).to_be_bytes());
            message.extend(octets);
        }
        message
    }

    fn names(names: &Names, address: &str) -> Vec<String> {
        names.of(address.parse().unwrap()).map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_the_names_that_were_asked_for_while_they_live() {
        let mut learned = Names::default();
        let message = answer("WWW.Example.com", &[("192.0.2.1", 5), ("2001:db8::1", 100_000)]);
        learned.learn(&message, |name, _| name.ends_with("example.com"));
        learned.learn(&answer("a.example.com", &[("192.0.2.1", 600)]), |_, _| true);
        learned.learn(&answer("b.example.com", &[("192.0.2.1", 600)]), |_, _| false);
        assert_eq!(names(&learned, "192.0.2.1"), ["www.example.com", "a.example.com"]);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(names(&learned, "192.0.2.1"), ["www.example.com", "a.example.com"]);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(names(&learned, "192.0.2.1"), ["a.example.com"]);
        tokio::time::advance(Duration::from_secs(3538)).await;
        assert_eq!(names(&learned, "2001:db8::1"), ["www.example.com"]);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(names(&learned, "2001:db8::1"), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_the_address_goes_that_expires_first() {
        let mut learned = Names::default();
        for number in 0..ADDRESSES as u32 + 1 {
            let address = std::net::Ipv4Addr::from_bits(number).to_string();
            let ttl = if number == 5 { 60 } else { 600 };
            learned.learn(&answer("a.b", &[(&address, ttl)]), |_, _| true);
        }
        assert_eq!(learned.all.len(), ADDRESSES);
        assert_eq!(
            (names(&learned, "0.0.0.5"), names(&learned, "0.0.0.4")),
            (vec![], vec!["a.b".to_owned()])
        );
        for number in 0..NAMES + 9 {
            learned.learn(&answer(&format!("{number}.b"), &[("0.0.0.4", 600)]), |_, _| true);
        }
        assert_eq!(names(&learned, "0.0.0.4").len(), NAMES);
    }

    #[test]
    fn a_malformed_answer_teaches_nothing() {
        let message = answer("www.example", &[("192.0.2.1", 5)]);
        assert_eq!(parse(&message).unwrap().addresses, [("192.0.2.1".parse().unwrap(), 5)]);
        for cut in 0..message.len() {
            assert_eq!(parse(&message[..cut]), None, "{cut}");
        }
        let mut query = message.clone();
        query[2] = 1;
        assert_eq!(parse(&query), None);
        let mut dotted = message;
        dotted[HEADER_LEN + 2] = b'.';
        assert_eq!(parse(&dotted).unwrap().name, "w?w.example");
    }
}
