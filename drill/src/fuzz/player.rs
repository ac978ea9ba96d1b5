//! Plays a generated script on a subject.

use std::net::SocketAddr;

use steadfast_core::Instant;
use steadfast_core::time::Duration;
use steadfast_core::wire::build;
use steadfast_core::wire::icmp::Message;
use steadfast_core::wire::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Header, Options, Timestamps};

use super::steps::{Opening, SegmentStep, Step};
use super::{Done, Record, Script};
use crate::ast::TcpOption;
use crate::parsed::{PacketBody, ParsedPacket, ParsedTcp};
use crate::subject::{
    Addresses, ReceiveFlags, Reply, Request, SendFlags, Setting, SocketOption, Subject, SubjectEvent,
};

/// Half of the middle value is the first window, which a SYN can say.
const BUFFER: &str = "4096 131072 6291456";
/// The first sequence number of the script's side.
const IRS: u32 = 10_000;
const MSS: u16 = 1000;
const WINDOW_SHIFT: u8 = 7;
/// The subject's port of a passive and of an active open, and the script's.
const PORTS: (u16, u16, u16) = (8080, 41_000, 40_000);
/// How long a call may take to return.
const CALL: Duration = Duration::from_millis(500);
/// The round trip of the handshake.
const ROUND_TRIP: u64 = 20;
/// Numbers no further from the right edge of the window than this are shown relative to it: the windows of two subjects
/// may differ in size.
const NEAR_EDGE: u32 = 2_500;
/// The timestamps of the script's segments go up by this much, from this one on.
const CLOCK: (u32, u32) = (10, 1_000);
/// The interval between two answers to invalid segments.
const LIMIT: u64 = 500;
/// No timer of the stack is due so long before the end of a pause, plus an eighth of the script's time up to a limit; or
/// so long after it. A kernel's timers of more than 250 ms are late by up to 32 ms, and each one moves the next.
const CLEAR: (u64, u64) = (12, 15);
const MOST_LATE: u64 = 90;

pub(super) struct Player<'a> {
    subject: &'a mut dyn Subject,
    opening: Opening,
    addresses: Addresses,
    record: Record,
    did: Vec<String>,
    returned: Option<Result<Reply, &'static str>>,
    /// The joined segment that may go on: SEQ, length, ACK and flags; and its options. Those of a super-segment are on all
    /// of its segments, so that only the first one's are told.
    joined: Option<(u32, u32, u32, u16)>,
    options: String,
    iss: u32,
    /// Relative to the ISS: the end of what the subject sent, and what the script acknowledged.
    sent: u32,
    acked: u32,
    /// The block that it reported last.
    sacked: Option<(u32, u32)>,
    /// Relative to the IRS: what the subject acknowledged, and the right edge of its window.
    received: u32,
    edge: u32,
    /// The shift of its window fields.
    shift: u8,
    /// The script's last timestamp, and the subject's.
    clock: u32,
    heard: u32,
    fd: i32,
    /// Numbers that were shown relative to the right edge of the window, and how.
    shown: Vec<(u32, String)>,
    /// When the subject last did something without being asked.
    fired: Option<Instant>,
    /// When each step began.
    began: Vec<Instant>,
}

impl<'a> Player<'a> {
    pub(super) fn new(subject: &'a mut dyn Subject, script: &Script) -> Player<'a> {
        Player {
            subject,
            opening: script.opening,
            addresses: script.addresses(),
            record: Record::default(),
            did: Vec::new(),
            returned: None,
            joined: None,
            options: String::new(),
            iss: 0,
            sent: 1,
            acked: 1,
            sacked: None,
            received: 1,
            edge: 1,
            shift: 0,
            clock: CLOCK.1,
            heard: 0,
            fd: -1,
            shown: Vec::new(),
            fired: None,
            began: Vec::new(),
        }
    }

    pub(super) fn into_record(self) -> Record {
        self.record
    }

    fn ends(&self) -> (SocketAddr, SocketAddr) {
        let port = if self.opening.active { PORTS.1 } else { PORTS.0 };
        (SocketAddr::new(self.addresses.remote, PORTS.2), SocketAddr::new(self.addresses.local, port))
    }

    /// The handshake.
    pub(super) fn open(&mut self) {
        let timestamps = if self.opening.timestamps { "1" } else { "0" };
        let settings = [
            ("net.ipv4.tcp_timestamps", timestamps),
            ("net.ipv4.tcp_rmem", BUFFER),
            ("net.ipv4.tcp_wmem", "4096 262144 4194304"),
        ];
        for (name, value) in settings {
            let _ = self.subject.set(name, value);
        }
        let made = self.call(Request::Socket { ipv6: self.opening.ipv6, nonblocking: true });
        let fd = match made {
            Some(Ok(Reply::Descriptor(fd))) => fd,
            _ => -1,
        };
        let option = |name: &str| SocketOption { level: "IPPROTO_TCP".to_owned(), name: name.to_owned() };
        let setting = Setting::Text("cubic".to_owned());
        self.call(Request::SetOption { fd, option: option("TCP_CONGESTION"), setting });
        let (remote, address) = self.ends();
        self.call(Request::Bind { fd, address });
        let syn = Options {
            mss: Some(MSS),
            window_scale: self.opening.scale.then_some(WINDOW_SHIFT),
            sack_permitted: self.opening.sack,
            ..Options::default()
        };
        if self.opening.active {
            self.fd = fd;
            self.call(Request::Connect { fd, address: remote });
            self.pause(ROUND_TRIP);
            self.inject((Flags::SYN | Flags::ACK, IRS, self.iss.wrapping_add(1)), 0, 20_000, syn, false);
            self.call(Request::Connect { fd, address: remote });
        } else {
            self.call(Request::Listen { fd, backlog: 8 });
            self.inject((Flags::SYN, IRS, 0), 0, 20_000, syn, false);
            self.pause(ROUND_TRIP);
            let window = if self.opening.scale { 300 } else { 32_000 };
            let numbers = (Flags::ACK, IRS.wrapping_add(1), self.iss.wrapping_add(1));
            self.inject(numbers, 0, window, Options::default(), false);
            if let Some(Ok(Reply::Accepted(fd, _))) = self.call(Request::Accept { fd, nonblocking: true }) {
                self.fd = fd;
            }
        }
        self.record.opening = (self.opening.to_string(), std::mem::take(&mut self.did));
        self.joined = None;
    }

    fn call(&mut self, request: Request) -> Option<Result<Reply, &'static str>> {
        self.returned = None;
        self.subject.call(request);
        let limit = self.subject.now() + CALL;
        self.collect();
        while self.returned.is_none() && self.subject.now() < limit && self.subject.wait(limit) {
            self.collect();
        }
        self.collect();
        self.returned.clone()
    }

    pub(super) fn step(&mut self, step: &Step) {
        self.began.push(self.subject.now());
        let listed = self.subject.sockets();
        let state = listed.iter().find(|entry| entry.remote.port() == PORTS.2);
        let state = state.map_or("CLOSED".to_owned(), |entry| entry.state.to_string());
        let (event, edge) = step.class();
        let class = (state, event, edge);
        self.record.steps.push(Done { step: step.clone(), class, did: Vec::new() });
        let fd = self.fd;
        let tcp = |name: &str| SocketOption { level: "IPPROTO_TCP".to_owned(), name: name.to_owned() };
        let socket = |name: &str| SocketOption { level: "SOL_SOCKET".to_owned(), name: name.to_owned() };
        let request = match step {
            Step::Segment(segment) => return self.segment(*segment),
            Step::Icmp { kind, seq } => {
                let seq = self.iss.wrapping_add(seq.of(self.acked, self.sent));
                let (remote, local) = self.ends();
                let header = Header { seq: SeqNum(seq), flags: Flags::ACK, ..Header::default() };
                let quoted = build::tcp(local, remote, header, &[]).unwrap_or_default();
                let message = Message::Error { kind: *kind, quoted: &quoted };
                if let Some(packet) = build::icmp(remote.ip(), local.ip(), &message) {
                    self.subject.inject(&packet);
                    self.collect();
                }
                return;
            }
            Step::Write { len, more, end_of_record } => {
                let (more, end_of_record) = (*more, *end_of_record);
                let flags = SendFlags { dont_wait: true, more, end_of_record, ..SendFlags::default() };
                Request::Send { fd, len: *len, flags, fast_open: None, to: None }
            }
            Step::Read(len) => Request::Receive { fd, len: *len, flags: ReceiveFlags::default() },
            Step::Set(option, value) => {
                Request::SetOption { fd, option: tcp(option), setting: Setting::Number(*value) }
            }
            Step::LingerOff => {
                Request::SetOption { fd, option: socket("SO_LINGER"), setting: Setting::Linger(true, 0) }
            }
            Step::Error => Request::Option { fd, option: socket("SO_ERROR") },
            Step::Shutdown(how) => Request::Shutdown { fd, how: *how },
            Step::Close => {
                self.fd = -1;
                Request::Close { fd }
            }
        };
        let came = self.call(request);
        self.did.insert(0, told(came.as_ref()));
    }

    fn segment(&mut self, segment: SegmentStep) {
        let SegmentStep { flags, seq, ack, len, window, old_timestamp, sack } = segment;
        let right = self.edge.wrapping_sub(1).max(self.received);
        let seq = seq.of(self.received, right);
        let mut number = ack.of(self.acked, self.sent);
        if let Some((left, right)) = self.sacked
            && number.wrapping_sub(left) < right.wrapping_sub(left)
        {
            // Nothing that was reported is taken back.
            number = right;
        }
        if flags.ack()
            && (number.wrapping_sub(self.acked) as i32) > 0
            && (self.sent.wrapping_sub(number) as i32) >= 0
        {
            self.acked = number;
        }
        let ack = if flags.ack() { self.iss.wrapping_add(number) } else { 0 };
        let window = if self.opening.scale { window } else { window << WINDOW_SHIFT };
        let mut options = Options::default();
        if let Some((left, right)) =
            sack.filter(|_| self.opening.sack).and_then(|sack| sack.of(number, self.sent))
        {
            self.sacked = Some((left, right)).filter(|_| right <= self.sent);
            options.sack.push(SeqNum(self.iss.wrapping_add(left)), SeqNum(self.iss.wrapping_add(right)));
        }
        self.inject((flags, IRS.wrapping_add(seq), ack), len, window, options, old_timestamp);
    }

    fn inject(
        &mut self,
        (flags, seq, ack): (Flags, u32, u32),
        len: u16,
        window: u16,
        options: Options,
        old: bool,
    ) {
        self.clock = self.clock.wrapping_add(CLOCK.0);
        let val = if old { CLOCK.1 - 1 } else { self.clock };
        let ecr = if flags.ack() { self.heard } else { 0 };
        let timestamps = self.opening.timestamps.then_some(Timestamps { val, ecr });
        let options = Options { timestamps, ..options };
        let header =
            Header { seq: SeqNum(seq), ack: SeqNum(ack), flags, window, options, ..Header::default() };
        let (remote, local) = self.ends();
        if let Some(packet) = build::tcp(remote, local, header, &vec![0; len.into()]) {
            self.subject.inject(&packet);
            self.collect();
        }
    }

    /// Lets time pass, in milliseconds; all that happens belongs to the last step.
    pub(super) fn pause(&mut self, time: u64) {
        let until = self.subject.now() + Duration::from_millis(time);
        self.pass(until);
        self.record.late = self.record.late.max(self.subject.now() - until);
        self.end_step();
    }

    /// As [`pause`](Player::pause), and longer by up to `most` if a timer is due near its end. Returns how long it was.
    pub(super) fn pause_clear(&mut self, time: u64, most: u64) -> u64 {
        let began = self.subject.now();
        self.fired = None;
        let mut long = time;
        loop {
            let until = began + Duration::from_millis(long);
            self.pass(until);
            let since = self.began.first().map_or(0, |first| (until - *first).as_millis() as u64);
            let before = Duration::from_millis(CLEAR.0 + (since / 8).min(MOST_LATE));
            let just_now = self.fired.is_some_and(|fired| fired + before > until);
            let after = until + Duration::from_millis(CLEAR.1);
            let soon = self.subject.next_timer().is_some_and(|due| due <= after);
            let margin = Duration::from_millis(CLEAR.1);
            let limit = |began: &Instant| *began + Duration::from_millis(LIMIT);
            let limited = self
                .began
                .iter()
                .any(|began| limit(began) <= until + margin && until <= limit(began) + margin);
            if !(just_now || soon || limited) || long >= time + most {
                break;
            }
            long += 5;
        }
        self.end_step();
        long
    }

    fn pass(&mut self, until: Instant) {
        self.collect();
        while self.subject.now() < until {
            let more = self.subject.wait(until);
            if more {
                self.fired = Some(self.subject.now());
            }
            self.collect();
            if !more && self.subject.now() >= until {
                break;
            }
        }
        self.collect();
    }

    fn end_step(&mut self) {
        if let Some(done) = self.record.steps.last_mut() {
            done.did.append(&mut self.did);
        }
        self.joined = None;
    }

    fn collect(&mut self) {
        while let Some(event) = self.subject.next_event() {
            match event {
                SubjectEvent::Sent { packet, .. } => self.note(&packet),
                SubjectEvent::Returned { result: Ok(result), .. } => self.returned = Some(result),
                SubjectEvent::Returned { result: Err(_), .. } => self.returned = Some(Err("REFUSED")),
                SubjectEvent::State { .. } => {}
            }
        }
    }

    fn note(&mut self, packet: &[u8]) {
        let Some(ParsedPacket { body: PacketBody::Tcp(tcp), .. }) = ParsedPacket::parse(packet) else {
            self.did.push("> a packet of another protocol".to_owned());
            return;
        };
        let flags = Flags(tcp.flags & 0xff);
        if flags.syn() {
            self.iss = tcp.seq;
            self.shift = 0;
        }
        let absolute = flags.rst() && tcp.seq == 0;
        let relative = if absolute { 0 } else { tcp.seq.wrapping_sub(self.iss) };
        let ack = if flags.ack() { tcp.ack.wrapping_sub(IRS) } else { 0 };
        let len = tcp.payload.len() as u32;
        let end = relative.wrapping_add(len).wrapping_add(u32::from(flags.fin()));
        if (end.wrapping_sub(self.sent) as i32) > 0 && !flags.rst() {
            self.sent = end;
        }
        let edge = self.edge;
        if !flags.rst() {
            self.received = if flags.ack() { ack } else { self.received };
            self.edge = self.received.wrapping_add(u32::from(tcp.window) << self.shift);
        }
        for option in &tcp.options {
            match option {
                TcpOption::WindowScale(shift) if self.opening.scale => self.shift = *shift,
                TcpOption::Timestamps { val: Some(val), .. } => self.heard = *val,
                _ => {}
            }
        }
        // Segments that follow each other are one, however they were cut.
        if let Some((seq, so_far, their_ack, their_flags)) = self.joined
            && len > 0
            && relative == seq.wrapping_add(so_far)
            && ack == their_ack
            && their_flags & (Flags::FIN.0 | Flags::RST.0) == 0
        {
            self.did.pop();
            self.tell_joined((seq, so_far + len, ack), flags, &tcp, edge);
            self.joined = Some((seq, so_far + len, ack, flags.0));
            return;
        }
        self.tell((relative, len, ack), flags, &tcp, edge);
        self.joined = (len > 0).then_some((relative, len, ack, flags.0));
    }

    fn tell_joined(&mut self, numbers: (u32, u32, u32), flags: Flags, tcp: &ParsedTcp, edge: u32) {
        let options = std::mem::take(&mut self.options);
        self.tell(numbers, flags, tcp, edge);
        let Some(line) = self.did.last_mut() else { return };
        let bare = line.len() - self.options.len();
        line.replace_range(bare.., &options);
        self.options = options;
    }

    fn tell(&mut self, (seq, len, ack): (u32, u32, u32), flags: Flags, tcp: &ParsedTcp, edge: u32) {
        let shown = &mut self.shown;
        let mut place = |number: u32| {
            let from = number.wrapping_sub(edge) as i32;
            // Later edges of two subjects may differ: the number keeps its name.
            if let Some((_, name)) = shown.iter().find(|(known, _)| *known == number) {
                name.clone()
            } else if edge > 2 * NEAR_EDGE && from.unsigned_abs() <= NEAR_EDGE {
                let name = format!("edge{from:+}");
                shown.push((number, name.clone()));
                name
            } else {
                number.to_string()
            }
        };
        let mut options = String::new();
        for option in &tcp.options {
            match option {
                TcpOption::Sack(blocks) => {
                    let mut relative = |number: u32| place(number.wrapping_sub(IRS));
                    let blocks = blocks.iter().map(|(a, b)| format!(" {}:{}", relative(*a), relative(*b)));
                    options.push_str(&format!(" <sack{}>", blocks.collect::<String>()));
                }
                TcpOption::Timestamps { ecr: Some(ecr), .. } => options.push_str(&format!(" <TS ecr {ecr}>")),
                TcpOption::SackPermitted => options.push_str(" <sackOK>"),
                TcpOption::Mss(mss) => options.push_str(&format!(" <mss {mss}>")),
                _ => {}
            }
        }
        let closed = if tcp.window == 0 && !flags.rst() { " win 0" } else { "" };
        let end = seq.wrapping_add(len);
        self.did.push(format!("> {flags} {seq}:{end}({len}) ack {}{closed}{options}", place(ack)));
        self.options = options;
    }
}

/// The result of a call.
fn told(came: Option<&Result<Reply, &'static str>>) -> String {
    match came {
        None => "blocks".to_owned(),
        Some(Ok(Reply::Number(number))) => format!("= {number}"),
        Some(Ok(Reply::Received(bytes, ..))) => format!("= {} bytes", bytes.len()),
        Some(Ok(Reply::Setting(Setting::Error(error)))) => format!("= {}", error.unwrap_or("0")),
        Some(Ok(_)) => "= something".to_owned(),
        Some(Err(errno)) => format!("= -1 {errno}"),
    }
}
