//! Loopback addresses of a guest that stand for those of the machine.
//!
//! A guest whose kernel routes connections to 127.0.0.1 into the device would reach a stack that, as every host, takes no
//! packet with a loopback address from a wire. So the address is translated on its way, in both directions.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll};

use steadfast::device::{Capabilities, Device, Frame, Received};

use crate::subnet::Subnet;

/// A device that translates 127.0.0.1 of guests into the address of the subnet that stands for it, and back.
pub(crate) struct Localhost<D> {
    device: D,
    alias: Ipv4Addr,
    buffer: Vec<u8>,
}

impl<D> Localhost<D> {
    pub(crate) fn new(device: D, subnet: &Subnet) -> Localhost<D> {
        let v4 = |address| if let IpAddr::V4(address) = address { Some(address) } else { None };
        let alias = subnet.localhost().find_map(v4).expect("a subnet has an IPv4 network");
        Localhost { device, alias, buffer: Vec::new() }
    }
}

impl<D: Device> Device for Localhost<D> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        let received = self.device.poll_recv(cx, buffer);
        if let Poll::Ready(Ok(received)) = &received {
            let at = ip_at(&self.capabilities());
            // A trusted checksum is not looked at.
            let sums = if received.checksum_trusted { Sums::Header } else { Sums::Complete };
            if let Some(packet) = buffer.get_mut(at..received.len) {
                translate(packet, DESTINATION, Ipv4Addr::LOCALHOST, self.alias, sums);
            }
        }
        received
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let at = ip_at(&self.capabilities());
        let is_ours = frame.bytes.get(at + SOURCE..at + SOURCE + 4) == Some(&self.alias.octets()[..]);
        if !is_ours {
            return self.device.poll_send(cx, frame);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(frame.bytes);
        let sums = if frame.checksum_offload { Sums::Partial } else { Sums::Complete };
        translate(&mut self.buffer[at..], SOURCE, self.alias, Ipv4Addr::LOCALHOST, sums);
        let mut translated = Frame::new(&self.buffer);
        translated.segment_size = frame.segment_size;
        translated.checksum_offload = frame.checksum_offload;
        translated.slices = frame.slices;
        self.device.poll_send(cx, translated)
    }

    fn gathers(&self) -> bool {
        self.device.gathers()
    }
}

/// Offset of the IP packet in a frame of the device. There are other frames, which do not look like one.
fn ip_at(capabilities: &Capabilities) -> usize {
    if capabilities.ethernet.is_some() { 14 } else { 0 }
}

/// Offsets of the addresses in an IPv4 header.
const SOURCE: usize = 12;
const DESTINATION: usize = 16;

/// The checksums that cover an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sums {
    /// That of the header alone.
    Header,
    /// The field of the segment holds the sum of the pseudo-header.
    Partial,
    /// The field of the segment holds the complement of the sum of everything.
    Complete,
}

/// Replaces an address of an IPv4 packet with TCP, and adjusts the checksums (RFC 1624).
fn translate(packet: &mut [u8], at: usize, from: Ipv4Addr, to: Ipv4Addr, sums: Sums) {
    const TCP: u8 = 6;
    const HEADER_SUM: usize = 10;
    const SEGMENT_SUM: usize = 16;
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    if !is_v4 || packet.len() < 20 || packet[9] != TCP || packet[at..at + 4] != from.octets() {
        return;
    }
    packet[at..at + 4].copy_from_slice(&to.octets());
    let change = |field: &mut [u8], complement: bool| {
        let flip = if complement { u16::MAX } else { 0 };
        let sum = u16::from_be_bytes([field[0], field[1]]) ^ flip;
        let words = |address: Ipv4Addr| [address.to_bits() >> 16, address.to_bits() & 0xffff];
        let [old_high, old_low] = words(from).map(|word| word ^ 0xffff);
        let [new_high, new_low] = words(to);
        let mut sum = u32::from(sum) + old_high + old_low + new_high + new_low;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        field.copy_from_slice(&(sum as u16 ^ flip).to_be_bytes());
    };
    change(&mut packet[HEADER_SUM..HEADER_SUM + 2], true);
    // Only the first fragment has a header of TCP.
    let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
    let sum_at = usize::from(packet[0] & 15) * 4 + SEGMENT_SUM;
    if sums != Sums::Header
        && offset == 0
        && let Some(field) = packet.get_mut(sum_at..sum_at + 2)
    {
        change(field, sums == Sums::Complete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast::stack::wire::tcp::{self, Flags, Header};
    use steadfast::stack::wire::{build, ipv4};

    #[test]
    fn a_translated_packet_has_valid_checksums() {
        let (guest, port) = ("10.0.2.15:40000".parse().unwrap(), 5432);
        let header = Header {
            source_port: 40_000,
            destination_port: port,
            flags: Flags::SYN,
            window: 65_535,
            ..Header::default()
        };
        let localhost = (Ipv4Addr::LOCALHOST, port).into();
        let mut packet = build::tcp(guest, localhost, header, b"payload").unwrap();
        let alias = Ipv4Addr::new(10, 0, 2, 4);
        translate(&mut packet, DESTINATION, Ipv4Addr::LOCALHOST, alias, Sums::Complete);
        let (parsed, payload) = ipv4::parse(&packet).unwrap();
        assert_eq!(parsed.destination, alias);
        assert!(tcp::checksum_ok(parsed.source.into(), parsed.destination.into(), payload));

        // Back, it is what it was.
        translate(&mut packet, DESTINATION, alias, Ipv4Addr::LOCALHOST, Sums::Complete);
        assert_eq!(packet, build::tcp(guest, localhost, header, b"payload").unwrap());
        let before = packet.clone();
        translate(&mut packet, SOURCE, Ipv4Addr::LOCALHOST, alias, Sums::Complete);
        assert_eq!(packet, before);
    }
}
