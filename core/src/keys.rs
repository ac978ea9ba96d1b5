//! All values that an outsider must not guess: ISS, hash keys, cookies, ports, timestamp offsets, jitter. All are
//! derived from `Config.secret` by SipHash, so that the same secret gives the same run.

use std::hash::Hasher;
use std::net::Ipv6Addr;

use siphasher::sip::{SipHasher13, SipHasher24};

use crate::config::PortRange;
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::tuple::FourTuple;

/// Number of counters of the port choice, which destinations share (RFC 6056 §3.3.4, 6056-2). An attacker with many
/// destinations must not share a counter with every other destination; 1024 counters are too few (CVE-2022-32296).
const PORT_COUNTERS: usize = 1 << 16;

/// How long a destination keeps its counter and the start of its ports. Afterwards, knowledge of them is worthless.
/// Within it, ports in TIME-WAIT at the peer are not reused soon.
const PORT_EPOCH: Duration = Duration::from_secs(10);

/// The label of the key that distributes connections among stacks. A stack's own keys have labels below it.
pub(crate) const STEERING: u64 = 9;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u64, u64);

impl Key {
    pub(crate) fn derive(secret: &[u8; 32], label: u64) -> Key {
        let half = |lane: u64| {
            let mut hasher = SipHasher24::new_with_keys(
                u64::from_le_bytes(*secret.first_chunk().expect("32 bytes")),
                u64::from_le_bytes(*secret[8..].first_chunk().expect("24 bytes")),
            );
            hasher.write(&secret[16..]);
            hasher.write_u64(label);
            hasher.write_u64(lane);
            hasher.finish()
        };
        Key(half(0), half(1))
    }

    /// A hash whose results an attacker may see. `write` feeds words, since bytes cost twice as much.
    #[inline]
    pub(crate) fn strong(self, write: impl FnOnce(&mut SipHasher24)) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.0, self.1);
        write(&mut hasher);
        hasher.finish()
    }
}

/// Feeds both addresses. A pair of IPv4 addresses takes one word, a quarter of an IPv6 pair.
#[inline(always)] // Inlined, so that the compiler writes whole words.
fn write_addresses(hasher: &mut impl Hasher, tuple: &FourTuple) {
    match tuple.ipv4() {
        Some((local, remote)) => {
            hasher.write_u64(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits()));
        }
        None => {
            for address in [tuple.local_address, tuple.remote_address] {
                hasher.write_u64((address.to_bits() >> 64) as u64);
                hasher.write_u64(address.to_bits() as u64);
            }
        }
    }
}

/// Feeds both addresses and ports.
#[inline(always)]
pub(crate) fn write_tuple(hasher: &mut impl Hasher, tuple: &FourTuple) {
    write_addresses(hasher, tuple);
    hasher.write_u32(u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port));
}

/// The keys of one stack.
#[derive(Clone)]
pub(crate) struct Keys {
    flow: Key,
    iss: Key,
    timestamp: Key,
    cookie: Key,
    fast_open: Key,
    port: Key,
    bucket: Key,
    random: Key,
    /// The two hosts of the last offset of timestamps, and the offset.
    recent_offset: Option<(Ipv6Addr, Ipv6Addr, u32)>,
    drawn: u64,
    drawn_last: u64,
    /// The clock of ISS, once it goes on with each of them instead of with time.
    stopped: Option<u32>,
    /// Empty until the first choice of a port.
    port_counters: Vec<u16>,
}

impl Keys {
    pub(crate) fn new(secret: &[u8; 32]) -> Keys {
        let key = |label| Key::derive(secret, label);
        Keys {
            flow: key(1),
            iss: key(2),
            timestamp: key(3),
            recent_offset: None,
            cookie: key(4),
            fast_open: key(5),
            port: key(6),
            bucket: key(7),
            random: key(8),
            drawn: 0,
            drawn_last: 0,
            stopped: None,
            port_counters: Vec::new(),
        }
    }

    pub(crate) fn flow_hash(&self, tuple: &FourTuple) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.flow.0, self.flow.1);
        write_tuple(&mut hasher, tuple);
        hasher.finish()
    }

    /// Returns ISS = M + F(tuple, secret), where M ticks every 4 µs (RFC 9293 §3.4.1, MUST-8, MUST-9, 6528-1).
    pub(crate) fn iss(&mut self, now: Instant, tuple: &FourTuple) -> SeqNum {
        let clock = match &mut self.stopped {
            Some(clock) => {
                *clock = clock.wrapping_add(1 << 20);
                *clock
            }
            None => (now.as_micros() / 4) as u32,
        };
        SeqNum(self.iss.strong(|hasher| write_tuple(hasher, tuple)) as u32) + clock
    }

    /// Returns the offset from the millisecond clock to the timestamps of a connection (7323-13). It depends only on
    /// the addresses, so that timestamps keep rising in later connections between the same hosts (RFC 6191).
    pub(crate) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        self.timestamp.strong(|hasher| write_addresses(hasher, tuple)) as u32
    }

    /// Like [`timestamp_offset`](Keys::timestamp_offset), and remembers it: the SYN-ACK and the third segment need the
    /// same one, and so does the next connection between the same hosts.
    #[inline]
    pub(crate) fn recent_timestamp_offset(&mut self, tuple: &FourTuple) -> u32 {
        match self.recent_offset {
            Some((local, remote, offset))
                if (local, remote) == (tuple.local_address, tuple.remote_address) =>
            {
                offset
            }
            _ => {
                let offset = self.timestamp_offset(tuple);
                self.recent_offset = Some((tuple.local_address, tuple.remote_address, offset));
                offset
            }
        }
    }

    /// Returns the MAC of a SYN cookie over everything that it must bind.
    pub(crate) fn cookie_mac(&self, tuple: &FourTuple, irs: SeqNum, epoch: u64, content: u8) -> u64 {
        self.cookie.strong(|hasher| {
            write_tuple(hasher, tuple);
            hasher.write_u32(irs.0);
            // Epochs are minutes: their upper byte is free.
            hasher.write_u64(epoch << 8 | u64::from(content));
        })
    }

    /// Returns the key of Fast Open cookies with this number.
    pub(crate) fn fast_open_key(&self, number: u64) -> u128 {
        let half = |lane: u64| {
            let half = self.fast_open.strong(|hasher| {
                hasher.write_u64(number);
                hasher.write_u64(lane);
            });
            u128::from(half)
        };
        half(1) << 64 | half(0)
    }

    /// Returns the slot of a destination prefix in a table of `slots`.
    pub(crate) fn bucket(&self, prefix: &[u8], slots: usize) -> usize {
        (self.bucket.strong(|hasher| hasher.write(prefix)) % slots as u64) as usize
    }

    /// Returns the ports to try for a connect, in order: the whole range once, from an unpredictable start (RFC 6056
    /// §3.3.4, double hash, with random steps: 6056-1, 6056-2).
    #[inline]
    pub(crate) fn ports(
        &mut self,
        now: Instant,
        range: PortRange,
        tuple: &FourTuple,
    ) -> impl Iterator<Item = u16> + Clone + use<> {
        let ends = FourTuple { local_port: 0, ..*tuple };
        let epoch = now.as_nanos() / PORT_EPOCH.as_nanos() as u64;
        let hash = self.port.strong(|hasher| {
            write_tuple(hasher, &ends);
            hasher.write_u64(epoch);
        });
        let step = 1 + self.random() % 8;
        if self.port_counters.is_empty() {
            self.port_counters = vec![0; PORT_COUNTERS];
        }
        let counter = &mut self.port_counters[(hash >> 32) as usize % PORT_COUNTERS];
        *counter = counter.wrapping_add(step as u16);
        let count = u32::from(range.last()) - u32::from(range.first()) + 1;
        let first = (hash as u32).wrapping_add(u32::from(*counter)) % count;
        (0..count).map(move |i| range.first() + ((first + i) % count) as u16)
    }

    #[cfg(feature = "model")]
    pub(crate) fn stop_clock(&mut self) {
        self.stopped = Some(0);
    }

    /// The source of the next random numbers and of the next ISS.
    #[cfg(feature = "model")]
    pub(crate) fn drawn(&self) -> (u64, Option<u32>) {
        (self.drawn, self.stopped)
    }

    /// Returns the next number of the stack's own random sequence.
    pub(crate) fn random(&mut self) -> u32 {
        // Each hash yields two numbers.
        self.drawn += 1;
        if self.drawn % 2 == 1 {
            self.drawn_last = self.random.strong(|hasher| hasher.write_u64(self.drawn));
            return self.drawn_last as u32;
        }
        (self.drawn_last >> 32) as u32
    }
}

/// Returns the Fast Open cookie of a client for the server at the local end (RFC 7413 §4.1.2). As in Linux it is the
/// SipHash-2-4 of the two addresses.
// DRILL-X31
pub(crate) fn fast_open_cookie(key: u128, tuple: &FourTuple) -> [u8; 8] {
    let key = Key(key as u64, (key >> 64) as u64);
    let cookie = key.strong(|hasher| match tuple.ipv4() {
        Some((server, client)) => {
            hasher.write(&client.octets());
            hasher.write(&server.octets());
        }
        None => {
            hasher.write(&tuple.remote_address.octets());
            hasher.write(&tuple.local_address.octets());
        }
    });
    cookie.to_le_bytes()
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: u8) -> Keys {
        Keys::new(&[secret; 32])
    }

    fn tuple(remote: &str) -> FourTuple {
        FourTuple::new("10.0.0.2:80".parse().unwrap(), remote.parse().unwrap())
    }

    // DRILL-X31
    #[test]
    fn a_cookie_of_fast_open_is_that_of_linux() {
        let keys: crate::config::FastOpenKeys = "01020304-05060708-090a0b0c-0d0e0f10".parse().unwrap();
        let ends =
            |local: &str, remote: &str| FourTuple::new(local.parse().unwrap(), remote.parse().unwrap());
        let cookie = fast_open_cookie(keys.primary, &ends("192.168.0.1:80", "192.0.2.1:4000"));
        assert_eq!(cookie, 0x8ae4_0f6a_0a8d_8dd3_u64.to_be_bytes());
    }

    /// 7323-13: the offset for one peer or of one stack reveals nothing about the others. Connections between the same
    /// two hosts share it (RFC 6191).
    #[test]
    fn the_offset_of_timestamps_is_a_secret_of_two_hosts_7323_13() {
        let offset = |secret, remote| keys(secret).timestamp_offset(&tuple(remote));
        let known = offset(1, "10.0.0.1:4000");
        assert_ne!(known, offset(1, "10.0.0.3:4000"));
        assert_ne!(known, offset(2, "10.0.0.1:4000"));
        assert_eq!(known, offset(1, "10.0.0.1:4001"));
    }

    /// 6056-1: the start of the search depends on destination and secret, and the search covers the whole range.
    #[test]
    fn ports_begin_anywhere_and_come_round_6056_1() {
        let range = PortRange::new(1024, 65_535).unwrap();
        let first = |secret, remote| keys(secret).ports(Instant::ZERO, range, &tuple(remote)).next().unwrap();
        assert_ne!(first(1, "10.0.0.1:80"), first(1, "10.0.0.3:80"));
        assert_ne!(first(1, "10.0.0.1:80"), first(1, "10.0.0.1:81"));
        assert_ne!(first(1, "10.0.0.1:80"), first(2, "10.0.0.1:80"));
        let mut all: Vec<_> = keys(1).ports(Instant::ZERO, range, &tuple("10.0.0.1:80")).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(1024..=65_535));
    }

    /// THREAT-26: the difference of two tuples' ISS is evenly spread, in each byte. The sum of squares has 255 degrees
    /// of freedom; four standard deviations above that come once in 30,000 times.
    #[test]
    fn initial_sequence_numbers_of_two_tuples_have_nothing_in_common_threat_26() {
        const TUPLES: u32 = 1 << 18;
        let (mut keys, now) = (keys(1), Instant::from_secs(1000));
        let tuple =
            |n: u32| FourTuple { remote_port: n as u16, local_port: (n >> 16) as u16, ..tuple("10.0.0.1:1") };
        let iss: Vec<_> = (0..TUPLES).map(|n| keys.iss(now, &tuple(n))).collect();
        for shift in [0, 8, 16, 24] {
            let mut counts = [0_u32; 256];
            iss.windows(2).for_each(|pair| counts[(pair[1].since(pair[0]) >> shift) as usize % 256] += 1);
            let expected = f64::from(TUPLES - 1) / 256.0;
            let square = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
            let sum: f64 = counts.iter().map(square).sum();
            assert!(sum < 255.0 + 4.0 * 510_f64.sqrt(), "bits from {shift} on: {sum}");
        }
    }

    /// THREAT-26, MUST-8: the ISS of one tuple rises with the clock, for longer than an MSL.
    #[test]
    fn initial_sequence_numbers_of_one_tuple_rise_threat_26() {
        let (mut keys, tuple) = (keys(1), tuple("10.0.0.1:4000"));
        let mut last = keys.iss(Instant::ZERO, &tuple);
        // Steps of 4 µs to 2 s, until four minutes have passed.
        let mut now = Instant::ZERO;
        for step in (0..20).cycle().map(|n| Duration::from_micros(4 << n)) {
            now += step;
            let next = keys.iss(now, &tuple);
            assert_eq!(u128::from(next.since(last)), step.as_micros() / 4);
            assert!(next.gt(last));
            last = next;
            if now > Instant::from_secs(240) {
                break;
            }
        }
    }

    /// THREAT-28: an observer of the port for one destination must guess at least 14 bits of the next port for another.
    /// The entropy is that of the distance between the two, over many epochs.
    #[test]
    fn the_port_for_another_destination_has_fourteen_bits_threat_28() {
        const SAMPLES: u32 = 1 << 18;
        let range = PortRange::new(10_000, 65_535).unwrap();
        let size = u32::from(range.last() - range.first()) + 1;
        let mut keys = keys(1);
        let mut counts = vec![0_u32; size as usize];
        for n in 0..SAMPLES {
            let now = Instant::ZERO + PORT_EPOCH * n;
            let mut first =
                |remote| u32::from(keys.ports(now, range, &tuple(remote)).next().expect("a port"));
            let (seen, guessed) = (first("10.0.0.1:80"), first("10.0.0.3:80"));
            counts[((guessed + size - seen) % size) as usize] += 1;
        }
        let part = |count: &u32| f64::from(*count) / f64::from(SAMPLES);
        let entropy: f64 = counts.iter().map(part).filter(|p| *p > 0.0).map(|p| -p * p.log2()).sum();
        assert!(entropy >= 14.0, "{entropy}");
    }

    /// 6056-2: two connects to one destination are a random step apart, so that one port does not reveal the next.
    #[test]
    fn ports_move_on_by_random_steps_6056_2() {
        let mut keys = keys(1);
        let range = PortRange::new(1024, 65_535).unwrap();
        let mut first = || keys.ports(Instant::ZERO, range, &tuple("10.0.0.1:80")).next().unwrap();
        let ports: Vec<u16> = (0..100).map(|_| first()).collect();
        let mut steps: Vec<_> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        steps.sort_unstable();
        steps.dedup();
        assert!(steps.len() >= 8, "{steps:?}");
    }
}
