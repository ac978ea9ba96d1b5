//! Fragmentation on the path, even of packets that forbid it (RFC 791 §3.2, RFC 8200 §4.5).

use bytes::Bytes;
use steadfast_core::wire::checksum::Sum;
use steadfast_core::wire::{ipv6, udp};

use steadfast_timeline::view::{Kind, View};

/// The protocol number of the IPv6 fragment header.
const PROTOCOL_FRAGMENT: u8 = 44;
/// The unit of fragment offsets, in bytes.
const UNIT: usize = 8;
/// Offset of the checksum in the TCP header.
const TCP_CHECKSUM_AT: usize = 16;

/// Splits `packet` into fragments of at most `size` bytes. With `overlap`, every fragment but the first starts one unit
/// early.
pub fn fragments(packet: &[u8], size: usize, overlap: bool) -> Vec<Bytes> {
    let Some(view) = View::new(packet) else { return vec![Bytes::copy_from_slice(packet)] };
    let (head, payload) = packet.split_at(view.ip_len);
    // The identification is shared by the fragments of one packet only. The checksum serves as such.
    let sum_at = if matches!(view.kind, Kind::Udp { .. }) { udp::CHECKSUM_AT } else { TCP_CHECKSUM_AT };
    let identification = payload.get(sum_at..sum_at + 2).map_or([0; 2], |sum| [sum[0], sum[1]]);
    let extra = if view.source.is_ipv4() { 0 } else { UNIT };
    let step = (size.saturating_sub(head.len() + extra) / UNIT * UNIT).max(UNIT);
    let piece = |start: usize| {
        let end = (start + step).min(payload.len());
        let start = if overlap { start.saturating_sub(UNIT) } else { start };
        let (more, data) = (end < payload.len(), &payload[start..end]);
        match view.source.is_ipv4() {
            true => piece_v4(head, identification, start, more, data),
            false => piece_v6(head, identification, start, more, data),
        }
    };
    (0..payload.len()).step_by(step).map(piece).collect()
}

fn piece_v4(head: &[u8], identification: [u8; 2], offset: usize, more: bool, data: &[u8]) -> Bytes {
    let mut out = [head, data].concat();
    let place = u16::from(more) << 13 | (offset / UNIT) as u16;
    let total = out.len() as u16;
    out[2..4].copy_from_slice(&total.to_be_bytes());
    out[4..6].copy_from_slice(&identification);
    out[6..8].copy_from_slice(&place.to_be_bytes());
    out[10..12].fill(0);
    let mut sum = Sum::new();
    sum.add_bytes(&out[..head.len()]);
    out[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    out.into()
}

fn piece_v6(head: &[u8], identification: [u8; 2], offset: usize, more: bool, data: &[u8]) -> Bytes {
    let place = offset as u16 | u16::from(more);
    let mut out = head[..ipv6::HEADER_LEN].to_vec();
    let protocol = std::mem::replace(&mut out[6], PROTOCOL_FRAGMENT);
    out.extend([protocol, 0]);
    out.extend(place.to_be_bytes());
    out.extend([0, 0]);
    out.extend(identification);
    out.extend(data);
    let length = (out.len() - ipv6::HEADER_LEN) as u16;
    out[4..6].copy_from_slice(&length.to_be_bytes());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mangle::forged;
    use steadfast_core::wire::tcp::Header;
    use steadfast_core::wire::{ipv4, ipv6};

    /// The fragments reassemble to the packet's payload, and none exceeds its size.
    #[test]
    fn pieces_are_whole_and_make_the_payload_again() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = forged(from, to, &Header::default(), &[7; 1000]);
            let head = View::new(&packet).unwrap().ip_len;
            for overlap in [false, true] {
                let mut whole = vec![0; packet.len() - head];
                let pieces = fragments(&packet, 300, overlap);
                for (index, piece) in pieces.iter().enumerate() {
                    let (offset, more, data) = if head == 20 {
                        let (header, data) = ipv4::parse(piece).unwrap();
                        (usize::from(header.fragment_offset), header.more_fragments, data)
                    } else {
                        let (header, data) = ipv6::parse(piece).unwrap();
                        let fragment = header.fragment.unwrap();
                        (usize::from(fragment.offset), fragment.more, data)
                    };
                    assert_eq!(more, index + 1 < pieces.len());
                    assert!(piece.len() <= 300 + if overlap { UNIT } else { 0 }, "{}", piece.len());
                    whole[offset..offset + data.len()].copy_from_slice(data);
                }
                assert_eq!(whole, packet[head..], "overlap {overlap}");
            }
        }
    }
}
