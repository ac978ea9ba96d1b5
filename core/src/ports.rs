//! Local ports in use towards each remote end. The search for a free port is short however few are left.
//!
//! Between two ends with few connections, the flow table finds a free port in a probe or two, and only their number is
//! kept here. Above the size of a crowd, each port that a connect takes is recorded.
// THREAT-12

use std::collections::{BTreeMap, VecDeque};

use crate::config::PortRange;
use crate::tuple::FourTuple;

/// The local ports of outgoing connections, by local address and remote end.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    towards: BTreeMap<Ends, Taken>,
    /// Number of flows of any kind, by an unkeyed hash of their ends. Collisions can only make flows look like a crowd;
    /// each of them then costs a search in the map.
    flows: Vec<u32>,
    /// The list that became empty last, kept for the next one, so that a connection at the edge of a crowd does not
    /// allocate.
    spare: Vec<u16>,
}

/// Local address, remote address, remote port.
type Ends = (u128, u128, u16);

/// The ports in use between two ends.
#[derive(Clone, Debug)]
enum Taken {
    Few(Vec<u16>),
    Many(Box<Many>),
}

#[derive(Clone, Debug)]
struct Many {
    /// One bit for each port.
    bits: [u64; WORDS],
    count: usize,
    /// Ports whose connection entered TIME-WAIT and may be taken over later, oldest first. Some have left it since.
    resting: VecDeque<u16>,
}

/// The most ports kept as a list. More are a bit set, which takes as much memory as a list of four thousand.
const FEW: usize = 64;
const WORDS: usize = (1 << 16) / 64;
/// More flows than this between two ends are a crowd.
const CROWD: u32 = 16;
const BUCKETS: usize = 1024;

impl Default for Ports {
    fn default() -> Ports {
        Ports { towards: BTreeMap::new(), flows: vec![0; BUCKETS], spare: Vec::new() }
    }
}

impl Ports {
    /// Counts a new flow at a tuple.
    #[inline]
    pub(crate) fn came(&mut self, tuple: &FourTuple) {
        self.flows[bucket(tuple)] += 1;
    }

    /// Uncounts the flow of a tuple, and releases its port.
    #[inline]
    pub(crate) fn gone(&mut self, tuple: &FourTuple) {
        self.flows[bucket(tuple)] -= 1;
        if !self.towards.is_empty() {
            self.give_back(tuple);
        }
    }

    /// Returns the number of counted flows.
    pub(crate) fn flows(&self) -> usize {
        self.flows.iter().map(|flows| *flows as usize).sum()
    }

    /// Records the local port of a connect, if its ends have a crowd.
    #[inline]
    pub(crate) fn connected(&mut self, tuple: &FourTuple) {
        if self.flows[bucket(tuple)] > CROWD {
            self.take(tuple);
        }
    }

    /// Records that the local port of a tuple is in use.
    pub(crate) fn take(&mut self, tuple: &FourTuple) {
        let port = tuple.local_port;
        let Ports { towards, spare, .. } = self;
        let taken = towards.entry(ends(tuple)).or_insert_with(|| Taken::Few(std::mem::take(spare)));
        match taken {
            Taken::Few(ports) if ports.contains(&port) => {}
            Taken::Few(ports) if ports.len() < FEW => ports.push(port),
            Taken::Few(ports) => {
                let mut many = Many::new(ports);
                many.take(port);
                *taken = Taken::Many(Box::new(many));
            }
            Taken::Many(many) => many.take(port),
        }
    }

    fn give_back(&mut self, tuple: &FourTuple) {
        let ends = ends(tuple);
        let Some(taken) = self.towards.get_mut(&ends) else { return };
        let port = tuple.local_port;
        match taken {
            Taken::Few(ports) => {
                if let Some(at) = ports.iter().position(|taken| *taken == port) {
                    ports.swap_remove(at);
                }
                if ports.is_empty() {
                    self.spare = std::mem::take(ports);
                    self.towards.remove(&ends);
                }
            }
            Taken::Many(many) => {
                many.give_back(port);
                if many.count <= FEW / 2 {
                    *taken = Taken::Few(many.list());
                }
            }
        }
    }

    /// Returns whether so few ports of a range are free between the ends of a tuple that a search for one by trying is
    /// not worthwhile.
    pub(crate) fn are_scarce(&self, tuple: &FourTuple, range: PortRange) -> bool {
        /// One in this many is free.
        const FEW_FREE: usize = 64;
        let all = usize::from(range.last() - range.first()) + 1;
        match self.towards.get(&ends(tuple)) {
            Some(Taken::Many(many)) => all.saturating_sub(many.count) < all / FEW_FREE,
            _ => false,
        }
    }

    /// Notes that the flow of a tuple entered TIME-WAIT and may be taken over later.
    pub(crate) fn rest(&mut self, tuple: &FourTuple) {
        if !self.towards.is_empty()
            && let Some(Taken::Many(many)) = self.towards.get_mut(&ends(tuple))
            && many.has(tuple.local_port)
        {
            if many.resting.len() > 2 * many.count {
                // Most of them have left TIME-WAIT; others were taken over and entered it again.
                many.resting.pop_front();
            }
            many.resting.push_back(tuple.local_port);
        }
    }

    /// Returns the ports between the ends of a tuple that are in TIME-WAIT, or may be, oldest first.
    pub(crate) fn resting(&self, tuple: &FourTuple) -> impl Iterator<Item = u16> {
        let (few, many) = match self.towards.get(&ends(tuple)) {
            Some(Taken::Few(ports)) => (Some(ports), None),
            Some(Taken::Many(many)) => (None, Some(&many.resting)),
            None => (None, None),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten()).copied()
    }

    /// Forgets the first `count` resting ports, which the caller found not to be in TIME-WAIT.
    pub(crate) fn forget_resting(&mut self, tuple: &FourTuple, count: usize) {
        if let Some(Taken::Many(many)) = self.towards.get_mut(&ends(tuple)) {
            many.resting.drain(..count.min(many.resting.len()));
        }
    }

    /// Returns the first port of a range, from `first` on with wraparound, that is not recorded between the ends of a
    /// tuple.
    pub(crate) fn free(&self, tuple: &FourTuple, range: PortRange, first: u16) -> Option<u16> {
        match self.towards.get(&ends(tuple)) {
            None => Some(first),
            Some(Taken::Few(ports)) => {
                (first..=range.last()).chain(range.first()..first).find(|port| !ports.contains(port))
            }
            Some(Taken::Many(many)) => {
                many.free(first, range.last()).or_else(|| many.free(range.first(), first.checked_sub(1)?))
            }
        }
    }
}

impl Many {
    fn new(ports: &[u16]) -> Many {
        let mut many = Many { bits: [0; WORDS], count: 0, resting: ports.iter().copied().collect() };
        ports.iter().for_each(|port| many.take(*port));
        many
    }

    fn has(&self, port: u16) -> bool {
        self.bits[usize::from(port) / 64] >> (port % 64) & 1 == 1
    }

    fn take(&mut self, port: u16) {
        self.count += usize::from(!self.has(port));
        self.bits[usize::from(port) / 64] |= 1 << (port % 64);
    }

    fn give_back(&mut self, port: u16) {
        self.count -= usize::from(self.has(port));
        self.bits[usize::from(port) / 64] &= !(1 << (port % 64));
    }

    fn list(&self) -> Vec<u16> {
        (0..=u16::MAX).filter(|port| self.has(*port)).collect()
    }

    /// Returns the first free port from one to another, both included.
    fn free(&self, from: u16, to: u16) -> Option<u16> {
        let words = usize::from(from) / 64..=usize::from(to) / 64;
        let ports = words.filter_map(|word| {
            let before = if word == usize::from(from) / 64 { (1 << (from % 64)) - 1 } else { 0 };
            let vacant = !(self.bits[word] | before);
            (vacant != 0).then(|| word as u32 * 64 + vacant.trailing_zeros())
        });
        ports.map(|port| port as u16).next().filter(|port| (from..=to).contains(port))
    }
}

/// Returns the index of the flow count for the ends of a tuple.
#[inline]
fn bucket(tuple: &FourTuple) -> usize {
    let bits = tuple.local_address.to_bits() ^ tuple.remote_address.to_bits().rotate_left(64);
    let folded = (bits >> 64) as u64 ^ bits as u64 ^ u64::from(tuple.remote_port) << 32;
    let spread = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> (u64::BITS - BUCKETS.ilog2())) as usize
}

fn ends(tuple: &FourTuple) -> Ends {
    (tuple.local_address.to_bits(), tuple.remote_address.to_bits(), tuple.remote_port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    const RANGE: PortRange = PortRange::new(1000, 1299).expect("ports in order");

    fn tuple(local_port: u16) -> FourTuple {
        let tuple = FourTuple::new("10.0.0.1:0".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        FourTuple { local_port, ..tuple }
    }

    #[test]
    fn what_was_taken_towards_one_end_is_free_towards_another() {
        let mut ports = Ports::default();
        (1000..=1299).for_each(|port| ports.take(&tuple(port)));
        assert_eq!(ports.free(&tuple(0), RANGE, 1100), None);
        let other = FourTuple { remote_port: 81, ..tuple(0) };
        assert_eq!(ports.free(&other, RANGE, 1100), Some(1100));
    }

    #[test]
    fn ports_are_scarce_where_fewer_than_one_in_64_is_free() {
        let mut ports = Ports::default();
        (1000..=1295).for_each(|port| ports.take(&tuple(port)));
        assert!(!ports.are_scarce(&tuple(0), RANGE), "4 of 300");
        ports.take(&tuple(1296));
        assert!(ports.are_scarce(&tuple(0), RANGE), "3 of 300");
        assert!(!ports.are_scarce(&FourTuple { remote_port: 81, ..tuple(0) }, RANGE));
    }

    #[test]
    fn what_is_gone_takes_no_memory() {
        let mut ports = Ports::default();
        (0..=u16::MAX).for_each(|port| ports.take(&tuple(port)));
        (0..=u16::MAX).for_each(|port| ports.give_back(&tuple(port)));
        assert!(ports.towards.is_empty());
    }

    #[test]
    fn what_rests_is_known_from_the_oldest_on() {
        let mut ports = Ports::default();
        (1000..=1099).for_each(|port| ports.take(&tuple(port)));
        ports.forget_resting(&tuple(0), usize::MAX);
        [1050, 1010].into_iter().for_each(|port| ports.rest(&tuple(port)));
        ports.rest(&tuple(1200));
        assert!(ports.resting(&tuple(0)).eq([1050, 1010]), "nobody took 1200");
    }

    proptest! {
        /// A set is the oracle, with few ports and with many.
        #[test]
        fn the_free_port_is_the_first_that_is_not_taken(
            start in 0u16..300,
            steps in proptest::collection::vec((0u8..5, 0u16..300), 0..700),
        ) {
            let (mut ports, mut oracle) = (Ports::default(), BTreeSet::new());
            (1000..1000 + start).for_each(|port| {
                ports.take(&tuple(port));
                oracle.insert(port);
            });
            for (what, number) in steps {
                let port = 1000 + number;
                match what {
                    0..2 => {
                        ports.take(&tuple(port));
                        oracle.insert(port);
                    }
                    2..4 => {
                        ports.give_back(&tuple(port));
                        oracle.remove(&port);
                    }
                    _ => {
                        let mut round = (port..=RANGE.last()).chain(RANGE.first()..port);
                        let first = round.find(|port| !oracle.contains(port));
                        prop_assert_eq!(ports.free(&tuple(0), RANGE, port), first);
                    }
                }
            }
        }
    }
}
