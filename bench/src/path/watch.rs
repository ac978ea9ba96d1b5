//! Counts retransmissions on the wire, by the same rule for every sender.

use std::collections::HashMap;

/// The segments of all senders, and how many were sent again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Segments with data.
    pub(super) segments: u64,
    /// Those that begin below the highest sequence number sent before.
    pub(super) again: u64,
    /// Those whose earlier copy was not lost.
    pub(super) spurious: u64,
}

/// A copy of a segment on its way: the flow, and the sequence number where it begins.
pub(super) type Copy = ((u32, u16, u16), u32);

/// The segments of one flow.
#[derive(Debug, Default)]
struct Flow {
    next: Option<u32>,
    /// Whether the last copy of the segment that begins there was lost.
    lost: HashMap<u32, bool>,
}

/// The flows of a round.
#[derive(Debug, Default)]
pub(super) struct Watch {
    flows: HashMap<(u32, u16, u16), Flow>,
    pub(super) seen: Seen,
}

impl Watch {
    /// Counts a packet that a sender sends. Returns what [`Watch::lost`] needs, if it has data.
    pub(super) fn sent(&mut self, packet: &[u8]) -> Option<Copy> {
        let header = usize::from(packet.first()? & 15) * 4;
        let tcp =
            packet.get(header..).filter(|tcp| packet[0] >> 4 == 4 && packet[9] == 6 && tcp.len() >= 20)?;
        let data = tcp.len().checked_sub(usize::from(tcp[12] >> 4) * 4).filter(|data| *data > 0)?;
        let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let (flow, seq) = ((word(&packet[12..]), port(0), port(2)), word(&tcp[4..]));
        let entry = self.flows.entry(flow).or_default();
        let end = seq.wrapping_add(data as u32);
        let again = entry.next.is_some_and(|next| (seq.wrapping_sub(next) as i32) < 0);
        if entry.next.is_none_or(|next| (end.wrapping_sub(next) as i32) > 0) {
            entry.next = Some(end);
        }
        self.seen.segments += 1;
        self.seen.again += u64::from(again);
        let before = entry.lost.insert(seq, false);
        self.seen.spurious += u64::from(again && before == Some(false));
        Some((flow, seq))
    }

    /// Notes that a copy was lost.
    pub(super) fn lost(&mut self, copy: Option<Copy>) {
        if let Some((flow, seq)) = copy
            && let Some(lost) = self.flows.get_mut(&flow).and_then(|flow| flow.lost.get_mut(&seq))
        {
            *lost = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(seq: u32, len: usize) -> Vec<u8> {
        let mut packet = vec![0; 40 + len];
        (packet[0], packet[9], packet[32]) = (0x45, 6, 0x50);
        packet[24..28].copy_from_slice(&seq.to_be_bytes());
        packet
    }

    #[test]
    fn a_retransmission_is_spurious_unless_the_copy_before_was_lost() {
        let mut watch = Watch::default();
        let first = watch.sent(&segment(u32::MAX - 99, 100));
        watch.sent(&segment(0, 100));
        assert_eq!(watch.sent(&segment(100, 0)), None);
        watch.lost(first);
        watch.sent(&segment(u32::MAX - 99, 100));
        assert_eq!((watch.seen.segments, watch.seen.again, watch.seen.spurious), (3, 1, 0));
        watch.sent(&segment(u32::MAX - 99, 100));
        watch.sent(&segment(0, 100));
        assert_eq!((watch.seen.segments, watch.seen.again, watch.seen.spurious), (5, 3, 2));
    }
}
