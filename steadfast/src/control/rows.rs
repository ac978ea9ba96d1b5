//! The rows of answers: sockets and events as lines of JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value as Json, json};
use steadfast_core::Instant;
use steadfast_core::info::{Info, SocketCursor, SocketEntry, Value};
use steadfast_core::trace::{State, TraceEvent, TraceKind};

use super::filter::SocketFilter;
use crate::shared::Shared;
use crate::tap::Packet;

/// Sockets that are looked at while the stack's lock is held.
pub(super) const STEP: usize = 1000;
/// The same with all numbers of each.
pub(super) const INFO_STEP: usize = 200;

/// A question for sockets.
pub(super) struct Query {
    /// `None`: all.
    filter: Option<SocketFilter>,
    info: bool,
    /// Rows at most.
    pub(super) limit: u64,
}

/// Room for a part of the answer. It is kept from part to part.
#[derive(Default)]
pub(super) struct Page {
    entries: Vec<SocketEntry>,
    /// Their numbers, if the query needs them.
    infos: Vec<Option<Info>>,
    /// The rows, one line for each.
    pub(super) text: String,
    /// Texts of addresses that come again and again.
    locals: Known,
    listeners: Known,
}

impl Query {
    pub(super) fn of(request: &Json) -> Result<Query, String> {
        let filter = match request.get("filter") {
            None => None,
            Some(Json::String(text)) => Some(text.parse().map_err(|error| format!("filter: {error}"))?),
            Some(other) => return Err(format!("filter: {other}: expected a text")),
        };
        let info = request["info"].as_bool().unwrap_or(false);
        Ok(Query { filter, info, limit: number(request, "limit", u64::MAX)? })
    }

    /// Lists some sockets from `from` on. Returns the number of rows, and where the next part begins. Rows are only copied
    /// under the lock; they are judged and written afterwards.
    pub(super) fn fill(
        &self,
        page: &mut Page,
        stack: &Shared,
        from: SocketCursor,
    ) -> (u64, Option<SocketCursor>) {
        let Page { entries, infos, text, locals, listeners } = page;
        entries.clear();
        infos.clear();
        text.clear();
        let fits = |entry: &_, info| self.filter.as_ref().is_none_or(|filter| filter.fits(entry, info));
        let judges = self.filter.as_ref().is_some_and(SocketFilter::needs_info);
        let now = stack.now();
        let next = if self.info || judges {
            let mut state = stack.lock();
            let next = state.stack.sockets_from(now, from, INFO_STEP, entries);
            // Numbers cost more than the rest of the row.
            entries.retain(|entry| judges || fits(entry, None));
            let ends = entries.iter().map(|entry| (entry.local, entry.remote));
            infos.extend(ends.map(|(local, remote)| state.stack.info_between(now, local, remote)));
            next
        } else {
            let next = stack.lock().stack.sockets_from(now, from, STEP, entries);
            entries.retain(|entry| fits(entry, None));
            next
        };
        let mut rows = 0;
        for (at, entry) in entries.iter().enumerate() {
            let info = infos.get(at).and_then(Option::as_ref);
            if rows < self.limit && (!judges || fits(entry, info)) {
                socket(text, entry, info.filter(|_| self.info), locals, listeners);
                rows += 1;
            }
        }
        (rows, next)
    }
}

/// The text of the last address.
#[derive(Default)]
struct Known {
    end: Option<SocketAddr>,
    text: String,
}

impl Known {
    fn text(&mut self, end: SocketAddr) -> &str {
        if self.end != Some(end) {
            self.text.clear();
            let _ = write!(self.text, "{end}");
            self.end = Some(end);
        }
        &self.text
    }
}

/// A number of a request.
pub(super) fn number(request: &Json, name: &str, default: u64) -> Result<u64, String> {
    let Some(value) = request.get(name) else { return Ok(default) };
    value.as_u64().ok_or_else(|| format!("{name}: {value}: expected a number from 0"))
}

/// A row of the listing. It has no text that would need escapes. Writing to a string does not fail.
fn socket(
    text: &mut String,
    entry: &SocketEntry,
    info: Option<&Info>,
    locals: &mut Known,
    listeners: &mut Known,
) {
    let SocketEntry { state, recv_q, send_q, remote, half_open, .. } = entry;
    let (name, local, age) = (state.ss_name(), locals.text(entry.local), entry.state_age);
    let _ = write!(text, "{{\"state\":\"{name}\",\"recv_q\":{recv_q},\"send_q\":{send_q}");
    let _ = write!(text, ",\"local\":\"{local}\",\"remote\":\"{remote}\"");
    let _ = write!(text, ",\"age\":{}.{:03}", age.as_secs(), age.subsec_millis());
    if *state == State::Listen {
        let _ = write!(text, ",\"half_open\":{half_open}");
    } else if entry.socket.is_none() {
        text.push_str(",\"orphan\":true");
    }
    if let Some(listener) = entry.listener {
        let _ = write!(text, ",\"listener\":\"{}\"", listeners.text(listener));
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

/// A packet of a capture.
pub(super) fn captured(packet: &Packet) -> String {
    let Packet { nanos, interface, out, ethernet, partial, len, bytes } = packet;
    let mut text = String::with_capacity(2 * bytes.len() + 100);
    let _ = write!(text, "{{\"at\":{nanos},\"interface\":{interface},\"out\":{out},\"len\":{len}");
    for (name, on) in [("ethernet", ethernet), ("partial", partial)] {
        if *on {
            let _ = write!(text, ",\"{name}\":true");
        }
    }
    text.push_str(",\"data\":\"");
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
    }
    text.push_str("\"}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Net, TcpListener, device};

    /// The driver waits while a page holds the lock.
    #[tokio::test]
    async fn a_page_holds_the_lock_for_a_bounded_number_of_sockets() {
        let (device, _other_end) = device::memory::pair(1500);
        let net = Net::builder().address([10, 9, 0, 2], 24).start(device).unwrap();
        let mut listeners = Vec::new();
        for port in 1..=STEP as u16 + 1 {
            listeners.push(TcpListener::bind(&net, ("10.9.0.2", port)).await.unwrap());
        }
        let stack = &net.all_stacks()[0];
        let first = SocketCursor::default();
        for (request, most) in [
            (json!({}), STEP),
            (json!({"filter": "state all"}), STEP),
            (json!({"info": true}), INFO_STEP),
            (json!({"filter": "state all not rto > 1s"}), INFO_STEP),
        ] {
            let query = Query::of(&request).unwrap();
            let mut page = Page::default();
            assert_eq!(query.fill(&mut page, stack, first).0, most as u64, "{request}");
            assert_eq!(page.text.lines().count(), most, "{request}");
            let (mut all, mut next) = (0, Some(first));
            while let Some(cursor) = next {
                let rows;
                (rows, next) = query.fill(&mut page, stack, cursor);
                all += rows;
            }
            assert_eq!(all, STEP as u64 + 1, "{request}");
        }
        let none = Query::of(&json!({"filter": "state established"})).unwrap();
        let (rows, next) = none.fill(&mut Page::default(), stack, first);
        assert!(rows == 0 && next.is_some(), "those that do not fit count as well");
    }
}
