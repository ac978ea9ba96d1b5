//! The rules: from what the tracker noted to diagnoses. Each is judged when its connection ends.

mod app;
mod closing;
mod liveness;
mod loss;
mod opening;
mod options;
mod path;
mod quality;
mod resets;
mod window;

pub(crate) use quality::Quality;

use crate::conn::{Conn, Leap, fact, state};
use crate::finding::{Confidence, Finding, Severity};

/// The facts beside a connection that its rules need.
pub(crate) struct Context {
    /// The time of the last packet.
    pub(crate) end: i64,
    /// Tell of what is as it should be, too.
    pub(crate) all: bool,
}

/// Judges a connection that has ended.
pub(crate) fn judge(conn: &Conn, context: &Context, quality: &mut Quality) -> Vec<Finding> {
    let mut out = Vec::new();
    let gates = quality.take(conn);
    if gates.one_way {
        opening::unanswered(conn, context, &mut out);
        return out;
    }
    opening::judge(conn, context, &mut out);
    options::judge(conn, &mut out);
    path::judge(conn, context, &mut out);
    liveness::judge(conn, context, &mut out);
    loss::judge(conn, &gates, &mut out);
    window::judge(conn, context, &mut out);
    app::judge(conn, &mut out);
    closing::judge(conn, context, &mut out);
    resets::judge(conn, &mut out);
    suppress(&mut out);
    if let Some(leap) = conn.sure_leap() {
        void(leap, &mut out);
    }
    out
}

/// Intervals across a step of the clock are void, and so is what they seem to cost.
fn void(leap: &Leap, out: &mut [Finding]) {
    let (from, to) = (leap.at - leap.lasted, leap.at);
    for finding in out {
        if finding.severity == Severity::Warning && finding.at <= to && finding.at + finding.lasted >= from {
            finding.severity = Severity::Info;
            finding.confidence = Confidence::Possible;
        }
    }
}

/// One cause, one finding: a cause swallows its effects.
fn suppress(out: &mut Vec<Finding>) {
    const SWALLOWS: [(&str, &[&str]); 14] = [
        (
            "path-mtu-blackhole",
            &[
                "loss-rto",
                "loss-tlp",
                "loss-burst",
                "live-retries-exhausted",
                "live-peer-vanished",
                "path-idle-drop",
            ],
        ),
        ("opt-wscale-stripped", &["window-shrunk"]),
        ("close-timewait-assassination", &["reset-abort", "reset-peer-gone", "close-finwait2-orphan"]),
        ("path-idle-drop", &["loss-rto", "loss-tlp", "live-retries-exhausted", "live-peer-vanished"]),
        ("live-keepalive-dead", &["reset-abort"]),
        (
            "path-one-direction-dead",
            &["loss-rto", "loss-tlp", "loss-spurious", "loss-ack-lost", "reset-abort"],
        ),
        ("close-fin-unanswered", &["reset-abort", "loss-rto", "loss-tlp"]),
        ("window-zero-dead", &["reset-abort"]),
        (
            "live-retries-exhausted",
            &["loss-rto", "loss-tlp", "close-fin-lost", "reset-abort", "close-fin-unanswered"],
        ),
        ("live-peer-vanished", &["loss-rto", "loss-tlp", "close-fin-lost"]),
        ("path-corruption", &["loss-fast-retransmit", "loss-rto", "loss-tlp", "loss-burst"]),
        ("open-syn-in-established", &["open-syn-lost", "open-synack-lost"]),
        ("open-timewait-refused", &["open-syn-lost", "open-synack-lost"]),
        (
            "path-rst-injected",
            &[
                "reset-abort",
                "reset-peer-gone",
                "reset-unread-data",
                "open-refused",
                "reset-data-after-close",
                "open-abort-on-overflow",
                "app-idle-close-race",
            ],
        ),
    ];
    for (cause, effects) in SWALLOWS {
        if out.iter().any(|finding| finding.id == cause) {
            for finding in out.iter_mut().filter(|finding| effects.contains(&finding.id)) {
                finding.severity = Severity::Info;
                finding.count = 0;
            }
            out.retain(|finding| finding.count > 0);
        }
    }
}

/// A warning if the cost is above 200 ms and five round trips, otherwise an information.
pub(crate) fn by_cost(conn: &Conn, cost: i64) -> Severity {
    if cost > 200_000_000i64.max(5 * conn.round_trip()) { Severity::Warning } else { Severity::Info }
}

/// Whether this end of the capture is near the sender of a direction: its segments need most of the round trip.
pub(crate) fn near_sender(conn: &Conn, way: usize) -> bool {
    let (own, other) = (conn.leg(way), conn.leg(1 - way));
    own > 2 * other
}

/// Whether both ends closed in an orderly way.
pub(crate) fn ended(conn: &Conn) -> &'static str {
    let fins = conn.ways.iter().filter(|way| way.is(fact::FIN)).count();
    if conn.ways.iter().any(|way| way.is(fact::RST)) {
        "reset"
    } else if fins == 2 {
        "fin-both"
    } else if fins == 1 {
        "half-closed"
    } else if conn.is(state::SYN) && !conn.is(state::SYN_ACK) {
        "not-opened"
    } else {
        "open"
    }
}
