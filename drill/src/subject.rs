//! The subject of a script: a stack, the calls on it, and its time.
//!
//! The interpreter parses a script, builds and compares packets, and judges. It asks a [`Subject`] for everything else.
//! The subject of this crate is a stack under a virtual clock. Subjects with real clocks and networks live elsewhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use steadfast_core::info::Info;
use steadfast_core::time::Duration;
use steadfast_core::trace::State;
use steadfast_core::{Instant, PathMetrics, Shutdown};

/// The name of an error in `<errno.h>`.
pub type Errno = &'static str;

/// The addresses that a script runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The stack's address.
    pub local: IpAddr,
    /// Prefix length of its network.
    pub prefix_len: u8,
    /// The script's own address.
    pub remote: IpAddr,
    /// MTU of the link.
    pub mtu: u16,
}

/// A stack that scripts can be played against.
pub trait Subject {
    /// The current time.
    fn now(&self) -> Instant;

    /// Starts a call. Its result arrives as [`SubjectEvent::Returned`], at once or later. At most one call is in
    /// progress.
    fn call(&mut self, request: Request);

    /// Delivers a packet to it.
    fn inject(&mut self, packet: &[u8]);

    /// Delivers packets that arrive together: it need not answer each by itself.
    fn inject_all(&mut self, packets: &[Vec<u8>]) {
        packets.iter().for_each(|packet| self.inject(packet));
    }

    /// Returns the oldest event that was not returned before.
    fn next_event(&mut self) -> Option<SubjectEvent>;

    /// Lets time pass until an event may have happened. Returns false at `limit`, if no event comes before.
    fn wait(&mut self, limit: Instant) -> bool;

    /// Returns whether no event can happen without further input.
    fn idle(&self) -> bool;

    /// When its next timer fires, if it knows.
    fn next_timer(&self) -> Option<Instant> {
        None
    }

    /// How long it is worth waiting for an event, or for one without a fixed time.
    fn patience(&self) -> Duration;

    /// The addresses of its listeners, in order of creation.
    fn listeners(&self) -> Vec<SocketAddr>;

    /// All its sockets, those without a descriptor included.
    fn sockets(&self) -> Vec<Listed>;

    /// Its counters by name; `None` if it does not have the stack's counters.
    fn counters(&self) -> Option<Vec<(String, u64)>> {
        None
    }

    /// `TCP_INFO` of a descriptor, if it has one.
    fn tcp_info(&self, fd: i32) -> Option<TcpInfo>;

    /// The numbers of its connections, if it tells them.
    fn infos(&self) -> Vec<Info> {
        Vec::new()
    }

    /// Forgets what is remembered of peers beyond their connections.
    fn forget_peers(&mut self) {}

    /// Changes the route to a network (`ip route change`). An error says why the script cannot run.
    fn set_path(&mut self, network: IpAddr, prefix_len: u8, path: PathMetrics) -> Result<(), String>;

    /// Says whether the device refuses all packets. An error says why the script cannot run.
    fn refuse_packets(&mut self, refuse: bool) -> Result<(), String> {
        if refuse { Err("the device cannot refuse packets here".to_owned()) } else { Ok(()) }
    }

    /// Sets a sysctl. `Some` is a note that it had no effect. An error says why the script cannot run.
    fn set(&mut self, name: &str, value: &str) -> Result<Option<String>, String>;
}

/// An event of a [`Subject`].
#[derive(Clone, Debug)]
pub enum SubjectEvent {
    /// A packet left it.
    Sent {
        /// When it left.
        at: Instant,
        /// The whole packet, from the IP header on.
        packet: Vec<u8>,
    },
    /// A connection changed state. Not every subject reports this.
    State {
        /// When it changed.
        at: Instant,
        /// The subject's endpoint.
        local: SocketAddr,
        /// The peer's endpoint.
        remote: SocketAddr,
        /// The old state.
        from: State,
        /// The new state.
        to: State,
    },
    /// A call returned.
    Returned {
        /// When it returned.
        at: Instant,
        /// Its result.
        result: Result<Result<Reply, Errno>, Refused>,
    },
}

/// Why a request of a script was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not apply to this subject.
    Skip(String),
    /// It is invalid.
    Wrong(String),
}

/// A system call with decoded arguments. Descriptors are the subject's own; -1 is never valid.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are the arguments of the call")]
pub enum Request {
    Socket {
        ipv6: bool,
        nonblocking: bool,
    },
    Bind {
        fd: i32,
        address: SocketAddr,
    },
    Listen {
        fd: i32,
        backlog: u32,
    },
    Accept {
        fd: i32,
        nonblocking: bool,
    },
    Connect {
        fd: i32,
        address: SocketAddr,
    },
    /// `read`, `recv` and similar calls.
    Receive {
        fd: i32,
        len: usize,
        flags: ReceiveFlags,
    },
    /// `write`, `send` and similar calls, with `len` zeros. An address means `MSG_FASTOPEN`.
    Send {
        fd: i32,
        len: usize,
        flags: SendFlags,
        fast_open: Option<SocketAddr>,
        /// The destination of a call without `MSG_FASTOPEN`.
        to: Option<SocketAddr>,
    },
    Splice {
        from: i32,
        to: i32,
        len: usize,
        nonblocking: bool,
    },
    Sendfile {
        to: i32,
        from: i32,
        len: usize,
    },
    /// `fcntl F_GETFL`
    Flags {
        fd: i32,
    },
    /// `fcntl F_SETFL`, `ioctl FIONBIO`
    SetNonblocking {
        fd: i32,
        on: bool,
    },
    /// `fcntl F_GETFD` and `F_SETFD`: only checks the descriptor.
    Exists {
        fd: i32,
    },
    /// `ioctl SIOCINQ`
    Unread {
        fd: i32,
    },
    /// `ioctl SIOCOUTQ`; with `unsent`, `SIOCOUTQNSD`, which leaves out data in flight.
    Outstanding {
        fd: i32,
        unsent: bool,
    },
    Shutdown {
        fd: i32,
        how: Shutdown,
    },
    Close {
        fd: i32,
    },
    SetOption {
        fd: i32,
        option: SocketOption,
        setting: Setting,
    },
    Option {
        fd: i32,
        option: SocketOption,
    },
    LocalAddress {
        fd: i32,
    },
    PeerAddress {
        fd: i32,
    },
    /// Descriptors and requested events. Without a timeout it waits forever.
    Poll {
        all: Vec<(i32, i64)>,
        timeout: Option<Duration>,
    },
    Epoll,
    /// `EPOLL_CTL_ADD` and `EPOLL_CTL_MOD`
    EpollSet {
        epoll: i32,
        fd: i32,
        events: i64,
        data: i64,
        add: bool,
    },
    /// `EPOLL_CTL_DEL`
    EpollRemove {
        epoll: i32,
        fd: i32,
    },
    EpollWait {
        epoll: i32,
        limit: usize,
        timeout: Option<Duration>,
    },
    Pipe,
    /// Opens a file of zeros.
    Open,
}

/// The reply of a call that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A number: a count, flags, or 0.
    Number(i64),
    /// A new descriptor.
    Descriptor(i32),
    /// A new connection and its peer.
    Accepted(i32, SocketAddr),
    /// The read end and the write end.
    Pipe(i32, i32),
    /// The data, `msg_flags`, and the control messages in their order.
    Received(Vec<u8>, i64, Vec<Control>),
    /// The address of an endpoint.
    Address(SocketAddr),
    /// The value of an option.
    Setting(Setting),
    /// `revents` of each descriptor of a poll.
    Readiness(Vec<i64>),
    /// The events of an epoll descriptor, each with the user data.
    Events(Vec<(i64, i64)>),
}

/// A control message of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `TCP_CM_INQ`: bytes that are left to read.
    Inq(i64),
    /// `IP_RECVERR`, or `IPV6_RECVERR`: an ICMP error.
    Icmp {
        /// The socket is one of IPv6.
        ipv6: bool,
        /// The message is ICMPv6.
        icmpv6: bool,
        /// The meaning of the error.
        errno: Errno,
        /// The type of the message.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

/// The flags of a receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveFlags {
    /// Leave the bytes in the queue.
    pub peek: bool,
    /// Do not block.
    pub dont_wait: bool,
    /// Wait for all bytes.
    pub wait_all: bool,
    /// Read from the queue of errors.
    pub error_queue: bool,
    /// Read the urgent byte.
    pub urgent: bool,
}

/// The flags of a send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendFlags {
    /// Do not block.
    pub dont_wait: bool,
    /// More data follows: hold back a partial segment.
    pub more: bool,
    /// Later data begins a segment of its own.
    pub end_of_record: bool,
    /// The last byte is urgent.
    pub urgent: bool,
}

/// A socket option: level and name as in C. The level is `IPPROTO_TCP`, never `SOL_TCP`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SocketOption {
    pub level: String,
    pub name: String,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// An `int`.
    Number(i64),
    /// `SO_LINGER`: whether it is on, and seconds.
    Linger(bool, i64),
    /// A string.
    Text(String),
    /// `SO_ERROR`
    Error(Option<Errno>),
    /// A struct that is not examined.
    Opaque,
}

/// A socket in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Listed {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: State,
    /// The descriptor of an application that holds it open, if the subject knows.
    pub fd: Option<i32>,
}

/// The contents of `TCP_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The descriptor is a connection, not a listener.
    pub connection: bool,
    /// The fields that the subject has: names and units of C, without `tcpi_`.
    pub fields: BTreeMap<&'static str, i64>,
}
