//! Computes the room in a packet. Only this module subtracts headers and options from an MTU. All code that builds
//! segments or super-segments uses it, so that no packet exceeds its path, its interface or its length field.

use super::tcb::Connection;
use crate::wire::tcp::{HEADER_LEN, MAX_OPTIONS_LEN, SackBlocks};
use crate::wire::{ipv4, ipv6};

/// Longest packet in bytes, super-segments included: the limit of the IPv4 length field and of a frame.
pub(crate) const MAX_PACKET: u16 = u16::MAX;

/// Minimum MTU of an IPv4 link (RFC 791) and of an IPv6 link (RFC 8200 §5).
pub(crate) const MIN_MTU_V4: u16 = 68;
pub(crate) const MIN_MTU_V6: u16 = 1280;

/// Payload bytes that SACK blocks must leave free. One block and timestamps then fit into the smallest packet, 68
/// bytes.
const LEAST_PAYLOAD: u16 = 4;

const TIMESTAMPS_LEN: u16 = 12;

/// IP and TCP header without options.
pub(crate) const fn fixed_headers(ipv4: bool) -> u16 {
    let ip = if ipv4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    (ip + HEADER_LEN) as u16
}

/// Bytes for TCP options and payload in a packet of `mtu` bytes.
pub(crate) const fn room_in(mtu: u16, ipv4: bool) -> u16 {
    mtu.saturating_sub(fixed_headers(ipv4))
}

/// The MSS less the timestamps that ordinary segments carry.
pub(crate) const fn payload_of(mss: u16, timestamps: bool) -> u16 {
    let payload = mss.saturating_sub(if timestamps { TIMESTAMPS_LEN } else { 0 });
    if payload == 0 { 1 } else { payload }
}

/// Length of a SACK option with its padding.
const fn sack_len(blocks: usize) -> u16 {
    if blocks > 0 { 4 + 8 * blocks as u16 } else { 0 }
}

impl Connection {
    /// The payload of a full segment: the MSS less the options that ordinary segments carry.
    #[inline]
    pub(crate) fn payload_mss(&self) -> u16 {
        payload_of(self.tcb.snd.mss, self.tcb.snd.timestamps)
    }

    /// The payload of a full segment sent now, less the SACK blocks that it carries (MUST-16).
    #[inline]
    pub(crate) fn payload_len_limit(&self) -> u16 {
        if self.has_sack_blocks() { self.payload_beside_blocks() } else { self.payload_mss() }
    }

    fn payload_beside_blocks(&self) -> u16 {
        self.tcb.snd.mss.saturating_sub(self.options_len()).max(1)
    }

    /// The payload of the longest super-segment whose pieces carry `piece` bytes each.
    pub(crate) fn super_payload(&self, piece: usize) -> usize {
        let room = room_in(MAX_PACKET, self.tcb.tuple.is_ipv4()).saturating_sub(self.options_len());
        (usize::from(room) / piece).max(1) * piece
    }

    /// Header bytes of a data segment sent now.
    pub(crate) fn headers(&self) -> u16 {
        fixed_headers(self.tcb.tuple.is_ipv4()) + self.options_len()
    }

    /// Header bytes of ordinary segments.
    pub(crate) fn usual_headers(&self) -> u16 {
        fixed_headers(self.tcb.tuple.is_ipv4()) + self.timestamps_len()
    }

    fn timestamps_len(&self) -> u16 {
        if self.tcb.snd.timestamps { TIMESTAMPS_LEN } else { 0 }
    }

    /// Option bytes of a data segment sent now.
    fn options_len(&self) -> u16 {
        let sack = if self.has_sack_blocks() { self.sack_len() } else { 0 };
        self.timestamps_len() + sack
    }

    fn sack_len(&self) -> u16 {
        if !self.tcb.snd.sack {
            return 0;
        }
        let duplicate = usize::from(self.has_dsack());
        let blocks = duplicate + self.reassembly.as_ref().map_or(0, |r| r.sack_blocks().count());
        sack_len(blocks.min(self.blocks_beside_data()))
    }

    /// Number of SACK blocks that fit beside data. A small MSS leaves room for fewer (RFC 2018 §3).
    pub(crate) fn blocks_beside_data(&self) -> usize {
        self.blocks_in(self.tcb.snd.mss.saturating_sub(LEAST_PAYLOAD))
    }

    /// Number of SACK blocks that fit into a segment without data.
    pub(crate) fn blocks_beside_nothing(&self) -> usize {
        self.blocks_in(room_in(self.tcb.snd.path.mtu, self.tcb.tuple.is_ipv4()))
    }

    fn blocks_in(&self, room: u16) -> usize {
        let room = room.min(MAX_OPTIONS_LEN as u16).saturating_sub(self.timestamps_len());
        usize::from(room.saturating_sub(sack_len(1) - 8) / 8).min(SackBlocks::MAX)
    }
}
