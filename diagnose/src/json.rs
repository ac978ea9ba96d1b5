//! The report as JSON.

use serde_json::{Map, Value, json};
use steadfast_capture::link;

use crate::finding::Finding;
use crate::report::{Connection, Report};

fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

fn link_name(link: u16) -> String {
    link::name(link).map_or_else(|| link.to_string(), str::to_owned)
}

/// The report of a file as one object: format 1.
pub fn json(file: &str, report: &Report) -> Value {
    let mut whole = without_connections(file, report);
    whole["connections"] = report.connections.iter().map(connection).collect();
    whole
}

/// The report of a file as an object for each connection, with the file's name, and then one without them.
pub fn json_lines(file: &str, report: &Report) -> impl Iterator<Item = Value> {
    let named = move |one| {
        let mut connection = connection(one);
        connection["file"] = json!(file);
        connection
    };
    report
        .connections
        .iter()
        .map(named)
        .chain(std::iter::once_with(move || without_connections(file, report)))
}

fn without_connections(file: &str, report: &Report) -> Value {
    let captured = &report.captured;
    let summary: Vec<Value> = report
        .summary()
        .into_iter()
        .map(|(id, (count, severity))| json!({"id": id, "count": count, "severity": severity.name()}))
        .collect();
    let services: Vec<Value> = report
        .services
        .iter()
        .take(1000)
        .map(|(end, service)| {
            json!({"server": end.to_string(), "connections": service.connections, "opened": service.opened, "refused": service.refused,
                "unanswered": service.unanswered, "reset": service.reset, "leaks": service.leaks, "rtt_ms": f64::from(service.rtt) / 1000.0,
                "answers": service.answers, "slow_answers": service.slow})
        })
        .collect();
    let clients: Vec<Value> = report
        .clients
        .iter()
        .take(1000)
        .map(|(address, client)| {
            let ip = crate::packet::End { address: *address, port: 0 }.ip();
            json!({"client": ip.to_string(), "connections": client.connections, "used": client.used})
        })
        .collect();
    json!({
        "format": 1,
        "tool": concat!("steadfast ", env!("CARGO_PKG_VERSION")),
        "file": file,
        "capture": {
            "kind": captured.format,
            "link": captured.links.keys().map(|link| link_name(*link)).collect::<Vec<_>>(),
            "packets": captured.packets,
            "segments": captured.segments,
            "bytes": captured.bytes,
            "start": seconds(captured.start),
            "seconds": seconds(captured.end - captured.start),
            "read": if captured.damaged == 0 { "whole" } else { "in part" },
            "damage": captured.damage,
            "damaged": captured.damaged,
            "interfaces": captured.interfaces.iter().map(|(name, count)| json!({"name": name, "packets": count})).collect::<Vec<_>>(),
            "names": captured.names.iter().map(|(address, name)| (address.to_string(), json!(name))).collect::<Map<_, _>>(),
            "not_read": captured.unread.iter().map(|(link, packets)| json!({"link": link, "name": link::name(*link), "packets": packets})).collect::<Vec<_>>(),
            "not_followed": captured.evicted,
        },
        "connections_total": report.connections_total,
        "sound": report.sound,
        "endings": report.endings,
        "findings": report.findings.iter().map(|one| finding(one, captured.start)).collect::<Vec<_>>(),
        "summary": {"findings": summary, "services": services, "clients": clients},
    })
}

fn connection(one: &Connection) -> Value {
    let scale = |scale: u8| (scale != 255).then_some(scale);
    let millis = |micros: u32| (micros != 0).then(|| f64::from(micros) / 1000.0);
    json!({
        "n": one.n,
        "client": one.client.to_string(),
        "server": one.server.to_string(),
        "start": seconds(one.start),
        "seconds": seconds(one.lasted),
        "history": one.history,
        "opened": one.opened,
        "ended": one.ended,
        "first_to_close": one.first_to_close,
        "states": {"client": one.states[0], "server": one.states[1], "known": "implied"},
        "first_packet": one.span[0],
        "last_packet": one.span[1],
        "packets": one.packets,
        "bytes": one.bytes,
        "retransmitted": one.retransmitted,
        "rtt_ms": {"min": millis(one.legs[0] + one.legs[1]), "to_server": millis(one.legs[0]), "to_client": millis(one.legs[1])},
        "options": {"mss": one.mss, "wscale": [scale(one.scale[0]), scale(one.scale[1])], "sack": one.sack, "timestamps": one.timestamps},
        "findings": one.findings.iter().map(|finding_| finding(finding_, one.start)).collect::<Vec<_>>(),
    })
}

/// A finding. Times are relative to the beginning of its connection, or of the capture.
pub fn finding(one: &Finding, start: i64) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("id", json!(one.id));
    put("severity", json!(one.severity.name()));
    put("confidence", json!(one.confidence.name()));
    put("end", json!(one.end.name()));
    put("at", json!(seconds((one.at - start).max(0))));
    put("lasted", json!(seconds(one.lasted)));
    put("cost", json!(one.cost.map(seconds)));
    put("count", json!(one.count));
    put("text", json!(one.text));
    let evidence: Vec<Value> =
        one.evidence.iter().map(|e| json!({"packet": e.packet, "what": e.what})).collect();
    put("evidence", json!(evidence));
    put("because", json!(one.because));
    let alternatives: Vec<Value> =
        one.alternatives.iter().map(|a| json!({"id": a.id, "to_tell": a.to_tell})).collect();
    put("alternatives", json!(alternatives));
    if let Some(diagnosis) = one.diagnosis() {
        put("advice", json!([{"text": diagnosis.advice, "where": one.end.name()}]));
        let mut cites: Vec<&str> = [diagnosis.cites].into_iter().filter(|cite| !cite.is_empty()).collect();
        cites.extend(diagnosis.cases);
        put("cites", json!(cites));
    }
    Value::Object(out)
}
