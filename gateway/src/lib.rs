//! A gateway between a network behind a device and the network of this machine.
//!
//! The hosts behind the device, called guests, are a network namespace, a container or a virtual machine. The gateway
//! terminates their connections with its own TCP and dials on their behalf with sockets of the kernel. It needs no
//! privilege, no route and no address of the machine.
//!
//! A guest sees of each destination what the machine sees: refused is refused, unreachable is unreachable, silence is
//! silence, and resets pass in both directions. Nothing is answered before the dial is decided.
//!
//! ```
//! use steadfast::{Net, TcpStream, device};
//! use steadfast_gateway::Gateway;
//! use tokio::io::AsyncReadExt;
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A server of this machine. By default its loopback addresses are closed to guests.
//! let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let port = server.local_addr()?.port();
//! let (outside, inside) = device::memory::pair(1500);
//! let gateway = Gateway::builder().rule(format!("allow 127.0.0.1:{port}").parse()?).start(outside).await?;
//!
//! let guest = Net::builder().address([10, 0, 2, 15], 24).start(inside)?;
//! let mut stream = TcpStream::connect(&guest, ("10.0.2.4", port)).await?;
//! server.accept().await?.0.write_all(b"hold fast").await?;
//! let mut text = String::new();
//! stream.read_to_string(&mut text).await?;
//! assert_eq!(text, "hold fast");
//! # drop(stream);
//! # gateway.close(std::time::Duration::from_secs(1)).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod associate;
mod clients;
mod counters;
mod dhcp4;
mod dhcp6;
mod dns;
mod echo;
mod errors;
mod flows;
mod forwards;
mod gateway;
mod guests;
mod localhost;
mod malformed;
mod names;
mod proxy;
mod rules;
mod servers;
mod shared;
mod sockets;
mod subnet;
mod tcp;
mod udp;
mod upstream;

pub use counters::Counters;
pub use flows::Flow;
pub use forwards::Forward;
pub use gateway::{Gateway, GatewayBuilder};
pub use malformed::Malformed;
pub use proxy::Proxy;
pub use rules::{Action, Rule, Rules};
pub use servers::Dns;
pub use subnet::Subnet;
