//! SYN cookies: a half-open connection that takes no memory (RFC 4987 §3.6).
//!
//! The ISS holds a 24-bit MAC and a byte of options: window scale (3 bits), MSS (3 bits), SACK (1 bit), and the
//! parity of the secret's epoch. Where timestamps are on, the low six bits of ours carry what does not fit: the exact
//! window scale, SACK and ECN. Secrets rotate; a cookie is good for one to two epochs, and for one connection.
// SA-LISTEN-07

use std::collections::BTreeSet;

use super::listen::Offer;
use super::segment::Segment;
use crate::keys::Keys;
use crate::seq::SeqNum;
use crate::time::{Duration, Instant};
use crate::tuple::FourTuple;

/// How long a secret is used.
const EPOCH: Duration = Duration::from_secs(60);
const MSS: [u16; 8] = [48, 216, 536, 1200, 1360, 1400, 1440, 1460];
/// Window scales, rounded down; the first entry means: none.
const WSCALE: [Option<u8>; 8] = [None, Some(0), Some(1), Some(2), Some(4), Some(6), Some(7), Some(8)];

/// Bits of the timestamp that carry options.
const TS_BITS: u32 = 6;
const TS_NO_WSCALE: u32 = 0xf;
const TS_SACK: u32 = 1 << 4;
const TS_ECN: u32 = 1 << 5;

/// The ISS that answers a SYN.
pub(crate) fn iss(keys: &Keys, now: Instant, tuple: &FourTuple, irs: SeqNum, offer: Offer) -> SeqNum {
    let epoch = epoch_of(now);
    let mss = MSS.iter().rposition(|mss| *mss <= offer.peer_mss).unwrap_or(0) as u8;
    let wscale = WSCALE.iter().rposition(|w| *w <= offer.wscale()).unwrap_or(0) as u8;
    let content = wscale << 5 | mss << 2 | u8::from(offer.sack()) << 1 | (epoch & 1) as u8;
    let mac = keys.cookie_mac(tuple, irs, epoch, content) as u32 & 0xffff_ff00;
    SeqNum(mac | u32::from(content ^ (mac >> 24) as u8))
}

/// Our timestamp in the SYN-ACK: not above `clock`, so that those that follow rise.
pub(crate) fn timestamp(clock: u32, offer: Offer) -> u32 {
    let bits = offer.wscale().map_or(TS_NO_WSCALE, u32::from)
        | if offer.sack() { TS_SACK } else { 0 }
        | if offer.ecn() { TS_ECN } else { 0 };
    let mask = (1 << TS_BITS) - 1;
    let value = clock & !mask | bits;
    if value > clock { value.wrapping_sub(1 << TS_BITS) } else { value }
}

/// A cookie that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    pub(crate) offer: Offer,
    /// The number by which [`SpentCookies`] knows it.
    pub(crate) token: Token,
}

/// The agreement that the third segment tells, if its ACK is a cookie of ours.
pub(crate) fn check(keys: &Keys, now: Instant, segment: &Segment<'_>) -> Option<Returned> {
    let (iss, irs) = (segment.ack() - 1, segment.seq() - 1);
    let content = iss.0 as u8 ^ (iss.0 >> 24) as u8;
    let current = epoch_of(now);
    let epoch = if current & 1 == u64::from(content & 1) { current } else { current.checked_sub(1)? };
    let mac = keys.cookie_mac(&segment.tuple, irs, epoch, content);
    if mac as u32 & 0xffff_ff00 != iss.0 & 0xffff_ff00 {
        return None;
    }
    let mss = MSS[usize::from(content >> 2 & 7)];
    let timestamps = segment.options().timestamps;
    let offer = match timestamps {
        Some(ts) => {
            let bits = ts.ecr & ((1 << TS_BITS) - 1);
            let wscale = bits & TS_NO_WSCALE;
            let wscale = (wscale != TS_NO_WSCALE).then_some(wscale as u8);
            Offer::new(mss, wscale, bits & TS_SACK != 0, true, bits & TS_ECN != 0)
        }
        None => Offer::new(mss, WSCALE[usize::from(content >> 5)], content & 2 != 0, false, false),
    };
    Some(Returned { iss, irs, offer, token: Token::new(epoch, mac) })
}

/// The epoch of a cookie above 40 bits of its MAC, so that the oldest come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(u64);

impl Token {
    const MAC_BITS: u32 = 40;

    fn new(epoch: u64, mac: u64) -> Token {
        Token(epoch << Token::MAC_BITS | mac >> (64 - Token::MAC_BITS))
    }

    /// When its cookie is good for nothing any more.
    fn end(self) -> Instant {
        let epochs = (self.0 >> Token::MAC_BITS) as u32 + 2;
        Instant::ZERO + EPOCH * epochs
    }
}

/// The cookies that have become connections, each for as long as it is good. Its third segment, delayed or repeated,
/// makes no second connection, whatever became of the first one and of its tuple (H4b).
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct SpentCookies {
    tokens: BTreeSet<Token>,
}

impl SpentCookies {
    /// So many that are over go at once: there may be hundreds of thousands.
    const STEP: usize = 64;

    pub(crate) fn contains(&self, token: Token) -> bool {
        self.tokens.contains(&token)
    }

    /// `false`: there are `limit` of them already.
    #[must_use]
    pub(crate) fn insert(&mut self, token: Token, now: Instant, limit: usize) -> bool {
        self.expire(now);
        let room = self.tokens.len() < limit;
        if room {
            self.tokens.insert(token);
        }
        room
    }

    /// Forgets some that are over.
    #[inline]
    pub(crate) fn expire(&mut self, now: Instant) {
        for _ in 0..SpentCookies::STEP {
            if self.poll_at().is_none_or(|end| now < end) {
                break;
            }
            self.tokens.pop_first();
        }
    }

    /// When the next one is over.
    #[inline]
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.tokens.first().map(|token| token.end())
    }
}

fn epoch_of(now: Instant) -> u64 {
    now.as_nanos() / EPOCH.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use steadfast_testkit::Chance;

    use super::*;
    use crate::wire::Ecn;
    use crate::wire::tcp::{Flags, Header, Options, Timestamps};
    use proptest::prelude::*;

    fn tuple() -> FourTuple {
        FourTuple::new("10.0.0.2:80".parse().unwrap(), "10.0.0.1:4000".parse().unwrap())
    }

    fn round_trip(offer: Offer, sent: Instant, back: Instant, flip: u32) -> Option<Returned> {
        let keys = Keys::new(&[9; 32]);
        let irs = SeqNum(77);
        let iss = iss(&keys, sent, &tuple(), irs, offer);
        let clock = 1_000_000 + sent.as_millis() as u32;
        let ts = offer.timestamps().then(|| Timestamps { val: 5, ecr: timestamp(clock, offer) });
        let options = Options { timestamps: ts, ..Options::default() };
        let header = Header {
            seq: irs + 1,
            ack: SeqNum(iss.0 ^ flip) + 1,
            flags: Flags::ACK,
            options,
            ..Header::default()
        };
        let segment =
            Segment { tuple: tuple(), header: &header, payload: &[], packet: None, ecn: Ecn::NotEct };
        check(&keys, back, &segment)
    }

    #[test]
    fn with_timestamps_every_option_survives_h4b() {
        for wscale in [None, Some(0), Some(5), Some(14)] {
            for (sack, ecn) in [(false, false), (true, false), (false, true), (true, true)] {
                let offer = Offer::new(1460, wscale, sack, true, ecn);
                let now = Instant::from_secs(100);
                assert_eq!(round_trip(offer, now, now, 0).unwrap().offer, offer);
            }
        }
    }

    #[test]
    fn without_timestamps_mss_scale_and_sack_survive_rounded_down() {
        let now = Instant::from_secs(100);
        let offer = round_trip(Offer::new(1459, Some(5), true, false, true), now, now, 0).unwrap().offer;
        assert_eq!(offer, Offer::new(1440, Some(4), true, false, false));
        let offer = round_trip(Offer::new(9000, None, false, false, false), now, now, 0).unwrap().offer;
        assert_eq!(offer, Offer::new(1460, None, false, false, false));
    }

    #[test]
    fn a_cookie_lives_one_to_two_epochs() {
        let offer = Offer::new(1460, None, false, false, false);
        let sent = Instant::from_secs(119);
        assert!(round_trip(offer, sent, Instant::from_millis(179_999), 0).is_some());
        assert!(round_trip(offer, sent, Instant::from_secs(180), 0).is_none());
    }

    #[test]
    fn its_timestamp_is_never_ahead_of_the_clock() {
        for clock in 0..1000 {
            let value = timestamp(clock + 64, Offer::new(1460, Some(7), true, true, true));
            assert!(value <= clock + 64 && clock + 64 - value < 128);
        }
    }

    /// THREAT-6: a forged ACK is taken for a cookie with a chance of 2^-24, the bits of the MAC: 0.6 of ten million
    /// are. More than three standard deviations above that would be another chance.
    #[test]
    fn of_ten_million_forged_cookies_no_more_come_through_than_theory_says_threat_6() {
        let keys = Keys::new(&[9; 32]);
        let now = Instant::from_secs(61);
        let expected = 1e7 / f64::from(1 << 24);
        // It has nothing to do with the keys.
        let mut random = Chance::new(0x9e37_79b9_7f4a_7c15);
        let mut accepted = 0;
        for _ in 0..10_000_000 {
            let number = random.bits();
            let (seq, ack) = (SeqNum(number as u32), SeqNum((number >> 32) as u32));
            let header = Header { seq, ack, flags: Flags::ACK, ..Header::default() };
            let segment =
                Segment { tuple: tuple(), header: &header, payload: &[], packet: None, ecn: Ecn::NotEct };
            accepted += u32::from(check(&keys, now, &segment).is_some());
        }
        assert!(f64::from(accepted) <= expected + 3.0 * expected.sqrt(), "{accepted}");
    }

    fn token(epoch: u64, mac: u64) -> Token {
        Token::new(epoch, mac << 24)
    }

    #[test]
    fn spent_cookies_are_known_as_long_as_they_are_good() {
        let mut spent = SpentCookies::default();
        assert_eq!(spent.poll_at(), None);
        assert!(spent.insert(token(1, 7), Instant::from_secs(60), 10));
        assert!(spent.insert(token(2, 7), Instant::from_secs(120), 10));
        assert!(spent.contains(token(1, 7)) && spent.contains(token(2, 7)) && !spent.contains(token(1, 8)));
        // Issued from 60 s on, so good until 180 s: see `a_cookie_lives_one_to_two_epochs`.
        assert_eq!(spent.poll_at(), Some(Instant::from_secs(180)));
        spent.expire(Instant::from_nanos(179_999_999_999));
        assert_eq!(spent.tokens.len(), 2);
        spent.expire(Instant::from_secs(180));
        assert!(spent.tokens.len() == 1 && spent.contains(token(2, 7)));
        spent.expire(Instant::from_secs(240));
        assert_eq!((spent.tokens.len(), spent.poll_at()), (0, None));
    }

    #[test]
    fn spent_cookies_take_no_more_room_than_the_limit_and_go_in_steps() {
        let mut spent = SpentCookies::default();
        let first = Instant::from_secs(60);
        for n in 0..300 {
            assert_eq!(spent.insert(token(1, n), first, 200), n < 200);
        }
        assert_eq!(spent.tokens.len(), 200);
        let mut steps = 0;
        while spent.poll_at().is_some() {
            spent.expire(Instant::from_secs(180));
            steps += 1;
        }
        assert_eq!(steps, 200usize.div_ceil(SpentCookies::STEP));
        assert!(spent.insert(token(3, 1), Instant::from_secs(180), 200), "there is room again");
    }

    proptest! {
        #[test]
        fn a_cookie_never_raises_the_mss_must_16(mss in 48u16..) {
            let now = Instant::from_secs(61);
            let offer = Offer::new(mss, None, false, false, false);
            prop_assert!(round_trip(offer, now, now, 0).unwrap().offer.peer_mss <= mss);
        }

        #[test]
        fn a_changed_cookie_is_none_threat_6(bit in 0u32..32, mss in 216u16..1460) {
            let now = Instant::from_secs(61);
            let offer = Offer::new(mss, Some(3), true, false, false);
            prop_assert!(round_trip(offer, now, now, 0).is_some());
            prop_assert!(round_trip(offer, now, now, 1 << bit).is_none());
        }
    }
}
