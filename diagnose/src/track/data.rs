//! Data: new, skipped, late, and sent again, with the reason.

use crate::conn::{
    Burst, Conn, EVIDENCE, HOLES, Hole, Kind, RANGES, Range, Stuck, Trouble, before, fact, later, state,
};
use crate::packet::{Checksum, FIN, Segment};

const MILLI: i64 = 1_000_000;
/// The least timeout that is usual: Linux's.
const LEAST_TIMEOUT: i64 = 190 * MILLI;

/// Takes in a keepalive or a window probe. Returns whether it is one.
pub(super) fn probe(conn: &mut Conn, way: usize, s: &Segment, idle: i64) -> bool {
    let w = &conn.ways[way];
    if !w.is(fact::NUMBERED)
        || w.data_packets == 0 && !conn.is(state::ESTABLISHED)
        || s.has(FIN)
        || s.len > 1 && !w.is(fact::CLOSED_WINDOW)
    {
        return false;
    }
    let below = s.seq.wrapping_add(1) == w.nxt && w.una == w.nxt;
    let closed = w.is(fact::CLOSED_WINDOW);
    // A byte beyond a closed window, or one that was acknowledged.
    let beyond = closed && s.len > 0 && !before(s.seq, w.una) && s.seq == w.una;
    let is_probe = if closed {
        below && s.len <= 1 || s.len == 0 && before(s.seq, w.una) || beyond && s.len > 0
    } else {
        below && (s.len == 0 || idle >= 1000 * MILLI)
    };
    if !is_probe {
        return false;
    }
    let unanswered = w.is(fact::PROBING);
    conn.ways[way].set(fact::PROBING);
    if closed {
        let zero = &mut conn.trouble(way).zero;
        zero.probes += 1;
        if zero.packets.len() < EVIDENCE {
            zero.packets.push((s.number, s.at));
        }
        conn.mark(way, Kind::Probe, s, u32::from(unanswered));
        // The other end may take the bytes all the same.
        let probed = &mut conn.trouble(way).zero.probed;
        *probed = (*probed).max(s.len);
    } else {
        conn.mark(way, Kind::Keepalive, s, u32::from(unanswered));
        after_opening(conn, way, s);
    }
    true
}

/// Notes a probe of a window that has opened: the sender does not know it yet.
fn after_opening(conn: &mut Conn, way: usize, s: &Segment) {
    let Some(opened) = conn.marks_of(1 - way, Kind::WindowOpens).last().copied() else { return };
    let probed = conn.marks_of(way, Kind::Probe).last().is_some_and(|probe| probe.packet < opened.packet);
    let waited = s.at - opened.at;
    if !probed || conn.ways[way].data_at > opened.at || waited < (2 * conn.round_trip()).max(50 * MILLI) {
        return;
    }
    let trouble = conn.trouble(way);
    if trouble.update_lost.count == 0 {
        trouble.opened = opened.packet;
    }
    trouble.update_lost.add(s.number, s.at, 0, waited);
}

/// Notes other bytes under numbers that have been sent.
fn compare(conn: &mut Conn, way: usize, s: &Segment) {
    let w = &conn.ways[way];
    if s.head == 0 || s.checksum == Checksum::Bad || !before(s.seq, w.nxt) {
        return;
    }
    let other = |head: u32| head != 0 && head != s.head;
    let in_flight = conn.flights[way].as_deref().and_then(|flight| {
        flight.ranges.iter().find(|range| range.seq == s.seq && other(range.head)).map(|range| range.packet)
    });
    let last = (w.head_seq == s.seq && other(w.head)).then_some(w.head_packet);
    if let Some(packet) = in_flight.or(last) {
        conn.mark(way, Kind::Differs, s, packet);
    }
}

/// Takes in data or a FIN.
pub(super) fn send(conn: &mut Conn, way: usize, s: &Segment) {
    let end = s.end();
    let first = !conn.ways[way].is(fact::NUMBERED);
    if first {
        let w = &mut conn.ways[way];
        w.set(fact::NUMBERED);
        (w.una, w.nxt) = (s.seq, s.seq);
    }
    let fin_was = conn.ways[way].is(fact::FIN);
    let nxt = conn.ways[way].nxt;
    let ahead = s.seq.wrapping_sub(nxt);
    if ahead > 1 << 27 && ahead < u32::MAX - (1 << 27) {
        // Neither near nor behind: another incarnation, or nonsense.
        return;
    }
    compare(conn, way, s);
    let peer_fin = conn.ways[1 - way].is(fact::FIN);
    if peer_fin && s.len > 0 && !before(s.seq, nxt) {
        let covers = s.ack == conn.ways[1 - way].nxt;
        conn.mark(way, Kind::DataAfterFin, s, u32::from(covers));
    }
    if s.has(FIN) && !(fin_was && end == nxt) {
        finish(conn, way, s);
    }
    if before(s.seq, nxt) {
        if s.len == 0 {
            conn.mark(way, Kind::FinAgain, s, 0);
            conn.letter(way, b'f');
            return;
        }
        if s.has(FIN) && fin_was && end == nxt {
            conn.mark(way, Kind::FinAgain, s, s.len);
        }
        again(conn, way, s);
        if before(nxt, end) {
            grow(conn, way, s, nxt);
        }
    } else {
        if s.seq != nxt {
            skip(conn, way, s);
        }
        fresh(conn, way, s);
        grow(conn, way, s, s.seq);
    }
    let w = &mut conn.ways[way];
    w.last_len = s.len;
    w.data_at = s.at;
    w.id = if before(u32::from(w.id) << 16, u32::from(s.id) << 16) { s.id } else { w.id };
}

/// The first FIN of a direction.
fn finish(conn: &mut Conn, way: usize, s: &Segment) {
    // Data of the other end that this FIN does not acknowledge crosses it.
    let crosses = before(s.ack, conn.ways[1 - way].nxt) && conn.ways[1 - way].in_flight();
    let quiet = s.at - conn.ways[way].data_at.max(conn.start) >= 1000 * MILLI;
    let value = u32::from(crosses) | u32::from(quiet) << 1;
    conn.ways[way].set(fact::FIN);
    conn.ways[way].first_fin = s.number;
    if conn.first_to_close == 0 {
        conn.first_to_close = way as u8 + 1;
    }
    conn.mark(way, Kind::Fin, s, value);
    conn.letter(way, b'f');
}

/// New bytes, from `seq` to the end of the segment.
fn grow(conn: &mut Conn, way: usize, s: &Segment, seq: u32) {
    let end = s.end();
    let una = conn.ways[way].una;
    let w = &mut conn.ways[way];
    w.nxt = end;
    // The bytes of a packet that the path has damaged are no evidence.
    let head = if seq == s.seq && s.checksum != Checksum::Bad { s.head } else { 0 };
    (w.head_seq, w.head_packet, w.head) = (seq, s.number, head);
    w.bytes += u64::from(s.len);
    w.data_packets += 1;
    w.max_len = w.max_len.max(s.len);
    if before(una, end) {
        let flight = conn.flight(way);
        flight.timed.get_or_insert((end, s.at));
        if flight.ranges.len() < RANGES {
            // Most connections have one range in flight, or none.
            if flight.ranges.capacity() == 0 {
                flight.ranges.reserve_exact(1);
            }
            flight.ranges.push_back(Range { seq, end, packet: s.number, times: 1, at: s.at, head });
        }
    }
    conn.fill_window(way, s);
}

/// The segment leaves bytes out.
fn skip(conn: &mut Conn, way: usize, s: &Segment) {
    let w = &conn.ways[way];
    // Before the first data of a capture that begins in the middle, nothing is known to be missing.
    if w.packets <= 1 && !w.is(fact::SYN) {
        return;
    }
    let hole = Hole {
        seq: w.nxt,
        end: s.seq,
        at: s.at,
        packet: s.number,
        tsval: s.options.timestamps.map_or(0, |t| t.0),
    };
    let flight = conn.flight(way);
    if flight.holes.len() < HOLES {
        flight.holes.push(hole);
    }
}

/// New data in order: who waits for whom.
fn fresh(conn: &mut Conn, way: usize, s: &Segment) {
    if s.len == 0 {
        return;
    }
    if conn.ways[way].data_packets == 0 {
        conn.letter(way, b'd');
    }
    conn.turn(way, s);
}

/// Data that was sent before, or skipped.
fn again(conn: &mut Conn, way: usize, s: &Segment) {
    if restored(conn, way, s) {
        return;
    }
    let w = &conn.ways[way];
    if !before(w.una, s.end()) {
        superfluous(conn, way, s);
        return;
    }
    let hole = conn.flights[way].as_deref().and_then(|flight| {
        flight.holes.iter().position(|hole| before(s.seq, hole.end) && before(hole.seq, s.end()))
    });
    if let Some(index) = hole {
        fill(conn, way, s, index);
    } else {
        retransmission(conn, way, s);
    }
    // No round trip is measured across a retransmission.
    if let Some(flight) = conn.flights[way].as_deref_mut() {
        flight.timed = None;
    }
}

/// The acknowledgment of these bytes was captured before them.
fn restored(conn: &mut Conn, way: usize, s: &Segment) -> bool {
    let near = (conn.round_trip() / 2).clamp(MILLI, 20 * MILLI);
    let Some(trouble) = conn.troubled_mut(way) else { return false };
    let (from, to, at, packet) = trouble.missing_last;
    if at == 0 || s.at - at > near || before(s.seq, from) || before(to, s.end()) {
        return false;
    }
    trouble.missing.count = trouble.missing.count.saturating_sub(1);
    trouble.missing_last.2 = 0;
    trouble.early.add(packet, at, s.len, 0);
    trouble.early.packets.push((s.number, s.at));
    let w = &mut conn.ways[way];
    w.data_packets += 1;
    w.bytes += u64::from(s.len);
    true
}

/// Whether the sender sent it before the packets that overtook it: by its identification, or by its timestamp.
fn is_late(conn: &Conn, way: usize, s: &Segment, hole: Option<&Hole>) -> bool {
    let w = &conn.ways[way];
    if w.is(fact::IDS_GROW) && s.id != 0 {
        // Identifications tell it for sure.
        return before(u32::from(s.id) << 16, u32::from(w.id) << 16);
    }
    let Some(hole) = hole else { return false };
    let waited = s.at - hole.at;
    let round = conn.round_trip();
    match s.options.timestamps {
        // A retransmission is younger than the segment after the hole by a round trip at least.
        Some((value, _)) if round > 4 * MILLI => !before(hole.tsval, value) && waited < 3 * round.max(MILLI),
        _ if round > 0 => waited < round / 3,
        _ => waited < 3 * MILLI,
    }
}

/// All its bytes are acknowledged already.
fn superfluous(conn: &mut Conn, way: usize, s: &Segment) {
    if is_late(conn, way, s, None) {
        let trouble = conn.trouble(way);
        trouble.late.add(s.number, s.at, s.len, 0);
        conn.mark(way, Kind::Late, s, 0);
        return;
    }
    let waited = s.at - conn.ways[way].data_at;
    // The sender had time to hear all that the other end has sent: the last acknowledgment, at least, was lost.
    let (unheard, leg) = (s.at - conn.ways[1 - way].last_at, conn.leg(1 - way));
    if leg > 0 && unheard > leg + leg / 2 + 20 * MILLI {
        conn.trouble(way).ack_lost.add(s.number, s.at, s.len, unheard);
    }
    conn.trouble(way).again += s.len;
    conn.trouble(way).needless.add(s.number, s.at, s.len, waited);
    conn.mark(way, Kind::Needless, s, s.len);
}

/// It fills a hole: late, or a repair of something that was lost before here.
fn fill(conn: &mut Conn, way: usize, s: &Segment, index: usize) {
    let Some(flight) = conn.flights[way].as_deref_mut() else { return };
    let (hole, recovers) = (flight.holes[index], flight.recovers(s.seq));
    let (from, to) = (later(hole.seq, s.seq), if before(hole.end, s.end()) { hole.end } else { s.end() });
    let (left, right) = (Hole { end: from, ..hole }, Hole { seq: to, ..hole });
    flight.holes.swap_remove(index);
    for rest in [left, right] {
        if before(rest.seq, rest.end) {
            flight.holes.push(rest);
        }
    }
    let filled = to.wrapping_sub(from);
    let late = is_late(conn, way, s, Some(&hole));
    let waited = s.at - hole.at;
    let quiet = s.at - conn.ways[way].data_at;
    conn.ways[way].bytes += u64::from(filled);
    if late {
        conn.trouble(way).late.add(s.number, s.at, s.len, waited);
        conn.mark(way, Kind::Late, s, s.len);
        return;
    }
    conn.trouble(way).again += filled;
    let round = conn.round_trip();
    let timed_out = quiet >= LEAST_TIMEOUT.max(2 * round);
    let evidence = [(hole.packet, hole.at), (s.number, s.at)];
    let nxt = conn.ways[way].nxt;
    let trouble = conn.trouble(way);
    trouble.before_here.add(s.number, s.at, s.len, waited);
    let tally = if timed_out || recovers { &mut trouble.timeout } else { &mut trouble.fast };
    if tally.packets.len() < EVIDENCE {
        tally.packets.push(evidence[0]);
    }
    tally.add(s.number, s.at, s.len, waited);
    row(conn, way, s);
    conn.mark(way, if timed_out || recovers { Kind::Timeout } else { Kind::FastRetransmit }, s, s.len);
    if timed_out {
        conn.flight(way).recover = Some(nxt);
    }
}

/// It was sent, captured, and not acknowledged; now it is sent again.
fn retransmission(conn: &mut Conn, way: usize, s: &Segment) {
    let peer = 1 - way;
    let w = &conn.ways[way];
    let (una, nxt) = (w.una, w.nxt);
    let quiet = s.at - w.data_at;
    let since_ack = s.at - conn.ways[peer].last_at;
    let leg = conn.leg(way);
    let (data_at, dup_acks, cut_to) = (w.data_at, w.dup_acks, conn.too_big_at(way));
    let flight = conn.flight(way);
    let lacks = dup_acks > 0 || before(s.seq, flight.sacked) && before(una, flight.sacked);
    let recovers = flight.recovers(s.seq);
    let original =
        flight.ranges.iter_mut().find(|range| before(s.seq, range.end) && !before(s.seq, range.seq));
    let (sent_at, times, original_packet, original_len) = match original {
        Some(range) => {
            let was = (range.at, range.times, range.packet, range.end.wrapping_sub(range.seq));
            range.at = s.at;
            range.times = range.times.saturating_add(1);
            was
        }
        None => (data_at, 1, 0, s.len),
    };
    let waited = s.at - sent_at;
    let kind = if cut_to.is_some_and(|at| s.at - at < 2_000 * MILLI)
        && s.len < original_len.max(conn.ways[way].max_len)
    {
        Kind::Recut
    } else if is_late(conn, way, s, None) && conn.ways[way].is(fact::IDS_GROW) {
        Kind::Late
    } else if recovers && since_ack <= leg / 4 + 10 * MILLI {
        Kind::Timeout
    } else if lacks && since_ack <= leg / 4 + 10 * MILLI {
        Kind::FastRetransmit
    } else if s.end() == nxt && times == 1 && !lacks && !recovers && waited >= leg {
        Kind::TailProbe
    } else if s.seq == una || quiet >= LEAST_TIMEOUT {
        Kind::Timeout
    } else {
        Kind::FastRetransmit
    };
    conn.trouble(way).again += s.len;
    stuck(conn, way, s, (original_packet, sent_at), quiet);
    let trouble = conn.trouble(way);
    let tally = match kind {
        Kind::Recut => &mut trouble.recut,
        Kind::Late => &mut trouble.late,
        Kind::Timeout => &mut trouble.timeout,
        Kind::TailProbe => &mut trouble.tail,
        _ => &mut trouble.fast,
    };
    if original_packet != 0 && tally.packets.len() < EVIDENCE {
        tally.packets.push((original_packet, sent_at));
    }
    tally.add(s.number, s.at, s.len, if kind == Kind::FastRetransmit { waited } else { quiet });
    // Without SACK, a timeout repeats what arrived, too.
    if kind == Kind::FastRetransmit || kind == Kind::Timeout && conn.ways[peer].is(fact::SACK_OFFERED) {
        row(conn, way, s);
    }
    conn.mark(way, kind, s, s.len);
    if kind == Kind::Timeout && !recovers {
        conn.flight(way).recover = Some(nxt);
    }
}

/// Notes repairs of segments that stood in a row.
fn row(conn: &mut Conn, way: usize, s: &Segment) {
    /// Repairs further apart than this belong to losses of their own.
    const APART: i64 = 1000 * MILLI;
    let mss = u32::from(conn.ways[1 - way].mss);
    let segments = if mss == 0 { 1 } else { s.len.div_ceil(mss) };
    let apart = APART.max(2 * conn.round_trip());
    let Trouble { row, burst, .. } = conn.trouble(way);
    if row.segments > 0 && s.seq == row.seq {
        // The repair was lost, too.
        row.last_at = s.at;
        return;
    }
    if row.segments == 0 || s.seq != row.end || s.at - row.last_at > apart {
        *row = Burst { first_at: s.at, ..Burst::default() };
    }
    row.segments += segments;
    (row.seq, row.end, row.last_at) = (s.seq, s.end(), s.at);
    if row.packets.len() < EVIDENCE {
        row.packets.push(s.number);
    }
    if row.segments > burst.segments {
        burst.clone_from(row);
    }
}

/// Notes that the first unacknowledged segment is sent again and again.
fn stuck(conn: &mut Conn, way: usize, s: &Segment, original: (u32, i64), quiet: i64) {
    let (una, passed) = (conn.ways[way].una, conn.ways[way].max_acked);
    if s.seq != una {
        return;
    }
    let stuck = &mut conn.trouble(way).stuck;
    if stuck.times == 0 || stuck.seq != s.seq {
        *stuck = Stuck { seq: s.seq, len: s.len, passed, first_at: original.1, ..Stuck::default() };
        if original.0 != 0 {
            stuck.packets.push(original);
        }
    }
    stuck.times += 1;
    stuck.last_at = s.at;
    stuck.wait = quiet;
    stuck.len = stuck.len.max(s.len);
    if stuck.packets.len() < EVIDENCE {
        stuck.packets.push((s.number, s.at));
    }
}
