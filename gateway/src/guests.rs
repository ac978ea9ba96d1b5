//! The settings of guests behind a device with hardware addresses: DHCP and advertisements of a router.

use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use steadfast::device::HardwareAddress;
use steadfast::stack::RouterAdvertisement;
use steadfast::stack::wire::ndp::Prefix;
use steadfast::{InterfaceId, Net};
use tokio::task::JoinSet;

use crate::servers::Dns;
use crate::shared::Shared;
use crate::subnet::Subnet;
use crate::{dhcp4, dhcp6};

/// Seconds for which a router, and its prefixes, are used without another advertisement (RFC 4861 §6.2.1).
const ROUTER_LIFETIME: u16 = 1800;
const PREFIX_VALID: u32 = 86_400;
const PREFIX_PREFERRED: u32 = 14_400;

/// Serves guests of a device whose end has this hardware address.
pub(crate) fn serve(
    net: &Net,
    hardware: HardwareAddress,
    mtu: u16,
    shared: &Arc<Shared>,
    services: &mut JoinSet<()>,
) -> io::Result<()> {
    let subnet = shared.subnet;
    let names = !matches!(shared.dns, Dns::None);
    let v4 = |address: IpAddr| if let IpAddr::V4(v4) = address { Some(v4) } else { None };
    let v6 = |address: IpAddr| if let IpAddr::V6(v6) = address { Some(v6) } else { None };
    let dns = || subnet.dns().filter(move |_| names);
    if let Some(gateway) = subnet.gateway().find_map(v4) {
        let settings = dhcp4::Settings { subnet, gateway, dns: dns().find_map(v4), mtu };
        services.spawn(dhcp4::serve(dhcp4::bind(net)?, settings, shared.clone()));
    }
    if let Some(prefix) = subnet.v6 {
        let dns = dns().find_map(v6);
        net.advertise(InterfaceId::FIRST, Some(advertisement(prefix, dns)))?;
        let settings = dhcp6::Settings { prefix, dns, hardware, key: RandomState::new() };
        services.spawn(dhcp6::serve(dhcp6::bind(net)?, settings, shared.clone()));
    }
    Ok(())
}

fn advertisement(prefix: Ipv6Addr, dns: Option<Ipv6Addr>) -> RouterAdvertisement {
    let mut advertisement = RouterAdvertisement::default();
    let router = &mut advertisement.router;
    (router.hop_limit, router.managed, router.other) = (64, true, true);
    router.lifetime = ROUTER_LIFETIME;
    advertisement.prefixes.push(Prefix {
        prefix,
        len: Subnet::V6_LEN,
        on_link: true,
        autonomous: true,
        valid: PREFIX_VALID,
        preferred: PREFIX_PREFERRED,
    });
    advertisement.dns.extend(dns);
    advertisement
}
