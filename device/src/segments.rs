//! Super-segments of UDP (`UDP_SEGMENT`, udp(7)): one packet that stands for many datagrams of the same size.
//!
//! A program on this machine may send them, and nobody cuts them on their way to a packet socket. The kernel cuts those for
//! a TUN device by itself, since the device does not ask for them. Unlike the cuts in a super-segment of TCP, these have a
//! meaning: each datagram is a message.

use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use steadfast_wire::checksum::{Sum, pseudo_header};
use steadfast_wire::{PROTOCOL_UDP, ipv4, ipv6, udp};

use crate::{Received, offload};

/// A super-segment, from which the datagrams are taken one by one.
#[derive(Default)]
pub(crate) struct Segments {
    frame: Vec<u8>,
    shape: Option<Shape>,
    /// Offset of the part of the payload that comes next.
    next: usize,
}

/// The parts of a frame, and how it is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    source: IpAddr,
    destination: IpAddr,
    link_len: usize,
    /// Length of the IP header with all that is before the UDP header.
    header_len: usize,
    /// End of the packet. Padding may follow.
    end: usize,
    /// Bytes of payload in each datagram but the last one.
    size: usize,
}

impl Segments {
    /// Reads a frame whose packet lies behind `link_len` bytes. A super-segment of UDP yields its first datagram.
    pub(crate) fn read(
        &mut self,
        fd: impl AsFd,
        link_len: usize,
        buffer: &mut [u8],
    ) -> Result<Received, Errno> {
        let (header, len) = offload::read_with_header(fd, buffer)?;
        let size = offload::datagram_size(&header);
        if size.is_some_and(|size| self.take(&buffer[..len], link_len, size))
            && let Some(first) = self.next(buffer)
        {
            return Ok(first);
        }
        Ok(offload::received(&header, &mut buffer[..len]))
    }

    /// Takes a frame that is to be cut. Returns whether it did: what is no UDP datagram stays as it is.
    fn take(&mut self, frame: &[u8], link_len: usize, size: usize) -> bool {
        let Some(shape) = Shape::of(frame, link_len, size) else { return false };
        self.frame.clear();
        self.frame.extend_from_slice(&frame[..shape.end]);
        self.next = shape.payload_at();
        self.shape = Some(shape);
        true
    }

    /// Writes the next datagram as a frame of its own. `None`: none is left.
    pub(crate) fn next(&mut self, buffer: &mut [u8]) -> Option<Received> {
        let shape = self.shape?;
        let payload_at = shape.payload_at();
        let rest = self.frame.get(self.next..).filter(|rest| !rest.is_empty())?;
        let payload = &rest[..rest.len().min(shape.size)];
        let frame = buffer.get_mut(..payload_at + payload.len())?;
        frame[..payload_at].copy_from_slice(&self.frame[..payload_at]);
        frame[payload_at..].copy_from_slice(payload);
        let number = (self.next - payload_at) / shape.size;
        self.next += payload.len();
        shape.complete(&mut frame[shape.link_len..], number as u16);
        Some(Received::new(frame.len()))
    }
}

impl Shape {
    /// `None`: the frame holds no UDP datagram with a payload, or a fragment, or its parts have no size.
    fn of(frame: &[u8], link_len: usize, size: usize) -> Option<Shape> {
        let packet = frame.get(link_len..)?;
        let (source, destination, len, datagram) = if packet.first()? >> 4 == 4 {
            let (header, datagram) = ipv4::parse(packet).ok()?;
            let is_whole = header.fragment_offset == 0 && !header.more_fragments;
            let len = u16::from_be_bytes([packet[2], packet[3]]);
            let ends = (header.source.into(), header.destination.into());
            (header.protocol == PROTOCOL_UDP && is_whole).then_some((ends.0, ends.1, len.into(), datagram))?
        } else {
            let (header, datagram) = ipv6::parse(packet).ok()?;
            let len = ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            let is_udp = header.protocol == PROTOCOL_UDP && header.fragment.is_none();
            let ends = (header.source.into(), header.destination.into());
            is_udp.then_some((ends.0, ends.1, len, datagram))?
        };
        if datagram.len() <= udp::HEADER_LEN || size == 0 {
            return None;
        }
        let header_len = len - datagram.len();
        Some(Shape { source, destination, link_len, header_len, end: link_len + len, size })
    }

    fn payload_at(&self) -> usize {
        self.link_len + self.header_len + udp::HEADER_LEN
    }

    /// Writes the lengths and checksums of a packet. Over IPv4, each one has an identification of its own (RFC 791 §2.3).
    fn complete(&self, packet: &mut [u8], number: u16) {
        let len = packet.len();
        let (header, datagram) = packet.split_at_mut(self.header_len);
        if self.source.is_ipv4() {
            let first = u16::from_be_bytes([header[4], header[5]]);
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            header[4..6].copy_from_slice(&first.wrapping_add(number).to_be_bytes());
            header[10..12].fill(0);
            let mut sum = Sum::new();
            sum.add_bytes(header);
            header[10..12].copy_from_slice(&sum.finish().to_be_bytes());
        } else {
            header[4..6].copy_from_slice(&((len - ipv6::HEADER_LEN) as u16).to_be_bytes());
        }
        let len = datagram.len() as u16;
        datagram[4..6].copy_from_slice(&len.to_be_bytes());
        datagram[udp::CHECKSUM_AT..udp::HEADER_LEN].fill(0);
        let mut sum = pseudo_header(self.source, self.destination, PROTOCOL_UDP, len.into());
        sum.add_bytes(datagram);
        let checksum = offload::never_zero(sum.finish());
        datagram[udp::CHECKSUM_AT..udp::HEADER_LEN].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_wire::build;

    const LINK_LEN: usize = 14;

    /// A frame of a UDP super-segment, and its payload.
    fn super_segment(ipv4: bool, payload_len: usize) -> (Vec<u8>, Vec<u8>) {
        let (source, destination) = if ipv4 { ("192.0.2.1", "192.0.2.2") } else { ("fd00::1", "fd00::2") };
        let payload: Vec<u8> = (0..payload_len).map(|at| (at % 251) as u8).collect();
        let mut datagram = vec![0; udp::HEADER_LEN];
        let header = udp::Header { source_port: 7, destination_port: 9, checksum: 0x1234 };
        header.emit(payload_len, &mut datagram);
        datagram.extend(&payload);
        let packet =
            build::ip(source.parse().unwrap(), destination.parse().unwrap(), PROTOCOL_UDP, &datagram);
        ([vec![0xee; LINK_LEN], packet.unwrap()].concat(), payload)
    }

    /// Cuts a frame. Each part must be a sound packet with the link-layer header of the whole; returns their payloads
    /// and, over IPv4, their identifications.
    fn cut(frame: &[u8], size: usize) -> Vec<(Vec<u8>, Option<u16>)> {
        let mut segments = Segments::default();
        assert!(segments.take(frame, LINK_LEN, size));
        let mut buffer = vec![0; LINK_LEN + 65_535];
        let mut parts = Vec::new();
        while let Some(Received { len, checksum_trusted: false }) = segments.next(&mut buffer) {
            assert_eq!(buffer[..LINK_LEN], frame[..LINK_LEN]);
            let packet = &buffer[LINK_LEN..len];
            let (source, destination, datagram, identification): (IpAddr, IpAddr, _, _) = match packet[0] >> 4
            {
                4 => {
                    let (header, datagram) = ipv4::parse(packet).unwrap();
                    let identification = Some(header.identification);
                    (header.source.into(), header.destination.into(), datagram, identification)
                }
                _ => {
                    let (header, datagram) = ipv6::parse(packet).unwrap();
                    (header.source.into(), header.destination.into(), datagram, None)
                }
            };
            let len = datagram.len() as u32;
            assert!(pseudo_header(source, destination, PROTOCOL_UDP, len).verifies(datagram));
            let (header, payload) = udp::parse(datagram).unwrap();
            assert_eq!((header.source_port, header.destination_port), (7, 9));
            assert_eq!(payload.len() + udp::HEADER_LEN, datagram.len());
            parts.push((payload.to_vec(), identification));
        }
        parts
    }

    #[test]
    fn a_super_segment_is_cut_into_datagrams_whose_checksums_are_right() {
        for ipv4 in [true, false] {
            let (frame, payload) = super_segment(ipv4, 2500);
            let parts = cut(&frame, 1000);
            let expected: Vec<&[u8]> = payload.chunks(1000).collect();
            assert_eq!(parts.iter().map(|(payload, _)| &payload[..]).collect::<Vec<_>>(), expected);
            let numbers: Vec<u16> = parts.iter().filter_map(|(_, number)| *number).collect();
            assert_eq!(numbers, if ipv4 { vec![0, 1, 2] } else { vec![] });
        }
    }

    #[test]
    fn padding_is_no_payload() {
        let (mut frame, payload) = super_segment(true, 12);
        frame.extend([0; 6]);
        let parts: Vec<Vec<u8>> = cut(&frame, 8).into_iter().map(|(payload, _)| payload).collect();
        assert_eq!(parts, [&payload[..8], &payload[8..]]);
    }

    #[test]
    fn what_cannot_be_cut_stays_as_it_is() {
        let (whole, _) = super_segment(true, 100);
        let (empty, _) = super_segment(false, 0);
        let mut segments = Segments::default();
        for (frame, size) in
            [(&whole[..], 0), (&whole[..60], 10), (&whole[..LINK_LEN], 10), (&[], 10), (&empty, 10)]
        {
            assert!(!segments.take(frame, LINK_LEN, size), "{} {size}", frame.len());
        }
        assert_eq!(segments.next(&mut [0; 100]), None);
    }
}
