//! Arrivals, and the answers that RFC 9293 §3.10.7 wants at once.

use bytes::Bytes;
use steadfast_core::config::SynCookies;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::{AgreedOptions, Duration, Stack, Variables};
use steadfast_lab::fragments;

use super::{End, World};
use crate::arrival::{Answer, Arrived, Blocks, parse};
use crate::coverage::Coverage;
use crate::fault::FRAGMENT;
use crate::forge::{AGAIN, Forgery};

/// An answer that is due at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    answer: Answer,
    /// The SACK blocks that it has to carry.
    blocks: Blocks,
    to: Arrived,
    forged: bool,
}

impl Owed {
    /// No packet of the connection may leave now.
    fn nothing(to: Arrived) -> Owed {
        Owed { answer: Answer::Nothing, blocks: Blocks::Any, to, forged: true }
    }
}

impl World {
    /// A packet arrives, whole or in pieces; a forged one, if there is no coverage to count it.
    pub(super) fn receive(
        &mut self,
        to: usize,
        packet: Bytes,
        pieces: Option<Vec<Bytes>>,
        coverage: Option<&mut Coverage>,
    ) {
        let now = self.now;
        let stack = &mut self.ends[to].stack;
        let forged = coverage.is_none();
        let arrived = Arrived::of(stack, &packet);
        let hand_over = |stack: &mut Stack| match pieces {
            Some(pieces) => pieces.into_iter().for_each(|piece| stack.receive(now, piece)),
            None => stack.receive(now, packet),
        };
        let Some(arrived) = arrived else { return hand_over(stack) };
        if let Some(coverage) = coverage {
            coverage.note(&arrived);
        }
        let throttled = |stack: &Stack| stack.counters().dropped(DropReason::ReplyThrottled);
        let (excused, limits, drops) = (excused(stack), throttled(stack), unacceptable(stack));
        hand_over(stack);
        let after = stack.variables(arrived.local, arrived.remote);
        let excused = excused != self::excused(&self.ends[to].stack);
        if excused {
            // It may have been answered all the same.
            self.answered[to] = [self.now; 2];
        } else if self.program.hosts[to].follows_rfc() {
            self.judge_arrival(to, arrived, &after, forged);
            self.judge_reason(to, &arrived, &after, drops);
        }
        self.compare_options(to, &arrived, &after);
        // All RSTs to a network have one budget.
        let limited = throttled(&self.ends[to].stack) > limits;
        self.owed[to].take_if(|owed| limited && matches!(owed.answer, Answer::Rst { .. }));
        self.watch_time_wait(to, &arrived, after.state);
    }

    /// A packet arrives in fragments. It is as good as whole, or as good as lost.
    pub(super) fn receive_fragments(
        &mut self,
        to: usize,
        packet: Bytes,
        lost: bool,
        coverage: &mut Coverage,
    ) {
        let mut pieces = fragments(&packet, FRAGMENT, false);
        if !lost {
            return self.receive(to, packet, Some(pieces), Some(coverage));
        }
        pieces.remove(1);
        self.receive_nothing(to, &packet, pieces, "a fragment");
    }

    /// A segment with a wrong checksum arrives: it is as good as lost.
    pub(super) fn receive_corrupt(&mut self, to: usize, packet: Bytes) {
        self.receive_nothing(to, &packet, vec![packet.clone()], "a wrong checksum");
    }

    /// Nothing may change by what arrives. The application may act at the same time, so answers are not judged.
    fn receive_nothing(&mut self, to: usize, packet: &[u8], pieces: Vec<Bytes>, what: &str) {
        let stack = &mut self.ends[to].stack;
        let arrived = Arrived::of(stack, packet);
        pieces.into_iter().for_each(|piece| stack.receive(self.now, piece));
        let Some(arrived) = arrived else { return };
        if stack.variables(arrived.local, arrived.remote) != arrived.before {
            self.wrong.get_or_insert(format!("{what} changed {}", arrived.before.state));
        }
    }

    /// A segment that is not acceptable is counted as such, and no other.
    fn judge_reason(&mut self, to: usize, arrived: &Arrived, after: &Variables, before: [u64; 3]) {
        let Some(expected) = arrived.unacceptable(after) else { return };
        let counted = unacceptable(&self.ends[to].stack);
        let found = UNACCEPTABLE.into_iter().zip(before).zip(counted).find(|((_, n), m)| n != m);
        // Acceptable text may not fit all the same.
        let full = |reason: &DropReason| expected.is_none() && *reason == DropReason::ReceiveBufferFull;
        let found = found.map(|((reason, _), _)| reason).filter(|reason| !full(reason));
        if found != expected {
            let name = |reason: Option<DropReason>| reason.map_or("acceptable", DropReason::name);
            let (flags, state) = (arrived.header.flags, arrived.before.state);
            let text = format!("{flags} in {state} is {}, and counts as {}", name(expected), name(found));
            self.wrong.get_or_insert(text);
        }
    }

    /// While no fault has befallen them, both ends of a connection have agreed on the same.
    fn compare_options(&mut self, to: usize, arrived: &Arrived, after: &Variables) {
        if !self.delays.is_none() || after.state != State::Established {
            return;
        }
        let far = self.ends[1 - to].stack.variables(arrived.remote, arrived.local);
        let (Some(near), Some(far)) = (after.agreed, far.agreed) else { return };
        let both = |agreed: AgreedOptions| (agreed.sack, agreed.timestamps, agreed.ecn);
        let known = |end: usize, own: AgreedOptions, peer: AgreedOptions| {
            let (knows, told) = ((own.shifts.0, own.mss.0), (peer.shifts.1, peer.mss.1));
            // A cookie alone has room for some shifts and sizes. Its listener takes the next smaller ones.
            let rounds =
                self.ends[end].stack.config().tcp_syncookies == SynCookies::Always && !own.timestamps;
            if rounds { knows.0 <= told.0 && knows.1 <= told.1 } else { knows == told }
        };
        if both(near) != both(far) || !known(to, near, far) || !known(1 - to, far, near) {
            self.wrong.get_or_insert(format!("the ends differ: {near:?}, {far:?}"));
        }
    }

    fn judge_arrival(&mut self, to: usize, arrived: Arrived, after: &Variables, forged: bool) {
        match arrived.judge(after) {
            Err(text) => _ = self.wrong.get_or_insert(text),
            // A SYN that opens nothing is answered within the limit.
            Ok(Answer::Any) if arrived.before.state == State::TimeWait => self.answered[to][0] = self.now,
            Ok(Answer::Any) => {}
            Ok(answer) => {
                let answered = &mut self.answered[to][usize::from(arrived.is_probe())];
                let again = self.now.saturating_since(*answered);
                // TIME-WAIT counts in sixteenths of a second.
                let every = self.program.hosts[to].answers_every() + Duration::from_millis(63);
                let limited = again < every && answer != Answer::Nothing;
                // Only answers to what changes nothing have a limit.
                let place = |variables: &Variables| (variables.state, variables.rcv.map(|(nxt, _)| nxt));
                let same = place(after) == place(&arrived.before) || arrived.is_probe();
                if matches!(answer, Answer::Ack | Answer::SynAck) && same {
                    *answered = self.now;
                }
                let blocks = match arrived.before.agreed {
                    Some(agreed) if agreed.sack => {
                        arrived.blocks(after, self.program.hosts[to].reports_duplicates())
                    }
                    _ => Blocks::Any,
                };
                self.owed[to] = (!limited).then_some(Owed { answer, blocks, to: arrived, forged });
            }
        }
    }

    /// A forged packet arrives, made from what its victim knows. `again`: as the one a moment ago.
    pub(super) fn forge(&mut self, to: usize, forgery: Forgery, packet: &[u8], again: bool) {
        let Some((receiver, sender, header, _)) = parse(packet) else { return };
        let (local, remote) = if forgery.ahead { (receiver, sender) } else { (sender, receiver) };
        // It echoes what the victim sent.
        let mut timestamps = header.options.timestamps.filter(|_| !forgery.ahead);
        timestamps.iter_mut().for_each(|ts| std::mem::swap(&mut ts.val, &mut ts.ecr));
        let stack = &mut self.ends[to].stack;
        let victim = stack.variables(local, remote);
        let Some(forged) = forgery.packet(local, remote, &victim, timestamps) else { return };
        self.forged = true;
        self.mended &= forgery.is_harmless(&victim, self.program.hosts[to].keeps_time_wait());
        let arrived = Arrived::of(stack, &forged);
        let strays = stack.counters().dropped(DropReason::IcmpNotInFlight);
        let answered = self.answered[to];
        self.receive(to, forged, None, None);
        let End { stack, .. } = &mut self.ends[to];
        let after = stack.variables(local, remote);
        match arrived {
            None if stack.interface_of(local.ip()).is_some() => {
                let strays = stack.counters().dropped(DropReason::IcmpNotInFlight) - strays;
                self.judge_error(to, forgery, (&victim, &after), strays > 0);
            }
            // An answer to the first one uses the limit up.
            Some(arrived) if again && arrived.is_limited() && after == victim => {
                let answered = answered[usize::from(arrived.is_probe())];
                let limit = self.program.hosts[to].answers_every();
                if answered + AGAIN == self.now && limit > AGAIN && self.owed[to].is_none() {
                    self.owed[to] = Some(Owed::nothing(arrived));
                }
            }
            _ => {}
        }
    }

    /// An ICMP error has arrived. `stray`: it was counted as one about what is not in flight.
    fn judge_error(
        &mut self,
        to: usize,
        forgery: Forgery,
        (victim, after): (&Variables, &Variables),
        stray: bool,
    ) {
        let state = victim.state;
        if self.program.hosts[to].follows_rfc() && forgery.is_stray(victim).is_some_and(|is| is != stray) {
            // RFC 5927 §4.1
            self.wrong.get_or_insert(format!("an ICMP error was misjudged in {state}"));
        }
        if forgery.refuses() && state == State::SynSent && after.state == State::SynSent {
            // A port unreachable is a hard error (RFC 1122 §4.2.3.9).
            self.wrong.get_or_insert("a hard ICMP error did not end SYN-SENT".to_owned());
        }
        if self.mended && after != victim {
            self.wrong.get_or_insert(format!("an ICMP error changed {state}"));
        }
    }

    /// An end sends a packet, which may be the answer that it owes.
    pub(super) fn settle(&mut self, from: usize, packet: &[u8]) {
        let Some((remote, local, header, payload)) = parse(packet) else { return };
        self.far = self.ends[1 - from].stack.variables(remote, local).state;
        if header.flags.syn() {
            self.syn_at = self.now;
        }
        self.delays.slow |= header.window == 0 && !header.flags.rst();
        let Some(Owed { answer, blocks, to, forged }) = self.owed[from] else { return };
        if (local, remote) != (to.local, to.remote) {
            return;
        }
        let flags = header.flags;
        let fits = match answer {
            Answer::Any => true,
            Answer::Nothing if forged => {
                let text = format!("{} in {} was answered by {flags}", to.header.flags, to.before.state);
                self.wrong.get_or_insert(text);
                true
            }
            Answer::Nothing => true,
            Answer::SynAck => flags.syn() && flags.ack() && header.ack.ge(to.header.seq + 1),
            Answer::Rst { seq, ack: None } => flags.rst() && !flags.ack() && header.seq == seq,
            Answer::Rst { seq, ack: Some(ack) } => {
                flags.rst() && flags.ack() && (header.seq, header.ack) == (seq, ack)
            }
            // The application may have given the connection up meanwhile.
            Answer::Ack if flags.rst() => true,
            Answer::Ack => {
                let Variables { snd, rcv, .. } = self.ends[from].stack.variables(local, remote);
                // SND.NXT, or the edge of a window that was taken back.
                let known = header.seq.ge(snd.0) && header.seq.le(snd.1);
                if payload == 0 && !blocks.are_in(&header.options.sack) {
                    let (flags, state) = (to.header.flags, to.before.state);
                    let text = format!("the answer to {flags} in {state} does not report it");
                    self.wrong.get_or_insert(text);
                }
                flags.ack() && known && rcv.is_none_or(|(nxt, _)| nxt == header.ack)
            }
        };
        if fits {
            self.owed[from] = None;
        }
    }

    /// An end has nothing more to send now.
    pub(super) fn miss(&mut self, from: usize) {
        let Some(Owed { answer, to, .. }) = self.owed[from].take() else { return };
        // The application may have ended the connection without a RST: after both FINs.
        let gone = self.ends[from].stack.variables(to.local, to.remote).state == State::Closed;
        if answer != Answer::Nothing && !(answer == Answer::Ack && gone) {
            let (flags, state) = (to.header.flags, to.before.state);
            self.wrong.get_or_insert(format!("{flags} in {state} was not answered by {answer}"));
        }
    }
}

/// The reasons to drop a segment that is not acceptable.
const UNACCEPTABLE: [DropReason; 3] =
    [DropReason::Duplicate, DropReason::ReceiveBufferFull, DropReason::OutOfWindow];

fn unacceptable(stack: &Stack) -> [u64; 3] {
    UNACCEPTABLE.map(|reason| stack.counters().dropped(reason))
}

/// Segments that were dropped for a reason which the variables do not tell: timestamps, memory, lost addresses.
fn excused(stack: &Stack) -> u64 {
    let counters = stack.counters();
    let dropped = |reason| counters.dropped(reason);
    [DropReason::Paws, DropReason::MissingTimestamp, DropReason::NoMemory, DropReason::NotOurs]
        .into_iter()
        .map(dropped)
        .sum::<u64>()
        + counters.paws_estab
}
