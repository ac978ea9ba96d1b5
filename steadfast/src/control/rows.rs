//! The rows of answers: sockets and events as lines of JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};
use steadfast_core::Instant;
use steadfast_core::info::{Info, SocketCursor, SocketEntry, Value};
use steadfast_core::trace::{State, TraceEvent, TraceKind};

use super::filter::SocketFilter;
use crate::shared::Shared;

/// Sockets that are looked at while the stack's lock is held.
pub(super) const STEP: usize = 1000;
/// The same with all numbers of each.
pub(super) const INFO_STEP: usize = 200;

/// A question for sockets.
#[derive(Clone)]
pub(super) struct Query {
    /// `None`: all.
    filter: Option<SocketFilter>,
    info: bool,
    /// Rows at most.
    pub(super) limit: u64,
}

/// A part of the answer.
pub(super) struct Page {
    pub(super) text: String,
    pub(super) rows: u64,
    /// Where the next part begins.
    pub(super) next: Option<SocketCursor>,
}

impl Query {
    pub(super) fn of(request: &Json) -> Result<Query, String> {
        let filter = match request.get("filter") {
            None => None,
            Some(Json::String(text)) => Some(text.parse().map_err(|error| format!("filter: {error}"))?),
            Some(other) => return Err(format!("filter: {other}: expected a text")),
        };
        let info = request["info"].as_bool().unwrap_or(false);
        Ok(Query { filter, info, limit: request["limit"].as_u64().unwrap_or(u64::MAX) })
    }

    /// Lists some sockets. The lock is given back before anything is written.
    pub(super) fn page(&self, stack: &Shared, from: SocketCursor) -> Page {
        let mut found: Vec<(SocketEntry, Option<Info>)> = Vec::new();
        let judges = self.filter.as_ref().is_some_and(SocketFilter::needs_info);
        let needs = self.info || judges;
        let next = {
            let (now, mut state) = (stack.now(), stack.lock());
            let mut entries = Vec::new();
            let step = if needs { INFO_STEP } else { STEP };
            let next = state.stack.sockets_from(now, from, step, &mut entries);
            for entry in entries {
                let fits = |info| self.filter.as_ref().is_none_or(|filter| filter.fits(&entry, info));
                // Numbers cost more than the rest of the row.
                if !judges && !fits(None) {
                    continue;
                }
                let info = needs.then(|| state.stack.info_between(now, entry.local, entry.remote)).flatten();
                if !judges || fits(info.as_ref()) {
                    found.push((entry, info));
                }
            }
            next
        };
        found.truncate(usize::try_from(self.limit).unwrap_or(usize::MAX));
        let mut text = String::with_capacity(found.len() * if self.info { 1600 } else { 200 });
        for (entry, info) in &found {
            socket(&mut text, entry, info.as_ref().filter(|_| self.info));
        }
        Page { text, rows: found.len() as u64, next }
    }
}

/// A row of the listing. It has no text that would need escapes. Writing to a string does not fail.
fn socket(text: &mut String, entry: &SocketEntry, info: Option<&Info>) {
    let SocketEntry { state, recv_q, send_q, local, remote, half_open, .. } = entry;
    let age = entry.state_age.as_secs_f64();
    let _ = write!(
        text,
        "{{\"state\":\"{}\",\"recv_q\":{recv_q},\"send_q\":{send_q},\"local\":\"{local}\",\"remote\":\"{remote}\",\"age\":{age:.3}",
        state.ss_name()
    );
    if *state == State::Listen {
        let _ = write!(text, ",\"half_open\":{half_open}");
    } else if entry.socket.is_none() {
        text.push_str(",\"orphan\":true");
    }
    if let Some(listener) = entry.listener {
        let _ = write!(text, ",\"listener\":\"{listener}\"");
    }
    if let Some(timer) = entry.timer {
        let (name, left) = (timer.kind.ss_name(), micros(timer.left));
        let _ =
            write!(text, ",\"timer\":{{\"name\":\"{name}\",\"left\":{left},\"retries\":{}}}", timer.retries);
    }
    if let Some(info) = info {
        write_info(text, info);
    }
    text.push_str("}\n");
}

/// Writes the field with the numbers of a connection.
fn write_info(text: &mut String, info: &Info) {
    text.push_str(",\"info\":{");
    let mut comma = "";
    for (name, value) in info.iter() {
        if write_value(text, comma, name, value) {
            comma = ",";
        }
    }
    text.push('}');
}

/// An event of a trace: the numbers of a connection now.
pub(super) fn traced_info(at: Instant, info: &Info) -> String {
    let (at, local, remote, state) = (at.as_nanos(), info.local, info.remote, info.state);
    let mut text = format!("{{\"kind\":\"info\",\"at\":{at},\"local\":\"{local}\",\"remote\":\"{remote}\"");
    let _ = write!(text, ",\"state\":\"{state}\"");
    write_info(&mut text, info);
    text + "}\n"
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// Writes a value of a connection, if it is one that rows have. Times are microseconds.
fn write_value(text: &mut String, comma: &str, name: &str, value: Value) -> bool {
    let _ = match value {
        Value::Number(number) => write!(text, "{comma}\"{name}\":{number}"),
        Value::Time(time) | Value::Timer(Some(time)) => write!(text, "{comma}\"{name}\":{}", micros(time)),
        Value::Switch(on) => write!(text, "{comma}\"{name}\":{on}"),
        Value::Shift(Some(shift)) => write!(text, "{comma}\"{name}\":{shift}"),
        Value::CaState(state) => write!(text, "{comma}\"{name}\":\"{state:?}\""),
        _ => return false,
    };
    true
}

/// An event of a trace.
pub(super) fn traced(event: &TraceEvent) -> Json {
    let mut row = json!({"at": event.at.as_nanos(), "local": event.local.to_string(), "remote": event.remote.to_string()});
    let more = match &event.kind {
        TraceKind::SegmentIn { header, payload_len } | TraceKind::SegmentOut { header, payload_len } => {
            let kind = if matches!(event.kind, TraceKind::SegmentIn { .. }) { "in" } else { "out" };
            let mut row = json!({"kind": kind, "flags": header.flags.to_string(), "seq": header.seq.0, "ack": header.ack.0,
                "win": header.window, "len": payload_len});
            let options = &header.options;
            let sack: Vec<_> = options.sack.iter().map(|(left, right)| [left.0, right.0]).collect();
            for (name, value) in [
                ("mss", options.mss.map(|mss| json!(mss))),
                ("wscale", options.window_scale.map(|shift| json!(shift))),
                ("sackOK", options.sack_permitted.then(|| json!(true))),
                ("ts", options.timestamps.map(|ts| json!([ts.val, ts.ecr]))),
                ("sack", (!sack.is_empty()).then(|| json!(sack))),
            ] {
                if let Some(value) = value {
                    row[name] = value;
                }
            }
            row
        }
        TraceKind::State { from, to } => {
            json!({"kind": "state", "from": from.to_string(), "to": to.to_string()})
        }
        TraceKind::Timer(timer) => json!({"kind": "timer", "timer": format!("{timer:?}")}),
        TraceKind::Drop(reason) => json!({"kind": "drop", "reason": reason.to_string()}),
        TraceKind::Reply(reason) => json!({"kind": "reply", "reason": reason.to_string()}),
        TraceKind::Rtt { sample, rto } => {
            json!({"kind": "rtt", "sample": sample.as_micros() as u64, "rto": rto.as_micros() as u64})
        }
        TraceKind::Loss { seq, why } => json!({"kind": "loss", "seq": seq.0, "why": format!("{why:?}")}),
        TraceKind::PathMtu(mtu) => json!({"kind": "path_mtu", "mtu": mtu}),
        _ => json!({"kind": "other"}),
    };
    if let (Some(row), Json::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
    row
}
