//! A connection as the capture shows it: one incarnation of a pair of ends.

use std::collections::VecDeque;

use crate::packet::{End, Segment};

/// The client's direction, in arrays of two.
pub(crate) const CLIENT: usize = 0;
/// The server's direction.
pub(crate) const SERVER: usize = 1;

/// Limit of the marks of a connection. The last ones replace each other.
pub(crate) const MARKS: usize = 160;
/// Limit of the ranges in flight that are followed in one direction.
pub(crate) const RANGES: usize = 1024;
/// Limit of the holes that are followed in one direction.
pub(crate) const HOLES: usize = 64;
/// Limit of the packets that a kind of loss keeps as evidence.
pub(crate) const EVIDENCE: usize = 8;

/// `a` comes before `b`, modulo 2^32.
#[inline]
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The later of two numbers.
#[inline]
pub(crate) fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

/// Facts about a direction that are either so or not.
pub(crate) mod fact {
    pub(crate) const SEEN: u16 = 1;
    pub(crate) const SYN: u16 = 1 << 1;
    pub(crate) const SACK_OFFERED: u16 = 1 << 2;
    pub(crate) const TIMESTAMPS: u16 = 1 << 3;
    pub(crate) const FIN: u16 = 1 << 4;
    /// The other end acknowledged the FIN.
    pub(crate) const FIN_ACKED: u16 = 1 << 5;
    pub(crate) const RST: u16 = 1 << 6;
    /// The window of the other end is closed to this direction.
    pub(crate) const CLOSED_WINDOW: u16 = 1 << 7;
    /// The last segment is a keepalive probe, or a window probe, without an answer.
    pub(crate) const PROBING: u16 = 1 << 8;
    /// Identifications of IPv4 have grown by small steps eight times.
    pub(crate) const IDS_GROW: u16 = 1 << 9;
    /// The numbers of the direction are known from a SYN or from data.
    pub(crate) const NUMBERED: u16 = 1 << 10;
    /// The last data filled the window of the other end.
    pub(crate) const BLOCKED: u16 = 1 << 11;
    /// SACK blocks were seen.
    pub(crate) const SACKED: u16 = 1 << 12;
    /// A timestamp was seen.
    pub(crate) const STAMPED: u16 = 1 << 13;
    /// The last new data, of both directions, is a small segment of this one.
    pub(crate) const SMALL: u16 = 1 << 14;
    /// The answer to its SYN acknowledges data of the SYN.
    pub(crate) const SYN_DATA_ACKED: u16 = 1 << 15;
}

/// One direction: what its sender sent, and how far the other end acknowledged it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    pub(crate) facts: u16,
    pub(crate) iss: u32,
    /// The highest sequence number sent, plus one.
    pub(crate) nxt: u32,
    /// The highest acknowledgment of the other end.
    pub(crate) una: u32,
    /// The right edge of the window that this end advertised last, and whether it is known.
    pub(crate) edge: u32,
    /// The last acknowledgment that this end sent.
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) syn_window: u16,
    /// Largest window field after the handshake.
    pub(crate) max_window: u16,
    pub(crate) mss: u16,
    /// Window scale; 255: not offered.
    pub(crate) scale: u8,
    pub(crate) ttl: u8,
    /// Another TTL, and how many segments in a row had it.
    pub(crate) other_ttl: u8,
    pub(crate) other_ttls: u8,
    pub(crate) id: u16,
    pub(crate) id_steps: u8,
    pub(crate) dup_acks: u8,
    pub(crate) last_len: u32,
    pub(crate) packets: u32,
    pub(crate) data_packets: u32,
    pub(crate) bytes: u64,
    pub(crate) max_len: u32,
    pub(crate) max_acked: u32,
    pub(crate) last_at: i64,
    pub(crate) data_at: i64,
    /// Time from a segment to its acknowledgment, in microseconds: least, and smoothed.
    pub(crate) rtt: u32,
    pub(crate) srtt: u32,
    pub(crate) good: u16,
    pub(crate) bad: u16,
    /// Checksums that a device completes.
    pub(crate) partial: u16,
    pub(crate) first_fin: u32,
    /// How often its acknowledgment moved.
    pub(crate) acks: u16,
    /// Segments after a reset of the same end.
    pub(crate) after_reset: u16,
    /// The last new data: its number, its packet, and a hash of its first bytes.
    pub(crate) head_seq: u32,
    pub(crate) head_packet: u32,
    pub(crate) head: u32,
    /// The first timestamp and the last, whatever carried them.
    pub(crate) first_stamp: u32,
    pub(crate) stamp: u32,
    pub(crate) first_stamp_at: i64,
}

impl Way {
    pub(crate) fn is(&self, fact: u16) -> bool {
        self.facts & fact != 0
    }

    pub(crate) fn set(&mut self, fact: u16) {
        self.facts |= fact;
    }

    pub(crate) fn clear(&mut self, fact: u16) {
        self.facts &= !fact;
    }

    /// Data or a FIN is not acknowledged yet.
    pub(crate) fn in_flight(&self) -> bool {
        self.is(fact::NUMBERED) && before(self.una, self.nxt)
    }
}

/// Something notable that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Syn,
    SynAck,
    /// The client's first segment with an ACK.
    Established,
    /// The client acknowledges a SYN-ACK that came again.
    AckAgain,
    Fin,
    FinAgain,
    /// The first acknowledgment of a FIN of this direction's peer.
    FinAck,
    /// A repeated acknowledgment of the peer's FIN.
    FinAckAgain,
    /// A reset. The value is that of [`reset`].
    Reset,
    /// An acknowledgment that answers a reset or a SYN that the end does not believe.
    Challenge,
    Keepalive,
    KeepaliveAnswer,
    ZeroWindow,
    WindowOpens,
    Probe,
    /// Data after the FIN of the other end. The value: 1 if its ACK covers the FIN.
    DataAfterFin,
    /// Data that comes after a silence. The value: its milliseconds.
    AfterIdle,
    FastRetransmit,
    TailProbe,
    Timeout,
    Needless,
    /// Again because of ICMP.
    Recut,
    Late,
    Unreachable,
    TooBig,
    Corrupt,
    /// Bytes that were acknowledged and not captured. The value: how many.
    Missing,
    /// DSACK: the end has the bytes twice.
    Twice,
    /// A SYN-ACK with another ISN.
    Changed,
    /// A reset of the incarnation before.
    OldReset,
    /// Other bytes under the same numbers. The value: the packet that had the first ones.
    Differs,
    /// Data whose TTL is not that of its sender. The value: its TTL.
    OddTtl,
    /// The TTL of the sender has changed. The value: 256 times the old one, plus the new one.
    TtlChange,
}

/// A mark: what, where, when. Without gaps, since each connection has several.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
pub(crate) struct Mark {
    pub(crate) packet: u32,
    pub(crate) value: u32,
    pub(crate) at: i64,
    pub(crate) kind: Kind,
    pub(crate) way: u8,
}

/// How a reset looks.
pub(crate) mod reset {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const OPTIONS: u32 = 1 << 1;
    pub(crate) const WINDOW: u32 = 1 << 2;
    /// TTL differs from the one of its sender by two or more.
    pub(crate) const TTL: u32 = 1 << 3;
    /// The identification is that of the other end's last packet.
    pub(crate) const ECHOED_ID: u32 = 1 << 4;
    /// Its sequence number is not the next one.
    pub(crate) const INEXACT: u32 = 1 << 5;
    /// Sooner after its cause than the sender can.
    pub(crate) const SOON: u32 = 1 << 6;
    /// The peer has unacknowledged data or a FIN.
    pub(crate) const AFTER_DATA: u32 = 1 << 7;
    pub(crate) const ID: u32 = 1 << 8;
    /// Impossible flags.
    pub(crate) const ODD: u32 = 1 << 9;
    /// The sender is known by other packets.
    pub(crate) const KNOWN: u32 = 1 << 10;
    /// Within the window, and not before what was acknowledged.
    pub(crate) const INSIDE: u32 = 1 << 11;
}

/// A range in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) seq: u32,
    pub(crate) end: u32,
    pub(crate) packet: u32,
    pub(crate) times: u8,
    pub(crate) at: i64,
    /// A hash of its first bytes; 0: not known.
    pub(crate) head: u32,
}

/// Bytes that were skipped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hole {
    pub(crate) seq: u32,
    pub(crate) end: u32,
    pub(crate) at: i64,
    /// The packet after the hole.
    pub(crate) packet: u32,
    pub(crate) tsval: u32,
}

/// The data in flight in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) ranges: VecDeque<Range>,
    pub(crate) holes: Vec<Hole>,
    /// Highest number that the other end has by SACK.
    pub(crate) sacked: u32,
    /// Where the recovery after a timeout ends.
    pub(crate) recover: Option<u32>,
    /// The segment whose round trip is measured: its end, and its time.
    pub(crate) timed: Option<(u32, i64)>,
}

impl Flight {
    /// Nothing in flight beyond `una`.
    fn new(una: u32) -> Box<Flight> {
        Box::new(Flight {
            ranges: VecDeque::new(),
            holes: Vec::new(),
            sacked: una,
            recover: None,
            timed: None,
        })
    }

    /// Whether a retransmission from `seq` belongs to the recovery after a timeout.
    pub(crate) fn recovers(&self, seq: u32) -> bool {
        self.recover.is_some_and(|end| before(seq, end))
    }
}

/// Count of one kind of event, with its evidence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) count: u32,
    pub(crate) bytes: u64,
    /// The first packets.
    pub(crate) packets: Vec<(u32, i64)>,
    /// Nanoseconds that it took, together and at most.
    pub(crate) cost: i64,
    pub(crate) most: i64,
}

impl Tally {
    pub(crate) fn add(&mut self, packet: u32, at: i64, bytes: u32, cost: i64) {
        self.count += 1;
        self.bytes += u64::from(bytes);
        self.cost = self.cost.saturating_add(cost.max(0));
        self.most = self.most.max(cost);
        if self.packets.len() < EVIDENCE {
            self.packets.push((packet, at));
        }
    }
}

/// The trouble of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble {
    /// Bytes that were sent again.
    pub(crate) again: u32,
    pub(crate) fast: Tally,
    pub(crate) tail: Tally,
    pub(crate) timeout: Tally,
    pub(crate) needless: Tally,
    pub(crate) late: Tally,
    pub(crate) recut: Tally,
    pub(crate) corrupt: Tally,
    pub(crate) missing: Tally,
    pub(crate) copies: Tally,
    pub(crate) twice: Tally,
    /// Repairs whose original never came by.
    pub(crate) before_here: Tally,
    /// Data again, or a DSACK, that only a lost acknowledgment explains.
    pub(crate) ack_lost: Tally,
    /// The range that is sent again and again: its number, length, times, first packet.
    pub(crate) stuck: Stuck,
    /// The worst of `stuck` that a smaller segment ended.
    pub(crate) hole_of_size: Stuck,
    pub(crate) worst: Stuck,
    pub(crate) zero: Zero,
    /// Probes of a window that had opened.
    pub(crate) update_lost: Tally,
    /// The packet that opened the window before the first of them.
    pub(crate) opened: u32,
    /// Acknowledgments that take back window, sent in this direction.
    pub(crate) shrunk: Tally,
    /// The row of repairs that goes on, and the longest.
    pub(crate) row: Burst,
    pub(crate) burst: Burst,
    /// Bytes that were acknowledged before they were captured: from, to, when, by which packet.
    pub(crate) missing_last: (u32, u32, i64, u32),
    /// Acknowledgments that the file has before their data.
    pub(crate) early: Tally,
    /// Third and later duplicate acknowledgments without SACK.
    pub(crate) plain_duplicates: u32,
    /// The first packet that a device segments or merges.
    pub(crate) offload: u32,
}

/// A segment that is sent again and again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stuck {
    pub(crate) seq: u32,
    pub(crate) len: u32,
    pub(crate) times: u32,
    pub(crate) first_at: i64,
    pub(crate) last_at: i64,
    /// The last wait between two of them.
    pub(crate) wait: i64,
    pub(crate) packets: Vec<(u32, i64)>,
    /// Largest segment of the direction that was acknowledged before.
    pub(crate) passed: u32,
    /// The length that got through in the end.
    pub(crate) passes: u32,
}

/// Repairs of segments that stood in a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Burst {
    pub(crate) segments: u32,
    pub(crate) seq: u32,
    pub(crate) end: u32,
    pub(crate) first_at: i64,
    pub(crate) last_at: i64,
    pub(crate) packets: Vec<u32>,
}

/// A closed window, as the sender of data sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zero {
    pub(crate) times: u32,
    pub(crate) since: i64,
    pub(crate) longest: i64,
    pub(crate) total: i64,
    pub(crate) probes: u32,
    /// Bytes of the largest probe.
    pub(crate) probed: u32,
    pub(crate) packets: Vec<(u32, i64)>,
}

/// Who waits for whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    /// The last small segment, and its bare acknowledgment.
    pub(crate) small_at: i64,
    pub(crate) small_packet: u32,
    pub(crate) small_end: u32,
    pub(crate) acked_at: i64,
    /// Answers of the server, and the request that waits for one.
    pub(crate) answers: u32,
    pub(crate) request_packet: u32,
    pub(crate) request_at: i64,
    /// The waits that are notable. Most connections have none.
    pub(crate) waits: Option<Box<Waits>>,
}

/// Notable waits of the applications.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// Small segments that waited for a delayed acknowledgment.
    pub(crate) nagle: u16,
    pub(crate) nagle_first: [u32; 4],
    pub(crate) nagle_cost: i64,
    pub(crate) nagle_way: u8,
    /// Slow answers, and the slowest.
    pub(crate) slow: u16,
    pub(crate) slowest: i64,
    pub(crate) slow_packets: [u32; 2],
    /// Pauses of the client with nothing in flight: how many, together, the longest, and the packet after it.
    pub(crate) pauses: u16,
    pub(crate) paused: i64,
    pub(crate) pause: i64,
    pub(crate) pause_packet: u32,
}

/// How often and how long a sender waited for the window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limited {
    pub(crate) times: u32,
    pub(crate) blocked: i64,
    pub(crate) since: i64,
    pub(crate) packets: [u32; 4],
}

/// Facts of a connection that are either so or not.
pub(crate) mod state {
    /// A SYN without an ACK was seen.
    pub(crate) const SYN: u16 = 1;
    pub(crate) const SYN_ACK: u16 = 1 << 1;
    pub(crate) const ESTABLISHED: u16 = 1 << 2;
    /// Options were cut off.
    pub(crate) const CUT: u16 = 1 << 3;
    pub(crate) const REUSED_CLOSED: u16 = 1 << 4;
    pub(crate) const REUSED_ALIVE: u16 = 1 << 5;
    /// The previous incarnation ended long ago.
    pub(crate) const REUSED_LATE: u16 = 1 << 6;
    /// Timestamps of the SYN are older than the last of its address.
    pub(crate) const OLD_STAMP: u16 = 1 << 7;
    pub(crate) const OFFLOAD: u16 = 1 << 8;
    /// The ISN is that of the previous incarnation, or below its last number.
    pub(crate) const ISN_REUSED: u16 = 1 << 9;
    pub(crate) const TWO_VANTAGES: u16 = 1 << 10;
    /// The SYN-ACK was captured before the SYN.
    pub(crate) const ANSWER_FIRST: u16 = 1 << 11;
    /// After a SYN with data, one without came before the answer.
    pub(crate) const SYN_BARE: u16 = 1 << 12;
    pub(crate) const SIMULTANEOUS: u16 = 1 << 13;
    pub(crate) const SYN_DATA: u16 = 1 << 14;
    pub(crate) const FAST_OPEN: u16 = 1 << 15;
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    /// Its number, from 1, in order of appearance.
    pub(crate) n: u32,
    pub(crate) section: u32,
    pub(crate) ends: [End; 2],
    pub(crate) facts: u16,
    pub(crate) ways: [Way; 2],
    /// The interface whose packets are followed.
    pub(crate) interface: u32,
    pub(crate) first_packet: u32,
    pub(crate) last_packet: u32,
    pub(crate) start: i64,
    pub(crate) last: i64,
    /// Microseconds from SYN to SYN-ACK and from SYN-ACK to ACK; 0: unknown.
    pub(crate) legs: [u32; 2],
    /// Who sent the first FIN or reset: 0 nobody, 1 client, 2 server.
    pub(crate) first_to_close: u8,
    /// Bytes of data on the first SYN.
    pub(crate) syn_len: u32,
    pub(crate) marks: Vec<Mark>,
    pub(crate) flights: [Option<Box<Flight>>; 2],
    pub(crate) turns: Turns,
    /// Letters of what happened, as in `history`.
    pub(crate) letters: [u8; 12],
    pub(crate) letter_count: u8,
    pub(crate) rare: Option<Box<Rare>>,
}

// 100,000 live connections take 64 MiB with their marks and their table. Rare things have a box.
const _: () = assert!(size_of::<Conn>() <= 472);

/// Most connections have nothing of this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    /// Routers between the two interfaces that see a direction.
    pub(crate) hops: [Option<u8>; 2],
    trouble: [Option<Box<Trouble>>; 2],
    pub(crate) limited: [Option<Limited>; 2],
    pub(crate) previous: Option<Previous>,
    pub(crate) leap: Option<Leap>,
}

/// A pause that the timestamps of an end do not know.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leap {
    /// The first packet after it, and that packet's time.
    pub(crate) packet: u32,
    pub(crate) at: i64,
    pub(crate) lasted: i64,
    /// The end that shows it first.
    pub(crate) way: u8,
    /// Both ends show it: the clock of the capture stepped.
    pub(crate) sure: bool,
}

/// The incarnation before.
#[derive(Clone, Debug)]
pub(crate) struct Previous {
    pub(crate) n: u32,
    pub(crate) last: i64,
    pub(crate) last_packet: u32,
}

impl Conn {
    pub(crate) fn new(n: u32, section: u32, client: End, server: End, segment: &Segment) -> Conn {
        let way = || Way { scale: 255, ..Way::default() };
        Conn {
            n,
            section,
            ends: [client, server],
            facts: 0,
            ways: [way(), way()],
            interface: segment.interface,
            first_packet: segment.number,
            last_packet: segment.number,
            start: segment.at,
            last: segment.at,
            legs: [0; 2],
            first_to_close: 0,
            syn_len: 0,
            marks: Vec::new(),
            flights: [None, None],
            turns: Turns::default(),
            letters: [0; 12],
            letter_count: 0,
            rare: None,
        }
    }

    pub(crate) fn is(&self, fact: u16) -> bool {
        self.facts & fact != 0
    }

    pub(crate) fn set(&mut self, fact: u16) {
        self.facts |= fact;
    }

    /// The direction of a segment.
    pub(crate) fn way_of(&self, segment: &Segment) -> usize {
        usize::from(segment.from != self.ends[CLIENT])
    }

    pub(crate) fn mark(&mut self, way: usize, kind: Kind, segment: &Segment, value: u32) {
        self.mark_at(way, kind, segment.number, segment.at, value);
    }

    pub(crate) fn mark_at(&mut self, way: usize, kind: Kind, packet: u32, at: i64, value: u32) {
        let mark = Mark { packet, value, at, kind, way: way as u8 };
        // A connection that lives has the three of its handshake.
        if self.marks.capacity() == 0 {
            self.marks.reserve_exact(3);
        }
        if self.marks.len() < MARKS {
            self.marks.push(mark);
        } else if let Some(last) = self.marks.last_mut() {
            *last = mark;
        }
    }

    /// Adds a letter to the history: capitals for the client, small ones for the server.
    pub(crate) fn letter(&mut self, way: usize, letter: u8) {
        let letter = if way == CLIENT { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        let count = usize::from(self.letter_count);
        if count < self.letters.len() {
            self.letters[count] = letter;
            self.letter_count += 1;
        }
    }

    pub(crate) fn marks_of(&self, way: usize, kind: Kind) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(move |mark| mark.kind == kind && usize::from(mark.way) == way)
    }

    /// The pause that the timestamps of both ends do not know: the clock of the capture stepped.
    pub(crate) fn sure_leap(&self) -> Option<&Leap> {
        self.rare.as_ref()?.leap.as_ref().filter(|leap| leap.sure)
    }

    /// The trouble of a direction, if it has any.
    pub(crate) fn troubled(&self, way: usize) -> Option<&Trouble> {
        self.rare.as_ref()?.trouble[way].as_deref()
    }

    pub(crate) fn troubled_mut(&mut self, way: usize) -> Option<&mut Trouble> {
        self.rare.as_mut()?.trouble[way].as_deref_mut()
    }

    /// The trouble of a direction, which has some from now on.
    pub(crate) fn trouble(&mut self, way: usize) -> &mut Trouble {
        self.rare().trouble[way].get_or_insert_default()
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The data in flight of a direction, which has some from now on.
    pub(crate) fn flight(&mut self, way: usize) -> &mut Flight {
        let una = self.ways[way].una;
        self.flights[way].get_or_insert_with(|| Flight::new(una))
    }

    /// Whether both ends have closed, or one has reset.
    pub(crate) fn is_closed(&self) -> bool {
        self.ways.iter().any(|way| way.is(fact::RST)) || self.ways.iter().all(|way| way.is(fact::FIN))
    }

    /// The time from a segment of `way` here to the answer of the other end, in nanoseconds; 0: unknown.
    pub(crate) fn leg(&self, way: usize) -> i64 {
        let known = [self.legs[way], self.ways[way].rtt];
        known.into_iter().filter(|micros| *micros > 0).min().map_or(0, |micros| i64::from(micros) * 1000)
    }

    /// The whole round trip, in nanoseconds; 0: unknown.
    pub(crate) fn round_trip(&self) -> i64 {
        self.leg(CLIENT) + self.leg(SERVER)
    }

    /// The shift of the window that `way` advertises; `None`: not known.
    pub(crate) fn shift(&self, way: usize) -> Option<u8> {
        let both = self.ways[0].is(fact::SYN) && self.ways[1].is(fact::SYN);
        match (both && !self.is(state::CUT), self.ways[way].scale, self.ways[1 - way].scale) {
            (false, ..) => None,
            (true, shift, other) if shift != 255 && other != 255 => Some(shift),
            _ => Some(0),
        }
    }

    /// When an ICMP error last told this direction that a packet is too big.
    pub(crate) fn too_big_at(&self, way: usize) -> Option<i64> {
        self.marks_of(way, Kind::TooBig).last().map(|mark| mark.at)
    }

    /// Notes whether new data fills the window of the other end.
    pub(crate) fn fill_window(&mut self, way: usize, s: &Segment) {
        let peer = &self.ways[1 - way];
        if self.shift(1 - way).is_none() || !self.is(state::ESTABLISHED) || s.len == 0 {
            return;
        }
        let room = peer.edge.wrapping_sub(s.end());
        let mss = u32::from(peer.mss.max(536)).saturating_sub(12).max(self.ways[way].max_len);
        let blocked = room < mss || room > 1 << 31;
        if blocked {
            let limited = self.rare().limited[way].get_or_insert_default();
            limited.since = s.at;
            if let Some(slot) = limited.packets.iter_mut().find(|slot| **slot == 0) {
                *slot = s.number;
            }
            self.ways[way].set(fact::BLOCKED);
        } else {
            self.ways[way].clear(fact::BLOCKED);
        }
    }

    /// Notes that the client was silent though nothing held it up.
    fn pause(&mut self, s: &Segment) {
        const LONG: i64 = 1_000_000_000;
        let [client, server] = &self.ways;
        let last = client.data_at.max(server.data_at);
        let (idle, waits) = (s.at - last, client.in_flight() || server.in_flight());
        if last == 0 || waits || idle <= LONG || idle <= 10 * self.round_trip() {
            return;
        }
        let opened = self.marks_of(SERVER, Kind::WindowOpens).last().is_some_and(|mark| mark.at > last);
        if opened || self.ways[CLIENT].is(fact::CLOSED_WINDOW) {
            return;
        }
        let waits = self.turns.waits.get_or_insert_default();
        waits.pauses = waits.pauses.saturating_add(1);
        waits.paused = waits.paused.saturating_add(idle);
        if idle > waits.pause {
            (waits.pause, waits.pause_packet) = (idle, s.number);
        }
    }

    /// Notes requests and answers, and small segments that wait for an acknowledgment.
    pub(crate) fn turn(&mut self, way: usize, s: &Segment) {
        if way == CLIENT {
            self.pause(s);
        }
        let leg = self.leg(1 - way);
        let own_leg = self.leg(way);
        let full = u32::from(self.ways[1 - way].mss.max(536)).saturating_sub(12);
        let turns = &mut self.turns;
        let waited = self.ways[way].is(fact::SMALL)
            && s.seq == turns.small_end
            && turns.acked_at != 0
            && s.at - turns.acked_at <= leg + leg / 4 + 5_000_000
            && turns.acked_at - turns.small_at >= own_leg + (own_leg / 3).max(20_000_000)
            && turns.acked_at - turns.small_at <= own_leg + 600_000_000;
        if waited {
            let waits = turns.waits.get_or_insert_default();
            waits.nagle = waits.nagle.saturating_add(1);
            waits.nagle_way = way as u8;
            waits.nagle_cost += turns.acked_at - turns.small_at;
            if let Some(slot) = waits.nagle_first.iter_mut().find(|slot| **slot == 0) {
                *slot = turns.small_packet;
            }
        }
        self.ways[1 - way].clear(fact::SMALL);
        if s.len < full {
            self.ways[way].set(fact::SMALL);
            (turns.small_at, turns.small_packet, turns.small_end) = (s.at, s.number, s.end());
            turns.acked_at = 0;
        } else {
            self.ways[way].clear(fact::SMALL);
        }
        if way == SERVER {
            if turns.request_at != 0 {
                turns.answers += 1;
                let took = s.at - turns.request_at;
                if took > 1_000_000_000 && took > 10 * (leg + own_leg) {
                    let waits = turns.waits.get_or_insert_default();
                    waits.slow = waits.slow.saturating_add(1);
                    if took > waits.slowest {
                        waits.slowest = took;
                        waits.slow_packets = [turns.request_packet, s.number];
                    }
                }
                turns.request_at = 0;
            }
        } else {
            turns.request_at = s.at;
            turns.request_packet = s.number;
        }
    }
}
