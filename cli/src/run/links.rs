//! The links of the new network namespace, beside the device itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RulePortRange};
use rtnetlink::{Handle, IpVersion, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use steadfast_gateway::Subnet;

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Brings `lo` up, which gives it its addresses.
pub(super) async fn bring_up_loopback() -> io::Result<()> {
    let handle = connect()?;
    let message = LinkUnspec::new_with_index(LOOPBACK).up().build();
    handle.link().set(message).execute().await.map_err(into_io)
}

fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Makes a pair of virtual Ethernet devices: `far` in this namespace, which is new, without addresses, and `near` in
/// another one. A device that was made here and moved there would cost a grace period of the kernel.
pub(super) async fn make_pair(far: &str, near: &str, namespace: &impl AsRawFd) -> io::Result<()> {
    // The stack is the only host there.
    for (name, value) in [("disable_ipv6", "1"), ("addr_gen_mode", "1")] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/default/{name}"), value);
    }
    let near = LinkMessageBuilder::<LinkUnspec>::new().name(near.to_owned());
    let near = InfoVeth::Peer(near.setns_by_fd(namespace.as_raw_fd()).build());
    let far = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(far.to_owned());
    let pair = far.set_info_data(InfoData::Veth(near)).up().build();
    connect()?.link().add(pair).execute().await.map_err(into_io)
}

/// Gives a device the addresses of a guest and routes by the gateway. Without `offload` the kernel sends no
/// super-segments.
pub(super) async fn configure(device: &str, subnet: &Subnet, mtu: u16, offload: bool) -> io::Result<()> {
    let handle = connect()?;
    let index = index(&handle, device).await?;
    let mut message = LinkUnspec::new_with_index(index).mtu(mtu.into()).up();
    if !offload {
        message = message.append_extra_attribute(LinkAttribute::GsoMaxSegs(1));
    }
    handle.link().set(message.build()).execute().await.map_err(into_io)?;
    for address in subnet.guest() {
        let mut request = handle.address().add(index, address, Subnet::prefix_len(address));
        // No other host has it.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(into_io)?;
    }
    for gateway in subnet.gateway() {
        let route = match gateway {
            IpAddr::V4(gateway) => {
                RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).gateway(gateway).build()
            }
            IpAddr::V6(gateway) => {
                RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).gateway(gateway).build()
            }
        };
        handle.route().add(route).execute().await.map_err(into_io)?;
    }
    Ok(())
}

async fn index(handle: &Handle, device: &str) -> io::Result<u32> {
    let mut found = handle.link().get().match_name(device.to_owned()).execute();
    let link = found.try_next().await.map_err(into_io)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(link.header.index)
}

/// A table of ours, and its place among the rules: before that of local addresses, which moves behind it.
const TABLE: u32 = 100;
const BEFORE: u32 = 10;
const LOCAL: u32 = 20;

/// Routes TCP connections to these ports of 127.0.0.1 into `device`, from an address of it. On Ethernet nobody answers
/// for 127.0.0.1, so that the next hop is the gateway.
pub(super) async fn divert_localhost(
    device: &str,
    source: Ipv4Addr,
    gateway: Ipv4Addr,
    ports: &[u16],
) -> io::Result<()> {
    let handle = connect()?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(index(&handle, device).await?)
        .gateway(gateway)
        .pref_source(source)
        .table_id(TABLE)
        .build();
    handle.route().add(route).execute().await.map_err(into_io)?;
    for port in ports {
        let mut rule = handle.rule().add().v4().priority(BEFORE).table_id(TABLE).action(RuleAction::ToTable);
        let message = rule.message_mut();
        message.header.dst_len = 32;
        message.attributes.extend([
            // Packets of this host alone.
            RuleAttribute::Iifname("lo".to_owned()),
            RuleAttribute::Destination(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            RuleAttribute::IpProtocol(IpProtocol::Tcp),
            RuleAttribute::DestinationPortRange(RulePortRange { start: *port, end: *port }),
        ]);
        rule.execute().await.map_err(into_io)?;
    }
    move_local_rule(&handle).await
}

/// The rule of local addresses has the first place. A copy of it goes behind ours before it is removed.
async fn move_local_rule(handle: &Handle) -> io::Result<()> {
    const RT_TABLE_LOCAL: u8 = 255;
    let copy = handle.rule().add().v4().priority(LOCAL).table_id(RT_TABLE_LOCAL.into());
    copy.action(RuleAction::ToTable).execute().await.map_err(into_io)?;
    let mut rules = handle.rule().get(IpVersion::V4).execute();
    while let Some(rule) = rules.try_next().await.map_err(into_io)? {
        let later = rule.attributes.iter().any(|a| matches!(a, RuleAttribute::Priority(at) if *at > 0));
        if rule.header.table == RT_TABLE_LOCAL && !later {
            return handle.rule().del(rule).execute().await.map_err(into_io);
        }
    }
    Ok(())
}

pub(super) fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
