//! Consistency checks: sums, lists and flags that a stack maintains against what they stand for.

use std::collections::BTreeMap;

use super::sockets::{Place, Socket, SocketKind};
use super::{Stack, env_of};
use crate::memory::Group;
use crate::state::State;
use crate::table::Link;
use crate::tcp::segment::Outgoing;
use crate::tcp::tcb::Origin;
use crate::wheel::TimerId;
use crate::wire::tcp::Header;

impl Stack {
    /// Recomputes the sums and flags that the stack maintains, and returns the first difference. For tests, fuzz
    /// targets and the lab: it visits every row of every table.
    ///
    /// # Errors
    ///
    /// The first difference: its name, the value that is kept, and the one that was counted. It is a defect of the
    /// stack.
    pub fn check_consistent(&self) -> Result<(), String> {
        self.check_held()?;
        self.check_flows()?;
        self.check_lists()?;
        self.check_turns()?;
        self.check_timers()?;
        self.check_listeners()?;
        self.link.check()?;
        self.check_sockets()
    }

    fn check_held(&self) -> Result<(), String> {
        let mut held = 0;
        for (index, connection) in self.connections.iter() {
            for queue in [&connection.send_queue, &connection.receive_queue] {
                equal(
                    &format!("bytes held by a queue of connection {index}"),
                    queue.held(),
                    queue.recount(),
                )?;
            }
            held += connection.held();
        }
        for (_, opening) in self.openings.iter() {
            equal("bytes held by an opening", opening.send_queue.held(), opening.send_queue.recount())?;
            held += opening.send_queue.held() as u64;
        }
        for (_, finished) in self.finished.iter() {
            let queue = &finished.receive_queue;
            equal("bytes held by a finished socket", queue.held(), queue.recount())?;
            held += queue.held() as u64;
        }
        equal("bytes held", self.memory.held(), held)?;
        let mut cost = 0;
        for (index, socket) in self.udp.sockets.iter() {
            let (held, counted) = (&socket.received, &socket.waiting);
            let (held, counted) = (held.held() + counted.held(), held.recount() + counted.recount());
            equal(&format!("cost of the datagrams of socket {index}"), held, counted)?;
            let queued = self.udp.ready.iter().filter(|ready| **ready == index).count();
            equal("in the queue of those that send", queued, usize::from(!socket.waiting.is_empty()))?;
            cost += counted;
        }
        let with_rules = self
            .udp
            .sockets
            .iter()
            .filter(|(_, socket)| socket.socket.is_some() && socket.forwards.is_some());
        equal("rules of forwarders of datagrams", self.udp.rules.len(), with_rules.count())?;
        let groups = self.udp.sockets.iter().flat_map(|(_, socket)| socket.groups.iter().copied());
        let mut members = BTreeMap::new();
        groups.for_each(|group| *members.entry(group).or_insert(0) += 1);
        equal("members of multicast groups", &self.udp.groups, &members)?;
        equal("cost of all datagrams", self.udp.held, cost)
    }

    fn check_flows(&self) -> Result<(), String> {
        let orphans = self.connections.iter().filter(|(_, connection)| connection.is_orphan()).count();
        equal("orphans", self.orphans, orphans + self.dormant.len())?;
        // A TIME-WAIT entry that was replaced by a half-open connection has no flow of its own.
        let time_waits = self.time_waits.len() - self.gave_way.len();
        let rows = self.half_open.len()
            + self.openings.len()
            + self.connections.len()
            + self.dormant.len()
            + self.forwards.requests.len()
            + time_waits;
        equal("flows", self.flows.len(), rows)?;
        equal("flows by their ends", self.ports.flows(), rows)?;
        let of_sockets =
            self.sockets.iter().filter(|(_, socket)| matches!(socket.kind, SocketKind::Finished(_)));
        equal("finished sockets", self.finished.len(), of_sockets.count())?;
        for (id, socket) in self.sockets.iter() {
            let owner = match socket.kind {
                SocketKind::Connection(index) => self.connections.get(index).and_then(|row| row.socket),
                SocketKind::Opening(index) => self.openings.get(index).map(|row| row.socket),
                SocketKind::Listener(index) => self.listeners.get(index).map(|row| row.socket),
                SocketKind::Finished(index) => self.finished.get(index).map(|_| id),
                SocketKind::Udp(index) | SocketKind::Datagrams(index) => {
                    self.udp.sockets.get(index).and_then(|row| row.socket)
                }
                SocketKind::Forwarder(index) => self.forwards.forwarders.get(index).map(|row| row.socket),
                SocketKind::Request(index) => self.forwards.requests.get(index).map(|row| row.socket),
            };
            equal("the owner of a socket's row", owner, Some(id))?;
        }
        Ok(())
    }

    /// Checks the lists of connections that hold memory.
    fn check_lists(&self) -> Result<(), String> {
        let mut lens = [0; 5];
        for (index, connection) in self.connections.iter() {
            let [gaps, orphans, unproven, proven, holders] = &mut lens;
            *gaps += usize::from(self.ladder.lists(connection).0);
            *holders += usize::from(connection.holder != Link::NONE);
            match connection.group {
                Group::Nowhere => {}
                Group::Orphans => *orphans += 1,
                Group::Unproven => *unproven += 1,
                Group::Proven => *proven += 1,
            }
            if self.connections[index].lacks_retransmission_timer() {
                return Err(format!("connection {index}: data is in flight, and no timer waits for its ACK"));
            }
            self.check_connection(index).map_err(|what| format!("connection {index}: {what}"))?;
        }
        equal("connections on lists", self.ladder.lens(), lens)
    }

    /// Every connection that has a segment to send is in the ready list, and the list has no vacant row.
    fn check_turns(&self) -> Result<(), String> {
        let ready: Vec<_> = self.ready.iter(&self.connections).take(self.connections.len() + 1).collect();
        let listed = self.connections.iter().filter(|(_, connection)| connection.ready.is_listed());
        equal("connections in the ready list", ready.len(), listed.count())?;
        for index in ready {
            let listed = self.connections.get(index).is_some_and(|row| row.ready.is_listed());
            equal(&format!("row {index} in the ready list"), listed, true)?;
        }
        let mut held = 0;
        for (index, connection) in self.connections.iter() {
            if let Some(at) = connection.held_until() {
                held += 1;
                equal(&format!("connection {index} held by pacing"), self.pacer.contains(at, index), true)?;
            }
        }
        equal("connections held by pacing", self.pacer.len(), held)?;
        // Data that waits for a window need not be in the list: a copy of the connection tries to send it.
        let mut trial = None;
        for (index, connection) in self
            .connections
            .iter()
            .filter(|(_, connection)| connection.claims_turn() && connection.held_until().is_none())
        {
            let trial = trial.get_or_insert_with(|| Stack::new(self.config.clone(), self.interface.clone()));
            (trial.now, trial.memory, trial.routing) = (self.now, self.memory.clone(), self.routing.clone());
            let offload = self.routing.find(&connection.tcb.tuple).segmentation_offload;
            let mut out = Outgoing::bare(Header::default());
            let sends = connection.clone().next_segment(offload, &mut out, &mut env_of!(trial));
            equal(&format!("a segment of connection {index}, which is not in the ready list"), sends, false)?;
        }
        equal("bytes of replies", self.replies.held(), self.replies.recount())
    }

    /// Checks what [`with_connection`](Stack::with_connection) and its variants leave behind. It does not allocate.
    pub(super) fn check_connection(&self, index: u32) -> Result<(), &'static str> {
        let connection = &self.connections[index];
        let group = connection.group;
        let (in_gaps, by_age) = self.ladder.lists(connection);
        let owes_orphan = connection.is_orphan() && !connection.send_queue.is_empty();
        if connection.tcb.timers.want_arming(&connection.armed) {
            Err("its timer fires too late")
        } else if connection.has_pending_segment() && !connection.ready.is_listed() {
            Err("it has a segment to send and is not in the ready list")
        } else if in_gaps != connection.reassembly.is_some() {
            Err("its place in the list of gaps is wrong")
        } else if (group == Group::Orphans) != owes_orphan
            || (group != Group::Nowhere) != by_age
            || (group != Group::Nowhere && connection.send_queue.is_empty())
        {
            Err("its place in the lists by age is wrong")
        } else if !connection.events.is_empty() {
            Err("it has events that were not reported")
        } else {
            Ok(())
        }
    }

    /// Every timer belongs to a row.
    fn check_timers(&self) -> Result<(), String> {
        let connections = self.connections.iter().map(|(_, connection)| connection.armed.node);
        let half_open = self.half_open.iter().map(|(_, entry)| entry.timer);
        let openings = self.openings.iter().map(|(_, opening)| opening.timer);
        let dormant = self.dormant.iter().map(|(_, dormant)| dormant.timer);
        let requests = self.forwards.requests.iter().map(|(_, request)| request.timer);
        let timers = connections.chain(half_open).chain(openings).chain(dormant).chain(requests);
        let armed = timers.filter(|timer| *timer != TimerId::NONE).count();
        equal("timers", self.wheel.len(), armed)
    }

    /// The counts of a listener match its rows.
    fn check_listeners(&self) -> Result<(), String> {
        let mut half_open = BTreeMap::new();
        for (_, entry) in self.half_open.iter() {
            *half_open.entry(entry.listener).or_insert(0) += 1;
        }
        let mut pending = BTreeMap::new();
        for (_, connection) in self.connections.iter() {
            let tcb = &connection.tcb;
            if tcb.origin == Origin::FastOpen && tcb.state == State::SynReceived {
                *pending.entry(connection.listener).or_insert(0) += 1;
            }
        }
        let mut waiting = 0;
        for (index, listener) in self.listeners.iter() {
            waiting += listener.accept_queue.len();
            let of_it = half_open.remove(&index).unwrap_or(0);
            equal(&format!("half-open entries of listener {index}"), listener.half_open, of_it)?;
            let of_it = pending.remove(&Some(listener.socket)).unwrap_or(0);
            let told = if listener.closing { of_it } else { listener.fast_open_pending.waiting() };
            equal(&format!("Fast Open connections of listener {index}"), told, of_it)?;
        }
        equal("half-open entries of no listener", half_open.len(), 0)?;
        equal("requests by source and destination", self.forwards.check_counts(), true)?;
        waiting += self.forwards.waiting().filter(|id| self.sockets.contains(*id)).count();
        let not_accepted =
            self.sockets.iter().filter(|(_, socket)| socket.place == Place::AcceptQueue).count();
        equal("sockets in accept queues", waiting, not_accepted)
    }

    /// A socket is in the queues that its flags name, once each.
    fn check_sockets(&self) -> Result<(), String> {
        for (what, queue, flag) in [
            (
                "events",
                self.events.iter().collect::<Vec<_>>(),
                (|socket| socket.place == Place::EventQueue) as fn(&Socket) -> bool,
            ),
            ("refused writes", self.refused().collect(), |socket| socket.refused),
        ] {
            let mut queued = queue.into_iter().filter(|id| self.sockets.contains(**id)).collect::<Vec<_>>();
            queued.sort_unstable();
            let mut flagged: Vec<_> =
                self.sockets.iter().filter(|(_, socket)| flag(socket)).map(|(id, _)| id).collect();
            flagged.sort_unstable();
            let same = queued.into_iter().eq(&flagged);
            equal(&format!("sockets in the queue of {what}"), same, true)?;
        }
        Ok(())
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, kept: T, counted: T) -> Result<(), String> {
    if kept == counted { Ok(()) } else { Err(format!("{what}: {kept:?} kept, {counted:?} counted")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::socket::{ConnectOptions, Event, ListenOptions, SocketId};
    use crate::stack::Interface;
    use crate::time::{Deadline, Instant, Tick};

    const CONNECTION: u32 = 0;

    /// A stack with a listener and a connection that has data to send.
    fn stack() -> (Stack, SocketId) {
        let stack = |address: &str, secret| {
            let config = Config { secret: [secret; 32], ..Config::default() };
            Stack::new(config, Interface::new(1500, [(address.parse().unwrap(), 24)]))
        };
        let (mut ours, mut peer) = (stack("10.0.0.1", 1), stack("10.0.0.2", 2));
        let (now, remote) = (Instant::ZERO, "10.0.0.2:7".parse().unwrap());
        ours.listen("10.0.0.1:7".parse().unwrap(), ListenOptions::default()).unwrap();
        peer.listen(remote, ListenOptions::default()).unwrap();
        let id = ours.connect(now, remote, ConnectOptions::default()).unwrap();
        let mut frame = [0; 1500];
        for _ in 0..2 {
            while let Some(sent) = ours.transmit(now, &mut frame) {
                peer.receive(now, &frame[..sent.len]);
            }
            while let Some(sent) = peer.transmit(now, &mut frame) {
                ours.receive(now, &frame[..sent.len]);
            }
        }
        assert_eq!(ours.send(id, b"data"), Ok(4));
        assert_eq!(ours.check_consistent(), Ok(()));
        (ours, id)
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let (whole, id) = stack();
        let check = |expected: &str, harm: &dyn Fn(&mut Stack)| {
            let mut harmed = whole.clone();
            harm(&mut harmed);
            let found = harmed.check_consistent().expect_err(expected);
            assert!(found.contains(expected), "{found:?}, expected {expected:?}");
        };
        check("bytes held", &|stack| stack.memory.remove(&stack.connections[CONNECTION].send_queue));
        check("orphans", &|stack| stack.orphans += 1);
        let tuple = whole.connections[CONNECTION].tcb.tuple;
        check("flows", &|stack| {
            let flow = crate::flow::FlowRef::Connection(CONNECTION);
            stack.flows.remove(&stack.keys, &tuple, flow);
        });
        check("timers", &|stack| _ = stack.wheel.insert(Tick(1000), 0));
        check("timer fires too late", &|stack| {
            stack.connections[CONNECTION].tcb.timers.persist = Some(Deadline::at(Tick(0)));
        });
        check("not in the ready list", &|stack| stack.end_turn(CONNECTION));
        check("not in the ready list", &|stack| {
            stack.end_turn(CONNECTION);
            stack.connections[CONNECTION].tcb.ack.now = true;
        });
        check("in the ready list", &|stack| {
            stack.connections[CONNECTION].ready = crate::list::Links::default();
        });
        check("lists by age", &|stack| stack.connections[CONNECTION].group = Group::Proven);
        check("not reported", &|stack| stack.connections[CONNECTION].events |= Event::READABLE);
        check("half-open entries", &|stack| stack.listeners[0].half_open += 1);
        check("queue of events", &|stack| {
            let place = &mut stack.sockets[id].place;
            *place = if *place == Place::Held { Place::EventQueue } else { Place::Held };
        });
        check("a socket's row", &|stack| stack.sockets[id].kind = SocketKind::Connection(7));
    }
}
