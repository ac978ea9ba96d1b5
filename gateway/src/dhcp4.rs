//! DHCP for IPv4 (RFC 2131): every guest gets an address of the subnet, the gateway, and the server of names.
//!
//! A lease is bound to the hardware address, so that a guest that asks again, or starts anew, gets the same address.
//! Answers to guests that have no address yet are broadcast, which any client understands.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use steadfast::device::HardwareAddress;
use steadfast::{Net, UdpSocket};
use tokio::time::Instant;

use crate::counters::count;
use crate::shared::{Shared, receive};
use crate::subnet::Subnet;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// The time for which a guest may use its address.
pub(crate) const LEASE: Duration = Duration::from_secs(86_400);
/// The time for which an address that was offered waits for its request.
const OFFER: Duration = Duration::from_secs(60);

/// Length of the fixed fields, with the magic cookie behind them.
const FIXED: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Messages are at least this long (RFC 951), for the sake of old clients.
const SHORTEST: usize = 300;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;

const OPTION_MASK: u8 = 1;
const OPTION_ROUTER: u8 = 3;
const OPTION_DNS: u8 = 6;
const OPTION_MTU: u8 = 26;
const OPTION_REQUESTED: u8 = 50;
const OPTION_LEASE: u8 = 51;
const OPTION_KIND: u8 = 53;
const OPTION_SERVER: u8 = 54;
const OPTION_END: u8 = 255;

const DISCOVER: u8 = 1;
const OFFERED: u8 = 2;
const REQUESTED: u8 = 3;
const DECLINED: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASED: u8 = 7;
const INFORM: u8 = 8;

/// The fields of a client's message that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    kind: u8,
    transaction: [u8; 4],
    flags: [u8; 2],
    /// The address that the client has and answers to.
    client: Ipv4Addr,
    hardware: HardwareAddress,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

/// Reads a client's message. `None`: it is none, or has a hardware address of another kind than Ethernet's.
fn parse(bytes: &[u8]) -> Option<Message> {
    let (fixed, mut options) = bytes.split_first_chunk::<FIXED>()?;
    let sound = fixed[..3] == [REQUEST, 1, 6] && fixed[236..] == COOKIE;
    // Relays stand before other networks, which are not behind a device of ours.
    let relayed = fixed[24..28] != [0; 4];
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
    let hardware = HardwareAddress(*fixed[28..].first_chunk()?);
    let mut message = Message {
        kind: 0,
        transaction: *fixed[4..].first_chunk()?,
        flags: *fixed[10..].first_chunk()?,
        client: address(12),
        hardware,
        requested: None,
        server: None,
    };
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            0 => options = rest,
            OPTION_END => break,
            _ => {
                let (&len, rest) = rest.split_first()?;
                let (body, rest) = rest.split_at_checked(len.into())?;
                options = rest;
                let address =
                    || body.first_chunk::<4>().filter(|_| body.len() == 4).map(|b| Ipv4Addr::from(*b));
                match kind {
                    OPTION_KIND => message.kind = *body.first()?,
                    OPTION_REQUESTED => message.requested = Some(address()?),
                    OPTION_SERVER => message.server = Some(address()?),
                    _ => {}
                }
            }
        }
    }
    (sound && !relayed && hardware.is_unicast() && message.kind != 0).then_some(message)
}

/// The settings that guests are told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) subnet: Subnet,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) dns: Option<Ipv4Addr>,
    pub(crate) mtu: u16,
}

impl Settings {
    /// Returns an answer of this kind, with an address unless it is [`Ipv4Addr::UNSPECIFIED`].
    fn answer(&self, to: &Message, kind: u8, address: Ipv4Addr) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[REPLY, 1, 6]);
        bytes[4..8].copy_from_slice(&to.transaction);
        bytes[10..12].copy_from_slice(&to.flags);
        if kind != NAK {
            bytes[12..16].copy_from_slice(&to.client.octets());
            bytes[16..20].copy_from_slice(&address.octets());
        }
        bytes[28..34].copy_from_slice(&to.hardware.0);
        bytes[236..].copy_from_slice(&COOKIE);
        let mut option = |kind: u8, body: &[u8]| {
            bytes.extend([kind, body.len() as u8]);
            bytes.extend(body);
        };
        option(OPTION_KIND, &[kind]);
        option(OPTION_SERVER, &self.gateway.octets());
        if kind != NAK {
            if !address.is_unspecified() {
                option(OPTION_LEASE, &(LEASE.as_secs() as u32).to_be_bytes());
            }
            option(OPTION_MASK, &(u32::MAX << (32 - Subnet::V4_LEN)).to_be_bytes());
            option(OPTION_ROUTER, &self.gateway.octets());
            self.dns.into_iter().for_each(|dns| option(OPTION_DNS, &dns.octets()));
            option(OPTION_MTU, &self.mtu.to_be_bytes());
        }
        bytes.push(OPTION_END);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    address: Ipv4Addr,
    until: Instant,
}

/// The leases: at most one for each address of the subnet that is free for guests.
#[derive(Debug, Default)]
struct Leases(BTreeMap<HardwareAddress, Lease>);

impl Leases {
    /// Returns the address of a guest: the one that it has, the one that it wishes, or another one. `None`: all are taken.
    fn offer(
        &mut self,
        now: Instant,
        settings: &Settings,
        guest: HardwareAddress,
        wish: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        if let Some(lease) = self.0.get_mut(&guest) {
            lease.until = lease.until.max(now + OFFER);
            return Some(lease.address);
        }
        let free =
            |address: &Ipv4Addr| self.0.values().all(|lease| lease.address != *address || lease.until <= now);
        let range = settings.subnet.leases();
        let wish = wish.filter(|wish| range.contains(&wish.to_bits()));
        let address = wish.filter(free).or_else(|| range.map(Ipv4Addr::from_bits).find(free))?;
        // Whoever had it before has let it expire.
        self.0.retain(|_, lease| lease.address != address);
        self.0.insert(guest, Lease { address, until: now + OFFER });
        Some(address)
    }

    /// Returns the answer to a message, and whether it goes to all.
    fn answer(&mut self, now: Instant, settings: &Settings, message: &Message) -> Option<Vec<u8>> {
        let guest = message.hardware;
        // The request of an offer that another server made.
        let ours = message.server.is_none_or(|server| server == settings.gateway);
        match message.kind {
            DISCOVER => {
                let address = self.offer(now, settings, guest, message.requested)?;
                Some(settings.answer(message, OFFERED, address))
            }
            REQUESTED if !ours => {
                self.0.remove(&guest);
                None
            }
            REQUESTED => {
                let wish = message.requested.unwrap_or(message.client);
                if self.offer(now, settings, guest, Some(wish)) != Some(wish) {
                    return Some(settings.answer(message, NAK, Ipv4Addr::UNSPECIFIED));
                }
                self.0.insert(guest, Lease { address: wish, until: now + LEASE });
                Some(settings.answer(message, ACK, wish))
            }
            INFORM => Some(settings.answer(message, ACK, Ipv4Addr::UNSPECIFIED)),
            DECLINED | RELEASED if ours => {
                self.0.remove(&guest);
                None
            }
            _ => None,
        }
    }
}

/// Serves the guests behind a device with hardware addresses.
pub(crate) fn bind(net: &Net) -> io::Result<UdpSocket> {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), SERVER_PORT);
    UdpSocket::bind_with(net, any, |options| options.broadcast = true)
}

pub(crate) async fn serve(socket: UdpSocket, settings: Settings, shared: Arc<Shared>) {
    let mut leases = Leases::default();
    let mut buffer = vec![0; 1500];
    while let Some((len, from)) = receive(&socket, &mut buffer).await {
        let Some(message) = parse(&buffer[..len]) else {
            count(&shared.counts.dhcp_invalid);
            continue;
        };
        let Some(answer) = leases.answer(Instant::now(), &settings, &message) else { continue };
        count(&shared.counts.dhcp_answers);
        // A guest that has an address gets the answer there (RFC 2131 §4.1).
        let has_address = !message.client.is_unspecified() && from.ip() == IpAddr::V4(message.client);
        let to = if has_address { message.client } else { Ipv4Addr::BROADCAST };
        // It fails if the device is gone, or the guest does not take it: the guest asks again.
        let _ = socket.send_to(&answer, (to, CLIENT_PORT)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 9]);

    fn settings() -> Settings {
        let subnet = Subnet::default();
        Settings {
            subnet,
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: Some(Ipv4Addr::new(10, 0, 2, 3)),
            mtu: 1500,
        }
    }

    fn message(kind: u8, hardware: HardwareAddress) -> Message {
        Message {
            kind,
            transaction: [1, 2, 3, 4],
            flags: [0, 0],
            client: Ipv4Addr::UNSPECIFIED,
            hardware,
            requested: None,
            server: None,
        }
    }

    fn bytes(message: &Message) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[REQUEST, 1, 6]);
        bytes[4..8].copy_from_slice(&message.transaction);
        bytes[12..16].copy_from_slice(&message.client.octets());
        bytes[28..34].copy_from_slice(&message.hardware.0);
        bytes[236..].copy_from_slice(&COOKIE);
        bytes.extend([OPTION_KIND, 1, message.kind]);
        for (kind, address) in [(OPTION_REQUESTED, message.requested), (OPTION_SERVER, message.server)] {
            address.into_iter().for_each(|address| {
                bytes.extend([kind, 4]);
                bytes.extend(address.octets());
            });
        }
        bytes.push(OPTION_END);
        bytes
    }

    /// The kind of an answer, and its address.
    fn read(answer: &[u8]) -> (u8, Ipv4Addr) {
        assert_eq!((answer[0], answer.len()), (REPLY, SHORTEST));
        let kind = answer[FIXED + 2];
        (kind, Ipv4Addr::new(answer[16], answer[17], answer[18], answer[19]))
    }

    #[test]
    fn a_guest_gets_an_address_and_keeps_it() {
        let (mut leases, now, settings) = (Leases::default(), Instant::now(), settings());
        let first = Ipv4Addr::new(10, 0, 2, 15);
        let discover = message(DISCOVER, GUEST);
        assert_eq!(parse(&bytes(&discover)), Some(discover.clone()));
        assert_eq!(read(&leases.answer(now, &settings, &discover).unwrap()), (OFFERED, first));
        let request =
            Message { requested: Some(first), server: Some(settings.gateway), ..message(REQUESTED, GUEST) };
        assert_eq!(parse(&bytes(&request)), Some(request.clone()));
        assert_eq!(read(&leases.answer(now, &settings, &request).unwrap()), (ACK, first));
        // Another guest gets another address, and the first one its own after a restart.
        let other = message(DISCOVER, HardwareAddress([2, 0, 0, 0, 0, 10]));
        assert_eq!(read(&leases.answer(now, &settings, &other).unwrap()).1, Ipv4Addr::new(10, 0, 2, 16));
        assert_eq!(read(&leases.answer(now, &settings, &discover).unwrap()).1, first);
        // Who asks for the address of another one, or for one of another network, is told no.
        for wish in [first, Ipv4Addr::new(192, 0, 2, 1), settings.gateway] {
            let thief = Message { requested: Some(wish), ..message(REQUESTED, other.hardware) };
            let (kind, address) = read(&leases.answer(now, &settings, &thief).unwrap());
            assert_eq!((kind, address), (NAK, Ipv4Addr::UNSPECIFIED), "{wish}");
        }
    }

    #[test]
    fn the_leases_are_as_many_as_the_addresses_and_return_when_they_expire() {
        let (mut leases, now, settings) = (Leases::default(), Instant::now(), settings());
        let ask = |leases: &mut Leases, now, number: u32| {
            let [_, _, c, d] = number.to_be_bytes();
            leases.answer(now, &settings, &message(DISCOVER, HardwareAddress([2, 0, 0, 1, c, d])))
        };
        let given = (0..1000).filter(|number| ask(&mut leases, now, *number).is_some()).count();
        let all = settings.subnet.leases().count();
        assert_eq!((given, leases.0.len()), (all, all));
        let later = now + OFFER;
        assert!(ask(&mut leases, later - Duration::from_secs(1), 1001).is_none());
        assert!(ask(&mut leases, later, 1001).is_some());
        assert_eq!(leases.0.len(), all);
        // A guest that releases its address makes room at once.
        let gone = message(RELEASED, *leases.0.keys().next().unwrap());
        assert!(leases.answer(later, &settings, &gone).is_none());
        assert_eq!(leases.0.len(), all - 1);
    }

    #[test]
    fn what_is_no_message_of_a_client_is_nothing() {
        let sound = bytes(&message(DISCOVER, GUEST));
        for len in 0..sound.len() - 1 {
            let parsed = parse(&sound[..len]);
            assert!(parsed.is_none(), "{len}");
        }
        let changed = |at: usize, byte: u8| {
            let mut bytes = sound.clone();
            bytes[at] = byte;
            parse(&bytes)
        };
        // A reply, another kind of hardware, a relay, a group, the cookie, an option past the end.
        for (at, byte) in [(0, REPLY), (1, 6), (2, 16), (24, 10), (28, 3), (236, 0), (FIXED + 1, 200)] {
            assert_eq!(changed(at, byte), None, "byte {at}");
        }
        let mut odd = sound.clone();
        odd.splice(FIXED..FIXED, [OPTION_REQUESTED, 3, 1, 2, 3]);
        assert_eq!(parse(&odd), None);
    }
}
