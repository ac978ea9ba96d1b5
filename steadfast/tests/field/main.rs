//! Failures of other stacks and gateways that their users reported, each with the kernel as the peer.
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "its modules are its own")]

mod datagrams;
mod wire;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use steadfast::stack::seq::SeqNum;
use steadfast::stack::trace::State;
use steadfast::stack::wire::build;
use steadfast::stack::wire::tcp::{Flags, Header, Options};
use steadfast::{Config, RelayConfig, TcpListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::wire::{FOREIGN, Fate, KERNEL, OURS, Way, World, pattern, run, until};

const MOMENT: Duration = Duration::from_millis(100);

/// The slot of a connection whose guest has closed is reclaimed, though the upstream never closes.
#[test]
fn a_guest_that_closed_frees_its_slot_while_the_upstream_stays_open_fwd_16() {
    run(Config::default(), async |world| {
        // The kernel forgets the guest's end sooner than the relay probes.
        std::fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "1").unwrap();
        let config = RelayConfig::default().with(|c| c.half_closed_probe = Duration::from_secs(3));
        let upstream = world.gateway(config).await;
        let mut guest = TcpStream::connect((FOREIGN, 80)).await.unwrap();
        let (mut server, _) = upstream.accept().await.unwrap();
        guest.write_all(b"GET /").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        drop(guest);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        until(|| world.net.usage().connections == 0).await;
        assert_eq!(world.net.usage().sockets, 1, "the forwarder");
    });
}

#[test]
fn a_fin_is_sent_though_what_was_written_is_never_acknowledged_at_first() {
    run(Config::default(), async |world| {
        let (mut kernel, mut ours) = world.streams().await;
        world.wire.set(|way, _, _| if way == Way::In { Fate::IsLost } else { Fate::Passes });
        ours.write_all(&pattern(5000)).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut read = Vec::new();
        timeout(Duration::from_secs(5), kernel.read_to_end(&mut read)).await.expect("a FIN").unwrap();
        assert!(read == pattern(5000) && world.wire.sent(|header| header.flags.fin()) > 0);
        world.wire.heal();
        drop((kernel, ours));
        until(|| world.net.usage().connections == 0).await;
    });
}

#[test]
fn nothing_is_cut_off_by_a_shutdown_with_a_full_send_buffer() {
    run(Config::default(), async |world| {
        let (mut kernel, ours) = world.streams().await;
        let data = pattern(32 << 20);
        let mut sent = 0;
        while timeout(MOMENT, ours.writable()).await.is_ok() {
            sent += ours.try_write(&data[sent..]).unwrap_or(0);
        }
        let mut ours = ours;
        ours.shutdown().await.unwrap();
        drop(ours);
        let mut read = Vec::new();
        kernel.read_to_end(&mut read).await.unwrap();
        assert!(sent > 128 << 10 && read == data[..sent], "{} of {sent}", read.len());
    });
}

#[test]
fn a_close_at_a_closed_window_leaves_established_and_its_orphan_ends() {
    let config = Config { tcp_orphan_retries: 2, ..Config::default() };
    run(config, async |world| {
        let (kernel, ours) = world.streams().await;
        let data = pattern(1 << 20);
        while timeout(MOMENT, ours.writable()).await.is_ok() {
            let _ = ours.try_write(&data);
        }
        drop(ours);
        let states: Vec<_> = world.net.sockets().iter().map(|socket| socket.state).collect();
        assert_eq!(states, [State::FinWait1]);
        until(|| world.net.usage().connections == 0).await;
        drop(kernel);
    });
}

/// A SYN from a raw socket: the kernel knows no such connection, and resets the answer.
fn send_syn(socket: &socket2::Socket, to: Ipv4Addr, port: u16) {
    let options = Options { mss: Some(1460), ..Options::default() };
    let header = Header {
        source_port: port,
        destination_port: 80,
        seq: SeqNum(u32::from(port) << 8),
        flags: Flags::SYN,
        window: 1000,
        options,
        ..Header::default()
    };
    let segment = build::segment(KERNEL.into(), to.into(), &header, &[]);
    // The queue of the device may be full for a moment.
    while socket.send_to(&segment, &SocketAddr::from((to, 0)).into()).is_err() {}
}

fn raw_socket() -> socket2::Socket {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::TCP)).unwrap()
}

#[test]
fn listener_and_forwarder_go_on_after_many_scans() {
    run(Config::default(), async |world| {
        let upstream = world.gateway(RelayConfig::default()).await;
        let listener = TcpListener::bind(&world.net, (OURS, 80)).await.unwrap();
        let raw = raw_socket();
        for port in 2000..2300 {
            send_syn(&raw, OURS, port);
            send_syn(&raw, FOREIGN, port);
            if port % 20 == 0 {
                // Dialled ends that were reset are accepted first.
                while timeout(MOMENT / 10, upstream.accept()).await.is_ok() {}
            }
        }
        // Some may be lost on the way.
        until(|| world.net.counters().embryonic_rsts >= 250).await;
        until(|| world.net.counters().forward_requests >= 250).await;
        until(|| world.net.usage().half_open + world.net.usage().requests == 0).await;
        let (connected, accepted) = tokio::join!(TcpStream::connect((OURS, 80)), listener.accept());
        drop((connected.unwrap(), accepted.unwrap()));
        let mut guest = TcpStream::connect((FOREIGN, 80)).await.unwrap();
        guest.write_all(b"hold").await.unwrap();
        loop {
            let (mut server, _) = upstream.accept().await.unwrap();
            if let Ok(4) = server.read(&mut [0; 4]).await {
                break;
            }
        }
    });
}

#[test]
fn a_listener_lives_through_a_flood_of_syns_that_never_complete() {
    run(Config::default(), async |world| {
        let listener = TcpListener::bind(&world.net, (OURS, 80)).await.unwrap();
        world.wire.set(
            |way, header, _| {
                if way == Way::In && header.flags.rst() { Fate::IsLost } else { Fate::Passes }
            },
        );
        let raw = raw_socket();
        for port in 1024..6000 {
            send_syn(&raw, OURS, port);
            if port % 100 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        until(|| world.net.counters().syncookies_sent > 0).await;
        let (connected, accepted) = tokio::join!(TcpStream::connect((OURS, 80)), listener.accept());
        let (mut kernel, (mut ours, _)) = (connected.unwrap(), accepted.unwrap());
        kernel.write_all(b"hold").await.unwrap();
        ours.read_exact(&mut [0; 4]).await.unwrap();
        assert!(world.net.usage().half_open <= 2048);
    });
}

#[test]
fn a_thousand_connects_at_once_draw_no_reset() {
    run(Config::default(), async |world| {
        let listener = TcpListener::bind(&world.net, (OURS, 80)).await.unwrap();
        let connects: Vec<_> = (0..1000).map(|_| tokio::spawn(TcpStream::connect((OURS, 80)))).collect();
        let (mut streams, mut accepted) = (Vec::new(), Vec::new());
        for connect in connects {
            streams.push(connect.await.unwrap().unwrap());
        }
        for _ in 0..1000 {
            accepted.push(listener.accept().await.unwrap());
        }
        assert_eq!(world.wire.sent(|header| header.flags.rst()), 0);
    });
}

/// The first FIN of each side is lost.
#[test]
fn both_close_at_once_and_their_fins_are_lost() {
    run(Config::default(), async |world| {
        let (mut kernel, mut ours) = world.streams().await;
        let mut lost = [false; 2];
        world.wire.set(move |way, header, _| {
            let first = header.flags.fin() && !std::mem::replace(&mut lost[way as usize], true);
            if first { Fate::IsLost } else { Fate::Passes }
        });
        let (a, b) = tokio::join!(kernel.shutdown(), ours.shutdown());
        a.and(b).unwrap();
        let (mut one, mut other) = ([0], [0]);
        let (a, b) = tokio::join!(kernel.read(&mut one), ours.read(&mut other));
        assert_eq!((a.unwrap(), b.unwrap()), (0, 0));
        drop((kernel, ours));
        until(|| world.net.usage().connections == 0).await;
    });
}

/// Every second segment is lost in both directions.
#[test]
fn fins_end_when_both_sides_lose_them() {
    run(Config::default(), async |world| {
        let (mut kernel, mut ours) = world.streams().await;
        let mut count = [0, 1];
        world.wire.set(move |way, _, _| {
            count[way as usize] += 1;
            if count[way as usize] % 2 == 0 { Fate::IsLost } else { Fate::Passes }
        });
        let (a, b) = tokio::join!(kernel.shutdown(), ours.shutdown());
        a.and(b).unwrap();
        drop((kernel, ours));
        until(|| world.net.usage().connections == 0).await;
        let sent = world.wire.sent(|header| header.flags.fin());
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.wire.sent(|header| header.flags.fin()), sent, "no more FINs");
        assert!(sent < 10, "{sent} FINs");
    });
}

#[test]
fn a_port_in_time_wait_is_used_again() {
    run(Config::default(), async |world| {
        let listener = TcpListener::bind(&world.net, (OURS, 80)).await.unwrap();
        let upstream = world.gateway(RelayConfig::default()).await;
        for (address, rounds) in [(OURS, 3), (FOREIGN, 3)] {
            for _ in 0..rounds {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_reuseaddr(true).unwrap();
                socket.bind((KERNEL, 5555).into()).unwrap();
                let mut kernel = socket.connect((address, 80).into()).await.unwrap();
                // The far end closes first, so that we have the TIME-WAIT.
                if address == OURS {
                    drop(listener.accept().await.unwrap());
                } else {
                    drop(upstream.accept().await.unwrap());
                }
                assert_eq!(kernel.read(&mut [0]).await.unwrap(), 0);
                drop(kernel);
                until(|| world.net.usage().connections == 0).await;
                assert!(world.net.usage().time_wait > 0);
            }
        }
        assert_eq!(world.net.counters().tw_recycled, 4);
    });
}

#[test]
fn a_refused_upstream_is_a_reset_before_any_syn_ack_fwd_5() {
    run(Config::default(), async |world| {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        world.forward_to(closed, RelayConfig::default()).await;
        let error = TcpStream::connect((FOREIGN, 80)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(world.wire.sent(|header| header.flags.syn()), 0);
    });
}

#[test]
fn a_slow_reader_costs_bounded_memory_and_no_byte_fwd_15() {
    run(Config::default(), async |world| {
        let upstream = world.gateway(RelayConfig::default()).await;
        let guest = TcpStream::connect((FOREIGN, 80)).await.unwrap();
        let (mut server, _) = upstream.accept().await.unwrap();
        let data = pattern(64 << 20);
        let mut sent = 0;
        while timeout(MOMENT, guest.writable()).await.is_ok() {
            sent += guest.try_write(&data[sent..]).unwrap_or(0);
        }
        assert!(sent < data.len() && world.net.usage().held < 2 << 20, "{:?}", world.net.usage());
        let mut guest = guest;
        guest.shutdown().await.unwrap();
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert!(read == data[..sent], "{} of {sent}", read.len());
    });
}

#[test]
fn a_server_may_answer_after_the_end_of_the_question_fwd_13() {
    run(Config::default(), async |world| {
        let upstream = world.gateway(RelayConfig::default()).await;
        let mut guest = TcpStream::connect((FOREIGN, 80)).await.unwrap();
        let (mut server, _) = upstream.accept().await.unwrap();
        let serve = async {
            let mut question = Vec::new();
            server.read_to_end(&mut question).await.unwrap();
            sleep(MOMENT * 2).await;
            server.write_all(&question).await.unwrap();
            drop(server);
        };
        let ask = async {
            guest.write_all(&pattern(3 << 20)).await.unwrap();
            guest.shutdown().await.unwrap();
            let mut answer = Vec::new();
            guest.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let ((), answer) = tokio::join!(serve, ask);
        assert!(answer == pattern(3 << 20));
    });
}

#[test]
fn a_reset_ends_a_write_with_an_error() {
    run(Config::default(), async |world| {
        let (kernel, mut ours) = world.streams().await;
        let data = pattern(64 << 20);
        let reset = async {
            sleep(MOMENT).await;
            kernel.set_zero_linger().unwrap();
            drop(kernel);
        };
        let (written, ()) = tokio::join!(ours.write_all(&data), reset);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(ours.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn last_ack_ends_with_the_acknowledgement_of_the_fin() {
    run(Config::default(), async |world| {
        let (mut kernel, mut ours) = world.streams().await;
        kernel.shutdown().await.unwrap();
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
        ours.shutdown().await.unwrap();
        assert_eq!(kernel.read(&mut [0]).await.unwrap(), 0);
        until(|| world.net.usage().connections == 0).await;
        assert_eq!(world.net.usage().time_wait, 0);
    });
}

#[test]
fn a_fin_may_come_before_its_data() {
    run(Config::default(), async |world: World| {
        let (mut kernel, mut ours) = world.streams().await;
        world.wire.set(|way, header, len| {
            if way == Way::In && len > 0 && !header.flags.fin() { Fate::ComesLate } else { Fate::Passes }
        });
        kernel.write_all(b"hold fast").await.unwrap();
        kernel.shutdown().await.unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).await.unwrap();
        assert_eq!((&*text, world.net.counters().tcp_timeouts), ("hold fast", 0));
    });
}

/// `docs/library.md` lists the failures of this file.
#[test]
fn each_failure_is_in_the_table_of_the_docs() {
    let docs = include_str!("../../../docs/library.md");
    let tests =
        include_str!("main.rs").split("#[test]\nfn ").skip(1).map(|rest| rest.split('(').next().unwrap());
    let (own, failures): (Vec<_>, Vec<_>) = tests.partition(|name| name.starts_with("each_failure"));
    assert_eq!((own.len(), failures.len()), (1, 16));
    let missing: Vec<_> = failures.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
