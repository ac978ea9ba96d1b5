use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::checksum::Sum;
use crate::icmp;

const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const B: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const HARDWARE: Address = Address([2, 0, 0, 0, 0, 9]);

fn reads(source: Ipv6Addr, destination: Ipv6Addr, message: Message, options: &[NdpOption<'_>]) -> bool {
    let bytes = emit(source, destination, &message, options);
    let read = parse(source, destination, HOP_LIMIT, &bytes);
    let same = |(read, there): (Message, Options<'_>)| read == message && there.eq(options.iter().copied());
    read.is_some_and(same)
}

#[test]
fn the_group_of_an_address_is_that_of_rfc_4291() {
    // The example of RFC 4291 §2.7.1.
    let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
    assert_eq!(solicited_node(address), "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
}

#[test]
fn the_bytes_of_a_solicitation_and_of_an_advertisement_are_those_of_rfc_4861() {
    let solicitation = Message::NeighborSolicitation { target: B };
    let bytes = emit(A, B, &solicitation, &[NdpOption::SourceLinkLayer(HARDWARE)]);
    assert_eq!((bytes[0], &bytes[4..8], &bytes[8..24]), (135, &[0; 4][..], &B.octets()[..]));
    assert_eq!(bytes[24..], [1, 1, 2, 0, 0, 0, 0, 9]);
    let advertisement =
        Message::NeighborAdvertisement { target: B, router: true, solicited: false, overrides: true };
    let bytes = emit(B, A, &advertisement, &[NdpOption::TargetLinkLayer(HARDWARE)]);
    assert_eq!((bytes[0], &bytes[4..8]), (136, &[0xa0, 0, 0, 0][..]));
    assert_eq!(bytes[24..], [2, 1, 2, 0, 0, 0, 0, 9]);
    let router = Router { hop_limit: 64, managed: true, lifetime: 1800, ..Router::default() };
    let prefix = Prefix { prefix: A, len: 64, on_link: true, autonomous: true, valid: 7, preferred: 6 };
    let options = [NdpOption::Prefix(prefix), NdpOption::Mtu(1500)];
    let bytes = emit(A, ALL_NODES, &Message::RouterAdvertisement(router), &options);
    assert_eq!(bytes[4..16], [64, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[16..32], [3, 4, 64, 0xc0, 0, 0, 0, 7, 0, 0, 0, 6, 0, 0, 0, 0]);
    assert_eq!(bytes[48..], [5, 1, 0, 0, 0, 0, 5, 0xdc]);
}

#[test]
fn what_fails_a_check_of_rfc_4861_is_nothing() {
    let unspecified = Ipv6Addr::UNSPECIFIED;
    let source = [NdpOption::SourceLinkLayer(HARDWARE)];
    let solicitation = Message::NeighborSolicitation { target: B };
    let bytes = emit(A, B, &solicitation, &source);
    assert!(parse(A, B, HOP_LIMIT, &bytes).is_some());
    assert!(parse(A, B, 254, &bytes).is_none(), "it came through a router");
    assert!(parse(B, B, HOP_LIMIT, &bytes).is_none(), "the checksum covers the addresses");
    for len in 0..bytes.len() {
        assert!(parse(A, B, HOP_LIMIT, &summed(bytes[..len].to_vec(), A, B)).is_none() || len == 24, "{len}");
    }
    let mut code = bytes.clone();
    code[1] = 1;
    assert!(parse(A, B, HOP_LIMIT, &summed(code, A, B)).is_none());
    let mut empty = bytes.clone();
    empty[25] = 0;
    assert!(parse(A, B, HOP_LIMIT, &summed(empty, A, B)).is_none(), "an option of no length");

    assert!(reads(unspecified, solicited_node(B), solicitation, &[]), "a claim");
    assert!(!reads(unspecified, solicited_node(B), solicitation, &source));
    assert!(!reads(unspecified, B, solicitation, &[]));
    assert!(!reads(A, B, Message::NeighborSolicitation { target: ALL_NODES }, &[]));
    let advertisement = |target, solicited| Message::NeighborAdvertisement {
        target,
        router: false,
        solicited,
        overrides: false,
    };
    assert!(reads(B, ALL_NODES, advertisement(B, false), &[]));
    assert!(!reads(B, ALL_NODES, advertisement(B, true), &[]));
    assert!(!reads(B, A, advertisement(ALL_NODES, false), &[]));
    assert!(reads(unspecified, ALL_ROUTERS, Message::RouterSolicitation, &[]));
    assert!(!reads(unspecified, ALL_ROUTERS, Message::RouterSolicitation, &source));
    let router = Message::RouterAdvertisement(Router::default());
    assert!(reads(A, ALL_NODES, router, &source));
    assert!(!reads("2001:db8::1".parse().unwrap(), ALL_NODES, router, &source));
}

#[test]
fn redirects_and_other_messages_are_nothing_here() {
    assert!((133..=137).all(is_ndp) && !is_ndp(132) && !is_ndp(138));
    let mut redirect = vec![0; 40];
    redirect[0] = 137;
    assert!(parse(A, B, HOP_LIMIT, &summed(redirect, A, B)).is_none());
}

/// Makes the checksum of a message right.
fn summed(mut bytes: Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    if bytes.len() >= 4 {
        bytes[2..4].fill(0);
        let mut sum: Sum = icmp::pseudo_header_v6(source, destination, bytes.len()).unwrap();
        sum.add_bytes(&bytes);
        let checksum = sum.finish().to_be_bytes();
        bytes[2..4].copy_from_slice(&checksum);
    }
    bytes
}

#[derive(Clone, Debug)]
enum Owned {
    Plain(NdpOption<'static>),
    Dns(u32, Vec<u8>),
    Other(u8, Vec<u8>),
}

impl Owned {
    fn borrowed(&self) -> NdpOption<'_> {
        match self {
            Owned::Plain(option) => *option,
            Owned::Dns(lifetime, servers) => NdpOption::Dns { lifetime: *lifetime, servers },
            Owned::Other(kind, body) => NdpOption::Other { kind: *kind, body },
        }
    }
}

fn options() -> impl Strategy<Value = Vec<Owned>> {
    let hardware = any::<[u8; 6]>().prop_map(Address);
    let prefix = (any::<(u128, bool, bool, u32, u32)>(), 0..=128_u8).prop_map(|(fields, len)| {
        let (prefix, on_link, autonomous, valid, preferred) = fields;
        Prefix { prefix: Ipv6Addr::from_bits(prefix), len, on_link, autonomous, valid, preferred }
    });
    let one = prop_oneof![
        hardware.clone().prop_map(|address| Owned::Plain(NdpOption::SourceLinkLayer(address))),
        hardware.prop_map(|address| Owned::Plain(NdpOption::TargetLinkLayer(address))),
        prefix.prop_map(|prefix| Owned::Plain(NdpOption::Prefix(prefix))),
        any::<u32>().prop_map(|mtu| Owned::Plain(NdpOption::Mtu(mtu))),
        (any::<u32>(), 1..4_usize, any::<u8>()).prop_map(|(t, n, byte)| Owned::Dns(t, vec![byte; n * 16])),
        (100..=u8::MAX, 0..4_usize, any::<u8>())
            .prop_map(|(kind, n, byte)| Owned::Other(kind, vec![byte; 6 + 8 * n])),
    ];
    vec(one, 0..6)
}

fn messages() -> impl Strategy<Value = Message> {
    let router = any::<(u8, bool, bool, u16, u32, u32)>().prop_map(|fields| {
        let (hop_limit, managed, other, lifetime, reachable_time, retrans_timer) = fields;
        Router { hop_limit, managed, other, lifetime, reachable_time, retrans_timer }
    });
    let target = (any::<u128>()).prop_map(|bits| Ipv6Addr::from_bits(bits >> 1));
    prop_oneof![
        Just(Message::RouterSolicitation),
        router.prop_map(Message::RouterAdvertisement),
        target.clone().prop_map(|target| Message::NeighborSolicitation { target }),
        (target, any::<[bool; 3]>()).prop_map(|(target, [router, solicited, overrides])| {
            Message::NeighborAdvertisement { target, router, solicited, overrides }
        }),
    ]
}

proptest! {
    #[test]
    fn messages_are_parsed_as_emitted(message in messages(), options in options()) {
        let options: Vec<_> = options.iter().map(Owned::borrowed).collect();
        prop_assert!(reads(A, B, message, &options), "{message:?} {options:?}");
    }

    #[test]
    fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..120), kind in 130..140_u8, sum: bool, none: bool) {
        if sum && bytes.len() >= 8 {
            (bytes[0], bytes[1]) = (kind, 0);
            bytes = summed(bytes, A, B);
        }
        let source = if none { Ipv6Addr::UNSPECIFIED } else { A };
        if let Some((_, options)) = parse(source, B, HOP_LIMIT, &bytes) {
            prop_assert!(options.count() <= 15);
        }
    }
}
