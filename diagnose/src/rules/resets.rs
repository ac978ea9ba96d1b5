//! Resets: which end sent one, and why.

use super::path::idle_before;
use crate::conn::{CLIENT, Conn, Kind, Mark, SERVER, before, fact, reset, state};
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

const SECOND: i64 = 1_000_000_000;

pub(super) fn judge(conn: &Conn, out: &mut Vec<Finding>) {
    for way in [CLIENT, SERVER] {
        let resets: Vec<&Mark> = conn.marks_of(way, Kind::Reset).collect();
        let Some(first) = resets.first() else { continue };
        if injected(conn, way, &resets, out) {
            continue;
        }
        // The second reset of a connection is an answer to what crossed the first.
        let other = conn.marks_of(1 - way, Kind::Reset).next();
        if other.is_some_and(|other| other.packet < first.packet) {
            continue;
        }
        judge_one(conn, way, first, &resets, out);
    }
}

/// Someone else made them.
fn injected(conn: &Conn, way: usize, resets: &[&Mark], out: &mut Vec<Finding>) -> bool {
    let w = &conn.ways[way];
    let strong = |value: u32| value & (reset::ODD | reset::ECHOED_ID) != 0 || value & reset::TTL != 0;
    let goes_on = w.after_reset > 0;
    let odd: Vec<&&Mark> = resets
        .iter()
        .filter(|mark| {
            strong(mark.value)
                || goes_on && mark.value & (reset::SOON | reset::INEXACT) != 0
                || mark.value & (reset::SOON | reset::INEXACT) == reset::SOON | reset::INEXACT
        })
        .collect();
    let Some(first) = odd.first() else { return false };
    let strange = reset::ODD | reset::ECHOED_ID | reset::TTL | reset::SOON;
    if goes_on && odd.iter().all(|mark| mark.value & strange == 0) {
        let text =
            format!("{} resets are not exactly at the next number, and the connection goes on.", odd.len());
        out.push(
            Finding::new("reset-not-exact", Severity::Info, Place::Path)
                .see_all(odd.iter().map(|mark| mark.packet), "reset")
                .at(first.at, 0)
                .text(text)
                .because("The receiver must not believe such a reset (RFC 5961 §3.2).")
                .or("path-rst-injected", "a capture at the other end"),
        );
        return true;
    }
    let mut because = Vec::new();
    let any = |bit: u32| odd.iter().any(|mark| mark.value & bit != 0);
    let mut add = |so: bool, text: &str| {
        if so {
            because.push(text.to_owned())
        }
    };
    add(any(reset::TTL), "Its TTL is not that of the end that it claims to be from.");
    add(any(reset::ECHOED_ID), "Its IP identification is that of the packet that it answers.");
    add(any(reset::ODD), "No stack sends a reset with these flags.");
    add(any(reset::SOON), "It came sooner than that end can answer.");
    add(any(reset::INEXACT), "Its sequence number is a guess.");
    add(goes_on, "That end goes on as if it had not sent it.");
    let sure = if because.len() >= 2 { Confidence::Likely } else { Confidence::Possible };
    let last_before =
        conn.marks.iter().rev().find(|mark| mark.kind == Kind::AfterIdle && mark.packet <= first.packet);
    let idle = last_before.map_or(0, |mark| i64::from(mark.value) / 1000);
    let (id, text) = if idle >= 30 && !goes_on {
        (
            "path-idle-reset",
            format!(
                "After {idle} s of silence, something on the path reset the connection in the name of the {}.",
                Place::of(way).name()
            ),
        )
    } else {
        (
            "path-rst-injected",
            format!("{} resets in the name of the {} are not from it.", odd.len(), Place::of(way).name()),
        )
    };
    let mut finding = Finding::new(id, Severity::Error, Place::Path)
        .sure(sure)
        .see_all(odd.iter().map(|mark| mark.packet), "reset")
        .at(first.at, 0)
        .text(text)
        .times(odd.len() as u32)
        .or("reset-abort", format!("a capture at the {}", Place::of(way).name()));
    finding.because = because;
    out.push(finding);
    true
}

fn judge_one(conn: &Conn, way: usize, rst: &Mark, all: &[&Mark], out: &mut Vec<Finding>) {
    let peer = 1 - way;
    let place = Place::of(way);
    if !conn.is(state::ESTABLISHED) && conn.is(state::SYN)
        || out
            .iter()
            .any(|f| matches!(f.id, "open-abort-on-overflow" | "open-abandoned" | "live-keepalive-dead"))
    {
        return;
    }
    let name = place.name();
    let finding = |id, severity| {
        Finding::new(id, severity, place).see_all(all.iter().map(|mark| mark.packet), "reset").at(rst.at, 0)
    };
    let own = &conn.ways[way];
    let fin = conn.marks_of(way, Kind::Fin).next();
    if let Some(fin) = fin {
        let late = conn.marks_of(peer, Kind::DataAfterFin).find(|mark| mark.packet < rst.packet);
        let crosses = fin.value & 1 != 0 || late.is_some_and(|data| data.value == 0);
        if crosses && fin.value & 2 != 0 {
            let data = conn
                .marks
                .iter()
                .rev()
                .find(|mark| mark.kind == Kind::AfterIdle && usize::from(mark.way) == peer);
            let text = format!(
                "The {name} closed the idle connection while a request was on its way, and reset it."
            );
            out.push(
                finding("app-idle-close-race", Severity::Error)
                    .see(fin.packet, "FIN")
                    .see(late.map_or(0, |m| m.packet), "request")
                    .see(data.map_or(0, |m| m.packet), "request")
                    .text(text)
                    .because("The FIN does not acknowledge the request that was sent before it arrived."),
            );
        } else if let Some(data) = late {
            let waited = data.at - fin.at;
            let (id, text) = if waited > 30 * SECOND {
                (
                    "close-finwait2-orphan",
                    format!(
                        "Data came {} after the {name} had closed: nothing was left to take it.",
                        seconds(waited)
                    ),
                )
            } else {
                (
                    "reset-data-after-close",
                    format!(
                        "The {name} had closed both directions when data came, {} after its FIN.",
                        seconds(waited)
                    ),
                )
            };
            out.push(
                finding(id, Severity::Error)
                    .see(fin.packet, "FIN")
                    .see(data.packet, "data after it")
                    .text(text)
                    .because("The reset follows the data, not the FIN."),
            );
        } else if crosses {
            out.push(
                finding("reset-data-after-close", Severity::Warning)
                    .see(fin.packet, "FIN")
                    .text(format!("The {name} closed while data was on its way to it.")),
            );
        } else if let Some(end) = conn
            .marks_of(peer, Kind::Fin)
            .find(|end| end.packet < rst.packet && end.at - fin.at > 30 * SECOND)
        {
            let text = format!(
                "The FIN of the other end came {} after that of the {name}: nothing was left to take it.",
                seconds(end.at - fin.at)
            );
            out.push(
                finding("close-finwait2-orphan", Severity::Info)
                    .see(fin.packet, "FIN")
                    .see(end.packet, "FIN of the other end")
                    .text(text)
                    .because("The reset follows that FIN, and has the look of an end without a socket."),
            );
        } else if conn.ways[peer].is(fact::FIN) || rst.at - fin.at < SECOND {
            out.push(
                finding("reset-abort", Severity::Info)
                    .text(format!("The {name} reset the connection after its FIN.")),
            );
        } else {
            out.push(finding("reset-peer-gone", Severity::Info).see(fin.packet, "FIN").text(format!(
                "The {name} had closed, and had forgotten the connection {} later.",
                seconds(rst.at - fin.at)
            )));
        }
        return;
    }
    let value = rst.value;
    // A stack answers a segment without a socket by a reset without an ACK.
    let alive = value & (reset::ACK | reset::WINDOW) != 0;
    let idle = conn.marks_of(peer, Kind::AfterIdle).last().filter(|mark| rst.at - mark.at < SECOND);
    let probe =
        conn.marks_of(peer, Kind::Keepalive).last().filter(|probe| probe.at > conn.ways[peer].data_at);
    let lost = conn.ways[peer].in_flight() || own.in_flight();
    if !alive && (probe.is_some() || idle.is_some() || idle_before(conn, rst.packet) > 0) {
        let cause = probe.or(idle).map_or(0, |mark| mark.packet);
        let severity = if lost { Severity::Error } else { Severity::Info };
        out.push(
            finding("reset-peer-gone", severity)
                .see(cause, "after a silence")
                .text(format!("The {name} does not know the connection any more."))
                .because("The reset has no options, no window and no ACK: there is no socket.")
                .or("reset-peer-rebooted", format!("the uptime of the {name}")),
        );
        return;
    }
    let quiet_own = rst.at - own.data_at;
    let quiet_peer = rst.at - conn.ways[peer].data_at;
    let got = conn.ways[peer].bytes > 0;
    let straight = quiet_own < SECOND / 50 && own.data_packets > 0 && before(own.una, own.nxt);
    if got && alive && straight && !conn.ways[peer].is(fact::FIN) {
        out.push(
            finding("reset-unread-data", Severity::Warning)
                .see(rst.packet, "reset")
                .text(format!(
                    "The {name} closed with data unread: it reset the connection straight after its own data."
                ))
                .because("A close with unread data sends a reset instead of a FIN (RFC 2525 §2.17).")
                .or("reset-abort", format!("strace of the {name}: SO_LINGER")),
        );
    } else if way == CLIENT && !lost && quiet_own.min(quiet_peer) > 5 * SECOND {
        out.push(
            finding("reset-idle-client", Severity::Info)
                .text("The idle client reset the connection. Nothing was lost."),
        );
    } else {
        let severity = if lost { Severity::Warning } else { Severity::Info };
        let text = if lost {
            format!("The {name} aborted the connection with data in flight.")
        } else {
            format!("The {name} aborted the connection. No data was in flight.")
        };
        out.push(
            finding("reset-abort", severity)
                .text(text)
                .because("The reset has the look of a socket that was alive, or no FIN came before it.")
                .or("reset-unread-data", format!("a capture at the {name}")),
        );
    }
}
