//! `mem_flows`: a thousand transfers over paths of 20 ms in virtual time, without a loss and with one packet in a hundred
//! lost (row M19 of docs/paths.md).

use std::collections::VecDeque;

use steadfast_core::socket::Event;
use steadfast_core::{Duration, Instant, SocketId, Stack};
use steadfast_testkit::Chance;

use crate::measure::{Effort, Rounds, rate};
use crate::ours::Stacks;
use crate::pair::Setup;
use crate::report::{Goal, Row, Unit};

const FLOWS: usize = 1000;
const ONE_WAY: Duration = Duration::from_millis(10);
const TURN: Duration = Duration::from_millis(1);
/// Bytes of a send buffer: about what such losses leave of a window, so that both paths carry windows of one size.
const WINDOW: u32 = 16 * 1024;
/// Turns before the measurement: two seconds.
const WARM_UP: usize = 2000;

/// One direction of the paths.
#[derive(Default)]
struct Line {
    /// Packets by their arrival.
    packets: VecDeque<(Instant, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl Line {
    /// Takes in what `from` sends, except one packet in a hundred, if `lost` is there.
    fn take(&mut self, from: &mut Stack, now: Instant, lost: Option<&mut Chance>) {
        let mut lost = lost;
        loop {
            let mut packet = self.spare.pop().unwrap_or_else(|| vec![0; 1500]);
            packet.resize(1500, 0);
            let Some(sent) = from.transmit(now, &mut packet) else {
                self.spare.push(packet);
                return;
            };
            packet.truncate(sent.len);
            match lost.as_mut().is_some_and(|chance| chance.below(100) == 0) {
                true => self.spare.push(packet),
                false => self.packets.push_back((now + ONE_WAY, packet)),
            }
        }
    }

    fn deliver(&mut self, to: &mut Stack, now: Instant) {
        while self.packets.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, packet)) = self.packets.pop_front()
        {
            to.receive(now, &packet[..]);
            self.spare.push(packet);
        }
    }
}

struct Flows {
    stacks: Stacks,
    there: Line,
    back: Line,
    now: Instant,
    lost: Option<Chance>,
    buffer: Vec<u8>,
}

impl Flows {
    fn new(lossy: bool) -> Flows {
        let mut stacks = Stacks::unconnected(&Setup::PLAIN, |_| {});
        let streams: Vec<SocketId> = (0..FLOWS).map(|_| stacks.connect(0, None).0).collect();
        let now = stacks.now();
        let mut flows = Flows {
            stacks,
            there: Line::default(),
            back: Line::default(),
            now,
            lost: lossy.then_some(Chance::new(0x9e37_79b9_7f4a_7c15)),
            buffer: vec![1; 65_536],
        };
        let client = &mut flows.stacks.client;
        for id in streams {
            let mut options = client.options(id).expect("it is open").clone();
            options.sndbuf = WINDOW;
            client.set_options(now, id, options).expect("it is open");
            client.send(id, &flows.buffer[..WINDOW as usize]).expect("there is room");
        }
        (0..WARM_UP).for_each(|_| _ = flows.turn());
        flows
    }

    /// Lets a millisecond pass. Returns the bytes that the server's application read.
    fn turn(&mut self) -> usize {
        self.now += TURN;
        let Stacks { client, server, .. } = &mut self.stacks;
        self.there.deliver(server, self.now);
        self.back.deliver(client, self.now);
        while client.poll_at().is_some_and(|at| at <= self.now) {
            client.advance(self.now);
        }
        while server.poll_at().is_some_and(|at| at <= self.now) {
            server.advance(self.now);
        }
        let mut read = 0;
        while let Some((id, event)) = server.poll_event() {
            while event.contains(Event::READABLE)
                && let Ok(count) = server.recv(id, &mut self.buffer)
            {
                read += count;
            }
        }
        while let Some((id, event)) = client.poll_event() {
            if event.contains(Event::WRITABLE) {
                while client.send(id, &self.buffer[..WINDOW as usize]).is_ok() {}
            }
        }
        self.there.take(client, self.now, self.lost.as_mut());
        self.back.take(server, self.now, None);
        read
    }
}

/// The rate for a second of CPU time, and the sender's memory for each transfer.
pub(crate) fn run(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut paths = [false, true].map(Flows::new);
    let mut rounds = [Rounds::default(), Rounds::default()];
    for round in 0..effort.rounds {
        progress(format!("mem_flows: round {round} of {}", effort.rounds));
        for (flows, rounds) in paths.iter_mut().zip(&mut rounds) {
            rounds.0.push(rate(effort.seconds, || flows.turn() as f64 * 8.0));
        }
    }
    let [clean, lossy] = rounds;
    let row = |name: &str, unit, ours, goal| Row { name: name.to_string(), unit, ours, peer: None, goal };
    let mut rows = vec![
        row("mem_flows", Unit::Bits, clean, Goal::Open),
        row("mem_flows 1% lost", Unit::Bits, lossy, Goal::Part(0.95, "mem_flows")),
    ];
    for (name, flows) in ["mem_flows memory", "mem_flows 1% memory"].into_iter().zip(paths) {
        let held = -allocation_counter::measure(|| drop(flows.stacks.client)).bytes_current;
        rows.push(row(name, Unit::Bytes, Rounds(vec![held as f64 / FLOWS as f64]), Goal::Open));
    }
    rows
}
