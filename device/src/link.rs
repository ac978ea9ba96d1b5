//! Setting up a network interface over rtnetlink.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

/// A network interface, as the kernel knows it.
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

    pub(crate) async fn add_address(&self, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let mut request = self.handle.address().add(self.index, address, prefix_len).replace();
        if address.is_ipv6() {
            // Nobody else is on this link; without the flag the kernel may not bind to the address for a moment.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(into_io)
    }

    pub(crate) async fn add_route(&self, network: IpAddr, prefix_len: u8) -> io::Result<()> {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(network, prefix_len)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?
            .output_interface(self.index)
            .build();
        self.handle.route().add(route).replace().execute().await.map_err(into_io)
    }
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
