//! One direction of a path: what becomes of packets, for any clock.
//!
//! A [`Path`] does no I/O and reads no clock. Its user offers packets with the time, and gets each back with its fate.
//! The simulated network uses it in virtual time, and `steadfast-bench paths` between real devices.
//!
//! A packet passes these stages, if they are set up: loss, a policer, the thinning of ACKs, the queue with its AQM, the
//! link with its rate and pauses, delay and jitter, and the coalescing of the receiver. Each stage draws from a random
//! stream of its own, once a packet, so that two runs with one seed lose the same packets by number.

mod aqm;
pub(crate) mod change;
mod link;
mod packet;
mod stats;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use steadfast_core::{Duration, Instant};

pub use self::change::{
    Aqm, AqmKind, BurstLoss, Handover, Jitter, Late, Limit, PathChange, Policer, Rates, Setup,
};
use self::link::{Link, Served};
use self::packet::{ecn_capable, is_pure_ack, marked, merged};
pub use self::stats::{Sample, Stats};
use crate::rng::Rng;

/// How long a pure ACK waits for others that replace it.
const THIN_WAIT: Duration = Duration::from_millis(10);

/// Why a packet is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A single loss.
    Loss,
    /// A loss in a burst.
    Burst,
    /// The policer.
    Policed,
    /// The link pauses.
    Handover,
    /// The queue is full.
    Queue,
    /// The AQM.
    Aqm,
    /// A later ACK replaced it.
    Thinned,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 7] = [
        Cause::Loss,
        Cause::Burst,
        Cause::Policed,
        Cause::Handover,
        Cause::Queue,
        Cause::Aqm,
        Cause::Thinned,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Loss => "loss",
            Cause::Burst => "burst loss",
            Cause::Policed => "policed",
            Cause::Handover => "handover",
            Cause::Queue => "queue full",
            Cause::Aqm => "aqm",
            Cause::Thinned => "thinned",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A packet and whatever its user wants back with it.
#[derive(Clone, Debug)]
pub struct Parcel<T> {
    /// The IP packet.
    pub bytes: Bytes,
    /// Returned unchanged.
    pub tag: T,
}

/// The fate of a packet.
#[derive(Clone, Debug)]
pub enum Fate<T> {
    /// It arrives.
    Arrives {
        /// When; not before the time of the call that returns this.
        at: Instant,
        /// The packet, with a mark of the AQM if it got one.
        parcel: Parcel<T>,
        /// Whether it was marked.
        marked: bool,
        /// The tags of packets that the receiver coalesced into it.
        merged: Vec<T>,
    },
    /// It is lost.
    Lost {
        /// Why.
        cause: Cause,
        /// Its tag.
        tag: T,
    },
}

/// A pure ACK that waits for its successors.
#[derive(Clone, Debug)]
struct Thinned<T> {
    flow: u64,
    count: u32,
    due: Instant,
    parcel: Parcel<T>,
}

/// The random streams of the stages.
#[derive(Clone, Debug)]
struct Draws {
    loss: Rng,
    burst: Rng,
    handover: Rng,
    late: Rng,
    jitter: Rng,
    aqm: Rng,
}

/// A packet that the receiver holds back to coalesce it.
#[derive(Clone, Debug)]
struct Gathered<T> {
    parcel: Parcel<T>,
    marked: bool,
}

/// One direction of a path.
#[derive(Clone, Debug)]
pub struct Path<T> {
    setup: Setup,
    seed: u64,
    draws: Draws,
    in_burst: bool,
    /// Bytes in the policer's bucket times 8·10⁹, and when it was looked at; `None` before the first packet.
    bucket: Option<(u128, Instant)>,
    thinned: Vec<Thinned<T>>,
    link: Link<T>,
    /// The latest arrival so far, for jitter that keeps the order.
    latest: Instant,
    gathered: BTreeMap<(Instant, u64), Gathered<T>>,
    number: u64,
    fates: VecDeque<Fate<T>>,
    stats: Stats,
}

impl<T> Path<T> {
    /// A path whose randomness comes from `seed`.
    pub fn new(setup: Setup, seed: u64) -> Path<T> {
        let split = |what| Rng::split(seed, what);
        let draws = Draws {
            loss: split("loss"),
            burst: split("burst"),
            handover: split("handover"),
            late: split("late"),
            jitter: split("jitter"),
            aqm: split("aqm"),
        };
        Path {
            setup,
            seed,
            draws,
            in_burst: false,
            bucket: None,
            thinned: Vec::new(),
            link: Link::default(),
            latest: Instant::ZERO,
            gathered: BTreeMap::new(),
            number: 0,
            fates: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// The setup.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Replaces the setup. Packets on the way keep their fate.
    pub fn set_up(&mut self, setup: Setup) {
        self.setup = setup;
    }

    /// The figures so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Takes in a packet. Times must not decrease from call to call.
    pub fn offer(&mut self, now: Instant, parcel: Parcel<T>) {
        self.run(now);
        self.stats.offered(parcel.bytes.len());
        if let Some(cause) = self.lost(now, parcel.bytes.len()) {
            self.lose(cause, parcel.tag);
        } else {
            self.thin(now, parcel);
        }
        self.serve(now);
    }

    /// Returns the next packet whose fate is known. It may arrive later than now.
    pub fn poll(&mut self, now: Instant) -> Option<Fate<T>> {
        if self.fates.is_empty() {
            self.run(now);
        }
        self.fates.pop_front()
    }

    /// When to call [`Path::poll`] again without another packet; `None` if no fate is open.
    pub fn poll_at(&self) -> Option<Instant> {
        let thinned = self.thinned.iter().map(|held| held.due).min();
        let gathered = self.closes_at();
        let next = [thinned, self.link.next_at(&self.setup, self.seed), gathered].into_iter().flatten().min();
        if self.fates.is_empty() { next } else { Some(Instant::ZERO) }
    }

    /// Does everything that is due.
    fn run(&mut self, now: Instant) {
        while let Some(due) = self.thinned.iter().position(|held| held.due <= now) {
            let held = self.thinned.remove(due);
            self.enqueue(held.due, held.parcel);
        }
        self.serve(now);
        while let Some(closes) = self.closes_at().filter(|closes| *closes <= now) {
            self.coalesce(closes);
        }
    }

    /// Draws the losses before the queue. Each stage draws for each packet.
    fn lost(&mut self, now: Instant, size: usize) -> Option<Cause> {
        let loss = self.draws.loss.chance(self.setup.loss);
        let burst = self.setup.burst_loss.is_some_and(|burst| {
            let chance = if self.in_burst { burst.ends } else { burst.begins };
            self.in_burst ^= self.draws.burst.chance(chance);
            self.in_burst
        });
        let handover = self.setup.handover.is_some_and(|handover| {
            let lost = self.draws.handover.chance(handover.loss);
            link::resumes(&self.setup, self.seed, now) > now && lost
        });
        [(loss, Cause::Loss), (burst, Cause::Burst), (handover, Cause::Handover)]
            .into_iter()
            .find_map(|(lost, cause)| lost.then_some(cause))
            .or_else(|| self.policed(now, size).then_some(Cause::Policed))
    }

    fn policed(&mut self, now: Instant, size: usize) -> bool {
        const BYTE: u128 = 8_000_000_000;
        let Some(policer) = self.setup.police else { return false };
        let full = u128::from(policer.burst) * BYTE;
        let (tokens, since) = self.bucket.unwrap_or((full, now));
        let earned = now.saturating_since(since).as_nanos() * u128::from(policer.rate);
        let tokens = (tokens + earned).min(full);
        let left = tokens.checked_sub(size as u128 * BYTE);
        self.bucket = Some((left.unwrap_or(tokens), now));
        left.is_none()
    }

    /// Replaces the held ACK of the flow, or lets everything pass that is no pure ACK.
    fn thin(&mut self, now: Instant, parcel: Parcel<T>) {
        let Some(keep) = self.setup.thin else { return self.enqueue(now, parcel) };
        let (flow, ack) = is_pure_ack(&parcel.bytes);
        let held = self.thinned.iter().position(|held| held.flow == flow);
        let held = held.map(|held| self.thinned.remove(held));
        if !ack {
            if let Some(held) = held {
                self.enqueue(now, held.parcel);
            }
            return self.enqueue(now, parcel);
        }
        let (count, due) = match held {
            Some(held) => {
                self.lose(Cause::Thinned, held.parcel.tag);
                (held.count + 1, held.due)
            }
            None => (1, now + THIN_WAIT),
        };
        if count >= keep {
            self.enqueue(now, parcel);
        } else {
            self.thinned.push(Thinned { flow, count, due, parcel });
        }
    }

    fn enqueue(&mut self, now: Instant, parcel: Parcel<T>) {
        let ecn = ecn_capable(&parcel.bytes);
        if let Err((cause, tag)) = self.link.enqueue(now, &self.setup, parcel, ecn, &mut self.draws.aqm) {
            self.lose(cause, tag);
        }
    }

    /// Lets the link send what it can.
    fn serve(&mut self, now: Instant) {
        while let Some(served) = self.link.serve(now, &self.setup, self.seed) {
            match served {
                Served::Dropped(tag) => self.lose(Cause::Aqm, tag),
                Served::Sent { at, parcel, marked: mark, sample } => {
                    self.stats.sample(sample);
                    self.travel(at, parcel, mark);
                }
            }
        }
    }

    /// Delays a packet that left the link at `left`.
    fn travel(&mut self, left: Instant, mut parcel: Parcel<T>, mark: bool) {
        let setup = &self.setup;
        let mut at = left;
        if let Some(grid) = setup.aggregate.map(|grid| grid.as_nanos() as u64) {
            at = Instant::from_nanos(left.as_nanos().div_ceil(grid) * grid);
        }
        at += setup.delay;
        if let Some(jitter) = setup.jitter {
            at += self.draws.jitter.duration(jitter.low, jitter.high);
            if !jitter.reorder {
                at = at.max(self.latest);
            }
        }
        self.latest = self.latest.max(at);
        if let Some(late) = setup.late {
            let extra = self.draws.late.duration(late.low, late.high);
            if self.draws.late.chance(late.chance) {
                at += extra;
            }
        }
        if mark {
            self.stats.marked += 1;
            parcel.bytes = marked(&parcel.bytes);
        }
        if self.setup.gro.is_some() {
            self.number += 1;
            self.gathered.insert((at, self.number), Gathered { parcel, marked: mark });
        } else {
            self.arrive(at, parcel, mark, Vec::new());
        }
    }

    /// When the receiver hands on what it gathered.
    fn closes_at(&self) -> Option<Instant> {
        let ((first, _), _) = self.gathered.first_key_value()?;
        Some(*first + self.setup.gro.unwrap_or_default())
    }

    /// Hands on what arrived until `closes`, with neighbouring segments as one.
    fn coalesce(&mut self, closes: Instant) {
        let mut open: Option<(Gathered<T>, Vec<T>)> = None;
        while let Some(entry) = self.gathered.first_entry().filter(|entry| entry.key().0 <= closes) {
            let next = entry.remove();
            open = match open.take() {
                None => Some((next, Vec::new())),
                Some((mut head, mut tags)) => {
                    let whole = if head.marked == next.marked {
                        merged(&head.parcel.bytes, &next.parcel.bytes)
                    } else {
                        None
                    };
                    if let Some(bytes) = whole {
                        head.parcel.bytes = bytes;
                        tags.push(next.parcel.tag);
                        Some((head, tags))
                    } else {
                        self.arrive(closes, head.parcel, head.marked, tags);
                        Some((next, Vec::new()))
                    }
                }
            };
        }
        if let Some((head, tags)) = open {
            self.arrive(closes, head.parcel, head.marked, tags);
        }
    }

    fn arrive(&mut self, at: Instant, parcel: Parcel<T>, marked: bool, merged: Vec<T>) {
        self.stats.delivered(parcel.bytes.len(), 1 + merged.len());
        self.fates.push_back(Fate::Arrives { at, parcel, marked, merged });
    }

    fn lose(&mut self, cause: Cause, tag: T) {
        self.stats.lost[cause as usize] += 1;
        self.fates.push_back(Fate::Lost { cause, tag });
    }
}

#[cfg(test)]
mod tests;
