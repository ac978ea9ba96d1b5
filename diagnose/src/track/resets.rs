//! Resets: who sent one can only be told by its look.

use crate::conn::{Conn, Kind, before, fact, reset as look, state};
use crate::packet::{ACK, FIN, RST, SYN, Segment};

/// Takes in a reset.
pub(super) fn reset(conn: &mut Conn, way: usize, s: &Segment) {
    let peer = 1 - way;
    let w = &conn.ways[way];
    let mut value = 0;
    let mut add = |so: bool, bit: u32| value |= if so { bit } else { 0 };
    add(s.has(ACK), look::ACK);
    add(s.options.timestamps.is_some(), look::OPTIONS);
    add(s.window != 0, look::WINDOW);
    add(w.is(fact::SEEN) && w.ttl.abs_diff(s.ttl) >= 2, look::TTL);
    add(w.is(fact::SEEN), look::KNOWN);
    add(s.id != 0 && s.id == conn.ways[peer].id, look::ECHOED_ID);
    add(s.id != 0, look::ID);
    add(s.flags & (SYN | FIN) != 0 || s.flags & !(RST | ACK | 8) != 0, look::ODD);
    let expected = if w.is(fact::NUMBERED) { w.nxt } else { s.seq };
    // The end that is reset expects what it acknowledged last.
    let acked = conn.ways[peer].ack;
    let exact = s.seq == expected || s.seq == acked || s.has(ACK) && s.seq == 0 && !conn.is(state::SYN_ACK);
    add(!exact, look::INEXACT);
    add(!exact && !before(s.seq, acked) && before(s.seq, conn.ways[peer].edge), look::INSIDE);
    // The cause is the last packet of the other end. The answer needs the time of that leg.
    let cause = conn.ways[peer].last_at;
    let leg = conn.leg(peer);
    add(
        leg > 2_000_000
            && cause > 0
            && s.at - cause < leg / 2
            && s.has(ACK)
            && s.ack == conn.ways[peer].nxt
            && conn.ways[peer].in_flight(),
        look::SOON,
    );
    add(conn.ways[peer].in_flight(), look::AFTER_DATA);
    conn.mark(way, Kind::Reset, s, value);
    conn.letter(way, b'r');
    let w = &mut conn.ways[way];
    w.set(fact::RST);
    w.last_at = s.at;
    if conn.first_to_close == 0 {
        conn.first_to_close = way as u8 + 1;
    }
}
