//! DHCP for IPv6 (RFC 8415): addresses of the subnet for guests that ask for them, and the server of names.
//!
//! An address follows from the client's identifier, so that it stays the same without a record of it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use steadfast::device::HardwareAddress;
use steadfast::{Net, UdpSocket};

use crate::counters::count;
use crate::shared::{Shared, receive};

const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;

/// All servers and relays of the link.
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;

const OPTION_CLIENT: u16 = 1;
const OPTION_SERVER: u16 = 2;
const OPTION_ADDRESSES: u16 = 3;
const OPTION_ADDRESS: u16 = 5;
const OPTION_RAPID: u16 = 14;
const OPTION_DNS: u16 = 23;

/// Seconds for which an address is preferred and valid.
const PREFERRED: u32 = 43_200;
const VALID: u32 = 86_400;

/// The fields of a client's message that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Message<'a> {
    kind: u8,
    transaction: [u8; 3],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    /// The identifier of the first association of addresses.
    association: Option<[u8; 4]>,
    rapid: bool,
}

/// Reads a client's message. `None`: it is none, or its options are malformed.
fn parse(bytes: &[u8]) -> Option<Message<'_>> {
    let (&[kind, a, b, c], mut options) = bytes.split_first_chunk::<4>()?;
    let mut message = Message { kind, transaction: [a, b, c], ..Message::default() };
    while !options.is_empty() {
        let (&[k0, k1, l0, l1], rest) = options.split_first_chunk::<4>()?;
        let (body, rest) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        options = rest;
        match u16::from_be_bytes([k0, k1]) {
            // A unique identifier has at most 130 bytes (RFC 8415 §11.1).
            OPTION_CLIENT if (3..=130).contains(&body.len()) => message.client = Some(body),
            OPTION_CLIENT => return None,
            OPTION_SERVER => message.server = Some(body),
            OPTION_ADDRESSES => message.association = message.association.or(Some(*body.first_chunk()?)),
            OPTION_RAPID => message.rapid = true,
            _ => {}
        }
    }
    Some(message)
}

/// The settings that guests are told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) prefix: Ipv6Addr,
    pub(crate) dns: Option<Ipv6Addr>,
    pub(crate) hardware: HardwareAddress,
    pub(crate) key: RandomState,
}

impl Settings {
    /// Our unique identifier: the hardware address of Ethernet (RFC 8415 §11.4).
    fn identifier(&self) -> Vec<u8> {
        [&[0, 3, 0, 1][..], &self.hardware.0].concat()
    }

    /// The address of a client: of the upper half of the interface identifiers, so that none of ours is among them.
    fn address(&self, client: &[u8], association: [u8; 4]) -> Ipv6Addr {
        let host = self.key.hash_one((client, association)) | 1 << 63;
        Ipv6Addr::from_bits(self.prefix.to_bits() & !u128::from(u64::MAX) | u128::from(host))
    }

    /// Returns the answer to a message, if it draws one (RFC 8415 §16, §18.3).
    fn answer(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        let ours = message.server.map(|server| server == self.identifier());
        let kind = match message.kind {
            SOLICIT if ours.is_none() && message.rapid => REPLY,
            SOLICIT if ours.is_none() => ADVERTISE,
            CONFIRM | REBIND if ours.is_none() => REPLY,
            REQUEST | RENEW | RELEASE | DECLINE if ours == Some(true) => REPLY,
            INFORMATION if ours != Some(false) => REPLY,
            _ => return None,
        };
        let client = match message.client {
            None if message.kind != INFORMATION => return None,
            client => client,
        };
        let mut bytes = vec![kind];
        bytes.extend(message.transaction);
        let mut option = |kind: u16, body: &[u8]| {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((body.len() as u16).to_be_bytes());
            bytes.extend(body);
        };
        client.into_iter().for_each(|client| option(OPTION_CLIENT, client));
        option(OPTION_SERVER, &self.identifier());
        let gives = matches!(message.kind, SOLICIT | REQUEST | RENEW | REBIND);
        if gives && let (Some(client), Some(association)) = (client, message.association) {
            let mut body = association.to_vec();
            body.extend((PREFERRED / 2).to_be_bytes());
            body.extend((PREFERRED / 5 * 4).to_be_bytes());
            body.extend(OPTION_ADDRESS.to_be_bytes());
            body.extend(24_u16.to_be_bytes());
            body.extend(self.address(client, association).octets());
            body.extend(PREFERRED.to_be_bytes());
            body.extend(VALID.to_be_bytes());
            option(OPTION_ADDRESSES, &body);
        }
        if message.kind == SOLICIT && message.rapid {
            option(OPTION_RAPID, &[]);
        }
        if let Some(dns) = self.dns {
            option(OPTION_DNS, &dns.octets());
        }
        Some(bytes)
    }
}

/// Hears the guests of the first interface.
pub(crate) fn bind(net: &Net) -> io::Result<UdpSocket> {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), SERVER_PORT);
    let socket = UdpSocket::bind_with(net, any, |options| options.only_v6 = true)?;
    socket.join_multicast_v6(&ALL_SERVERS, 1)?;
    Ok(socket)
}

pub(crate) async fn serve(socket: UdpSocket, settings: Settings, shared: Arc<Shared>) {
    let mut buffer = vec![0; 1500];
    while let Some((len, from)) = receive(&socket, &mut buffer).await {
        let Some(message) = parse(&buffer[..len]) else {
            count(&shared.counts.dhcp_invalid);
            continue;
        };
        let is_link_local = matches!(from.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        if let Some(answer) = settings.answer(&message).filter(|_| is_link_local) {
            count(&shared.counts.dhcp_answers);
            // It fails if the guest is gone.
            let _ = socket.send_to(&answer, (from.ip(), CLIENT_PORT)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 9];

    fn settings() -> Settings {
        Settings {
            prefix: "fd73:7465:6164::".parse().unwrap(),
            dns: "fd73:7465:6164::3".parse().ok(),
            hardware: HardwareAddress([2, 0, 0, 0, 0, 1]),
            key: RandomState::new(),
        }
    }

    fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![kind, 1, 2, 3];
        for (option, body) in options {
            bytes.extend(option.to_be_bytes());
            bytes.extend((body.len() as u16).to_be_bytes());
            bytes.extend(*body);
        }
        bytes
    }

    /// The kind of the answer, and the address in it.
    fn read(settings: &Settings, bytes: &[u8]) -> Option<(u8, Option<Ipv6Addr>)> {
        let answer = settings.answer(&parse(bytes).unwrap())?;
        let parsed = parse(&answer).unwrap();
        assert_eq!((parsed.transaction, parsed.client), ([1, 2, 3], Some(&CLIENT[..])));
        assert_eq!(parsed.server, Some(&settings.identifier()[..]));
        let head = OPTION_ADDRESS.to_be_bytes();
        let at = answer.windows(4).position(|four| four == [head[0], head[1], 0, 24]);
        let address = at.and_then(|at| answer[at + 4..].first_chunk::<16>());
        Some((parsed.kind, address.map(|octets| Ipv6Addr::from(*octets))))
    }

    #[test]
    fn a_client_gets_the_same_address_each_time_and_another_one_another() {
        let settings = settings();
        let association = [&[0, 0, 0, 7][..], &[0; 8]].concat();
        let client = (OPTION_CLIENT, &CLIENT[..]);
        let solicit = message(SOLICIT, &[client, (OPTION_ADDRESSES, &association)]);
        let (kind, address) = read(&settings, &solicit).unwrap();
        let address = address.unwrap();
        assert_eq!((kind, address.segments()[0], address.segments()[4] >> 15), (ADVERTISE, 0xfd73, 1));
        let server = settings.identifier();
        for (kind, with_server) in [(REQUEST, true), (RENEW, true), (REBIND, false)] {
            let server = with_server.then_some((OPTION_SERVER, &server[..]));
            let options = [client, (OPTION_ADDRESSES, &association[..])];
            let options: Vec<_> = options.into_iter().chain(server).collect();
            assert_eq!(read(&settings, &message(kind, &options)), Some((REPLY, Some(address))));
        }
        let rapid = message(SOLICIT, &[client, (OPTION_ADDRESSES, &association), (OPTION_RAPID, &[])]);
        assert_eq!(read(&settings, &rapid), Some((REPLY, Some(address))));
        assert_ne!(settings.address(b"other", [0, 0, 0, 7]), address);
    }

    #[test]
    fn a_stateless_client_hears_of_the_server_of_names() {
        let settings = settings();
        let bytes = message(INFORMATION, &[(OPTION_CLIENT, &CLIENT)]);
        let answer = settings.answer(&parse(&bytes).unwrap()).unwrap();
        assert!(answer.ends_with(&settings.dns.unwrap().octets()));
        assert_eq!(read(&settings, &bytes), Some((REPLY, None)));
    }

    #[test]
    fn messages_for_another_server_or_of_a_wrong_form_draw_no_answer() {
        let settings = settings();
        let client = (OPTION_CLIENT, &CLIENT[..]);
        let other = (OPTION_SERVER, &b"other"[..]);
        for bytes in [
            message(REQUEST, &[client, other]),
            message(REQUEST, &[client]),
            message(SOLICIT, &[client, other]),
            message(SOLICIT, &[]),
            message(REPLY, &[client]),
            message(INFORMATION, &[other]),
        ] {
            assert_eq!(settings.answer(&parse(&bytes).unwrap()), None, "{bytes:?}");
        }
        let sound = message(SOLICIT, &[client]);
        assert!((5..sound.len()).all(|len| parse(&sound[..len]).is_none()));
        assert_eq!(parse(&message(SOLICIT, &[(OPTION_CLIENT, &[0; 131])])), None);
        assert_eq!(parse(&message(SOLICIT, &[(OPTION_ADDRESSES, &[0; 3])])), None);
    }
}
