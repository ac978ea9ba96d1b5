//! The life of a connection between two stacks.

mod common;

use common::{Pair, SERVER, SERVER_V6, Side, on_the_wire, pattern};
use steadfast_core::config::MtuProbing;
use steadfast_core::config::PortRange;
use steadfast_core::trace::State;
use steadfast_core::wire::{ipv4, tcp};
use steadfast_core::{Config, ConnectOptions, Duration, Error, Event, ListenOptions, Profile, SocketOptions};

#[test]
fn a_connection_opens_carries_and_ends_n1_n2() {
    for profile in Profile::ALL {
        let mut pair = Pair::new(Config::profile(profile));
        let (client, server) = pair.connect();
        let data = pattern(300_000);
        assert_eq!(pair.transfer((Side::Client, client), (Side::Server, server), &data), data);
        assert_eq!(pair.transfer((Side::Server, server), (Side::Client, client), &data), data);
        pair.client.close(pair.now, client).unwrap();
        pair.run_for(Duration::from_millis(300));
        assert_eq!(pair.server.state(server), Ok(State::CloseWait));
        assert_eq!(pair.server.recv(server, &mut [0; 10]), Ok(0));
        pair.server.close(pair.now, server).unwrap();
        pair.run_for(Duration::from_millis(500));
        assert_eq!(pair.server.usage().connections, 0);
        assert_eq!(pair.client.usage().time_wait, 1, "{profile}");
        pair.run_for(Duration::from_secs(241));
        let usage = pair.client.usage();
        assert_eq!((usage.time_wait, usage.timers, usage.buffered), (0, 0, 0));
    }
}

#[test]
fn loss_both_ways_loses_no_byte() {
    for seed in 0..20u32 {
        let mut pair = Pair::new(Config::default());
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        pair.wire = Box::new(move |_, _, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16 & 0xff > 12
        });
        let listener = pair.server.listen("10.0.0.2:80".parse().unwrap(), Default::default()).unwrap();
        let client =
            pair.client.connect(pair.now, "10.0.0.2:80".parse().unwrap(), Default::default()).unwrap();
        pair.run_for(Duration::from_secs(30));
        let (server, _) = pair.server.accept(listener).unwrap();
        let data = pattern(500_000);
        assert_eq!(pair.transfer((Side::Client, client), (Side::Server, server), &data), data, "seed {seed}");
        assert_eq!(pair.transfer((Side::Server, server), (Side::Client, client), &data), data, "seed {seed}");
    }
}

#[test]
fn both_ends_measure_a_round_trip_in_the_handshake_unless_it_is_ambiguous_6298_2_6298_6() {
    for profile in Profile::ALL {
        let mut pair = Pair::new(Config::profile(profile));
        let (client, server) = pair.connect();
        let rtt = Duration::from_millis(20);
        assert_eq!(pair.client.info(pair.now, client).unwrap().rtt, rtt, "{profile}");
        assert_eq!(pair.server.info(pair.now, server).unwrap().rtt, rtt, "{profile}");

        let mut pair = Pair::new(Config::profile(profile));
        // The first SYN-ACK is lost. The ACK could be for the first or the second.
        pair.wire = Box::new(|side, count, _| side == Side::Client || count > 1);
        let listener = pair.server.listen(common::SERVER.parse().unwrap(), Default::default()).unwrap();
        pair.client.connect(pair.now, common::SERVER.parse().unwrap(), Default::default()).unwrap();
        pair.run_for(Duration::from_secs(10));
        let (server, _) = pair.server.accept(listener).unwrap();
        assert_eq!(pair.server.info(pair.now, server).unwrap().rtt, Duration::ZERO, "{profile}");
    }
}

#[test]
fn urgent_data_is_announced_once_and_read_in_line_must_30_must_31() {
    let mut pair = Pair::new(Config::default());
    let (client, server) = pair.connect();
    pair.client.send(client, b"before").unwrap();
    assert_eq!(pair.client.send_urgent(client, b"now!"), Ok(4));
    pair.client.send(client, b"after").unwrap();
    pair.events.clear();
    pair.run_for(Duration::from_millis(100));
    let urgent = pair.events.iter().filter(|(_, id, event)| *id == server && event.contains(Event::URGENT));
    assert_eq!(urgent.count(), 1);
    assert_eq!(pair.server.readable(server), Ok((15, 10)));
    let mut buffer = [0; 32];
    assert_eq!(pair.server.recv(server, &mut buffer), Ok(15));
    assert_eq!(&buffer[..15], b"beforenow!after");
    assert_eq!(pair.server.readable(server), Ok((0, 0)));
}

#[test]
fn after_a_month_without_a_segment_timers_still_fire_and_ages_are_right_t7() {
    let mut pair = Pair::new(Config { tcp_early_retrans: 0, ..Config::default() });
    let (client, server) = pair.connect();
    pair.now += Duration::from_secs(30 * 86_400);
    let age = pair.client.info(pair.now, client).unwrap().state_age;
    assert!(age > Duration::from_secs(30 * 86_400) && age < Duration::from_secs(30 * 86_400 + 1), "{age:?}");
    // The first segment after the pause is lost.
    let before = pair.sent[0];
    pair.wire = Box::new(move |side, count, _| side == Side::Server || count > before + 1);
    let start = pair.now;
    let data = pattern(100);
    assert_eq!(pair.transfer((Side::Client, client), (Side::Server, server), &data), data);
    assert_eq!(pair.now - start, Duration::from_millis(210), "one RTO and the way");
}

#[test]
fn r2_is_not_reached_before_anything_was_sent_again_shld_10() {
    let mut pair = Pair::new(Config::default());
    let (client, server) = pair.connect();
    assert_eq!(pair.client.send(client, &pattern(100)), Ok(100));
    pair.flush();
    // The machine sleeps for an hour, which is longer than R2, while the segment is on its way.
    pair.now += Duration::from_secs(3600);
    pair.run_for(Duration::from_secs(1));
    let mut buffer = [0; 200];
    assert_eq!(pair.server.recv(server, &mut buffer), Ok(100));
    assert_eq!(pair.client.info(pair.now, client).unwrap().unacked, 0);
}

#[test]
fn a_closed_port_refuses_at_once_h6() {
    let mut pair = Pair::new(Config::default());
    let client = pair.client.connect(pair.now, "10.0.0.2:81".parse().unwrap(), Default::default()).unwrap();
    pair.run_for(Duration::from_millis(20));
    assert_eq!(pair.client.recv(client, &mut [0; 1]), Err(Error::ConnectionRefused));
    assert_eq!(pair.client.recv(client, &mut [0; 1]), Ok(0));
}

/// THREAT-12: with every local port towards one end in TIME-WAIT, the oldest is taken over as soon as it may be. A port
/// that becomes free is found at once although the search before failed.
#[test]
fn ports_in_time_wait_are_taken_over_oldest_first_threat_12_sa_closed_09() {
    let config = Config { ip_local_port_range: PortRange::new(10_000, 10_003).unwrap(), ..Config::default() };
    let mut pair = Pair::new(config);
    pair.delay = Duration::from_millis(1);
    let server = SERVER.parse().unwrap();
    let listener = pair.server.listen(server, Default::default()).unwrap();
    let mut ports = Vec::new();
    let connect = |pair: &mut Pair| pair.client.connect(pair.now, server, Default::default());
    let end = |pair: &mut Pair, client| {
        pair.run_for(Duration::from_millis(10));
        let (accepted, _) = pair.server.accept(listener).unwrap();
        pair.client.close(pair.now, client).unwrap();
        pair.run_for(Duration::from_millis(10));
        pair.server.close(pair.now, accepted).unwrap();
        pair.run_for(Duration::from_millis(10));
    };
    for _ in 0..4 {
        let client = connect(&mut pair).unwrap();
        ports.push(pair.client.local_addr(client).unwrap().port());
        end(&mut pair, client);
    }
    assert_eq!(pair.client.usage().time_wait, 4);
    assert_eq!(connect(&mut pair), Err(Error::AddrNotAvailable));
    // The first ended 100 ms ago.
    pair.run_for(Duration::from_millis(850));
    assert_eq!(connect(&mut pair), Err(Error::AddrNotAvailable), "one second has not passed");
    pair.run_for(Duration::from_millis(300));
    for port in &ports[..2] {
        let client = connect(&mut pair).unwrap();
        assert_eq!(pair.client.local_addr(client).unwrap().port(), *port, "the oldest comes first");
        end(&mut pair, client);
    }
    let (third, _) = (connect(&mut pair).unwrap(), connect(&mut pair).unwrap());
    assert_eq!(connect(&mut pair), Err(Error::AddrNotAvailable));
    pair.client.abort(pair.now, third).unwrap();
    assert!(connect(&mut pair).is_ok(), "a port came free");
}

/// THREAT-12: every port can be taken over, including those of connections from before the crowd.
#[test]
fn a_crowd_in_time_wait_is_taken_over_whole_threat_12() {
    let range = PortRange::new(10_000, 10_199).unwrap();
    let mut pair = Pair::new(Config { ip_local_port_range: range, ..Config::default() });
    let server = SERVER.parse().unwrap();
    let options = ListenOptions { backlog: 200, ..ListenOptions::default() };
    let listener = pair.server.listen(server, options).unwrap();
    let connect = |pair: &mut Pair| pair.client.connect(pair.now, server, Default::default());
    let clients: Vec<_> = (0..200).map(|_| connect(&mut pair).unwrap()).collect();
    pair.run_for(Duration::from_millis(100));
    let accepted: Vec<_> = (0..200).map(|_| pair.server.accept(listener).unwrap().0).collect();
    clients.iter().for_each(|client| pair.client.close(pair.now, *client).unwrap());
    pair.run_for(Duration::from_millis(100));
    accepted.iter().for_each(|accepted| pair.server.close(pair.now, *accepted).unwrap());
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.client.usage().time_wait, 200);
    let opened = (0..200).filter(|_| connect(&mut pair).is_ok()).count();
    assert_eq!((opened, connect(&mut pair)), (200, Err(Error::AddrNotAvailable)));
    pair.client.check_consistent().unwrap();
}

/// THREAT-12: the last free local port towards one end is found, and towards another end all are free.
#[test]
fn the_last_free_port_is_found_threat_12() {
    let range = PortRange::new(10_000, 12_999).unwrap();
    let mut pair = Pair::new(Config { ip_local_port_range: range, ..Config::default() });
    let server: std::net::SocketAddr = SERVER.parse().unwrap();
    let connect = |pair: &mut Pair, local_port| {
        let options = ConnectOptions { local_port, ..ConnectOptions::default() };
        pair.client.connect(pair.now, server, options)
    };
    let ids: Vec<_> =
        (range.first()..=range.last()).map(|port| connect(&mut pair, Some(port)).unwrap()).collect();
    assert_eq!(connect(&mut pair, None), Err(Error::AddrNotAvailable));
    for port in [range.last(), range.first(), 11_500] {
        pair.client.abort(pair.now, ids[usize::from(port - range.first())]).unwrap();
        let id = connect(&mut pair, None).unwrap();
        assert_eq!(pair.client.local_addr(id).unwrap().port(), port);
        assert_eq!(connect(&mut pair, None), Err(Error::AddrNotAvailable));
    }
    let other = std::net::SocketAddr::new(server.ip(), 81);
    assert!(pair.client.connect(pair.now, other, ConnectOptions::default()).is_ok());
}

/// Consecutive segments are sent without another visit to the connection; a call between them ends the train. Both ways
/// yield the same packets, and those arrive.
#[test]
fn a_train_of_segments_is_what_they_would_be_one_by_one() {
    for profile in Profile::ALL {
        for (server, offload) in [(SERVER, false), (SERVER_V6, false), (SERVER, true), (SERVER_V6, true)] {
            let pair = Pair::with_checksum_offload(Config::profile(profile), offload);
            let name = format!("{profile}, {server}, offload {offload}");
            send_in_trains(pair, server, &name);
        }
    }
}

fn send_in_trains(mut pair: Pair, server: &str, name: &str) {
    let (client, server) = pair.connect_to(server);
    let options = pair.client.options(client).unwrap().clone();
    let data = pattern(400_000);
    let (mut sent, mut packets, mut frame, mut got) = (0, 0, [0; 1500], Vec::new());
    while got.len() < data.len() {
        if let Ok(count) = pair.client.send(client, &data[sent..data.len().min(sent + 30_001)]) {
            sent += count;
        }
        let mut looked_at = pair.client.clone();
        let mut all = Vec::new();
        while let Some(transmit) = pair.client.transmit(pair.now, &mut frame) {
            all.push(on_the_wire(&frame, transmit));
            looked_at.set_options(pair.now, client, options.clone()).unwrap();
            let other = looked_at.transmit(pair.now, &mut frame).map(|other| on_the_wire(&frame, other));
            assert_eq!(other.as_ref(), all.last(), "{name}");
        }
        assert_eq!(looked_at.transmit(pair.now, &mut frame), None);
        packets += all.len();
        pair.now += Duration::from_millis(5);
        all.iter().for_each(|packet| pair.server.receive(pair.now, &packet[..]));
        let mut buffer = [0; 65_536];
        while let Ok(count) = pair.server.recv(server, &mut buffer) {
            got.extend_from_slice(&buffer[..count]);
        }
        // Late enough for a delayed ACK, too early for a retransmission.
        pair.now += Duration::from_millis(200);
        pair.server.advance(pair.now);
        while let Some(transmit) = pair.server.transmit(pair.now, &mut frame) {
            pair.client.receive(pair.now, &on_the_wire(&frame, transmit)[..]);
        }
    }
    assert!(packets > 270, "{name}: {packets}");
    assert!(got == data, "{name}: the bytes that arrived are others");
}

/// SA-EST-31: when the application reads between two segments of a train, the next segment advertises the new window.
#[test]
fn a_train_tells_of_a_window_that_opened_meanwhile_sa_est_31() {
    let mut pair = Pair::new(Config::default());
    let (client, server) = pair.connect();
    pair.server.send(server, &pattern(60_000)).unwrap();
    pair.run_for(Duration::from_millis(300));
    pair.client.send(client, &pattern(10_000)).unwrap();
    let window = |pair: &mut Pair| {
        let mut frame = [0; 1500];
        let transmit = pair.client.transmit(pair.now, &mut frame).unwrap();
        let (header, payload) = tcp::Header::parse(&frame[ipv4::HEADER_LEN..transmit.len]).unwrap();
        assert_eq!(payload.len(), 1448);
        header.window
    };
    let (first, second) = (window(&mut pair), window(&mut pair));
    assert_eq!(first, second);
    assert_eq!(pair.client.recv(client, &mut [0; 65_536]), Ok(60_000));
    assert!(window(&mut pair) > second);
}

/// Ticks wrap after 49 days, and compare right for 24. A connection that was idle for so long continues as usual.
#[test]
fn a_connection_that_was_idle_for_weeks_carries_on() {
    for keepalive in [false, true] {
        for days in [12, 25, 30, 45] {
            let mut pair = Pair::new(Config { tcp_mtu_probing: MtuProbing::Always, ..Config::default() });
            let (client, server) = pair.connect();
            let options = SocketOptions::new(pair.client.config()).with(|o| o.keepalive = keepalive);
            pair.client.set_options(pair.now, client, options).unwrap();
            let data = pattern(200_000);
            let ends = [(Side::Client, client), (Side::Server, server)];
            let carry = |pair: &mut Pair| {
                let begun = pair.now;
                for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
                    assert_eq!(pair.transfer(from, to, &data), data);
                }
                pair.now - begun
            };
            let first = carry(&mut pair);
            pair.run_for(Duration::from_secs(days * 86_400));
            let again = carry(&mut pair);
            assert!(again < first * 2, "{again:?} after {days} days, {first:?} at first");
            assert_eq!(pair.client.counters().tcp_timeouts, 0);
            let probes = pair.client.counters().tcp_keep_alive;
            assert_eq!(probes > 0, keepalive, "{probes} probes");
        }
    }
}
