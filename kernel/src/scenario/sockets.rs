//! The kernel's sockets with the lab's interface, and the device for its packets.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use rustix::net::{RecvFlags, recvfrom};
use slotmap::{Key, KeyData, SlotMap};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use steadfast_core as core;
use steadfast_core::trace::State;
use steadfast_core::{
    Config, ConnectOptions, Error, Event, ListenOptions, Shutdown, SocketId, SocketOptions, UdpOptions,
};
use steadfast_lab::foreign::{Foreign, ForeignEntry, Sockets};

use crate::Link;
use crate::sock_diag::{Diag, Line};

/// The failure when `sock_diag` fails.
const NO_LIST: &str = "the kernel does not list its sockets";

type Result<T> = std::result::Result<T, Error>;

/// The kernel in its own namespace.
pub(super) struct Kernel {
    link: Link,
    /// Edge-triggered: reports changes.
    epoll: OwnedFd,
    diag: Diag,
    sockets: SlotMap<SocketId, Held>,
    ready: VecDeque<(SocketId, Event)>,
    config: Config,
    failure: Option<String>,
}

/// A socket that an application holds.
struct Held {
    socket: Socket,
    options: SocketOptions,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Listener,
    Connecting,
    Connected,
    /// Of UDP.
    Datagram,
    /// The application knows that it has ended.
    Over,
}

impl Kernel {
    pub(super) fn new(link: Link, config: Config) -> std::result::Result<Kernel, crate::Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(crate::Error::system("no epoll"))?;
        let diag = Diag::open().map_err(crate::Error::system(NO_LIST))?;
        Ok(Kernel {
            link,
            epoll,
            diag,
            sockets: SlotMap::with_key(),
            ready: VecDeque::new(),
            config,
            failure: None,
        })
    }

    fn held(&self, id: SocketId) -> Result<&Held> {
        self.sockets.get(id).ok_or(Error::NoSuchSocket)
    }

    fn keep(&mut self, socket: Socket, options: SocketOptions, kind: Kind) -> Result<SocketId> {
        let id = self.sockets.insert(Held { socket, options, kind });
        let wanted =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(id.data().as_ffi());
        let added = epoll::add(&self.epoll, &self.sockets[id].socket, data, wanted);
        added.map(|()| id).map_err(|e| error_of(e.into()))
    }

    fn list(&mut self) -> Vec<Line> {
        self.diag.list().unwrap_or_else(|error| {
            self.failure = Some(format!("{NO_LIST}: {error}"));
            Vec::new()
        })
    }

    /// Converts an edge of `epoll` to an event for the application.
    fn changed(&mut self, id: SocketId, flags: epoll::EventFlags) -> Event {
        let Some(held) = self.sockets.get_mut(id) else { return Event::default() };
        let mut event = Event::default();
        if flags.contains(epoll::EventFlags::ERR) {
            event |= Event::ERROR;
        } else if flags.contains(epoll::EventFlags::OUT) && held.kind == Kind::Connecting {
            held.kind = Kind::Connected;
            event |= Event::CONNECTED;
        }
        if flags.contains(epoll::EventFlags::OUT) {
            event |= Event::WRITABLE;
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::HUP) {
            event |= Event::READABLE;
        }
        event
    }
}

impl Drop for Kernel {
    /// Closes the device before the sockets, so that their last packets reach nobody.
    fn drop(&mut self) {
        self.sockets.values().for_each(|held| {
            // Without this, they would stay in the namespace.
            held.socket.set_linger(Some(Duration::ZERO)).ok();
        });
    }
}

impl Sockets for Kernel {
    fn config(&self) -> &Config {
        &self.config
    }

    fn listen(&mut self, local: SocketAddr, options: ListenOptions) -> Result<SocketId> {
        let wanted = options.socket.unwrap_or_else(|| SocketOptions::new(&self.config));
        let socket = open(local.ip()).map_err(error_of)?;
        apply(&socket, &SocketOptions::new(&self.config), &wanted).map_err(error_of)?;
        socket.bind(&local.into()).map_err(error_of)?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX)).map_err(error_of)?;
        self.keep(socket, wanted, Kind::Listener)
    }

    fn connect(&mut self, _: core::Instant, remote: SocketAddr, options: ConnectOptions) -> Result<SocketId> {
        let wanted = options.socket.unwrap_or_else(|| SocketOptions::new(&self.config));
        let socket = open(remote.ip()).map_err(error_of)?;
        apply(&socket, &SocketOptions::new(&self.config), &wanted).map_err(error_of)?;
        if options.local_port.is_some() || options.local_address.is_some() {
            let any = if remote.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0u16; 8]) };
            let local =
                SocketAddr::new(options.local_address.unwrap_or(any), options.local_port.unwrap_or(0));
            socket.bind(&local.into()).map_err(error_of)?;
        }
        match socket.connect(&remote.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(error_of(error))
            }
            _ => self.keep(socket, wanted, Kind::Connecting),
        }
    }

    fn accept(&mut self, listener: SocketId) -> Result<(SocketId, SocketAddr)> {
        let held = self.held(listener)?;
        let options = held.options.clone();
        let (socket, remote) = held.socket.accept().map_err(error_of)?;
        socket.set_nonblocking(true).map_err(error_of)?;
        let remote = remote.as_socket().ok_or(Error::InvalidArgument)?;
        Ok((self.keep(socket, options, Kind::Connected)?, remote))
    }

    fn local_addr(&self, id: SocketId) -> Result<SocketAddr> {
        let local = self.held(id)?.socket.local_addr().map_err(error_of)?;
        local.as_socket().ok_or(Error::InvalidArgument)
    }

    fn send_bytes(&mut self, id: SocketId, data: &mut Bytes) -> Result<usize> {
        let sent = self.held(id)?.socket.send(data).map_err(error_of)?;
        data.advance(sent);
        Ok(sent)
    }

    fn recv(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize> {
        (&self.held(id)?.socket).read(buffer).map_err(error_of)
    }

    fn bind_udp(&mut self, local: SocketAddr, options: UdpOptions) -> Result<SocketId> {
        let socket = open_udp(local.ip()).map_err(error_of)?;
        apply_udp(&socket, local.is_ipv4(), &UdpOptions::new(&self.config), &options).map_err(error_of)?;
        socket.bind(&local.into()).map_err(error_of)?;
        self.keep(socket, SocketOptions::new(&self.config), Kind::Datagram)
    }

    fn connect_udp(&mut self, id: SocketId, remote: SocketAddr) -> Result<()> {
        self.held(id)?.socket.connect(&remote.into()).map_err(error_of)
    }

    fn send_to(&mut self, id: SocketId, payload: &[u8], to: Option<SocketAddr>) -> Result<()> {
        let socket = &self.held(id)?.socket;
        let sent = match to {
            Some(to) => socket.send_to(payload, &to.into()),
            None => socket.send(payload),
        };
        sent.map(drop).map_err(error_of)
    }

    fn recv_from(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        let received = recvfrom(&self.held(id)?.socket, buffer, RecvFlags::empty());
        let (_, len, from) = received.map_err(|error| error_of(error.into()))?;
        let from = from.and_then(|from| SocketAddr::try_from(from).ok());
        Ok((len, from.ok_or(Error::InvalidArgument)?))
    }

    fn shutdown(&mut self, _: core::Instant, id: SocketId, how: Shutdown) -> Result<()> {
        let how = match how {
            Shutdown::Read => std::net::Shutdown::Read,
            Shutdown::Write => std::net::Shutdown::Write,
            Shutdown::Both => std::net::Shutdown::Both,
        };
        self.held(id)?.socket.shutdown(how).map_err(error_of)
    }

    fn close(&mut self, _: core::Instant, id: SocketId) -> Result<()> {
        self.sockets.remove(id).map(drop).ok_or(Error::NoSuchSocket)
    }

    fn abort(&mut self, _: core::Instant, id: SocketId) -> Result<()> {
        let held = self.sockets.remove(id).ok_or(Error::NoSuchSocket)?;
        held.socket.set_linger(Some(Duration::ZERO)).map_err(error_of)
    }

    fn take_error(&mut self, id: SocketId) -> Result<Option<Error>> {
        Ok(self.held(id)?.socket.take_error().map_err(error_of)?.map(error_of))
    }

    fn options(&self, id: SocketId) -> Result<SocketOptions> {
        self.held(id).map(|held| held.options.clone())
    }

    fn set_options(&mut self, _: core::Instant, id: SocketId, options: SocketOptions) -> Result<()> {
        let held = self.sockets.get_mut(id).ok_or(Error::NoSuchSocket)?;
        apply(&held.socket, &held.options, &options).map_err(error_of)?;
        held.options = options;
        Ok(())
    }

    fn queued(&mut self, _: core::Instant, id: SocketId) -> Result<(u64, u64)> {
        let socket = &self.held(id)?.socket;
        let (local, remote) = (socket.local_addr().map_err(error_of)?, socket.peer_addr().map_err(error_of)?);
        let ends = (local.as_socket(), remote.as_socket());
        let lines = self.list();
        let line = lines.iter().find(|line| (Some(line.local), Some(line.remote)) == ends);
        line.map(|line| (line.recv_q, line.send_q)).ok_or(Error::NotConnected)
    }
}

impl Foreign for Kernel {
    fn receive(&mut self, packet: &[u8]) {
        // The kernel drops invalid packets, as any network may.
        let _lost = rustix::io::write(&self.link.tun, packet);
    }

    fn transmit(&mut self, frame: &mut [u8]) -> Option<usize> {
        loop {
            let len = rustix::io::read(&self.link.tun, &mut *frame).ok()?;
            if !is_multicast(&frame[..len]) {
                return Some(len);
            }
        }
    }

    fn poll_event(&mut self) -> Option<(SocketId, Event)> {
        if self.ready.is_empty() {
            let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default())).ok()?;
            for event in events {
                let id = SocketId::from(KeyData::from_ffi(event.data.u64()));
                let changed = self.changed(id, event.flags);
                self.ready.push_back((id, changed));
            }
        }
        self.ready.pop_front()
    }

    fn entries(&mut self) -> Vec<ForeignEntry> {
        let lines = self.list();
        let lives = |held: &Held| {
            let ends = (held.socket.local_addr().ok(), held.socket.peer_addr().ok());
            let ends = (ends.0.and_then(|a| a.as_socket()), ends.1.and_then(|a| a.as_socket()));
            lines
                .iter()
                .any(|line| line.state != State::TimeWait && (Some(line.local), Some(line.remote)) == ends)
        };
        for (id, held) in &mut self.sockets {
            if held.kind == Kind::Connected && !lives(held) {
                held.kind = Kind::Over;
                self.ready.push_back((id, Event::CLOSED));
            }
        }
        lines
            .into_iter()
            .map(|Line { state, local, remote, recv_q, timer, .. }| ForeignEntry {
                state,
                local,
                remote,
                recv_q,
                timer,
            })
            .collect()
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn wait(&mut self, at_most: core::Duration) {
        let mut watched =
            [PollFd::new(&self.link.tun, PollFlags::IN), PollFd::new(&self.epoll, PollFlags::IN)];
        let timeout = Timespec::try_from(at_most).unwrap_or_default();
        // An interrupt only shortens the wait.
        let _ready = poll(&mut watched, Some(&timeout));
    }
}

fn error_of(error: io::Error) -> Error {
    error.raw_os_error().and_then(Error::from_errno).unwrap_or(Error::InvalidArgument)
}

/// A socket for an address of this family, with the options that every scenario needs.
fn open(family: IpAddr) -> io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Like our stack, allow binding a port in TIME-WAIT, and let connect decide.
    socket.set_reuse_address(true)?;
    if family.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn open_udp(family: IpAddr) -> io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if family.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Applies the options of a UDP socket that differ from `before`.
fn apply_udp(socket: &Socket, ipv4: bool, before: &UdpOptions, wanted: &UdpOptions) -> io::Result<()> {
    if wanted.rcvbuf != before.rcvbuf {
        socket.set_recv_buffer_size(wanted.rcvbuf as usize)?;
    }
    if wanted.sndbuf != before.sndbuf {
        socket.set_send_buffer_size(wanted.sndbuf as usize)?;
    }
    if wanted.ttl != before.ttl {
        let ttl = wanted.ttl.into();
        if ipv4 { socket.set_ttl_v4(ttl)? } else { socket.set_unicast_hops_v6(ttl)? }
    }
    match (wanted.dont_fragment, ipv4) {
        (false, _) => {}
        (true, true) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO)?,
        (true, false) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO)?,
    }
    Ok(())
}

/// Applies the options that differ from `before`.
fn apply(socket: &Socket, before: &SocketOptions, wanted: &SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if wanted.nodelay != before.nodelay {
        socket.set_tcp_nodelay(wanted.nodelay)?;
    }
    if wanted.keepalive != before.keepalive {
        socket.set_keepalive(wanted.keepalive)?;
    }
    let times = |o: &SocketOptions| (o.keepalive_time, o.keepalive_intvl, o.keepalive_probes);
    if times(wanted) != times(before) {
        let keepalive = TcpKeepalive::new()
            .with_time(wanted.keepalive_time)
            .with_interval(wanted.keepalive_intvl)
            .with_retries(wanted.keepalive_probes.into());
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if wanted.user_timeout != before.user_timeout {
        socket.set_tcp_user_timeout(Some(wanted.user_timeout))?;
    }
    if wanted.linger != before.linger {
        socket.set_linger(wanted.linger)?;
    }
    if let Some(mss) = wanted.max_segment.filter(|_| wanted.max_segment != before.max_segment) {
        socket.set_tcp_mss(mss.into())?;
    }
    if wanted.rcvbuf != before.rcvbuf {
        socket.set_recv_buffer_size(wanted.rcvbuf as usize)?;
    }
    if wanted.sndbuf != before.sndbuf {
        socket.set_send_buffer_size(wanted.sndbuf as usize)?;
    }
    Ok(())
}

/// The kernel's queries for neighbours and routers on every link, which have no answer on a TUN device.
fn is_multicast(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(16).is_some_and(|byte| byte >> 4 == 14),
        Some(6) => packet.get(24) == Some(&0xff),
        _ => true,
    }
}
