//! POSIX sockets over the stack's user calls: descriptors, error names, readiness.

mod options;
mod poll;
mod urgent;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use steadfast_core::time::Duration;
use steadfast_core::trace::State;
use steadfast_core::{
    Config, ConnectOptions, Error, Event, Instant, ListenOptions, SendFlags, Shutdown, SocketId,
    SocketOptions, Stack,
};

pub(crate) use self::options::{Option as KnownOption, Unset};
use self::poll::Interest;
use super::subject::{Control, Errno, Listed};

/// The largest read or write of one call.
const LARGEST: usize = 1 << 26;
const FIRST_DESCRIPTOR: i32 = 3;
const DESCRIPTORS: usize = 1 << 16;

/// The system whose behaviour the calls follow, where systems differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Linux,
    FreeBsd,
}

/// A table of descriptors over a stack.
pub(crate) struct Posix {
    pub(crate) stack: Stack,
    pub(crate) now: Instant,
    pub(crate) system: System,
    files: BTreeMap<i32, File>,
    /// Bytes in each pipe.
    pipes: Vec<usize>,
    /// Events of each socket since the last edge was reported.
    edges: BTreeMap<SocketId, Event>,
    /// Packets that left during a call.
    pub(crate) sent: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct File {
    kind: Kind,
    nonblocking: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Socket(Box<Socket>),
    Epoll(BTreeMap<i32, Interest>),
    PipeIn(usize),
    PipeOut(usize),
    /// A file of zeros.
    Plain,
}

#[derive(Clone, Debug)]
struct Socket {
    ipv6: bool,
    role: Role,
    local: Option<SocketAddr>,
    /// The stack knows that the end is bound.
    reserved: bool,
    /// How long calls that receive, and those that send, block (`SO_RCVTIMEO`, `SO_SNDTIMEO`).
    timeouts: (Option<Duration>, Option<Duration>),
    /// The urgent byte was read out of band.
    urgent_read: bool,
    options: SocketOptions,
    /// Limit of pending Fast Open connections; 0: Fast Open is off.
    fast_open_queue: u32,
    /// Connects wait for data to send with the SYN.
    fast_open_connect: bool,
    /// The destination of a connect that waits for that data.
    deferred: Option<SocketAddr>,
    /// An error taken from the stack and not yet reported.
    error: Option<Error>,
    /// A connect has reported success.
    told: bool,
    notsent_lowat: Option<u64>,
    receive_lowat: usize,
    /// Options that follow a sysctl until they are set, and were set.
    own: BTreeSet<&'static str>,
    /// Options without effect, stored to be read back.
    kept: BTreeMap<(&'static str, &'static str), i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Fresh,
    Listener(SocketId),
    Stream(SocketId),
}

/// A close that waits for the peer's ACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lingering {
    local: SocketAddr,
    remote: SocketAddr,
    pub(crate) until: Instant,
}

impl Posix {
    pub(crate) fn new(stack: Stack, now: Instant, system: System) -> Posix {
        let (files, pipes, edges) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Posix { stack, now, system, files, pipes, edges, sent: Vec::new() }
    }

    /// Applies another configuration. Sockets follow it in the keepalive options that they have not set.
    // DRILL-F10
    pub(crate) fn set_config(&mut self, config: Config) {
        self.stack.set_config(config);
        let config = self.stack.config().clone();
        let sockets: Vec<i32> = self.files.keys().copied().collect();
        for fd in sockets {
            let Ok(socket) = self.socket_of(fd) else { continue };
            let set = socket.own.clone();
            let own = move |name: &str| set.contains(name);
            let _ = self.change(fd, |options| {
                if !own("TCP_KEEPIDLE") {
                    options.keepalive_time = config.tcp_keepalive_time;
                }
                if !own("TCP_KEEPINTVL") {
                    options.keepalive_intvl = config.tcp_keepalive_intvl;
                }
                if !own("TCP_KEEPCNT") {
                    options.keepalive_probes = config.tcp_keepalive_probes;
                }
                if !own("TCP_KEEPINIT") {
                    options.syn_timeout = config.tcp_syn_timeout;
                }
            });
        }
    }

    /// The sockets that a descriptor holds.
    pub(crate) fn held(&self) -> Vec<Listed> {
        let of = |(fd, file): (&i32, &File)| {
            let Kind::Socket(socket) = &file.kind else { return None };
            let any = SocketAddr::new(if socket.ipv6 { [0u16; 8].into() } else { [0; 4].into() }, 0);
            let (local, remote, state) = match socket.role {
                Role::Fresh => (socket.local.unwrap_or(any), any, State::Closed),
                Role::Listener(id) => (self.stack.local_addr(id).ok()?, any, State::Listen),
                Role::Stream(id) => {
                    (self.stack.local_addr(id).ok()?, self.stack.peer_addr(id).ok()?, State::Closed)
                }
            };
            let mapped = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
            Some(Listed { local: mapped(local), remote: mapped(remote), state, fd: Some(*fd) })
        };
        self.files.iter().filter_map(of).collect()
    }

    /// Whether a call that sends to an address connects the socket: as FreeBSD has it, without a flag.
    // DRILL-F31
    pub(crate) fn connects_by_sending(&self, fd: i32) -> bool {
        let fresh = self.socket_of(fd).is_ok_and(|socket| socket.role == Role::Fresh);
        self.system == System::FreeBsd && fresh
    }

    fn insert(&mut self, kind: Kind, nonblocking: bool) -> Result<i32, Errno> {
        if self.files.len() >= DESCRIPTORS {
            return Err("EMFILE");
        }
        let free = (FIRST_DESCRIPTOR..).find(|fd| !self.files.contains_key(fd)).ok_or("EMFILE")?;
        self.files.insert(free, File { kind, nonblocking });
        Ok(free)
    }

    fn file(&self, fd: i32) -> Result<&File, Errno> {
        self.files.get(&fd).ok_or("EBADF")
    }

    fn file_mut(&mut self, fd: i32) -> Result<&mut File, Errno> {
        self.files.get_mut(&fd).ok_or("EBADF")
    }

    fn socket_of(&self, fd: i32) -> Result<&Socket, Errno> {
        match &self.file(fd)?.kind {
            Kind::Socket(socket) => Ok(socket),
            _ => Err("ENOTSOCK"),
        }
    }

    fn socket_mut(&mut self, fd: i32) -> Result<&mut Socket, Errno> {
        match &mut self.file_mut(fd)?.kind {
            Kind::Socket(socket) => Ok(socket),
            _ => Err("ENOTSOCK"),
        }
    }

    /// The stack's handle, if the descriptor is a stream.
    pub(crate) fn stream(&self, fd: i32) -> Option<SocketId> {
        match self.socket_of(fd).ok()?.role {
            Role::Stream(id) => Some(id),
            _ => None,
        }
    }

    /// Returns whether the descriptor is a listener.
    pub(crate) fn listens(&self, fd: i32) -> bool {
        self.socket_of(fd).is_ok_and(|socket| matches!(socket.role, Role::Listener(_)))
    }

    pub(crate) fn exists(&self, fd: i32) -> bool {
        self.files.contains_key(&fd)
    }

    pub(crate) fn nonblocking(&self, fd: i32) -> bool {
        self.file(fd).is_ok_and(|file| file.nonblocking)
    }

    pub(crate) fn set_nonblocking(&mut self, fd: i32, on: bool) -> Result<(), Errno> {
        self.file_mut(fd)?.nonblocking = on;
        Ok(())
    }

    // Opening connections.

    pub(crate) fn socket(&mut self, ipv6: bool, nonblocking: bool) -> Result<i32, Errno> {
        let socket = Socket::new(ipv6, SocketOptions::new(self.stack.config()));
        self.insert(Kind::Socket(Box::new(socket)), nonblocking)
    }

    pub(crate) fn open_plain(&mut self) -> Result<i32, Errno> {
        self.insert(Kind::Plain, false)
    }

    pub(crate) fn pipe(&mut self) -> Result<(i32, i32), Errno> {
        self.pipes.push(0);
        let index = self.pipes.len() - 1;
        Ok((self.insert(Kind::PipeOut(index), false)?, self.insert(Kind::PipeIn(index), false)?))
    }

    pub(crate) fn bind(&mut self, fd: i32, address: SocketAddr) -> Result<(), Errno> {
        let addresses = &self.stack.interface().addresses;
        let ours = address.ip().is_unspecified() || addresses.iter().any(|(own, _)| *own == address.ip());
        let socket = self.socket_of(fd)?;
        if socket.role != Role::Fresh || socket.local.is_some() {
            return Err("EINVAL");
        }
        if !ours {
            return Err("EADDRNOTAVAIL");
        }
        let reuses =
            |socket: &Socket| socket.kept.get(&("SOL_SOCKET", "SO_REUSEADDR")).is_some_and(|on| *on != 0);
        let taken = self.files.values().any(|file| match &file.kind {
            Kind::Socket(other) => {
                let same = other.local.is_some_and(|local| {
                    local.port() == address.port()
                        && address.port() != 0
                        && local.is_ipv4() == address.is_ipv4()
                        && (local.ip() == address.ip()
                            || local.ip().is_unspecified()
                            || address.ip().is_unspecified())
                });
                same && (matches!(other.role, Role::Listener(_)) || !(reuses(other) && reuses(socket)))
            }
            _ => false,
        });
        if taken {
            return Err("EADDRINUSE");
        }
        self.socket_mut(fd)?.local = Some(address);
        self.reserve(fd);
        Ok(())
    }

    /// Has the stack know of a socket that is only bound: FreeBSD answers with its marks what comes there.
    // DRILL-F34
    fn reserve(&mut self, fd: i32) {
        let Ok(socket) = self.socket_of(fd) else { return };
        let Some(local) = socket.local.filter(|_| self.system == System::FreeBsd) else { return };
        let options = ListenOptions { socket: Some(socket.options.clone()), ..ListenOptions::default() };
        self.give_back(fd);
        let reserved = self.stack.bind(local, &options).is_ok();
        _ = self.socket_mut(fd).map(|socket| socket.reserved = reserved);
    }

    /// The socket is no longer only bound.
    fn give_back(&mut self, fd: i32) {
        let Ok(socket) = self.socket_mut(fd) else { return };
        if let Some(local) = socket.local.filter(|_| std::mem::take(&mut socket.reserved)) {
            self.stack.unbind(local);
        }
    }

    pub(crate) fn listen(&mut self, fd: i32, backlog: u32) -> Result<(), Errno> {
        let socket = self.socket_of(fd)?;
        match socket.role {
            Role::Listener(_) => return Ok(()),
            Role::Stream(_) => return Err("EINVAL"),
            Role::Fresh => {}
        }
        self.give_back(fd);
        let socket = self.socket_of(fd)?;
        let any: SocketAddr = if socket.ipv6 { ([0u16; 8], 0).into() } else { ([0, 0, 0, 0], 0).into() };
        let options = ListenOptions {
            backlog: backlog.max(1),
            fast_open: socket.fast_open_queue > 0,
            socket: Some(socket.options.clone()),
            ..ListenOptions::default()
        };
        let local = socket.local.unwrap_or(any);
        let queue = socket.fast_open_queue;
        let id = self.stack.listen(local, options).map_err(Error::name)?;
        self.stack.set_fast_open(id, queue).map_err(Error::name)?;
        let local = self.stack.local_addr(id).ok();
        let socket = self.socket_mut(fd)?;
        (socket.role, socket.local) = (Role::Listener(id), local);
        Ok(())
    }

    pub(crate) fn accept(&mut self, fd: i32, nonblocking: bool) -> Result<(i32, SocketAddr), Errno> {
        let socket = self.socket_of(fd)?;
        let Role::Listener(listener) = socket.role else { return Err("EINVAL") };
        let (ipv6, kept, own) = (socket.ipv6, socket.kept.clone(), socket.own.clone());
        let (lowat, receive_lowat) = (socket.notsent_lowat, socket.receive_lowat);
        let (id, peer) = self.stack.accept(listener).map_err(Error::name)?;
        let options = self.stack.options(id).map_err(Error::name)?.clone();
        let local = self.stack.local_addr(id).ok();
        let mut child = Socket::new(ipv6, options);
        (child.role, child.local, child.told) = (Role::Stream(id), local, true);
        child.own = own;
        (child.kept, child.notsent_lowat, child.receive_lowat) = (kept, lowat, receive_lowat);
        // An accepted socket inherits the non-blocking mode on BSD, but not on Linux.
        let inherited = self.system == System::FreeBsd && self.nonblocking(fd);
        Ok((self.insert(Kind::Socket(Box::new(child)), nonblocking || inherited)?, peer))
    }

    /// Starts a connect, or reports its progress: `EINPROGRESS` and `EALREADY` until it completes.
    pub(crate) fn connect(&mut self, fd: i32, remote: SocketAddr) -> Result<(), Errno> {
        let socket = self.socket_of(fd)?;
        match socket.role {
            Role::Listener(_) => Err(if self.system == System::Linux { "EISCONN" } else { "EOPNOTSUPP" }),
            Role::Fresh if socket.deferred.is_some() => Err("EISCONN"),
            Role::Fresh => {
                let fast_open = socket.fast_open_connect;
                if fast_open && self.stack.knows_fast_open_cookie(remote.ip()) {
                    self.socket_mut(fd)?.deferred = Some(remote);
                    return Ok(());
                }
                self.start_connect(fd, remote, fast_open)?;
                Err("EINPROGRESS")
            }
            Role::Stream(id) => match self.stack.state(id).map_err(Error::name)? {
                State::SynSent | State::SynReceived if !socket.told => Err("EALREADY"),
                State::Closed if !socket.told => {
                    let error = self.take_error(fd)?;
                    let _ = self.stack.close(self.now, id);
                    self.socket_mut(fd)?.role = Role::Fresh;
                    Err(error.map_or("ECONNABORTED", Error::name))
                }
                _ if !socket.told => {
                    self.socket_mut(fd)?.told = true;
                    // On Linux the first call after success returns 0, and later ones fail with EISCONN.
                    if self.system == System::Linux { Ok(()) } else { Err("EISCONN") }
                }
                _ => Err("EISCONN"),
            },
        }
    }

    fn start_connect(&mut self, fd: i32, remote: SocketAddr, fast_open: bool) -> Result<SocketId, Errno> {
        let now = self.now;
        self.give_back(fd);
        let socket = self.socket_of(fd)?;
        let local = socket.local.filter(|local| !local.ip().is_unspecified());
        let options = ConnectOptions {
            local_address: local.map(|local| local.ip()),
            local_port: socket.local.map(|local| local.port()).filter(|port| *port != 0),
            fast_open,
            socket: Some(socket.options.clone()),
        };
        let id = self.stack.connect(now, remote, options).map_err(Error::name)?;
        let local = self.stack.local_addr(id).ok();
        let socket = self.socket_mut(fd)?;
        (socket.role, socket.local, socket.deferred) = (Role::Stream(id), local, None);
        Ok(id)
    }

    /// The result of a connect; `None` while it is in progress. Success counts as reported.
    pub(crate) fn connected(&mut self, fd: i32) -> Result<Option<()>, Errno> {
        match self.connect(fd, SocketAddr::from(([0, 0, 0, 0], 0))) {
            Ok(()) => Ok(Some(())),
            Err("EISCONN") => Ok(Some(())),
            Err("EALREADY" | "EINPROGRESS") => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    // Sending and receiving.

    /// Queues up to `len` zeros, as far as there is room.
    pub(crate) fn send(&mut self, fd: i32, len: usize) -> Result<usize, Errno> {
        self.send_flags(fd, len, SendFlags::default())
    }

    fn send_flags(&mut self, fd: i32, len: usize, flags: SendFlags) -> Result<usize, Errno> {
        if let Kind::PipeIn(index) = self.file(fd)?.kind {
            self.pipes[index] += len;
            return Ok(len);
        }
        let socket = self.socket_of(fd)?;
        let id = match (socket.role, socket.deferred) {
            (Role::Stream(id), _) => id,
            (Role::Fresh, Some(remote)) => return self.send_fast_open(fd, remote, len),
            _ if self.system == System::Linux => return Err("EPIPE"),
            _ => return Err("ENOTCONN"),
        };
        match self.stack.state(id).map_err(Error::name)? {
            State::SynSent if self.system == System::FreeBsd => return Err("ENOTCONN"),
            State::SynSent => return Err("EAGAIN"),
            State::Closed => {
                let error = self.take_error(fd)?;
                return Err(error.map_or("EPIPE", Error::name));
            }
            _ => {}
        }
        if let Some(error) = self.socket_mut(fd)?.error.take().or_else(|| self.take_heard_error(fd)) {
            return Err(error.name());
        }
        let zeros = vec![0; len.min(LARGEST)];
        let mut done = 0;
        loop {
            match self.stack.send_with_flags(id, &zeros[done..], flags) {
                Ok(count) => done += count,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error.name()),
            }
            if done == zeros.len() || !self.stack.config().tcp_gso_quanta {
                return Ok(done);
            }
            // Linux sends as the call fills its buffers.
            self.transmit();
        }
    }

    /// Takes the packets that the stack has to send.
    pub(crate) fn transmit(&mut self) {
        let mut frame = vec![0; self.stack.frame_len()];
        while let Some(sent) = self.stack.transmit(self.now, &mut frame) {
            self.sent.push(frame[..sent.len].to_vec());
        }
    }

    /// As [`send`](Posix::send). With `more`, a partial segment waits for more data (`MSG_MORE`).
    pub(crate) fn send_more(&mut self, fd: i32, len: usize, flags: SendFlags) -> Result<usize, Errno> {
        if self.stack.config().tcp_gso_quanta {
            return self.send_flags(fd, len, flags);
        }
        let more = flags.more;
        let cork = self.socket_of(fd).map(|socket| socket.options.cork).unwrap_or(false);
        let Some(id) = self.stream(fd).filter(|_| more != self.held_back(fd, cork)) else {
            return self.send(fd, len);
        };
        let mut options = self.socket_of(fd)?.options.clone();
        options.cork = cork || more;
        self.stack.set_options(self.now, id, options).map_err(Error::name)?;
        self.send(fd, len)
    }

    /// Returns whether the stack corks the socket although its options do not.
    fn held_back(&self, fd: i32, cork: bool) -> bool {
        let options = self.stream(fd).and_then(|id| self.stack.options(id).ok());
        options.is_some_and(|options| options.cork && !cork)
    }

    /// Bytes that a write could queue now.
    pub(crate) fn room(&self, fd: i32) -> Result<usize, Errno> {
        let Kind::Socket(socket) = &self.file(fd)?.kind else { return Ok(LARGEST) };
        Ok((socket.options.sndbuf as usize).saturating_sub(self.outstanding(fd, false)?))
    }

    /// Connects, and queues all the data. With Fast Open it goes with the SYN, as far as it fits.
    // DRILL-F31
    pub(crate) fn send_connecting(
        &mut self,
        fd: i32,
        remote: SocketAddr,
        len: usize,
    ) -> Result<usize, Errno> {
        let fast_open = self.socket_of(fd)?.fast_open_queue > 0;
        let id = self.start_connect(fd, remote, fast_open)?;
        self.stack.send(id, &vec![0; len.min(LARGEST)]).map_err(Error::name)
    }

    /// Whether a blocked writer goes on: Linux wakes it when a third of the buffer is free.
    // DRILL-X04
    pub(crate) fn wakes_writer(&self, fd: i32) -> bool {
        let Some(id) = self.stream(fd).filter(|_| self.stack.config().tcp_gso_quanta) else { return true };
        self.stack.readiness(id).is_ok_and(|readiness| readiness.writable) && self.has_room(id)
    }

    /// Whether `poll` reports room for a write.
    fn has_room(&self, id: SocketId) -> bool {
        let (Ok(info), Ok(options)) = (self.stack.info(self.now, id), self.stack.options(id)) else {
            return true;
        };
        let room = u64::from(options.sndbuf).saturating_sub(info.wmem_queued);
        let lowat = u64::from(options.notsent_lowat);
        room > 0
            && room >= info.wmem_queued / 2
            && (2 * info.notsent_bytes < lowat || lowat == u64::from(u32::MAX))
    }

    /// The destination of a connect that waits for its first data.
    pub(crate) fn deferred(&self, fd: i32) -> Option<SocketAddr> {
        self.socket_of(fd).ok()?.deferred
    }

    /// Connects, and queues the data that fits on the SYN. Returns its length, which is 0 without a cookie.
    // DRILL-X37
    pub(crate) fn send_fast_open(&mut self, fd: i32, remote: SocketAddr, len: usize) -> Result<usize, Errno> {
        let socket = self.socket_of(fd)?;
        if !self.stack.config().tcp_fastopen.client() {
            return Err("EOPNOTSUPP");
        }
        match socket.role {
            Role::Fresh => {}
            Role::Stream(id) if !socket.told && self.stack.state(id) == Ok(State::SynSent) => {
                return Err("EALREADY");
            }
            _ => return Err("EISCONN"),
        }
        let id = self.start_connect(fd, remote, true)?;
        let count = len.min(self.stack.syn_data_room(id));
        if count > 0 { self.stack.send(id, &vec![0; count]).map_err(Error::name) } else { Ok(0) }
    }

    /// Queues up to `len` bytes behind the data of a SYN that was sent.
    // DRILL-X37
    pub(crate) fn queue_behind_syn(&mut self, fd: i32, len: usize) -> usize {
        let Some(id) = self.stream(fd).filter(|_| self.stack.config().tcp_gso_quanta && len > 0) else {
            return 0;
        };
        self.stack.send(id, &vec![0; len.min(LARGEST)]).unwrap_or(0)
    }

    /// Reads up to `len` bytes. An empty result is the end of the stream.
    pub(crate) fn receive(&mut self, fd: i32, len: usize, peek: bool) -> Result<Vec<u8>, Errno> {
        let len = len.min(LARGEST);
        match self.file(fd)?.kind {
            Kind::PipeOut(index) => {
                let held = &mut self.pipes[index];
                let count = len.min(*held);
                if count == 0 && len > 0 {
                    return Err("EAGAIN");
                }
                *held -= count;
                return Ok(vec![0; count]);
            }
            Kind::Plain => return Ok(vec![0; len]),
            _ => {}
        }
        let socket = self.socket_of(fd)?;
        let Role::Stream(id) = socket.role else {
            return Err(if socket.deferred.is_some() { "EAGAIN" } else { "ENOTCONN" });
        };
        let len = match self.before_urgent(fd) {
            Some(0) if !self.in_line(fd) => {
                // The urgent byte is not in the stream.
                self.stack.recv(id, &mut [0]).map_err(Error::name)?;
                len
            }
            Some(before) if before > 0 => len.min(before),
            _ => len,
        };
        let mut buffer = vec![0; len];
        if self.stack.readable(id).map_err(Error::name)?.0 == 0
            && let Some(error) = self.socket_mut(fd)?.error.take().or_else(|| self.take_heard_error(fd))
        {
            return Err(error.name());
        }
        let read = if peek { self.stack.peek(id, &mut buffer) } else { self.stack.recv(id, &mut buffer) };
        buffer.truncate(read.map_err(Error::name)?);
        Ok(buffer)
    }

    /// How long a call on a descriptor blocks, if that has a limit.
    pub(crate) fn timeout(&self, fd: i32, sends: bool) -> Option<Duration> {
        let (receives, sending) = self.socket_of(fd).ok()?.timeouts;
        if sends { sending } else { receives }
    }

    /// Whether ICMP errors are told at once (`IP_RECVERR`).
    fn hears_icmp(&self, fd: i32) -> bool {
        let on = |socket: &Socket, key| socket.kept.get(&key).is_some_and(|on| *on != 0);
        self.socket_of(fd).is_ok_and(|socket| {
            on(socket, ("IPPROTO_IP", "IP_RECVERR")) || on(socket, ("IPPROTO_IPV6", "IPV6_RECVERR"))
        })
    }

    /// The ICMP error in the queue of errors. Only one that ended a handshake gets there.
    // DRILL-L18
    pub(crate) fn next_report(&mut self, fd: i32) -> Result<Control, Errno> {
        let ipv6 = self.socket_of(fd)?.ipv6;
        let icmpv6 = self.peer_of(fd).is_some_and(|remote| !remote.ip().to_canonical().is_ipv4());
        let id = self.stream(fd).filter(|_| self.hears_icmp(fd)).ok_or("EAGAIN")?;
        let report = self.stack.take_icmp_error(id).map_err(Error::name)?.ok_or("EAGAIN")?;
        self.socket_mut(fd)?.error = None;
        Ok(Control::Icmp { ipv6, icmpv6, errno: report.error.name(), kind: report.kind, code: report.code })
    }

    fn peer_of(&self, fd: i32) -> Option<SocketAddr> {
        self.stack.peer_addr(self.stream(fd)?).ok()
    }

    /// An ICMP error about a connection, which `IP_RECVERR` makes that of the next call.
    // DRILL-L18
    fn take_heard_error(&mut self, fd: i32) -> Option<Error> {
        if !self.hears_icmp(fd) {
            return None;
        }
        self.take_error(fd).ok().flatten()
    }

    /// Bytes that can be read.
    pub(crate) fn unread(&self, fd: i32) -> Result<usize, Errno> {
        if let Some(before) = self.before_urgent(fd).filter(|_| !self.in_line(fd)) {
            return Ok(before);
        }
        match self.socket_of(fd)?.role {
            Role::Stream(id) => Ok(self.stack.readable(id).map_err(Error::name)?.0),
            Role::Fresh => Ok(0),
            Role::Listener(_) => Err("EINVAL"),
        }
    }

    /// `TCP_CM_INQ`, where the socket asked for it: bytes that are left to read, and one for the end of the stream.
    // DRILL-X23
    pub(crate) fn inq(&self, fd: i32) -> Option<i64> {
        let socket = self.socket_of(fd).ok()?;
        let asked = socket.kept.get(&("IPPROTO_TCP", "TCP_INQ")).is_some_and(|on| *on != 0);
        let id = self.stream(fd).filter(|_| asked)?;
        let left = self.stack.readable(id).ok()?.0 as i64;
        let has_fin = !matches!(
            self.stack.state(id).ok()?,
            State::SynReceived | State::Established | State::FinWait1 | State::FinWait2
        );
        Some(left + i64::from(has_fin))
    }

    /// Bytes that the peer has not acknowledged, or, with `unsent`, bytes that were never sent.
    pub(crate) fn outstanding(&self, fd: i32, unsent: bool) -> Result<usize, Errno> {
        match self.socket_of(fd)?.role {
            Role::Stream(id) => {
                let info = self.stack.info(self.now, id);
                Ok(info.map_or(0, |info| if unsent { info.notsent_bytes } else { info.send_q }) as usize)
            }
            Role::Fresh => Ok(0),
            Role::Listener(_) => Err("EINVAL"),
        }
    }

    // Closing.

    pub(crate) fn shutdown(&mut self, fd: i32, how: Shutdown) -> Result<(), Errno> {
        let now = self.now;
        match self.socket_of(fd)?.role {
            Role::Fresh => Err("ENOTCONN"),
            Role::Stream(id) => self.stack.shutdown(now, id, how).map_err(Error::name),
            Role::Listener(_) if how == Shutdown::Write => Ok(()),
            Role::Listener(id) => {
                self.stack.close(now, id).map_err(Error::name)?;
                self.socket_mut(fd)?.role = Role::Fresh;
                Ok(())
            }
        }
    }

    /// Closes the descriptor. With a linger time, returns the close that waits for the peer.
    pub(crate) fn close(&mut self, fd: i32) -> Result<Option<Lingering>, Errno> {
        self.give_back(fd);
        let file = self.files.remove(&fd).ok_or("EBADF")?;
        for other in self.files.values_mut() {
            if let Kind::Epoll(interests) = &mut other.kind {
                interests.remove(&fd);
            }
        }
        let Kind::Socket(socket) = file.kind else { return Ok(None) };
        let (Role::Stream(id) | Role::Listener(id)) = socket.role else { return Ok(None) };
        let stream = matches!(socket.role, Role::Stream(_));
        let linger = socket.options.linger.filter(|linger| stream && !linger.is_zero() && !file.nonblocking);
        let ends = (self.stack.local_addr(id).ok(), self.stack.peer_addr(id).ok());
        self.stack.close(self.now, id).map_err(Error::name)?;
        let lingering = match (linger, ends) {
            (Some(linger), (Some(local), Some(remote))) => {
                Some(Lingering { local, remote, until: self.now + linger })
            }
            _ => None,
        };
        Ok(lingering.filter(|lingering| self.lingers(lingering)))
    }

    /// Returns whether a close still waits for the peer's ACK.
    pub(crate) fn lingers(&self, lingering: &Lingering) -> bool {
        let waits = |state| matches!(state, State::FinWait1 | State::Closing | State::LastAck);
        self.now < lingering.until
            && self.stack.sockets(self.now).iter().any(|entry| {
                entry.local == lingering.local && entry.remote == lingering.remote && waits(entry.state)
            })
    }

    // Queries.

    pub(crate) fn local_address(&self, fd: i32) -> Result<SocketAddr, Errno> {
        let socket = self.socket_of(fd)?;
        let any: SocketAddr = if socket.ipv6 { ([0u16; 8], 0).into() } else { ([0, 0, 0, 0], 0).into() };
        Ok(socket.local.unwrap_or(any))
    }

    pub(crate) fn peer_address(&self, fd: i32) -> Result<SocketAddr, Errno> {
        match self.socket_of(fd)?.role {
            Role::Stream(id) => match self.stack.state(id).map_err(Error::name)? {
                State::Closed | State::SynSent => Err("ENOTCONN"),
                _ => self.stack.peer_addr(id).map_err(Error::name),
            },
            _ => Err("ENOTCONN"),
        }
    }

    /// Returns and clears the error that ended the connection, or a soft error.
    pub(crate) fn take_error(&mut self, fd: i32) -> Result<Option<Error>, Errno> {
        let socket = self.socket_mut(fd)?;
        if let Some(error) = socket.error.take() {
            return Ok(Some(error));
        }
        match socket.role {
            Role::Stream(id) => self.stack.take_error(id).map_err(Error::name),
            _ => Ok(None),
        }
    }
}

impl Socket {
    fn new(ipv6: bool, options: SocketOptions) -> Socket {
        Socket {
            ipv6,
            role: Role::Fresh,
            local: None,
            reserved: false,
            timeouts: (None, None),
            urgent_read: false,
            options,
            fast_open_queue: 0,
            fast_open_connect: false,
            deferred: None,
            error: None,
            told: false,
            notsent_lowat: None,
            receive_lowat: 1,
            own: BTreeSet::new(),
            kept: BTreeMap::new(),
        }
    }
}

/// The value of an option that counts seconds.
fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0).min(u64::from(u32::MAX)))
}
