//! Opening: SYNs, SYN-ACKs, and what belongs to the incarnation before.

use crate::conn::{CLIENT, Conn, Kind, SERVER, before, fact, later, state};
use crate::packet::{ACK, FIN, RST, SYN, Segment};

/// Whether a SYN begins another incarnation.
pub(super) fn begins_anew(conn: &Conn, s: &Segment) -> bool {
    let way = conn.way_of(s);
    let own = &conn.ways[way];
    if own.is(fact::SYN) && own.iss == s.seq {
        // A stack may choose the same number again, but a copy of the first SYN is not younger than it.
        let younger = s.options.timestamps.is_some_and(|stamps| before(own.stamp, stamps.0));
        return conn.is_closed() && conn.is(state::ESTABLISHED) && younger;
    }
    // The SYN-ACK was captured before its SYN, or both ends open at once.
    let answered = conn.ways[1 - way].is(fact::SYN) && conn.ways[1 - way].ack == s.seq.wrapping_add(1);
    let crossing =
        way == SERVER && !conn.is(state::SYN_ACK) && !own.is(fact::SYN) && !conn.is(state::ESTABLISHED);
    !(answered && !own.is(fact::SYN) || crossing)
}

/// Notes how the tuple was used before.
pub(super) fn note_reuse(conn: &mut Conn, old: &Conn, s: &Segment, two_msl: i64) {
    let idle = s.at - old.last;
    let never_opened = !old.is(state::ESTABLISHED) && !old.ways[SERVER].is(fact::SEEN) && old.is(state::SYN);
    if never_opened {
        return;
    }
    conn.set(match (old.is_closed(), idle < two_msl) {
        (false, _) => state::REUSED_ALIVE,
        (true, true) => state::REUSED_CLOSED,
        (true, false) => state::REUSED_LATE,
    });
    let way = usize::from(old.ends[CLIENT] != s.from);
    let (iss, nxt) = (old.ways[way].iss, old.ways[way].nxt);
    if old.ways[way].is(fact::SYN) && (iss == s.seq || before(iss, s.seq) && before(s.seq, nxt)) {
        conn.set(state::ISN_REUSED);
    }
}

/// Takes in a segment with a SYN.
pub(super) fn syn(conn: &mut Conn, way: usize, s: &Segment) {
    let acks = s.has(ACK);
    let again = conn.ways[way].is(fact::SYN) && conn.ways[way].iss == s.seq;
    if acks && way == CLIENT && !conn.is(state::SIMULTANEOUS) && conn.is(state::SYN_ACK) {
        return;
    }
    let client = &conn.ways[CLIENT];
    let expected = s.ack.wrapping_sub(client.iss.wrapping_add(1)) <= conn.syn_len;
    if acks && way == SERVER && client.is(fact::SYN) && !expected && !conn.is(state::SIMULTANEOUS) {
        // It answers another SYN.
        conn.mark(way, Kind::Challenge, s, s.ack);
        return;
    }
    if !again {
        let changed = conn.ways[way].is(fact::SYN);
        if acks && changed {
            conn.mark(way, Kind::Changed, s, s.seq);
            return;
        }
        begin(conn, way, s);
    }
    if again && !acks && s.len == 0 && conn.is(state::SYN_DATA) && !conn.is(state::SYN_ACK) {
        conn.set(state::SYN_BARE);
    }
    let w = &mut conn.ways[way];
    w.last_at = s.at;
    w.id = s.id;
    if acks {
        w.ack = s.ack;
        conn.set(state::SYN_ACK);
        conn.letter(way, b'h');
        let stamp = s.options.timestamps.map_or(0, |stamps| stamps.1);
        conn.mark(way, Kind::SynAck, s, stamp);
        answer(conn, s, again);
    } else {
        if way == SERVER && conn.is(state::SYN) {
            conn.set(state::SIMULTANEOUS);
        }
        if way == CLIENT && conn.is(state::SYN_ACK) && !again {
            conn.set(state::ANSWER_FIRST);
        }
        conn.set(state::SYN);
        conn.letter(way, b's');
        let stamp = s.options.timestamps.map_or(0, |stamps| stamps.0);
        conn.mark(way, Kind::Syn, s, stamp);
    }
}

/// The first SYN of a direction.
fn begin(conn: &mut Conn, way: usize, s: &Segment) {
    let w = &mut conn.ways[way];
    w.set(fact::SYN | fact::NUMBERED | fact::SEEN);
    w.iss = s.seq;
    // Data of a SYN is new again if the answer does not acknowledge it.
    (w.una, w.nxt) = (s.seq, s.seq.wrapping_add(1));
    w.syn_window = s.window;
    w.edge = s.ack.wrapping_add(u32::from(s.window));
    w.mss = s.options.mss.unwrap_or(536);
    w.scale = s.options.scale.unwrap_or(255);
    w.ttl = s.ttl;
    if s.options.sack_permitted {
        w.set(fact::SACK_OFFERED);
    }
    if s.options.timestamps.is_some() {
        w.set(fact::TIMESTAMPS);
    }
    if s.options.fast_open {
        conn.set(state::FAST_OPEN);
    }
    if s.len > 0 {
        conn.syn_len = s.len;
        conn.set(state::SYN_DATA);
    }
}

/// A SYN-ACK acknowledges the SYN: the first measure of the path.
fn answer(conn: &mut Conn, s: &Segment, again: bool) {
    let syns = conn.marks_of(CLIENT, Kind::Syn).count();
    let last = conn.ways[CLIENT].last_at;
    let syn_len = conn.syn_len;
    let client = &mut conn.ways[CLIENT];
    if client.is(fact::SYN) && s.ack.wrapping_sub(client.una).wrapping_sub(1) <= syn_len {
        if before(client.una.wrapping_add(1), s.ack) {
            client.set(fact::SYN_DATA_ACKED);
        }
        client.una = s.ack;
        client.nxt = later(client.nxt, s.ack);
        // With several SYNs it is not known which is answered, except that it is at most this long.
        if !again && syns == 1 {
            conn.legs[CLIENT] = micros(s.at - last);
        }
    } else if !client.is(fact::NUMBERED) {
        (client.una, client.nxt) = (s.ack, s.ack);
        client.set(fact::NUMBERED);
    }
}

pub(super) fn micros(nanos: i64) -> u32 {
    (nanos / 1000).clamp(1, i64::from(u32::MAX)) as u32
}

/// The client's first segment after the SYN-ACK.
pub(super) fn establish(conn: &mut Conn, way: usize, s: &Segment) {
    if way != CLIENT || !s.has(ACK) || conn.is(state::ESTABLISHED) {
        let syn_acks = conn.is(state::ESTABLISHED)
            && way == CLIENT
            && s.is_bare_ack()
            && conn.ways[CLIENT].data_packets < 2;
        if syn_acks && s.ack == conn.ways[SERVER].iss.wrapping_add(1) && conn.ways[SERVER].data_packets == 0 {
            conn.mark(way, Kind::AckAgain, s, 0);
        }
        return;
    }
    let server = &conn.ways[SERVER];
    if conn.is(state::SYN_ACK) && s.ack != server.iss.wrapping_add(1) {
        return;
    }
    conn.set(state::ESTABLISHED);
    conn.mark(way, Kind::Established, s, 0);
    if s.is_bare_ack() {
        conn.letter(way, b'a');
    }
    let syn_acks = conn.marks_of(SERVER, Kind::SynAck).count();
    if syn_acks == 1 {
        conn.legs[SERVER] = micros(s.at - conn.ways[SERVER].last_at);
    }
}

/// Takes in a segment that only makes sense in the previous incarnation.
pub(super) fn is_of_before(conn: &mut Conn, way: usize, s: &Segment) -> bool {
    let unanswered = conn.is(state::SYN) && !conn.is(state::SYN_ACK) && !conn.is(state::SIMULTANEOUS);
    if !unanswered || s.flags & (SYN | RST) != 0 {
        return false;
    }
    let expected = conn.ways[CLIENT].iss.wrapping_add(1);
    if way == SERVER && s.has(ACK) && s.ack != expected {
        conn.mark(way, Kind::Challenge, s, s.ack);
        return true;
    }
    if way == CLIENT && !s.has(ACK) && s.has(FIN) {
        // A client that gives up before it is connected.
        conn.mark(way, Kind::Fin, s, 0);
        conn.ways[CLIENT].set(fact::FIN);
        conn.letter(way, b'f');
        if conn.first_to_close == 0 {
            conn.first_to_close = 1;
        }
        return true;
    }
    false
}

/// Whether a reset of the client ends the incarnation before, which answered this one's SYN.
pub(super) fn resets_before(conn: &mut Conn, way: usize, s: &Segment) -> bool {
    let answered = conn.marks_of(SERVER, Kind::Challenge).last().is_some_and(|mark| mark.value == s.seq);
    let old = way == CLIENT && answered && !conn.is(state::SYN_ACK);
    if old {
        conn.mark(way, Kind::OldReset, s, 0);
    }
    old
}
