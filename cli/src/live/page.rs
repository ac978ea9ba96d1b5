//! Events of a running network as a page.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use steadfast::stack::info::{Info, Value as Field};
use steadfast::stack::seq::SeqNum;
use steadfast::stack::trace::{State, TraceKind};
use steadfast::stack::wire::tcp::{Header, SackBlocks, Timestamps};
use steadfast::stack::{Duration, Instant};
use steadfast_timeline::page::{CONNECTION_LIMIT, Chapter, EVENT_LIMIT, Page};
use steadfast_timeline::{Host, Keep, Timeline};

use super::event::what;

/// The host of the network in the timeline; peers come behind it.
const HERE: usize = 0;

/// The events of a trace, as far as they fit on a page.
pub(super) struct Recorded {
    timeline: Timeline,
    peers: HashMap<IpAddr, usize>,
    /// When the trace began, in nanoseconds.
    start: Option<u64>,
    /// The state of each connection, by its ends.
    states: HashMap<(SocketAddr, SocketAddr), State>,
    /// The shortest round trip.
    rtts: HashMap<(SocketAddr, SocketAddr), u64>,
    taken: usize,
    /// When the last of them happened.
    end: Instant,
    /// Later events, which do not fit.
    left_out: u64,
    /// Events that the network's queue had no room for.
    lost: u64,
}

impl Recorded {
    pub(super) fn new() -> Recorded {
        let here = Host { name: "here".to_owned(), addresses: Vec::new() };
        let keep = Keep { events: true, bytes: false, info: true };
        Recorded {
            timeline: Timeline::new(vec![here], keep).with_limit(EVENT_LIMIT),
            peers: HashMap::new(),
            start: None,
            states: HashMap::new(),
            rtts: HashMap::new(),
            taken: 0,
            end: Instant::ZERO,
            left_out: 0,
            lost: 0,
        }
    }

    /// Takes an event of the control socket.
    pub(super) fn take(&mut self, event: &Value) {
        let number = |key: &str| event[key].as_u64().unwrap_or(0);
        let end = |key: &str| event[key].as_str().and_then(|end| end.parse::<SocketAddr>().ok());
        let kind = event["kind"].as_str().unwrap_or_default();
        if kind == "lost" {
            self.lost += number("events");
        }
        let (Some(local), Some(remote)) = (end("local"), end("remote")) else { return };
        if self.taken == EVENT_LIMIT {
            self.left_out += 1;
            return;
        }
        self.taken += 1;
        let nanos = number("at");
        let at = Instant::from_nanos(nanos.saturating_sub(*self.start.get_or_insert(nanos)));
        self.end = at;
        let ends = (local, remote);
        match kind {
            "in" | "out" => self.segment(at, ends, event, kind == "out"),
            "info" => {
                let mut info = info(&event["info"]);
                (info.local, info.remote) = ends;
                self.timeline.info(at, HERE, ends, info);
                // That of a connection which is older than the trace.
                if let Some(state) = state(&event["state"]).filter(|_| !self.states.contains_key(&ends)) {
                    self.enter(at, ends, state, state);
                }
            }
            "rtt" => {
                let rtt = number("sample") * 1000;
                self.rtts.entry(ends).and_modify(|least| *least = rtt.min(*least)).or_insert(rtt);
            }
            "state" => {
                if let (Some(from), Some(to)) = (state(&event["from"]), state(&event["to"])) {
                    self.enter(at, ends, from, to);
                }
            }
            _ => self.timeline.note_about(at, HERE, ends, || what(event)),
        }
    }

    fn enter(&mut self, at: Instant, ends: (SocketAddr, SocketAddr), from: State, to: State) {
        self.states.insert(ends, to);
        self.timeline.traced(at, HERE, ends, ends, TraceKind::State { from, to });
    }

    fn segment(&mut self, at: Instant, (local, remote): (SocketAddr, SocketAddr), event: &Value, out: bool) {
        let here = &mut self.timeline.hosts[HERE].addresses;
        if !here.contains(&local.ip()) {
            here.push(local.ip());
        }
        let hosts = &mut self.timeline.hosts;
        let peer = *self.peers.entry(remote.ip()).or_insert_with(|| {
            hosts.push(Host { name: "peer".to_owned(), addresses: vec![remote.ip()] });
            hosts.len() - 1
        });
        let (from, to, ends) =
            if out { (HERE, peer, (local, remote)) } else { (peer, HERE, (remote, local)) };
        let len = event["len"].as_u64().unwrap_or(0) as usize;
        self.timeline.segment(at, (from, to), ends, &header(event, ends), len);
    }

    /// Tells which events are missing, and how to get them.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut texts = Vec::new();
        if self.left_out > 0 {
            let (end, left_out) = (self.end.as_nanos() as f64 / 1e9, self.left_out);
            texts.push(format!(
                "The page stops after {end:.3} s, at {EVENT_LIMIT} events. {left_out} later ones are left out; without \
                 --html, all are printed."
            ));
        }
        if self.lost > 0 {
            texts.push(format!("{} events were lost, because the queue was full.", self.lost));
        }
        texts
    }

    /// The page.
    pub(super) fn page(self, title: String, seconds: u64) -> Page {
        let flows = &self.timeline.flows.all;
        let mut chapters = Chapter::all(&self.timeline, CONNECTION_LIMIT);
        for (chapter, flow) in chapters.iter_mut().zip(flows) {
            let [first, second] = flow.ends;
            let local = usize::from(!self.timeline.hosts[HERE].addresses.contains(&first.ip()));
            let ends = if local == 0 { (first, second) } else { (second, first) };
            let mut legs = [0; 2];
            legs[1 - local] = self.rtts.get(&ends).copied().unwrap_or(0) / 2;
            let text = format!("Traced at {}. The values of the peer follow from its segments.", ends.0);
            let finding =
                json!({"id": "trace", "severity": "info", "confidence": "", "text": text, "evidence": []});
            chapter.set("legs", json!(legs));
            chapter.set("knows", "packets".into());
            chapter.set("findings", json!([finding]));
        }
        if let Some(first) = chapters.first_mut() {
            first.text(&self.timeline);
        }
        let connections = chapters.len();
        let noun = if connections == 1 { "connection" } else { "connections" };
        let about = format!("{connections} {noun}, {} events in {seconds} s", self.taken);
        let left_out = flows.len() - connections;
        let cut = |text: String| json!({"id": "trace-cut", "severity": "warning", "confidence": "certain", "text": text, "evidence": []});
        let findings = self.missing().into_iter().map(cut).collect();
        Page { title, about, chapters, left_out, findings }
    }
}

fn state(name: &Value) -> Option<State> {
    name.as_str()?.parse().ok()
}

/// A header with the fields of an event.
fn header(event: &Value, ends: (SocketAddr, SocketAddr)) -> Header {
    let number = |value: &Value| value.as_u64().unwrap_or(0) as u32;
    let pair = |value: &Value| (number(&value[0]), number(&value[1]));
    let mut header = Header {
        source_port: ends.0.port(),
        destination_port: ends.1.port(),
        seq: SeqNum(number(&event["seq"])),
        ack: SeqNum(number(&event["ack"])),
        flags: event["flags"].as_str().and_then(|flags| flags.parse().ok()).unwrap_or_default(),
        window: number(&event["win"]) as u16,
        ..Header::default()
    };
    let options = &mut header.options;
    options.mss = event.get("mss").map(|mss| number(mss) as u16);
    options.window_scale = event.get("wscale").map(|shift| number(shift) as u8);
    options.sack_permitted = event["sackOK"] == true;
    options.timestamps = event.get("ts").map(pair).map(|(val, ecr)| Timestamps { val, ecr });
    let mut sack = SackBlocks::new();
    for (left, right) in event["sack"].as_array().into_iter().flatten().map(pair) {
        sack.push(SeqNum(left), SeqNum(right));
    }
    options.sack = sack;
    header
}

/// The numbers of a connection from their JSON.
fn info(fields: &Value) -> Info {
    let mut info = Info::default();
    let time = |value: &Value| Some(Duration::from_nanos((value.as_f64()? * 1000.0) as u64));
    for (name, kind) in Info::default().iter() {
        let Some(value) = fields.get(name) else { continue };
        let value = match kind {
            Field::Number(_) => value.as_u64().map(Field::Number),
            Field::Time(_) => time(value).map(Field::Time),
            Field::Timer(_) => Some(Field::Timer(time(value))),
            Field::Switch(_) => value.as_bool().map(Field::Switch),
            Field::Shift(_) => Some(Field::Shift(value.as_u64().map(|shift| shift as u8))),
            _ => None,
        };
        if let Some(value) = value {
            info.set(name, value);
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_segments_states_and_numbers_of_the_connection() {
        let mut recorded = Recorded::new();
        let event = |at: u64, more: Value| {
            let mut event = json!({"at": at, "local": "10.0.0.2:80", "remote": "10.0.0.1:4000"});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        for event in [
            event(
                1_000,
                json!({"kind": "in", "flags": "S", "seq": 7, "ack": 0, "win": 100, "len": 0, "mss": 1460, "wscale": 7}),
            ),
            event(1_000, json!({"kind": "state", "from": "LISTEN", "to": "SYN-RECEIVED"})),
            event(
                2_000,
                json!({"kind": "out", "flags": "S.", "seq": u32::MAX, "ack": 8, "win": 100, "len": 0, "mss": 1400, "wscale": 7}),
            ),
            event(
                40_002_000,
                json!({"kind": "in", "flags": ".", "seq": 8, "ack": 0, "win": 100, "len": 5, "sack": [[10, 12]]}),
            ),
            event(40_002_000, json!({"kind": "rtt", "sample": 40_000, "rto": 240_000})),
            event(
                40_002_000,
                json!({"kind": "info", "info": {"snd_cwnd": 14_600, "rto": 240_000.0, "snd_wscale": 7}}),
            ),
            event(40_003_000, json!({"kind": "timer", "timer": "Retransmit"})),
            json!({"kind": "lost", "events": 3}),
        ] {
            recorded.take(&event);
        }
        let page = recorded.page("here".to_owned(), 1).json();
        assert_eq!(page["about"], "1 connection, 7 events in 1 s");
        assert_eq!(page["findings"][0]["text"], "3 events were lost, because the queue was full.");
        let one = &page["connections"][0];
        assert_eq!((&one["hosts"], &one["legs"]), (&json!(["peer", "here"]), &json!([20_000_000, 0])));
        let rows: Vec<&Value> = one["rows"].as_array().unwrap().iter().collect();
        let kinds: Vec<&str> = rows.iter().map(|row| row[0].as_str().unwrap()).collect();
        assert_eq!(kinds, ["p", "s", "p", "p", "k", "n"]);
        assert_eq!((&rows[0][9]["m"], &rows[2][4], &rows[2][7]), (&json!(1460), &json!("S."), &json!(1)));
        assert_eq!((&rows[3][5], &rows[3][6], &rows[3][9]["s"]), (&json!(1), &json!(5), &json!([[11, 13]])));
        let fields = &rows[4][3];
        assert_eq!((&fields["snd_cwnd"], &fields["rto"]), (&json!(14_600), &json!(240_000_000)));
        assert_eq!(rows[5][3], "timer Retransmit");

        let mut long = Recorded::new();
        for at in 0..EVENT_LIMIT as u64 + 2 {
            long.take(&event(at * 1_000_000, json!({"kind": "rtt", "sample": 1, "rto": 1})));
        }
        let missing = long.missing();
        let said = "The page stops after 49.999 s, at 50000 events. 2 later ones are left out; without --html, all are printed.";
        assert_eq!(missing, [said]);

        let mut older = Recorded::new();
        older.take(&event(1, json!({"kind": "out", "flags": ".", "seq": 9, "ack": 7, "win": 1, "len": 0})));
        for at in [2, 3] {
            older.take(&event(at, json!({"kind": "info", "state": "ESTABLISHED", "info": {}})));
        }
        let page = older.page(String::new(), 1).json();
        let rows = page["connections"][0]["rows"].as_array().unwrap();
        let states: Vec<_> = rows.iter().filter(|row| row[0] == "s").map(|row| &row[4]).collect();
        assert_eq!(states, ["ESTABLISHED"], "{rows:?}");
    }
}
