//! The header before a packet on a device with offload: `struct virtio_net_hdr` (virtio 1.3 §5.1.6).
//!
//! A packet with `NEEDS_CSUM` has a *partial* checksum: its field holds the sum of the pseudo-header, and the side that
//! puts the packet on a wire adds the rest. Such a packet never left this machine. A packet with a `gso_type` is a
//! super-segment: the side that puts it on a wire cuts it into segments with `gso_size` bytes of payload. One of TCP is
//! as good whole; one of UDP is cut in `segments`.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::{Frame, Received};
use steadfast_wire::checksum::Sum;
use steadfast_wire::{PROTOCOL_TCP, ipv4, ipv6, tcp};

/// Length of the header in bytes. Its fields are in native byte order.
pub(crate) const HEADER_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// CWR is set. Segmentation must leave it in the first segment only.
const GSO_ECN: u8 = 0x80;

/// Reads one packet or frame.
pub(crate) fn read(fd: impl AsFd, virtio: bool, buffer: &mut [u8]) -> Result<Received, Errno> {
    if !virtio {
        return rustix::io::read(fd, buffer).map(Received::new);
    }
    let (header, len) = read_with_header(fd, buffer)?;
    Ok(received(&header, &mut buffer[..len]))
}

/// Reads one packet or frame. Returns the header before it, and its length.
pub(crate) fn read_with_header(fd: impl AsFd, buffer: &mut [u8]) -> Result<([u8; HEADER_LEN], usize), Errno> {
    let mut header = [0; HEADER_LEN];
    let len = rustix::io::readv(fd, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)])?;
    Ok((header, len.saturating_sub(header.len()).min(buffer.len())))
}

/// Returns how many bytes of payload each datagram of a UDP super-segment has. `None`: the `header` is that of another
/// packet.
pub(crate) fn datagram_size(header: &[u8; HEADER_LEN]) -> Option<usize> {
    let size = u16::from_ne_bytes([header[4], header[5]]);
    (header[1] & !GSO_ECN == GSO_UDP_L4).then_some(size.into())
}

/// Writes one packet, or one frame with a link-layer header of `link_len` bytes. Its slices follow its bytes in the same
/// call.
pub(crate) fn write(fd: impl AsFd, virtio: bool, link_len: usize, frame: &Frame<'_>) -> Result<usize, Errno> {
    let header = match virtio {
        true => Some(header_of(frame, link_len).ok_or(Errno::INVAL)?),
        false => None,
    };
    let header = header.as_ref().map_or(&[][..], |header| header);
    if frame.slices.is_empty() {
        return rustix::io::writev(fd, &[IoSlice::new(header), IoSlice::new(frame.bytes)]);
    }
    let parts = [header, frame.bytes].into_iter().chain(frame.slices.iter().map(|slice| &slice[..]));
    let parts: Vec<_> = parts.map(IoSlice::new).collect();
    rustix::io::writev(fd, &parts)
}

/// Returns the header for `frame`, whose packet is behind `link_len` bytes. `None`: it asks for offload without being a
/// TCP segment.
pub(crate) fn header_of(frame: &Frame<'_>, link_len: usize) -> Option<[u8; HEADER_LEN]> {
    if frame.segment_size.is_none() && !frame.checksum_offload {
        return Some([0; HEADER_LEN]);
    }
    let transport = Transport::of(frame.bytes, link_len)?;
    let gso_type = match (frame.segment_size, transport.ipv4) {
        (None, _) => GSO_NONE,
        (Some(_), true) => GSO_TCPV4 | transport.ecn,
        (Some(_), false) => GSO_TCPV6 | transport.ecn,
    };
    let checksum = frame.checksum_offload.then_some((transport.at as u16, tcp::CHECKSUM_AT as u16));
    let (start, offset) = checksum.unwrap_or_default();
    let mut header = [0; HEADER_LEN];
    header[0] = if checksum.is_some() { NEEDS_CSUM } else { 0 };
    header[1] = gso_type;
    header[2..4].copy_from_slice(&(transport.payload_at as u16).to_ne_bytes());
    header[4..6].copy_from_slice(&frame.segment_size.unwrap_or(0).to_ne_bytes());
    header[6..8].copy_from_slice(&start.to_ne_bytes());
    header[8..10].copy_from_slice(&offset.to_ne_bytes());
    Some(header)
}

/// Interprets the `header` of a received packet. A partial checksum of another protocol than TCP is completed, because
/// the stack does not trust it.
pub(crate) fn received(header: &[u8; HEADER_LEN], packet: &mut [u8]) -> Received {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let flags = header[0];
    let partial = flags & NEEDS_CSUM != 0;
    let (start, offset) = (usize::from(word(6)), usize::from(word(8)));
    let of_tcp = offset == tcp::CHECKSUM_AT;
    if partial && !of_tcp {
        complete_checksum(packet, start, offset);
    }
    Received { len: packet.len(), checksum_trusted: (partial && of_tcp) || flags & DATA_VALID != 0 }
}

/// Offsets of the parts of a TCP segment in its packet.
struct Transport {
    ipv4: bool,
    at: usize,
    payload_at: usize,
    ecn: u8,
}

impl Transport {
    /// Returns the parts of a packet behind `link_len` bytes. `None`: it is not a whole TCP segment.
    fn of(frame: &[u8], link_len: usize) -> Option<Transport> {
        let packet = frame.get(link_len..)?;
        // The checksum of the IPv4 header is of no interest here, nor is anything that a quote may lack.
        let ipv4 = packet.first()? >> 4 == 4;
        let (protocol, segment) = if ipv4 {
            let (header, segment) = ipv4::parse_quoted(packet)?;
            (header.protocol, segment)
        } else {
            let (header, segment) = ipv6::parse_quoted(packet)?;
            (header.protocol, segment)
        };
        if protocol != PROTOCOL_TCP {
            return None;
        }
        let (header, payload) = tcp::Header::parse(segment).ok()?;
        let (at, payload_at) = (frame.len() - segment.len(), frame.len() - payload.len());
        Some(Transport { ipv4, at, payload_at, ecn: if header.flags.cwr() { GSO_ECN } else { 0 } })
    }
}

/// Adds the data from `start` on to the sum of the pseudo-header, which lies at `start + offset`.
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) {
    let Some(covered) = packet.get_mut(start..) else { return };
    if covered.len() < offset + 2 {
        return;
    }
    let mut sum = Sum::new();
    sum.add_bytes(covered);
    let checksum = never_zero(sum.finish());
    covered[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Returns a checksum as UDP writes it: zero would mean that there is none (RFC 768).
pub(crate) fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use steadfast_wire::build;
    use steadfast_wire::tcp::{Flags, Options, Timestamps};

    fn header(flags: u8, gso_type: u8, words: [u16; 4]) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..2].copy_from_slice(&[flags, gso_type]);
        for (at, word) in words.iter().enumerate() {
            header[2 + 2 * at..4 + 2 * at].copy_from_slice(&word.to_ne_bytes());
        }
        header
    }

    /// An IPv4 or IPv6 packet with a TCP header of 32 bytes and a payload of zeros.
    fn tcp_packet(ipv4: bool, flags: Flags, payload: usize) -> Vec<u8> {
        let (source, destination) = match ipv4 {
            true => ("192.0.2.1:1", "192.0.2.2:2"),
            false => ("[fd00::1]:1", "[fd00::2]:2"),
        };
        let options = Options { timestamps: Some(Timestamps::default()), ..Options::default() };
        let header = tcp::Header { flags, options, ..tcp::Header::default() };
        build::tcp(source.parse().unwrap(), destination.parse().unwrap(), header, &vec![0; payload]).unwrap()
    }

    fn frame(bytes: &[u8], segment_size: Option<u16>) -> Frame<'_> {
        Frame { segment_size, checksum_offload: true, ..Frame::new(bytes) }
    }

    #[test]
    fn a_super_segment_says_where_its_headers_end_and_how_it_is_to_be_cut() {
        let four = tcp_packet(true, Flags::ACK, 5000);
        let expected = header(NEEDS_CSUM, GSO_TCPV4, [52, 1448, 20, 16]);
        assert_eq!(header_of(&frame(&four, Some(1448)), 0).unwrap(), expected);
        let six = tcp_packet(false, Flags::ACK | Flags::CWR, 5000);
        let expected = header(NEEDS_CSUM, GSO_TCPV6 | GSO_ECN, [72, 1428, 40, 16]);
        assert_eq!(header_of(&frame(&six, Some(1428)), 0).unwrap(), expected);
    }

    #[test]
    fn the_header_does_not_depend_on_where_the_payload_is() {
        for (ipv4, head) in [(true, 52), (false, 72)] {
            let packet = tcp_packet(ipv4, Flags::ACK, 5000);
            let rest = [Bytes::copy_from_slice(&packet[head..])];
            let whole = header_of(&frame(&packet, Some(1448)), 0);
            let in_slices = Frame { slices: &rest, ..frame(&packet[..head], Some(1448)) };
            assert_eq!(header_of(&in_slices, 0), whole);
            assert!(whole.is_some());
        }
    }

    #[test]
    fn a_segment_that_fits_needs_its_checksum_alone_and_a_ready_packet_nothing() {
        let packet = tcp_packet(true, Flags::ACK | Flags::CWR, 100);
        assert_eq!(
            header_of(&frame(&packet, None), 0).unwrap(),
            header(NEEDS_CSUM, GSO_NONE, [52, 0, 20, 16])
        );
        assert_eq!(header_of(&Frame::new(&packet), 0).unwrap(), [0; HEADER_LEN]);
    }

    #[test]
    fn what_is_no_tcp_segment_is_not_offloaded() {
        let mut udp = tcp_packet(true, Flags::ACK, 0);
        udp[9] = 17;
        let truncated = &tcp_packet(true, Flags::ACK, 0)[..40];
        for packet in [&udp[..], truncated, &[0x45], &[]] {
            assert!(header_of(&frame(packet, Some(1448)), 0).is_none(), "{packet:?}");
        }
    }

    #[test]
    fn only_what_the_kernel_vouches_for_is_trusted() {
        let mut packet = tcp_packet(true, Flags::ACK, 3000);
        let mut of = |flags, gso_type| received(&header(flags, gso_type, [52, 1448, 20, 16]), &mut packet);
        let partial = of(NEEDS_CSUM, GSO_TCPV4);
        assert_eq!((partial.len, partial.checksum_trusted), (3052, true));
        assert!(of(DATA_VALID, GSO_NONE).checksum_trusted);
        assert!(!of(0, GSO_NONE).checksum_trusted);
    }

    #[test]
    fn a_partial_checksum_of_another_protocol_is_made_whole_and_trusted_by_nobody() {
        // UDP 1.2.3.4:1 > 5.6.7.8:2, 3 bytes. The checksum field holds the sum of the pseudo-header.
        let pseudo: u16 = 0x0102 + 0x0304 + 0x0506 + 0x0708 + 17 + 11;
        let mut packet = [0; 20 + 11];
        packet[0] = 0x45;
        packet[20..].copy_from_slice(&[0, 1, 0, 2, 0, 11, 0, 0, b'a', b'b', b'c']);
        packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
        let received = received(&header(NEEDS_CSUM, GSO_NONE, [0, 0, 20, 6]), &mut packet);
        assert!(!received.checksum_trusted);
        let expected = !(pseudo + 1 + 2 + 11 + 0x6162 + 0x6300u16);
        assert_eq!(packet[26..28], expected.to_be_bytes());
    }

    #[test]
    fn a_header_that_points_past_the_packet_changes_nothing() {
        for (start, offset) in [(0, 65_535), (65_535, 0), (39, 0), (30, 9)] {
            let mut packet = [7; 40];
            received(&header(NEEDS_CSUM, GSO_NONE, [0, 0, start, offset]), &mut packet);
            assert_eq!(packet, [7; 40], "{start} {offset}");
        }
    }
}
