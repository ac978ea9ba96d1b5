//! UDP datagrams that change on the path (RFC 768).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::wire::checksum::pseudo_header;
use steadfast_core::wire::{PROTOCOL_UDP, udp};

use super::{rewrite_ip, sum_ip};
use crate::fault::Rewrite;
use steadfast_timeline::view::{Kind, View};

/// Offset of the length in the header.
const LENGTH_AT: usize = 4;

/// Changes fields of a datagram and of its IP header. Both checksums are updated, but for changes of the length and of
/// the checksum.
pub(super) fn rewritten(packet: &[u8], ip_len: usize, changes: &[Rewrite]) -> Bytes {
    let (ip, datagram) = packet.split_at(ip_len);
    let mut ip = ip.to_vec();
    changes.iter().for_each(|change| rewrite_ip(&mut ip, change));
    let ip_len = ip.len();
    ip.extend_from_slice(datagram);
    if ip[0] >> 4 == 4 {
        let total = (ip.len() as u16).to_be_bytes();
        ip[2..4].copy_from_slice(&total);
    }
    let has_sum = datagram[udp::CHECKSUM_AT..udp::HEADER_LEN] != [0, 0];
    sum(&mut ip, ip_len, has_sum);
    for change in changes {
        let (at, value) = match change {
            Rewrite::Length(length) => (LENGTH_AT, length),
            Rewrite::Checksum(sum) => (udp::CHECKSUM_AT, sum),
            _ => continue,
        };
        ip[ip_len + at..ip_len + at + 2].copy_from_slice(&value.to_be_bytes());
    }
    ip.into()
}

/// Returns the packet of a datagram with other ports, and with other addresses where they are of the same family.
pub(crate) fn with_ends(packet: &[u8], from: SocketAddr, to: SocketAddr) -> Bytes {
    let Some(View { kind: Kind::Udp { header, .. }, ip_len, .. }) = View::new(packet) else {
        return Bytes::copy_from_slice(packet);
    };
    let mut out = packet.to_vec();
    out[ip_len..ip_len + 2].copy_from_slice(&from.port().to_be_bytes());
    out[ip_len + 2..ip_len + 4].copy_from_slice(&to.port().to_be_bytes());
    if let (4, IpAddr::V4(from), IpAddr::V4(to)) = (packet[0] >> 4, from.ip(), to.ip()) {
        out[12..16].copy_from_slice(&from.octets());
        out[16..20].copy_from_slice(&to.octets());
    }
    sum(&mut out, ip_len, header.checksum != 0);
    out.into()
}

/// Fixes the checksums of a datagram's packet. A datagram without one stays so.
fn sum(packet: &mut [u8], ip_len: usize, has_sum: bool) {
    sum_ip(packet, ip_len);
    let Some(view) = View::new(packet).filter(|_| has_sum) else { return };
    let datagram = &mut packet[ip_len..];
    datagram[udp::CHECKSUM_AT..udp::HEADER_LEN].fill(0);
    let mut sum = pseudo_header(view.source, view.destination, PROTOCOL_UDP, datagram.len() as u32);
    sum.add_bytes(datagram);
    // Zero would mean that there is no checksum.
    let sum = Some(sum.finish()).filter(|sum| *sum != 0).unwrap_or(0xffff);
    datagram[udp::CHECKSUM_AT..udp::HEADER_LEN].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::wire::{build, ipv4};

    /// A datagram with its checksum, from port 5000 to port 53.
    fn datagram(from: &str, to: &str) -> Bytes {
        let payload = b"data";
        let mut bytes = vec![0; udp::HEADER_LEN];
        udp::Header { source_port: 5000, destination_port: 53, checksum: 1 }.emit(payload.len(), &mut bytes);
        bytes.extend(payload);
        let packet = build::ip(from.parse().unwrap(), to.parse().unwrap(), PROTOCOL_UDP, &bytes).unwrap();
        let ip_len = packet.len() - bytes.len();
        rewritten(&packet, ip_len, &[])
    }

    fn sound(packet: &[u8]) -> bool {
        let view = View::new(packet).unwrap();
        let datagram = &packet[view.ip_len..];
        let ip = packet[0] >> 4 == 6 || ipv4::parse(packet).is_ok();
        ip && pseudo_header(view.source, view.destination, PROTOCOL_UDP, datagram.len() as u32)
            .verifies(datagram)
    }

    #[test]
    fn a_changed_datagram_is_sound_but_for_its_length_and_its_checksum() {
        for (from, to, other) in [("10.0.0.1", "10.0.0.2", "224.0.0.1"), ("fd00::1", "fd00::2", "ff02::1")] {
            let packet = datagram(from, to);
            assert!(sound(&packet));
            let ip_len = View::new(&packet).unwrap().ip_len;
            let source: IpAddr = other.parse().unwrap();
            let moved = rewritten(&packet, ip_len, &[Rewrite::Source(source), Rewrite::Ttl(3)]);
            assert!(sound(&moved));
            assert_eq!(View::new(&moved).unwrap().source, source);
            let unsummed = rewritten(&packet, ip_len, &[Rewrite::Checksum(0)]);
            assert!(!sound(&unsummed));
            assert_eq!(rewritten(&unsummed, ip_len, &[Rewrite::Ttl(64)]), unsummed);
            let longer = rewritten(&packet, ip_len, &[Rewrite::Length(100)]);
            assert_eq!(steadfast_timeline::view::text(&longer), "UDP, bad length 92 > 4");
        }
        let packet = datagram("10.0.0.1", "10.0.0.2");
        let ends = (SocketAddr::from(([192, 0, 2, 1], 40_000)), SocketAddr::from(([10, 0, 0, 9], 54)));
        let out = with_ends(&packet, ends.0, ends.1);
        assert!(sound(&out));
        assert_eq!(View::new(&out).unwrap().ends(), Some(ends));
    }
}
