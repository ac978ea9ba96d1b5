//! RCV.*: what arrives in order, what has to wait for a gap, and the window that is announced.

use bytes::Bytes;

use super::reassembly::{MOST_GAPS, Piece, Reassembly};
use super::segment::Segment;
use super::tcb::{Connection, Env};
use crate::buffer::is_worth_holding;
use crate::counters::DropReason;
use crate::memory::{Gauge, LEAST};
use crate::seq::SeqNum;
use crate::socket::Event;
use crate::time::Deadline;
use crate::trace::State;
use crate::wire::tcp::SackBlocks;

impl Connection {
    /// RCV.WND: what the peer may still send.
    pub(crate) fn receive_window(&self) -> u32 {
        self.tcb.rcv.adv.since(self.tcb.rcv.nxt)
    }

    /// The window field of a segment that leaves now. The right edge moves on only by steps that are worth it
    /// (MUST-39, SHLD-14), and only where the buffer is free; it never moves back (9293-h).
    ///
    /// A scaled field cannot say every edge. It is rounded up where that much is free. Elsewhere it is rounded down: the
    /// peer then takes the edge for one that lies less than a unit further left (RFC 7323 §2.4), while the edge that it
    /// was told before still holds (7323-15).
    pub(crate) fn announce_window(&mut self, env: &mut Env<'_>) -> u16 {
        let free = self.free_window(env.memory);
        let rcv = &mut self.tcb.rcv;
        let unit = (1 << rcv.wscale) - 1;
        let told = rcv.adv.since(rcv.last_ack_sent) >> rcv.wscale;
        let before = rcv.adv.since(rcv.nxt);
        let step = (rcv.buffer / 2).min(u32::from(rcv.adv_mss.max(1)));
        let opens = free >= before.saturating_add(step) || free == rcv.buffer;
        let window = if opens { free.max(before) } else { before };
        let window = window.saturating_add(unit).min(free.max(window)) & !unit;
        rcv.adv = rcv.adv.max(rcv.nxt + window);
        let field = (window >> rcv.wscale).min(0xffff);
        match (told, field) {
            (0, 1..) => env.counters.tcp_from_zero_window_adv += 1,
            (1.., 0) => env.counters.tcp_to_zero_window_adv += 1,
            _ => {}
        }
        field as u16
    }

    /// Whether the application has read so much that the peer should be told: the window would double (SA-EST-31).
    pub(crate) fn window_update_due(&self, memory: Gauge) -> bool {
        let (free, before) = (self.free_window(memory), self.receive_window());
        let step = (self.tcb.rcv.buffer / 2).min(u32::from(self.tcb.rcv.adv_mss.max(1)));
        self.may_receive() && !self.tcb.rcv.fin_seen && free >= before.saturating_mul(2).max(before + step)
    }

    /// The free room that a window field can tell, in the buffer and, where memory is short, in the share of
    /// this connection.
    fn free_window(&self, memory: Gauge) -> u32 {
        let rcv = &self.tcb.rcv;
        let mut free = rcv.buffer.saturating_sub(self.receive_queue.len() as u32);
        if memory.is_tight(free as usize) {
            free = u32::try_from(self.memory_room(memory)).unwrap_or(u32::MAX).min(free);
        }
        free & !((1 << rcv.wscale) - 1)
    }

    /// Step 7 of RFC 9293 §3.10.7.4: the segment text, and the FIN's place. The segment is acceptable. Gives why
    /// text was dropped, if so.
    pub(crate) fn take_text(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Option<DropReason> {
        let rcv = &self.tcb.rcv;
        let (seq, payload) = (segment.seq(), segment.payload);
        // Trim to the window (9293-g), and to the peer's own FIN where one was seen (SA-EST-24).
        let limit = if rcv.fin_seen { rcv.fin_at } else { rcv.adv };
        let skip = if seq.lt(rcv.nxt) { rcv.nxt.since(seq) as usize } else { 0 };
        let start = seq + skip as u32;
        let room = if start.lt(limit) { limit.since(start) as usize } else { 0 };
        let fresh = &payload[skip.min(payload.len())..];
        let fits = &fresh[..fresh.len().min(room)];
        let excess = fresh.len() > fits.len();
        // Of what was here before the first stretch is told (2883-1).
        let end = start + fits.len() as u32;
        if skip > 0 {
            self.note_duplicate(seq, seq + (skip as u32).min(payload.len() as u32));
        } else if let Some((left, right)) = self.reassembly.as_ref().and_then(|r| r.overlap(start, end)) {
            self.note_duplicate(left, right);
        }
        self.tcb.ack.now |= skip > 0 || excess;
        let fin_at = seq + payload.len() as u32;
        let second_fin = segment.flags().fin() && self.tcb.rcv.fin_seen && fin_at.gt(self.tcb.rcv.fin_at);
        let dropped = if fits.is_empty() {
            self.tcb.ack.now |= segment.flags().fin();
            let full =
                if self.tcb.rcv.fin_seen { DropReason::DataAfterFin } else { DropReason::ReceiveBufferFull };
            (excess || second_fin).then_some(full)
        } else if start == self.tcb.rcv.nxt {
            self.take_next(fits, segment.packet, env)
        } else {
            self.note_size(fits);
            self.queue_out_of_order(start, fits, segment.packet, env)
        };
        if segment.flags().fin() && !excess && dropped.is_none() {
            self.note_fin(fin_at);
        }
        dropped
    }

    /// Text that begins at RCV.NXT. Under pressure it must fit into the share of this connection, but where nothing is
    /// unread a little is taken as long as `tcp_mem` is not used up, so that the connection goes on. Where it is refused
    /// there is no ACK: it would free nothing, and only the sender's patience grows.
    fn take_next(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) -> Option<DropReason> {
        let fits = self.memory_admits(payload.len(), env.memory);
        let (now, later) = payload.split_at(fits);
        if !now.is_empty() {
            self.take_in_order(now, packet, env);
        }
        if later.is_empty() {
            return None;
        }
        env.counters.tcp_rcv_q_drop += 1;
        Some(DropReason::NoMemory)
    }

    /// How much of `len` bytes of text in order is taken.
    fn memory_admits(&self, len: usize, memory: Gauge) -> usize {
        if !memory.is_above_pressure() || self.memory_room(memory) >= len as u64 {
            len
        } else if self.receive_queue.is_empty() && memory.held < memory.limit {
            len.min(LEAST as usize)
        } else {
            0
        }
    }

    /// The peer's FIN is at `at`, all text before it in the window. Where it has to wait it is held as text is, and
    /// told in a SACK block: it does not come again.
    fn note_fin(&mut self, at: SeqNum) {
        let rcv = &mut self.tcb.rcv;
        let in_window = at.ge(rcv.nxt) && at.lt(rcv.adv);
        if rcv.fin_seen || !in_window || self.reassembly.as_ref().is_some_and(|r| r.end().gt(at)) {
            return;
        }
        (rcv.fin_seen, rcv.fin_at) = (true, at);
        let nxt = rcv.nxt;
        if at != nxt && !rcv.shut {
            self.reassembly.get_or_insert_with(|| Box::new(Reassembly::new(nxt))).insert_fin(at);
        }
    }

    /// Data on a SYN with a valid Fast Open cookie: it begins one after the SYN (N9).
    pub(crate) fn take_syn_data(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let room = self.receive_window() as usize;
        let payload = &segment.payload[..segment.payload.len().min(room)];
        if !payload.is_empty() {
            self.take_in_order(payload, segment.packet, env);
        }
        // The SYN-ACK acknowledges it.
        self.tcb.ack.now = false;
        self.tcb.ack.bytes = 0;
        self.tcb.timers.delayed_ack = None;
    }

    /// Takes in what begins at RCV.NXT and lies in the window.
    #[inline]
    pub(crate) fn take_in_order(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        self.note_size(payload);
        if self.reassembly.is_none() {
            self.append(payload, packet, env);
        } else {
            self.fill_gap(payload, packet, env);
        }
        self.note_data_received(payload.len() as u32, env);
    }

    fn note_size(&mut self, payload: &[u8]) {
        self.tcb.rcv.mss = self.tcb.rcv.mss.max(payload.len().min(usize::from(u16::MAX)) as u16);
    }

    #[inline]
    fn append(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        self.tcb.rcv.nxt += payload.len() as u32;
        self.bytes_received += payload.len() as u64;
        if !self.tcb.rcv.shut {
            self.receive_queue.push_payload(payload, packet, env.pool);
            self.signal(Event::READABLE);
        }
    }

    /// Bytes that wait beyond the gap already are not taken again: the first copy counts (THREAT-50).
    fn fill_gap(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        let start = self.tcb.rcv.nxt;
        let end = start + payload.len() as u32;
        for _ in 0..MOST_GAPS {
            let nxt = self.tcb.rcv.nxt;
            if !nxt.lt(end) {
                break;
            }
            let waiting = self.reassembly.as_ref().and_then(|r| r.start());
            let until = waiting.map_or(end, |left| left.min(end));
            let gap = &payload[nxt.since(start) as usize..until.since(start) as usize];
            self.append(gap, packet, env);
            self.deliver_waiting(env);
        }
        self.fit_reassembly(env);
    }

    /// What waited and is in order now.
    fn deliver_waiting(&mut self, env: &mut Env<'_>) {
        let Some(reassembly) = &mut self.reassembly else { return };
        // A gap is filled, wholly or in part: the sender wants to know at once (5681-8).
        self.tcb.ack.now = true;
        let pieces = reassembly.take(self.tcb.rcv.nxt);
        for piece in pieces {
            self.tcb.rcv.nxt += piece.len() as u32;
            self.bytes_received += piece.len() as u64;
            match piece {
                _ if self.tcb.rcv.shut => {}
                Piece::Shared(bytes, _) => self.receive_queue.push_bytes(bytes, env.pool),
                Piece::Own(bytes) if is_worth_holding(bytes.len(), bytes.capacity()) => {
                    self.receive_queue.push_bytes(bytes.into(), env.pool);
                }
                Piece::Own(bytes) => self.receive_queue.push_slice(&bytes, env.pool),
            }
        }
        if reassembly.is_empty() {
            self.reassembly = None;
        }
    }

    fn queue_out_of_order(
        &mut self,
        start: SeqNum,
        payload: &[u8],
        packet: Option<&Bytes>,
        env: &mut Env<'_>,
    ) -> Option<DropReason> {
        self.tcb.ack.now = true;
        let reason = match self.hold(start, payload, packet, env) {
            Ok(()) => {
                env.counters.tcp_ofo_queue += 1;
                return None;
            }
            Err(reason) => reason,
        };
        env.counters.tcp_ofo_drop += 1;
        Some(reason)
    }

    /// Holds text beyond a gap, if there is room and somebody will read it.
    fn hold(
        &mut self,
        start: SeqNum,
        payload: &[u8],
        packet: Option<&Bytes>,
        env: &mut Env<'_>,
    ) -> Result<(), DropReason> {
        if self.tcb.rcv.shut {
            return Err(DropReason::DataAfterShutdown);
        }
        if env.memory.is_tight(payload.len()) && self.memory_room(env.memory) < payload.len() as u64 {
            return Err(DropReason::NoMemory);
        }
        let (nxt, limit) = (self.tcb.rcv.nxt, self.reassembly_limit());
        let reassembly = self.reassembly.get_or_insert_with(|| Box::new(Reassembly::new(nxt)));
        let inserted = reassembly.insert(start, payload, packet, limit);
        self.fit_reassembly(env);
        let holds = |r: &Reassembly| r.overlap(start, start + 1).is_some();
        if self.reassembly.as_deref().is_some_and(holds) { inserted } else { Err(DropReason::OutOfOrderFull) }
    }

    /// The room for text out of order: as much of the receive buffer as is not taken by what is unread.
    fn reassembly_limit(&self) -> usize {
        (self.tcb.rcv.buffer as usize).saturating_sub(self.receive_queue.len())
    }

    /// Drops what waits out of order and finds no room beside what is unread, the highest first (THREAT-13).
    fn fit_reassembly(&mut self, env: &mut Env<'_>) {
        let limit = self.reassembly_limit();
        let Some(reassembly) = &mut self.reassembly else { return };
        env.counters.ofo_pruned += u64::from(reassembly.fit(limit) > 0);
        if reassembly.is_empty() {
            self.reassembly = None;
        }
    }

    /// Frees memory that out-of-order text holds: the highest text first, until `bytes` are free or none is left. The
    /// peer is not told in SACK blocks of what is dropped, and sends it again (2018-4). What is in order stays. Says
    /// how many bytes were freed.
    pub(crate) fn prune_reassembly(&mut self, bytes: usize) -> usize {
        let Some(reassembly) = &mut self.reassembly else { return 0 };
        let before = reassembly.held();
        reassembly.prune(bytes);
        if !reassembly.is_empty() {
            return before - reassembly.held();
        }
        self.reassembly = None;
        before
    }

    /// The peer's FIN, if it is next: RCV.NXT goes over it. Says whether it was.
    pub(crate) fn take_fin(&mut self) -> bool {
        let rcv = &mut self.tcb.rcv;
        let next = rcv.fin_seen && rcv.fin_at == rcv.nxt;
        if next {
            rcv.nxt += 1;
            rcv.adv = rcv.adv.max(rcv.nxt);
            self.tcb.ack.now = true;
            self.reassembly = None;
            self.signal(Event::READABLE);
        }
        next
    }

    /// Data that was received before is reported once, if the peer speaks SACK (2883-1, 2883-2).
    pub(crate) fn note_duplicate(&mut self, left: SeqNum, right: SeqNum) {
        if left.lt(right) {
            self.tcb.ack.dsack = (left, right);
        }
    }

    /// Delayed ACK: at least every second full segment, and never later than the delay (SHLD-18, SHLD-19).
    #[inline]
    fn note_data_received(&mut self, bytes: u32, env: &Env<'_>) {
        let ack = &mut self.tcb.ack;
        ack.bytes += bytes;
        let full = u32::from(self.tcb.rcv.mss.max(1));
        if ack.quick > 0 {
            ack.quick -= 1;
            ack.now = true;
        } else if ack.bytes >= 2 * full.min(u32::from(self.tcb.rcv.adv_mss))
            || env.config.tcp_delack.is_zero()
        {
            ack.now = true;
        } else if self.tcb.timers.delayed_ack.is_none() {
            self.tcb.timers.delayed_ack = Some(Deadline::after(env.now, env.config.tcp_delack));
        }
    }

    /// Puts the blocks of the next SACK option into `blocks`; a D-SACK comes first and is told once.
    #[inline]
    pub(crate) fn tell_blocks(&mut self, blocks: &mut SackBlocks, env: &mut Env<'_>) {
        if self.has_blocks_to_tell() && self.tcb.snd.sack && self.tcb.state != State::SynReceived {
            self.tell_all_blocks(blocks, env);
        }
    }

    #[inline]
    pub(crate) fn has_blocks_to_tell(&self) -> bool {
        self.reassembly.is_some() || self.tcb.ack.dsack.0 != self.tcb.ack.dsack.1
    }

    fn tell_all_blocks(&mut self, blocks: &mut SackBlocks, env: &mut Env<'_>) {
        let (left, right) = std::mem::take(&mut self.tcb.ack.dsack);
        if left != right && env.config.tcp_dsack {
            env.counters.tcp_dsack_sent += 1;
            blocks.push(left, right);
        }
        if let Some(reassembly) = &self.reassembly {
            for (left, right) in reassembly.sack_blocks() {
                blocks.push(left, right);
            }
        }
    }
}
