//! Several stacks on one interface: which of them receives a packet.
//!
//! The stacks share nothing. A keyed hash of the 4-tuple selects the stack that owns a connection. Every stack computes
//! the same owner by itself, and an attacker cannot aim at one of them. Steering happens before a stack sees a packet.

use std::fmt;
use std::net::IpAddr;

use crate::keys::{Key, STEERING, write_tuple};
use crate::tuple::{FourTuple, Quoted, quoted_packet};
use crate::wire::icmp::{self, Message};
use crate::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, ipv4, ipv6, tcp};

/// The stack with all UDP sockets.
const UDP_OWNER: u16 = 0;

/// The distribution of connections among stacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Steering {
    key: Key,
    stacks: u16,
}

/// The destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// The stack of this number.
    To(u16),
    /// Any one stack.
    Any,
    /// Every stack: a fragment has no ports. Only one of them answers the reassembled datagram.
    All,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("stacks", &self.stacks).finish_non_exhaustive()
    }
}

impl Steering {
    /// Distributes among `stacks` stacks, at least one. All randomness comes from `secret`, as in a stack.
    pub fn new(secret: &[u8; 32], stacks: u16) -> Steering {
        Steering { key: Key::derive(secret, STEERING), stacks: stacks.max(1) }
    }

    /// Returns the stack that an arriving packet is for. Never fails: any stack can drop a malformed packet.
    pub fn steer(&self, packet: &[u8]) -> Steer {
        let (source, destination, protocol, payload, fragment) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => match ipv4::parse(packet) {
                Ok((ip, payload)) => {
                    let fragment = ip.more_fragments || ip.fragment_offset > 0;
                    (ip.source.into(), ip.destination.into(), ip.protocol, payload, fragment)
                }
                Err(_) => return Steer::Any,
            },
            _ => match ipv6::parse(packet) {
                Ok((ip, payload)) => {
                    (ip.source.into(), ip.destination.into(), ip.protocol, payload, ip.fragment.is_some())
                }
                Err(_) => return Steer::Any,
            },
        };
        match protocol {
            _ if fragment => Steer::All,
            PROTOCOL_TCP => self.to(arriving(source, destination, payload)),
            PROTOCOL_UDP => Steer::To(UDP_OWNER),
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => match quoted(source, destination, payload) {
                Some(Quoted::Segment(tuple, _)) => Steer::To(self.owner(&tuple)),
                Some(Quoted::Udp(..)) => Steer::To(UDP_OWNER),
                None => Steer::Any,
            },
            _ => Steer::Any,
        }
    }

    fn to(&self, tuple: Option<FourTuple>) -> Steer {
        tuple.map_or(Steer::Any, |tuple| Steer::To(self.owner(&tuple)))
    }

    /// Returns the owner of a connection. It is the same from either end, so that a stack owns both ends of a
    /// connection to itself.
    pub(crate) fn owner(&self, tuple: &FourTuple) -> u16 {
        let &FourTuple { local_address, local_port, remote_address, remote_port } = tuple;
        let tuple = match (local_address, local_port) < (remote_address, remote_port) {
            true => *tuple,
            false => FourTuple {
                local_address: remote_address,
                local_port: remote_port,
                remote_address: local_address,
                remote_port: local_port,
            },
        };
        (self.key.strong(|hasher| write_tuple(hasher, &tuple)) % u64::from(self.stacks)) as u16
    }
}

/// One stack's share of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) steering: Steering,
    pub(crate) index: u16,
}

impl Share {
    pub(crate) fn has(&self, tuple: &FourTuple) -> bool {
        self.steering.owner(tuple) == self.index
    }

    /// Returns whether this stack answers a datagram that every stack has reassembled.
    pub(crate) fn has_datagram(
        &self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        payload: &[u8],
    ) -> bool {
        let tuple = if protocol == PROTOCOL_TCP { arriving(source, destination, payload) } else { None };
        let owner = tuple.map_or(UDP_OWNER, |tuple| self.steering.owner(&tuple));
        owner == self.index
    }
}

/// Returns the connection of an arriving segment.
fn arriving(source: IpAddr, destination: IpAddr, segment: &[u8]) -> Option<FourTuple> {
    let (source_port, destination_port, _) = tcp::parse_quoted(segment)?;
    Some(FourTuple::new((destination, destination_port).into(), (source, source_port).into()))
}

/// Returns the packet that an ICMP error is about.
fn quoted(source: IpAddr, destination: IpAddr, message: &[u8]) -> Option<Quoted> {
    let message = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => icmp::parse_v6(source, destination, message),
        _ => icmp::parse_v4(message),
    };
    match message? {
        Message::Error { quoted, .. } => quoted_packet(destination, quoted),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build;

    const OURS: [u8; 4] = [10, 0, 0, 2];
    const THEIRS: [u8; 4] = [10, 0, 0, 1];

    fn packet(source: [u8; 4], destination: [u8; 4], protocol: u8, more: bool, payload: &[u8]) -> Vec<u8> {
        let header = ipv4::Header {
            dont_fragment: false,
            more_fragments: more,
            ..ipv4::Header::new(source.into(), destination.into(), protocol)
        };
        build::ipv4(&header, payload)
    }

    fn segment(source_port: u16, destination_port: u16) -> Vec<u8> {
        let mut segment = vec![0; tcp::HEADER_LEN];
        segment[..2].copy_from_slice(&source_port.to_be_bytes());
        segment[2..4].copy_from_slice(&destination_port.to_be_bytes());
        segment
    }

    fn owner(steering: &Steering, packet: &[u8]) -> u16 {
        match steering.steer(packet) {
            Steer::To(owner) => owner,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn connections_are_spread_evenly() {
        let steering = Steering::new(&[1; 32], 4);
        let mut counts = [0; 4];
        for port in 10_000..14_000 {
            let packet = packet(THEIRS, OURS, PROTOCOL_TCP, false, &segment(port, 80));
            counts[usize::from(owner(&steering, &packet))] += 1;
        }
        // 1000 each; five standard deviations are 137.
        assert!(counts.iter().all(|count| (863..1137).contains(count)), "{counts:?}");
    }

    #[test]
    fn both_ends_of_a_connection_to_ourselves_are_one_stacks() {
        let steering = Steering::new(&[2; 32], 64);
        for port in 10_000..10_100 {
            let one_way = packet(OURS, OURS, PROTOCOL_TCP, false, &segment(port, 80));
            let other_way = packet(OURS, OURS, PROTOCOL_TCP, false, &segment(80, port));
            assert_eq!(owner(&steering, &one_way), owner(&steering, &other_way));
        }
    }

    #[test]
    fn an_error_goes_where_the_segments_of_its_connection_go() {
        let steering = Steering::new(&[2; 32], 64);
        for port in 10_000..10_100 {
            let arrives = packet(THEIRS, OURS, PROTOCOL_TCP, false, &segment(port, 80));
            let sent = packet(OURS, THEIRS, PROTOCOL_TCP, false, &segment(80, port));
            let kind = icmp::ErrorKind::PacketTooBig { mtu: 1400 };
            let mut error = vec![0; 576];
            let len = icmp::emit_v4(&Message::Error { kind, quoted: &sent }, &mut error).unwrap();
            let error = packet([192, 0, 2, 1], OURS, PROTOCOL_ICMP, false, &error[..len]);
            assert_eq!(owner(&steering, &error), owner(&steering, &arrives));
        }
    }

    #[test]
    fn what_does_not_say_whose_it_is_goes_to_any_or_to_all() {
        let steering = Steering::new(&[3; 32], 2);
        let fragment = packet(THEIRS, OURS, PROTOCOL_TCP, true, &segment(1, 80));
        assert_eq!(steering.steer(&fragment), Steer::All);
        for unsound in [&[][..], &[0x45], &[0x60; 39], &fragment[..30]] {
            assert_eq!(steering.steer(unsound), Steer::Any, "{unsound:?}");
        }
    }

    #[test]
    fn udp_and_icmp_about_it_go_to_the_stack_that_has_the_sockets() {
        let steering = Steering::new(&[3; 32], 4);
        let datagram = packet(THEIRS, OURS, PROTOCOL_UDP, false, &[0, 5, 0, 6, 0, 8, 0, 0]);
        assert_eq!(steering.steer(&datagram), Steer::To(UDP_OWNER));
        let ours = packet(OURS, THEIRS, PROTOCOL_UDP, false, &[0, 6, 0, 5, 0, 8, 0, 0]);
        let message = Message::Error { kind: icmp::ErrorKind::PortUnreachable, quoted: &ours };
        let mut bytes = vec![0; message.emitted_len()];
        icmp::emit_v4(&message, &mut bytes).unwrap();
        let report = packet(THEIRS, OURS, PROTOCOL_ICMP, false, &bytes);
        assert_eq!(steering.steer(&report), Steer::To(UDP_OWNER));
    }
}
