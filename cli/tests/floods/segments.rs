//! Floods of segments without a connection, and forged segments on live connections: THREAT-5, THREAT-7, THREAT-21,
//! THREAT-22, THREAT-23.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::TcpHeader;

use crate::scene::{Client, Clients, ECHO, Over, Scene};
use crate::wire::{Wire, anybody, either, ours, segment, tcp_of};

const FLOOD: Duration = Duration::from_secs(3);
/// A segment without a connection leaves no state.
const MEMORY: u64 = 4 << 20;
/// `tcp_challenge_ack_limit`, per connection and second.
const CHALLENGES: u64 = 5;
const CLOSED: u16 = 9999;

/// A segment with these flags from a random host to one of two ports.
fn stray(rng: &mut fastrand::Rng, flags: impl Fn(&mut TcpHeader)) -> Vec<u8> {
    let to = SocketAddr::new(either(rng), if rng.bool() { ECHO } else { CLOSED });
    let from = anybody(rng, to.ip());
    let (seq, ack) = (rng.u32(..), rng.u32(..));
    let header = |tcp: &mut TcpHeader| {
        (tcp.sequence_number, tcp.acknowledgment_number) = (seq, ack);
        flags(tcp);
    };
    segment(from, to, header, &[])
}

/// Floods the server with such segments next to clients. Returns the number of RSTs that it sent, and the seconds.
fn flood_of_strays(what: &str, flags: impl Fn(&mut TcpHeader)) -> Option<(u64, f64)> {
    let mut scene = Scene::open(&[])?;
    let mut rng = fastrand::Rng::with_seed(3);
    let before = scene.status().counter("OutRsts");
    let clients = Clients::start();
    let sent = scene.wire.flood(FLOOD, || stray(&mut rng, &flags));
    let tally = clients.end();
    let resets = scene.status().counter("OutRsts") - before;
    println!("{what}: {resets} RSTs");
    tally.all_went_well();
    scene.took_at_most(MEMORY);
    Some((resets, sent.took.as_secs_f64()))
}

/// THREAT-5: RSTs stay within `tcp_rst_limit`, 1,000 per second, and clients are not affected.
#[test]
fn a_flood_of_acks_draws_no_more_resets_than_the_limit_t05() {
    let Some((resets, seconds)) = flood_of_strays("ACKs", |tcp| tcp.ack = true) else { return };
    assert!(resets > 0 && resets as f64 <= 1000.0 * (seconds + 1.0), "{resets} RSTs in {seconds} s");
}

/// THREAT-5, THREAT-7: FINs without a connection are treated as ACKs are.
#[test]
fn a_flood_of_fins_draws_no_more_resets_than_the_limit_t07() {
    let fin = |tcp: &mut TcpHeader| (tcp.fin, tcp.ack) = (true, true);
    let Some((resets, seconds)) = flood_of_strays("FINs", fin) else { return };
    assert!(resets > 0 && resets as f64 <= 1000.0 * (seconds + 1.0), "{resets} RSTs in {seconds} s");
}

/// THREAT-7: a RST gets no answer.
#[test]
fn a_flood_of_resets_draws_nothing_t07() {
    let Some((resets, _)) = flood_of_strays("RSTs", |tcp| tcp.rst = true) else { return };
    assert_eq!(resets, 0);
}

/// A client's connection and its initial sequence numbers.
pub(crate) struct Victim {
    pub(crate) client: Client,
    pub(crate) from: SocketAddr,
    /// The first sequence number of the client's data.
    pub(crate) first: u32,
    /// The first sequence number of the server's data.
    pub(crate) server_first: u32,
}

impl Victim {
    pub(crate) fn connect(wire: &mut Wire) -> Victim {
        wire.drain();
        let client = Client::connect().unwrap();
        let from = client.local();
        let port = from.port();
        let of = |packet: &[u8], ours: bool| {
            let tcp = tcp_of(packet).filter(|tcp| tcp.syn && tcp.ack == ours)?;
            let its = if ours { tcp.destination_port } else { tcp.source_port };
            (its == port).then(|| tcp.sequence_number.wrapping_add(1))
        };
        let first = wire.find(|packet| of(packet, false));
        let server_first = wire.find(|packet| of(packet, true));
        Victim { client, from, first, server_first }
    }
}

/// A forged segment on a client's connection.
pub(crate) fn forged(from: SocketAddr, seq: u32, payload: &[u8], flags: impl Fn(&mut TcpHeader)) -> Vec<u8> {
    let header = |tcp: &mut TcpHeader| {
        tcp.sequence_number = seq;
        flags(tcp);
    };
    segment(from, ours(ECHO), header, payload)
}

/// THREAT-21: of the RSTs across a whole window exactly one resets the connection, and challenge ACKs stay within their
/// limit.
#[test]
fn of_the_resets_of_a_whole_window_exactly_one_counts_t21() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let mut victim = Victim::connect(&mut scene.wire);
    victim.client.ask(1000).unwrap();
    let next = victim.first.wrapping_add(1000);
    let before = scene.status().counter("TCPChallengeACK");
    let began = Instant::now();
    // Every number once, also those below the window, but not the exact one.
    let offsets: Vec<i32> = (-1000..65_536).filter(|offset| *offset != 0).collect();
    for part in offsets.chunks(500) {
        for offset in part {
            let seq = next.wrapping_add_signed(*offset);
            scene.wire.send(&forged(victim.from, seq, &[], |tcp| tcp.rst = true));
        }
        scene.wire.settle();
    }
    victim.client.ask(1000).unwrap();
    let challenges = scene.status().counter("TCPChallengeACK") - before;
    let seconds = began.elapsed().as_secs() + 2;
    println!("{} RSTs in a window: {challenges} challenge ACKs in {seconds} s", offsets.len());
    assert!((1..=CHALLENGES * seconds).contains(&challenges), "{challenges} in {seconds} s");
    let exact = next.wrapping_add(1000);
    scene.wire.answers([forged(victim.from, exact, &[], |tcp| tcp.rst = true).as_slice()]);
    assert!(victim.client.ask(1000).is_err());
}

/// THREAT-7, THREAT-21, THREAT-22, THREAT-23: a transfer continues unharmed under RSTs and SYNs across its window,
/// FINs, and data with guessed numbers. The client writes even numbers of bytes, so that an odd sequence number never
/// equals RCV.NXT.
#[test]
fn a_live_transfer_survives_what_is_forged_across_its_window_t07_t21_t22_t23() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let Victim { mut client, from, first, server_first } = Victim::connect(&mut scene.wire);
    let mut rng = fastrand::Rng::with_seed(4);
    let before = scene.status();
    let (asked, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let sent = thread::scope(|scope| {
        let told = Over(&over);
        let transfer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                client.ask(20_000).unwrap();
                asked.fetch_add(20_000, Ordering::Relaxed);
            }
        });
        let mut turn = 0;
        let sent = scene.wire.flood(FLOOD, || {
            turn += 1;
            let here = first.wrapping_add(asked.load(Ordering::Relaxed));
            let odd = here.wrapping_add(rng.u32(..65_536) | 1);
            let ack = server_first.wrapping_add(asked.load(Ordering::Relaxed));
            let (any, any_ack) = (rng.u32(..), rng.u32(..));
            match turn % 5 {
                0 => forged(from, odd, &[], |tcp| tcp.rst = true),
                1 => forged(from, odd, &[], |tcp| {
                    (tcp.rst, tcp.ack, tcp.acknowledgment_number) = (true, true, ack)
                }),
                2 => forged(from, here.wrapping_add(rng.u32(..65_536)), &[], |tcp| tcp.syn = true),
                3 => forged(from, any, &[0xee; 100], |tcp| {
                    (tcp.ack, tcp.acknowledgment_number) = (true, any_ack)
                }),
                _ => forged(from, any, &[], |tcp| {
                    (tcp.fin, tcp.ack, tcp.acknowledgment_number) = (true, true, any_ack)
                }),
            }
        });
        drop(told);
        transfer.join().unwrap();
        sent
    });
    let status = scene.status();
    let came = |name: &str| status.counter(name) - before.counter(name);
    let challenges = came("TCPChallengeACK");
    let bytes = asked.load(Ordering::Relaxed);
    println!("beside {bytes} bytes each way: {challenges} challenge ACKs");
    assert!(bytes > 0);
    assert_eq!((came("EstabResets"), came("OutRsts")), (0, 0));
    let seconds = sent.took.as_secs() + 2;
    assert!((1..=CHALLENGES * seconds).contains(&challenges), "{challenges} in {seconds} s");
    scene.took_at_most(MEMORY);
}
