//! What a script is played against: a stack, the calls that can be made on it, and its time.
//!
//! The interpreter reads a script, builds and compares packets, and judges. Everything else it asks of a [`Subject`]: the
//! lab's own is a stack under a virtual clock; others, which have clocks and wires of their own, live outside the lab.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use steadfast_core::time::Duration;
use steadfast_core::trace::State;
use steadfast_core::{Instant, Shutdown};

/// The name of an error, as in `<errno.h>`.
pub type Errno = &'static str;

/// The addresses that a script is played with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The stack's address.
    pub local: IpAddr,
    /// Bits of it that name the network.
    pub prefix_len: u8,
    /// The script's own address.
    pub remote: IpAddr,
    /// Largest packet.
    pub mtu: u16,
}

/// Something that scripts can be played against.
pub trait Subject {
    /// Its time.
    fn now(&self) -> Instant;

    /// Begins a call. What comes of it is a [`Happening::Returned`], at once or later. One call is made at a time.
    fn call(&mut self, request: Request);

    /// A packet reaches it.
    fn inject(&mut self, packet: &[u8]);

    /// What has happened since this was last asked, the oldest first.
    fn happened(&mut self) -> Option<Happening>;

    /// Lets time pass until something may have happened. `false`: it is `limit`, and nothing more happens until then.
    fn wait(&mut self, limit: Instant) -> bool;

    /// Whether it is certain that nothing happens by itself any more.
    fn idle(&self) -> bool;

    /// How long it is worth waiting for an event, and for what may happen at any time.
    fn patience(&self) -> Duration;

    /// Where sockets listen, the one that was made first first.
    fn listeners(&self) -> Vec<SocketAddr>;

    /// All its sockets, also those that no descriptor stands for.
    fn sockets(&self) -> Vec<Listed>;

    /// Its counters by their names; `None`: it has others than the stack's.
    fn counters(&self) -> Option<Vec<(String, u64)>> {
        None
    }

    /// `TCP_INFO` of a descriptor; `None`: it has none.
    fn tcp_info(&self, fd: i32) -> Option<TcpInfo>;

    /// Sets a sysctl. `Some`: a note instead. An error says why the script cannot be played.
    fn set(&mut self, name: &str, value: &str) -> Result<Option<String>, String>;
}

/// Something that happened to a [`Subject`].
#[derive(Clone, Debug)]
pub enum Happening {
    /// A packet left it.
    Sent {
        /// When.
        at: Instant,
        /// All of it, from the IP header on.
        packet: Vec<u8>,
    },
    /// A connection changed its state. Not every subject tells.
    State {
        /// When.
        at: Instant,
        /// The subject's end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
        /// The state before.
        from: State,
        /// The state since.
        to: State,
    },
    /// The call returned.
    Returned {
        /// When.
        at: Instant,
        /// What came of it.
        result: Result<Result<Reply, Errno>, Refused>,
    },
}

/// Why something that a script asks for was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not apply here.
    Skip(String),
    /// It makes no sense.
    Wrong(String),
}

/// A system call whose arguments were understood. Descriptors are the subject's own; -1 is none of them.
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
    /// `read`, `recv` and their kin.
    Receive {
        fd: i32,
        len: usize,
        flags: ReceiveFlags,
    },
    /// `write`, `send` and their kin: so many zeros. With an address: `MSG_FASTOPEN`.
    Send {
        fd: i32,
        len: usize,
        flags: SendFlags,
        fast_open: Option<SocketAddr>,
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
    /// `fcntl F_GETFD` and `F_SETFD`: nothing but whether the descriptor is one.
    Exists {
        fd: i32,
    },
    /// `ioctl SIOCINQ`
    Unread {
        fd: i32,
    },
    /// `ioctl SIOCOUTQ`, or `SIOCOUTQNSD`: only what was not sent.
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
    /// Descriptors and the events asked for; without a timeout it waits for ever.
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
    /// Some file of zeros.
    Open,
}

/// What a call gave that did not fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A number: a count, flags, or 0.
    Number(i64),
    /// A new descriptor.
    Descriptor(i32),
    /// A new connection and its peer.
    Accepted(i32, SocketAddr),
    /// The end to read from, and the one to write to.
    Pipe(i32, i32),
    /// What was read, and `msg_flags`.
    Received(Vec<u8>, i64),
    /// The name of an end.
    Address(SocketAddr),
    /// The value of an option.
    Setting(Setting),
    /// `revents` of each descriptor of a poll.
    Readiness(Vec<i64>),
    /// What an epoll descriptor reports: events and the user's word.
    Events(Vec<(i64, i64)>),
}

/// What a receive does beside reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveFlags {
    /// The bytes stay.
    pub peek: bool,
    /// It does not wait.
    pub dont_wait: bool,
    /// It waits for all.
    pub wait_all: bool,
}

/// How a send sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendFlags {
    /// It does not wait.
    pub dont_wait: bool,
    /// More will follow: what is no full segment waits for it.
    pub more: bool,
}

/// A socket option: level and name as C has them, `IPPROTO_TCP` and not `SOL_TCP`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SocketOption {
    pub level: String,
    pub name: String,
}

/// What an option is set to.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// An int.
    Number(i64),
    /// `SO_LINGER`: on or off, seconds.
    Linger(bool, i64),
    /// A string.
    Text(String),
    /// `SO_ERROR`
    Error(Option<Errno>),
    /// A struct that is not looked into.
    Opaque,
}

/// A socket as a listing has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Listed {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: State,
}

/// What `TCP_INFO` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The descriptor is a connection, not a listener.
    pub connection: bool,
    /// The fields that the subject keeps, by their names in C without `tcpi_`, in the units of C.
    pub fields: BTreeMap<&'static str, i64>,
}
