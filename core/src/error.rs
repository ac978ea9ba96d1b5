//! What a user call or a connection can fail with, under the names that POSIX gives.

use thiserror::Error;

/// Why a user call failed, or why a connection ended.
///
/// [`name`](Error::name) is the POSIX name and [`errno`](Error::errno) its number on Linux, so that a program
/// that maps sockets onto this stack can pass them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Error {
    /// The call would have to wait: nothing to read, no room to write, no connection to accept (EAGAIN).
    #[error("operation would block")]
    WouldBlock,
    /// The peer refused the connection with a RST, or a port-unreachable came back (ECONNREFUSED).
    #[error("connection refused")]
    ConnectionRefused,
    /// The peer reset the connection (ECONNRESET).
    #[error("connection reset by peer")]
    ConnectionReset,
    /// The local side gave the connection up, or its listener closed (ECONNABORTED).
    #[error("software caused connection abort")]
    ConnectionAborted,
    /// Nothing came back within the retransmission limits, the user timeout or the keepalive (ETIMEDOUT).
    #[error("connection timed out")]
    TimedOut,
    /// Routers said that the host cannot be reached (EHOSTUNREACH).
    #[error("no route to host")]
    HostUnreachable,
    /// The stack went down with [`abort_all`](crate::Stack::abort_all) (ENETDOWN).
    #[error("network is down")]
    NetworkDown,
    /// Routers said that the network cannot be reached, or there is no local address for it (ENETUNREACH).
    #[error("network is unreachable")]
    NetworkUnreachable,
    /// A router or host said that policy forbids the traffic (EACCES).
    #[error("communication administratively prohibited")]
    Prohibited,
    /// The protocol is not available at the peer (ENOPROTOOPT).
    #[error("protocol not available")]
    ProtocolUnavailable,
    /// A listener or connection holds this address and port already (EADDRINUSE).
    #[error("address already in use")]
    AddrInUse,
    /// Not an address of this stack, or no free port is left for this destination (EADDRNOTAVAIL).
    #[error("cannot assign requested address")]
    AddrNotAvailable,
    /// The socket is not connected (ENOTCONN).
    #[error("socket is not connected")]
    NotConnected,
    /// The socket is connected or connecting already (EISCONN).
    #[error("socket is already connected")]
    AlreadyConnected,
    /// The connection can no longer send: it was shut down for writing, closed or aborted (EPIPE).
    #[error("broken pipe")]
    BrokenPipe,
    /// An argument makes no sense for this call (EINVAL).
    #[error("invalid argument")]
    InvalidArgument,
    /// The identifier names no socket of this stack (EBADF).
    #[error("no such socket")]
    NoSuchSocket,
    /// A configured limit leaves no room for another socket (ENOBUFS).
    #[error("no buffer space available")]
    NoBufferSpace,
}

impl Error {
    /// The POSIX name: `ECONNREFUSED`.
    pub const fn name(self) -> &'static str {
        self.posix().0
    }

    /// The number on Linux.
    pub const fn errno(self) -> i32 {
        self.posix().1
    }

    const fn posix(self) -> (&'static str, i32) {
        match self {
            Error::WouldBlock => ("EAGAIN", 11),
            Error::ConnectionRefused => ("ECONNREFUSED", 111),
            Error::ConnectionReset => ("ECONNRESET", 104),
            Error::ConnectionAborted => ("ECONNABORTED", 103),
            Error::TimedOut => ("ETIMEDOUT", 110),
            Error::HostUnreachable => ("EHOSTUNREACH", 113),
            Error::NetworkDown => ("ENETDOWN", 100),
            Error::NetworkUnreachable => ("ENETUNREACH", 101),
            Error::Prohibited => ("EACCES", 13),
            Error::ProtocolUnavailable => ("ENOPROTOOPT", 92),
            Error::AddrInUse => ("EADDRINUSE", 98),
            Error::AddrNotAvailable => ("EADDRNOTAVAIL", 99),
            Error::NotConnected => ("ENOTCONN", 107),
            Error::AlreadyConnected => ("EISCONN", 106),
            Error::BrokenPipe => ("EPIPE", 32),
            Error::InvalidArgument => ("EINVAL", 22),
            Error::NoSuchSocket => ("EBADF", 9),
            Error::NoBufferSpace => ("ENOBUFS", 105),
        }
    }
}
