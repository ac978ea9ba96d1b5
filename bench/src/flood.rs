//! `synflood_mem`: SYNs from many addresses, each answered by a cookie, and legitimate clients between them that must
//! connect.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Header, Options, Timestamps};
use steadfast_core::{ConnectOptions, ListenOptions, SocketId};
use steadfast_testkit::packets;

use crate::measure::{Effort, Rounds, rate};
use crate::ours::{SERVER, Stacks};
use crate::pair::Setup;
use crate::report::{Goal, Row, Unit};

/// SYNs between two handshakes.
const BETWEEN: usize = 1000;
/// Number of different SYNs.
const SYNS: usize = 4096;
/// Size of the half-open table, which is full from the start.
const BACKLOG: u32 = 256;
pub(crate) const PORT: u16 = 80;

/// Returns a SYN to the server from an address and a port that `number` selects.
pub(crate) fn syn(number: u32) -> Vec<u8> {
    let IpAddr::V4(destination) = SERVER else { unreachable!("it is one") };
    syn_to(destination, number)
}

/// Returns a SYN as Linux sends it, from an address in 11.0.0.0/8 and a port that `number` selects.
pub(crate) fn syn_to(destination: Ipv4Addr, number: u32) -> Vec<u8> {
    segment_to(destination, PORT, number, Flags::SYN)
}

/// Returns a segment without payload from such an address. Only a SYN carries options.
pub(crate) fn segment_to(destination: Ipv4Addr, port: u16, number: u32, flags: Flags) -> Vec<u8> {
    let syn = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: number, ecr: 0 }),
        ..Options::default()
    };
    let source = Ipv4Addr::from_bits(0x0b00_0000 + number / 40_000);
    let header = Header {
        seq: SeqNum(number.wrapping_mul(2_654_435_761)),
        flags,
        window: 64_240,
        options: if flags.syn() { syn } else { Options::default() },
        ..Header::default()
    };
    let from = SocketAddr::from((source, 1024 + (number % 40_000) as u16));
    packets::segment(from, (destination, port).into(), header, &[])
}

/// A server under a flood, with a full half-open table.
pub(crate) struct Flood {
    pair: Stacks,
    listener: SocketId,
    frame: Vec<u8>,
}

impl Flood {
    pub(crate) fn new() -> Flood {
        let mut pair = Stacks::unconnected(&Setup::PLAIN, |config| config.tcp_max_syn_backlog = BACKLOG);
        let listener = pair.server.listen(SocketAddr::new(SERVER, PORT), ListenOptions::default());
        let listener = listener.expect("the port is free");
        let mut flood = Flood { pair, listener, frame: vec![0; 1500] };
        // The nearer the table is to full, the more SYNs get a cookie instead of an entry.
        for number in (SYNS as u32).. {
            flood.syn(&syn(number));
            if flood.pair.server.usage().half_open == BACKLOG as usize {
                break;
            }
        }
        flood
    }

    /// Delivers a SYN and takes the answer.
    pub(crate) fn syn(&mut self, packet: &[u8]) {
        let now = self.pair.now();
        self.pair.server.receive(now, packet);
        let answer = self.pair.server.transmit(now, &mut self.frame);
        std::hint::black_box(answer).expect("every SYN is answered");
    }

    /// Completes a handshake of a legitimate client.
    fn handshake(&mut self) {
        let pair = &mut self.pair;
        let (now, remote) = (pair.now(), SocketAddr::new(SERVER, PORT));
        let stream = pair.client.connect(now, remote, ConnectOptions::default()).expect("there is a port");
        pair.carry();
        let (accepted, _) = pair.server.accept(self.listener).expect("a legitimate handshake succeeds");
        pair.client.abort(now, stream).expect("it is there");
        pair.carry();
        pair.server.close(now, accepted).expect("it is there");
        while pair.client.poll_event().is_some() || pair.server.poll_event().is_some() {}
    }
}

/// Runs the benchmark.
pub(crate) fn run(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let syns: Vec<_> = (0..SYNS as u32).map(syn).collect();
    let mut flood = Flood::new();
    let mut turn = || {
        flood.pair.tick();
        syns.iter().for_each(|packet| flood.syn(packet));
        (0..SYNS / BETWEEN).for_each(|_| flood.handshake());
        SYNS as f64
    };
    let mut ours = Rounds::default();
    for round in 0..=effort.rounds {
        progress(format!("synflood_mem: round {round} of {}", effort.rounds));
        let figure = rate(effort.seconds, &mut turn);
        if round > 0 {
            ours.0.push(figure);
        }
    }
    vec![Row { name: "synflood_mem".into(), unit: Unit::Events, ours, peer: None, goal: Goal::Value(5e6) }]
}
