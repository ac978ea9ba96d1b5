//! Defects found by the fuzz targets, each as a small exchange.

mod common;

use common::{Pair, SERVER, Side, pattern};
use steadfast_core::seq::SeqNum;
use steadfast_core::trace::TraceKind;
use steadfast_core::wire::tcp::{Flags, Header, Options};
use steadfast_core::{Config, Duration, Error, Instant, Interface, ListenOptions, SocketOptions, Stack};
use steadfast_testkit::{next_segment, packets};

/// A segment from 10.0.0.1:1000 to the server.
fn segment(header: Header) -> Vec<u8> {
    packets::segment(([10, 0, 0, 1], 1000).into(), SERVER.parse().unwrap(), header, &[])
}

/// Returns the next segment that a stack sends.
fn next(stack: &mut Stack, now: Instant) -> Option<Header> {
    Some(next_segment(stack, now, &mut vec![0; 65_535])?.header)
}

fn listening() -> (Stack, steadfast_core::SocketId) {
    let interface = Interface::new(1500, [("10.0.0.2".parse().unwrap(), 24)]);
    let mut stack = Stack::new(Config { tcp_rcvbuf: 1 << 20, ..Config::default() }, interface);
    let listener = stack.listen(SERVER.parse().unwrap(), ListenOptions::default()).unwrap();
    (stack, listener)
}

fn syn() -> Vec<u8> {
    let options = Options { window_scale: Some(7), ..Options::default() };
    segment(Header { seq: SeqNum(99), flags: Flags::SYN, window: 1000, options, ..Header::default() })
}

#[test]
fn an_ack_of_a_half_open_connection_announces_no_more_than_its_syn_ack_7323_2() {
    let (mut stack, _) = listening();
    let now = Instant::from_secs(1);
    stack.receive(now, &syn()[..]);
    let syn_ack = next(&mut stack, now).unwrap();
    let scale = syn_ack.options.window_scale.unwrap();
    assert!(scale > 0);
    let (seq, ack) = (SeqNum(5_000_000), syn_ack.seq + 1);
    let outside = Header { seq, ack, flags: Flags::ACK, window: 1000, ..Header::default() };
    stack.receive(now, &segment(outside)[..]);
    let answer = next(&mut stack, now).unwrap();
    let announced = u32::from(answer.window) << scale;
    assert!(!answer.flags.syn() && announced.abs_diff(u32::from(syn_ack.window)) < 1 << scale, "{announced}");
}

#[test]
fn a_receive_buffer_set_after_listen_changes_nothing_that_a_syn_ack_said() {
    let (mut stack, listener) = listening();
    let now = Instant::from_secs(1);
    stack.receive(now, &syn()[..]);
    let syn_ack = next(&mut stack, now).unwrap();
    let before = SocketOptions::new(stack.config());
    let change = |o: &mut SocketOptions| (o.rcvbuf, o.rcvbuf_max, o.nodelay) = (1 << 28, 1 << 29, true);
    let options = before.clone().with(change);
    stack.set_options(now, listener, options).unwrap();
    let ack =
        Header { seq: SeqNum(100), ack: syn_ack.seq + 1, flags: Flags::ACK, window: 9, ..Header::default() };
    stack.receive(now, &segment(ack)[..]);
    let (socket, _) = stack.accept(listener).unwrap();
    assert_eq!(stack.info(now, socket).unwrap().rcv_wscale, syn_ack.options.window_scale);
    let options = stack.options(socket).unwrap();
    assert_eq!(options.rcvbuf, 1 << 20);
    assert_eq!(*options, before.with(|o| o.nodelay = true));
}

#[test]
fn what_is_sent_again_beside_sack_blocks_fits_the_mtu_must_16() {
    for timestamps in [true, false] {
        let config = Config { tcp_timestamps: timestamps, ..Config::default() };
        let mut pair = Pair::new(config);
        let (client, server) = pair.connect();
        // Both send at once and lose much: retransmissions and SACK blocks share segments.
        pair.wire = Box::new(|side, n, packet| {
            assert!(packet.len() <= 1500, "a packet of {} bytes", packet.len());
            packet.len() < 1000 || n % if side == Side::Client { 3 } else { 4 } != 1
        });
        let data = pattern(200_000);
        let (mut sent, mut got) = ([0; 2], [0; 2]);
        let deadline = pair.now + Duration::from_secs(3600);
        while got != [data.len(); 2] {
            for (n, (side, id)) in [(Side::Client, client), (Side::Server, server)].into_iter().enumerate() {
                match pair.stack(side).send(id, &data[sent[n]..]) {
                    Ok(count) => sent[n] += count,
                    Err(error) => assert_eq!(error, Error::WouldBlock),
                }
                while let Ok(count @ 1..) = pair.stack(side).recv(id, &mut [0; 10_000]) {
                    got[n] += count;
                }
            }
            assert!(pair.step(deadline));
        }
    }
}

#[test]
fn keepalive_leaves_a_connection_alone_whose_data_is_under_way_must_26() {
    let config = Config { tcp_retries2: 255, ..Config::default() };
    let mut pair = Pair::new(config);
    let (client, _) = pair.connect();
    let idle = Duration::from_secs(10);
    let options = SocketOptions::new(pair.client.config())
        .with(|o| (o.keepalive, o.keepalive_time, o.r2) = (true, idle, None));
    pair.client.set_options(pair.now, client, options).unwrap();
    pair.wire = Box::new(|_, _, _| false);
    pair.client.send(client, b"data").unwrap();
    pair.client.set_tracing(true);
    pair.run_for(Duration::from_secs(100));
    let mut timers = 0;
    while let Some(event) = pair.client.poll_trace() {
        timers += u32::from(matches!(event.kind, TraceKind::Timer(_)));
    }
    assert!(timers < 30, "{timers} timers in 100 s");
    assert_eq!(pair.client.counters().tcp_keep_alive, 0);
}
