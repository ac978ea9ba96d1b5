//! The page: connections as one HTML file that needs nothing else, with a ladder, the state of both ends at any time, and
//! what was found.
//!
//! A [`Page`] has [`Chapter`]s, one for each connection. Simulated networks and captures make the same chapters. No
//! payload is in them.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value as Json, json};
use steadfast_core::Instant;
use steadfast_core::info::{Info, Value};
use steadfast_core::time::Duration;
use steadfast_core::wire::tcp::Header;

use crate::event::{Ends, Event, Fate, Packet, Segment};
use crate::{Timeline, ladder};

/// Limit of the connections of a page.
pub const CONNECTION_LIMIT: usize = 200;
/// Limit of the events of a page.
pub const EVENT_LIMIT: usize = 50_000;
/// Limit of the size of a page, in bytes.
pub const SIZE_LIMIT: usize = 5 * 1024 * 1024;
/// Rows of the ladder as text, for readers without scripts and for the printer.
const TEXT_ROWS: usize = 200;
/// Limit of the faults that a chapter lists as findings.
const FAULT_LIMIT: usize = 100;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const MODEL: &str = include_str!("page/model.js");
const VIEW: &str = include_str!("page/view.js");

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The title: a file, or a scenario.
    pub title: String,
    /// A line about it.
    pub about: String,
    /// The connections.
    pub chapters: Vec<Chapter>,
    /// Connections that are not on the page.
    pub left_out: usize,
    /// Findings about the whole: objects with `id`, `severity`, `confidence`, `text`, `evidence`.
    pub findings: Vec<Json>,
}

/// A connection of a page.
#[derive(Clone, Debug)]
pub struct Chapter {
    object: Map<String, Json>,
    events: usize,
    text: String,
}

/// More on a page, by another crate: parts of the document, and a script behind the page's own.
#[derive(Clone, Debug, Default)]
pub struct Addition {
    /// More that the policy of the document permits, behind its list of sources of scripts.
    pub policy: &'static str,
    /// Style.
    pub style: &'static str,
    /// Elements above the list of connections.
    pub body: String,
    /// The script. It may set `addition` of `view.js`.
    pub script: &'static str,
    /// Data for the script: the field `more` of the page's data.
    pub data: Json,
}

/// A page that would be too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The thing that there is too much of.
    pub what: &'static str,
    /// How much there is.
    pub found: usize,
    /// The limit.
    pub limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the page has {} {}: expected at most {}", self.found, self.what, self.limit)
    }
}

impl std::error::Error for TooLarge {}

impl Page {
    /// The data of the page, which its script reads.
    pub fn json(&self) -> Json {
        let connections: Vec<Json> =
            self.chapters.iter().map(|chapter| Json::Object(chapter.object.clone())).collect();
        json!({
            "format": 1,
            "title": self.title,
            "about": self.about,
            "left_out": self.left_out,
            "findings": self.findings,
            "connections": connections,
        })
    }

    /// Replaces each of these texts by another, in all that the page says. Longer ones come first.
    pub fn rename(&mut self, names: &[(String, String)]) {
        let mut names = names.to_vec();
        names.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        let renamed = |text: &str| renamed(text, &names);
        self.title = renamed(&self.title);
        self.about = renamed(&self.about);
        let each = |value: &mut Json| walk(value, &renamed);
        self.findings.iter_mut().for_each(each);
        for chapter in &mut self.chapters {
            chapter.object.values_mut().for_each(each);
            chapter.text = renamed(&chapter.text);
        }
    }

    /// Leaves out the connections that are beyond [`CONNECTION_LIMIT`] or [`EVENT_LIMIT`].
    pub fn shorten(&mut self) {
        let (before, mut room) = (self.chapters.len(), EVENT_LIMIT);
        self.chapters.retain(|chapter| {
            let fits = chapter.events <= room;
            room -= if fits { chapter.events } else { 0 };
            fits
        });
        self.chapters.truncate(CONNECTION_LIMIT);
        self.left_out += before - self.chapters.len();
    }

    /// The file. Fails beyond [`CONNECTION_LIMIT`], [`EVENT_LIMIT`] or [`SIZE_LIMIT`].
    pub fn html(&self) -> Result<String, TooLarge> {
        self.html_with(&Addition::default())
    }

    /// The file, with more on it.
    pub fn html_with(&self, addition: &Addition) -> Result<String, TooLarge> {
        within("connections", self.chapters.len(), CONNECTION_LIMIT)?;
        within("events", self.chapters.iter().map(|chapter| chapter.events).sum(), EVENT_LIMIT)?;
        let mut data = self.json();
        if !addition.data.is_null() {
            data["more"] = addition.data.clone();
        }
        let text: Vec<&str> = self.chapters.iter().take(20).map(|chapter| chapter.text.as_str()).collect();
        let parts = [
            ("<!--POLICY-->", addition.policy.to_owned()),
            ("<!--TITLE-->", escaped(&self.title)),
            ("/*CSS*/", STYLE.to_owned()),
            ("/*MORE CSS*/", addition.style.to_owned()),
            ("<!--BODY-->", addition.body.clone()),
            ("<!--TEXT-->", escaped(&text.join("\n\n"))),
            ("<!--DATA-->", encoded(data.to_string().as_bytes())),
            ("/*MODEL*/", code(MODEL)),
            ("/*VIEW*/", code(VIEW)),
            ("/*SCRIPT*/", addition.script.to_owned()),
        ];
        let page = filled(TEMPLATE, &parts);
        within("bytes", page.len(), SIZE_LIMIT)?;
        Ok(page)
    }
}

impl Chapter {
    /// The connection of a flow of a timeline. `number` is its number on the page.
    pub fn new(timeline: &Timeline, flow: usize, number: usize) -> Chapter {
        let ends = timeline.flows.all[flow].ends;
        Chapter::of(timeline, &in_order(timeline), Some(flow), ends, number)
    }

    fn of(
        timeline: &Timeline,
        events: &[&Event],
        flow: Option<usize>,
        ends: [SocketAddr; 2],
        number: usize,
    ) -> Chapter {
        let hosts = ends.map(|end| timeline.host_with(end.ip()));
        let mut rows = Rows {
            timeline,
            flow,
            ends,
            hosts,
            rows: Vec::new(),
            datagrams: [0; 2],
            told: Default::default(),
        };
        let mut packets = 0;
        for event in events {
            packets += u64::from(matches!(event, Event::Packet(_)));
            rows.event(event, packets);
        }
        rows.chapter(number)
    }

    /// Connections of a timeline in which all ends are known, the first `limit` of them. A timeline of datagrams alone has
    /// one chapter.
    pub fn all(timeline: &Timeline, limit: usize) -> Vec<Chapter> {
        let events = in_order(timeline);
        let flows = timeline.flows.all.iter().take(limit).enumerate();
        let mut chapters: Vec<Chapter> =
            flows.map(|(at, flow)| Chapter::of(timeline, &events, Some(at), flow.ends, at + 1)).collect();
        if chapters.is_empty() {
            let ends = events.iter().find_map(|event| datagram_ends(timeline, event));
            chapters.extend(ends.map(|ends| Chapter::of(timeline, &events, None, ends, 1)));
        }
        chapters
    }

    /// Sets a field of the object that the script reads.
    pub fn set(&mut self, key: &str, value: Json) {
        self.object.insert(key.to_owned(), value);
    }

    /// Adds the ladder of its timeline as text.
    pub fn text(&mut self, timeline: &Timeline) {
        self.text = ladder::draw(timeline, TEXT_ROWS);
    }

    /// Number of its rows.
    pub fn events(&self) -> usize {
        self.events
    }
}

/// The ends of a datagram that one host sends to another.
fn datagram_ends(timeline: &Timeline, event: &Event) -> Option<[SocketAddr; 2]> {
    let Event::Packet(packet) = event else { return None };
    let datagram = packet.udp.as_ref()?;
    let (source, destination) = datagram.ports?;
    let end = |host: usize, port| {
        let addresses = &timeline.hosts.get(host)?.addresses;
        let address = addresses.iter().find(|address| address.is_ipv4() == datagram.is_ipv4)?;
        Some(SocketAddr::new(*address, port))
    };
    let from = packet.from?;
    let to = (0..timeline.hosts.len()).find(|host| *host != from)?;
    Some([end(from, source)?, end(to, destination)?])
}

/// The events of a timeline in the order of their times.
fn in_order(timeline: &Timeline) -> Vec<&Event> {
    let mut events: Vec<&Event> = timeline.events.iter().collect();
    events.sort_by_key(|event| event.at());
    events
}

/// The rows of a connection, as they are made.
struct Rows<'a> {
    timeline: &'a Timeline,
    /// `None`: datagrams alone.
    flow: Option<usize>,
    ends: [SocketAddr; 2],
    /// The hosts at both ends.
    hosts: [Option<usize>; 2],
    rows: Vec<Json>,
    /// Bytes of the datagrams of each end.
    datagrams: [u64; 2],
    /// The last values that each end's stack told.
    told: [Map<String, Json>; 2],
}

impl Rows<'_> {
    /// The end that a host is, for an event about a connection.
    fn side(&self, host: usize, ends: Option<Ends>) -> Option<usize> {
        match ends {
            Some((local, remote)) if [local, remote] == self.ends => Some(0),
            Some((local, remote)) if [remote, local] == self.ends => Some(1),
            Some(_) => None,
            None => self.hosts.iter().position(|known| *known == Some(host)),
        }
    }

    fn event(&mut self, event: &Event, number: u64) {
        let at = event.at().as_nanos();
        match event {
            Event::Packet(packet) => self.packet(packet, number),
            Event::State { host, ends, from, to, .. } => {
                if let Some(side) = self.side(*host, Some(*ends)) {
                    self.rows.push(json!(["s", at, side, from.to_string(), to.to_string()]));
                }
            }
            Event::Listening { host, on, .. } => {
                // The end that did not begin is the one that listens.
                if self.hosts[1] == Some(*host) && *on {
                    self.rows.push(json!(["s", at, 1, "CLOSED", "LISTEN"]));
                }
            }
            Event::Call { host, text, .. } => {
                if let Some(side) = self.side(*host, None) {
                    self.rows.push(json!(["c", at, side, text]));
                }
            }
            Event::Note { host, ends, text, .. } => {
                let side = match host {
                    None => -1,
                    Some(host) => match self.side(*host, *ends) {
                        Some(side) => side as i64,
                        None => return,
                    },
                };
                self.rows.push(json!(["n", at, side, text]));
            }
            Event::Info { at, host, ends, info } => {
                if let Some(side) = self.side(*host, Some(*ends)) {
                    self.info(*at, side, info);
                }
            }
        }
    }

    fn packet(&mut self, packet: &Packet, number: u64) {
        let number = packet.number.unwrap_or(number);
        let end =
            |host: Option<usize>| host.and_then(|host| self.side(host, None)).map_or(-1, |side| side as i64);
        let at = packet.at.as_nanos();
        let fates: Vec<Json> = packet.fates.iter().map(fate).collect();
        match &packet.tcp {
            Some((segment, header)) if packet.flow.is_some() && packet.flow == self.flow => {
                let from = if packet.from.is_none() { -1 } else { self.sender(header) };
                let bits = u8::from(segment.retransmission)
                    | u8::from(packet.forged) << 1
                    | u8::from(segment.seq_before) << 2
                    | u8::from(segment.ack_before) << 3;
                self.rows.push(json!([
                    "p",
                    at,
                    from,
                    number,
                    header.flags.to_string(),
                    segment.seq,
                    segment.len,
                    segment.ack,
                    segment.win,
                    options(segment, header),
                    fates,
                    bits,
                    end(packet.to)
                ]));
            }
            None if (packet.icmp || packet.udp.is_some())
                && (end(packet.from) >= 0 || end(packet.to) >= 0) =>
            {
                let (from, to) = (end(packet.from), end(packet.to));
                // The first fragment has the length of the whole datagram.
                if let Some(datagram) = packet.udp.filter(|datagram| datagram.ports.is_some())
                    && let Ok(from) = usize::try_from(from)
                {
                    self.datagrams[from] += datagram.len as u64;
                }
                self.rows.push(json!(["i", at, from, number, packet.text, fates, to]));
            }
            _ => {}
        }
    }

    /// The end that has the source port of a segment. Where both have it, the hosts tell.
    fn sender(&self, header: &Header) -> i64 {
        let ports = self.ends.map(|end| end.port());
        if ports[0] == ports[1] {
            return -1;
        }
        i64::from(header.source_port == ports[1])
    }

    /// The fields that changed since the stack last told them.
    fn info(&mut self, at: Instant, side: usize, info: &Info) {
        let mut changed = Map::new();
        for (name, value) in info.iter() {
            let value = match value {
                Value::Number(number) => json!(number),
                Value::Time(_) if name == "state_age" => continue,
                Value::Time(time) => json!(nanos(time)),
                Value::Timer(left) => json!(left.map(|left| at.as_nanos() + nanos(left))),
                Value::Switch(on) => json!(on),
                Value::CaState(state) => json!(format!("{state:?}")),
                _ => continue,
            };
            if self.told[side].get(name) != Some(&value) {
                self.told[side].insert(name.to_owned(), value.clone());
                changed.insert(name.to_owned(), value);
            }
        }
        if !changed.is_empty() {
            self.rows.push(json!(["k", at.as_nanos(), side, changed]));
        }
    }

    fn chapter(self, number: usize) -> Chapter {
        let timeline = self.timeline;
        let hosts: Vec<String> = (0..2)
            .map(|side| {
                self.hosts[side]
                    .map_or_else(|| self.ends[side].to_string(), |host| timeline.hosts[host].name.clone())
            })
            .collect();
        let own = |row: &&Json| row[0] == "p";
        let datagrams = self.flow.is_none();
        let packets = self.rows.iter().filter(|row| row[0] == if datagrams { "i" } else { "p" });
        let times: Vec<u64> = packets.filter_map(|row| row[1].as_u64()).collect();
        let (start, end) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        let sum = |way: i64, of: &dyn Fn(&Json) -> u64| -> u64 {
            self.rows.iter().filter(own).filter(|row| row[2] == way).map(of).sum()
        };
        let again = |row: &Json| u64::from(row[11].as_u64().unwrap_or(0) & 1 == 1);
        let payload = |row: &Json| row[6].as_u64().unwrap_or(0);
        let reset = self.rows.iter().filter(own).any(|row| row[4].as_str().is_some_and(|f| f.contains('R')));
        let closed = |way: i64| {
            self.rows
                .iter()
                .filter(own)
                .any(|row| row[2] == way && row[4].as_str().is_some_and(|f| f.contains('F')))
        };
        let ended = match (reset, closed(0), closed(1)) {
            _ if datagrams => "datagrams",
            (true, ..) => "reset",
            (_, true, true) => "fin-both",
            (_, false, false) => "open",
            _ => "half-closed",
        };
        let mut object = Map::new();
        let mut put = |key: &str, value: Json| object.insert(key.to_owned(), value);
        put("n", json!(number));
        put("ends", json!(self.ends.map(|end| end.to_string())));
        put("hosts", json!(hosts));
        put("start", json!(start));
        put("lasted", json!(end - start));
        put("knows", json!("stack"));
        let bytes = if datagrams { self.datagrams } else { [sum(0, &payload), sum(1, &payload)] };
        put("bytes", json!(bytes));
        put("again", json!(sum(0, &again) + sum(1, &again)));
        put("ended", json!(ended));
        put("findings", json!(faults(&self.rows)));
        let events = self.rows.len();
        put("rows", Json::Array(self.rows));
        Chapter { object, events, text: String::new() }
    }
}

/// The faults that hit packets, as findings.
fn faults(rows: &[Json]) -> Vec<Json> {
    let mut found = Vec::new();
    for row in rows {
        let fates = if row[0] == "p" { &row[10] } else { &row[5] };
        let Some(fates) = fates.as_array().filter(|_| row[0] == "p" || row[0] == "i") else { continue };
        for fate in fates {
            let why = fate[1].as_str().unwrap_or_default();
            let lost = fate[0] == "X";
            if !lost && why.is_empty() || found.len() == FAULT_LIMIT {
                continue;
            }
            let number = &row[3];
            let text = if lost { format!("#{number} is lost: {why}") } else { format!("#{number}: {why}") };
            found.push(json!({
                "id": if lost { "lost" } else { "fault" },
                "severity": if lost { "warning" } else { "info" },
                "confidence": "certain",
                "text": text,
                "evidence": [{"packet": number, "what": why}],
            }));
        }
    }
    found
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn fate(fate: &Fate) -> Json {
    match fate {
        Fate::Arrived { at, note } if note.is_empty() => json!([at.as_nanos()]),
        Fate::Arrived { at, note } => json!([at.as_nanos(), note]),
        Fate::Lost(why) => json!(["X", why]),
    }
}

/// Options by letter: `m` MSS, `w` window scale, `k` SACK permitted, `t` timestamps, `s` SACK blocks, `f` Fast Open.
fn options(segment: &Segment, header: &Header) -> Json {
    let given = &header.options;
    let mut out = Map::new();
    let mut put = |key: &str, value: Json| out.insert(key.to_owned(), value);
    if let Some(mss) = given.mss {
        put("m", json!(mss));
    }
    if let Some(shift) = given.window_scale {
        put("w", json!(shift));
    }
    if given.sack_permitted {
        put("k", json!(1));
    }
    if let Some(stamps) = &given.timestamps {
        put("t", json!([stamps.val, stamps.ecr]));
    }
    let relative = |number: steadfast_core::seq::SeqNum| segment.ack.wrapping_add(number.since(header.ack));
    let blocks: Vec<_> = given.sack.iter().map(|(left, right)| [relative(left), relative(right)]).collect();
    if !blocks.is_empty() {
        put("s", json!(blocks));
    }
    if let Some(cookie) = &given.fast_open {
        put("f", json!(if cookie.is_request() { "tfo request" } else { "tfo cookie" }));
    }
    Json::Object(out)
}

/// Replaces texts in one pass, where no letter or digit goes on: `10.0.0.1` is not in `10.0.0.12`.
fn renamed(text: &str, names: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    let mut before = ' ';
    while let Some(letter) = rest.chars().next() {
        let fits = |(from, _): &&(String, String)| {
            let goes_on = |next: char| next.is_ascii_alphanumeric();
            rest.starts_with(from.as_str())
                && !goes_on(before)
                && !rest[from.len()..].chars().next().is_some_and(goes_on)
        };
        let taken = match names.iter().find(fits) {
            Some((from, to)) => {
                out.push_str(to);
                from.len()
            }
            None => {
                out.push(letter);
                letter.len_utf8()
            }
        };
        before = rest[..taken].chars().next_back().unwrap_or(' ');
        rest = &rest[taken..];
    }
    out
}

/// Changes every text of a value.
fn walk(value: &mut Json, change: &impl Fn(&str) -> String) {
    match value {
        Json::String(text) => *text = change(text),
        Json::Array(all) => all.iter_mut().for_each(|one| walk(one, change)),
        Json::Object(all) => all.values_mut().for_each(|one| walk(one, change)),
        _ => {}
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), TooLarge> {
    if found > limit { Err(TooLarge { what, found, limit }) } else { Ok(()) }
}

/// Bytes as the script of a page reads them: gzip, and then base64.
pub fn encoded(bytes: &[u8]) -> String {
    base64(&packed(bytes))
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    // A vector takes everything.
    let _ = packer.write_all(bytes);
    packer.finish().unwrap_or_default()
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A script without its comments: a page has no reader of them.
fn code(script: &str) -> String {
    script.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//")).collect()
}

/// Replaces marks in one pass, so that no part is searched for the marks of others.
fn filled(template: &str, parts: &[(&str, String)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    loop {
        let next = parts.iter().filter_map(|(mark, part)| Some((rest.find(mark)?, mark, part))).min();
        let Some((at, mark, part)) = next else { return out + rest };
        out.push_str(&rest[..at]);
        out.push_str(part);
        rest = &rest[at + mark.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648_section_10() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn names_are_replaced_whole() {
        let names = [("10.0.0.1".to_owned(), "192.0.2.1".to_owned())];
        assert_eq!(
            renamed("10.0.0.1:80, 10.0.0.12, 110.0.0.1", &names),
            "192.0.2.1:80, 10.0.0.12, 110.0.0.1"
        );
    }

    #[test]
    fn a_title_cannot_leave_its_place() {
        let page = Page { title: "</title><script>/*VIEW*/<!--DATA-->".to_owned(), ..Page::default() };
        let html = page.html().unwrap();
        assert!(html.contains("&lt;/title&gt;&lt;script&gt;/*VIEW*/&lt;!--DATA--&gt;"));
        assert_eq!(html.matches("</script>").count(), 2);
    }

    #[test]
    fn a_page_has_no_more_connections_than_its_limit() {
        let chapter = Chapter { object: Map::new(), events: 1, text: String::new() };
        let page = |connections, events| Page {
            chapters: vec![Chapter { events, ..chapter.clone() }; connections],
            ..Page::default()
        };
        assert!(page(CONNECTION_LIMIT, 1).html().is_ok());
        let error = page(CONNECTION_LIMIT + 1, 1).html().unwrap_err();
        assert_eq!(error.to_string(), "the page has 201 connections: expected at most 200");
        assert!(page(1, EVENT_LIMIT).html().is_ok());
        assert_eq!(page(1, EVENT_LIMIT + 1).html().unwrap_err().what, "events");
        let shortened = |mut page: Page| {
            page.shorten();
            assert!(page.html().is_ok());
            (page.chapters.len(), page.left_out)
        };
        assert_eq!(shortened(page(CONNECTION_LIMIT + 1, 1)), (CONNECTION_LIMIT, 1));
        assert_eq!(shortened(page(3, EVENT_LIMIT / 2)), (2, 1));
        assert_eq!(shortened(page(1, EVENT_LIMIT + 1)), (0, 1));
    }

    #[test]
    fn the_page_loads_nothing_and_its_own_part_is_small() {
        let html = Page::default().html().unwrap();
        let own = STYLE.len() + code(MODEL).len() + code(VIEW).len();
        assert!(own <= 60 * 1024, "{own} bytes");
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.contains("default-src 'none'"));
    }
}
