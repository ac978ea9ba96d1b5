//! Side channels as guessing games (THREAT-24, THREAT-25, THREAT-28).
//!
//! A game hides a bit in the stack: whether a 4-tuple is in use, whether somebody has a half-open entry, or which of
//! two servers the application talks to. The attacker may send anything with any source address. He sees the packets
//! that reach his own addresses, and guesses like the best published attack. He plays 10,000 rounds. By chance half of
//! his guesses are right, with a standard deviation of half a percent. A share outside of 50 ± 2 % means that he knows
//! something.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use steadfast_core::seq::SeqNum;
use steadfast_core::wire::icmp::Message;
use steadfast_core::wire::tcp::{Flags, Header};
use steadfast_core::wire::{PROTOCOL_TCP, PROTOCOL_UDP, ipv4};
use steadfast_core::{Config, ConnectOptions, Duration, Instant, Interface, ListenOptions, SocketId, Stack};
use steadfast_testkit::{Chance, packets};

const ROUNDS: u32 = 10_000;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 5);

/// An address of the attacker, one in each of his networks.
fn own(network: u16) -> Ipv4Addr {
    let [high, low] = network.to_be_bytes();
    Ipv4Addr::new(10, 128 | high, low, 1)
}

/// A toss of the game, independent of the stack's randomness.
fn coin(chance: &mut Chance) -> bool {
    chance.word() & 1 == 1
}

/// Plays the rounds of a game. A round gets the secret and returns the guess. `None`: the attacker has no idea, and
/// tosses a coin.
#[track_caller]
fn nobody_guesses(what: &str, mut round: impl FnMut(bool, &mut Chance) -> Option<bool>) {
    let mut chance = Chance::new(0x9e37_79b9_7f4a_7c15);
    let mut right = 0;
    for _ in 0..ROUNDS {
        let secret = coin(&mut chance);
        let guess = round(secret, &mut chance).unwrap_or_else(|| coin(&mut chance));
        right += u32::from(guess == secret);
    }
    let share = f64::from(right) / f64::from(ROUNDS);
    println!("{what}: {:.1} % of the guesses are right", share * 100.0);
    assert!((0.48..=0.52).contains(&share), "{what}: {share}");
}

/// Guesses from a number that is larger when the secret is true, by comparing it with the mean of all numbers so far.
#[derive(Default)]
struct Scale {
    sum: f64,
    count: f64,
}

impl Scale {
    fn guess(&mut self, number: f64) -> Option<bool> {
        self.sum += number;
        self.count += 1.0;
        let mean = self.sum / self.count;
        (number != mean).then_some(number > mean)
    }
}

struct World {
    stack: Stack,
    now: Instant,
    frame: Vec<u8>,
    listener: SocketId,
}

/// A packet that reached an address of the attacker.
#[derive(Clone, Copy)]
struct Seen {
    identification: u16,
    header: Option<Header>,
}

impl Seen {
    fn rst(&self) -> bool {
        self.header.is_some_and(|header| header.flags.rst())
    }
}

fn segment(source: (Ipv4Addr, u16), port: u16, seq: u32, ack: u32, flags: Flags) -> Vec<u8> {
    let (seq, ack) = (SeqNum(seq), SeqNum(ack));
    let header = Header { seq, ack, flags, window: 10_000, ..Header::default() };
    packets::segment(source.into(), (SERVER, port).into(), header, &[])
}

fn packet(source: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    packets::ip(source.into(), SERVER.into(), protocol, payload)
}

impl World {
    fn new(configure: impl FnOnce(&mut Config)) -> World {
        let mut config = Config { secret: [42; 32], tcp_rcvbuf: 10_000, ..Config::default() };
        configure(&mut config);
        let mut stack = Stack::new(config, Interface::new(1500, [(IpAddr::V4(SERVER), 8)]));
        let options = ListenOptions { backlog: 4096, ..ListenOptions::default() };
        let listener = stack.listen(SocketAddr::new(SERVER.into(), 80), options).unwrap();
        World { stack, now: Instant::from_secs(1), frame: vec![0; 1500], listener }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.stack.advance(self.now);
        self.seen();
    }

    fn send(&mut self, packet: &[u8]) {
        self.stack.receive(self.now, packet);
    }

    /// Returns all packets that the stack sends, with their destinations.
    fn sent(&mut self) -> Vec<(Ipv4Addr, Seen)> {
        let mut sent = Vec::new();
        while let Some(transmit) = self.stack.transmit(self.now, &mut self.frame) {
            let (ip, payload) = ipv4::parse(&self.frame[..transmit.len]).unwrap();
            let is_tcp = ip.protocol == PROTOCOL_TCP;
            let header = is_tcp.then(|| Header::parse(payload).unwrap().0);
            sent.push((ip.destination, Seen { identification: ip.identification, header }));
        }
        sent
    }

    /// Returns the packets that the attacker sees.
    fn seen(&mut self) -> Vec<Seen> {
        let mine = |(to, seen): (Ipv4Addr, Seen)| (to.octets()[1] >= 128).then_some(seen);
        self.sent().into_iter().filter_map(mine).collect()
    }

    /// A client completes a handshake. Returns the next sequence numbers of both sides.
    fn open(&mut self, client: (Ipv4Addr, u16), iss: u32) -> (u32, u32) {
        self.seen();
        self.send(&segment(client, 80, iss, 0, Flags::SYN));
        let (_, seen) = self.sent().pop().expect("a SYN-ACK");
        let irs = seen.header.unwrap().seq.0;
        self.send(&segment(client, 80, iss + 1, irs.wrapping_add(1), Flags::ACK));
        self.stack.accept(self.listener).expect("a connection");
        (iss + 1, irs.wrapping_add(1))
    }
}

const STRAY: Duration = Duration::from_millis(130);
const ACK: Flags = Flags::ACK;

/// Rate limits that allow a burst of 6 RSTs for one network, and of 25 for all.
fn small_budget(config: &mut Config) {
    config.tcp_rst_limit = 200;
}

/// The flow that may be at the secret 4-tuple, and how it begins and ends.
#[derive(Clone, Copy, Debug)]
enum Life {
    Connection,
    HalfOpen,
    Opening,
    TimeWait,
}

/// The victim's port in a round.
fn port_of(round: u32) -> u16 {
    20_000 + (round % 30_000) as u16
}

impl World {
    /// Begins a flow at the victim's port.
    fn begin(&mut self, life: Life, port: u16) -> Option<SocketId> {
        let client = (VICTIM, port);
        match life {
            Life::Connection => drop(self.open(client, 1_000_000)),
            Life::HalfOpen => self.send(&segment(client, 80, 1_000_000, 0, Flags::SYN)),
            Life::Opening => {
                let options = ConnectOptions { local_port: Some(80), ..ConnectOptions::default() };
                let to = SocketAddr::new(VICTIM.into(), port);
                return Some(self.stack.connect(self.now, to, options).unwrap());
            }
            Life::TimeWait => {
                self.seen();
                self.send(&segment(client, 80, 1_000_000, 0, Flags::SYN));
                let irs = self.sent().pop().unwrap().1.header.unwrap().seq.0;
                let next = irs.wrapping_add(1);
                self.send(&segment(client, 80, 1_000_001, next, ACK));
                let (id, _) = self.stack.accept(self.listener).unwrap();
                self.stack.close(self.now, id).unwrap();
                self.seen();
                self.send(&segment(client, 80, 1_000_001, next.wrapping_add(1), ACK | Flags::FIN));
                assert_eq!(self.stack.usage().time_wait, 1);
            }
        }
        self.seen();
        None
    }

    fn end(&mut self, life: Life, port: u16, socket: Option<SocketId>) {
        let client = (VICTIM, port);
        match (life, socket) {
            (_, Some(id)) => {
                self.stack.abort(self.now, id).unwrap();
                self.stack.close(self.now, id).ok();
            }
            (Life::TimeWait, None) => self.pass(Duration::from_secs(61)),
            (_, None) => self.send(&segment(client, 80, 1_000_001, 0, Flags::RST)),
        }
        let usage = self.stack.usage();
        assert_eq!((usage.connections, usage.half_open, usage.opening, usage.time_wait), (0, 0, 0, 0));
    }
}

/// A stray segment that the attacker sends in the victim's name, of any kind that triggers a RST.
fn probe(port: u16, chance: &mut Chance) -> Vec<u8> {
    let sorts = [ACK, ACK | Flags::PSH, ACK | Flags::FIN, Flags::SYN | ACK, Flags::FIN];
    let flags = sorts[chance.word() as usize % sorts.len()];
    segment((VICTIM, port), 80, chance.word(), chance.word(), flags)
}

/// THREAT-24, THREAT-25: the RST limit of a network of the attacker that shares its slot with the victim's. His
/// segments in the victim's name trigger RSTs if the 4-tuple is unused; the limit must not reveal that.
#[test]
fn a_shared_budget_of_resets_does_not_tell_of_a_connection_threat_24_threat_25() {
    for life in [Life::Connection, Life::HalfOpen, Life::Opening, Life::TimeWait] {
        let mut world = World::new(small_budget);
        let mut chance = Chance::new(7);
        // He finds out beforehand which of his networks shares the slot: its budget is used up together with the
        // victim's.
        let shares = |world: &mut World, chance: &mut Chance, network: u16| {
            (0..4).all(|_| {
                world.pass(STRAY);
                (0..7).for_each(|_| world.send(&probe(9, chance)));
                world.seen();
                world.send(&segment((own(network), 4000), 9, 1, 1, ACK));
                world.seen().is_empty()
            })
        };
        let network = (0..4096).find(|network| shares(&mut world, &mut chance, *network));
        let network = network.expect("with so many networks he has one in every slot");
        let mut count = 0;
        nobody_guesses(&format!("a shared slot, {life:?}"), |secret, chance| {
            count += 1;
            let port = port_of(count);
            let socket = if secret { Some(world.begin(life, port)) } else { None };
            world.pass(STRAY);
            (0..7).for_each(|_| world.send(&probe(port, chance)));
            world.seen();
            world.send(&segment((own(network), 4000), 9, 1, 1, ACK));
            let answered = world.seen().iter().any(Seen::rst);
            if let Some(socket) = socket {
                world.end(life, port, socket);
            }
            Some(answered)
        });
    }
}

/// THREAT-24, THREAT-25: the same by the rest of the common budget, which he uses up from five of his networks and
/// counts.
#[test]
fn what_is_left_of_the_budget_of_resets_does_not_tell_of_a_connection_threat_24_threat_25() {
    let mut world = World::new(small_budget);
    let (mut count, mut scale) = (0, Scale::default());
    nobody_guesses("the budget of all", |secret, chance| {
        count += 1;
        let port = port_of(count);
        let life = [Life::Connection, Life::HalfOpen][count as usize % 2];
        let socket = if secret { Some(world.begin(life, port)) } else { None };
        let mut left = 0;
        for _ in 0..4 {
            world.pass(STRAY);
            (0..7).for_each(|_| world.send(&probe(port, chance)));
            for network in 0..5 {
                (0..7).for_each(|_| world.send(&segment((own(network), 4000), 9, 1, 1, ACK)));
            }
            left += world.seen().iter().filter(|seen| seen.rst()).count();
        }
        if let Some(socket) = socket {
            world.end(life, port, socket);
        }
        scale.guess(left as f64)
    });
}

/// THREAT-24: the attack on challenge ACKs (CVE-2016-5696). A SYN-ACK in the victim's name is challenged if there is a
/// connection. The attacker then counts how many challenges his own connection has left.
#[test]
fn challenge_acks_of_one_connection_do_not_tell_of_another_threat_24() {
    let mut world = World::new(|_| {});
    let (seq, _) = world.open((own(0), 4000), 5_000_000);
    let mut scale = Scale::default();
    let mut count = 0;
    nobody_guesses("challenge ACKs", |secret, _| {
        count += 1;
        let port = port_of(count);
        if secret {
            world.begin(Life::Connection, port);
        }
        world.pass(Duration::from_millis(1100));
        for n in 0..10 {
            world.send(&segment((VICTIM, port), 80, n * 400_000_000, n, Flags::SYN | ACK));
        }
        for n in 1..=20 {
            world.send(&segment((own(0), 4000), 80, seq + n, 0, Flags::RST));
        }
        let challenges = world.seen().len();
        assert!(challenges > 0, "his own connection lives");
        world.send(&segment((VICTIM, port), 80, 1_000_001, 0, Flags::RST));
        assert_eq!(world.stack.usage().connections, 1);
        scale.guess(challenges as f64)
    });
}

/// THREAT-25: the attack on the limit of ICMP errors (SAD DNS, CVE-2020-25705). Datagrams in the victim's name go to
/// the ports that he might use, then one of the attacker's own: is there an error left for it?
#[test]
fn the_budget_of_icmp_errors_does_not_tell_which_ports_are_in_use_threat_25() {
    let mut world = World::new(|config| config.icmp_ratelimit = 200);
    let udp = |from: Ipv4Addr, port: u16| {
        let [high, low] = port.to_be_bytes();
        packet(from, PROTOCOL_UDP, &[0x30, 0x39, high, low, 0, 8, 0, 0])
    };
    let (mut count, mut scale) = (0, Scale::default());
    nobody_guesses("ICMP errors", |secret, _| {
        count += 1;
        let port = port_of(count);
        let to = SocketAddr::new(VICTIM.into(), 53);
        let options = ConnectOptions { local_port: Some(port), ..ConnectOptions::default() };
        let socket = secret.then(|| world.stack.connect(world.now, to, options).unwrap());
        world.pass(STRAY);
        (0..7).for_each(|_| world.send(&udp(VICTIM, port)));
        for network in 0..5 {
            (0..7).for_each(|_| world.send(&udp(own(network), port)));
        }
        let errors = world.seen().len();
        if let Some(id) = socket {
            world.stack.abort(world.now, id).unwrap();
        }
        scale.guess(errors as f64)
    });
}

/// THREAT-25: the identification of packets is not a count of packets to others (idle scan, CVE-2020-36516).
#[test]
fn the_identification_does_not_tell_what_others_drew_threat_25() {
    let mut world = World::new(|config| config.tcp_rst_limit = 0);
    let request = Message::EchoRequest { ident: 1, sequence: 1, data: b"x" };
    let ping = packets::icmp(own(0).into(), SERVER.into(), &request).unwrap();
    nobody_guesses("identifications", |secret, _| {
        world.pass(Duration::from_secs(1));
        let mut ids = Vec::new();
        for half in 0..2 {
            world.send(&ping);
            world.send(&segment((own(0), 4000), 9, 1, 1, ACK));
            let seen = world.seen();
            assert_eq!(seen.len(), 2);
            ids.extend(seen.iter().map(|seen| seen.identification));
            if secret && half == 0 {
                (0..9).for_each(|n| world.send(&segment((VICTIM, 4000), 9, n, 1, ACK)));
            }
        }
        let steps: u32 = ids.windows(2).map(|pair| u32::from(pair[1].wrapping_sub(pair[0]))).sum();
        (steps > 0).then_some(steps > 9)
    });
}

/// THREAT-25: a half-open entry of somebody else in a table that the attacker fills (the idle scan by the backlog). The
/// test tells him for each of his SYNs whether a cookie answered it, which he would have to find out.
#[test]
fn cookies_do_not_tell_how_many_entries_others_have_threat_25() {
    const SIZE: u32 = 2048;
    for (level, samples) in [(SIZE / 2, 50), (SIZE * 3 / 4, 50), (SIZE - 1, 10)] {
        let mut world = World::new(|config| {
            config.tcp_max_syn_backlog = SIZE;
            config.tcp_invalid_ratelimit = Duration::ZERO;
        });
        let syn = |world: &mut World, from: Ipv4Addr, port: u16| {
            let before = world.stack.counters().syncookies_sent;
            world.send(&segment((from, port), 80, 1, 0, Flags::SYN));
            let cookie = world.stack.counters().syncookies_sent > before;
            world.seen();
            cookie
        };
        // As full as he can make it.
        for n in 0..400_000 {
            if world.stack.usage().half_open >= level as usize {
                break;
            }
            syn(&mut world, own((n >> 12 & 31) as u16), 10_000 + (n & 4095) as u16);
        }
        let own_entries = world.stack.usage().half_open;
        let mut scale = Scale::default();
        let mut count = 0_u32;
        nobody_guesses(&format!("cookies with {own_entries} entries of his"), |secret, _| {
            count += 1;
            if secret {
                syn(&mut world, VICTIM, port_of(count));
            }
            let mut cookies = 0;
            for n in 0..samples {
                let me = (own(200), 1000 + n);
                cookies += u32::from(syn(&mut world, me.0, me.1));
                world.send(&segment(me, 80, 2, 0, Flags::RST));
            }
            if secret {
                world.send(&segment((VICTIM, port_of(count)), 80, 2, 0, Flags::RST));
            }
            assert_eq!(world.stack.usage().half_open, own_entries);
            scale.guess(f64::from(cookies))
        });
    }
}

/// THREAT-25, THREAT-28: the port counters (CVE-2022-32296). The attacker owns many destinations. He first finds the
/// one that shares its counter with a server. He later uses it to see whether the application connected to that server.
#[test]
fn port_counters_do_not_tell_where_others_connect_threat_25_threat_28() {
    let mut world = World::new(|_| {});
    let range = world.stack.config().ip_local_port_range;
    let count = i32::from(range.last()) - i32::from(range.first()) + 1;
    let connect = |world: &mut World, to: SocketAddr| {
        let id = world.stack.connect(world.now, to, ConnectOptions::default()).unwrap();
        let port = world.stack.local_addr(id).unwrap().port();
        world.stack.abort(world.now, id).unwrap();
        world.stack.close(world.now, id).ok();
        world.seen();
        i32::from(port)
    };
    let servers = [10, 11].map(|n| SocketAddr::new(Ipv4Addr::new(10, 77, 0, n).into(), 443));
    let mine = |n: u16| SocketAddr::new(own(0).into(), n);
    // How far a destination's ports advance while the application connects to a server four times.
    let moved = |world: &mut World, mine: SocketAddr, server: SocketAddr| {
        let before = connect(world, mine);
        for _ in 0..4 {
            connect(world, server);
        }
        (connect(world, mine) - before).rem_euclid(count)
    };
    let best = (1..4000_u16).max_by_key(|n| {
        let mut closest = i32::MAX;
        for _ in 0..3 {
            let far = moved(&mut world, mine(*n), servers[0]);
            closest = closest.min(if far > 40 { 0 } else { far });
        }
        closest
    });
    let mine = mine(best.unwrap());
    let mut scale = Scale::default();
    nobody_guesses("port counters", |secret, _| {
        world.pass(Duration::from_secs(11));
        let far = moved(&mut world, mine, servers[usize::from(!secret)]);
        scale.guess(f64::from(far))
    });
}
