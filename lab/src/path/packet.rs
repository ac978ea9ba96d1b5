//! The fields of a packet that a path reads and changes.

use std::hash::{Hash, Hasher};

use bytes::Bytes;
use steadfast_core::wire::checksum::Sum;
use steadfast_core::wire::tcp::Flags;
use steadfast_timeline::view::{Kind, View};

use crate::mangle::rebuilt;

/// The two bits of ECN (RFC 3168 §5): CE is both, Not-ECT is none.
const ECN: u8 = 3;

/// The flags of ECN, which a pure ACK may carry.
const ECN_FLAGS: u16 = Flags::ECE.0 | Flags::CWR.0 | Flags::AE.0;

/// Returns the flow of a packet, and whether it is an ACK that carries nothing else.
pub(super) fn is_pure_ack(packet: &[u8]) -> (u64, bool) {
    let Some(view) = View::new(packet) else { return (0, false) };
    let mut hasher = std::hash::DefaultHasher::new();
    view.ends().hash(&mut hasher);
    let ack = match &view.kind {
        Kind::Tcp { header, payload } => header.flags.0 & !ECN_FLAGS == Flags::ACK.0 && payload.is_empty(),
        _ => false,
    };
    (hasher.finish(), ack)
}

/// Returns whether the sender of a packet takes a mark instead of a drop.
pub(super) fn ecn_capable(packet: &[u8]) -> bool {
    match packet {
        [first, second, ..] if first >> 4 == 4 => second & ECN != 0,
        [first, second, ..] if first >> 4 == 6 => second >> 4 & ECN != 0,
        _ => false,
    }
}

/// Returns the packet with Congestion Experienced.
pub(super) fn marked(packet: &[u8]) -> Bytes {
    let mut out = packet.to_vec();
    match out[0] >> 4 {
        4 => {
            out[1] |= ECN;
            out[10..12].fill(0);
            let header = usize::from(out[0] & 15) * 4;
            let mut sum = Sum::new();
            sum.add_bytes(&out[..header]);
            let sum = sum.finish();
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        _ => out[1] |= ECN << 4,
    }
    out.into()
}

/// Returns two segments as one, if the second continues the first as receive offload demands: same ends, options of the
/// same length, no flags but ACK and PSH.
pub(super) fn merged(first: &[u8], second: &[u8]) -> Option<Bytes> {
    const LONGEST: usize = 65_535;
    let (head, tail) = (View::new(first)?, View::new(second)?);
    let (Kind::Tcp { header, payload }, Kind::Tcp { header: next, payload: more }) = (&head.kind, &tail.kind)
    else {
        return None;
    };
    let plain = |flags: Flags| flags.0 & !Flags::PSH.0 == Flags::ACK.0;
    let continues = head.ends() == tail.ends()
        && plain(header.flags)
        && plain(next.flags)
        && !header.flags.contains(Flags::PSH)
        && !payload.is_empty()
        && !more.is_empty()
        && header.header_len() == next.header_len()
        && next.seq.0 == header.seq.0.wrapping_add(payload.len() as u32)
        && first[head.ip_len..].len() + more.len() + head.ip_len <= LONGEST;
    if !continues {
        return None;
    }
    let mut whole = first[payload.clone()].to_vec();
    whole.extend_from_slice(&second[more.clone()]);
    let mut header = *next;
    header.seq = match &head.kind {
        Kind::Tcp { header, .. } => header.seq,
        _ => return None,
    };
    Some(rebuilt(first, &header, &whole))
}
