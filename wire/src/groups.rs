//! Membership of multicast groups: queries of routers and reports of hosts (IGMPv3, RFC 9776 §4; MLDv2, RFC 9777 §5).

use super::checksum::{Sum, pseudo_header};
use super::{PROTOCOL_ICMPV6, PROTOCOL_IGMP, ipv4, ipv6, u16_at};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All hosts of a link, which general queries ask.
pub const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// All nodes of a link, which general queries ask.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The routers that hear reports.
const REPORTS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const REPORTS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// Type of a query in ICMPv6.
pub const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 143;
const IGMP_QUERY: u8 = 0x11;
const IGMP_REPORT: u8 = 0x22;

/// Length of the header of a report, and in IGMP of a short query.
const HEADER_LEN: usize = 8;
const RECORD_LEN_V4: usize = 8;
const RECORD_LEN_V6: usize = 20;
const MLD_QUERY_LEN: usize = 24;

/// The option of IPv4 that has routers look at a packet (RFC 2113).
const ROUTER_ALERT_V4: [u8; 4] = [0x94, 4, 0, 0];
/// The hop-by-hop header of IPv6 with that option, for MLD (RFC 2711), and padding.
const ROUTER_ALERT_V6: [u8; 8] = [PROTOCOL_ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const OPTION_ROUTER_ALERT_V6: u8 = 5;
/// Internetwork control (RFC 9776 §4).
const DSCP: u8 = 0x30;

/// Most bytes before the records of a report.
pub const OVERHEAD: usize = ipv6::HEADER_LEN + ROUTER_ALERT_V6.len() + HEADER_LEN;

/// A router's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The group that it is about; `None`: all.
    pub group: Option<IpAddr>,
    /// The longest time until the answer, in milliseconds.
    pub max_response: u32,
}

/// The statement of a report about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A member that answers a query: it hears all sources.
    IsMember = 2,
    /// It left.
    Left = 3,
    /// It joined.
    Joined = 4,
}

/// A record of a report.
pub type Record = (RecordKind, IpAddr);

/// Parses the payload of an IGMP packet as a query of any version. `None`: it is no query, or not valid.
pub fn parse_igmp(payload: &[u8]) -> Option<Query> {
    let head = payload.first_chunk::<HEADER_LEN>()?;
    if head[0] != IGMP_QUERY || !Sum::new().verifies(payload) {
        return None;
    }
    let group = Ipv4Addr::new(head[4], head[5], head[6], head[7]);
    // The first version has no field for the time.
    let tenths = match (head[1], payload.len()) {
        (0, HEADER_LEN) => 100,
        (code, HEADER_LEN) => u32::from(code),
        (code, _) if payload.len() >= 12 => floating(code.into(), 4),
        _ => return None,
    };
    Some(Query { group: asked(group.into())?, max_response: tenths * 100 })
}

/// Parses the payload of an ICMPv6 packet as a query of any version. `None`: it is no query, or not valid.
pub fn parse_mld(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Option<Query> {
    let head = payload.first_chunk::<MLD_QUERY_LEN>()?;
    let sum = pseudo_header(source.into(), destination.into(), PROTOCOL_ICMPV6, payload.len() as u32);
    if head[0] != MLD_QUERY || head[1] != 0 || !sum.verifies(payload) {
        return None;
    }
    let (_, group) = head.split_last_chunk::<16>()?;
    let max_response = match payload.len() {
        MLD_QUERY_LEN => u16_at(head, 4).into(),
        len if len >= MLD_QUERY_LEN + 4 => floating(u16_at(head, 4).into(), 12),
        _ => return None,
    };
    Some(Query { group: asked(Ipv6Addr::from(*group).into())?, max_response })
}

/// The group of a query: the unspecified address asks for all. `None`: an address that is no group.
fn asked(group: IpAddr) -> Option<Option<IpAddr>> {
    match group {
        _ if group.is_unspecified() => Some(None),
        _ if group.is_multicast() => Some(Some(group)),
        _ => None,
    }
}

/// A code whose highest bit says that an exponent of three bits and a mantissa follow (RFC 9776 §4.1.1, RFC 9777
/// §5.1.3).
fn floating(code: u32, mantissa_bits: u32) -> u32 {
    if code >> (mantissa_bits + 3) == 0 {
        return code;
    }
    let mantissa = code & ((1 << mantissa_bits) - 1) | 1 << mantissa_bits;
    mantissa << ((code >> mantissa_bits & 7) + 3)
}

/// Returns whether an IPv6 packet has the router alert option, which a query must have (RFC 9777 §6.2).
pub fn has_router_alert(packet: &[u8]) -> bool {
    let Some((fixed, rest)) = packet.split_first_chunk::<{ ipv6::HEADER_LEN }>() else { return false };
    let Some((&[_, units], mut options)) = rest.split_first_chunk::<2>().filter(|_| fixed[6] == 0) else {
        return false;
    };
    options = &options[..options.len().min(usize::from(units) * 8 + 6)];
    loop {
        match *options {
            // One byte of padding has no length.
            [0, ref rest @ ..] => options = rest,
            [OPTION_ROUTER_ALERT_V6, 2, ..] => return true,
            [_, len, ..] => options = options.get(2 + usize::from(len)..).unwrap_or(&[]),
            _ => return false,
        }
    }
}

/// Returns the most records of a report in a packet of this length.
pub fn most_records(ipv4: bool, packet_len: usize) -> usize {
    packet_len.saturating_sub(OVERHEAD) / if ipv4 { RECORD_LEN_V4 } else { RECORD_LEN_V6 }
}

/// Builds the packet of an IGMPv3 report (RFC 9776 §4.2). Groups of IPv6 are left out.
pub fn igmp_report(source: Ipv4Addr, records: &[Record]) -> Vec<u8> {
    let groups = records.iter().filter_map(|(kind, group)| match group {
        IpAddr::V4(group) => Some((*kind, group.octets())),
        IpAddr::V6(_) => None,
    });
    let mut message = message(IGMP_REPORT, groups);
    let mut sum = Sum::new();
    sum.add_bytes(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    let header = ipv4::Header { ttl: 1, dscp: DSCP, ..ipv4::Header::new(source, REPORTS_V4, PROTOCOL_IGMP) };
    let mut packet = vec![0; ipv4::HEADER_LEN];
    header.emit(ROUTER_ALERT_V4.len() + message.len(), &mut packet);
    packet.extend(ROUTER_ALERT_V4);
    // The length of the header counts the option, and so does its checksum.
    packet[0] += 1;
    packet[10..12].fill(0);
    let mut sum = Sum::new();
    sum.add_bytes(&packet);
    packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    packet.extend(message);
    packet
}

/// Builds the packet of an MLDv2 report (RFC 9777 §5.2). Groups of IPv4 are left out.
pub fn mld_report(source: Ipv6Addr, records: &[Record]) -> Vec<u8> {
    let groups = records.iter().filter_map(|(kind, group)| match group {
        IpAddr::V6(group) => Some((*kind, group.octets())),
        IpAddr::V4(_) => None,
    });
    let mut message = message(MLD_REPORT, groups);
    let mut sum = pseudo_header(source.into(), REPORTS_V6.into(), PROTOCOL_ICMPV6, message.len() as u32);
    sum.add_bytes(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    const HOP_BY_HOP: u8 = 0;
    let header = ipv6::Header { hop_limit: 1, ..ipv6::Header::new(source, REPORTS_V6, HOP_BY_HOP) };
    let mut packet = vec![0; ipv6::HEADER_LEN];
    header.emit(ROUTER_ALERT_V6.len() + message.len(), &mut packet);
    packet.extend(ROUTER_ALERT_V6);
    packet.extend(message);
    packet
}

/// The message of a report, without its checksum: both protocols have the same one, but for the length of a group.
fn message<const N: usize>(kind: u8, groups: impl Iterator<Item = (RecordKind, [u8; N])>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    let mut count = 0u16;
    for (kind, group) in groups {
        count += 1;
        message.extend([kind as u8, 0, 0, 0]);
        message.extend(group);
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn igmp(code: u8, group: [u8; 4], len: usize) -> Vec<u8> {
        let mut message = vec![0; len];
        (message[0], message[1]) = (IGMP_QUERY, code);
        message[4..8].copy_from_slice(&group);
        let mut sum = Sum::new();
        sum.add_bytes(&message);
        message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        message
    }

    /// RFC 9776 §4.1.1, §7.1
    #[test]
    fn the_time_of_a_query_depends_on_its_version() {
        let time = |code, len| parse_igmp(&igmp(code, [0; 4], len)).unwrap().max_response;
        assert_eq!((time(0, 8), time(100, 8), time(200, 8)), (10_000, 10_000, 20_000));
        // 1.4 s; 0x80: (0 | 16) << 3 tenths; 0xff: (15 | 16) << 10 tenths.
        assert_eq!((time(14, 12), time(0x80, 12), time(0xff, 12)), (1400, 12_800, 3_174_400));
        assert_eq!(parse_igmp(&igmp(1, [0; 4], 10)), None);
    }

    #[test]
    fn a_query_is_about_all_groups_or_one() {
        let group = |of| parse_igmp(&igmp(1, of, 12)).map(|query| query.group);
        assert_eq!(group([0; 4]), Some(None));
        assert_eq!(group([239, 1, 2, 3]), Some(Some(Ipv4Addr::new(239, 1, 2, 3).into())));
        assert_eq!(group([10, 0, 0, 1]), None, "no group");
        let mut broken = igmp(1, [0; 4], 12);
        broken[7] ^= 1;
        assert_eq!(parse_igmp(&broken), None, "its checksum");
        assert_eq!(parse_igmp(&[IGMP_QUERY; 7]), None);
    }

    /// RFC 9777 §5.1
    #[test]
    fn queries_of_both_versions_of_mld_are_read() {
        let (router, all) = ("fe80::1".parse().unwrap(), ALL_NODES);
        let message = |code: u16, len: usize| {
            let mut message = vec![0; len];
            message[0] = MLD_QUERY;
            message[4..6].copy_from_slice(&code.to_be_bytes());
            message[8..10].copy_from_slice(&[0xff, 0x3e]);
            let mut sum = pseudo_header(IpAddr::V6(router), all.into(), PROTOCOL_ICMPV6, len as u32);
            sum.add_bytes(&message);
            message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
            message
        };
        let group = Some("ff3e::".parse().unwrap());
        let of = |code, len| parse_mld(router, all, &message(code, len));
        assert_eq!(of(40_000, 24), Some(Query { group, max_response: 40_000 }));
        assert_eq!(of(10_000, 28), Some(Query { group, max_response: 10_000 }));
        // (0 | 4096) << 3.
        assert_eq!(of(0x8000, 28), Some(Query { group, max_response: 32_768 }));
        assert_eq!(of(1, 26), None);
        assert_eq!(parse_mld(router, all, &message(1, 28)[..20]), None);
    }

    #[test]
    fn reports_are_packets_with_a_router_alert_and_no_hop_to_go() {
        let group: IpAddr = "239.1.2.3".parse().unwrap();
        let packet = igmp_report(Ipv4Addr::new(10, 0, 0, 1), &[(RecordKind::Joined, group)]);
        let (header, payload) = ipv4::parse(&packet).unwrap();
        assert_eq!((header.ttl, header.destination, header.protocol), (1, REPORTS_V4, PROTOCOL_IGMP));
        assert_eq!(packet[20..24], ROUTER_ALERT_V4);
        assert!(Sum::new().verifies(payload));
        assert_eq!(payload[4..], [0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3]);

        let (source, group): (Ipv6Addr, IpAddr) = ("fe80::1".parse().unwrap(), "ff3e::5".parse().unwrap());
        let packet = mld_report(source, &[(RecordKind::Left, group), (RecordKind::IsMember, group)]);
        let (header, payload) = ipv6::parse(&packet).unwrap();
        assert_eq!((header.hop_limit, header.destination, header.protocol), (1, REPORTS_V6, PROTOCOL_ICMPV6));
        assert!(has_router_alert(&packet));
        let sum = pseudo_header(source.into(), REPORTS_V6.into(), PROTOCOL_ICMPV6, payload.len() as u32);
        assert!(sum.verifies(payload));
        assert_eq!((payload.len(), payload[7], payload[8], payload[28]), (8 + 2 * RECORD_LEN_V6, 2, 3, 2));
        assert!(packet.len() <= OVERHEAD + 2 * RECORD_LEN_V6);
        assert_eq!((most_records(true, 576), most_records(false, 1280), most_records(true, 10)), (65, 61, 0));
    }

    #[test]
    fn the_router_alert_is_found_behind_padding_and_not_where_there_is_none() {
        let header = ipv6::Header::new(Ipv6Addr::LOCALHOST, ALL_NODES, 0);
        let with = |options: &[u8]| {
            let mut packet = vec![0; ipv6::HEADER_LEN];
            header.emit(2 + options.len(), &mut packet);
            packet.extend([PROTOCOL_ICMPV6, (options.len() / 8) as u8]);
            packet.extend(options);
            has_router_alert(&packet)
        };
        assert!(with(&[5, 2, 0, 0, 1, 0]) && with(&[0, 0, 5, 2, 0, 0]) && with(&[1, 0, 5, 2, 0, 0]));
        assert!(!with(&[1, 4, 5, 2, 0, 0]) && !with(&[6, 200, 0, 0, 0, 0]) && !with(&[]));
        let mut plain = vec![0; 60];
        ipv6::Header::new(Ipv6Addr::LOCALHOST, ALL_NODES, PROTOCOL_ICMPV6).emit(20, &mut plain);
        assert!(!has_router_alert(&plain) && !has_router_alert(&plain[..40]));
    }
}
