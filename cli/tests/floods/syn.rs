//! SYN floods: THREAT-1, THREAT-2.

use std::net::SocketAddr;
use std::time::Duration;

use etherparse::TcpHeader;

use crate::scene::{Client, Clients, ECHO, Scene};
use crate::wire::{anybody, either, segment};

const FLOOD: Duration = Duration::from_secs(3);
/// THREAT-1: limit of the memory in a SYN flood.
const MEMORY: u64 = 16 << 20;
/// Limit of half-open connections: a backlog of 1024 for the listener on each of the server's addresses.
const HALF_OPEN: u64 = 2 * 1024;

/// A SYN with the usual options, to one of the server's addresses.
fn syn(rng: &mut fastrand::Rng) -> Vec<u8> {
    const OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let to = either(rng);
    let (from, seq) = (anybody(rng, to), rng.u32(..));
    let header = |tcp: &mut TcpHeader| {
        (tcp.syn, tcp.sequence_number) = (true, seq);
        tcp.set_options_raw(&OPTIONS).unwrap();
    };
    segment(from, SocketAddr::new(to, ECHO), header, &[])
}

fn flood_of_syns(cookies: u8) {
    let cookies_are = format!("tcp_syncookies={cookies}");
    let Some(mut scene) = Scene::open(&[&cookies_are, "tcp_max_syn_backlog=1024"]) else { return };
    let mut rng = fastrand::Rng::with_seed(1);
    let before = scene.status();
    let clients = Clients::start();
    let sent = scene.wire.flood(FLOOD, || syn(&mut rng));
    let tally = clients.end();
    let status = scene.status();
    let came = |name: &str| status.counter(name) - before.counter(name);
    println!(
        "cookies {cookies}: {} cookies, {} half-open",
        came("SyncookiesSent"),
        status.usage("half-open"),
    );
    tally.all_went_well();
    assert!(status.usage("half-open") <= HALF_OPEN);
    assert_eq!(came("OutRsts"), 0);
    match cookies {
        2 => assert!(came("SyncookiesSent") >= sent.packets && status.usage("half-open") == 0),
        _ => assert!(came("SyncookiesSent") + HALF_OPEN >= sent.packets),
    }
    scene.took_at_most(MEMORY);
}

/// THREAT-1: with cookies once the queue is full, every client connects at once.
#[test]
fn a_flood_of_syns_is_answered_with_cookies_t01() {
    flood_of_syns(1);
}

/// THREAT-1: if cookies are always sent, no SYN leaves any state.
#[test]
fn a_flood_of_syns_leaves_nothing_where_cookies_are_always_sent_t01() {
    flood_of_syns(2);
}

/// THREAT-1 without cookies: established connections survive, the queue stays within its bound, and new clients can
/// connect once the flood is over.
#[test]
fn without_cookies_a_flood_of_syns_keeps_out_new_clients_only_t01() {
    let settings = ["tcp_syncookies=0", "tcp_max_syn_backlog=1024", "tcp_synack_retries=1"];
    let Some(mut scene) = Scene::open(&settings) else { return };
    let mut rng = fastrand::Rng::with_seed(2);
    let mut client = Client::connect().unwrap();
    let before = scene.status();
    for _ in 0..4 {
        scene.wire.flood(FLOOD / 6, || syn(&mut rng));
        client.ask(10_000).unwrap();
    }
    let status = scene.status();
    assert!((1..=HALF_OPEN).contains(&status.usage("half-open")));
    assert!(status.counter("TCPReqQFullDrop") > before.counter("TCPReqQFullDrop"));
    assert_eq!(status.counter("SyncookiesSent"), 0);
    // SYN-ACKs are sent twice, and time out three seconds after the first.
    Client::connect().unwrap().ask(100).unwrap();
    scene.took_at_most(MEMORY);
}
