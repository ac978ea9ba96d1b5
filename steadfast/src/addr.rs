//! The addresses that `bind` and `connect` take, and how names become addresses.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::sync::Arc;

use self::sealed::Target;

/// Values that name one or several socket addresses, as `tokio::net::ToSocketAddrs`.
///
/// | type | addresses |
/// |---|---|
/// | `SocketAddr`, `SocketAddrV4`, `SocketAddrV6` | itself |
/// | `(IpAddr, u16)`, `(Ipv4Addr, u16)`, `(Ipv6Addr, u16)` | address and port |
/// | `([u8; 4], u16)`, `([u8; 16], u16)`, `([u16; 8], u16)` | address and port; Tokio does not take these |
/// | `&[SocketAddr]` | each of them, in order |
/// | `str`, `String` | `"10.9.0.2:80"`, `"[fd09::2]:80"`, or a name with a port: `"example.org:80"` |
/// | `(&str, u16)`, `(String, u16)` | an address or a name, and a port |
/// | `&T` | those of `T` |
///
/// Only a name is resolved, by the network's [`Resolver`]: other values cost no task and no allocation, but for a slice.
///
/// ```
/// use steadfast::{Net, TcpListener, TcpStream, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
/// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
/// let listener = TcpListener::bind(&server, "10.9.0.2:7").await?;
/// TcpStream::connect(&client, ("10.9.0.2", 7)).await?;
/// TcpStream::connect(&client, listener.local_addr()?).await?;
/// // The first address refuses the connection, so the second is tried.
/// let both = ["10.9.0.2:8".parse().unwrap(), listener.local_addr()?];
/// TcpStream::connect(&client, &both[..]).await?;
/// # Ok(())
/// # }
/// ```
///
/// The trait is sealed: its methods may change.
pub trait ToSocketAddrs: sealed::ToTarget {}

pub(crate) mod sealed {
    use std::net::SocketAddr;

    /// The addresses or the name of a value, before names are resolved.
    #[derive(Debug)]
    pub enum Target {
        One(SocketAddr),
        Several(Vec<SocketAddr>),
        Name { host: String, port: u16 },
        Invalid(&'static str),
    }

    pub trait ToTarget {
        fn to_target(&self) -> Target;
    }
}

macro_rules! one_address {
    ($($type:ty,)+) => { $(
        impl ToSocketAddrs for $type {}

        impl sealed::ToTarget for $type {
            fn to_target(&self) -> Target {
                Target::One(SocketAddr::from(*self))
            }
        }
    )+ };
}

one_address! {
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16),
    ([u8; 4], u16),
    ([u8; 16], u16),
    ([u16; 8], u16),
}

impl ToSocketAddrs for &[SocketAddr] {}

impl sealed::ToTarget for &[SocketAddr] {
    fn to_target(&self) -> Target {
        Target::Several(self.to_vec())
    }
}

impl ToSocketAddrs for str {}

impl sealed::ToTarget for str {
    fn to_target(&self) -> Target {
        if let Ok(address) = self.parse() {
            return Target::One(address);
        }
        let Some((host, port)) = self.rsplit_once(':') else {
            return Target::Invalid("invalid socket address: expected HOST:PORT");
        };
        match port.parse() {
            Ok(port) => (host, port).to_target(),
            Err(_) => Target::Invalid("invalid port: expected a number from 0 to 65535"),
        }
    }
}

impl ToSocketAddrs for (&str, u16) {}

impl sealed::ToTarget for (&str, u16) {
    fn to_target(&self) -> Target {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(address) => Target::One((address, port).into()),
            Err(_) => Target::Name { host: host.to_owned(), port },
        }
    }
}

impl ToSocketAddrs for (String, u16) {}

impl sealed::ToTarget for (String, u16) {
    fn to_target(&self) -> Target {
        (&*self.0, self.1).to_target()
    }
}

impl ToSocketAddrs for String {}

impl sealed::ToTarget for String {
    fn to_target(&self) -> Target {
        (**self).to_target()
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {}

impl<T: sealed::ToTarget + ?Sized> sealed::ToTarget for &T {
    fn to_target(&self) -> Target {
        (**self).to_target()
    }
}

/// The future of [`Resolver::resolve`].
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves names for `bind`, `connect` and [`lookup_host`](crate::lookup_host): see [`NetBuilder::resolver`](crate::NetBuilder::resolver).
///
/// A function that returns a future is one.
pub trait Resolver: Send + Sync + 'static {
    /// Returns the addresses of `host`. `host` is not an address.
    ///
    /// They are tried in the order of RFC 6724 §6, which depends on the addresses and routes of the network: those that it
    /// can reach come first, then IPv6 before IPv4, and private IPv6 last. Equal ones keep the order of the resolver.
    ///
    /// Dropping the future abandons the request.
    fn resolve(&self, host: String) -> Resolving;
}

impl<F, A> Resolver for F
where
    F: Fn(String) -> A + Send + Sync + 'static,
    A: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
{
    fn resolve(&self, host: String) -> Resolving {
        Box::pin(self(host))
    }
}

/// The resolver of the system (`getaddrinfo`), which a network has by default. It takes a thread of the runtime for
/// blocking calls. Its packets go through the system, not through the network of the program.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: String) -> Resolving {
        Box::pin(async {
            let lookup = move || std::net::ToSocketAddrs::to_socket_addrs(&(&*host, 0));
            let addresses = tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)??;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// The resolver of a network.
#[derive(Clone)]
pub(crate) struct Names(Arc<dyn Resolver>);

impl Names {
    pub(crate) fn new(resolver: impl Resolver) -> Names {
        Names(Arc::new(resolver))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// Returns the addresses of a target, in the order in which they are tried. `sort` sorts those of a name.
pub(crate) async fn resolve(
    names: &Names,
    target: Target,
    sort: impl FnOnce(&mut [IpAddr]),
) -> io::Result<Addresses> {
    match target {
        Target::One(address) => Ok(Addresses::One(Some(address))),
        Target::Several(addresses) => Ok(Addresses::Several(addresses.into_iter())),
        Target::Name { host, port } => {
            let mut found = names.0.resolve(host).await?;
            sort(&mut found);
            let ends: Vec<_> = found.into_iter().map(|address| SocketAddr::new(address, port)).collect();
            Ok(Addresses::Several(ends.into_iter()))
        }
        Target::Invalid(text) => Err(io::Error::new(io::ErrorKind::InvalidInput, text)),
    }
}

/// The addresses to try.
pub(crate) enum Addresses {
    One(Option<SocketAddr>),
    Several(std::vec::IntoIter<SocketAddr>),
}

impl Iterator for Addresses {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        match self {
            Addresses::One(address) => address.take(),
            Addresses::Several(addresses) => addresses.next(),
        }
    }
}

/// The error of a call whose argument names no address.
pub(crate) fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "no address: the list or the resolver's answer is empty")
}
