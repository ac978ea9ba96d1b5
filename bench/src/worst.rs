//! `--worst`: the dearest single calls, each on the state that makes it dear. Here they are timed; the guard counts
//! their instructions on smaller states, against a bound.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant as Clock;

use steadfast_core::config::FastOpenMode;
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Cookie, Flags, Header, Options};
use steadfast_core::wire::{PROTOCOL_UDP, build, ipv4};
use steadfast_core::{Config, ConnectOptions, Duration, Instant, Interface, ListenOptions, SocketId, Stack};
use steadfast_testkit::{Client, next_segment, packets};

use crate::flood::{PORT, syn};
use crate::ours::{SERVER, Stacks};
use crate::pair::Setup;

/// Most instructions of a single call.
const BOUND: u64 = 150_000;
/// Most instructions of a fragment, about 50 µs. Only a fragment as long as forty ordinary ones is dearer than other
/// calls.
const LONG_FRAGMENT: u64 = 450_000;
/// Most instructions of an ACK while 256 ranges are selectively acknowledged, about 2 µs.
const RANGES: u64 = 20_000;
/// Runs of each call when it is timed. The fastest counts, since the others were disturbed.
const ROUNDS: usize = 5;
const NOW: Instant = Instant::from_secs(1);

/// A call on a state prepared for it.
type Call = Box<dyn FnMut()>;

pub(crate) struct Input {
    pub(crate) name: &'static str,
    /// Entries of the state: when timed, and for the guard.
    sizes: [usize; 2],
    make: fn(usize) -> Call,
    /// Most instructions, for the guard.
    pub(crate) bound: u64,
}

pub(crate) const INPUTS: [Input; 10] = [
    // A table that doubles when it is seven eighths full would have its dearest call here.
    Input { name: "syn_one_more", sizes: [458_752, 14_336], make: one_more_half_open, bound: BOUND },
    Input { name: "advance_half_open", sizes: [60_000, 5000], make: half_open_timers, bound: BOUND },
    Input { name: "advance_time_wait", sizes: [262_144, 3000], make: time_waits_end, bound: BOUND },
    Input { name: "close_listener", sizes: [60_000, 5000], make: listener_closes, bound: BOUND },
    Input { name: "connect_last_port", sizes: [1, 1], make: connects, bound: BOUND },
    Input { name: "connect_no_port", sizes: [0, 0], make: connects, bound: BOUND },
    Input { name: "packet_to_4096_addresses", sizes: [4096, 4096], make: many_addresses, bound: BOUND },
    Input { name: "cookie_cache_full", sizes: [1024, 1024], make: cookies, bound: BOUND },
    Input { name: "fragment_evicts", sizes: [60_000, 6000], make: fragments, bound: LONG_FRAGMENT },
    Input { name: "ack_of_sack_ranges", sizes: [256, 256], make: selective_ack, bound: RANGES },
];

/// Runs an input on the guard's state. Only the instructions in [`measured`] count.
pub(crate) fn play(name: &str) {
    let input = INPUTS.iter().find(|input| input.name == name).expect("an input of this name");
    let mut call = (input.make)(input.sizes[1]);
    measured(&mut *call);
}

#[inline(never)]
pub(crate) fn measured(call: &mut dyn FnMut()) {
    call();
}

/// Prints the time of each call.
pub(crate) fn table(progress: &dyn Fn(String)) {
    println!("{:<28}{:>10}{:>12}", "call", "entries", "µs");
    for Input { name, sizes, make, .. } in &INPUTS {
        let rounds = (1..=ROUNDS).map(|round| {
            progress(format!("{name}: round {round} of {ROUNDS}"));
            let mut call = make(sizes[0]);
            let begin = Clock::now();
            measured(&mut *call);
            begin.elapsed().as_secs_f64() * 1e6
        });
        println!("{name:<28}{:>10}{:>12.1}", sizes[0], rounds.fold(f64::MAX, f64::min));
    }
}

fn stack(change: impl FnOnce(&mut Config), addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Stack {
    let mut config = Config { secret: [7; 32], ..Config::default() };
    change(&mut config);
    let mut stack = Stack::new(config, Interface::new(1500, addresses));
    stack.advance(NOW);
    stack
}

/// Creates a server with `count` half-open connections.
fn half_open(count: usize) -> (Stack, SocketId) {
    let change = |config: &mut Config| {
        (config.tcp_max_half_open, config.tcp_max_syn_backlog) = (1 << 20, 1 << 20);
    };
    let mut stack = stack(change, [(SERVER, 24)]);
    let listener = stack.listen(SocketAddr::new(SERVER, PORT), ListenOptions::default());
    let mut frame = [0; 1500];
    for number in 0..count as u32 {
        stack.receive(NOW, &syn(number)[..]);
        stack.transmit(NOW, &mut frame).expect("a SYN-ACK");
    }
    assert_eq!(stack.usage().half_open, count);
    (stack, listener.expect("the port is free"))
}

fn one_more_half_open(count: usize) -> Call {
    let ((mut stack, _), packet) = (half_open(count), syn(count as u32));
    Box::new(move || stack.receive(NOW, &packet[..]))
}

fn half_open_timers(count: usize) -> Call {
    let (mut stack, _) = half_open(count);
    Box::new(move || stack.advance(NOW + Duration::from_secs(2)))
}

fn listener_closes(count: usize) -> Call {
    let (mut stack, listener) = half_open(count);
    Box::new(move || stack.close(NOW, listener).expect("it is there"))
}

fn time_waits_end(count: usize) -> Call {
    let mut pair = Stacks::unconnected(&Setup::PLAIN, |_| {});
    for i in 0..count {
        let (stream, accepted) = pair.connect((i / 50_000) as u16, Some((10_001 + i % 50_000) as u16));
        let now = pair.now();
        pair.client.close(now, stream).expect("it is open");
        pair.carry();
        pair.server.close(now, accepted).expect("it is open");
        pair.carry();
    }
    assert_eq!(pair.client.usage().time_wait, count);
    let later = pair.now() + Duration::from_secs(61);
    Box::new(move || pair.client.advance(later))
}

/// Connects to a remote address towards which `free` local ports are left.
fn connects(free: usize) -> Call {
    let mut stack = stack(|_| {}, [(SERVER, 24)]);
    let range = stack.config().ip_local_port_range;
    let remote = SocketAddr::new(Ipv4Addr::new(11, 0, 0, 1).into(), PORT);
    for port in (range.first()..=range.last()).skip(free) {
        let options = ConnectOptions { local_port: Some(port), ..ConnectOptions::default() };
        stack.connect(NOW, remote, options).expect("the port is free");
    }
    // The first search for a port allocates its counters: 128 KiB of zeros, which callgrind counts byte by byte.
    let elsewhere = SocketAddr::new(Ipv4Addr::new(11, 0, 0, 2).into(), PORT);
    stack.connect(NOW, elsewhere, ConnectOptions::default()).expect("a port is free");
    Box::new(move || {
        let connected = stack.connect(NOW, remote, ConnectOptions::default());
        assert_eq!(connected.is_ok(), free > 0);
    })
}

fn many_addresses(count: usize) -> Call {
    let address = |number: usize| Ipv4Addr::from_bits(0x0a00_0001 + number as u32);
    let mut stack = stack(|_| {}, (0..count).map(|number| (address(number).into(), 8)));
    let header = Header { flags: Flags::RST, ..Header::default() };
    let (from, to) = ((Ipv4Addr::new(11, 0, 0, 1), 4000).into(), (address(count - 1), PORT).into());
    let packet = packets::segment(from, to, header, &[]);
    Box::new(move || stack.receive(NOW, &packet[..]))
}

/// A Fast Open cookie arrives for a client whose cookie cache is full.
fn cookies(count: usize) -> Call {
    let mut stack = stack(|config| config.tcp_fastopen = FastOpenMode::CLIENT, [(SERVER, 24)]);
    let answered = |stack: &mut Stack, number: usize| {
        let server = SocketAddr::from((Ipv4Addr::from_bits(0x0b00_0000 + number as u32), PORT));
        let options = ConnectOptions { fast_open: true, ..ConnectOptions::default() };
        let id = stack.connect(NOW, server, options).expect("there is a port");
        let syn = next_segment(stack, NOW, &mut [0; 1500]).expect("a SYN");
        let header = Header {
            ack: syn.header.seq + 1,
            seq: SeqNum(1),
            flags: Flags::SYN | Flags::ACK,
            window: 65_535,
            options: Options { mss: Some(1460), fast_open: Cookie::new(&[1; 8]), ..Options::default() },
            ..Header::default()
        };
        (id, packets::segment(server, syn.from, header, &[]))
    };
    for number in 0..count {
        let (id, packet) = answered(&mut stack, number);
        stack.receive(NOW, &packet[..]);
        stack.abort(NOW, id).expect("it is there");
        while stack.transmit(NOW, &mut [0; 1500]).is_some() {}
    }
    let (_, packet) = answered(&mut stack, count);
    Box::new(move || stack.receive(NOW, &packet[..]))
}

/// A long fragment arrives when short ones have filled the reassembly memory.
fn fragments(count: usize) -> Call {
    let mut stack = stack(|_| {}, [(SERVER, 24)]);
    let IpAddr::V4(destination) = SERVER else { unreachable!("it is one") };
    let fragment = |number: usize, len: usize| {
        let header = ipv4::Header {
            identification: 1,
            dont_fragment: false,
            more_fragments: true,
            ..ipv4::Header::new(Ipv4Addr::from_bits(0x0b00_0000 + number as u32), destination, PROTOCOL_UDP)
        };
        build::ipv4(&header, &vec![0; len])
    };
    (0..count).for_each(|number| stack.receive(NOW, &fragment(number, 8)[..]));
    let long = fragment(count, 65_512);
    Box::new(move || stack.receive(NOW, &long[..]))
}

/// An ACK arrives with blocks that extend four of so many selectively acknowledged ranges.
fn selective_ack(count: usize) -> Call {
    let change = |config: &mut Config| config.tcp_max_sack_ranges = count as u32;
    let mut stack = stack(change, [(SERVER, 24)]);
    let listener = stack.listen(SocketAddr::new(SERVER, PORT), ListenOptions::default());
    let offer = Options { mss: Some(1460), sack_permitted: true, ..Options::default() };
    let mut client = Client::new((Ipv4Addr::new(10, 0, 0, 9), 4000), (SERVER, PORT)).offering(offer);
    let socket = client.connect(&mut stack, NOW, listener.expect("the port is free"));
    let (una, mut frame) = (client.ack, [0; 1500]);
    stack.send(socket, &[0; 14_600]).expect("there is room");
    while stack.transmit(NOW, &mut frame).is_some() {}
    // Each range is a byte, 50 bytes after the one before.
    let ack = |first: usize, len: u32| {
        let mut options = Options::default();
        for index in first..(first + 4).min(count) {
            let left = una + 50 * (index as u32 + 1);
            options.sack.push(left, left + len);
        }
        let header = Header {
            seq: client.seq,
            ack: una,
            flags: Flags::ACK,
            window: u16::MAX,
            options,
            ..Header::default()
        };
        packets::segment(client.end, client.server, header, &[])
    };
    let later = NOW + Duration::from_millis(20);
    for first in (0..count).step_by(4) {
        stack.receive(later, &ack(first, 1)[..]);
        while stack.transmit(later, &mut frame).is_some() {}
    }
    let last = ack(count / 2, 2);
    Box::new(move || stack.receive(later, &last[..]))
}
