//! The open descriptors, and the names of errors.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno as Error;
use rustix::net;
use steadfast_drill::subject::Errno;

use crate::sock_diag::canonical;

/// The open descriptors.
#[derive(Clone, Default)]
pub(super) struct Files(Arc<Mutex<BTreeMap<i32, Arc<File>>>>);

/// An open descriptor.
pub(super) struct File {
    fd: OwnedFd,
    /// For sockets: whether it takes IPv6 addresses.
    pub(super) socket: Option<bool>,
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Files {
    fn table(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the file of a descriptor.
    pub(super) fn get(&self, fd: i32) -> Result<Arc<File>, Error> {
        self.table().get(&fd).cloned().ok_or(Error::BADF)
    }

    /// Takes a descriptor out of the table.
    pub(super) fn remove(&self, fd: i32) -> Result<Arc<File>, Error> {
        self.table().remove(&fd).ok_or(Error::BADF)
    }

    /// Adds a descriptor.
    pub(super) fn insert(&self, fd: OwnedFd, socket: Option<bool>) -> i32 {
        let number = fd.as_raw_fd();
        self.table().insert(number, Arc::new(File { fd, socket }));
        number
    }

    /// The addresses of listeners, in order of their descriptors.
    pub(super) fn listeners(&self) -> Vec<SocketAddr> {
        let listens = |file: &&Arc<File>| {
            file.socket.is_some() && net::sockopt::socket_acceptconn(file).unwrap_or(false)
        };
        let local = |file: &Arc<File>| address(net::getsockname(file).ok()?);
        self.table().values().filter(listens).filter_map(local).collect()
    }

    /// Shuts down all connections, which unblocks the calls that wait on them.
    pub(super) fn shut_down(&self) {
        for file in self.table().values() {
            // No call waits on a socket that is not connected.
            let _ = net::shutdown(file, net::Shutdown::Both);
        }
    }
}

impl File {
    /// Converts an address to the family of the socket.
    pub(super) fn takes(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(v4) if self.socket == Some(true) => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }
}

/// Converts an address of the system.
pub(super) fn address(any: net::SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(any).ok().map(canonical)
}

/// The name of an error.
pub(super) fn name(error: Error) -> Errno {
    use nix::errno::Errno;
    macro_rules! named {
        ($($name:ident)*) => {
            match Errno::from_raw(error.raw_os_error()) {
                $(Errno::$name => stringify!($name),)*
                _ => "an error of another name",
            }
        };
    }
    named!(
        EPERM ENOENT EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EINVAL ENFILE EMFILE ENOTTY
        EFBIG ENOSPC ESPIPE EPIPE EDOM ERANGE ENOSYS EPROTO EOVERFLOW ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
        ENOPROTOOPT EPROTONOSUPPORT EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH
        ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN
        EHOSTUNREACH EALREADY EINPROGRESS
    )
}
