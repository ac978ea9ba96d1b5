//! A connection of a capture as a timeline: its packets, and the states that follow from them.

use std::collections::HashMap;

use steadfast::stack::Instant;
use steadfast::stack::trace::State;
use steadfast::stack::wire::tcp::{Flags, Header};
use steadfast_capture::{Record, link};
use steadfast_diagnose::Connection;
use steadfast_timeline::event::{Fate, Host, Packet, Segment};
use steadfast_timeline::view::{Kind, View};
use steadfast_timeline::{Keep, Timeline};

/// The view and the bytes of a packet of the connection, and whether the client sent it.
pub(super) fn belongs<'a>(connection: &Connection, record: &Record<'a>) -> Option<(View, bool, &'a [u8])> {
    if !(u64::from(connection.span[0])..=u64::from(connection.span[1])).contains(&record.number) {
        return None;
    }
    let ip = link::ip(record.link, record.data).ok()?;
    let view = View::new(ip.bytes)?;
    let (source, destination) = view.ends()?;
    let ends =
        [connection.client, connection.server].map(|end| std::net::SocketAddr::new(end.ip(), end.port));
    let from_client = [source, destination] == ends;
    (from_client || [destination, source] == ends).then(|| {
        // An Ethernet frame may be longer than its packet.
        let declared = match ip.bytes[0] >> 4 {
            4 => usize::from(u16::from_be_bytes([ip.bytes[2], ip.bytes[3]])),
            _ => 40 + usize::from(u16::from_be_bytes([ip.bytes[4], ip.bytes[5]])),
        };
        let len = if declared < 40 { ip.bytes.len() } else { declared.min(ip.bytes.len()) };
        (view, from_client, &ip.bytes[..len])
    })
}

/// The packets that a drawing takes, by their place in the connection or by their number in the file.
pub(super) struct Choice {
    /// The first.
    pub(super) head: u64,
    /// All from this place on.
    pub(super) tail: u64,
    /// Numbers in the file.
    pub(super) around: Vec<(u64, u64)>,
}

impl Choice {
    pub(super) const ALL: Choice = Choice { head: u64::MAX, tail: 0, around: Vec::new() };

    fn takes(&self, place: u64, number: u64) -> bool {
        place < self.head
            || place >= self.tail
            || self.around.iter().any(|(from, to)| (from..=to).contains(&&number))
    }
}

/// The packets of two vantage points: where each was seen first.
#[derive(Default)]
struct Twins {
    seen: HashMap<Vec<u8>, (usize, usize)>,
    matched: u64,
}

/// A ladder of one connection.
pub(super) struct Drawing<'a> {
    pub(super) connection: &'a Connection,
    pub(super) timeline: Timeline,
    choice: Choice,
    /// Packets of two interfaces are one with an arrival. A ladder of text shows both.
    twins: Option<Twins>,
    /// Packets left out since the last that was taken.
    skipped: u64,
    place: u64,
    states: [State; 2],
    /// The numbers after each end's FIN.
    fins: [Option<u32>; 2],
    seen: u32,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(connection: &'a Connection) -> Drawing<'a> {
        let host = |name: &str, end: steadfast_diagnose::End| Host {
            name: name.to_owned(),
            addresses: vec![end.ip()],
        };
        let hosts = vec![host("client", connection.client), host("server", connection.server)];
        let middle = connection.opened == "before";
        let states = if middle { [State::Established; 2] } else { [State::Closed, State::Listen] };
        let mut drawing = Drawing {
            connection,
            timeline: Timeline::new(hosts, Keep { events: true, ..Keep::default() }),
            choice: Choice::ALL,
            twins: None,
            skipped: 0,
            place: 0,
            states: [State::Closed; 2],
            fins: [None; 2],
            seen: 0,
        };
        for way in [0, 1] {
            drawing.enter(Instant::ZERO, way, states[way]);
        }
        drawing
    }

    /// A drawing for a page, of the chosen packets.
    pub(super) fn for_page(connection: &'a Connection, choice: Choice, limit: usize) -> Drawing<'a> {
        let mut drawing = Drawing::new(connection);
        drawing.timeline = drawing.timeline.with_limit(limit);
        drawing.choice = choice;
        drawing.twins = Some(Twins::default());
        drawing
    }

    /// Whether this packet was seen at another interface before. Then it is its arrival.
    fn is_arrival(&mut self, at: Instant, record: &Record<'_>, view: &View, bytes: &[u8]) -> bool {
        let Some(twins) = &mut self.twins else { return false };
        let Kind::Tcp { payload, .. } = &view.kind else { return false };
        let mut key = bytes[..payload.start.min(bytes.len())].to_vec();
        // TTL and checksum of IPv4, hop limit of IPv6: routers change them.
        match bytes[0] >> 4 {
            4 => [8, 10, 11].into_iter().for_each(|at| key[at] = 0),
            _ => key[7] = 0,
        }
        let Some((event, interface)) = twins.seen.get(&key).copied() else {
            twins.seen.insert(key, (self.timeline.events.len(), record.interface));
            return false;
        };
        if interface == record.interface {
            return false;
        }
        twins.seen.remove(&key);
        twins.matched += 1;
        self.timeline.fate(Some(event), Fate::Arrived { at, note: String::new() });
        true
    }

    /// The end of the capture: where both ends were captured, a packet that only its sender saw was lost.
    pub(super) fn finish(&mut self) {
        self.gap(self.timeline.events.last().map_or(Instant::ZERO, |event| event.at()));
        let Some(twins) = self.twins.take() else { return };
        if twins.matched * 5 < (twins.matched + twins.seen.len() as u64) * 4 {
            return;
        }
        for (event, _) in twins.seen.into_values() {
            self.timeline.fate(Some(event), Fate::Lost("not seen at the other end".to_owned()));
        }
    }

    fn gap(&mut self, at: Instant) {
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 0 {
            self.timeline.note(at, None, || format!("{skipped} packets are left out"));
        }
    }

    pub(super) fn record(&mut self, record: &Record<'_>, comments: bool) {
        let Some((view, from_client, bytes)) = belongs(self.connection, record) else { return };
        let Kind::Tcp { header, payload } = &view.kind else { return };
        let way = usize::from(!from_client);
        let nanos = record.nanos.unwrap_or(self.connection.start) - self.connection.start;
        let at = Instant::ZERO + steadfast::stack::Duration::from_nanos(nanos.max(0) as u64);
        // The length on the wire, where the packet is cut.
        let missing = record.len as usize - record.data.len();
        let len = payload.len().min(bytes.len() - payload.start.min(bytes.len())) + missing;
        if self.is_arrival(at, record, &view, bytes) {
            return;
        }
        let place = self.place;
        self.place += 1;
        let takes = self.choice.takes(place, record.number);
        if takes {
            self.gap(at);
        }
        if comments {
            record.comments().for_each(|comment| self.timeline.note(at, None, || comment.to_owned()));
        }
        self.state(at, way, header, len);
        let Some((source, destination)) = view.ends() else { return };
        let mut segment = Segment::new(header, len, self.states[way]);
        let found = self.timeline.flows.find_or_open(source, destination);
        if self.twins.is_some() {
            self.timeline.flows.begin(found, header);
        }
        self.timeline.flows.sent(found, header, len).number(&mut segment);
        let number = record.number;
        let evidence = self
            .connection
            .findings
            .iter()
            .flat_map(|finding| finding.evidence.iter().map(move |e| (finding.id, e)));
        let said = evidence
            .filter(|(_, evidence)| u64::from(evidence.packet) == number)
            .map(|(id, evidence)| format!("{} ({id})", evidence.what));
        let note = std::iter::once(format!("#{number}")).chain(said).collect::<Vec<_>>().join(" ");
        let for_page = self.twins.is_some();
        segment.retransmission &= for_page;
        self.seen += 1;
        if !takes {
            self.skipped += 1;
            return;
        }
        self.timeline.packet(Packet {
            at,
            number: Some(number),
            from: Some(way),
            to: Some(1 - way),
            flow: Some(found.0),
            tcp: Some((segment, *header)),
            udp: None,
            icmp: false,
            text: String::new(),
            size: bytes.len() + missing,
            forged: false,
            fates: if for_page { Vec::new() } else { vec![Fate::Arrived { at, note }] },
        });
    }

    fn enter(&mut self, at: Instant, way: usize, state: State) {
        let (from, to) = (self.states[way], state);
        if from != to {
            self.states[way] = to;
            let end = |end: steadfast_diagnose::End| std::net::SocketAddr::new(end.ip(), end.port);
            let (own, other) = if way == 0 {
                (self.connection.client, self.connection.server)
            } else {
                (self.connection.server, self.connection.client)
            };
            let ends = (end(own), end(other));
            self.timeline.state(at, way, ends, ends, from, to);
        }
    }

    /// The states that follow from a segment: of its sender at once, of its receiver when it answers.
    fn state(&mut self, at: Instant, way: usize, header: &Header, len: usize) {
        use State::*;
        let flags = header.flags;
        if flags.rst() {
            self.enter(at, way, Closed);
            self.enter(at, 1 - way, Closed);
            return;
        }
        if flags.syn() {
            self.enter(at, way, if flags.ack() { SynReceived } else { SynSent });
            return;
        }
        if flags.ack() {
            if self.states[way] == SynSent {
                self.enter(at, way, Established);
            }
            if self.states[1 - way] == SynReceived {
                self.enter(at, 1 - way, Established);
            }
            self.fin_acknowledged(at, way, header);
        }
        if flags.contains(Flags::FIN) && self.fins[way].is_none() {
            self.fins[way] = Some(header.seq.0.wrapping_add(len as u32 + 1));
            let knows = self.fins[1 - way].is_some_and(|fin| header.ack.0 == fin);
            self.enter(at, way, if knows { LastAck } else { FinWait1 });
        }
    }

    /// The segment acknowledges the FIN of the other end.
    fn fin_acknowledged(&mut self, at: Instant, way: usize, header: &Header) {
        use State::*;
        if self.fins[1 - way] != Some(header.ack.0) {
            return;
        }
        match self.states[1 - way] {
            FinWait1 => self.enter(at, 1 - way, FinWait2),
            LastAck => self.enter(at, 1 - way, Closed),
            _ => {}
        }
        match self.states[way] {
            Established => self.enter(at, way, CloseWait),
            FinWait1 => self.enter(at, way, Closing),
            FinWait2 => self.enter(at, way, TimeWait),
            _ => {}
        }
    }
}
