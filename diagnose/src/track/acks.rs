//! Acknowledgments: how far the other end has the data, its window, and what it lacks.

use super::open::micros;
use crate::conn::{Conn, Hole, Kind, before, fact, later, state};
use crate::packet::{RST, SYN, Segment};

/// Takes in the acknowledgment of a segment. `way` is its direction; it acknowledges the other one.
pub(super) fn acknowledge(conn: &mut Conn, way: usize, s: &Segment) {
    let peer = 1 - way;
    let data = &mut conn.ways[peer];
    if !data.is(fact::NUMBERED) {
        // The first that is known of the other direction.
        data.set(fact::NUMBERED);
        (data.una, data.nxt) = (s.ack, s.ack);
        conn.ways[way].ack = s.ack;
        window(conn, way, s, true);
        return;
    }
    if before(data.nxt, s.ack) {
        beyond(conn, way, s);
    }
    let data = &mut conn.ways[peer];
    let una = data.una;
    let moved = before(una, s.ack);
    if moved {
        advance(conn, way, s);
    } else if s.ack == data.una && s.is_bare_ack() {
        repeated(conn, way, s);
    }
    blocks(conn, way, s, una);
    if s.ack == conn.ways[peer].una || moved {
        window(conn, way, s, moved);
    }
    if moved {
        conn.ways[way].acks = conn.ways[way].acks.saturating_add(1);
    }
    conn.ways[way].ack = later(conn.ways[way].ack, s.ack);
    nagle(conn, way, s);
}

/// The acknowledgment covers bytes that the file lacks.
fn beyond(conn: &mut Conn, way: usize, s: &Segment) {
    let peer = 1 - way;
    let nxt = conn.ways[peer].nxt;
    let missing = s.ack.wrapping_sub(nxt);
    // Far beyond is another incarnation, or nonsense.
    if missing > 1 << 26 {
        return;
    }
    let probed = conn.troubled(peer).map_or(0, |trouble| trouble.zero.probed);
    if conn.ways[peer].packets > 0 && missing > probed && !conn.ways[peer].is(fact::RST) {
        let packet = (s.number, s.at);
        let trouble = conn.trouble(peer);
        trouble.missing.add(packet.0, packet.1, missing, 0);
        trouble.missing_last = (nxt, s.ack, s.at, s.number);
        conn.mark(way, Kind::Missing, s, missing);
    }
    conn.ways[peer].nxt = s.ack;
}

/// New data is acknowledged.
fn advance(conn: &mut Conn, way: usize, s: &Segment) {
    let peer = 1 - way;
    let data = &mut conn.ways[peer];
    let mut flight = conn.flights[peer].as_deref_mut();
    if let Some((_, at)) =
        flight.as_mut().and_then(|flight| flight.timed.take_if(|(end, _)| !before(s.ack, *end)))
    {
        let sample = micros(s.at - at);
        data.rtt = if data.rtt == 0 { sample } else { data.rtt.min(sample) };
        data.srtt = if data.srtt == 0 { sample } else { (data.srtt / 8) * 7 + sample / 8 };
    }
    data.una = s.ack;
    data.dup_acks = 0;
    let fin_acked = data.is(fact::FIN) && s.ack == data.nxt && !data.is(fact::FIN_ACKED);
    if fin_acked {
        data.set(fact::FIN_ACKED);
    }
    let last_len = data.last_len;
    if fin_acked {
        conn.mark(way, Kind::FinAck, s, 0);
    }
    if let Some(flight) = conn.flights[peer].as_deref_mut() {
        flight.sacked = later(flight.sacked, s.ack);
        flight.recover.take_if(|end| !before(s.ack, *end));
        let mut largest = 0;
        while let Some(range) = flight.ranges.front() {
            if before(s.ack, range.end) {
                break;
            }
            largest = largest.max(range.end.wrapping_sub(range.seq));
            flight.ranges.pop_front();
        }
        let mut lost = (0u32, 0u32);
        flight.holes.retain(|hole| {
            let covered = !before(s.ack, hole.end);
            if covered {
                lost = (lost.0 + 1, lost.1 + hole.end.wrapping_sub(hole.seq));
            }
            !covered
        });
        let empty = flight.ranges.is_empty() && flight.holes.is_empty();
        if empty {
            conn.flights[peer] = None;
        }
        conn.ways[peer].max_acked = conn.ways[peer].max_acked.max(largest);
        if lost.0 > 0 {
            conn.trouble(peer).missing.add(s.number, s.at, lost.1, 0);
            conn.mark(way, Kind::Missing, s, lost.1);
        }
    }
    if let Some(trouble) = conn.troubled_mut(peer)
        && trouble.stuck.times > 0
        && before(trouble.stuck.seq, s.ack)
    {
        // A smaller piece got through where the large ones did not.
        if trouble.stuck.times >= 3 && last_len > 0 && last_len < trouble.stuck.len {
            trouble.stuck.passes = last_len;
            trouble.hole_of_size = trouble.stuck.clone();
        }
        if trouble.stuck.times > trouble.worst.times {
            trouble.worst = trouble.stuck.clone();
        }
        trouble.stuck = Default::default();
    }
}

/// The acknowledgment does not move.
fn repeated(conn: &mut Conn, way: usize, s: &Segment) {
    let peer = 1 - way;
    let same_window = conn.ways[way].window == s.window;
    let fin_acked = conn.ways[peer].is(fact::FIN_ACKED) && s.ack == conn.ways[peer].nxt;
    if conn.ways[peer].is(fact::PROBING) {
        conn.ways[peer].clear(fact::PROBING);
        let kind =
            if conn.ways[peer].is(fact::CLOSED_WINDOW) { Kind::ZeroWindow } else { Kind::KeepaliveAnswer };
        conn.mark(way, kind, s, 0);
        return;
    }
    if fin_acked {
        conn.mark(way, Kind::FinAckAgain, s, 0);
        return;
    }
    let data = &mut conn.ways[peer];
    let lacks =
        data.in_flight() || conn.flights[peer].as_ref().is_some_and(|flight| !flight.holes.is_empty());
    if lacks && (same_window || s.options.sacks > 0) && conn.is(state::ESTABLISHED) {
        let data = &mut conn.ways[peer];
        data.dup_acks = data.dup_acks.saturating_add(1);
        if s.options.sacks == 0 && data.dup_acks >= 3 && !s.options.cut {
            let plain = &mut conn.trouble(peer).plain_duplicates;
            *plain = plain.saturating_add(1);
        }
    }
}

/// SACK and DSACK. `acked` is how far the data was acknowledged before this segment.
fn blocks(conn: &mut Conn, way: usize, s: &Segment, acked: u32) {
    let count = usize::from(s.options.sacks);
    if count == 0 {
        return;
    }
    let peer = 1 - way;
    conn.ways[way].set(fact::SACKED);
    let una = conn.ways[peer].una;
    let first = s.options.sack[0];
    let inside = count > 1 && {
        let second = s.options.sack[1];
        !before(first.0, second.0) && !before(second.1, first.1) && first != second
    };
    let twice = !before(una, first.1) && first.0 != first.1;
    if twice || inside {
        conn.trouble(peer).twice.add(s.number, s.at, first.1.wrapping_sub(first.0), 0);
        conn.mark(way, Kind::Twice, s, first.1.wrapping_sub(first.0));
        let trouble = conn.trouble(peer);
        // The data had arrived before it was sent again, and nothing here had acknowledged it.
        if twice && !before(first.0, acked) && trouble.timeout.count + trouble.tail.count > 0 {
            trouble.ack_lost.add(s.number, s.at, first.1.wrapping_sub(first.0), 0);
        }
    }
    let highest =
        s.options.sack[usize::from(twice || inside)..count].iter().fold(una, |h, block| later(h, block.1));
    let data = &mut conn.ways[peer];
    if before(data.nxt, highest) && highest.wrapping_sub(data.nxt) < 1 << 26 && data.packets > 0 {
        // The end has bytes that the file lacks.
        let nxt = data.nxt;
        conn.trouble(peer).missing.add(s.number, s.at, highest.wrapping_sub(nxt), 0);
        conn.mark(way, Kind::Missing, s, highest.wrapping_sub(nxt));
        conn.ways[peer].nxt = highest;
    }
    if before(una, highest)
        && let Some(flight) = conn.flights[peer].as_deref_mut()
    {
        flight.sacked = later(flight.sacked, highest);
        let mut found = 0;
        for block in &s.options.sack[..count] {
            let has = |hole: &Hole| !before(hole.seq, block.0) && !before(block.1, hole.end);
            let lost: u32 =
                flight.holes.iter().filter(|hole| has(hole)).map(|h| h.end.wrapping_sub(h.seq)).sum();
            if lost > 0 {
                flight.holes.retain(|hole| !has(hole));
                found += lost;
            }
        }
        if found > 0 {
            conn.trouble(peer).missing.add(s.number, s.at, found, 0);
        }
    }
}

/// The window that the sender of the acknowledgment advertises.
fn window(conn: &mut Conn, way: usize, s: &Segment, moved: bool) {
    if s.flags & (SYN | RST) != 0 {
        return;
    }
    let peer = 1 - way;
    let shift = conn.shift(way);
    let edge = s.ack.wrapping_add(u32::from(s.window) << shift.unwrap_or(0));
    let closed = conn.ways[peer].is(fact::CLOSED_WINDOW);
    let at = s.at;
    if s.window == 0 && (conn.is(state::ESTABLISHED) || !conn.is(state::SYN)) {
        let zero = &mut conn.trouble(peer).zero;
        if !closed {
            zero.times += 1;
            zero.since = at;
        }
        if zero.packets.len() < crate::conn::EVIDENCE {
            zero.packets.push((s.number, at));
        }
        if !closed {
            conn.ways[peer].set(fact::CLOSED_WINDOW);
            conn.mark(way, Kind::ZeroWindow, s, 0);
        }
    } else if closed {
        conn.ways[peer].clear(fact::CLOSED_WINDOW | fact::PROBING);
        let zero = &mut conn.trouble(peer).zero;
        let lasted = at - zero.since;
        zero.longest = zero.longest.max(lasted);
        zero.total += lasted;
        conn.mark(way, Kind::WindowOpens, s, u32::from(s.window));
    }
    let blocked = conn.ways[peer].is(fact::BLOCKED);
    let own = &mut conn.ways[way];
    if blocked && before(own.edge, edge) {
        conn.ways[peer].clear(fact::BLOCKED);
        let limited = conn.rare().limited[peer].get_or_insert_default();
        limited.times += 1;
        limited.blocked += at - limited.since;
    }
    let own = &conn.ways[way];
    let taken = own.edge.wrapping_sub(edge);
    // Rounding moves the edge by less than the scale. The window of a SYN is only a beginning.
    if moved && own.max_window > 0 && shift.is_some_and(|shift| taken > 1 << shift) && taken < 1 << 30 {
        conn.trouble(way).shrunk.add(s.number, s.at, taken, 0);
    }
    let own = &mut conn.ways[way];
    if moved || before(own.edge, edge) {
        own.edge = edge;
    }
}

/// A bare acknowledgment of a small segment: its sender may have waited for it.
fn nagle(conn: &mut Conn, way: usize, s: &Segment) {
    if !s.is_bare_ack() {
        return;
    }
    let turns = &mut conn.turns;
    if conn.ways[1 - way].is(fact::SMALL) && s.ack == turns.small_end && turns.acked_at == 0 {
        turns.acked_at = s.at;
    }
}
