//! The receive side (RCV.*): in-order text, text that waits for a gap, and the advertised window.

use bytes::Bytes;

use super::reassembly::{MOST_GAPS, Piece, Reassembly};
use super::segment::Segment;
use super::tcb::{Connection, Env};
use crate::buffer::is_worth_holding;
use crate::counters::DropReason;
use crate::memory::{Gauge, LEAST};
use crate::seq::SeqNum;
use crate::socket::Event;
use crate::state::State;
use crate::time::Deadline;
use crate::wire::tcp::SackBlocks;

impl Connection {
    /// RCV.WND: bytes that the peer may still send.
    pub(crate) fn receive_window(&self) -> u32 {
        let rcv = &self.tcb.rcv;
        let announced = rcv.adv.since(rcv.nxt);
        // DRILL-F03
        if self.tcb.whole_buffer { announced.max(self.free_buffer()) } else { announced }
    }

    /// Returns the window field of a segment about to be sent. The right edge advances only by worthwhile steps
    /// (MUST-39, SHLD-14) and within the free buffer. It never moves back (9293-h).
    ///
    /// A scaled field cannot express every edge. It is rounded up where that much buffer is free, and down elsewhere.
    /// Rounding down shows the peer an edge less than one unit to the left (RFC 7323 §2.4), but the edge advertised
    /// before still holds (7323-15).
    pub(crate) fn advertise_window(&mut self, env: &mut Env<'_>) -> u16 {
        if self.tcb.whole_buffer {
            return self.advertise_free_buffer(env.memory);
        }
        let free = self.free_window(env.memory);
        // Linux takes what the field shows, so that it rounds up beyond the buffer. DRILL-X52
        let beyond = env.config.follows_linux();
        let most = if beyond { self.free_bytes(env.memory) } else { free };
        let rcv = &mut self.tcb.rcv;
        let unit = (1 << rcv.wscale) - 1;
        let most = if beyond { most.next_multiple_of(unit + 1) } else { most };
        let advertised = rcv.adv.since(rcv.last_ack_sent) >> rcv.wscale;
        let before = rcv.adv.since(rcv.nxt);
        let step = (rcv.buffer / 2).min(u32::from(rcv.adv_mss.max(1)));
        let opens = free >= before.saturating_add(step) || free == rcv.buffer;
        let window = if opens { free.max(before) } else { before };
        let window = window.saturating_add(unit).min(most.max(window)) & !unit;
        rcv.adv = rcv.adv.max(rcv.nxt + window);
        let field = (window >> rcv.wscale).min(0xffff);
        match (advertised, field) {
            (0, 1..) => env.counters.tcp_from_zero_window_adv += 1,
            (1.., 0) => env.counters.tcp_to_zero_window_adv += 1,
            _ => {}
        }
        field as u16
    }

    /// Returns whether to send a window update: the application has read enough to double the window (SA-EST-31).
    pub(crate) fn window_update_due(&self, memory: Gauge) -> bool {
        if self.tcb.whole_buffer {
            return self.may_receive() && !self.tcb.rcv.fin_seen && self.free_buffer_is_news(memory);
        }
        let (free, before) = (self.free_window(memory), self.receive_window());
        let step = (self.tcb.rcv.buffer / 2).min(u32::from(self.tcb.rcv.adv_mss.max(1)));
        self.may_receive() && !self.tcb.rcv.fin_seen && free >= before.saturating_mul(2).max(before + step)
    }

    /// Free receive buffer in bytes, rounded down to what a window field can express. When memory is short, the share
    /// of this connection limits it too.
    #[inline]
    fn free_window(&self, memory: Gauge) -> u32 {
        self.free_bytes(memory) & !((1 << self.tcb.rcv.wscale) - 1)
    }

    /// As `free_window`, to the byte.
    #[inline]
    pub(super) fn free_bytes(&self, memory: Gauge) -> u32 {
        let free = self.free_buffer();
        if memory.is_tight(free as usize) {
            return u32::try_from(self.memory_room(memory)).unwrap_or(u32::MAX).min(free);
        }
        free
    }

    /// Seventh step of RFC 9293 §3.10.7.4: takes the text of an acceptable segment and records the position of a FIN.
    /// Returns the reason if text was dropped.
    pub(crate) fn take_text(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Option<DropReason> {
        let rcv = &self.tcb.rcv;
        let (seq, payload) = (segment.seq(), segment.payload);
        // Trim to the window (9293-g), and to the peer's FIN if one was seen (SA-EST-24).
        let limit = if rcv.fin_seen { rcv.fin_at } else { rcv.nxt + self.receive_window() };
        let skip = if seq.lt(rcv.nxt) { rcv.nxt.since(seq) as usize } else { 0 };
        let start = seq + skip as u32;
        let room = if start.lt(limit) { limit.since(start) as usize } else { 0 };
        let fresh = &payload[skip.min(payload.len())..];
        let fits = &fresh[..fresh.len().min(room)];
        let excess = fresh.len() > fits.len();
        // Report only the first duplicate range (2883-1).
        // Linux reports the number of a FIN too. DRILL-X53
        let fin = u32::from(segment.flags().fin() && env.config.follows_linux());
        let end = start + fits.len() as u32 + fin;
        if skip > 0 {
            self.note_duplicate(seq, seq + (skip as u32).min(payload.len() as u32 + fin));
        } else if let Some((left, right)) = self.reassembly.as_ref().and_then(|r| r.overlap(start, end)) {
            self.note_duplicate(left, right);
        }
        self.tcb.ack.now |= skip > 0 || excess;
        if env.config.follows_linux() && (skip > 0 || (excess && fits.is_empty())) {
            self.acknowledge_quickly();
        }
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
            self.last_data = env.tick();
            self.queue_out_of_order(start, fits, segment.packet, env)
        };
        if segment.flags().fin() && !excess && dropped.is_none() {
            self.note_fin(fin_at);
        }
        dropped
    }

    /// Takes text that begins at RCV.NXT. Under memory pressure it must fit into the share of this connection. If
    /// nothing is unread, a little is still taken until `tcp_mem` is exhausted, so that the connection makes
    /// progress. Refused text is not acknowledged: an ACK would free no memory and only keep the sender trying for
    /// longer.
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

    /// Returns how many of `len` bytes of in-order text to take.
    fn memory_admits(&self, len: usize, memory: Gauge) -> usize {
        if !memory.is_above_pressure() || self.memory_room(memory) >= len as u64 {
            len
        } else if self.receive_queue.is_empty() && memory.held < memory.limit {
            len.min(LEAST as usize)
        } else {
            0
        }
    }

    /// Records the peer's FIN at `at`; all text before it is in the window. An out-of-order FIN is queued like text
    /// and reported in a SACK block, so that the peer need not retransmit it.
    pub(super) fn note_fin(&mut self, at: SeqNum) {
        let edge = self.tcb.rcv.nxt + self.receive_window();
        let rcv = &mut self.tcb.rcv;
        let in_window = at.ge(rcv.nxt) && at.lt(edge);
        if rcv.fin_seen || !in_window || self.reassembly.as_ref().is_some_and(|r| r.end().gt(at)) {
            return;
        }
        (rcv.fin_seen, rcv.fin_at) = (true, at);
        let nxt = rcv.nxt;
        if at != nxt && !rcv.shut {
            self.reassembly.get_or_insert_with(|| Box::new(Reassembly::new(nxt))).insert_fin(at);
        }
    }

    /// Takes the data of a SYN with a valid Fast Open cookie. It begins one past the SYN's sequence number (N9).
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

    /// Takes text that begins at RCV.NXT and lies in the window.
    #[inline]
    pub(crate) fn take_in_order(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        self.note_size(payload);
        if self.reassembly.is_none() {
            self.append(payload, packet, env);
        } else {
            self.fill_gap(payload, packet, env);
        }
        if env.config.follows_linux() {
            self.note_data_for_linux(env);
        }
        self.last_data = env.tick();
        self.note_data_received(payload.len() as u32, env);
    }

    fn note_size(&mut self, payload: &[u8]) {
        // Not stored each time: `note_data_received` reads it in a wider word, and would wait for the store.
        if payload.len() > usize::from(self.tcb.rcv.mss) {
            self.tcb.rcv.mss = payload.len().min(usize::from(u16::MAX)) as u16;
        }
    }

    #[inline]
    fn append(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        self.tcb.rcv.nxt += payload.len() as u32;
        self.keep_edge_ahead();
        self.bytes_received += payload.len() as u64;
        if !self.tcb.rcv.shut {
            self.receive_queue.push_payload(payload, packet, env.pool);
            self.signal(Event::READABLE);
        }
    }

    /// Fills gaps with `payload`. Bytes already queued beyond a gap are kept: the first copy counts (THREAT-50).
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

    /// Text that the window field could not offer has moved RCV.NXT past the edge that was advertised.
    #[inline]
    fn keep_edge_ahead(&mut self) {
        if self.tcb.whole_buffer {
            let rcv = &mut self.tcb.rcv;
            rcv.adv = rcv.adv.max(rcv.nxt);
        }
    }

    /// Delivers queued text that is now in order.
    pub(super) fn deliver_waiting(&mut self, env: &mut Env<'_>) {
        let Some(reassembly) = &mut self.reassembly else { return };
        // A segment that fills all or part of a gap is acknowledged at once (5681-8).
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
        self.keep_edge_ahead();
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

    /// Queues text beyond a gap, if there is room and the application still reads.
    pub(super) fn hold(
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

    /// Bytes available for out-of-order text: the receive buffer without the unread data.
    fn reassembly_limit(&self) -> usize {
        (self.tcb.rcv.buffer as usize).saturating_sub(self.receive_queue.len())
    }

    /// Drops out-of-order text that does not fit beside the unread data, the highest first (THREAT-13).
    fn fit_reassembly(&mut self, env: &mut Env<'_>) {
        let limit = self.reassembly_limit();
        let Some(reassembly) = &mut self.reassembly else { return };
        env.counters.ofo_pruned += u64::from(reassembly.fit(limit) > 0);
        if reassembly.is_empty() {
            self.reassembly = None;
        }
    }

    /// Drops the out-of-order text. SACK blocks no longer report it, so the peer retransmits it (2018-4). In-order data
    /// stays. Returns the number of bytes freed.
    pub(crate) fn prune_reassembly(&mut self) -> usize {
        self.reassembly.take().map_or(0, |reassembly| reassembly.held())
    }

    /// Advances RCV.NXT over the peer's FIN if the FIN is next. Returns whether it was.
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

    /// Records a duplicate range, to be reported once if the peer supports SACK (2883-1, 2883-2).
    pub(crate) fn note_duplicate(&mut self, left: SeqNum, right: SeqNum) {
        if left.lt(right) {
            self.rare().dsack = (left, right);
        }
    }

    /// Schedules an ACK: for at least every second full segment, and within `tcp_delack` (SHLD-18, SHLD-19).
    #[inline]
    pub(super) fn note_data_received(&mut self, bytes: u32, env: &Env<'_>) {
        let interactive = self.is_interactive();
        let ack = &mut self.tcb.ack;
        ack.bytes += bytes;
        let full = u32::from(self.tcb.rcv.mss.max(1));
        if ack.quick > 0 && !interactive {
            ack.quick -= 1;
            ack.now = true;
        } else if self.tcb.whole_buffer {
            // Every second segment, whatever its size. DRILL-F30
            let waits = self.tcb.timers.delayed_ack.is_some();
            if waits || bytes > u32::from(self.tcb.snd.mss) || env.config.tcp_delack.is_zero() {
                ack.now = true;
            } else {
                self.tcb.timers.delayed_ack = Some(Deadline::after(env.now, env.config.tcp_delack));
            }
        } else if ack.bytes >= 2 * full.min(u32::from(self.tcb.rcv.adv_mss))
            || env.config.tcp_delack.is_zero()
        {
            ack.now = true;
        } else if self.tcb.timers.delayed_ack.is_none() {
            self.tcb.timers.delayed_ack = Some(Deadline::after(env.now, env.config.tcp_delack));
        }
    }

    /// Writes the blocks of the next SACK option to `blocks`. A D-SACK block comes first and is reported once.
    #[inline]
    pub(crate) fn push_sack_blocks(&mut self, blocks: &mut SackBlocks, env: &mut Env<'_>) {
        if self.has_sack_blocks() && self.tcb.snd.sack && self.tcb.state != State::SynReceived {
            self.push_all_blocks(blocks, env);
        }
    }

    #[inline]
    pub(crate) fn has_sack_blocks(&self) -> bool {
        self.reassembly.is_some() || self.has_dsack()
    }

    /// Whether there is duplicate data to report.
    #[inline]
    pub(crate) fn has_dsack(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.dsack.0 != rare.dsack.1)
    }

    fn push_all_blocks(&mut self, blocks: &mut SackBlocks, env: &mut Env<'_>) {
        let (left, right) =
            self.rare.as_mut().map(|rare| std::mem::take(&mut rare.dsack)).unwrap_or_default();
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
