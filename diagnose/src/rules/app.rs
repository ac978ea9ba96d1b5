//! Applications: small writes that wait, and slow answers.

use crate::conn::Conn;
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

pub(super) fn judge(conn: &Conn, out: &mut Vec<Finding>) {
    let Some(turns) = conn.turns.as_deref() else { return };
    if turns.nagle >= 3 {
        let text = format!(
            "{} small segments waited for a delayed acknowledgment, {} together.",
            turns.nagle,
            seconds(turns.nagle_cost)
        );
        out.push(Finding::new("app-nagle-delack", Severity::Warning, Place::of(usize::from(turns.nagle_way)))
            .see_all(turns.nagle_first, "small segment, acknowledged late").at(conn.start, turns.nagle_cost).cost(turns.nagle_cost).text(text).times(u32::from(turns.nagle))
            .because("The next small segment leaves as soon as the last one is acknowledged, and the acknowledgment comes late and without data."));
    }
    if turns.pauses > 0 {
        let text = format!(
            "The client was silent for {} in {} pauses, with nothing in flight and the window open; the longest took {}.",
            seconds(turns.paused),
            turns.pauses,
            seconds(turns.pause)
        );
        out.push(
            Finding::new("app-slow-client", Severity::Info, Place::Client)
                .see(turns.pause_packet, "after the longest pause")
                .at(conn.start, turns.paused)
                .cost(turns.paused)
                .text(text)
                .times(u32::from(turns.pauses))
                .because("All data was acknowledged, and the server had no answer to give: neither it nor the path held the client up."),
        );
    }
    if turns.slow > 0 {
        let text = format!(
            "{} of {} answers took longer than a second, the slowest {}.",
            turns.slow,
            turns.answers,
            seconds(turns.slowest)
        );
        out.push(
            Finding::new("app-slow-response", Severity::Info, Place::Server)
                .sure(Confidence::Likely)
                .see(turns.slow_packets[0], "request")
                .see(turns.slow_packets[1], "answer")
                .at(conn.start, turns.slowest)
                .cost(turns.slowest)
                .text(text)
                .times(u32::from(turns.slow)),
        );
    }
}
