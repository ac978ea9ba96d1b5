//! Compares expected and actual packets, field by field.

use super::ast::{Direction, EcnSpec, Icmp, IpInfo, Quoted, Scale, Tcp, TcpOption};
use super::build;
use super::flow::Flow;
use super::parsed::{PacketBody, ParsedIcmp, ParsedPacket, ParsedTcp};
use super::show;

/// One field of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) expected: String,
    pub(crate) came: String,
    pub(crate) right: bool,
}

impl Field {
    fn new<T: PartialEq + ToString>(name: &'static str, expected: T, came: T) -> Field {
        let right = expected == came;
        Field { name, expected: expected.to_string(), came: came.to_string(), right }
    }

    fn unchecked(name: &'static str, came: impl ToString) -> Field {
        Field { name, expected: "anything".to_owned(), came: came.to_string(), right: true }
    }
}

/// How strict the comparison is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// Ignore the order of options, padding, PSH and the window.
    pub(crate) neutral: bool,
    /// Microseconds per tick of the stack's clock, and the tolerance of a timestamp; `None`: not checked.
    pub(crate) tick: Option<(u64, u64)>,
}

/// Compares a segment of the stack with its specification.
pub(crate) fn segment(spec: &Tcp, ip: &IpInfo, live: &ParsedPacket, flow: &Flow, rules: Rules) -> Vec<Field> {
    let Some(tcp) = live.tcp() else {
        return vec![Field::new("protocol", "TCP".to_owned(), protocol(live))];
    };
    let mut fields = ip_fields(ip, live, flow);
    fields.extend(ports(spec, tcp, flow));
    // Standards leave it to the sender which segments carry PSH.
    let open = if rules.neutral { PSH } else { 0 };
    fields.push(Field::new("flags", show::flags(spec.flags & !open), show::flags(tcp.flags & !open)));
    let seq = flow.local_to_script(tcp.seq, tcp.has(SYN));
    fields.push(match spec.scale {
        Scale::Initial => Field::new("sequence number", spec.seq, seq),
        Scale::Wire => Field::new("sequence number", spec.seq, tcp.seq),
        Scale::Open => Field::unchecked("sequence number", seq),
    });
    let len = tcp.payload.len() as u32;
    fields.push(Field::new("length of data", spec.len, len));
    let none = !tcp.has(ACK) && tcp.ack == 0;
    let ack = if none { 0 } else { flow.remote_to_script(tcp.ack, tcp.has(SYN)) };
    fields.push(Field::new("acknowledgment number", spec.ack.unwrap_or(0), ack));
    fields.push(match spec.window {
        Some(window) if !rules.neutral => Field::new("window", window, tcp.window),
        _ => Field::unchecked("window", tcp.window),
    });
    fields.push(Field::new("urgent pointer", spec.urgent.unwrap_or(0), tcp.urgent));
    let header_len = u32::from(tcp.data_offset) * 4;
    match &spec.options {
        None => fields.push(Field::unchecked("options", show::options(&named(tcp, None, flow)))),
        Some(options) => {
            fields.extend(option_fields(options, tcp, flow, rules));
            if !rules.neutral {
                let expected = 20 + options.iter().map(TcpOption::len).sum::<usize>() as u32;
                fields.push(Field::new("data offset", expected, header_len));
            }
        }
    }
    let whole = live.header_len + header_len as usize + tcp.payload.len();
    fields.push(Field::new("total length", format!("{whole}"), total(live.total_len)));
    fields.extend(timestamp_field(spec, tcp, flow, rules));
    let zeros = "zeros".to_owned();
    let stray = tcp.payload.iter().position(|byte| *byte != 0);
    let came = stray.map_or(zeros.clone(), |at| format!("byte {at} is {:#04x}", tcp.payload[at]));
    fields.push(Field::new("payload", zeros, came));
    fields.push(Field::new("TCP checksum", "right", if tcp.checksum_ok { "right" } else { "wrong" }));
    fields
}

const SYN: u16 = 1 << 1;
const PSH: u16 = 1 << 3;
const ACK: u16 = 1 << 4;

fn total((said, there): (usize, usize)) -> String {
    if said == there { format!("{said}") } else { format!("{said}, but {there} bytes came") }
}

fn protocol(live: &ParsedPacket) -> String {
    match &live.body {
        PacketBody::Tcp(_) => "TCP".to_owned(),
        PacketBody::Icmp(_) => "ICMP".to_owned(),
        PacketBody::Other(number) => format!("protocol {number}"),
    }
}

fn ip_fields(ip: &IpInfo, live: &ParsedPacket, flow: &Flow) -> Vec<Field> {
    let version = if flow.local.is_ipv6() { 6 } else { 4 };
    let header_len = if version == 6 { 40 } else { 20 };
    let mut fields = vec![
        Field::new("IP version", version, live.version),
        Field::new("IP header length", header_len, live.header_len),
        Field::new("source address", flow.local.ip(), live.source),
        Field::new("destination address", flow.remote.ip(), live.destination),
        Field::new("IP checksum", "right", if live.checksum_ok { "right" } else { "wrong" }),
    ];
    if let Some(tos) = ip.tos {
        fields.push(Field::new("TOS", format!("{tos:#04x}"), format!("{:#04x}", live.tos)));
    }
    if let Some(ttl) = ip.ttl {
        fields.push(Field::new("TTL", ttl, live.ttl));
    }
    if let Some(label) = ip.flow_label {
        fields.push(Field::new("flow label", format!("{label:#x}"), format!("{:#x}", live.flow_label)));
    }
    if let Some(ecn) = ip.ecn {
        let came = live.tos & 3;
        let right = match ecn {
            EcnSpec::None => came == 0,
            EcnSpec::Ect0 => came == 2,
            EcnSpec::Ect1 => came == 1,
            EcnSpec::Ect01 => came == 1 || came == 2,
            EcnSpec::Ce => came == 3,
        };
        let (expected, came) = (show::ecn(ecn).to_owned(), show::ECN[usize::from(came)].to_owned());
        fields.push(Field { name: "ECN", expected, came, right });
    }
    fields
}

/// Compares the ports. The flow has its own ports on the wire; a script's port matches if it maps to the one on the
/// wire.
fn ports(spec: &Tcp, tcp: &ParsedTcp, flow: &Flow) -> [Field; 2] {
    let (source, destination) = match (spec.ports, flow.script_ports) {
        (Some(given), Some((remote, local))) => {
            let of = |port: u16, script: u16, live: u16| if port == script { live } else { port };
            (of(given.0, local, flow.local.port()), of(given.1, remote, flow.remote.port()))
        }
        (Some((_, destination)), None) => (flow.local.port(), destination),
        (None, _) => (flow.local.port(), flow.remote.port()),
    };
    [
        Field::new("source port", source, tcp.source_port),
        Field::new("destination port", destination, tcp.destination_port),
    ]
}

/// The options of a segment in the script's numbers. A timestamp that the script names keeps the script's value.
pub(crate) fn named(tcp: &ParsedTcp, spec: Option<&[TcpOption]>, flow: &Flow) -> Vec<TcpOption> {
    let expected = spec.unwrap_or_default().iter().find_map(|option| match option {
        TcpOption::Timestamps { val, ecr } => Some((*val, *ecr)),
        _ => None,
    });
    let any_cookie = spec.unwrap_or_default().contains(&TcpOption::GivenCookie);
    let name = |option: &TcpOption| match option {
        TcpOption::Sack(blocks) => {
            let named = |(left, right): &(u32, u32)| {
                (flow.remote_to_script(*left, false), flow.remote_to_script(*right, false))
            };
            TcpOption::Sack(blocks.iter().map(named).collect())
        }
        TcpOption::Timestamps { val: Some(val), ecr } => match expected {
            // The script's value stands for the actual one. `timestamp_field` checks it, if at all.
            Some((val, open)) => TcpOption::Timestamps { val, ecr: open.and(*ecr) },
            None => TcpOption::Timestamps { val: Some(flow.timestamp_to_script(*val)), ecr: *ecr },
        },
        TcpOption::FastOpen(cookie) if !cookie.is_empty() && any_cookie => TcpOption::GivenCookie,
        other => other.clone(),
    };
    tcp.options.iter().map(name).collect()
}

fn option_fields(expected: &[TcpOption], tcp: &ParsedTcp, flow: &Flow, rules: Rules) -> Vec<Field> {
    let came = named(tcp, Some(expected), flow);
    if rules.neutral {
        let (expected, came) = (sorted(expected), sorted(&came));
        return vec![Field::new("options", show::options(&expected), show::options(&came))];
    }
    if expected == came {
        return vec![Field::new("options", show::options(expected), show::options(&came))];
    }
    // Report a different order or padding of the same options as a difference of its own.
    let same = sorted(expected) == sorted(&came);
    let name = if same { "order of options" } else { "options" };
    vec![Field::new(name, show::options(expected), show::options(&came))]
}

fn sorted(options: &[TcpOption]) -> Vec<TcpOption> {
    let mut kept: Vec<_> =
        options.iter().filter(|o| !matches!(o, TcpOption::Nop | TcpOption::End)).cloned().collect();
    kept.sort_by_key(show::option);
    kept
}

/// Compares the stack's clock with that of the script, if the script states the length of a tick.
fn timestamp_field(spec: &Tcp, tcp: &ParsedTcp, flow: &Flow, rules: Rules) -> Option<Field> {
    let (tick, slack) = rules.tick?;
    let first = flow.first_timestamp?;
    let of = |options: &[TcpOption]| {
        options.iter().find_map(|option| match option {
            TcpOption::Timestamps { val, .. } => *val,
            _ => None,
        })
    };
    let (script, live) = (of(spec.options.as_deref()?)?, of(&tcp.options)?);
    let came = live.wrapping_sub(first.live).wrapping_add(first.script);
    let off = i64::from(came.wrapping_sub(script) as i32).unsigned_abs() * tick;
    Some(Field { name: "TS val", expected: script.to_string(), came: came.to_string(), right: off <= slack })
}

/// Compares an ICMP message of the stack with its specification.
pub(crate) fn message(spec: &Icmp, ip: &IpInfo, live: &ParsedPacket, flow: &Flow) -> Vec<Field> {
    let PacketBody::Icmp(icmp) = &live.body else {
        return vec![Field::new("protocol", "ICMP".to_owned(), protocol(live))];
    };
    let mut fields = ip_fields(ip, live, flow);
    let v6 = flow.local.is_ipv6();
    let expected = build::numbers(spec, v6).map(|numbers| build::names(numbers, v6)).unwrap_or_default();
    fields.push(Field::new("type and code", expected, build::names((icmp.kind, icmp.code), v6)));
    if let Some(mtu) = spec.mtu {
        fields.push(Field::new("MTU", mtu, mtu_of(icmp, v6)));
    }
    if let Some(id) = spec.id {
        fields.push(Field::new("identifier", id, (icmp.rest >> 16) as u16));
    }
    if let Quoted::Tcp(seq, len) = spec.quoted {
        // The stack quotes a packet of the script.
        let came = icmp.quoted.map(|(seq, len)| (flow.remote_to_script(seq, false), len));
        let shown = |quoted: Option<(u32, u32)>| {
            quoted
                .map_or("nothing".to_owned(), |(seq, len)| format!("{seq}:{}({len})", seq.wrapping_add(len)))
        };
        fields.push(Field::new("quoted segment", shown(Some((seq, len))), shown(came)));
    }
    fields.push(Field::new("ICMP checksum", "right", if icmp.checksum_ok { "right" } else { "wrong" }));
    fields
}

fn mtu_of(icmp: &ParsedIcmp, v6: bool) -> u32 {
    if v6 { icmp.rest } else { icmp.rest & 0xffff }
}

/// Formats a packet as a line of a script.
pub(crate) fn line(live: &ParsedPacket, flow: Option<&Flow>, direction: Direction) -> String {
    let arrow = if direction == Direction::In { "<" } else { ">" };
    match &live.body {
        PacketBody::Tcp(tcp) => {
            let own = Flow::new(([0, 0, 0, 0], 0).into(), ([0, 0, 0, 0], 0).into(), None);
            let flow = flow.unwrap_or(&own);
            let syn = tcp.has(SYN);
            let (seq, ack, options) = match direction {
                Direction::Out => {
                    let (seq, ack) =
                        (flow.local_to_script(tcp.seq, syn), flow.remote_to_script(tcp.ack, syn));
                    (seq, ack, named(tcp, None, flow))
                }
                Direction::In => {
                    let (seq, ack) =
                        (flow.remote_to_script(tcp.seq, syn), flow.local_to_script(tcp.ack, syn));
                    (seq, ack, inbound(tcp, flow))
                }
            };
            let len = tcp.payload.len() as u32;
            let mut text =
                format!("{arrow} {} {seq}:{}({len})", show::flags(tcp.flags), seq.wrapping_add(len));
            if tcp.has(ACK) {
                text.push_str(&format!(" ack {ack}"));
            }
            text.push_str(&format!(" win {}", tcp.window));
            if tcp.urgent != 0 {
                text.push_str(&format!(" urg {}", tcp.urgent));
            }
            if !options.is_empty() {
                text.push_str(&format!(" {}", show::options(&options)));
            }
            text
        }
        PacketBody::Icmp(icmp) => {
            let names = build::names((icmp.kind, icmp.code), live.version == 6);
            let quoted = icmp.quoted.map_or(String::new(), |(seq, len)| {
                let seq = flow.map_or(seq, |flow| match direction {
                    Direction::In => flow.local_to_script(seq, false),
                    Direction::Out => flow.remote_to_script(seq, false),
                });
                format!(" [{seq}:{}({len})]", seq.wrapping_add(len))
            });
            format!("{arrow} icmp {names}{quoted}")
        }
        PacketBody::Other(protocol) => format!("{arrow} protocol {protocol}"),
    }
}

/// The options of a segment that the script sent, in the script's numbers.
fn inbound(tcp: &ParsedTcp, flow: &Flow) -> Vec<TcpOption> {
    let name = |option: &TcpOption| match option {
        TcpOption::Sack(blocks) => {
            let named = |(left, right): &(u32, u32)| {
                (flow.local_to_script(*left, false), flow.local_to_script(*right, false))
            };
            TcpOption::Sack(blocks.iter().map(named).collect())
        }
        TcpOption::Timestamps { val, ecr: Some(ecr) } if *ecr != 0 => {
            TcpOption::Timestamps { val: *val, ecr: Some(flow.timestamp_to_script(*ecr)) }
        }
        other => other.clone(),
    };
    tcp.options.iter().map(name).collect()
}

#[cfg(test)]
mod tests;
