//! Packets as bytes: parsed, modified and forged.

pub(crate) mod datagram;
mod fragments;

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::checksum::Sum;
use steadfast_core::wire::icmp::{ErrorKind, Message};
use steadfast_core::wire::tcp::{self, Cookie, Flags, Header};
use steadfast_core::wire::{build, ipv6};

use steadfast_timeline::flows::seq_end;
use steadfast_timeline::view::{Kind, View};

pub use self::fragments::fragments;
use crate::fault::{OptionName, Part, Rewrite};
use crate::rng::Rng;

/// Returns whether the packet's length field is right and its headers parse.
pub(crate) fn is_whole(packet: &[u8]) -> bool {
    let length = match packet {
        [first, _, high, low, ..] if first >> 4 == 4 => usize::from(u16::from_be_bytes([*high, *low])),
        [_, _, _, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])) + ipv6::HEADER_LEN,
        _ => return false,
    };
    length == packet.len() && View::new(packet).is_some_and(|view| !matches!(view.kind, Kind::Other))
}

/// Replaces the TCP header and payload of a packet, and fixes its checksums.
pub(crate) fn rebuilt(packet: &[u8], header: &Header, payload: &[u8]) -> Bytes {
    let Some(view) = View::new(packet) else { return Bytes::copy_from_slice(packet) };
    let tcp_len = header.header_len() + payload.len();
    let mut out = packet[..view.ip_len].to_vec();
    out.resize(view.ip_len + tcp_len, 0);
    header.emit(&mut out[view.ip_len..]);
    out[view.ip_len + header.header_len()..].copy_from_slice(payload);
    match view.source {
        IpAddr::V4(_) => {
            let total = out.len() as u16;
            out[2..4].copy_from_slice(&total.to_be_bytes());
        }
        IpAddr::V6(_) => out[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes()),
    }
    summed(&mut out, &view);
    out.into()
}

/// Fixes the checksum of an IPv4 header.
fn sum_ip(packet: &mut [u8], ip_len: usize) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let mut sum = Sum::new();
        sum.add_bytes(&packet[..ip_len]);
        let sum = sum.finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Fixes the checksums of a TCP packet.
fn summed(packet: &mut [u8], view: &View) {
    sum_ip(packet, view.ip_len);
    let segment = &mut packet[view.ip_len..];
    tcp::write_checksum(view.source, view.destination, segment);
}

/// Translates the addresses and ports of a packet, as a NAT does.
pub(crate) fn readdressed(packet: &[u8], from: SocketAddr, to: SocketAddr) -> Bytes {
    let Some(View { kind: Kind::Tcp { mut header, payload }, .. }) = View::new(packet) else {
        return datagram::with_ends(packet, from, to);
    };
    header.source_port = from.port();
    header.destination_port = to.port();
    let mut out = packet.to_vec();
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (from.ip(), to.ip()) {
        out[12..16].copy_from_slice(&from.octets());
        out[16..20].copy_from_slice(&to.octets());
    }
    rebuilt(&out, &header, &packet[payload])
}

/// Changes fields of a packet. `stream` provides bytes of the sender's stream.
pub(crate) fn rewritten(packet: &[u8], changes: &[Rewrite], stream: impl Fn(usize) -> Bytes) -> Bytes {
    let (mut header, payload, ip_len) = match View::new(packet) {
        Some(View { kind: Kind::Tcp { header, payload }, ip_len, .. }) => (header, payload, ip_len),
        Some(View { kind: Kind::Udp { .. }, ip_len, .. }) => {
            return datagram::rewritten(packet, ip_len, changes);
        }
        _ => return Bytes::copy_from_slice(packet),
    };
    let mut ip = packet[..ip_len].to_vec();
    let mut payload = Bytes::copy_from_slice(&packet[payload]);
    for change in changes {
        match change {
            Rewrite::Mss(n) => header.options.mss = Some(*n),
            Rewrite::WindowScale(n) => header.options.window_scale = Some(*n),
            Rewrite::Window(n) => header.window = *n,
            Rewrite::Flags(flags) => header.flags = *flags,
            Rewrite::SeqAdd(n) => header.seq += *n,
            Rewrite::AckAdd(n) => header.ack += *n,
            Rewrite::Cookie(bytes) => header.options.fast_open = Cookie::new(bytes),
            Rewrite::TsVal(n) => header.options.timestamps.iter_mut().for_each(|ts| ts.val = *n),
            Rewrite::TsEcr(n) => header.options.timestamps.iter_mut().for_each(|ts| ts.ecr = *n),
            Rewrite::Urgent(n) => header.urgent = *n,
            Rewrite::Data(n) => payload = stream(*n),
            other => rewrite_ip(&mut ip, other),
        }
    }
    rebuilt(&ip, &header, &payload)
}

/// Changes a field of an IP header, if the change is about one.
fn rewrite_ip(ip: &mut Vec<u8>, change: &Rewrite) {
    let v4 = ip[0] >> 4 == 4;
    match change {
        Rewrite::Ttl(n) => ip[if v4 { 8 } else { 7 }] = *n,
        Rewrite::Ecn(n) if v4 => ip[1] = ip[1] & !3 | n,
        Rewrite::Ecn(n) => ip[1] = ip[1] & !0x30 | n << 4,
        Rewrite::Source(IpAddr::V4(source)) if v4 => ip[12..16].copy_from_slice(&source.octets()),
        Rewrite::Source(IpAddr::V6(source)) if !v4 => ip[8..24].copy_from_slice(&source.octets()),
        Rewrite::Route(via) if v4 => {
            // A loose source route, with its pointer at the one remaining address, and padding.
            ip.extend([131, 7, 4]);
            ip.extend(via.octets());
            ip.push(0);
            ip[0] += 2;
        }
        _ => {}
    }
}

/// Removes TCP options from a packet.
pub(crate) fn stripped(packet: &[u8], options: &[OptionName]) -> Bytes {
    let Some(View { kind: Kind::Tcp { mut header, payload }, .. }) = View::new(packet) else {
        return Bytes::copy_from_slice(packet);
    };
    for option in options {
        let all = *option == OptionName::All;
        let options = &mut header.options;
        if all || *option == OptionName::Mss {
            options.mss = None;
        }
        if all || *option == OptionName::WindowScale {
            options.window_scale = None;
        }
        if all || *option == OptionName::Sack {
            options.sack_permitted = false;
            options.sack = tcp::SackBlocks::new();
        }
        if all || *option == OptionName::Timestamps {
            options.timestamps = None;
        }
        if all || *option == OptionName::FastOpen {
            options.fast_open = None;
        }
    }
    rebuilt(packet, &header, &packet[payload])
}

/// Splits a segment into several with these flags. A piece without SYN keeps its sequence number, or follows an earlier
/// SYN. The last piece has the payload.
pub(crate) fn split(packet: &[u8], pieces: &[Flags]) -> Vec<Bytes> {
    let Some(View { kind: Kind::Tcp { header, payload }, .. }) = View::new(packet) else { return Vec::new() };
    let last = pieces.len().saturating_sub(1);
    let piece = |(index, flags): (usize, &Flags)| {
        let mut header = Header { flags: *flags, ..header };
        if !flags.syn() {
            let timestamps = header.options.timestamps;
            header.options = tcp::Options { timestamps, ..tcp::Options::default() };
            // It follows the SYN of an earlier piece.
            header.seq += u32::from(pieces[..index].iter().any(|flags| flags.syn()));
        }
        rebuilt(packet, &header, if index == last { &packet[payload.clone()] } else { &[] })
    };
    pieces.iter().enumerate().map(piece).collect()
}

/// Flips one bit of a packet, without fixing its checksums.
pub(crate) fn corrupted(packet: &[u8], part: Part, rng: &mut Rng) -> Bytes {
    let mut out = packet.to_vec();
    let Some(view) = View::new(packet) else { return out.into() };
    let data = match &view.kind {
        Kind::Tcp { payload, .. } | Kind::Udp { payload, .. } if !payload.is_empty() => payload.clone(),
        _ => view.ip_len..packet.len(),
    };
    let range = match part {
        Part::Ip => 0..view.ip_len,
        Part::Header => view.ip_len..if data.start > view.ip_len { data.start } else { packet.len() },
        Part::Data => data,
        Part::Segment => view.ip_len..packet.len(),
    };
    if range.is_empty() {
        return out.into();
    }
    let bit = rng.below(range.len() as u64 * 8) as usize;
    out[range.start + bit / 8] ^= 1 << (bit % 8);
    out.into()
}

/// Forges a TCP segment. Empty if the addresses are of two families.
pub(crate) fn forged(from: IpAddr, to: IpAddr, header: &Header, payload: &[u8]) -> Bytes {
    let (from, to) =
        (SocketAddr::new(from, header.source_port), SocketAddr::new(to, header.destination_port));
    build::tcp(from, to, *header, payload).map(Bytes::from).unwrap_or_default()
}

/// Bytes of the offending packet that an ICMP error quotes (RFC 1812 §4.3.2.3, RFC 4443 §3).
const QUOTED_V4: usize = 548;
const QUOTED_V6: usize = 1232;

/// A router's ICMP error about `packet`, addressed to its sender. `None` if ICMP has no such error.
pub(crate) fn icmp_error(router: IpAddr, packet: &[u8], kind: ErrorKind) -> Option<Bytes> {
    let view = View::new(packet)?;
    let most = if router.is_ipv4() { QUOTED_V4 } else { QUOTED_V6 };
    let quoted = &packet[..packet.len().min(most)];
    build::icmp(router, view.source, &Message::Error { kind, quoted }).map(Bytes::from)
}

/// The RST that the destination sends if it has no connection (RFC 9293 §3.10.7.1).
pub(crate) fn rst_for(packet: &[u8]) -> Option<Bytes> {
    let view = View::new(packet)?;
    let (from, to) = view.ends()?;
    let Kind::Tcp { header, payload } = &view.kind else { return None };
    if header.flags.rst() {
        return None;
    }
    let end = seq_end(header, payload.len());
    let (flags, seq, ack) = if header.flags.ack() {
        (Flags::RST, header.ack, SeqNum(0))
    } else {
        (Flags::RST | Flags::ACK, SeqNum(0), end)
    };
    let reply = Header {
        source_port: to.port(),
        destination_port: from.port(),
        seq,
        ack,
        flags,
        ..Header::default()
    };
    Some(forged(to.ip(), from.ip(), &reply, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::wire::ipv4;
    use steadfast_core::wire::tcp::{Options, Timestamps, checksum_ok};

    fn syn(v6: bool) -> Bytes {
        let (a, b): (IpAddr, IpAddr) = if v6 {
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
        } else {
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())
        };
        let options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { val: 5, ecr: 0 }),
            ..Options::default()
        };
        let header = Header {
            source_port: 5000,
            destination_port: 80,
            seq: SeqNum(1000),
            flags: Flags::SYN,
            window: 65_535,
            options,
            ..Header::default()
        };
        forged(a, b, &header, b"data")
    }

    fn header_of(packet: &[u8]) -> Header {
        match View::new(packet).unwrap().kind {
            Kind::Tcp { header, .. } => header,
            other => panic!("{other:?}"),
        }
    }

    fn sound(packet: &[u8]) -> bool {
        let view = View::new(packet).unwrap();
        let ip = packet[0] >> 4 == 6 || ipv4::parse(packet).is_ok();
        ip && checksum_ok(view.source, view.destination, &packet[view.ip_len..])
    }

    #[test]
    fn what_is_rewritten_stripped_split_or_readdressed_is_sound() {
        for v6 in [false, true] {
            let packet = syn(v6);
            assert!(sound(&packet) && is_whole(&packet) && !is_whole(&packet[..50]));
            let changes =
                [Rewrite::Mss(536), Rewrite::Window(0), Rewrite::Ttl(3), Rewrite::Ecn(3), Rewrite::SeqAdd(5)];
            let out = rewritten(&packet, &changes, |_| Bytes::new());
            assert!(sound(&out));
            let header = header_of(&out);
            assert_eq!((header.options.mss, header.window, header.seq), (Some(536), 0, SeqNum(1005)));
            let out = stripped(&packet, &[OptionName::Timestamps, OptionName::Sack]);
            assert!(sound(&out));
            let options = header_of(&out).options;
            assert_eq!((options.timestamps, options.sack_permitted, options.mss), (None, false, Some(1460)));
            let pieces = split(&packet, &[Flags::ACK, Flags::SYN]);
            assert!(pieces.iter().all(|p| sound(p)));
            assert_eq!(header_of(&pieces[1]).flags, Flags::SYN);
            assert!(pieces[1].ends_with(b"data") && !pieces[0].ends_with(b"data"));
        }
        let (a, b) = (SocketAddr::from(([192, 0, 2, 1], 40_000)), SocketAddr::from(([10, 0, 0, 2], 80)));
        let out = readdressed(&syn(false), a, b);
        assert!(sound(&out));
        assert_eq!(View::new(&out).unwrap().ends(), Some((a, b)));
    }

    #[test]
    fn a_corrupted_packet_is_not_sound() {
        let mut rng = Rng::new(1);
        for part in [Part::Header, Part::Data, Part::Segment] {
            for _ in 0..50 {
                let out = corrupted(&syn(false), part, &mut rng);
                let view = View::new(&out).unwrap();
                assert!(!checksum_ok(view.source, view.destination, &out[view.ip_len..]), "{part:?}");
            }
        }
        assert!(ipv4::parse(&corrupted(&syn(false), Part::Ip, &mut rng)).is_err());
    }

    #[test]
    fn icmp_errors_quote_the_packet_and_say_what_they_mean() {
        for v6 in [false, true] {
            let router: IpAddr = if v6 { "fd00::fe".parse().unwrap() } else { "10.0.0.254".parse().unwrap() };
            let error = icmp_error(router, &syn(v6), ErrorKind::PacketTooBig { mtu: 1200 }).unwrap();
            assert_eq!(steadfast_timeline::view::icmp_text(&error), "icmp too big, mtu 1200");
        }
        assert_eq!(icmp_error("fd00::fe".parse().unwrap(), &syn(true), ErrorKind::SourceQuench), None);
    }

    #[test]
    fn a_rst_answers_what_it_is_about_but_never_a_rst() {
        let rst = rst_for(&syn(false)).unwrap();
        let header = header_of(&rst);
        assert!(sound(&rst) && header.flags == Flags::RST | Flags::ACK);
        assert_eq!((header.seq, header.ack), (SeqNum(0), SeqNum(1005)));
        assert_eq!(rst_for(&rst), None);
    }
}
