//! The answer: findings, connections, and what was read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::conn::{CLIENT, Conn, SERVER, fact, state};
use crate::finding::{Finding, Severity};
use crate::many::{Client, Service};
use crate::packet::End;
use crate::rules::ended;

/// The part of the capture that was read.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// The format: pcap or pcapng.
    pub format: &'static str,
    /// Link types and their packets.
    pub links: BTreeMap<u16, u64>,
    /// Link types that are not supported, and their packets.
    pub unread: BTreeMap<u16, u64>,
    /// Packets.
    pub packets: u64,
    /// TCP segments.
    pub segments: u64,
    /// Bytes of the file, unpacked.
    pub bytes: u64,
    /// Time of the first packet, in nanoseconds since the epoch.
    pub start: i64,
    /// Time of the last packet.
    pub end: i64,
    /// The parts that could not be read.
    pub damage: Vec<String>,
    /// Number of such parts.
    pub damaged: u64,
    /// Interfaces: names, and packets.
    pub interfaces: Vec<(String, u64)>,
    /// Names of addresses, if the file has them.
    pub names: BTreeMap<IpAddr, String>,
    /// Connections that were given up because there were too many.
    pub evicted: u64,
}

/// A connection with its findings.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its number, from 1, in order of appearance.
    pub n: u32,
    /// The end that opened it.
    pub client: End,
    /// The end that listened.
    pub server: End,
    /// When it began.
    pub start: i64,
    /// How long it lasted.
    pub lasted: i64,
    /// Letters of what happened: capitals for the client.
    pub history: String,
    /// How it was opened.
    pub opened: &'static str,
    /// How it ended.
    pub ended: &'static str,
    /// Who closed first.
    pub first_to_close: &'static str,
    /// States of both ends.
    pub states: [&'static str; 2],
    /// Packets of client and server.
    pub packets: [u32; 2],
    /// Bytes of client and server.
    pub bytes: [u64; 2],
    /// Bytes sent again by client and server.
    pub retransmitted: [u32; 2],
    /// Least time to the server, and to the client, in microseconds.
    pub legs: [u32; 2],
    /// MSS of both ends.
    pub mss: [u16; 2],
    /// Window scale of both ends; 255: not offered.
    pub scale: [u8; 2],
    /// Both offered SACK, timestamps.
    pub sack: bool,
    /// Both offered timestamps.
    pub timestamps: bool,
    /// Its first and its last packet.
    pub span: [u32; 2],
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Connection {
    pub(crate) fn new(conn: &Conn, findings: Vec<Finding>) -> Connection {
        let [client, server] = &conn.ways;
        let both = |bit: u16| client.is(bit) && server.is(bit);
        Connection {
            n: conn.n,
            client: conn.ends[CLIENT],
            server: conn.ends[SERVER],
            start: conn.start,
            lasted: conn.last - conn.start,
            history: conn.letters[..usize::from(conn.letter_count)]
                .iter()
                .map(|letter| char::from(*letter))
                .collect(),
            opened: opened(conn),
            ended: ended(conn),
            first_to_close: ["nobody", "client", "server"][usize::from(conn.first_to_close.min(2))],
            states: [state_of(conn, CLIENT), state_of(conn, SERVER)],
            packets: [client.packets, server.packets],
            bytes: [client.bytes, server.bytes],
            retransmitted: [CLIENT, SERVER].map(|way| conn.troubled(way).map_or(0, |trouble| trouble.again)),
            legs: [(conn.leg(CLIENT) / 1000) as u32, (conn.leg(SERVER) / 1000) as u32],
            mss: [client.mss, server.mss],
            scale: [client.scale, server.scale],
            sack: both(fact::SACK_OFFERED),
            timestamps: both(fact::TIMESTAMPS),
            span: [conn.first_packet, conn.last_packet],
            findings,
        }
    }

    /// The worst severity of its findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

fn opened(conn: &Conn) -> &'static str {
    match (conn.is(state::SYN), conn.is(state::SYN_ACK), conn.is(state::ESTABLISHED)) {
        (true, true, true) => "handshake",
        (_, true, false) => "half-open",
        (true, false, _) => "syn-only",
        (false, true, true) => "partly-seen",
        (false, false, _) => "before",
    }
}

/// The state of an end at the end of its connection, as far as packets tell.
fn state_of(conn: &Conn, way: usize) -> &'static str {
    let [own, other] = [&conn.ways[way], &conn.ways[1 - way]];
    if own.is(fact::RST) || other.is(fact::RST) {
        return "CLOSED";
    }
    let first = conn.first_to_close == way as u8 + 1;
    match (own.is(fact::FIN), own.is(fact::FIN_ACKED), other.is(fact::FIN)) {
        (true, true, true) if first => "TIME-WAIT",
        (true, true, true) => "CLOSED",
        (true, false, true) if first => "CLOSING",
        (true, false, true) => "LAST-ACK",
        (true, true, false) => "FIN-WAIT-2",
        (true, false, false) => "FIN-WAIT-1",
        (false, _, true) => "CLOSE-WAIT",
        (false, _, false) if conn.is(state::ESTABLISHED) || !conn.is(state::SYN) => "ESTABLISHED",
        (false, ..) if way == CLIENT => "SYN-SENT",
        (false, ..) if conn.is(state::SYN_ACK) => "SYN-RECEIVED",
        (false, ..) => "LISTEN",
    }
}

/// The answer to a capture.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The part that was read.
    pub captured: Captured,
    /// Number of connections.
    pub connections_total: u32,
    /// Connections without a finding of a severity above an information.
    pub sound: u32,
    /// Connections by the way they ended.
    pub endings: BTreeMap<&'static str, u32>,
    /// Findings about the capture, and about many connections.
    pub findings: Vec<Finding>,
    /// Connections with findings, or all.
    pub connections: Vec<Connection>,
    /// Connections with findings beyond the limit, by id.
    pub more: BTreeMap<&'static str, u32>,
    /// Services.
    pub services: BTreeMap<End, Service>,
    /// Clients.
    pub clients: BTreeMap<u128, Client>,
}

impl Report {
    /// All findings: those of the capture, and of the connections.
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(self.connections.iter().flat_map(|connection| &connection.findings))
    }

    /// Number of findings by id, with the worst severity of each.
    pub fn summary(&self) -> BTreeMap<&'static str, (u32, Severity)> {
        let mut out: BTreeMap<&'static str, (u32, Severity)> = BTreeMap::new();
        for finding in self.all() {
            let entry = out.entry(finding.id).or_insert((0, finding.severity));
            entry.0 += 1;
            entry.1 = entry.1.max(finding.severity);
        }
        for (id, count) in &self.more {
            out.entry(id).or_insert((0, Severity::Info)).0 += count;
        }
        out
    }
}
