//! Packets that claim to come from routers or from the stack itself: THREAT-30, THREAT-31, THREAT-39.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use etherparse::{IpNumber, TcpHeader};

use crate::scene::{Client, ECHO, Over, Scene};
use crate::segments::Victim;
use crate::wire::{OURS, icmp, ours, packet, segment, tcp_of};

const FLOOD: Duration = Duration::from_secs(2);
/// A path MTU occupies a bounded table; errors occupy nothing.
const MEMORY: u64 = 4 << 20;
/// Destination unreachable.
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;

/// The start of a segment from the server, as a router quotes it in an error.
fn quoted(to: SocketAddr, seq: u32) -> Vec<u8> {
    let header = |tcp: &mut TcpHeader| (tcp.ack, tcp.sequence_number) = (true, seq);
    let mut whole = segment(ours(ECHO), to, header, &[0; 1400]);
    whole.truncate(28);
    whole
}

/// THREAT-30, THREAT-31: a transfer continues in full segments under forged ICMP errors. They quote segments in flight
/// and others, and report unreachable hosts, protocols and ports, and a path MTU of 68 bytes.
#[test]
fn forged_errors_neither_end_nor_slow_a_transfer_t30_t31() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let Victim { mut client, from, server_first, .. } = Victim::connect(&mut scene.wire);
    let mut rng = fastrand::Rng::with_seed(5);
    let before = scene.status();
    let (asked, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let router = IpAddr::from([203, 0, 113, 1]);
    thread::scope(|scope| {
        let told = Over(&over);
        let transfer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                client.ask(100_000).unwrap();
                asked.fetch_add(100_000, Ordering::Relaxed);
            }
        });
        scene.wire.flood(FLOOD, || {
            let here = server_first.wrapping_add(asked.load(Ordering::Relaxed));
            let seq = if rng.bool() { here.wrapping_add(rng.u32(..100_000)) } else { rng.u32(..) };
            let code = *rng.choice(&[0, 1, 2, 3, FRAGMENTATION_NEEDED, 9, 10, 13]).unwrap();
            let rest = if code == FRAGMENTATION_NEEDED { 68 } else { 0 };
            icmp(router, UNREACHABLE, code, rest, &quoted(from, seq))
        });
        drop(told);
        transfer.join().unwrap();
    });
    let status = scene.status();
    let bytes = asked.load(Ordering::Relaxed);
    let resent = status.counter("RetransSegs") - before.counter("RetransSegs");
    println!("{bytes} bytes each way beside forged errors, {resent} segments sent again");
    assert!(bytes >= 1_000_000);
    assert_eq!(status.counter("EstabResets"), before.counter("EstabResets"));
    scene.wire.drain();
    client.ask(20_000).unwrap();
    let sent = scene.wire.drain();
    let longest = sent.iter().filter(|packet| tcp_of(packet).is_some()).map(Vec::len).max();
    assert!(longest >= Some(1500), "the longest segment after it has {longest:?} bytes");
    scene.took_at_most(MEMORY);
}

/// THREAT-39: a SYN whose source equals its destination gets no answer, from any address and port.
#[test]
fn land_draws_no_answer_t39() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let syn = |tcp: &mut TcpHeader| (tcp.syn, tcp.sequence_number) = (true, 1);
    let mut packets = Vec::new();
    for address in OURS {
        for port in [ECHO, 9999] {
            let end = SocketAddr::new(address, port);
            packets.push(segment(end, end, syn, &[]));
            packets.push(segment(end, end, |tcp| (tcp.syn, tcp.ack) = (true, true), &[]));
        }
    }
    let answers = scene.wire.answers(packets.iter().map(Vec::as_slice));
    assert!(answers.is_empty(), "{answers:02x?}");
    let usage = scene.status();
    assert_eq!(usage.usage("half-open"), 0);
    Client::connect().unwrap().ask(100).unwrap();
}

/// THREAT-63: packets with an impossible source address or a multicast or broadcast destination get no answer.
#[test]
fn impossible_sources_and_destinations_draw_no_answer_t63() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let syn = |tcp: &mut TcpHeader| (tcp.syn, tcp.sequence_number) = (true, 1);
    let end = |octets: [u8; 4]| SocketAddr::from((octets, 40_000));
    let sources = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [127, 9, 9, 9],
        [224, 0, 0, 1],
        [239, 255, 255, 250],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
        [10, 9, 0, 255],
    ];
    let destinations = [
        [10, 9, 0, 255],
        [255, 255, 255, 255],
        [224, 0, 0, 1],
        [127, 0, 0, 1],
        [10, 9, 0, 3],
        [0, 0, 0, 0],
        [240, 0, 0, 1],
    ];
    let mut packets = Vec::new();
    for port in [ECHO, 9999] {
        packets.extend(sources.map(|source| segment(end(source), ours(port), syn, &[])));
        let to = |octets: [u8; 4]| SocketAddr::from((octets, port));
        packets.extend(destinations.map(|octets| segment(end([10, 9, 0, 50]), to(octets), syn, &[])));
    }
    let v6 =
        ["::", "::1", "ff02::1", "::ffff:10.9.0.50"].map(|text| SocketAddr::new(text.parse().unwrap(), 1));
    packets.extend(v6.map(|source| segment(source, SocketAddr::new(OURS[1], ECHO), syn, &[])));
    let answers = scene.wire.answers(packets.iter().map(Vec::as_slice));
    assert!(answers.is_empty(), "{answers:02x?}");
    // The same SYN from a possible source is answered.
    let fine = segment(end([10, 9, 0, 50]), ours(ECHO), syn, &[]);
    assert_eq!(scene.wire.answers([fine.as_slice()]).len(), 1);
    // A valid packet of another protocol, to show that the rule is not specific to TCP.
    let odd = packet([127, 0, 0, 1].into(), OURS[0], IpNumber::UDP, &[0, 1, 0, 7, 0, 8, 0, 0]);
    assert!(scene.wire.answers([odd.as_slice()]).is_empty());
}
