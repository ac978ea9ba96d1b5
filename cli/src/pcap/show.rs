//! `pcap show` and `pcap split`: one connection, as a ladder or as a capture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use steadfast::stack::Instant;
use steadfast::stack::trace::State;
use steadfast::stack::wire::tcp::{Flags, Header};
use steadfast_capture::{Direction, Record, link};
use steadfast_diagnose::{Connection, Options};
use steadfast_timeline::event::{Fate, Host, Packet, Segment};
use steadfast_timeline::view::{Kind, View};
use steadfast_timeline::{Keep, Timeline, ladder, pcapng};

use super::text::closing;
use super::{check, random_key, read};
use crate::failure::Failure;
use crate::output::say;

/// Show a connection as a ladder, with the states of both ends as the packets tell them.
#[derive(Args)]
pub(crate) struct Show {
    /// The capture.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The number of the connection, or its ends as `A:P-B:Q`; the first by default.
    #[arg(value_name = "N|ENDS")]
    which: Option<String>,
    /// The first connection with this diagnosis.
    #[arg(long, value_name = "ID", conflicts_with = "which")]
    finding: Option<String>,
    /// Only the packets from A to B.
    #[arg(long, value_name = "A-B")]
    packets: Option<String>,
    /// Show the comments of the capture.
    #[arg(long)]
    comments: bool,
    /// Rows at most; those in the middle are left out.
    #[arg(long, value_name = "N", default_value_t = 400)]
    rows: usize,
}

/// Write one connection to a capture of its own (pcapng, IP packets).
#[derive(Args)]
pub(crate) struct Split {
    /// The capture.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The number of the connection, or its ends as `A:P-B:Q`.
    #[arg(value_name = "N|ENDS")]
    which: String,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Show {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let range = self.packets.as_deref().map(packets).transpose()?;
        let connection = find(&self.file, self.which.as_deref(), self.finding.as_deref())?;
        let mut drawing = Drawing::new(&connection);
        read(&self.file, |record| {
            if range.is_none_or(|(from, to)| (from..=to).contains(&record.number)) {
                drawing.record(record, self.comments);
            }
        })?;
        let text = format!(
            "connection {}  {} > {}   {}   {}\n\n{}",
            connection.n,
            connection.client,
            connection.server,
            connection.history,
            closing(&connection),
            ladder::draw(&drawing.timeline, self.rows)
        );
        say(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Split {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let connection = find(&self.file, Some(&self.which), None)?;
        let mut out = [pcapng::section(""), pcapng::interface("")].concat();
        read(&self.file, |record| {
            if let Some((_, _, bytes)) = belongs(&connection, record) {
                let comments: Vec<String> = record.comments().map(str::to_owned).collect();
                out.extend(pcapng::packet(&pcapng::Packet {
                    nanos: record.nanos.unwrap_or(0).max(0) as u64,
                    interface: 0,
                    outbound: record.direction == Some(Direction::Outbound),
                    bytes,
                    len: (record.len as usize - record.data.len() + bytes.len()) as u32,
                    comments: &comments,
                }));
            }
        })?;
        fs::write(&self.output, out).map_err(|error| Failure::system(self.output.display(), error))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses `40-90`.
fn packets(text: &str) -> Result<(u64, u64), Failure> {
    let expected = || Failure::usage(format!("--packets {text}: expected two numbers, such as 40-90"));
    let (from, to) = text.split_once('-').ok_or_else(expected)?;
    Ok((from.parse().map_err(|_| expected())?, to.parse().map_err(|_| expected())?))
}

/// Finds a connection of a capture.
fn find(path: &Path, which: Option<&str>, finding: Option<&str>) -> Result<Connection, Failure> {
    if path == Path::new("-") {
        return Err(Failure::usage("-: expected a file, since it is read twice"));
    }
    let report = check(path, Options { key: random_key(), all: true, ..Options::default() })?;
    let total = report.connections_total;
    let fits = |connection: &Connection| match (which, finding) {
        (Some(which), _) => match which.parse::<u32>() {
            Ok(n) => connection.n == n,
            Err(_) => {
                let (a, b) = (connection.client.to_string(), connection.server.to_string());
                which == format!("{a}-{b}") || which == format!("{b}-{a}")
            }
        },
        (None, Some(id)) => connection.findings.iter().any(|finding| finding.id == id),
        (None, None) => true,
    };
    let wanted = which.or(finding).unwrap_or("1").to_owned();
    report.connections.into_iter().find(fits).ok_or_else(|| {
        Failure::usage(format!("{}: no connection `{wanted}`; expected a number from 1 to {total}, or ends as A:P-B:Q; `pcap list` shows them", path.display()))
    })
}

/// The view and the bytes of a packet of the connection, and whether the client sent it.
fn belongs<'a>(connection: &Connection, record: &Record<'a>) -> Option<(View, bool, &'a [u8])> {
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

/// A ladder of one connection.
struct Drawing<'a> {
    connection: &'a Connection,
    timeline: Timeline,
    states: [State; 2],
    /// The numbers after each end's FIN.
    fins: [Option<u32>; 2],
    seen: u32,
}

impl<'a> Drawing<'a> {
    fn new(connection: &'a Connection) -> Drawing<'a> {
        let host = |name: &str, end: steadfast_diagnose::End| Host {
            name: name.to_owned(),
            addresses: vec![end.ip()],
        };
        let hosts = vec![host("client", connection.client), host("server", connection.server)];
        let middle = connection.opened == "before";
        let states = if middle { [State::Established; 2] } else { [State::Closed, State::Listen] };
        let mut drawing = Drawing {
            connection,
            timeline: Timeline::new(hosts, Keep { events: true, bytes: false }),
            states: [State::Closed; 2],
            fins: [None; 2],
            seen: 0,
        };
        for way in [0, 1] {
            drawing.enter(Instant::ZERO, way, states[way]);
        }
        drawing
    }

    fn record(&mut self, record: &Record<'_>, comments: bool) {
        let Some((view, from_client, bytes)) = belongs(self.connection, record) else { return };
        let Kind::Tcp { header, payload } = &view.kind else { return };
        let way = usize::from(!from_client);
        let nanos = record.nanos.unwrap_or(self.connection.start) - self.connection.start;
        let at = Instant::ZERO + steadfast::stack::Duration::from_nanos(nanos.max(0) as u64);
        // The length on the wire, where the packet is cut.
        let missing = record.len as usize - record.data.len();
        let len = payload.len().min(bytes.len() - payload.start.min(bytes.len())) + missing;
        if comments {
            record.comments().for_each(|comment| self.timeline.note(at, None, || comment.to_owned()));
        }
        self.state(at, way, header, len);
        let Some((source, destination)) = view.ends() else { return };
        let mut segment = Segment::new(header, len, self.states[way]);
        let found = self.timeline.flows.find_or_open(source, destination);
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
        segment.retransmission = false;
        self.seen += 1;
        self.timeline.packet(Packet {
            at,
            from: Some(way),
            to: Some(1 - way),
            flow: Some(found.0),
            tcp: Some((segment, *header)),
            icmp: false,
            text: String::new(),
            size: bytes.len() + missing,
            forged: false,
            fates: vec![Fate::Arrived { at, note }],
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use steadfast::stack::seq::SeqNum;
    use steadfast::stack::wire::build;

    /// A connection that opens, carries data and closes, and another SYN, as a capture.
    pub(crate) fn handshake() -> Vec<u8> {
        let (c, s) = ("192.0.2.1:4000".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        let other = "192.0.2.3:4001".parse().unwrap();
        let mut file = [pcapng::section(""), pcapng::interface("")].concat();
        let mut nanos = 1_000_000_000;
        let mut add = |from: std::net::SocketAddr, to, flags, seq, ack, data: &[u8]| {
            nanos += 1_000_000;
            let header =
                Header { flags, seq: SeqNum(seq), ack: SeqNum(ack), window: 1000, ..Header::default() };
            let bytes = build::tcp(from, to, header, data).unwrap();
            let len = bytes.len() as u32;
            file.extend(pcapng::packet(&pcapng::Packet {
                nanos,
                interface: 0,
                outbound: true,
                bytes: &bytes,
                len,
                comments: &[],
            }));
        };
        let (syn, ack, fin) = (Flags::SYN, Flags::ACK, Flags::FIN | Flags::ACK);
        add(c, s, syn, 100, 0, b"");
        add(other, s, syn, 100, 0, b"");
        add(s, c, syn | ack, 900, 101, b"");
        add(c, s, ack, 101, 901, b"");
        add(c, s, ack, 101, 901, b"hello");
        add(s, c, ack, 901, 106, b"");
        add(c, s, fin, 106, 901, b"");
        add(s, c, fin, 901, 107, b"");
        add(c, s, ack, 107, 902, b"");
        file
    }

    #[test]
    fn a_ladder_shows_numbers_and_the_states_of_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng");
        fs::write(&path, handshake()).unwrap();
        let connection = find(&path, Some("1"), None).unwrap();
        let mut drawing = Drawing::new(&connection);
        read(&path, |record| drawing.record(record, false)).unwrap();
        let text = ladder::draw(&drawing.timeline, 100);
        for wanted in [
            "#1",
            "#9",
            "[S] seq 0",
            "SYN-SENT",
            "ESTABLISHED",
            "CLOSE-WAIT",
            "LAST-ACK",
            "TIME-WAIT",
            "seq 1:6",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(!text.contains("#2"), "another connection\n{text}");
        assert!(
            find(&path, Some("7"), None).unwrap_err().to_string().contains("expected a number from 1 to 2")
        );
    }

    #[test]
    fn a_split_capture_has_the_connection_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, one) = (dir.path().join("a.pcapng"), dir.path().join("one.pcapng"));
        fs::write(&path, handshake()).unwrap();
        let which = "192.0.2.2:80-192.0.2.1:4000".to_owned();
        Split { file: path, which, output: one.clone() }.run().unwrap();
        let report = check(&one, Options { all: true, ..Options::default() }).unwrap();
        assert_eq!((report.connections_total, report.captured.packets), (1, 8));
        assert_eq!(
            (report.connections[0].ended, report.connections[0].first_to_close),
            ("fin-both", "client")
        );
    }
}
