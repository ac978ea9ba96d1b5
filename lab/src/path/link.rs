//! The queue before the link, and the link with its rate and pauses.

use std::collections::VecDeque;

use steadfast_core::{Duration, Instant};

use super::aqm::{CoDel, Pie, Verdict};
use super::{AqmKind, Cause, Limit, Parcel, Sample, Setup};
use crate::rng::Rng;

/// A packet in the queue.
#[derive(Clone, Debug)]
struct Waiting<T> {
    parcel: Parcel<T>,
    since: Instant,
    ecn: bool,
    marked: bool,
    /// Packets and bytes that it found before it.
    found: (usize, usize),
}

/// The fate of the packet at the head of the queue.
#[derive(Debug)]
pub(super) enum Served<T> {
    /// The AQM dropped it.
    Dropped(T),
    /// It has left the link at this time.
    Sent { at: Instant, parcel: Parcel<T>, marked: bool, sample: Sample },
}

#[derive(Clone, Debug)]
pub(super) struct Link<T> {
    queue: VecDeque<Waiting<T>>,
    queued_bytes: usize,
    /// Packets whose departure is known, with their sizes: they still take room until they have left.
    leaving: VecDeque<(Instant, usize)>,
    leaving_bytes: usize,
    busy_until: Instant,
    codel: CoDel,
    pie: Pie,
}

impl<T> Default for Link<T> {
    fn default() -> Link<T> {
        Link {
            queue: VecDeque::new(),
            queued_bytes: 0,
            leaving: VecDeque::new(),
            leaving_bytes: 0,
            busy_until: Instant::ZERO,
            codel: CoDel::default(),
            pie: Pie::default(),
        }
    }
}

impl<T> Link<T> {
    /// Puts a packet into the queue, or returns why not.
    pub(super) fn enqueue(
        &mut self,
        now: Instant,
        setup: &Setup,
        parcel: Parcel<T>,
        ecn: bool,
        rng: &mut Rng,
    ) -> Result<(), (Cause, T)> {
        while let Some((_, size)) = self.leaving.front().copied().filter(|(leaves, _)| *leaves <= now) {
            self.leaving.pop_front();
            self.leaving_bytes -= size;
        }
        let size = parcel.bytes.len();
        let (packets, bytes) =
            (self.queue.len() + self.leaving.len(), self.queued_bytes + self.leaving_bytes);
        let full = match setup.queue {
            None => false,
            Some(Limit::Packets(limit)) => packets > limit,
            Some(Limit::Bytes(limit)) => packets > 0 && bytes + size > limit,
        };
        if full {
            return Err((Cause::Queue, parcel.tag));
        }
        let mut marked = false;
        if let Some(aqm) = setup.aqm.filter(|aqm| aqm.kind == AqmKind::Pie) {
            match self.pie.enqueue(now, self.busy_until, bytes, rng) {
                Verdict::Pass => {}
                Verdict::Signal { markable } if aqm.ecn && ecn && markable => marked = true,
                Verdict::Signal { .. } => return Err((Cause::Aqm, parcel.tag)),
            }
        }
        self.queued_bytes += size;
        self.queue.push_back(Waiting { parcel, since: now, ecn, marked, found: (packets, bytes) });
        Ok(())
    }

    /// When the head of the queue is served, if that depends on packets still to come.
    pub(super) fn next_at(&self, setup: &Setup, seed: u64) -> Option<Instant> {
        self.queue.front().map(|head| self.starts(head, setup, seed))
    }

    fn starts(&self, head: &Waiting<T>, setup: &Setup, seed: u64) -> Instant {
        resumes(setup, seed, self.busy_until.max(head.since))
    }

    /// Serves the head of the queue. Only CoDel, which looks at the packets behind it, waits for its turn.
    pub(super) fn serve(&mut self, now: Instant, setup: &Setup, seed: u64) -> Option<Served<T>> {
        let start = self.starts(self.queue.front()?, setup, seed);
        let codel = setup.aqm.filter(|aqm| aqm.kind == AqmKind::CoDel);
        if codel.is_some() && start > now {
            return None;
        }
        let head = self.queue.pop_front()?;
        let size = head.parcel.bytes.len();
        self.queued_bytes -= size;
        let wait = start.saturating_since(head.since);
        let mut marked = head.marked;
        if let Some(aqm) = codel
            && self.codel.signals(start, wait, self.queued_bytes)
        {
            if !(aqm.ecn && head.ecn) {
                self.codel.dropped();
                return Some(Served::Dropped(head.parcel.tag));
            }
            marked = true;
        }
        let nanos = setup.rates.as_ref().map_or(0, |rates| {
            (size as u128 * 8 * 1_000_000_000).div_ceil(u128::from(rates.at(start))) as u64
        });
        let at = start + Duration::from_nanos(nanos);
        self.busy_until = at;
        if at > now {
            self.leaving.push_back((at, size));
            self.leaving_bytes += size;
        }
        let sample = Sample { wait, packets: head.found.0, bytes: head.found.1 };
        Some(Served::Sent { at, parcel: head.parcel, marked, sample })
    }
}

/// When a link that is asked at `at` sends: then, or after the pause.
pub(super) fn resumes(setup: &Setup, seed: u64, at: Instant) -> Instant {
    let Some(handover) = setup.handover else { return at };
    let every = handover.every.as_nanos() as u64;
    let number = at.as_nanos() / every;
    if number == 0 {
        return at;
    }
    let pause = Rng::split(seed.wrapping_add(number), "pause").duration(handover.low, handover.high);
    at.max(Instant::from_nanos(number * every) + pause)
}
