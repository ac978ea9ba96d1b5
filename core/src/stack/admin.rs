//! Calls of an administrator, for connections that are not theirs.

use std::net::SocketAddr;

use super::Stack;
use crate::flow::FlowRef;
use crate::info::Info;
use crate::time::Instant;
use crate::tuple::FourTuple;

impl Stack {
    /// Resets the connection between two endpoints, as an administrator does (`ss -K`). Its socket stays, and returns
    /// [`NetworkDown`](crate::Error::NetworkDown). Returns whether there was one. TIME-WAIT is none.
    pub fn kill(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> bool {
        self.set_now(now);
        let flow = self.find(&FourTuple::new(local, remote));
        let flow = flow.filter(|flow| !matches!(flow, FlowRef::TimeWait(_) | FlowRef::Pending(_)));
        if let Some(flow) = flow {
            self.end_flow(flow);
        }
        flow.is_some()
    }

    /// Returns the details of the connection between two endpoints, as [`info`](Stack::info) does. No application needs
    /// to hold it.
    pub fn info_between(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<Info> {
        match self.find(&FourTuple::new(local, remote)) {
            Some(FlowRef::Connection(index)) => {
                Some(self.connections[index].info(now.max(self.now), &self.config))
            }
            _ => None,
        }
    }
}
