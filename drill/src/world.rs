//! The subject of a run, its packets, and the record of events.

use std::collections::VecDeque;
use std::net::SocketAddr;

use steadfast_core::Instant;
use steadfast_core::info::Info;
use steadfast_core::trace::State;

use super::call::Calls;
use super::subject::{Errno, Refused, Reply, Request, Subject, SubjectEvent};

/// Limit of clock steps in one wait.
const STEPS: usize = 1_000_000;
/// Limit of entries in the record.
const RECORD: usize = 10_000;

/// A packet that left the stack.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) bytes: Vec<u8>,
}

/// An entry of the record.
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
    /// The numbers of a connection.
    Info(Box<Info>),
    /// A call and its result, a command, or a note.
    Text(String),
}

/// A call that returned.
pub(crate) struct Ended {
    /// The event of the script that made the call.
    pub(crate) event: usize,
    pub(crate) at: Instant,
    pub(crate) result: Result<Result<Reply, Errno>, Refused>,
}

/// The subject, the calls on it, and the packets between it and the script.
pub(crate) struct World<'a> {
    pub(crate) subject: &'a mut dyn Subject,
    pub(crate) calls: Calls,
    pub(crate) outbox: VecDeque<Sent>,
    pub(crate) record: Vec<Entry>,
    /// Record the numbers of connections.
    watches: bool,
    /// The event whose call is in progress.
    pub(crate) pending: Option<usize>,
    pub(crate) ended: Option<Ended>,
}

impl<'a> World<'a> {
    pub(crate) fn new(subject: &'a mut dyn Subject, calls: Calls, watches: bool) -> World<'a> {
        let (outbox, record) = (VecDeque::new(), Vec::new());
        World { subject, calls, outbox, record, watches, pending: None, ended: None }
    }

    pub(crate) fn now(&self) -> Instant {
        self.subject.now()
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

    /// Delivers packets to the stack that arrive together.
    pub(crate) fn inject(&mut self, packets: Vec<Vec<u8>>) {
        let at = self.now();
        self.subject.inject_all(&packets);
        for bytes in packets {
            self.push(Entry { at, what: What::Packet { inbound: true, bytes } });
        }
        self.settle();
    }

    /// Starts the call of an event.
    pub(crate) fn call(&mut self, event: usize, request: Request) {
        if let Request::Connect { address, .. } | Request::Send { fast_open: Some(address), .. } = &request {
            self.calls.destinations.insert(*address);
        }
        self.pending = Some(event);
        self.subject.call(request);
        self.settle();
    }

    /// Processes all pending events of the subject.
    pub(crate) fn settle(&mut self) {
        while let Some(event) = self.subject.next_event() {
            match event {
                SubjectEvent::Sent { at, packet } => {
                    self.push(Entry { at, what: What::Packet { inbound: false, bytes: packet.clone() } });
                    self.outbox.push_back(Sent { at, bytes: packet });
                }
                SubjectEvent::State { at, local, remote, from, to } => {
                    self.push(Entry { at, what: What::State { local, remote, from, to } });
                }
                SubjectEvent::Returned { at, result } => {
                    if let Some(event) = self.pending.take() {
                        self.ended = Some(Ended { event, at, result });
                    }
                }
            }
        }
        if self.watches {
            let at = self.now();
            let infos = self.subject.infos();
            infos.into_iter().for_each(|info| self.push(Entry { at, what: What::Info(Box::new(info)) }));
        }
    }

    /// Lets time pass until `limit`, or until `stop` returns true.
    pub(crate) fn run_until(&mut self, limit: Instant, stop: impl Fn(&World<'_>) -> bool) {
        for _ in 0..STEPS {
            if stop(self) {
                return;
            }
            let goes_on = self.subject.wait(limit);
            self.settle();
            if !goes_on {
                return;
            }
        }
    }

    /// Returns whether no event can happen without further input.
    pub(crate) fn idle(&self) -> bool {
        self.subject.idle()
    }
}
