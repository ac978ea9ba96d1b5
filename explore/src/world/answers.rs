//! Arrivals, and the answers that RFC 9293 §3.10.7 wants at once.

use bytes::Bytes;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::{Duration, Stack, Variables};

use super::World;
use crate::arrival::{Answer, Arrived, parse};
use crate::coverage::Coverage;
use crate::forge::Forgery;

/// An answer that is due at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    answer: Answer,
    to: Arrived,
    forged: bool,
}

impl World {
    /// A packet arrives; a forged one, if there is no coverage to count it.
    pub(super) fn receive(&mut self, to: usize, packet: Bytes, coverage: Option<&mut Coverage>) {
        let stack = &mut self.ends[to].stack;
        let forged = coverage.is_none();
        let Some(arrived) = Arrived::of(stack, &packet) else { return stack.receive(self.now, packet) };
        if let Some(coverage) = coverage {
            coverage.note(&arrived);
        }
        let throttled = |stack: &Stack| stack.counters().dropped(DropReason::ReplyThrottled);
        let (excused, limits) = (excused(stack), throttled(stack));
        stack.receive(self.now, packet);
        let after = stack.variables(arrived.local, arrived.remote);
        let excused = excused != self::excused(&self.ends[to].stack);
        if excused {
            // It may have been answered all the same.
            self.answered[to] = self.now;
        } else if self.program.hosts[to].follows_rfc() {
            self.judge_arrival(to, arrived, &after, forged);
        }
        // All RSTs to a network have one budget.
        let limited = throttled(&self.ends[to].stack) > limits;
        self.owed[to].take_if(|owed| limited && matches!(owed.answer, Answer::Rst { .. }));
        self.watch_time_wait(to, &arrived, after.state);
    }

    fn judge_arrival(&mut self, to: usize, arrived: Arrived, after: &Variables, forged: bool) {
        match arrived.judge(after) {
            Err(text) => _ = self.wrong.get_or_insert(text),
            // A SYN that opens nothing is answered within the limit.
            Ok(Answer::Any) if arrived.before.state == State::TimeWait => self.answered[to] = self.now,
            Ok(Answer::Any) => {}
            Ok(answer) => {
                let again = self.now.saturating_since(self.answered[to]);
                // TIME-WAIT counts in sixteenths of a second.
                let every = self.program.hosts[to].answers_every() + Duration::from_millis(63);
                let limited = again < every && answer != Answer::Nothing;
                // Only answers to what changes nothing have a limit.
                let place = |variables: &Variables| (variables.state, variables.rcv.map(|(nxt, _)| nxt));
                if matches!(answer, Answer::Ack | Answer::SynAck) && place(after) == place(&arrived.before) {
                    self.answered[to] = self.now;
                }
                self.owed[to] = (!limited).then_some(Owed { answer, to: arrived, forged });
            }
        }
    }

    /// A forged packet arrives, made from what its victim knows.
    pub(super) fn forge(&mut self, to: usize, forgery: Forgery, packet: &[u8]) {
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
        let segment = parse(&forged).is_some();
        self.receive(to, forged, None);
        let after = self.ends[to].stack.variables(local, remote);
        if forgery.refuses() && victim.state == State::SynSent && after.state == State::SynSent {
            // A port unreachable is a hard error (RFC 1122 §4.2.3.9).
            self.wrong.get_or_insert("a hard ICMP error did not end SYN-SENT".to_owned());
        }
        if !segment && self.mended && after != victim {
            self.wrong.get_or_insert(format!("an ICMP error changed {}", victim.state));
        }
    }

    /// An end sends a packet, which may be the answer that it owes.
    pub(super) fn settle(&mut self, from: usize, packet: &[u8]) {
        let Some((remote, local, header, _)) = parse(packet) else { return };
        self.far = self.ends[1 - from].stack.variables(remote, local).state;
        if header.flags.syn() {
            self.syn_at = self.now;
        }
        self.delays.slow |= header.window == 0 && !header.flags.rst();
        let Some(Owed { answer, to, forged }) = self.owed[from] else { return };
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

/// Segments that were dropped for a reason which the variables do not tell: timestamps and memory.
fn excused(stack: &Stack) -> u64 {
    let counters = stack.counters();
    let dropped = |reason| counters.dropped(reason);
    [DropReason::Paws, DropReason::MissingTimestamp, DropReason::NoMemory]
        .into_iter()
        .map(dropped)
        .sum::<u64>()
        + counters.paws_estab
}
