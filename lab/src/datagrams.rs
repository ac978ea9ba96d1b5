//! The datagrams that applications send to each other, and the check that none is changed or made up.

use std::net::SocketAddr;

use bytes::Bytes;
use steadfast_timeline::Map;

use crate::rng::Rng;
use crate::stream::content;

/// A datagram that was sent: by the socket of this port on this host, and to whom.
#[derive(Clone, Copy, Debug)]
struct Sent {
    host: usize,
    port: u16,
    to: SocketAddr,
}

/// All datagrams of a run. Each has its own content, which depends on the seed.
#[derive(Clone, Debug)]
pub(crate) struct Datagrams {
    next: u64,
    /// By content. Short ones may be alike.
    sent: Map<Bytes, Vec<Sent>>,
}

impl Datagrams {
    pub(crate) fn new(seed: u64) -> Datagrams {
        Datagrams { next: Rng::split(seed, "datagrams").next() >> 16, sent: Map::default() }
    }

    /// Returns the payload of the next datagram.
    pub(crate) fn content(&mut self, len: u64) -> Bytes {
        self.next += 1;
        content(self.next, 0, len)
    }

    /// Records a datagram that a stack accepted.
    pub(crate) fn sent(&mut self, payload: Bytes, host: usize, port: u16, to: SocketAddr) {
        self.sent.entry(payload).or_default().push(Sent { host, port, to });
    }

    /// Checks a datagram that arrived at a socket with the port `at`. `host` is the one that the sender's address `from`
    /// belongs to. It may arrive several times, and later than others.
    pub(crate) fn delivered(
        &self,
        payload: &[u8],
        host: Option<usize>,
        from: SocketAddr,
        at: u16,
    ) -> Result<(), String> {
        let alike = self.sent.get(payload).map_or(&[][..], |alike| alike);
        let is_it = |sent: &Sent| Some(sent.host) == host && sent.port == from.port() && sent.to.port() == at;
        if alike.iter().any(is_it) {
            return Ok(());
        }
        let len = payload.len();
        Err(match alike.first() {
            None => format!("read a datagram of {len} bytes from {from} that nobody sent"),
            Some(sent) => format!(
                "read a datagram of {len} bytes at port {at} from {from} that was sent to {} from port {}",
                sent.to, sent.port
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_what_its_sender_sent_to_this_port() {
        let mut datagrams = Datagrams::new(1);
        let (first, second) = (datagrams.content(100), datagrams.content(100));
        assert_ne!(first, second);
        assert_ne!(Datagrams::new(2).content(100), first);
        let (from, to) = (SocketAddr::from(([10, 0, 0, 1], 5000)), SocketAddr::from(([10, 0, 0, 2], 53)));
        datagrams.sent(first.clone(), 0, 5000, to);
        assert_eq!(datagrams.delivered(&first, Some(0), from, 53), Ok(()));
        assert_eq!(datagrams.delivered(&first, Some(0), from, 53), Ok(()), "a copy");
        assert!(datagrams.delivered(&second, Some(0), from, 53).unwrap_err().contains("nobody sent"));
        assert!(datagrams.delivered(&first[..99], Some(0), from, 53).is_err());
        for (host, from, at) in
            [(Some(1), 5000, 53), (None, 5000, 53), (Some(0), 5001, 53), (Some(0), 5000, 54)]
        {
            let from = SocketAddr::from(([10, 0, 0, 1], from));
            assert!(
                datagrams.delivered(&first, host, from, at).unwrap_err().contains("was sent to 10.0.0.2:53")
            );
        }
    }
}
