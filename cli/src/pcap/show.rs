//! `pcap show` and `pcap split`: one connection, as a ladder or as a capture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use steadfast_capture::Direction;
use steadfast_diagnose::{Connection, Options};
use steadfast_timeline::{ladder, pcapng};

use super::drawing::{Drawing, belongs};
use super::text::closing;
use super::{Reading, check, random_key, read};
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
    #[command(flatten)]
    reading: Reading,
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
    #[command(flatten)]
    reading: Reading,
}

impl Show {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let range = self.packets.as_deref().map(packets).transpose()?;
        let connection = find(&self.file, self.reading, self.which.as_deref(), self.finding.as_deref())?;
        let mut drawing = Drawing::new(&connection);
        read(&self.file, self.reading, |record| {
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
        let connection = find(&self.file, self.reading, Some(&self.which), None)?;
        let mut out = [pcapng::section(""), pcapng::interface("")].concat();
        read(&self.file, self.reading, |record| {
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
fn find(
    path: &Path,
    reading: Reading,
    which: Option<&str>,
    finding: Option<&str>,
) -> Result<Connection, Failure> {
    if path == Path::new("-") {
        return Err(Failure::usage("-: expected a file, since it is read twice"));
    }
    let report = check(path, reading, Options { key: random_key(), all: true, ..Options::default() })?;
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use steadfast::stack::seq::SeqNum;
    use steadfast::stack::wire::build;
    use steadfast::stack::wire::tcp::{Flags, Header};

    /// A connection that opens, carries data and closes, and another SYN, as a capture.
    pub(crate) fn handshake() -> Vec<u8> {
        handshake_in(&[])
    }

    /// The same behind the headers of a tunnel.
    fn handshake_in(tunnel: &[u8]) -> Vec<u8> {
        let (c, s) = ("192.0.2.1:4000".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        let other = "192.0.2.3:4001".parse().unwrap();
        let mut file = [pcapng::section(""), pcapng::interface("")].concat();
        let mut nanos = 1_000_000_000;
        let mut add = |from: std::net::SocketAddr, to, flags, seq, ack, data: &[u8]| {
            nanos += 1_000_000;
            let header =
                Header { flags, seq: SeqNum(seq), ack: SeqNum(ack), window: 1000, ..Header::default() };
            let bytes = [tunnel, &build::tcp(from, to, header, data).unwrap()].concat();
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
        let connection = find(&path, Reading::default(), Some("1"), None).unwrap();
        let mut drawing = Drawing::new(&connection);
        read(&path, Reading::default(), |record| drawing.record(record, false)).unwrap();
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
            find(&path, Reading::default(), Some("7"), None)
                .unwrap_err()
                .to_string()
                .contains("expected a number from 1 to 2")
        );
    }

    #[test]
    fn a_split_capture_has_the_connection_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, one) = (dir.path().join("a.pcapng"), dir.path().join("one.pcapng"));
        fs::write(&path, handshake()).unwrap();
        let which = "192.0.2.2:80-192.0.2.1:4000".to_owned();
        Split { file: path, which, output: one.clone(), reading: Reading::default() }.run().unwrap();
        let report = check(&one, Reading::default(), Options { all: true, ..Options::default() }).unwrap();
        assert_eq!((report.connections_total, report.captured.packets), (1, 8));
        assert_eq!(
            (report.connections[0].ended, report.connections[0].first_to_close),
            ("fin-both", "client")
        );
    }

    #[test]
    fn a_tunnel_is_opened_when_asked() {
        // GRE over IPv4.
        let head = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, 47, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 8, 0];
        let dir = tempfile::tempdir().unwrap();
        let (path, one) = (dir.path().join("gre.pcapng"), dir.path().join("one.pcapng"));
        fs::write(&path, handshake_in(&head)).unwrap();
        let options = || Options { all: true, ..Options::default() };
        let total = |path: &Path, decap| check(path, Reading { decap }, options()).unwrap().connections_total;
        assert_eq!((total(&path, false), total(&path, true)), (0, 2));
        let reading = Reading { decap: true };
        Split { file: path, which: "1".to_owned(), output: one.clone(), reading }.run().unwrap();
        assert_eq!(total(&one, false), 1, "the packets of the connection, without the tunnel");
    }
}
