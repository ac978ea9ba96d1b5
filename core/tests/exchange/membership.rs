//! Membership of multicast groups: reports to routers, and answers to their queries (RFC 9776, RFC 9777).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use steadfast_core::counters::DropReason;
use steadfast_core::wire::checksum::{Sum, pseudo_header};
use steadfast_core::wire::groups::{ALL_NODES, ALL_SYSTEMS, MLD_QUERY};
use steadfast_core::wire::{PROTOCOL_ICMPV6, PROTOCOL_IGMP, build, ipv4, ipv6};
use steadfast_core::{Config, Duration, Instant, Interface, SocketId, Stack, UdpOptions};

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const OTHER: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 4);
/// The types of records (RFC 9776 §4.2.12).
const IS_MEMBER: u8 = 2;
const LEFT: u8 = 3;
const JOINED: u8 = 4;

fn host() -> Stack {
    let addresses = [("10.0.0.1", 24), ("fd00::1", 64), ("fe80::1", 64)];
    let addresses = addresses.map(|(address, len)| (address.parse().unwrap(), len));
    Stack::new(Config { secret: [1; 32], ..Config::default() }, Interface::new(1500, addresses))
}

fn bind(stack: &mut Stack, local: &str) -> SocketId {
    let options = UdpOptions::new(stack.config());
    stack.bind_udp(local.parse().unwrap(), options).unwrap()
}

/// A report: when it left, and its records.
type Report = (Instant, Vec<(u8, IpAddr)>);

/// Runs a stack until a time, and returns its reports. Nothing else leaves.
fn run(stack: &mut Stack, until: Instant) -> Vec<Report> {
    let (mut frame, mut reports) = ([0; 1500], Vec::new());
    loop {
        let at = stack.poll_at().filter(|at| *at <= until);
        let now = at.unwrap_or(until);
        stack.advance(now);
        assert_eq!(stack.check_consistent(), Ok(()));
        while let Some(sent) = stack.transmit(now, &mut frame) {
            reports.push((now, records(&frame[..sent.len])));
        }
        if at.is_none() {
            return reports;
        }
    }
}

/// The records of a report, whose headers are checked.
fn records(packet: &[u8]) -> Vec<(u8, IpAddr)> {
    let (message, len) = if packet[0] >> 4 == 4 {
        let (header, message) = ipv4::parse(packet).unwrap();
        assert_eq!((header.source, header.destination), ([10, 0, 0, 1].into(), [224, 0, 0, 22].into()));
        // With the router alert (RFC 2113).
        assert_eq!((header.ttl, header.protocol, &packet[20..24]), (1, PROTOCOL_IGMP, &[0x94, 4, 0, 0][..]));
        assert!(message[0] == 0x22 && Sum::new().verifies(message));
        (message, 4)
    } else {
        let (header, message) = ipv6::parse(packet).unwrap();
        let ends = ("fe80::1".parse().unwrap(), "ff02::16".parse().unwrap());
        assert_eq!((header.source, header.destination, header.hop_limit), (ends.0, ends.1, 1));
        assert_eq!(packet[6], 0, "a hop-by-hop header");
        let sum = pseudo_header(ends.0.into(), ends.1.into(), PROTOCOL_ICMPV6, message.len() as u32);
        assert!(message[0] == 143 && sum.verifies(message));
        (message, 16)
    };
    let count = usize::from(u16::from_be_bytes([message[6], message[7]]));
    let records = message[8..].chunks(4 + len).map(|record| {
        let group = &record[4..];
        let group = match <[u8; 4]>::try_from(group) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(group).unwrap()),
        };
        (record[0], group)
    });
    let records: Vec<_> = records.collect();
    assert_eq!(records.len(), count);
    records
}

/// An IGMPv3 query about a group, or the unspecified address for all.
fn igmp_query(ttl: u8, to: Ipv4Addr, group: Ipv4Addr, tenths: u8) -> Vec<u8> {
    let mut message = vec![0x11, tenths, 0, 0];
    message.extend(group.octets());
    message.extend([2, 125, 0, 0]);
    let mut sum = Sum::new();
    sum.add_bytes(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    build::ipv4(&ipv4::Header { ttl, ..ipv4::Header::new(ROUTER, to, PROTOCOL_IGMP) }, &message)
}

/// An MLDv2 query about all groups, with a hop-by-hop header that has this option.
fn mld_query(source: &str, hop_limit: u8, option: [u8; 4]) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().unwrap();
    let mut message = vec![0; 28];
    message[0] = MLD_QUERY;
    message[4..6].copy_from_slice(&1000u16.to_be_bytes());
    let mut sum = pseudo_header(source.into(), ALL_NODES.into(), PROTOCOL_ICMPV6, 28);
    sum.add_bytes(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    let mut payload = vec![PROTOCOL_ICMPV6, 0];
    payload.extend(option);
    payload.extend([1, 0]);
    payload.extend(message);
    build::ipv6(&ipv6::Header { hop_limit, ..ipv6::Header::new(source, ALL_NODES, 0) }, &payload)
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// RFC 9776 §5.1
#[test]
fn the_first_member_and_the_end_of_the_last_are_reported_twice_9776_1_9776_3() {
    let mut stack = host();
    let (one, two) = (bind(&mut stack, "0.0.0.0:1"), bind(&mut stack, "0.0.0.0:2"));
    let twice = |reports: Vec<Report>, begin: Instant, kind: u8| {
        let [(first, told), (second, again)] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((told, again), (&vec![(kind, GROUP.into())], &vec![(kind, GROUP.into())]));
        assert!(*first == begin && *second > begin && *second <= begin + Duration::from_secs(1));
    };
    stack.join_multicast(one, GROUP.into(), None).unwrap();
    twice(run(&mut stack, at(5000)), at(0), JOINED);
    stack.join_multicast(two, GROUP.into(), None).unwrap();
    stack.leave_multicast(one, GROUP.into(), None).unwrap();
    assert!(run(&mut stack, at(10_000)).is_empty(), "the group has a member all the time");
    stack.close(at(10_000), two).unwrap();
    twice(run(&mut stack, at(15_000)), at(10_000), LEFT);
    assert_eq!(stack.counters().igmp_out_reports, 4);
}

/// RFC 9776 §5.2
#[test]
fn a_query_is_answered_within_its_time_for_all_groups_or_for_one_9776_2() {
    let mut stack = host();
    let socket = bind(&mut stack, "0.0.0.0:1");
    stack.join_multicast(socket, GROUP.into(), None).unwrap();
    stack.join_multicast(socket, OTHER.into(), None).unwrap();
    run(&mut stack, at(2000));
    stack.receive(at(2000), &igmp_query(1, ALL_SYSTEMS, Ipv4Addr::UNSPECIFIED, 100)[..]);
    let reports = run(&mut stack, at(20_000));
    let [(answered, told)] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(told, &[(IS_MEMBER, GROUP.into()), (IS_MEMBER, OTHER.into())]);
    assert!(*answered > at(2000) && *answered <= at(12_000), "{answered}");
    stack.receive(at(20_000), &igmp_query(1, OTHER, OTHER, 10)[..]);
    let reports = run(&mut stack, at(21_000));
    assert_eq!(reports.iter().map(|(_, told)| &told[..]).collect::<Vec<_>>(), [[(IS_MEMBER, OTHER.into())]]);
    // Nobody here is in that group.
    stack.receive(at(30_000), &igmp_query(1, ALL_SYSTEMS, Ipv4Addr::new(239, 9, 9, 9), 10)[..]);
    assert!(run(&mut stack, at(40_000)).is_empty());
    assert_eq!(stack.counters().igmp_in_queries, 3);
}

/// RFC 9777 §6.1, §6.2
#[test]
fn groups_of_ipv6_are_reported_from_a_link_local_address_9776_1_9776_2() {
    let mut stack = host();
    let socket = bind(&mut stack, "[::]:1");
    let group: IpAddr = "ff3e::5".parse().unwrap();
    stack.join_multicast(socket, group, None).unwrap();
    let told = |reports: Vec<Report>| reports.into_iter().flat_map(|(_, told)| told).collect::<Vec<_>>();
    assert_eq!(told(run(&mut stack, at(2000))), [(JOINED, group), (JOINED, group)]);
    stack.receive(at(2000), &mld_query("fe80::fe", 1, [5, 2, 0, 0])[..]);
    assert_eq!(told(run(&mut stack, at(3000))), [(IS_MEMBER, group)]);
    assert_eq!((stack.counters().mld_in_queries, stack.counters().mld_out_reports), (1, 3));
}

/// RFC 9776 §9, RFC 9777 §6.2
#[test]
fn a_query_of_no_neighbour_is_dropped_9776_3() {
    let mut stack = host();
    // Without a group nobody asks.
    stack.receive(at(0), &igmp_query(1, ALL_SYSTEMS, Ipv4Addr::UNSPECIFIED, 1)[..]);
    assert_eq!(stack.counters().dropped(DropReason::BadDestination), 1);
    let socket = bind(&mut stack, "[::]:1");
    stack.join_multicast(socket, GROUP.into(), None).unwrap();
    stack.join_multicast(socket, "ff3e::5".parse().unwrap(), None).unwrap();
    run(&mut stack, at(2000));
    let routed = igmp_query(2, ALL_SYSTEMS, Ipv4Addr::UNSPECIFIED, 1);
    let mut damaged = igmp_query(1, ALL_SYSTEMS, Ipv4Addr::UNSPECIFIED, 1);
    *damaged.last_mut().unwrap() ^= 1;
    let from_afar = mld_query("fd00::fe", 1, [5, 2, 0, 0]);
    let (far, quiet) = (mld_query("fe80::fe", 2, [5, 2, 0, 0]), mld_query("fe80::fe", 1, [1, 2, 0, 0]));
    for (number, packet) in [routed, damaged, from_afar, far, quiet].iter().enumerate() {
        stack.receive(at(2000), &packet[..]);
        assert_eq!(stack.counters().dropped(DropReason::GroupQuery), number as u64 + 1);
    }
    assert!(run(&mut stack, at(20_000)).is_empty());
}

#[test]
fn a_neighbour_that_asks_without_end_costs_one_answer_a_second_threat_89() {
    let mut stack = host();
    for port in 1..=20 {
        let socket = bind(&mut stack, &format!("0.0.0.0:{port}"));
        for number in 0..20u32 {
            let group = Ipv4Addr::from_bits(0xef00_0000 + port * 100 + number);
            stack.join_multicast(socket, group.into(), None).unwrap();
        }
    }
    run(&mut stack, at(5000));
    let query = igmp_query(1, ALL_SYSTEMS, Ipv4Addr::UNSPECIFIED, 0);
    let mut told = Vec::new();
    for millis in 5000..8000 {
        stack.receive(at(millis), &query[..]);
        told.extend(run(&mut stack, at(millis)));
    }
    // 400 groups are three packets.
    assert_eq!(told.len(), 3 * 3);
    assert_eq!(told.iter().map(|(_, records)| records.len()).sum::<usize>(), 3 * 400);
}
