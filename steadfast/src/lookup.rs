//! Names, looked up by a program.

use std::io;
use std::net::SocketAddr;

use crate::addr::ToSocketAddrs;
use crate::net::Net;

/// Resolves a name with the resolver of a network, as `tokio::net::lookup_host` does with that of the system. The addresses
/// of a name are in the order in which `connect` tries them: see [`Resolver`](crate::Resolver::resolve).
///
/// # Errors
///
/// - `InvalidInput`: the text is not of the form `HOST:PORT`.
/// - The resolver's error.
///
/// # Cancel safety
///
/// Dropping the future abandons the lookup.
///
/// ```
/// use std::io;
///
/// use steadfast::{Net, device, lookup_host};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> io::Result<()> {
/// let (device, _other_end) = device::memory::pair(1500);
/// let resolver = |host: String| async move {
///     match &*host {
///         "server.test" => Ok(vec![[10, 9, 0, 2].into()]),
///         _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("{host}: no such host"))),
///     }
/// };
/// let net = Net::builder().address([10, 9, 0, 1], 24).resolver(resolver).start(device)?;
/// let found: Vec<_> = lookup_host(&net, "server.test:80").await?.collect();
/// assert_eq!(found, ["10.9.0.2:80".parse().unwrap()]);
/// # Ok(())
/// # }
/// ```
pub fn lookup_host<T: ToSocketAddrs>(
    net: &Net,
    host: T,
) -> impl Future<Output = io::Result<impl Iterator<Item = SocketAddr> + Send + use<T>>> + Send + 'static + use<T>
{
    let (net, target) = (net.clone(), host.to_target());
    async move { net.resolve(target).await }
}
