//! Rules over many connections: by service, by client, by the second.

use std::collections::{BTreeMap, BTreeSet};

use crate::conn::{CLIENT, Conn, EVIDENCE, Kind, SERVER, fact, reset, state};
use crate::finding::{Confidence, Finding, Place, Severity};
use crate::packet::End;

/// Limit of the services, and of the clients, that are counted apart.
const ROWS: usize = 20_000;
/// SYNs of one second from which on a flood is possible.
const FLOOD: u32 = 100;
/// Ports or hosts that one client tries in vain, from which on it scans.
const SCAN: usize = 10;
/// Connections that one end closes in a minute, from which on their ports run short.
const A_MINUTE: u32 = 20_000;
/// Connections that take ports out of TIME-WAIT, from which on their ports run short.
const REUSED: u32 = 100;
/// Limit of the ports and hosts that are kept of one client.
const TRIED: usize = 64;

/// Counts of a service.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Connections.
    pub connections: u32,
    /// Those that were opened.
    pub opened: u32,
    /// Those that were refused.
    pub refused: u32,
    /// Those that got no answer.
    pub unanswered: u32,
    /// Those that were reset.
    pub reset: u32,
    /// Those that the server does not close.
    pub leaks: u32,
    /// Least round trip, in microseconds; 0: unknown.
    pub rtt: u32,
    /// Answers, and those that took more than a second.
    pub answers: u32,
    /// Slow answers.
    pub slow: u32,
    incomplete: BTreeMap<i64, u32>,
    incomplete_packets: Vec<u32>,
    ignored: Vec<u32>,
    ignored_conns: u32,
    ignored_times: (i64, i64),
    aborted: Vec<u32>,
    aborted_conns: u32,
    leak_packets: Vec<u32>,
    half_open: u32,
    old_stamps: Vec<u32>,
    old_unanswered: u32,
    newer_unanswered: u32,
    old_answered: u32,
    sources: BTreeSet<u128>,
}

/// Counts of a client.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Connections.
    pub connections: u32,
    /// Those that carried data.
    pub used: u32,
    tried: BTreeSet<(u128, u16)>,
    packets: Vec<u32>,
    first: i64,
}

/// Connections between an address and a service that one end closed first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closes {
    /// By the minute.
    minutes: BTreeMap<i64, u32>,
    /// How many took ports that were still in TIME-WAIT.
    reused: u32,
    packets: Vec<u32>,
}

/// All connections together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Many {
    pub(crate) services: BTreeMap<End, Service>,
    pub(crate) clients: BTreeMap<u128, Client>,
    /// By the client's address, the service, and the end that closes first.
    closes: BTreeMap<(u128, End, u8), Closes>,
}

fn keep(packets: &mut Vec<u32>, packet: u32) {
    if packets.len() < EVIDENCE {
        packets.push(packet);
    }
}

impl Many {
    /// Takes in a connection that has ended, with its findings.
    pub(crate) fn take(&mut self, conn: &Conn, findings: &[Finding]) {
        let server = conn.ends[SERVER];
        if self.services.len() < ROWS || self.services.contains_key(&server) {
            service(self.services.entry(server).or_default(), conn, findings);
        }
        let address = conn.ends[CLIENT].address;
        let pair = (address, server, conn.first_to_close);
        let fins = conn.ways.iter().all(|way| way.is(fact::FIN));
        if fins && (self.closes.len() < ROWS || self.closes.contains_key(&pair)) {
            closes(self.closes.entry(pair).or_default(), conn);
        }
        if self.clients.len() < ROWS || self.clients.contains_key(&address) {
            let client = self.clients.entry(address).or_default();
            client.connections += 1;
            let used = conn.ways.iter().any(|way| way.data_packets > 0);
            client.used += u32::from(used);
            if !used && conn.is(state::SYN) {
                if client.tried.is_empty() {
                    client.first = conn.start;
                }
                if client.tried.len() < TRIED && client.tried.insert((server.address, server.port)) {
                    keep(&mut client.packets, conn.first_packet);
                }
            }
        }
    }

    /// The findings over many connections, and which findings of single ones they explain: id and service.
    pub(crate) fn findings(&self) -> (Vec<Finding>, Vec<(&'static str, End)>, BTreeSet<u128>) {
        let mut out = Vec::new();
        let mut explained = Vec::new();
        let mut scanners = BTreeSet::new();
        for (address, client) in &self.clients {
            if client.tried.len() >= SCAN && client.used * 4 <= client.connections {
                scanners.insert(*address);
                let who = End { address: *address, port: 0 }.ip();
                let more = if client.tried.len() == TRIED { "at least " } else { "" };
                let text = format!(
                    "{who} tried {more}{} ports or hosts, and used {} of {} connections.",
                    client.tried.len(),
                    client.used,
                    client.connections
                );
                out.push(
                    Finding::new("open-scan", Severity::Warning, Place::Client)
                        .see_all(client.packets.iter().copied(), "SYN")
                        .at(client.first, 0)
                        .text(text)
                        .times(client.connections),
                );
            }
        }
        for (end, service) in &self.services {
            self.service(*end, service, &scanners, &mut out, &mut explained);
        }
        self.time_wait(&mut out);
        (out, explained, scanners)
    }

    /// Ends that keep more connections in TIME-WAIT than they have ports.
    fn time_wait(&self, out: &mut Vec<Finding>) {
        for ((address, service, way), closes) in &self.closes {
            let peak = closes.minutes.values().max().copied().unwrap_or(0);
            if peak < A_MINUTE && closes.reused < REUSED {
                continue;
            }
            let who = End { address: *address, port: 0 }.ip();
            let closer = Place::of(usize::from(*way == 2));
            let text = format!(
                "The {} closes up to {peak} connections of {who} to {service} in a minute, and {} took ports that were still in TIME-WAIT.",
                closer.name(),
                closes.reused
            );
            out.push(
                Finding::new("close-timewait-pileup", Severity::Warning, closer)
                    .see_all(closes.packets.iter().copied(), "FIN")
                    .text(text)
                    .times(closes.minutes.values().sum())
                    .because("TIME-WAIT lasts for a minute and keeps the ports; an address has 28,232 of them for one service (Linux)."),
            );
        }
    }

    fn service(
        &self,
        end: End,
        service: &Service,
        scanners: &BTreeSet<u128>,
        out: &mut Vec<Finding>,
        explained: &mut Vec<(&'static str, End)>,
    ) {
        let total: u32 = service.incomplete.values().sum();
        let peak = service.incomplete.iter().max_by_key(|(_, count)| **count);
        let scanned =
            service.sources.iter().all(|source| scanners.contains(source)) && !service.sources.is_empty();
        if let Some((second, peak)) = peak
            && *peak >= FLOOD
            && total * 10 >= service.connections * 8
            && !scanned
        {
            let spread = service.sources.len();
            let text = format!(
                "{total} SYNs to {end} were never completed, up to {peak} in a second, from {} addresses.",
                if spread >= TRIED { format!("{TRIED} or more") } else { spread.to_string() }
            );
            out.push(
                Finding::new("open-syn-flood", Severity::Error, Place::Client)
                    .see_all(service.incomplete_packets.iter().copied(), "SYN, never completed")
                    .at(*second * 1_000_000_000, 0)
                    .text(text)
                    .times(total)
                    .or("open-scan", "do the sources try other ports?"),
            );
            for id in [
                "open-no-answer",
                "open-synack-lost",
                "open-syn-lost",
                "open-ack-lost",
                "open-abandoned",
                "open-half-open-pileup",
                "open-backlog-full",
            ] {
                explained.push((id, end));
            }
            return;
        }
        let unanswered_there = service.unanswered > 0;
        if service.old_unanswered >= 1
            && service.old_unanswered_syns()
            && service.newer_unanswered == 0
            && service.old_answered == 0
            && service.opened > 0
        {
            let text = format!(
                "SYNs of one address to {end} get no answer when their timestamp is older than its last one ({} connections), and are answered otherwise.",
                service.old_unanswered
            );
            let sure = if service.old_unanswered >= 3 { Confidence::Likely } else { Confidence::Possible };
            out.push(Finding::new("open-paws-nat", Severity::Error, Place::Server).sure(sure).see_all(service.old_stamps.iter().copied(), "older timestamp, no answer")
                .text(text).times(service.old_unanswered).because("A server that compares timestamps of an address, not of a connection, refuses all clients but one behind a NAT."));
            for id in ["open-no-answer", "open-syn-lost"] {
                explained.push((id, end));
            }
            return;
        }
        if service.ignored_conns >= 2 || service.ignored_conns >= 1 && unanswered_there {
            let text = format!(
                "{end} ignores the third segment of {} connections, and {} SYNs get no answer: its accept queue is full.",
                service.ignored_conns, service.unanswered
            );
            out.push(Finding::new("open-backlog-full", Severity::Error, Place::Server).see_all(service.ignored.iter().copied(), "SYN-ACK again, or ignored")
                .at(service.ignored_times.0, service.ignored_times.1 - service.ignored_times.0).text(text).times(service.ignored_conns)
                .because("Several connections of one port are affected within seconds, and their acknowledgments had left."));
            for id in [
                "open-ack-lost",
                "open-no-answer",
                "open-synack-lost",
                "loss-rto",
                "loss-tlp",
                "open-abort-on-overflow",
            ] {
                if id != "open-abort-on-overflow" || service.aborted_conns < 1 {
                    explained.push((id, end));
                }
            }
        }
        if service.aborted_conns >= 2 {
            explained.push(("open-refused", end));
        }
        if service.half_open >= 16 && !scanned && !explained.iter().any(|(_, known)| *known == end) {
            let text = format!(
                "{} connections to {end} were never acknowledged by their clients.",
                service.half_open
            );
            out.push(
                Finding::new("open-half-open-pileup", Severity::Warning, Place::Unknown)
                    .see_all(service.incomplete_packets.iter().copied(), "SYN")
                    .text(text)
                    .times(service.half_open),
            );
        }
        if service.leaks >= 3 {
            let text = format!(
                "{} connections to {end} are half closed at the end: the server does not close them.",
                service.leaks
            );
            out.push(
                Finding::new("close-wait-leak", Severity::Warning, Place::Server)
                    .see_all(service.leak_packets.iter().copied(), "FIN")
                    .text(text)
                    .times(service.leaks),
            );
        }
        if service.slow >= 10 && service.slow * 50 >= service.answers {
            let text =
                format!("{} of {} answers of {end} took more than a second.", service.slow, service.answers);
            out.push(
                Finding::new("app-slow-response", Severity::Warning, Place::Server)
                    .text(text)
                    .times(service.slow),
            );
        }
    }
}

impl Service {
    /// Each of these clients tried more than once.
    fn old_unanswered_syns(&self) -> bool {
        !self.old_stamps.is_empty()
    }
}

fn closes(closes: &mut Closes, conn: &Conn) {
    let minute = conn.last.div_euclid(60_000_000_000);
    if closes.minutes.len() < 1440 || closes.minutes.contains_key(&minute) {
        *closes.minutes.entry(minute).or_default() += 1;
    }
    closes.reused += u32::from(conn.is(state::REUSED_CLOSED));
    keep(&mut closes.packets, conn.ways[usize::from(conn.first_to_close == 2)].first_fin);
}

fn service(service: &mut Service, conn: &Conn, findings: &[Finding]) {
    service.connections += 1;
    let established = conn.is(state::ESTABLISHED) && (conn.is(state::SYN_ACK) || !conn.is(state::SYN));
    service.opened += u32::from(established);
    let rtt = (conn.round_trip() / 1000) as u32;
    if rtt > 0 {
        service.rtt = if service.rtt == 0 { rtt } else { service.rtt.min(rtt) };
    }
    let has = |id: &str| findings.iter().find(|finding| finding.id == id);
    service.refused += u32::from(has("open-refused").is_some());
    service.reset += u32::from(conn.ways.iter().any(|way| way.is(fact::RST)) && established);
    service.answers += conn.turns.answers;
    service.slow += conn.turns.waits.as_deref().map_or(0, |waits| u32::from(waits.slow));
    if service.sources.len() < TRIED {
        service.sources.insert(conn.ends[CLIENT].address);
    }
    opening(service, conn, established);
    if let Some(leak) = has("close-wait-leak").filter(|leak| leak.end == Place::Server) {
        service.leaks += 1;
        leak.evidence
            .first()
            .into_iter()
            .for_each(|evidence| keep(&mut service.leak_packets, evidence.packet));
    }
    for id in ["open-backlog-full", "open-ack-lost"] {
        let repeated =
            conn.marks_of(CLIENT, Kind::Established).next().zip(conn.marks_of(SERVER, Kind::SynAck).last());
        if let Some(finding) = has(id)
            && repeated.is_some_and(|(ack, last)| ack.packet < last.packet)
        {
            ignored(service, finding.at);
            finding.evidence.iter().for_each(|evidence| keep(&mut service.ignored, evidence.packet));
        }
    }
    if let Some(finding) = has("open-abort-on-overflow") {
        service.aborted_conns += 1;
        keep(&mut service.aborted, finding.evidence.first().map_or(0, |evidence| evidence.packet));
    }
}

fn ignored(service: &mut Service, at: i64) {
    service.ignored_times = if service.ignored_conns == 0 {
        (at, at)
    } else {
        (service.ignored_times.0.min(at), service.ignored_times.1.max(at))
    };
    service.ignored_conns += 1;
}

fn opening(service: &mut Service, conn: &Conn, established: bool) {
    if !conn.is(state::SYN) {
        return;
    }
    let refused = conn.marks_of(SERVER, Kind::Reset).next().is_some_and(|rst| rst.value & reset::ACK != 0);
    let icmp = conn.marks_of(CLIENT, Kind::Unreachable).next().is_some();
    if established || refused && !conn.is(state::SYN_ACK) || icmp {
        if conn.is(state::OLD_STAMP) && established {
            service.old_answered += 1;
        }
        return;
    }
    if service.incomplete.len() < 4096 {
        *service.incomplete.entry(conn.start.div_euclid(1_000_000_000)).or_default() += 1;
    }
    keep(&mut service.incomplete_packets, conn.first_packet);
    if conn.is(state::SYN_ACK) {
        // One that was answered just now may still be acknowledged.
        service.half_open += u32::from(conn.marks_of(SERVER, Kind::SynAck).count() > 1);
    } else {
        service.unanswered += 1;
        let tried = conn.marks_of(CLIENT, Kind::Syn).count() >= 2;
        if conn.is(state::OLD_STAMP) && tried {
            service.old_unanswered += 1;
            conn.marks_of(CLIENT, Kind::Syn).for_each(|syn| keep(&mut service.old_stamps, syn.packet));
        } else if tried {
            service.newer_unanswered += 1;
        }
    }
}
