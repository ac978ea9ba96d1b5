//! The kernel's list of its TCP sockets, from `sock_diag`, as `ss -tan` shows it.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use steadfast_core::trace::State;

/// A netlink socket for `sock_diag`, in the network namespace of the thread that opened it.
pub struct Diag {
    socket: Socket,
    requests: [Vec<u8>; 2],
    buffer: Vec<u8>,
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The state.
    pub state: State,
    /// The local address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Unread bytes; for a listener, connections that wait to be accepted.
    pub recv_q: u64,
    /// Bytes sent and not yet acknowledged.
    pub send_q: u64,
    /// One of its timers runs.
    pub timer: bool,
}

impl Diag {
    /// Opens a socket to the kernel.
    pub fn open() -> io::Result<Diag> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        Ok(Diag { socket, requests: [request(AF_INET), request(AF_INET6)], buffer: vec![0; 65_536] })
    }

    /// All sockets of the namespace.
    pub fn list(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for family in 0..self.requests.len() {
            self.socket.send(&self.requests[family], 0)?;
            while !self.take(&mut lines)? {}
        }
        Ok(lines)
    }

    /// Reads one datagram of a reply. Returns true for the last one.
    fn take(&mut self, lines: &mut Vec<Line>) -> io::Result<bool> {
        let size = self.socket.recv(&mut &mut self.buffer[..], 0)?;
        let mut rest = &self.buffer[..size];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    lines.extend(line(&response.header));
                }
                _ => {}
            }
            // Messages are aligned to four bytes.
            let len = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(len..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// All sockets of the namespace, those without a descriptor included.
pub(crate) fn lines() -> Vec<Line> {
    // An error yields an empty list: the caller then reports that its socket is missing.
    Diag::open().and_then(|mut diag| diag.list()).unwrap_or_default()
}

/// Bytes that a connection has queued and its peer has not acknowledged.
pub(crate) fn send_queue(local: SocketAddr, remote: SocketAddr) -> Option<i64> {
    let all = lines();
    let same = |line: &&Line| (canonical(line.local), canonical(line.remote)) == (local, remote);
    all.iter().find(same).and_then(|line| i64::try_from(line.send_q).ok())
}

/// Converts an IPv4-mapped address to IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn request(family: u8) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn line(header: &InetResponseHeader) -> Option<Line> {
    let id = &header.socket_id;
    Some(Line {
        state: state(header.state)?,
        local: SocketAddr::new(id.source_address, id.source_port),
        remote: SocketAddr::new(id.destination_address, id.destination_port),
        recv_q: header.recv_queue.into(),
        send_q: header.send_queue.into(),
        timer: header.timer.is_some(),
    })
}

/// The state with this number. Linux tells apart two kinds of SYN-RECEIVED.
fn state(number: u8) -> Option<State> {
    const TCP_NEW_SYN_RECV: u8 = 12;
    match number {
        TCP_NEW_SYN_RECV => Some(State::SynReceived),
        _ => State::ALL.into_iter().find(|state| state.linux_number() == number),
    }
}
