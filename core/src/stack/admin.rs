//! Calls of an administrator, for connections that are not theirs.

use std::net::SocketAddr;

use super::Stack;
use crate::flow::FlowRef;
use crate::time::Instant;
use crate::tuple::FourTuple;

impl Stack {
    /// Resets the connection between two endpoints, as an administrator does (`ss -K`). Its socket stays, and returns
    /// [`NetworkDown`](crate::Error::NetworkDown). Returns whether there was one. Visits each connection.
    pub fn kill(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> bool {
        self.set_now(now);
        let is = |tuple: &FourTuple| tuple.local() == local && tuple.remote() == remote;
        let half_open =
            self.half_open.iter().find(|(_, one)| is(&one.tuple)).map(|(i, _)| FlowRef::HalfOpen(i));
        let opening =
            || self.openings.iter().find(|(_, one)| is(&one.tuple)).map(|(i, _)| FlowRef::Opening(i));
        let connection = || {
            self.connections.iter().find(|(_, one)| is(&one.tcb.tuple)).map(|(i, _)| FlowRef::Connection(i))
        };
        let dormant =
            || self.dormant.iter().find(|(_, one)| is(&one.tuple)).map(|(i, _)| FlowRef::Dormant(i));
        let found = half_open.or_else(opening).or_else(connection).or_else(dormant);
        found.is_some_and(|flow| {
            self.end_flow(flow);
            true
        })
    }
}
