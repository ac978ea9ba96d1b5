//! Constructs the packets that the script sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast_core::wire::checksum::{Sum, pseudo_header};
use steadfast_core::wire::{
    Ecn, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, ipv4, ipv6, tcp,
};

use super::ast::{Cast, EcnSpec, Icmp, IcmpName, IpInfo, Quoted, Scale, Tcp, TcpOption};
use super::flow::Flow;

const TTL: u8 = 255;
/// Length of the fixed TCP header.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const SYN: u16 = 1 << 1;
const ACK: u16 = 1 << 4;
/// Bytes of the transport header that a quote includes.
const QUOTED: usize = 20;

/// A segment from the script to the stack.
pub(crate) fn segment(spec: &Tcp, ip: &IpInfo, flow: &Flow) -> Vec<u8> {
    let options = spec.options.as_deref().unwrap_or_default();
    let mut bytes = vec![0; TCP_HEADER];
    options.iter().for_each(|option| emit(option, flow, &mut bytes));
    let offset = (bytes.len() / 4) as u16;
    let put =
        |bytes: &mut Vec<u8>, at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(&mut bytes, 0, &flow.remote.port().to_be_bytes());
    put(&mut bytes, 2, &flow.local.port().to_be_bytes());
    let syn = spec.flags & SYN != 0;
    let seq = if spec.scale == Scale::Wire { spec.seq } else { flow.remote_to_live(spec.seq, syn) };
    put(&mut bytes, 4, &seq.to_be_bytes());
    // With the flag and without a number it is 0 in the script.
    let ack = spec.ack.or((spec.flags & ACK != 0).then_some(0));
    let ack = ack.map_or(0, |ack| flow.local_to_live(ack, syn));
    put(&mut bytes, 8, &ack.to_be_bytes());
    put(&mut bytes, 12, &(offset << 12 | spec.flags & 0xfff).to_be_bytes());
    put(&mut bytes, 14, &spec.window.unwrap_or(flow.window).to_be_bytes());
    put(&mut bytes, 18, &spec.urgent.unwrap_or(0).to_be_bytes());
    bytes.resize(bytes.len() + spec.len as usize, 0);
    let source = ip.from.map_or(flow.remote.ip(), |cast| address(cast, flow));
    let destination = ip.to.map_or(flow.local.ip(), |cast| address(cast, flow));
    let mut sum = pseudo_header(source, destination, PROTOCOL_TCP, u32::try_from(bytes.len()).unwrap_or(0));
    sum.add_bytes(&bytes);
    // Flip a bit: the result is never equivalent, as 0 and 0xffff are.
    tcp::set_checksum(&mut bytes, sum.finish() ^ u16::from(ip.bad_checksum));
    packet(source, destination, PROTOCOL_TCP, ip, &bytes)
}

fn address(cast: Cast, flow: &Flow) -> IpAddr {
    match cast {
        Cast::Nobody => match flow.local.ip() {
            IpAddr::V4(local) => Ipv4Addr::from_bits(local.to_bits() ^ 2).into(),
            IpAddr::V6(local) => Ipv6Addr::from_bits(local.to_bits() ^ 2).into(),
        },
        _ if flow.local.is_ipv6() => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        Cast::Multicast => Ipv4Addr::new(224, 0, 0, 1).into(),
        Cast::Broadcast => Ipv4Addr::BROADCAST.into(),
    }
}

fn emit(option: &TcpOption, flow: &Flow, out: &mut Vec<u8>) {
    let mut tagged = |kind: u8, data: &[u8]| {
        out.extend([kind, (data.len() + 2) as u8]);
        out.extend(data);
    };
    let pair = |first: u32, second: u32| (u64::from(first) << 32 | u64::from(second)).to_be_bytes();
    match option {
        TcpOption::End => out.push(0),
        TcpOption::Nop => out.push(1),
        TcpOption::Mss(mss) => tagged(2, &mss.to_be_bytes()),
        TcpOption::WindowScale(shift) => tagged(3, &[*shift]),
        TcpOption::SackPermitted => tagged(4, &[]),
        TcpOption::Sack(blocks) => {
            let live = |(left, right): &(u32, u32)| {
                pair(flow.local_to_live(*left, false), flow.local_to_live(*right, false))
            };
            tagged(5, &blocks.iter().flat_map(live).collect::<Vec<_>>());
        }
        TcpOption::Timestamps { val, ecr } => {
            // The script has not seen the stack's clock yet: echo zero.
            let echo = ecr.filter(|ecr| *ecr != 0).map_or(0, |ecr| flow.echo_to_live(ecr));
            tagged(8, &pair(val.unwrap_or(0), echo));
        }
        TcpOption::FastOpen(cookie) => tagged(34, cookie),
        TcpOption::GivenCookie => tagged(34, &flow.cookie),
        TcpOption::Experiment(id, data) => tagged(254, &[&id.to_be_bytes(), data.as_slice()].concat()),
        TcpOption::Md5(digest) => {
            let mut whole = digest.clone();
            whole.resize(16, 0);
            tagged(19, &whole);
        }
        TcpOption::AccEcn(kind, counters) => {
            tagged(*kind, &counters.iter().flat_map(|n| n.to_be_bytes()[1..].to_vec()).collect::<Vec<_>>());
        }
        TcpOption::Other(kind, data) => tagged(*kind, data),
    }
}

/// A UDP datagram from the script to the stack.
pub(crate) fn datagram(len: u16, ip: &IpInfo, remote: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let bytes = udp(len, remote, local);
    packet(remote.ip(), local.ip(), PROTOCOL_UDP, ip, &bytes)
}

fn udp(len: u16, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let total = len.saturating_add(UDP_HEADER as u16);
    let mut bytes = Vec::with_capacity(usize::from(total));
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(usize::from(total), 0);
    let mut sum = pseudo_header(source.ip(), destination.ip(), PROTOCOL_UDP, u32::from(total));
    sum.add_bytes(&bytes);
    bytes[6..8].copy_from_slice(&sum.finish().to_be_bytes());
    bytes
}

/// A router's ICMP message about a packet of the stack. `None` for an unknown type or code.
pub(crate) fn icmp(spec: &Icmp, ip: &IpInfo, flow: &Flow) -> Option<Vec<u8>> {
    let v6 = flow.local.is_ipv6();
    let (kind, code) = numbers(spec, v6)?;
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
    if v6 {
        bytes[4..8].copy_from_slice(&spec.mtu.unwrap_or(0).to_be_bytes());
    } else if let Some(mtu) = spec.mtu {
        bytes[6..8].copy_from_slice(&(mtu as u16).to_be_bytes());
    }
    if let Some(id) = spec.id {
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
    }
    bytes.extend(quoted(&spec.quoted, flow));
    let protocol = if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
    let mut sum = match v6 {
        true => pseudo_header(
            flow.remote.ip(),
            flow.local.ip(),
            protocol,
            u32::try_from(bytes.len()).unwrap_or(0),
        ),
        false => Sum::new(),
    };
    sum.add_bytes(&bytes);
    bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    Some(packet(flow.remote.ip(), flow.local.ip(), protocol, ip, &bytes))
}

/// The start of a packet of the stack, as an ICMP message quotes it.
fn quoted(quoted: &Quoted, flow: &Flow) -> Vec<u8> {
    let (protocol, head, len) = match quoted {
        Quoted::Nothing => (PROTOCOL_TCP, quoted_segment(flow.local_to_live(0, false), flow), TCP_HEADER),
        Quoted::Tcp(seq, len) => {
            (PROTOCOL_TCP, quoted_segment(flow.local_to_live(*seq, false), flow), TCP_HEADER + *len as usize)
        }
        Quoted::Udp(len) => {
            let whole = udp(*len, flow.local, flow.remote);
            let total = whole.len();
            (PROTOCOL_UDP, whole.into_iter().take(UDP_HEADER).collect(), total)
        }
        Quoted::Raw(len) => (255, vec![0; usize::from(*len).min(QUOTED)], usize::from(*len)),
    };
    let mut header = packet(flow.local.ip(), flow.remote.ip(), protocol, &IpInfo::default(), &vec![0; len]);
    header.truncate(if flow.local.is_ipv6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN });
    header.extend(head);
    header
}

fn quoted_segment(seq: u32, flow: &Flow) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(QUOTED);
    bytes.extend(flow.local.port().to_be_bytes());
    bytes.extend(flow.remote.port().to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 5 << 4, 1 << 4]);
    bytes.resize(QUOTED, 0);
    bytes
}

fn packet(source: IpAddr, destination: IpAddr, protocol: u8, ip: &IpInfo, payload: &[u8]) -> Vec<u8> {
    let tos = ip.tos.unwrap_or(0);
    let ecn = match ip.ecn {
        None => Ecn::from_bits(tos),
        Some(EcnSpec::None) => Ecn::NotEct,
        Some(EcnSpec::Ect0 | EcnSpec::Ect01) => Ecn::Ect0,
        Some(EcnSpec::Ect1) => Ecn::Ect1,
        Some(EcnSpec::Ce) => Ecn::Ce,
    };
    let (ttl, dscp) = (ip.ttl.unwrap_or(TTL), tos >> 2);
    let mut bytes;
    match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let flow_label = ip.flow_label.unwrap_or(0);
            let header = ipv6::Header {
                hop_limit: ttl,
                dscp,
                ecn,
                flow_label,
                ..ipv6::Header::new(source, destination, protocol)
            };
            bytes = vec![0; ipv6::HEADER_LEN];
            header.emit(payload.len().min(0xffff), &mut bytes);
        }
        (source, destination) => {
            let header = ipv4::Header::new(v4(source), v4(destination), protocol);
            let header = ipv4::Header { ttl, dscp, ecn, ..header };
            bytes = vec![0; ipv4::HEADER_LEN];
            header.emit(payload.len().min(0xffff - ipv4::HEADER_LEN), &mut bytes);
        }
    }
    bytes.extend(payload);
    bytes
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

/// The type and code in the packet.
pub(crate) fn numbers(spec: &Icmp, v6: bool) -> Option<(u8, u8)> {
    let kind = match &spec.kind {
        IcmpName::Number(kind) => *kind,
        IcmpName::Name(name) => {
            let table: &[(&str, u8)] = if v6 { &TYPES_V6 } else { &TYPES_V4 };
            table.iter().find(|(known, _)| known == name)?.1
        }
    };
    let code = match &spec.code {
        None => 0,
        Some(IcmpName::Number(code)) => *code,
        Some(IcmpName::Name(name)) => {
            let table: &[(u8, &str, u8)] = if v6 { &CODES_V6 } else { &CODES_V4 };
            table.iter().find(|(of, known, _)| *of == kind && known == name)?.2
        }
    };
    Some((kind, code))
}

/// The names of a type and code.
pub(crate) fn names((kind, code): (u8, u8), v6: bool) -> String {
    let types: &[(&str, u8)] = if v6 { &TYPES_V6 } else { &TYPES_V4 };
    let codes: &[(u8, &str, u8)] = if v6 { &CODES_V6 } else { &CODES_V4 };
    let named = types.iter().find(|(_, known)| *known == kind).map(|(name, _)| (*name).to_owned());
    let code_named =
        codes.iter().find(|(of, _, known)| (*of, *known) == (kind, code)).map(|(_, name, _)| *name);
    let kind = named.unwrap_or_else(|| format!("type_{kind}"));
    match (code_named, code) {
        (Some(code), _) => format!("{kind} {code}"),
        (None, 0) => kind,
        (None, code) => format!("{kind} code_{code}"),
    }
}

const TYPES_V4: [(&str, u8); 12] = [
    ("unreachable", 3),
    ("echo_reply", 0),
    ("source_quench", 4),
    ("redirect", 5),
    ("echo_request", 8),
    ("time_exceeded", 11),
    ("parameter_problem", 12),
    ("timestamp_request", 13),
    ("timestamp_reply", 14),
    ("destination_unreachable", 3),
    ("router_advertisement", 9),
    ("router_solicitation", 10),
];

const TYPES_V6: [(&str, u8); 7] = [
    ("unreachable", 1),
    ("packet_too_big", 2),
    ("time_exceeded", 3),
    ("parameter_problem", 4),
    ("echo_request", 128),
    ("echo_reply", 129),
    ("destination_unreachable", 1),
];

const CODES_V4: [(u8, &str, u8); 28] = [
    (3, "net_unreachable", 0),
    (3, "host_unreachable", 1),
    (3, "protocol_unreachable", 2),
    (3, "port_unreachable", 3),
    (3, "frag_needed", 4),
    (3, "source_route_failed", 5),
    (3, "net_unknown", 6),
    (3, "host_unknown", 7),
    (3, "source_host_isolated", 8),
    (3, "net_prohibited", 9),
    (3, "host_prohibited", 10),
    (3, "net_unreachable_for_tos", 11),
    (3, "net_unreachable_tos", 11),
    (3, "host_unreachable_for_tos", 12),
    (3, "host_unreachable_tos", 12),
    (3, "packet_filtered", 13),
    (3, "communication_prohibited", 13),
    (3, "precedence_violation", 14),
    (3, "precedence_cutoff", 15),
    (11, "exceeded_ttl", 0),
    (11, "ttl_exceeded", 0),
    (11, "ttl_exceeded_in_transit", 0),
    (11, "exceeded_frag_time", 1),
    (11, "frag_time_exceeded", 1),
    (11, "frag_reass_exceeded", 1),
    (12, "header_field", 0),
    (12, "missing_option", 1),
    (12, "bad_length", 2),
];

const CODES_V6: [(u8, &str, u8); 19] = [
    (1, "no_route", 0),
    (1, "net_unreachable", 0),
    (1, "admin_prohibited", 1),
    (1, "not_neighbour", 2),
    (1, "beyond_scope", 2),
    (1, "addr_unreachable", 3),
    (1, "address_unreachable", 3),
    (1, "host_unreachable", 3),
    (1, "port_unreachable", 4),
    (1, "source_policy", 5),
    (1, "reject_route", 6),
    (3, "exceeded_hoplimit", 0),
    (3, "exceeded_hop_limit", 0),
    (3, "exceeded_frag_time", 1),
    (4, "header_field", 0),
    (4, "unk_nexthdr", 1),
    (4, "unknown_next_header", 1),
    (4, "unk_option", 2),
    (4, "unknown_option", 2),
];
