//! Closing: FINs that are lost, unanswered, or never sent.

use super::{Context, by_cost};
use crate::conn::{CLIENT, Conn, Kind, Mark, SERVER, fact, reset};
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

const SECOND: i64 = 1_000_000_000;
/// How long one connection may stay half closed before it is a leak.
const PATIENT: i64 = 60 * SECOND;
/// How long several connections of a service may.
pub(crate) const SEVERAL: i64 = 10 * SECOND;

pub(super) fn judge(conn: &Conn, context: &Context, out: &mut Vec<Finding>) {
    for way in [CLIENT, SERVER] {
        repeated(conn, way, out);
        leak(conn, way, context, out);
        assassinated(conn, way, out);
    }
    let [client, server] = &conn.ways;
    if client.is(fact::FIN) && server.is(fact::FIN) && crossed(conn) {
        out.push(
            Finding::new("close-simultaneous", Severity::Info, Place::Unknown)
                .see(client.first_fin, "FIN")
                .see(server.first_fin, "FIN")
                .at(conn.last, 0)
                .text("Both ends closed at the same time."),
        );
    }
    half_closed(conn, out);
    if context.all && !out.iter().any(|finding| finding.id.starts_with("close-")) {
        orderly(conn, out);
    }
}

/// One end closed its direction, and the other went on.
fn half_closed(conn: &Conn, out: &mut Vec<Finding>) {
    if conn.ways.iter().any(|way| way.is(fact::RST)) {
        return;
    }
    for way in [CLIENT, SERVER] {
        let peer = 1 - way;
        // Data that does not acknowledge the FIN has crossed it.
        let late: Vec<&Mark> =
            conn.marks_of(peer, Kind::DataAfterFin).filter(|mark| mark.value == 1).collect();
        let (Some(fin), Some(first), Some(last)) =
            (conn.marks_of(way, Kind::Fin).next(), late.first(), late.last())
        else {
            continue;
        };
        let text = format!(
            "The {} closed its direction, and the {} sent data for {} after that.",
            Place::of(way).name(),
            Place::of(peer).name(),
            seconds(last.at - fin.at)
        );
        out.push(
            Finding::new("close-half-closed", Severity::Info, Place::of(way))
                .sure(Confidence::Certain)
                .see(fin.packet, "FIN")
                .see(first.packet, "data after it")
                .at(fin.at, last.at - fin.at)
                .text(text)
                .because(
                    "The data acknowledges the FIN, and no reset answers it: shutdown(SHUT_WR), not close().",
                ),
        );
    }
}

/// Both ends closed, and both FINs were acknowledged.
fn orderly(conn: &Conn, out: &mut Vec<Finding>) {
    let closed = |way: usize| conn.ways[way].is(fact::FIN) && conn.ways[way].is(fact::FIN_ACKED);
    if !closed(CLIENT) || !closed(SERVER) || conn.ways.iter().any(|way| way.is(fact::RST)) {
        return;
    }
    let first = usize::from(conn.first_to_close == 2);
    let fin = |way| conn.marks_of(way, Kind::Fin).next();
    let (Some(one), Some(other)) = (fin(first), fin(1 - first)) else { return };
    let text = format!(
        "The {} closed first, and the {} {} later.",
        Place::of(first).name(),
        Place::of(1 - first).name(),
        seconds(other.at - one.at)
    );
    out.push(
        Finding::new("close-normal", Severity::Info, Place::of(first))
            .sure(Confidence::Certain)
            .see(one.packet, "FIN")
            .see(other.packet, "FIN of the other end")
            .at(one.at, other.at - one.at)
            .text(text)
            .because("Both FINs were acknowledged."),
    );
}

fn crossed(conn: &Conn) -> bool {
    let fin = |way| conn.marks_of(way, Kind::Fin).next();
    let ack = |way| conn.marks_of(way, Kind::FinAck).next();
    let (Some(a), Some(b)) = (fin(CLIENT), fin(SERVER)) else { return false };
    let (first, second, way) = if a.packet < b.packet { (a, b, SERVER) } else { (b, a, CLIENT) };
    // The second FIN does not acknowledge the first.
    ack(way).is_some_and(|ack| ack.packet > second.packet)
        && second.at - first.at < conn.round_trip().max(SECOND / 1000)
}

/// A FIN came again.
fn repeated(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let again: Vec<&Mark> = conn.marks_of(way, Kind::FinAgain).collect();
    let (Some(first), Some(last)) = (conn.marks_of(way, Kind::Fin).next(), again.last()) else { return };
    let acked = conn.marks_of(1 - way, Kind::FinAck).next();
    let heard = acked.filter(|ack| ack.packet < last.packet);
    let cost = last.at - first.at;
    let fins = || std::iter::once(first.packet).chain(again.iter().map(|mark| mark.packet));
    let answer = acked.filter(|ack| ack.packet > last.packet);
    let place = Place::of(way);
    let finding = |id| {
        Finding::new(id, by_cost(conn, cost), Place::Path)
            .see_all(fins(), "FIN")
            .at(first.at, cost)
            .cost(cost)
            .times(again.len() as u32)
    };
    if let Some(ack) = heard {
        let acks = conn.marks_of(1 - way, Kind::FinAckAgain).map(|mark| mark.packet);
        let text = format!(
            "The {}'s FIN came {} times though its acknowledgment had left: that was lost.",
            place.name(),
            again.len() + 1
        );
        out.push(
            finding("close-last-ack-lost")
                .sure(Confidence::Certain)
                .see(ack.packet, "acknowledgment")
                .see_all(acks, "acknowledgment again")
                .text(text)
                .because("The FIN comes again after its acknowledgment passed here."),
        );
    } else if answer.is_some() || again.len() < 3 {
        // The answer to the second FIN of a connection is the last acknowledgment.
        let second = conn.ways[1 - way].is(fact::FIN) && conn.first_to_close != way as u8 + 1;
        let (id, other) = if second {
            ("close-last-ack-lost", "close-fin-lost")
        } else {
            ("close-fin-lost", "close-last-ack-lost")
        };
        let text =
            format!("The {}'s FIN was sent {} times, over {}.", place.name(), again.len() + 1, seconds(cost));
        out.push(
            finding(id)
                .see(answer.map_or(0, |ack| ack.packet), "answered")
                .text(text)
                .sure(if second { Confidence::Possible } else { Confidence::Likely })
                .because("From here, a lost FIN and a lost acknowledgment of it look the same.")
                .or(other, format!("a capture at the {}", Place::of(1 - way).name())),
        );
    } else {
        let text = format!(
            "The {}'s FIN was sent {} times, over {}, and never acknowledged.",
            place.name(),
            again.len() + 1,
            seconds(cost)
        );
        out.push(
            finding("close-fin-unanswered")
                .text(text)
                .or("live-peer-vanished", format!("a capture at the {}", Place::of(1 - way).name())),
        );
    }
}

/// An old segment ends TIME-WAIT of this direction's peer: its acknowledgment meets an end without a socket.
fn assassinated(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let peer = 1 - way;
    let closed = conn.ways.iter().all(|w| w.is(fact::FIN) && w.is(fact::FIN_ACKED));
    if !closed || usize::from(conn.first_to_close) != peer + 1 {
        return;
    }
    let Some(rst) = conn.marks_of(way, Kind::Reset).next() else { return };
    let Some(ack) = conn.marks_of(peer, Kind::FinAckAgain).take_while(|ack| ack.packet < rst.packet).last()
    else {
        return;
    };
    // A FIN that came again is answered by an end that still has a socket.
    let fin = conn.marks_of(way, Kind::FinAgain).last().is_some_and(|fin| fin.packet < ack.packet);
    if fin || rst.at - ack.at > conn.round_trip().max(SECOND / 10) * 2 || rst.value & reset::ACK != 0 {
        return;
    }
    let old = conn
        .marks
        .iter()
        .rfind(|mark| {
            matches!(mark.kind, Kind::Needless | Kind::Late)
                && usize::from(mark.way) == way
                && mark.packet < ack.packet
        })
        .map_or(0, |mark| mark.packet);
    let text = format!(
        "An old segment of the {} made the {} acknowledge it in TIME-WAIT, and the reset in answer ended TIME-WAIT early.",
        Place::of(way).name(),
        Place::of(peer).name()
    );
    out.push(
        Finding::new("close-timewait-assassination", Severity::Info, Place::of(peer))
            .see(old, "old segment")
            .see(ack.packet, "acknowledged in TIME-WAIT")
            .see(rst.packet, "reset")
            .at(ack.at, rst.at - ack.at)
            .text(text)
            .because("Both FINs had been acknowledged, and the reset answers an acknowledgment."),
    );
}

/// An end that got a FIN and never closes.
fn leak(conn: &Conn, way: usize, context: &Context, out: &mut Vec<Finding>) {
    let peer = 1 - way;
    let [own, other] = [&conn.ways[way], &conn.ways[peer]];
    if !other.is(fact::FIN_ACKED) || own.is(fact::FIN) || own.is(fact::RST) {
        return;
    }
    let Some(ack) = conn.marks_of(way, Kind::FinAck).next() else { return };
    let Some(fin) = conn.marks_of(peer, Kind::Fin).next() else { return };
    // Data after the FIN means that the direction is in use.
    let since = ack.at.max(own.data_at);
    let held = context.end - since;
    if held < SEVERAL || own.data_at > ack.at && own.data_packets > 0 {
        return;
    }
    let place = Place::of(way);
    let text = format!(
        "The {} got a FIN, acknowledged it, and did not close within {}.",
        place.name(),
        seconds(held)
    );
    let (severity, confidence) = if held >= PATIENT {
        (Severity::Warning, Confidence::Likely)
    } else {
        (Severity::Info, Confidence::Possible)
    };
    out.push(
        Finding::new("close-wait-leak", severity, place)
            .sure(confidence)
            .see(fin.packet, "FIN")
            .see(ack.packet, "acknowledged")
            .at(ack.at, held)
            .text(text)
            .because("It sent neither data nor a FIN since.")
            .or("app-slow-response", "a longer capture, or ss -tan state close-wait there"),
    );
}
