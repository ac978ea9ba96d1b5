//! Generated scripts: calls, and segments with fields near every edge, played on two subjects and compared.
//!
//! A script is a list of steps, each with a pause behind it. All that a subject does until the next step belongs to the
//! step, so that two subjects with different clocks are compared by what they did and in which pause. Numbers of a
//! segment are relative to those that the subject showed, and sockets do not block.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use steadfast_core::time::Duration;
use steadfast_core::wire::build;
use steadfast_core::wire::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Header, Options};
use steadfast_core::{Instant, Profile, Shutdown};

use super::parsed::{PacketBody, ParsedPacket, ParsedTcp};
use super::simulated::Simulated;
use super::subject::{
    Addresses, ReceiveFlags, Reply, Request, SendFlags, Setting, SocketOption, Subject, SubjectEvent,
};
use super::{ast::TcpOption, show};

/// The first sequence number of the script's side.
const IRS: u32 = 10_000;
const MSS: u16 = 1000;
const WINDOW_SHIFT: u8 = 7;
const PORTS: (u16, u16) = (8080, 40_000);
/// How long a call may take to return.
const CALL: Duration = Duration::from_millis(500);

/// The addresses that generated scripts run with.
pub const ADDRESSES: Addresses = Addresses {
    local: IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 1)),
    prefix_len: 16,
    remote: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    mtu: 1500,
};

/// A generated script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The steps after the handshake, each with the pause behind it in milliseconds.
    steps: Vec<(Step, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A segment: flags, place of SEQ, place of ACK, length, window field.
    Segment {
        flags: Flags,
        seq: Edge,
        ack: Edge,
        len: u16,
        window: u16,
    },
    Write {
        len: usize,
        more: bool,
        end_of_record: bool,
    },
    Read(usize),
    Set(&'static str, i64),
    Shutdown(Shutdown),
    Close,
}

/// A place near an edge of a window, or of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    FarBelow,
    Below,
    Left,
    Within,
    Right,
    Above,
    FarAbove,
}

impl Edge {
    const ALL: [Edge; 7] =
        [Edge::FarBelow, Edge::Below, Edge::Left, Edge::Within, Edge::Right, Edge::Above, Edge::FarAbove];

    /// The number at this place of the range from `left` to `right`.
    fn of(self, left: u32, right: u32) -> u32 {
        let size = right.wrapping_sub(left);
        match self {
            Edge::FarBelow => left.wrapping_sub(100_000),
            Edge::Below => left.wrapping_sub(1),
            Edge::Left => left,
            Edge::Within => left.wrapping_add(if size > 1000 { 1000 } else { size / 2 }),
            Edge::Right => right,
            Edge::Above => right.wrapping_add(1),
            Edge::FarAbove => right.wrapping_add(100_000_000),
        }
    }
}

/// A generator of numbers: SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

impl Script {
    /// Returns the script of a seed.
    pub fn generate(seed: u64) -> Script {
        let mut dice = Dice(seed);
        let count = 2 + dice.roll(7);
        let steps = (0..count).map(|_| (Step::generate(&mut dice), dice.pick(&[5, 5, 20, 20, 90, 320])));
        Script { steps: steps.collect() }
    }

    /// Returns the scripts without one of the steps.
    pub fn shorter(&self) -> impl Iterator<Item = Script> + '_ {
        (0..self.steps.len()).rev().map(|left_out| {
            let mut steps = self.steps.clone();
            steps.remove(left_out);
            Script { steps }
        })
    }

    /// Plays the script on a fresh stack with the profile `linux`, as the release of this kernel.
    pub fn play_simulated(&self) -> Record {
        let mut simulated = Simulated::new(Profile::Linux, &ADDRESSES);
        let set = simulated.set("steadfast.linux_release", "618");
        debug_assert_eq!(set, Ok(None));
        self.play(&mut simulated)
    }

    /// Plays the script on a fresh subject with [`ADDRESSES`].
    pub fn play(&self, subject: &mut dyn Subject) -> Record {
        let mut player = Player::new(subject);
        player.open();
        for (step, pause) in &self.steps {
            player.step(step);
            player.pause(Duration::from_millis(*pause));
        }
        player.record
    }
}

impl Step {
    fn generate(dice: &mut Dice) -> Step {
        match dice.roll(20) {
            0..=11 => Step::segment(dice),
            12..=15 => Step::Write {
                len: dice.pick(&[1, 100, 999, 1000, 1001, 2500, 10_000, 25_000]),
                more: dice.roll(5) == 0,
                end_of_record: dice.roll(5) == 0,
            },
            16 => Step::Read(dice.pick(&[1, 10_000])),
            17 => dice.pick(&[("TCP_NODELAY", 1), ("TCP_CORK", 1), ("TCP_CORK", 0)]).into(),
            18 => Step::Shutdown(dice.pick(&[Shutdown::Write, Shutdown::Read, Shutdown::Both])),
            _ => Step::Close,
        }
    }

    fn segment(dice: &mut Dice) -> Step {
        let flags = dice.pick(&[
            Flags::ACK,
            Flags::ACK,
            Flags::ACK,
            Flags::ACK | Flags::PSH,
            Flags::ACK | Flags::FIN,
            Flags::RST,
            Flags::RST | Flags::ACK,
            Flags::SYN,
            Flags::SYN | Flags::ACK,
            Flags::FIN,
        ]);
        let usual = |dice: &mut Dice, edge| if dice.roll(3) > 0 { edge } else { dice.pick(&Edge::ALL) };
        Step::Segment {
            flags,
            seq: usual(dice, Edge::Left),
            ack: usual(dice, Edge::Right),
            len: dice.pick(&[0, 0, 0, 1, 1000]),
            window: dice.pick(&[300, 300, 300, 257, 16, 8, 0]),
        }
    }

    /// The name of the event, and the edges that it is near.
    fn class(&self) -> (String, String) {
        match self {
            Step::Segment { flags, seq, ack, len, .. } => {
                (format!("{flags} {}", if *len > 0 { "data" } else { "" }), format!("{seq:?}/{ack:?}"))
            }
            Step::Write { .. } => ("write".to_owned(), String::new()),
            Step::Read(_) => ("read".to_owned(), String::new()),
            Step::Set(name, _) => ((*name).to_owned(), String::new()),
            Step::Shutdown(how) => (format!("shutdown {how:?}"), String::new()),
            Step::Close => ("close".to_owned(), String::new()),
        }
    }
}

impl From<(&'static str, i64)> for Step {
    fn from((name, value): (&'static str, i64)) -> Step {
        Step::Set(name, value)
    }
}

/// The run of a script on one subject.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Each step with what followed.
    pub steps: Vec<(String, Vec<String>)>,
    /// Classes of the steps: state, event, edge.
    pub classes: Vec<(String, String, String)>,
}

impl Record {
    /// Returns whether the subjects did the same.
    pub fn agrees(&self, other: &Record) -> bool {
        self.first_difference(other).is_none()
    }

    /// The first step at which they differ.
    fn first_difference(&self, other: &Record) -> Option<usize> {
        (0..self.steps.len().max(other.steps.len())).find(|index| {
            self.steps.get(*index).map(|step| &step.1) != other.steps.get(*index).map(|step| &step.1)
        })
    }

    /// Both runs up to the first difference, ours before theirs.
    pub fn compare(&self, theirs: &Record) -> String {
        let Some(last) = self.first_difference(theirs) else { return String::new() };
        let mut text = String::new();
        for (index, (step, did)) in self.steps.iter().enumerate().take(last + 1) {
            let _ = writeln!(text, "  {step}");
            let other = theirs.steps.get(index).map_or(&[][..], |step| &step.1);
            if did == other {
                did.iter().for_each(|line| _ = writeln!(text, "      {line}"));
            } else {
                did.iter().for_each(|line| _ = writeln!(text, "    - {line}"));
                other.iter().for_each(|line| _ = writeln!(text, "    + {line}"));
            }
        }
        text
    }

    /// The class of the step at which they differ.
    pub fn class_of_difference(&self, theirs: &Record) -> Option<&(String, String, String)> {
        let index = self.first_difference(theirs)?;
        self.classes.get(index)
    }
}

/// How often each class of steps was played.
pub type Classes = BTreeMap<(String, String, String), usize>;

struct Player<'a> {
    subject: &'a mut dyn Subject,
    record: Record,
    did: Vec<String>,
    returned: Option<Result<Reply, &'static str>>,
    /// The joined segment that may go on: SEQ, length, ACK and flags.
    joined: Option<(u32, u32, u32, u16)>,
    iss: u32,
    /// Relative to the ISS: the end of what the subject sent, and what the script acknowledged.
    sent: u32,
    acked: u32,
    /// Relative to the IRS: what the subject acknowledged, and the right edge of its window.
    received: u32,
    edge: u32,
    fd: i32,
}

impl<'a> Player<'a> {
    fn new(subject: &'a mut dyn Subject) -> Player<'a> {
        Player {
            subject,
            record: Record::default(),
            did: Vec::new(),
            returned: None,
            joined: None,
            iss: 0,
            sent: 1,
            acked: 1,
            received: 1,
            edge: 1,
            fd: -1,
        }
    }

    /// The handshake of a passive open, and its accept.
    fn open(&mut self) {
        for (name, value) in [("net.ipv4.tcp_timestamps", "0"), ("net.ipv4.tcp_rmem", "4096 131072 6291456")]
        {
            let _ = self.subject.set(name, value);
        }
        let made = self.call(Request::Socket { ipv6: false, nonblocking: true });
        let listener = match made {
            Some(Ok(Reply::Descriptor(fd))) => fd,
            _ => -1,
        };
        let option =
            |level: &str, name: &str| SocketOption { level: level.to_owned(), name: name.to_owned() };
        let congestion = option("IPPROTO_TCP", "TCP_CONGESTION");
        let setting = Setting::Text("cubic".to_owned());
        self.call(Request::SetOption { fd: listener, option: congestion, setting });
        let address = SocketAddr::new(ADDRESSES.local, PORTS.0);
        self.call(Request::Bind { fd: listener, address });
        self.call(Request::Listen { fd: listener, backlog: 8 });
        self.did.clear();
        let options = Options {
            mss: Some(MSS),
            window_scale: Some(WINDOW_SHIFT),
            sack_permitted: true,
            ..Options::default()
        };
        self.inject(Flags::SYN, IRS, 0, 0, 20_000, options);
        self.pause(Duration::from_millis(20));
        self.inject(Flags::ACK, IRS.wrapping_add(1), self.iss.wrapping_add(1), 0, 300, Options::default());
        if let Some(Ok(Reply::Accepted(fd, _))) =
            self.call(Request::Accept { fd: listener, nonblocking: true })
        {
            self.fd = fd;
        }
        self.end_step("SYN, ACK, accept".to_owned());
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

    fn step(&mut self, step: &Step) {
        let listed = self.subject.sockets();
        let state = listed.iter().find(|entry| entry.remote.port() == PORTS.1);
        let state = state.map_or("CLOSED".to_owned(), |entry| format!("{:?}", entry.state));
        let (event, edge) = step.class();
        self.record.classes.push((state, event, edge));
        let fd = self.fd;
        let name = match step {
            Step::Segment { flags, seq, ack, len, window } => {
                let right = self.edge.wrapping_sub(1).max(self.received);
                let seq_number = seq.of(self.received, right);
                let ack_number = ack.of(self.acked, self.sent);
                if flags.ack() && (ack_number.wrapping_sub(self.acked) as i32) > 0 && *ack <= Edge::Right {
                    self.acked = ack_number;
                }
                let raw = (IRS.wrapping_add(seq_number), self.iss.wrapping_add(ack_number));
                self.inject(
                    *flags,
                    raw.0,
                    if flags.ack() { raw.1 } else { 0 },
                    *len,
                    *window,
                    Options::default(),
                );
                format!("< {flags} {seq:?} ({seq_number}) len {len} ack {ack:?} ({ack_number}) win {window}")
            }
            Step::Write { len, more, end_of_record } => {
                let flags = SendFlags { dont_wait: true, more: *more, end_of_record: *end_of_record };
                let came = self.call(Request::Send { fd, len: *len, flags, fast_open: None, to: None });
                format!("write {len} more {more} eor {end_of_record}: {}", told(came.as_ref(), &mut self.did))
            }
            Step::Read(len) => {
                let came = self.call(Request::Receive { fd, len: *len, flags: ReceiveFlags::default() });
                format!("read {len}: {}", told(came.as_ref(), &mut self.did))
            }
            Step::Set(option, value) => {
                let option = SocketOption { level: "IPPROTO_TCP".to_owned(), name: (*option).to_owned() };
                let name = format!("{} {value}", option.name);
                let came = self.call(Request::SetOption { fd, option, setting: Setting::Number(*value) });
                format!("{name}: {}", told(came.as_ref(), &mut self.did))
            }
            Step::Shutdown(how) => {
                let came = self.call(Request::Shutdown { fd, how: *how });
                format!("shutdown {how:?}: {}", told(came.as_ref(), &mut self.did))
            }
            Step::Close => {
                let came = self.call(Request::Close { fd });
                self.fd = -1;
                format!("close: {}", told(came.as_ref(), &mut self.did))
            }
        };
        self.record.steps.push((name, Vec::new()));
    }

    fn inject(&mut self, flags: Flags, seq: u32, ack: u32, len: u16, window: u16, options: Options) {
        let header =
            Header { seq: SeqNum(seq), ack: SeqNum(ack), flags, window, options, ..Header::default() };
        let ends = (SocketAddr::new(ADDRESSES.remote, PORTS.1), SocketAddr::new(ADDRESSES.local, PORTS.0));
        if let Some(packet) = build::tcp(ends.0, ends.1, header, &vec![0; len.into()]) {
            self.subject.inject(&packet);
            self.collect();
        }
    }

    /// Lets time pass; all that happens belongs to the last step.
    fn pause(&mut self, time: Duration) {
        let until: Instant = self.subject.now() + time;
        self.collect();
        while self.subject.now() < until {
            let more = self.subject.wait(until);
            self.collect();
            if !more && self.subject.now() >= until {
                break;
            }
        }
        self.collect();
        if let Some((_, did)) = self.record.steps.last_mut() {
            did.append(&mut self.did);
        }
        self.joined = None;
    }

    fn end_step(&mut self, name: String) {
        self.record.steps.push((name, std::mem::take(&mut self.did)));
        self.record.classes.push(("LISTEN".to_owned(), "open".to_owned(), String::new()));
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
        }
        let relative = tcp.seq.wrapping_sub(self.iss);
        let ack = if flags.ack() { tcp.ack.wrapping_sub(IRS) } else { 0 };
        let len = tcp.payload.len() as u32;
        let end = relative.wrapping_add(len).wrapping_add(u32::from(flags.fin()));
        if (end.wrapping_sub(self.sent) as i32) > 0 && !flags.rst() {
            self.sent = end;
        }
        if flags.ack() && !flags.rst() {
            self.received = ack;
            let shift = if flags.syn() { 0 } else { 7 };
            self.edge = ack.wrapping_add(u32::from(tcp.window) << shift);
        }
        // Segments that follow each other are one, however they were cut.
        if let Some((seq, so_far, their_ack, their_flags)) = self.joined
            && len > 0
            && relative == seq.wrapping_add(so_far)
            && ack == their_ack
            && their_flags & (Flags::FIN.0 | Flags::RST.0) == 0
        {
            self.did.pop();
            self.tell(seq, so_far + len, ack, flags, &tcp);
            self.joined = Some((seq, so_far + len, ack, flags.0));
            return;
        }
        self.tell(relative, len, ack, flags, &tcp);
        self.joined = (len > 0).then_some((relative, len, ack, flags.0));
    }

    fn tell(&mut self, seq: u32, len: u32, ack: u32, flags: Flags, tcp: &ParsedTcp) {
        let blocks = tcp.options.iter().find_map(|option| match option {
            TcpOption::Sack(blocks) => Some(TcpOption::Sack(
                blocks.iter().map(|(a, b)| (a.wrapping_sub(IRS), b.wrapping_sub(IRS))).collect(),
            )),
            _ => None,
        });
        let blocks = blocks.map_or(String::new(), |blocks| format!(" <{}>", show::option(&blocks)));
        let closed = if tcp.window == 0 && !flags.rst() { " win 0" } else { "" };
        self.did.push(format!("> {flags} {seq}:{}({len}) ack {ack}{closed}{blocks}", seq.wrapping_add(len)));
    }
}

/// Notes what a call returned.
fn told(came: Option<&Result<Reply, &'static str>>, did: &mut Vec<String>) -> &'static str {
    let text = match came {
        None => "blocks".to_owned(),
        Some(Ok(Reply::Number(number))) => format!("= {number}"),
        Some(Ok(Reply::Received(bytes, ..))) => format!("= {} bytes", bytes.len()),
        Some(Ok(_)) => "= something".to_owned(),
        Some(Err(errno)) => format!("= -1 {errno}"),
    };
    did.insert(0, text);
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed gives the same script and the same run; scripts differ, and reach many classes.
    #[test]
    fn a_seed_says_all_and_seeds_reach_many_classes() {
        let mut classes = Classes::new();
        for seed in 0..200 {
            let script = Script::generate(seed);
            assert_eq!(script, Script::generate(seed));
            let (once, again) = (script.play_simulated(), script.play_simulated());
            assert!(once.agrees(&again), "{}", once.compare(&again));
            assert_eq!(once.steps.len(), script.steps.len() + 1);
            once.classes.into_iter().for_each(|class| *classes.entry(class).or_default() += 1);
        }
        assert_ne!(Script::generate(0), Script::generate(1));
        assert!(classes.len() > 100, "{}", classes.len());
        let script = Script::generate(7);
        assert!(script.shorter().all(|shorter| shorter.steps.len() + 1 == script.steps.len()));
    }
}
