//! The events of a trace as text.

use serde_json::Value;

/// An event as a line. `nanos` is its time since the first one.
pub(super) fn line(event: &Value, nanos: u64) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    if event["kind"] == "lost" {
        return what(event) + "\n";
    }
    format!("{}  {} - {}  {}\n", time(nanos), text("local"), text("remote"), what(event))
}

/// An event as a line where the connection is known.
pub(super) fn short_line(event: &Value, nanos: u64) -> String {
    format!("{}  {}\n", time(nanos), what(event))
}

fn time(nanos: u64) -> String {
    format!("{:>6}.{:06}", nanos / 1_000_000_000, nanos / 1000 % 1_000_000)
}

/// An event in words.
pub(super) fn what(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let number = |key: &str| event[key].as_u64().unwrap_or(0);
    match text("kind") {
        kind @ ("in" | "out") => {
            let sign = if kind == "out" { ">" } else { "<" };
            let (seq, ack, win, len) = (number("seq"), number("ack"), number("win"), number("len"));
            format!("{sign} [{}] seq {seq} ack {ack} win {win} length {len}", text("flags"))
        }
        "state" => format!("{} > {}", text("from"), text("to")),
        "timer" => format!("timer {}", text("timer")),
        "drop" => format!("drops it: {}", text("reason")),
        "reply" => format!("answers: {}", text("reason")),
        "rtt" => format!("rtt {} us, rto {} us", number("sample"), number("rto")),
        "loss" => format!("loss from seq {}: {}", number("seq"), text("why")),
        "path_mtu" => format!("path MTU is {}", number("mtu")),
        "lost" => format!("{} events more were lost: the queue was full", number("events")),
        other => other.to_owned(),
    }
}
