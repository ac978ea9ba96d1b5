//! `flood_beside` and `fair_share`: how outgoing frames are shared if a device takes a limited number of them per turn.
//!
//! A share counts packets and bytes, so it is the same on every machine. The time that a flood costs has a row of its
//! own.

use std::net::IpAddr;

use steadfast_core::SocketId;
use steadfast_core::wire::ipv4;
use steadfast_core::wire::tcp::Flags;

use crate::flood::segment_to;
use crate::measure::{Effort, Rounds, thread_seconds};
use crate::ours::{CLIENT, SERVER, Stacks};
use crate::pair::{FIRST_PORT, Setup};
use crate::report::{Goal, Row, Unit};

/// Packets that a turn takes in, and frames that it sends.
const FRAMES: usize = 64;
/// Connections that share.
const SHARERS: usize = 100;
/// Connections that are reset at once, and turns between two resets.
const RESET: usize = 20;
const BETWEEN: usize = 10;
/// Number of different packets in a flood.
const STRANGERS: u32 = 65_536;
/// The port that the flood attacks.
const FLOODED: u16 = FIRST_PORT;

/// The server's side of a wire, one turn at a time.
struct Turns {
    pair: Stacks,
    frame: Vec<u8>,
    text: Vec<u8>,
    read: Vec<u8>,
    /// Seconds that the server took.
    seconds: f64,
}

impl Turns {
    fn new() -> Turns {
        let pair = Stacks::unconnected(&Setup::PLAIN, |config| config.tcp_init_cwnd = 255);
        Turns { pair, frame: vec![0; 1500], text: vec![1; 65_536], read: vec![0; 65_536], seconds: 0.0 }
    }

    /// Delivers the flood's packets and lets the server's applications write. The client receives those of the turn's
    /// frames that are addressed to it.
    fn turn(&mut self, strangers: impl Iterator<Item = Vec<u8>>, writers: &[SocketId]) {
        let strangers: Vec<_> = strangers.collect();
        self.pair.tick();
        let now = self.pair.now();
        let IpAddr::V4(client) = CLIENT else { unreachable!("it is one") };
        let (mut packets, began) = (Vec::with_capacity(FRAMES), thread_seconds());
        for id in writers {
            while self.pair.server.send(*id, &self.text).is_ok() {}
        }
        strangers.iter().for_each(|packet| self.pair.server.receive(now, &packet[..]));
        for _ in 0..FRAMES {
            let Some(sent) = self.pair.server.transmit(now, &mut self.frame) else { break };
            let packet = &self.frame[..sent.len];
            if ipv4::parse(packet).is_ok_and(|(header, _)| header.destination == client) {
                packets.push(packet.to_vec());
            }
        }
        self.seconds += thread_seconds() - began;
        packets.iter().for_each(|packet| self.pair.client.receive(now, &packet[..]));
    }

    /// Lets the client's applications read, and delivers the ACKs. Returns the bytes that each reader got.
    fn take(&mut self, readers: &[SocketId]) -> Vec<usize> {
        let now = self.pair.now();
        let mut read = |id: &SocketId| {
            let mut total = 0;
            while let Ok(count @ 1..) = self.pair.client.recv(*id, &mut self.read) {
                total += count;
            }
            total
        };
        let taken = readers.iter().map(&mut read).collect();
        while self.pair.client.poll_event().is_some() || self.pair.server.poll_event().is_some() {}
        let mut acks = Vec::new();
        while let Some(sent) = self.pair.client.transmit(now, &mut self.frame) {
            acks.push(self.frame[..sent.len].to_vec());
        }
        let began = thread_seconds();
        acks.iter().for_each(|ack| self.pair.server.receive(now, &ack[..]));
        self.seconds += thread_seconds() - began;
        taken
    }
}

/// Returns the bytes that a transfer carries in `turns` turns beside a flood of such segments, and the bytes per second
/// of the server's time.
fn carried(flood: Option<Flags>, turns: usize) -> (f64, f64) {
    let IpAddr::V4(server) = SERVER else { unreachable!("it is one") };
    let mut side = Turns::new();
    let (reader, writer) = side.pair.connect(1, None);
    let (mut number, mut bytes) = (0, 0);
    for turn in 0..turns + turns / 10 {
        if turn == turns / 10 {
            // Its window is open by now.
            (bytes, side.seconds) = (0, 0.0);
        }
        let strangers =
            (0..FRAMES as u32).filter_map(|i| Some(segment_to(server, FLOODED, number + i, flood?)));
        side.turn(strangers, &[writer]);
        number = (number + FRAMES as u32) % STRANGERS;
        bytes += side.take(&[reader]).iter().sum::<usize>();
    }
    (bytes as f64, bytes as f64 / side.seconds)
}

/// Runs the benchmark `flood_beside`.
pub(crate) fn flood_beside(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let turns = (effort.seconds * 5000.0) as usize + 500;
    let kinds = [("syn", Flags::SYN), ("ack", Flags::ACK), ("rst", Flags::RST)];
    let mut rounds = vec![[Rounds::default(), Rounds::default()]; kinds.len()];
    for round in 0..effort.rounds {
        progress(format!("flood_beside: round {round} of {}", effort.rounds));
        let alone = carried(None, turns);
        for ((_, flags), [by_turns, by_clock]) in kinds.iter().zip(&mut rounds) {
            let beside = carried(Some(*flags), turns);
            by_turns.0.push(beside.0 / alone.0);
            by_clock.0.push(beside.1 / alone.1);
        }
    }
    let rows = kinds.iter().zip(rounds).flat_map(|((name, _), [by_turns, by_clock])| {
        let row = |name, ours, goal| Row { name, unit: Unit::Part, ours, peer: None, goal };
        [
            row(format!("flood_beside {name}"), by_turns, Goal::Value(0.5)),
            row(format!("flood_beside {name} by the clock"), by_clock, Goal::Open),
        ]
    });
    rows.collect()
}

/// Runs the benchmark `fair_share`: the bytes of the connection that carries least, as a fraction of those of the one
/// that carries most.
pub(crate) fn fair_share(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut ours = Rounds::default();
    for round in 0..effort.rounds {
        progress(format!("fair_share: round {round} of {}", effort.rounds));
        ours.0.push(least_share(2000));
    }
    // Each connection stays within a tenth of the mean.
    let goal = Goal::Value(0.9 / 1.1);
    vec![Row { name: "fair_share".into(), unit: Unit::Part, ours, peer: None, goal }]
}

fn least_share(turns: usize) -> f64 {
    let mut side = Turns::new();
    let pairs: Vec<_> = (0..SHARERS).map(|_| side.pair.connect(1, None)).collect();
    let (readers, writers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    // They connect now, because a handshake carries every packet under way.
    let batches = (turns + turns / 10).div_ceil(BETWEEN);
    let mut others: Vec<_> = (0..batches * RESET).map(|_| side.pair.connect(2, None)).collect();
    let mut bytes = vec![0; SHARERS];
    for turn in 0..turns + turns / 10 {
        if turn % BETWEEN == 0 {
            reset(&mut side, others.split_off(others.len() - RESET));
        }
        if turn == turns / 10 {
            bytes.fill(0);
        }
        side.turn(std::iter::empty(), &writers);
        bytes.iter_mut().zip(side.take(&readers)).for_each(|(bytes, taken)| *bytes += taken);
    }
    let (least, most) = (bytes.iter().min(), bytes.iter().max());
    least.zip(most).map_or(0.0, |(least, most)| *least as f64 / *most as f64)
}

/// Resets connections within one batch, each with data that the server is about to acknowledge.
fn reset(side: &mut Turns, streams: Vec<(SocketId, SocketId)>) {
    let now = side.pair.now();
    for (stream, _) in &streams {
        side.pair.client.send(*stream, b"x").expect("there is room");
        let sent = side.pair.client.transmit(now, &mut side.frame).expect("it leaves at once");
        side.pair.server.receive(now, &side.frame[..sent.len]);
        side.pair.client.abort(now, *stream).expect("it is there");
        let sent = side.pair.client.transmit(now, &mut side.frame).expect("a RST leaves");
        side.pair.server.receive(now, &side.frame[..sent.len]);
    }
    for (_, accepted) in streams {
        side.pair.server.close(now, accepted).expect("it is there");
    }
}
