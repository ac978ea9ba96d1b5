//! The list of what guests are connected to.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use steadfast::Net;
use steadfast::stack::trace::State;

use crate::subnet::Subnet;

/// A connection of a guest, or a flow of UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flow {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The state as `ss` names it; of UDP, `ANSWERED` or `UNANSWERED`.
    pub state: &'static str,
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end as the guest sees it.
    pub remote: SocketAddr,
    /// Time in this state; of UDP, since the last datagram that keeps the flow alive.
    pub age: Duration,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flow { protocol, state, guest, remote, age } = self;
        write!(f, "{protocol} {state} {guest} {remote} {:.3}s", age.as_secs_f64())
    }
}

/// The connections between guests and others.
pub(crate) fn of(net: &Net, subnet: &Subnet) -> impl Iterator<Item = Flow> {
    let subnet = *subnet;
    let connections = net.sockets().into_iter().filter(|socket| socket.state != State::Listen);
    connections.filter(move |socket| subnet.contains(socket.remote.ip())).map(|socket| Flow {
        protocol: "tcp",
        state: socket.state.ss_name(),
        guest: socket.remote,
        remote: socket.local,
        age: socket.state_age,
    })
}
