//! Configures a network interface over rtnetlink.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::time::Instant;

/// A network interface of the kernel.
pub(crate) struct Link {
    handle: Handle,
    index: u32,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
}

impl Link {
    /// Looks up the interface called `name` in the network namespace of this thread.
    pub(crate) async fn open(name: &str) -> io::Result<Link> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let mut found = handle.link().get().match_name(name.to_owned()).execute();
        let link = found.try_next().await.map_err(into_io)?.ok_or(io::ErrorKind::NotFound)?;
        let mtu = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok(Link {
            handle,
            index: link.header.index,
            mtu: mtu.unwrap_or(1500),
            up: link.header.flags.contains(LinkFlags::Up),
        })
    }

    pub(crate) async fn set_mtu(&mut self, mtu: u16) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(self.index).mtu(mtu.into()).build();
        self.handle.link().set(message).execute().await.map_err(into_io)?;
        self.mtu = mtu.into();
        Ok(())
    }

    pub(crate) async fn set_queue_len(&self, packets: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(self.index).txqueuelen(packets).build();
        self.handle.link().set(message).execute().await.map_err(into_io)
    }

    pub(crate) async fn set_up(&mut self) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(self.index).up().build();
        self.handle.link().set(message).execute().await.map_err(into_io)?;
        self.up = true;
        Ok(())
    }

    /// Adds an address to the interface. The kernel accepts packets for it when this returns.
    pub(crate) async fn add_address(&self, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let mut request = self.handle.address().add(self.index, address, prefix_len).replace();
        if address.is_ipv6() {
            // The link has no other host. Without the flag, the kernel may refuse to bind to the address during DAD.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(into_io)?;
        self.wait_until_local(address).await
    }

    /// Waits until the kernel delivers packets to `address`. An IPv6 address enters the routing table only after the
    /// request was acknowledged, and until then packets to it are dropped.
    async fn wait_until_local(&self, address: IpAddr) -> io::Result<()> {
        let deadline = Instant::now() + ADDRESS_LIMIT;
        while !self.is_local(address).await? {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer to it"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn is_local(&self, address: IpAddr) -> io::Result<bool> {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let lookup =
            RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, whole).map_err(invalid)?;
        let mut found = self.handle.route().get(lookup.build()).execute();
        // An error means that there is no route yet.
        let route = found.try_next().await.ok().flatten();
        Ok(route.is_some_and(|route| route.header.kind == RouteType::Local))
    }

    pub(crate) async fn add_route(&self, network: IpAddr, prefix_len: u8) -> io::Result<()> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(network, prefix_len)
            .map_err(invalid)?
            .output_interface(self.index)
            .build();
        self.handle.route().add(route).replace().execute().await.map_err(into_io)
    }
}

/// Longest time that a new address may take to enter the routing table.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
