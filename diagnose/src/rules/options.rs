//! Options of the handshake, and what a middlebox made of them.

use crate::conn::{CLIENT, Conn, SERVER, Way, fact, state};
use crate::finding::{Confidence, Finding, Place, Severity};

pub(super) fn judge(conn: &Conn, out: &mut Vec<Finding>) {
    let both = conn.ways.iter().all(|way| way.is(fact::SYN));
    if !both || conn.is(state::CUT) || !conn.is(state::SYN_ACK) {
        return;
    }
    scale(conn, out);
    sack(conn, out);
    mss(conn, out);
    let [client, server] = &conn.ways;
    if client.is(fact::TIMESTAMPS)
        && !server.is(fact::TIMESTAMPS)
        && client.is(fact::SACK_OFFERED)
        && server.is(fact::SACK_OFFERED)
    {
        out.push(shake(
            conn,
            "opt-ts-missing",
            Severity::Info,
            "The server does not answer the offer of timestamps.",
        ));
    }
}

/// A finding about the two segments of the handshake.
fn shake(conn: &Conn, id: &'static str, severity: Severity, text: &str) -> Finding {
    let answer = conn.marks_of(SERVER, crate::conn::Kind::SynAck).next();
    Finding::new(id, severity, Place::Path)
        .see(conn.first_packet, "SYN")
        .see(answer.map_or(0, |mark| mark.packet), "SYN-ACK")
        .at(conn.start, 0)
        .text(text)
}

/// Whether an end shows windows as if they were scaled, or not, against what it seems to have agreed.
fn scale(conn: &Conn, out: &mut Vec<Finding>) {
    let [client, server] = &conn.ways;
    let offers = |way: &Way| way.scale != 255;
    let text =
        "The window scale option is lost on the way: one end scales its windows, and the other does not.";
    if offers(client) && !offers(server) {
        // The answer as it was sent had the option, if the server's windows are those of one that scales.
        let scaled = server.syn_window >= 8192
            && server.max_window > 0
            && server.max_window < server.syn_window / 16
            && server.packets >= 3;
        if scaled {
            let because = format!(
                "The SYN-ACK has a window of {}, and later ones are at most {}.",
                server.syn_window, server.max_window
            );
            out.push(shake(conn, "opt-wscale-stripped", Severity::Warning, text).because(because));
        } else {
            out.push(shake(
                conn,
                "opt-wscale-missing",
                Severity::Info,
                "The server does not answer the offer of window scaling.",
            ));
        }
    } else if offers(client) && offers(server) && client.scale >= 3 && client.max_window >= 16_384 {
        // Unscaled windows, taken for scaled ones, would be larger than any buffer.
        let plain = client.max_window >= client.syn_window / 2
            && u64::from(client.max_window) << client.scale > 32 << 20;
        let starved = client.data_packets >= 4 || server.data_packets >= 4;
        if plain && starved {
            let because = format!(
                "The client offers a shift of {}, and its windows ({}) are as large as that of its SYN ({}).",
                client.scale, client.max_window, client.syn_window
            );
            out.push(shake(conn, "opt-wscale-stripped", Severity::Warning, text).because(because));
        }
    }
}

fn sack(conn: &Conn, out: &mut Vec<Finding>) {
    let [client, server] = &conn.ways;
    let repairs =
        |way: usize| conn.troubled(way).map_or(0, |t| t.fast.count + t.timeout.count + t.tail.count);
    let lost = repairs(CLIENT) + repairs(SERVER) > 0;
    let severity = if lost { Severity::Warning } else { Severity::Info };
    if client.is(fact::SACK_OFFERED) && !server.is(fact::SACK_OFFERED) {
        out.push(
            shake(
                conn,
                "opt-sack-missing",
                severity,
                "The SYN offers SACK, and the SYN-ACK does not. Losses are repaired one in a round trip.",
            )
            .or("opt-sack-missing", "a capture at the server: does its SYN-ACK offer SACK?"),
        );
    } else if !client.is(fact::SACK_OFFERED) && client.is(fact::TIMESTAMPS) && client.scale != 255 {
        out.push(shake(conn, "opt-sack-missing", severity, "The SYN has timestamps and window scaling, but no SACK: something on the way may have taken it.").sure(Confidence::Possible));
    } else if client.is(fact::SACK_OFFERED) && server.is(fact::SACK_OFFERED) {
        for way in [CLIENT, SERVER] {
            let plain = conn.troubled(way).map_or(0, |t| t.plain_duplicates);
            if plain >= 3 && !conn.ways[1 - way].is(fact::SACKED) {
                out.push(shake(conn, "opt-sack-missing", severity, "Both ends seem to agree on SACK, but duplicate acknowledgments have none: something on the way took the option.")
                    .because(format!("{plain} duplicate acknowledgments have no SACK block.")));
                return;
            }
        }
    }
}

fn mss(conn: &Conn, out: &mut Vec<Finding>) {
    for way in [CLIENT, SERVER] {
        let (own, other) = (conn.ways[way].mss, conn.ways[1 - way].mss);
        if own > 536 && own < 1300 && other > own {
            out.push(shake(conn, "opt-mss-clamped", Severity::Info, &format!("The MSS of one end is {own}, that of the other {other}: a tunnel, or a rule that clamps it.")));
        }
    }
}
