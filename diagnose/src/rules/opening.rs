//! Opening: refused, unanswered, answered late, given up.

use super::{Context, by_cost};
use crate::conn::{CLIENT, Conn, Kind, Mark, SERVER, fact, reset, state};
use crate::finding::{Confidence, Finding, Place, Severity, seconds};
use crate::packet::Icmp;

/// Nanoseconds within which a client that gets no answer has tried often enough.
const PATIENCE: i64 = 3_000_000_000;
const SECOND: i64 = 1_000_000_000;

pub(super) fn judge(conn: &Conn, context: &Context, out: &mut Vec<Finding>) {
    reuse(conn, out);
    if conn.is(state::SYN) && !conn.is(state::SYN_ACK) {
        if !conn.is(state::SIMULTANEOUS) {
            refused(conn, context, out);
        }
    } else if conn.is(state::SYN_ACK) {
        answered(conn, out);
    }
    if conn.is(state::SIMULTANEOUS) && conn.is(state::ESTABLISHED) && !split(conn, out) {
        let finding =
            Finding::new("open-simultaneous", Severity::Info, Place::Unknown).see(conn.first_packet, "SYN");
        out.push(finding.at(conn.start, 0).text("Both ends sent a SYN to each other."));
    }
    if let Some(changed) = conn.marks_of(SERVER, Kind::Changed).next() {
        let finding = Finding::new("open-synack-changed", Severity::Warning, Place::Server)
            .see(changed.packet, "another ISN");
        out.push(finding.at(changed.at, 0).text("One SYN got SYN-ACKs with different initial numbers."));
    }
    fast_open(conn, out);
}

/// A SYN with a cookie and data: the server takes the data, or only the SYN.
fn fast_open(conn: &Conn, out: &mut Vec<Finding>) {
    let answer = conn.marks_of(SERVER, Kind::SynAck).next();
    let Some(answer) = answer.filter(|_| conn.is(state::FAST_OPEN) && conn.is(state::SYN_DATA)) else {
        return;
    };
    if conn.ways[CLIENT].is(fact::SYN_DATA_ACKED) {
        let finding = Finding::new("open-tfo-used", Severity::Info, Place::Client)
            .see(conn.first_packet, "SYN with a cookie and data");
        out.push(finding.at(conn.start, 0).text("The SYN carried data (TCP Fast Open)."));
    } else if !conn.is(state::SYN_BARE) {
        let text = format!("The SYN-ACK acknowledges the SYN, and not its {} bytes of data.", conn.syn_len);
        out.push(
            Finding::new("open-tfo-failed", Severity::Info, Place::Server)
                .see(conn.first_packet, "SYN with a cookie and data")
                .see(answer.packet, "acknowledges the SYN alone")
                .at(conn.start, answer.at - conn.start)
                .text(text)
                .because("The server does not believe the cookie, or its queue of Fast Open is full; the data has to come again."),
        );
    }
}

/// The server answers the SYN with a SYN: the client, and nobody else, sends a SYN-ACK.
fn split(conn: &Conn, out: &mut Vec<Finding>) -> bool {
    let answer = conn.marks_of(CLIENT, Kind::SynAck).next();
    let Some((syn, answer)) = conn.marks_of(SERVER, Kind::Syn).next().zip(answer) else { return false };
    let reset = conn.ways.iter().any(|way| way.is(fact::RST));
    if reset || conn.marks_of(SERVER, Kind::SynAck).next().is_some() {
        return false;
    }
    out.push(
        Finding::new("open-split-handshake", Severity::Info, Place::Server)
            .see(syn.packet, "SYN instead of a SYN-ACK")
            .see(answer.packet, "the client's SYN-ACK")
            .at(conn.start, answer.at - conn.start)
            .text("The server answers the SYN with a SYN of its own, and the client sends the SYN-ACK.")
            .because("Where both ends open at once, both send a SYN-ACK.")
            .or("open-simultaneous", "a capture at the server: did its SYN-ACK get lost?"),
    );
    true
}

fn syns(conn: &Conn) -> Vec<&Mark> {
    conn.marks_of(CLIENT, Kind::Syn).collect()
}

/// How the tuple was used before.
fn reuse(conn: &Conn, out: &mut Vec<Finding>) {
    let Some(previous) = conn.rare.as_ref().and_then(|rare| rare.previous.as_ref()) else { return };
    let ago = seconds((conn.start - previous.last).max(0));
    if conn.is(state::ISN_REUSED) && conn.is(state::SYN_ACK) {
        let finding = Finding::new("open-isn-reused", Severity::Warning, Place::Client)
            .see(previous.last_packet, "the connection before")
            .see(conn.first_packet, "SYN within its numbers");
        out.push(
            finding.at(conn.start, 0).text("The new connection begins within the numbers of the one before."),
        );
    }
    if !conn.is(state::SYN_ACK) {
        return;
    }
    let challenged = conn.marks_of(SERVER, Kind::Challenge).next().is_some();
    let id = if conn.is(state::REUSED_CLOSED) { "open-timewait-reused" } else { "open-tuple-reused" };
    if !challenged && conn.is(state::REUSED_CLOSED | state::REUSED_LATE | state::REUSED_ALIVE) {
        let text = format!("The same ports were used {ago} before, by connection {}.", previous.n);
        let finding = Finding::new(id, Severity::Info, Place::Client).sure(Confidence::Certain);
        let finding =
            finding.see(conn.first_packet, "SYN").see(previous.last_packet, "the connection before");
        out.push(finding.at(conn.start, 0).text(text));
    }
}

/// No SYN-ACK.
fn refused(conn: &Conn, context: &Context, out: &mut Vec<Finding>) {
    let first = conn.first_packet;
    if let Some(icmp) = conn.marks_of(CLIENT, Kind::Unreachable).next() {
        let finding =
            Finding::new("open-rejected-icmp", Severity::Error, Place::Path).sure(Confidence::Certain);
        let text = format!(
            "An ICMP message ({}) rejects the SYN after {}.",
            Icmp::words(icmp.value),
            seconds(icmp.at - conn.start)
        );
        out.push(
            finding
                .see(icmp.packet, "ICMP unreachable")
                .see(first, "SYN")
                .at(conn.start, icmp.at - conn.start)
                .text(text),
        );
        return;
    }
    if challenge(conn, out) {
        return;
    }
    if let Some(rst) = conn.marks_of(SERVER, Kind::Reset).next() {
        if rst.value & (reset::ODD | reset::ECHOED_ID | reset::TTL) == 0 {
            let text = format!(
                "The server refuses: it answers the SYN with a reset after {}.",
                seconds(rst.at - conn.start)
            );
            let finding = Finding::new("open-refused", Severity::Error, Place::Server);
            out.push(
                finding
                    .see(rst.packet, "reset")
                    .see(first, "SYN")
                    .at(conn.start, rst.at - conn.start)
                    .text(text)
                    .because(
                        "The reset acknowledges the SYN, has no options, and comes within a round trip.",
                    ),
            );
        }
        return;
    }
    let gave_up = conn
        .marks
        .iter()
        .find(|mark| matches!(mark.kind, Kind::Fin | Kind::Reset) && usize::from(mark.way) == CLIENT);
    if let Some(end) = gave_up {
        out.push(abandoned(conn, end, Severity::Warning));
        return;
    }
    unanswered(conn, context, out);
}

/// SYNs, and nothing comes back.
pub(super) fn unanswered(conn: &Conn, context: &Context, out: &mut Vec<Finding>) {
    let syns = syns(conn);
    let Some(last) = syns.last() else { return };
    if conn.is(state::SYN_ACK) || conn.ways[SERVER].packets > 0 || conn.is(state::ESTABLISHED) {
        return;
    }
    let waited = context.end.max(last.at) - conn.start;
    if waited < PATIENCE || syns.len() < 2 && waited < 10 * SECOND {
        return;
    }
    let text = format!(
        "{} SYNs in {} got no answer, and no ICMP message.",
        syns.len(),
        seconds(last.at - conn.start)
    );
    let finding = Finding::new("open-no-answer", Severity::Error, Place::Path)
        .see_all(syns.iter().map(|s| s.packet), "SYN");
    out.push(
        finding
            .at(conn.start, last.at - conn.start)
            .cost(last.at - conn.start)
            .text(text)
            .times(syns.len() as u32)
            .because(
                "Neither a SYN-ACK, nor a reset, nor an ICMP message came before the end of the capture.",
            )
            .or("open-backlog-full", "a capture at the server: does the SYN arrive there?"),
    );
}

/// A SYN that a living or a recently closed connection answers.
fn challenge(conn: &Conn, out: &mut Vec<Finding>) -> bool {
    let Some(challenge) = conn.marks_of(SERVER, Kind::Challenge).next() else { return false };
    let closed = conn.is(state::REUSED_CLOSED);
    let (id, text) = if closed {
        (
            "open-timewait-refused",
            "The server is still in TIME-WAIT, and answers the SYN with an acknowledgment of the old connection.",
        )
    } else {
        (
            "open-syn-in-established",
            "The server still has a connection of these ports, and answers the SYN with an acknowledgment of the old one.",
        )
    };
    let mut finding = Finding::new(id, Severity::Warning, Place::Client)
        .see(conn.first_packet, "SYN")
        .see(challenge.packet, "acknowledges old numbers");
    if let Some(old) = conn.marks_of(CLIENT, Kind::OldReset).next() {
        finding = finding.see(old.packet, "reset of the old connection").sure(Confidence::Certain);
    }
    let again = syns(conn);
    finding = finding.see_all(again.iter().skip(1).map(|syn| syn.packet), "SYN again");
    let lasted = again.last().map_or(0, |syn| syn.at - conn.start);
    out.push(
        finding.at(conn.start, lasted).text(text).because(
            "The acknowledgment has numbers of the connection before, not of this SYN (RFC 5961 §4).",
        ),
    );
    true
}

fn abandoned(conn: &Conn, end: &Mark, severity: Severity) -> Finding {
    let text = format!(
        "The client gives up {} after its SYN, without having sent data.",
        seconds(end.at - conn.start)
    );
    Finding::new("open-abandoned", severity, Place::Client)
        .see(end.packet, "the client closes")
        .see_all(
            conn.marks
                .iter()
                .filter(|mark| mark.kind == Kind::SynAck || mark.kind == Kind::Reset)
                .map(|m| m.packet),
            "after it gave up",
        )
        .see(conn.first_packet, "SYN")
        .at(conn.start, end.at - conn.start)
        .text(text)
}

/// There is a SYN-ACK.
fn answered(conn: &Conn, out: &mut Vec<Finding>) {
    challenge(conn, out);
    let [client, server] = &conn.ways;
    let established = conn.marks_of(CLIENT, Kind::Established).next();
    let silent = client.data_packets == 0 && server.data_packets == 0;
    let gives_up = conn.marks.iter().find(|mark| {
        usize::from(mark.way) == CLIENT
            && (mark.kind == Kind::Reset
                || mark.kind == Kind::Fin && established.is_none_or(|e| mark.at < e.at))
    });
    if let Some(end) = gives_up.filter(|_| silent && conn.first_to_close == 1) {
        let early = established.is_none_or(|e| end.packet <= e.packet + 1);
        if early {
            let waited = end.at - conn.start > SECOND / 4;
            out.push(abandoned(conn, end, if waited { Severity::Warning } else { Severity::Info }));
            return;
        }
    }
    repeated_syns(conn, out);
    bare_syn(conn, out);
    repeated_answers(conn, established, out);
    overflow(conn, established, out);
}

/// The SYN came again before it was answered.
fn repeated_syns(conn: &Conn, out: &mut Vec<Finding>) {
    let Some(answer) = conn.marks_of(SERVER, Kind::SynAck).next() else { return };
    let before: Vec<&Mark> = syns(conn).into_iter().filter(|syn| syn.packet < answer.packet).collect();
    let (Some(first), Some(last)) = (before.first(), before.last()) else { return };
    let cost = last.at - first.at;
    if before.len() < 2 || cost < SECOND / 10 || conn.marks_of(SERVER, Kind::Challenge).next().is_some() {
        return;
    }
    // The answer echoes the timestamp of the SYN that reached the server first.
    let stamped = answer.value != 0 && first.value != 0 && first.value != last.value;
    let reached = stamped && answer.value == first.value;
    let (id, other) =
        if reached { ("open-synack-lost", "open-syn-lost") } else { ("open-syn-lost", "open-synack-lost") };
    let text =
        format!("The SYN was sent {} times, over {}, before it was answered.", before.len(), seconds(cost));
    let mut finding = Finding::new(id, by_cost(conn, cost), Place::Path)
        .see_all(before.iter().map(|syn| syn.packet), "SYN")
        .see(answer.packet, "answered")
        .at(first.at, cost)
        .cost(cost)
        .times(before.len() as u32 - 1)
        .text(text)
        .or(other, "a capture at the server");
    finding = match (stamped, reached) {
        (true, true) => {
            finding.because("The SYN-ACK echoes the timestamp of the first SYN: that one had arrived.")
        }
        (true, false) => finding
            .because("The SYN-ACK echoes the timestamp of a later SYN: the server had not seen the first."),
        _ => finding
            .sure(Confidence::Possible)
            .because("From here a lost SYN and a lost SYN-ACK look the same."),
    };
    out.push(finding);
}

/// A SYN with data got no answer, and one without did.
fn bare_syn(conn: &Conn, out: &mut Vec<Finding>) {
    if !conn.is(state::SYN_BARE) {
        return;
    }
    let Some(answer) = conn.marks_of(SERVER, Kind::SynAck).next() else { return };
    let text = format!(
        "The SYN with {} bytes of data got no answer, and one without data did after {}.",
        conn.syn_len,
        seconds(answer.at - conn.start)
    );
    let all = syns(conn).into_iter().map(|syn| syn.packet);
    out.push(
        Finding::new("open-syn-data", Severity::Info, Place::Path)
            .sure(Confidence::Possible)
            .see_all(all, "SYN")
            .see(answer.packet, "answered")
            .at(conn.start, answer.at - conn.start)
            .text(text)
            .because("Something on the path may drop SYNs with data; the loss of one packet looks the same.")
            .or("open-syn-lost", "does it happen again? nstat -az TcpExtTCPFastOpenActiveFail"),
    );
}

/// The SYN-ACK came again.
fn repeated_answers(conn: &Conn, established: Option<&Mark>, out: &mut Vec<Finding>) {
    let answers: Vec<&Mark> = conn.marks_of(SERVER, Kind::SynAck).collect();
    let (Some(first), Some(last)) = (answers.first(), answers.last()) else { return };
    let cost = last.at - first.at;
    // Sooner than any timer: two copies of one SYN were answered.
    if answers.len() < 2 || cost < SECOND / 10 {
        return;
    }
    let all: Vec<u32> = answers.iter().map(|answer| answer.packet).collect();
    let syn_between =
        syns(conn).into_iter().find(|syn| syn.packet > first.packet && syn.packet < last.packet);
    let heard = established.filter(|ack| ack.packet < last.packet);
    let finding = |id: &'static str, place: Place| {
        Finding::new(id, by_cost(conn, cost), place)
            .see_all(all.iter().copied(), "SYN-ACK")
            .at(first.at, cost)
            .cost(cost)
            .times(answers.len() as u32 - 1)
    };
    if let Some(ack) = heard {
        // Answers to several SYNs cross the acknowledgment of the first.
        let crossing =
            syns(conn).len() > 1 && answers.len() <= syns(conn).len() && last.at - ack.at < SECOND / 2;
        if crossing {
            return;
        }
        let again = conn.marks_of(CLIENT, Kind::AckAgain).map(|mark| mark.packet);
        let text = format!(
            "The server repeats its SYN-ACK {} times though the client acknowledges it.",
            answers.len() - 1
        );
        // Near the server, the acknowledgment has arrived.
        let here = conn.leg(CLIENT) * 2 < conn.leg(SERVER);
        let (id, place, other) = if here {
            ("open-backlog-full", Place::Server, "open-ack-lost")
        } else {
            ("open-ack-lost", Place::Path, "open-backlog-full")
        };
        out.push(
            finding(id, place)
                .see(ack.packet, "the client's ACK")
                .see_all(again, "ACK again")
                .text(text)
                .or(other, "a capture at the server; ss -ltn there"),
        );
    } else if syn_between.is_some() && established.is_some() {
        let text = format!(
            "The client repeats its SYN though the server has answered: {} SYN-ACKs did not arrive.",
            answers.len() - 1
        );
        out.push(
            finding("open-synack-lost", Place::Path)
                .sure(Confidence::Certain)
                .text(text)
                .because("A SYN came after the SYN-ACK had left."),
        );
    } else if established.is_some() {
        let text =
            format!("The server sent its SYN-ACK {} times before the client's ACK arrived.", answers.len());
        out.push(finding("open-ack-lost", Place::Path).sure(Confidence::Possible).text(text)
            .because("No SYN came again, so the client had the SYN-ACK, or it is more patient than the server.")
            .or("open-synack-lost", "a capture at the client"));
    } else if answers.len() >= 3 {
        let text = format!(
            "The server sent its SYN-ACK {} times, and the client never acknowledged it.",
            answers.len()
        );
        out.push(
            finding("open-synack-lost", Place::Path)
                .sure(Confidence::Possible)
                .text(text)
                .or("open-syn-flood", "other connections to the same port")
                .or("open-abandoned", "a capture at the client"),
        );
    }
}

/// The server resets a connection in answer to the third segment.
fn overflow(conn: &Conn, established: Option<&Mark>, out: &mut Vec<Finding>) {
    let server = &conn.ways[SERVER];
    let Some(ack) = established else { return };
    let Some(rst) = conn.marks_of(SERVER, Kind::Reset).next() else { return };
    let bare = rst.value & (reset::ACK | reset::WINDOW) == 0;
    let forged = rst.value & (reset::ODD | reset::TTL | reset::ECHOED_ID) != 0;
    let spoke = server.data_packets > 0
        || server.is(fact::FIN)
        || server.acks > 0
        || conn.ways[CLIENT].una.wrapping_sub(conn.ways[CLIENT].iss) > 1;
    if !bare || forged || spoke || rst.at - ack.at > (2 * conn.round_trip()).max(SECOND) {
        return;
    }
    let text = "The server resets the connection in answer to the third segment of the handshake.".to_owned();
    out.push(Finding::new("open-abort-on-overflow", Severity::Error, Place::Server).sure(Confidence::Possible)
        .see(rst.packet, "reset").see(ack.packet, "third segment").at(ack.at, rst.at - ack.at).text(text)
        .because("The reset has no ACK and no window: there is no socket. The server had sent nothing but its SYN-ACK.")
        .or("reset-peer-gone", "nstat -az TcpExtListenOverflows at the server"));
}
