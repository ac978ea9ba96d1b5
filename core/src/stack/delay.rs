//! Frames that the device does not take at once.

use std::net::IpAddr;

use super::{Stack, Transmit};
use crate::flow::FlowRef;
use crate::time::Instant;
use crate::tuple::FourTuple;
use crate::wire::ethernet::HEADER_LEN;
use crate::wire::tcp::Header;
use crate::wire::{PROTOCOL_TCP, ipv4, ipv6};

impl Stack {
    /// Delays a frame of [`transmit`](Stack::transmit) that the device holds back: its segment counts as sent now. Round
    /// trips and the timers of retransmissions would otherwise begin before it has left.
    ///
    /// Call it for all frames that wait, in their order, before [`receive`](Stack::receive) and
    /// [`advance`](Stack::advance). A frame that waits for less than a millisecond needs none. Slices of the frame may be
    /// missing.
    // 8985-35
    pub fn delay(&mut self, now: Instant, frame: &[u8], transmit: &Transmit) {
        self.set_now(now);
        let header_len = if self.link.port(transmit.interface).is_some() { HEADER_LEN } else { 0 };
        let Some((tuple, header, payload)) = frame.get(header_len..).and_then(segment_in) else { return };
        if let Some(FlowRef::Connection(index)) = self.find(&tuple)
            && !header.flags.syn()
        {
            let headers = frame.len() - payload.len();
            let payload_len = (transmit.len + transmit.sliced).saturating_sub(headers);
            let len = payload_len as u32 + u32::from(header.flags.fin());
            self.with_connection(index, |connection, env| connection.delay(header.seq, len, env));
        }
    }
}

/// The segment in a packet of ours, with as much of its payload as is there.
fn segment_in(packet: &[u8]) -> Option<(FourTuple, Header, &[u8])> {
    let (source, destination, protocol, segment) = match packet.first()? >> 4 {
        4 => {
            let (header, segment) = ipv4::parse_quoted(packet)?;
            (IpAddr::V4(header.source), IpAddr::V4(header.destination), header.protocol, segment)
        }
        _ => {
            let (header, segment) = ipv6::parse_quoted(packet)?;
            (IpAddr::V6(header.source), IpAddr::V6(header.destination), header.protocol, segment)
        }
    };
    if protocol != PROTOCOL_TCP {
        return None;
    }
    let (header, payload) = Header::parse(segment).ok()?;
    let tuple =
        FourTuple::new((source, header.source_port).into(), (destination, header.destination_port).into());
    Some((tuple, header, payload))
}
