//! Errors of user calls and connections, under their POSIX names.

use thiserror::Error;

/// Why a user call failed, or why a connection ended.
///
/// [`name`](Error::name) is the POSIX name and [`errno`](Error::errno) its number on Linux, for programs that map
/// sockets onto this stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Error {
    /// The call would block: nothing to read, no room to write, no connection to accept (EAGAIN).
    #[error("operation would block")]
    WouldBlock,
    /// The peer refused the connection with a RST, or an ICMP port unreachable arrived (ECONNREFUSED).
    #[error("connection refused")]
    ConnectionRefused,
    /// The peer reset the connection (ECONNRESET).
    #[error("connection reset by peer")]
    ConnectionReset,
    /// The local side gave up the connection (ECONNABORTED). The stack itself does not return it: it is for libraries
    /// whose callers wait for a connection that another task ends.
    #[error("software caused connection abort")]
    ConnectionAborted,
    /// No answer within the retransmission limits, the user timeout or the keepalive (ETIMEDOUT).
    #[error("connection timed out")]
    TimedOut,
    /// A router reported that the host is unreachable (EHOSTUNREACH).
    #[error("no route to host")]
    HostUnreachable,
    /// The stack went down with [`abort_all`](crate::Stack::abort_all) (ENETDOWN).
    #[error("network is down")]
    NetworkDown,
    /// A router reported that the network is unreachable, or no local address can reach it (ENETUNREACH).
    #[error("network is unreachable")]
    NetworkUnreachable,
    /// A router or host reported that policy forbids the traffic (EACCES).
    #[error("communication administratively prohibited")]
    Prohibited,
    /// The protocol is not available at the peer (ENOPROTOOPT).
    #[error("protocol not available")]
    ProtocolUnavailable,
    /// A listener or connection already holds this address and port (EADDRINUSE).
    #[error("address already in use")]
    AddrInUse,
    /// The address is not one of this stack, or no port is free for this destination (EADDRNOTAVAIL).
    #[error("cannot assign requested address")]
    AddrNotAvailable,
    /// The socket is not connected (ENOTCONN).
    #[error("socket is not connected")]
    NotConnected,
    /// The socket is already connected or connecting (EISCONN). The stack itself does not return it, since `connect`
    /// makes a new socket: it is for layers with POSIX sockets.
    #[error("socket is already connected")]
    AlreadyConnected,
    /// The connection can no longer send: it was shut down for writing, closed or aborted (EPIPE).
    #[error("broken pipe")]
    BrokenPipe,
    /// An argument is invalid for this call (EINVAL).
    #[error("invalid argument")]
    InvalidArgument,
    /// The handle names no socket of this stack (EBADF).
    #[error("no such socket")]
    NoSuchSocket,
    /// A configured limit leaves no room for another socket or datagram (ENOBUFS).
    #[error("no buffer space available")]
    NoBufferSpace,
    /// A datagram is longer than the protocol or the path allows (EMSGSIZE).
    #[error("message too long")]
    MessageTooLong,
    /// A datagram has no destination: the socket has no peer either (EDESTADDRREQ).
    #[error("destination address required")]
    DestinationAddressRequired,
}

impl Error {
    /// Returns the POSIX name: `ECONNREFUSED`.
    pub const fn name(self) -> &'static str {
        self.posix().0
    }

    /// Returns the number on Linux.
    pub const fn errno(self) -> i32 {
        self.posix().1
    }

    /// Returns the error with this number on Linux.
    pub fn from_errno(errno: i32) -> Option<Error> {
        Error::ALL.into_iter().find(|error| error.errno() == errno)
    }

    const ALL: [Error; 20] = [
        Error::WouldBlock,
        Error::ConnectionRefused,
        Error::ConnectionReset,
        Error::ConnectionAborted,
        Error::TimedOut,
        Error::HostUnreachable,
        Error::NetworkDown,
        Error::NetworkUnreachable,
        Error::Prohibited,
        Error::ProtocolUnavailable,
        Error::AddrInUse,
        Error::AddrNotAvailable,
        Error::NotConnected,
        Error::AlreadyConnected,
        Error::BrokenPipe,
        Error::InvalidArgument,
        Error::NoSuchSocket,
        Error::NoBufferSpace,
        Error::MessageTooLong,
        Error::DestinationAddressRequired,
    ];

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
            Error::MessageTooLong => ("EMSGSIZE", 90),
            Error::DestinationAddressRequired => ("EDESTADDRREQ", 89),
        }
    }
}
