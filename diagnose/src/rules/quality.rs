//! The capture itself: what it lacks, and what it has too much of.

use crate::conn::{CLIENT, Conn, Kind, Leap, SERVER, fact, state};
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

/// Packets that show something, and how many there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) count: u64,
    pub(crate) packets: Vec<u32>,
}

impl Shown {
    pub(crate) fn add(&mut self, packet: u32) {
        self.add_all(1, [packet]);
    }

    pub(crate) fn add_all(&mut self, count: u64, packets: impl IntoIterator<Item = u32>) {
        self.count += count;
        let room = crate::conn::EVIDENCE.saturating_sub(self.packets.len());
        self.packets.extend(packets.into_iter().take(room));
    }
}

/// Facts about the capture so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quality {
    pub(crate) midstream: Shown,
    pub(crate) partial: Shown,
    pub(crate) one_way: Shown,
    pub(crate) loss: Shown,
    pub(crate) copies: Shown,
    pub(crate) duplicates: Shown,
    pub(crate) reordered: Shown,
    pub(crate) offload: Shown,
    pub(crate) checksum_offload: Shown,
    pub(crate) snaplen: Shown,
    pub(crate) jumps: Shown,
    /// Connections that are open at their last packet.
    open: Shown,
    vantage: Vantage,
    /// The largest step of the clock, in nanoseconds.
    pub(crate) jump: i64,
    /// Steps forward, by the timestamps of both ends.
    leaps: Vec<i64>,
    pub(crate) vantages: u64,
    /// Packets that the capturing system dropped, as the file says.
    pub(crate) dropped: u64,
    /// Bytes that the file lacks.
    pub(crate) missing: u64,
    /// Fragments of segments. They are not put together.
    pub(crate) fragments: u64,
}

/// Where the capture was made, by the times that the answers of both ends take.
#[derive(Clone, Debug, Default)]
struct Vantage {
    /// Connections near their client, near their server, and between them.
    places: [Shown; 3],
    /// The least time to the client and back, and to the server, in nanoseconds.
    least: [i64; 2],
}

impl Vantage {
    fn take(&mut self, conn: &Conn) {
        // The answer to a segment of one end comes from the other.
        let to = [conn.leg(SERVER), conn.leg(CLIENT)];
        if to.contains(&0) {
            return;
        }
        let place = if to[0] * 2 < to[1] {
            0
        } else if to[1] * 2 < to[0] {
            1
        } else {
            2
        };
        self.places[place].add(conn.first_packet);
        for (least, time) in self.least.iter_mut().zip(to) {
            *least = if *least == 0 { time } else { time.min(*least) };
        }
    }

    /// Says it if nine in ten connections agree.
    fn finding(&self) -> Option<Finding> {
        const PLACES: [&str; 3] = ["near the clients", "near the servers", "between clients and servers"];
        let all: u64 = self.places.iter().map(|place| place.count).sum();
        let (shown, place) = self
            .places
            .iter()
            .zip(PLACES)
            .find(|(shown, _)| shown.count > 0 && shown.count * 10 >= all * 9)?;
        let millis = |nanos: i64| format!("{}.{:02} ms", nanos / 1_000_000, nanos / 10_000 % 100);
        let text = format!(
            "Captured {place}: {} from the clients and back, {} from the servers.",
            millis(self.least[0]),
            millis(self.least[1])
        );
        let finding = Finding::new("cap-vantage", Severity::Info, Place::Capture).text(text);
        Some(
            finding
                .see_all(shown.packets.iter().copied(), "first packet")
                .times(all.min(u64::from(u32::MAX)) as u32),
        )
    }
}

/// Limits of the capture that the rules of a connection must respect.
pub(crate) struct Gates {
    /// Only one direction was captured.
    pub(crate) one_way: bool,
    /// The file lacks packets of the connection.
    pub(crate) lossy: bool,
}

impl Quality {
    /// Takes in a connection that has ended.
    pub(crate) fn take(&mut self, conn: &Conn) -> Gates {
        let [client, server] = &conn.ways;
        let one_way = is_one_way(conn);
        if one_way {
            self.one_way.add_all(1, [conn.first_packet, conn.last_packet]);
        }
        if let Some(leap) = conn.sure_leap() {
            self.leap(leap);
        }
        if conn.is(state::TWO_VANTAGES) {
            self.vantages += 1;
        } else if !one_way {
            self.vantage.take(conn);
        }
        if super::ended(conn) == "open" && (conn.is(state::ESTABLISHED) || !conn.is(state::SYN)) {
            self.open.add(conn.last_packet);
        }
        let seen = client.packets + server.packets;
        match (client.is(fact::SYN), server.is(fact::SYN)) {
            (false, true) if !one_way => self.partial.add(conn.first_packet),
            (true, false) if server.data_packets > 0 && !conn.is(state::SIMULTANEOUS) => {
                self.partial.add(conn.first_packet)
            }
            (false, false)
                if seen > 1
                    && !conn
                        .ways
                        .iter()
                        .all(|way| way.packets == 0 || way.is(fact::RST) && way.packets == 1) =>
            {
                self.midstream.add(conn.first_packet);
            }
            _ => {}
        }
        if conn.is(state::ANSWER_FIRST) {
            self.reordered.add_all(1, conn.marks.iter().take(2).map(|mark| mark.packet));
        }
        let mut lossy = false;
        for way in [CLIENT, SERVER] {
            lossy |= self.direction(conn, way, one_way);
        }
        Gates { one_way, lossy }
    }

    /// A step of the clock that a connection shows. Many may show the same.
    fn leap(&mut self, leap: &Leap) {
        const SAME: i64 = 2_000_000_000;
        let at = leap.at;
        if self.leaps.len() < 64 && !self.leaps.iter().any(|known| (at - known).abs() < SAME) {
            self.leaps.push(at);
            self.jumps.add(leap.packet);
            self.jump = self.jump.max(leap.lasted);
        }
    }

    fn direction(&mut self, conn: &Conn, way: usize, one_way: bool) -> bool {
        let w = &conn.ways[way];
        let (bad, all) = (w.bad + w.partial, w.bad.saturating_add(w.partial).saturating_add(w.good));
        if bad >= 3 && u32::from(bad) * 10 > u32::from(all) * 9 {
            self.checksum_offload.add_all(u64::from(bad), [conn.first_packet]);
        }
        let Some(trouble) = conn.troubled(way) else { return false };
        if trouble.offload != 0 {
            self.offload.add(trouble.offload);
        }
        if trouble.copies.count > 0 {
            // The receiver reports duplicates that reached it.
            let shown = if trouble.twice.count > 0 { &mut self.duplicates } else { &mut self.copies };
            shown.add_all(u64::from(trouble.copies.count), trouble.copies.packets.iter().map(|p| p.0));
        }
        if trouble.early.count > 0 {
            self.reordered.add_all(u64::from(trouble.early.count), trouble.early.packets.iter().map(|p| p.0));
        }
        let lossy = trouble.missing.count > 0 && !one_way && self.fragments == 0;
        if lossy {
            self.loss.add_all(u64::from(trouble.missing.count), trouble.missing.packets.iter().map(|p| p.0));
            self.missing += trouble.missing.bytes;
        }
        lossy
    }

    /// The findings about the capture.
    pub(crate) fn findings(&self, start: i64, end: i64) -> Vec<Finding> {
        let mut out = Vec::new();
        let mut say =
            |shown: &Shown, id: &'static str, severity: Severity, what: &'static str, text: String| {
                if shown.count > 0 {
                    let count = shown.count.min(u64::from(u32::MAX)) as u32;
                    let finding = Finding::new(id, severity, Place::Capture).sure(Confidence::Certain);
                    let finding = finding.at(start, end - start).see_all(shown.packets.iter().copied(), what);
                    out.push(finding.text(text).times(count));
                }
            };
        let n = |shown: &Shown| shown.count;
        say(
            &self.midstream,
            "cap-midstream",
            Severity::Info,
            "first packet",
            format!(
                "{} connections began before the capture: their windows and options are not known.",
                n(&self.midstream)
            ),
        );
        say(
            &self.partial,
            "cap-handshake-partial",
            Severity::Info,
            "first packet",
            format!("A part of the handshake is missing in {} connections.", n(&self.partial)),
        );
        say(
            &self.one_way,
            "cap-one-way",
            Severity::Warning,
            "one direction",
            format!(
                "Only one direction of {} connections was captured. Nothing is said about the other.",
                n(&self.one_way)
            ),
        );
        let dropped = if self.dropped > 0 {
            format!(" The file says that {} packets were dropped.", self.dropped)
        } else {
            String::new()
        };
        say(
            &self.loss,
            "cap-loss",
            Severity::Warning,
            "acknowledges what the file lacks",
            format!(
                "The file lacks {} bytes that were acknowledged, in {} places.{dropped}",
                self.missing,
                n(&self.loss)
            ),
        );
        if self.copies.count >= 2 {
            say(
                &self.copies,
                "cap-duplicates",
                Severity::Warning,
                "captured again",
                format!(
                    "{} packets were captured more than once. The copies are not counted.",
                    n(&self.copies)
                ),
            );
        }
        say(
            &self.duplicates,
            "path-duplicates",
            Severity::Info,
            "twice on the wire",
            format!("{} packets arrived twice, and the receiver said so (DSACK).", n(&self.duplicates)),
        );
        say(
            &self.reordered,
            "cap-reordered",
            Severity::Info,
            "out of order in the file",
            format!("{} packets stand in the file before those that caused them.", n(&self.reordered)),
        );
        say(
            &self.offload,
            "cap-offload",
            Severity::Info,
            "larger than the MSS",
            format!(
                "{} directions have segments larger than the MSS: the device cuts or merges them, so counts of packets are not those of the wire.",
                n(&self.offload)
            ),
        );
        say(
            &self.checksum_offload,
            "cap-checksum-offload",
            Severity::Info,
            "checksum not yet computed",
            format!(
                "{} packets have no valid checksum, since the device of the sender computes it.",
                n(&self.checksum_offload)
            ),
        );
        say(
            &self.snaplen,
            "cap-snaplen",
            Severity::Info,
            "header cut",
            format!("{} packets are cut within the TCP header: options are not known.", n(&self.snaplen)),
        );
        say(
            &self.jumps,
            "cap-clock-jump",
            Severity::Warning,
            "clock stepped",
            format!(
                "The clock of the capture stepped {} times, by up to {}. Intervals across a step are void.",
                n(&self.jumps),
                seconds(self.jump)
            ),
        );
        say(
            &self.open,
            "cap-end-open",
            Severity::Info,
            "last packet",
            format!(
                "{} connections are open at their last packet: how they end is not known.",
                n(&self.open)
            ),
        );
        out.extend(self.vantage.finding().map(|finding| finding.at(start, end - start)));
        if self.vantages > 0 {
            let text = format!(
                "{} connections were seen by two interfaces. Losses between them are known.",
                self.vantages
            );
            out.push(
                Finding::new("cap-two-vantages", Severity::Info, Place::Capture)
                    .at(start, end - start)
                    .text(text),
            );
        }
        for finding in &mut out {
            if finding.id == "path-duplicates" {
                finding.end = Place::Path;
            }
        }
        out
    }
}

/// Only one direction, and its acknowledgments show that there is another.
fn is_one_way(conn: &Conn) -> bool {
    let silent = |way: usize| conn.ways[way].packets == 0;
    let talks = if silent(SERVER) {
        CLIENT
    } else if silent(CLIENT) {
        SERVER
    } else {
        return false;
    };
    if conn.troubled(1 - talks).is_some() && conn.ways[1 - talks].bad > 0 {
        return false;
    }
    let w = &conn.ways[talks];
    let established = conn.marks_of(CLIENT, Kind::Established).next().is_some();
    let answered =
        talks == SERVER && conn.is(state::SYN_ACK) && !established && w.packets > 1 && w.data_packets > 0;
    let acked = w.is(fact::SYN) && established || !w.is(fact::SYN) && w.packets > 2 && w.acks > 0;
    acked || answered
}
