//! The stack under test, its clock, and what left it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use steadfast_core::trace::{State, TraceKind};
use steadfast_core::{Instant, Stack};

use super::ast::Call;
use super::call::{Attempt, Calls, Progress, Refused};
use super::posix::{Errno, Posix, System};

/// Room for any packet.
const FRAME: usize = 65_535;
/// Steps of the clock that one wait may take.
const STEPS: usize = 1_000_000;
/// Entries of the record that are kept.
const RECORD: usize = 10_000;

/// A packet that left the stack.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) bytes: Vec<u8>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Packet {
        inbound: bool,
        bytes: Vec<u8>,
    },
    State {
        local: SocketAddr,
        remote: SocketAddr,
        from: State,
        to: State,
    },
    /// A call and what came of it, a command, a note.
    Text(String),
}

/// A call that has not returned.
pub(crate) struct Pending {
    pub(crate) event: usize,
    pub(crate) call: Call,
    pub(crate) progress: Progress,
    /// It waits for this time at the most.
    until: Option<Instant>,
}

/// A call that waited and returned.
pub(crate) struct Ended {
    pub(crate) event: usize,
    pub(crate) at: Instant,
    pub(crate) result: Result<(Result<i64, Errno>, Option<String>), Refused>,
}

/// The stack, the calls on it, and the packets between it and the script.
pub(crate) struct World {
    pub(crate) posix: Posix,
    pub(crate) calls: Calls,
    pub(crate) outbox: VecDeque<Sent>,
    pub(crate) record: Vec<Entry>,
    pub(crate) pending: Option<Pending>,
    pub(crate) ended: Option<Ended>,
}

impl World {
    pub(crate) fn new(mut stack: Stack, start: Instant, system: System, calls: Calls) -> World {
        stack.set_tracing(true);
        let posix = Posix::new(stack, start, system);
        let (outbox, record) = (VecDeque::new(), Vec::new());
        World { posix, calls, outbox, record, pending: None, ended: None }
    }

    pub(crate) fn now(&self) -> Instant {
        self.posix.now
    }

    pub(crate) fn note(&mut self, text: String) {
        let at = self.now();
        self.push(Entry { at, what: What::Text(text) });
    }

    fn push(&mut self, entry: Entry) {
        if self.record.len() < RECORD {
            self.record.push(entry);
        }
    }

    /// A packet reaches the stack.
    pub(crate) fn inject(&mut self, bytes: Vec<u8>) {
        let at = self.now();
        self.posix.stack.receive(at, bytes.as_slice());
        self.push(Entry { at, what: What::Packet { inbound: true, bytes } });
        self.settle();
    }

    /// Makes a call, or leaves it waiting.
    pub(crate) fn call(&mut self, event: usize, call: &Call) -> Result<Attempt, Refused> {
        let mut progress = Progress::default();
        let attempt = self.calls.attempt(&mut self.posix, call, &mut progress);
        if let Ok(Attempt::Blocks(until)) = &attempt {
            self.pending = Some(Pending { event, call: call.clone(), progress, until: *until });
        }
        self.settle();
        attempt
    }

    /// Takes out what the stack has to send, and goes on with the call that waits, until both are silent.
    pub(crate) fn settle(&mut self) {
        let mut frame = vec![0; FRAME];
        loop {
            self.trace();
            while let Some(sent) = self.posix.stack.transmit(self.posix.now, &mut frame) {
                self.trace();
                let (at, bytes) = (self.now(), frame[..sent.len].to_vec());
                self.push(Entry { at, what: What::Packet { inbound: false, bytes: bytes.clone() } });
                self.outbox.push_back(Sent { at, bytes });
            }
            if !self.go_on() {
                return;
            }
        }
    }

    /// Tries the call that waits again; says whether it returned.
    fn go_on(&mut self) -> bool {
        let Some(mut pending) = self.pending.take() else { return false };
        let attempt = self.calls.attempt(&mut self.posix, &pending.call, &mut pending.progress);
        let at = self.now();
        let result = match attempt {
            Ok(Attempt::Blocks(until)) => {
                pending.until = until;
                self.pending = Some(pending);
                return false;
            }
            Ok(Attempt::Returned(result, wrong)) => Ok((result, wrong)),
            Err(refused) => Err(refused),
        };
        self.ended = Some(Ended { event: pending.event, at, result });
        true
    }

    fn trace(&mut self) {
        while let Some(event) = self.posix.stack.poll_trace() {
            if let TraceKind::State { from, to } = event.kind {
                let what = What::State { local: event.local, remote: event.remote, from, to };
                self.push(Entry { at: event.at, what });
            }
        }
    }

    /// Lets time pass until `limit`, or until `stop` is content.
    pub(crate) fn run_until(&mut self, limit: Instant, stop: impl Fn(&World) -> bool) {
        for _ in 0..STEPS {
            if stop(self) {
                return;
            }
            let timer = self.posix.stack.poll_at();
            let waiting = self.pending.as_ref().and_then(|pending| pending.until);
            let next = [timer, waiting].into_iter().flatten().min().filter(|next| *next <= limit);
            let Some(next) = next else {
                self.posix.now = self.posix.now.max(limit);
                return;
            };
            // A timer that is due and has nothing to do must not hold the clock.
            let idle = next <= self.posix.now;
            self.posix.now = self.posix.now.max(next);
            self.posix.stack.advance(self.posix.now);
            let before = (self.outbox.len(), self.ended.is_some());
            self.settle();
            let still = self.posix.stack.poll_at().is_some_and(|at| at <= self.posix.now)
                || self
                    .pending
                    .as_ref()
                    .and_then(|pending| pending.until)
                    .is_some_and(|at| at <= self.posix.now);
            if idle && still && before == (self.outbox.len(), self.ended.is_some()) {
                let tick = steadfast_core::time::Duration::from_millis(1);
                if self.posix.now + tick > limit {
                    self.posix.now = self.posix.now.max(limit);
                    return;
                }
                self.posix.now += tick;
            }
        }
    }

    /// Whether nothing will happen by itself.
    pub(crate) fn idle(&self) -> bool {
        self.posix.stack.poll_at().is_none()
            && self.pending.as_ref().is_none_or(|pending| pending.until.is_none())
    }
}
