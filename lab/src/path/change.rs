//! The setup of a path: what each word of a `path` line or of a fault changes.

use std::str::FromStr;

use steadfast_core::{Duration, Instant};

use crate::fault::pattern::percent;
use crate::text::{ParseError, Understood, Words, duration, rate, size};

/// Everything that one direction of a path does to packets.
///
/// ```
/// let setup: steadfast_lab::path::Setup = "delay 20ms rate 50mbit queue 250000 bytes loss 1%".parse().unwrap();
/// assert_eq!(setup.delay.as_millis(), 20);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// One-way delay.
    pub delay: Duration,
    /// The rate of the link; `None`: no limit.
    pub rates: Option<Rates>,
    /// The limit of the queue before the link; `None`: no limit.
    pub queue: Option<Limit>,
    /// The loss of single packets, in parts per million.
    pub loss: u32,
    /// Losses in bursts.
    pub burst_loss: Option<BurstLoss>,
    /// Some packets are late, and others overtake them.
    pub late: Option<Late>,
    /// A random delay of every packet.
    pub jitter: Option<Jitter>,
    /// A policer before the queue.
    pub police: Option<Policer>,
    /// Active queue management.
    pub aqm: Option<Aqm>,
    /// Packets leave the link at multiples of this time.
    pub aggregate: Option<Duration>,
    /// So many pure ACKs become one.
    pub thin: Option<u32>,
    /// The receiver coalesces the segments that arrive within this time.
    pub gro: Option<Duration>,
    /// The link pauses at intervals.
    pub handover: Option<Handover>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            delay: Duration::from_millis(10),
            rates: None,
            queue: None,
            loss: 0,
            burst_loss: None,
            late: None,
            jitter: None,
            police: None,
            aqm: None,
            aggregate: None,
            thin: None,
            gro: None,
            handover: None,
        }
    }
}

/// The limit of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Packets, apart from the one that is being sent.
    Packets(usize),
    /// Bytes, those of the packet that is being sent included.
    Bytes(usize),
}

/// Rates in bits per second, each with the time that it lasts. They repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates(Vec<(u64, Duration)>);

impl Rates {
    /// The rate at a time.
    pub(super) fn at(&self, now: Instant) -> u64 {
        let total: u128 = self.0.iter().map(|(_, lasts)| lasts.as_nanos()).sum();
        let mut left = u128::from(now.as_nanos()).checked_rem(total).unwrap_or(0);
        for (rate, lasts) in &self.0 {
            if left < lasts.as_nanos() || total == 0 {
                return *rate;
            }
            left -= lasts.as_nanos();
        }
        unreachable!("the remainder is below the sum")
    }
}

/// Losses in bursts, by two states (Gilbert 1960). Chances in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurstLoss {
    /// The chance that a burst begins with a packet.
    pub begins: u32,
    /// The chance that it is over before the next packet.
    pub ends: u32,
}

/// Some packets take longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// How many, in parts per million.
    pub chance: u32,
    /// The shortest extra delay.
    pub low: Duration,
    /// The longest extra delay.
    pub high: Duration,
}

/// A random delay of every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter {
    /// The shortest extra delay.
    pub low: Duration,
    /// The longest extra delay.
    pub high: Duration,
    /// Packets overtake each other. Otherwise a packet waits for those before it.
    pub reorder: bool,
}

/// A token bucket that drops packets beyond its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policer {
    /// Bits per second.
    pub rate: u64,
    /// Bytes that the bucket holds.
    pub burst: u64,
}

/// Active queue management.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aqm {
    /// The algorithm.
    pub kind: AqmKind,
    /// It marks packets that allow it (RFC 3168) instead of dropping them.
    pub ecn: bool,
}

/// The algorithms of active queue management.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AqmKind {
    /// RFC 8289.
    CoDel,
    /// RFC 8033.
    Pie,
}

/// The link pauses at intervals, as with a change of the base station or satellite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The interval.
    pub every: Duration,
    /// The shortest pause.
    pub low: Duration,
    /// The longest pause.
    pub high: Duration,
    /// The loss of packets sent in the pause, in parts per million.
    pub loss: u32,
}

/// One change of a path.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PathChange {
    /// One-way delay.
    Delay(Duration),
    /// The rate of the link, and the limit of its queue; `None`: no limit.
    Rate(Rates, Option<Limit>),
    /// The loss of single packets, in parts per million.
    Loss(u32),
    /// Losses in bursts.
    BurstLoss(BurstLoss),
    /// Some packets are late.
    Late(Late),
    /// A random delay of every packet.
    Jitter(Jitter),
    /// A policer.
    Police(Policer),
    /// Active queue management.
    Aqm(Aqm),
    /// Packets leave in groups, at multiples of this time.
    Aggregate(Duration),
    /// So many pure ACKs become one.
    Thin(u32),
    /// The receiver coalesces what arrives within this time.
    Gro(Duration),
    /// Pauses.
    Handover(Handover),
}

/// The words with which changes begin on a `path` line.
pub(crate) const CHANGES: &str =
    "delay, rate, loss, burst-loss, late, jitter, police, aqm, aggregate, thin, gro or handover";

/// Those that are faults, too: `lose`, `delay` and `latency` have the forms of faults.
pub(crate) const FAULTS: [&str; 9] =
    ["rate", "burst-loss", "jitter", "police", "aqm", "aggregate", "thin", "gro", "handover"];

impl PathChange {
    /// Parses what follows the word `verb`.
    pub(crate) fn parse(verb: &str, words: &mut Words<'_>) -> Understood<PathChange> {
        let long = |w: &str| duration(w).filter(|d| !d.is_zero());
        Ok(match verb {
            "delay" => PathChange::Delay(words.duration("a one-way delay")?),
            "rate" => {
                let rates = rates(words)?;
                PathChange::Rate(rates, limit(words)?)
            }
            "loss" => PathChange::Loss(chance(words, "lost packets")?),
            "burst-loss" => PathChange::BurstLoss(BurstLoss {
                begins: chance(words, "packets with which a burst begins")?,
                ends: words
                    .parse("a chance above 0 % that a burst ends", |w| percent(w).filter(|p| *p > 0))?,
            }),
            "late" => {
                let chance = chance(words, "late packets")?;
                words.parse("`by`", |w| (w == "by").then_some(()))?;
                let (low, high) = span(words)?;
                PathChange::Late(Late { chance, low, high })
            }
            "jitter" => {
                let (low, high) = span(words)?;
                PathChange::Jitter(Jitter { low, high, reorder: words.take("reorder") })
            }
            "police" => PathChange::Police(Policer {
                rate: words.parse("a rate such as `10mbit`", rate)?,
                burst: words.parse("a burst in bytes such as `32K`", |w| size(w).filter(|n| *n > 0))?,
            }),
            "aqm" => {
                let kind = words.parse("`codel` or `pie`", |w| match w {
                    "codel" => Some(AqmKind::CoDel),
                    "pie" => Some(AqmKind::Pie),
                    _ => None,
                })?;
                PathChange::Aqm(Aqm { kind, ecn: words.take("ecn") })
            }
            "aggregate" => {
                PathChange::Aggregate(words.parse("the time between groups, such as `4ms`", long)?)
            }
            "thin" => {
                let count = |w: &str| w.parse().ok().filter(|n| *n > 0);
                PathChange::Thin(words.parse("how many ACKs become one", count)?)
            }
            "gro" => PathChange::Gro(words.parse("how long segments are gathered, such as `1ms`", long)?),
            "handover" => {
                let every = words.parse("the interval of handovers, such as `15s`", long)?;
                let (low, high) = span(words)?;
                if high >= every {
                    return Err(format!(
                        "expected a pause shorter than the interval of {every:?}, found {high:?}"
                    ));
                }
                PathChange::Handover(Handover {
                    every,
                    low,
                    high,
                    loss: chance(words, "packets lost meanwhile")?,
                })
            }
            other => return Err(format!("expected {CHANGES}, found `{other}`")),
        })
    }

    /// Changes `setup`.
    pub(crate) fn apply(&self, setup: &mut Setup) {
        match self {
            PathChange::Delay(delay) => setup.delay = *delay,
            PathChange::Rate(rates, queue) => (setup.rates, setup.queue) = (Some(rates.clone()), *queue),
            PathChange::Loss(loss) => setup.loss = *loss,
            PathChange::BurstLoss(burst) => setup.burst_loss = Some(*burst),
            PathChange::Late(late) => setup.late = Some(*late),
            PathChange::Jitter(jitter) => setup.jitter = Some(*jitter),
            PathChange::Police(policer) => setup.police = Some(*policer),
            PathChange::Aqm(aqm) => setup.aqm = Some(*aqm),
            PathChange::Aggregate(time) => setup.aggregate = Some(*time),
            PathChange::Thin(count) => setup.thin = Some(*count),
            PathChange::Gro(time) => setup.gro = Some(*time),
            PathChange::Handover(handover) => setup.handover = Some(*handover),
        }
    }

    /// Sets what this changes in `setup` back to the value in `before`.
    pub(crate) fn revert(&self, setup: &mut Setup, before: &Setup) {
        match self {
            PathChange::Delay(_) => setup.delay = before.delay,
            PathChange::Rate(..) => {
                (setup.rates, setup.queue) = (before.rates.clone(), before.queue);
            }
            PathChange::Loss(_) => setup.loss = before.loss,
            PathChange::BurstLoss(_) => setup.burst_loss = before.burst_loss,
            PathChange::Late(_) => setup.late = before.late,
            PathChange::Jitter(_) => setup.jitter = before.jitter,
            PathChange::Police(_) => setup.police = before.police,
            PathChange::Aqm(_) => setup.aqm = before.aqm,
            PathChange::Aggregate(_) => setup.aggregate = before.aggregate,
            PathChange::Thin(_) => setup.thin = before.thin,
            PathChange::Gro(_) => setup.gro = before.gro,
            PathChange::Handover(_) => setup.handover = before.handover,
        }
    }
}

/// Parses changes up to the end of the line; at least one.
pub(crate) fn changes(words: &mut Words<'_>) -> Understood<Vec<PathChange>> {
    let what = format!("a property of the path: {CHANGES}");
    let mut all = Vec::new();
    while all.is_empty() || !words.is_empty() {
        let verb = words.word(&what)?;
        all.push(PathChange::parse(verb, words)?);
    }
    Ok(all)
}

impl FromStr for Setup {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Setup, ParseError> {
        let mut setup = Setup::default();
        let all = changes(&mut Words::new(text));
        let wrong = |message| ParseError { file: "path".into(), line: 1, message };
        all.map_err(wrong)?.iter().for_each(|change| change.apply(&mut setup));
        Ok(setup)
    }
}

fn chance(words: &mut Words<'_>, of: &str) -> Understood<u32> {
    words.parse(&format!("the share of {of}, such as `1%`"), percent)
}

/// Parses a time, or two bounds of one.
fn span(words: &mut Words<'_>) -> Understood<(Duration, Duration)> {
    words.parse("a duration such as `8ms`, or `0ms..15ms`", |w| match w.split_once("..") {
        Some((low, high)) => Some((duration(low)?, duration(high)?)).filter(|(low, high)| low <= high),
        None => duration(w).map(|d| (d, d)),
    })
}

fn rates(words: &mut Words<'_>) -> Understood<Rates> {
    let what = "a rate such as `1mbit`";
    let mut all = Vec::new();
    loop {
        let one = words.parse(what, rate)?;
        let lasts = words.maybe(|w| duration(w).filter(|d| !d.is_zero()));
        all.push((one, lasts.unwrap_or_default()));
        let another = words.peek().and_then(rate).is_some();
        match (lasts, another) {
            (_, false) if lasts.is_some() || all.len() == 1 => return Ok(Rates(all)),
            (None, _) => {
                return Err(format!("expected how long {one} bit/s last, as there are several rates"));
            }
            _ => {}
        }
    }
}

fn limit(words: &mut Words<'_>) -> Understood<Option<Limit>> {
    if !words.take("queue") {
        return Ok(None);
    }
    let count = words.size("packets that may wait, or `N bytes`")? as usize;
    Ok(Some(if words.take("bytes") { Limit::Bytes(count) } else { Limit::Packets(count) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_of_a_path_is_understood() {
        let text = "delay 20ms rate 20mbit 500ms 150mbit 1s queue 64K bytes loss 0.01% burst-loss 0.5% 30% \
                    late 2% by 8ms jitter 0ms..15ms reorder police 10mbit 32K aqm codel ecn aggregate 4ms thin 8 \
                    gro 1ms handover 15s 80ms..120ms 1%";
        let setup: Setup = text.parse().unwrap();
        let ms = Duration::from_millis;
        assert_eq!(
            setup,
            Setup {
                delay: ms(20),
                rates: Some(Rates(vec![(20_000_000, ms(500)), (150_000_000, ms(1000))])),
                queue: Some(Limit::Bytes(65_536)),
                loss: 100,
                burst_loss: Some(BurstLoss { begins: 5000, ends: 300_000 }),
                late: Some(Late { chance: 20_000, low: ms(8), high: ms(8) }),
                jitter: Some(Jitter { low: ms(0), high: ms(15), reorder: true }),
                police: Some(Policer { rate: 10_000_000, burst: 32_768 }),
                aqm: Some(Aqm { kind: AqmKind::CoDel, ecn: true }),
                aggregate: Some(ms(4)),
                thin: Some(8),
                gro: Some(ms(1)),
                handover: Some(Handover { every: ms(15_000), low: ms(80), high: ms(120), loss: 10_000 }),
            }
        );
    }

    #[test]
    fn an_error_says_what_was_expected() {
        for (text, message) in [
            ("", "expected a property of the path: delay, rate, loss"),
            ("bursts 1%", "expected delay, rate, loss"),
            ("loss 101%", "expected the share of lost packets, such as `1%`, found `101%`"),
            ("burst-loss 1% 0%", "expected a chance above 0 % that a burst ends, found `0%`"),
            ("late 2% 8ms", "expected `by`, found `8ms`"),
            ("jitter 5ms..1ms", "expected a duration such as `8ms`, or `0ms..15ms`, found `5ms..1ms`"),
            ("police 10mbit", "expected a burst in bytes such as `32K`, found the end of the line"),
            ("aqm red", "expected `codel` or `pie`, found `red`"),
            ("aggregate 0ms", "expected the time between groups, such as `4ms`, found `0ms`"),
            ("thin 0", "expected how many ACKs become one, found `0`"),
            ("handover 1s 2s 1%", "expected a pause shorter than the interval of 1s, found 2s"),
            ("rate 1mbit 2mbit 1s", "expected how long 1000000 bit/s last, as there are several rates"),
            ("rate 1mbit queue x", "expected packets that may wait, or `N bytes`, found `x`"),
        ] {
            let error = text.parse::<Setup>().unwrap_err().to_string();
            assert!(error.starts_with("path:1: ") && error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn rates_follow_their_list_and_begin_again() {
        let Ok(Setup { rates: Some(rates), .. }) = "rate 20mbit 500ms 150mbit 1s".parse() else { panic!() };
        let at = |ms| rates.at(Instant::from_millis(ms)) / 1_000_000;
        assert_eq!([at(0), at(499), at(500), at(1499), at(1500), at(2000)], [20, 20, 150, 150, 20, 150]);
    }
}
