//! UDP and ping of the kernel through forwarders.

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use steadfast::{Config, EchoForwarder, ForwardRule, IcmpError, Reject, UdpForwarder};
use tokio::net::UdpSocket;

use crate::wire::{FOREIGN, KERNEL, OURS, World, pattern, run_beside};

const SIZES: [usize; 5] = [1, 1472, 1473, 9000, 65_507];

/// A socket of the kernel that speaks to the foreign address.
async fn client() -> UdpSocket {
    let socket = UdpSocket::bind((KERNEL, 0)).await.unwrap();
    socket.connect((FOREIGN, 53)).await.unwrap();
    socket
}

fn udp(world: &World) -> UdpForwarder {
    UdpForwarder::bind(&world.net, ForwardRule::all()).unwrap()
}

#[test]
fn datagrams_of_any_length_go_through_a_forwarder_and_back_fwd_17_fwd_19() {
    run_beside(&[], Config::default(), async |world| {
        let (forwarder, client) = (udp(&world), client().await);
        let data = pattern(65_507);
        let mut buffer = vec![0; 70_000];
        for len in SIZES {
            client.send(&data[..len]).await.unwrap();
            let packet = forwarder.recv().await.unwrap();
            assert_eq!(
                (packet.source, packet.destination),
                (client.local_addr().unwrap(), (FOREIGN, 53).into())
            );
            assert!(packet.payload == data[..len], "{len} bytes");
            forwarder.try_send(&packet.answer(packet.payload.clone())).unwrap();
            let got = client.recv(&mut buffer).await.unwrap();
            assert!(buffer[..got] == data[..len], "{got} of {len}");
        }
    });
}

/// Where fragments were refused too.
#[test]
fn a_refused_datagram_is_an_error_of_its_socket_fwd_20() {
    run_beside(&[], Config::default(), async |world| {
        let (forwarder, client) = (udp(&world), client().await);
        for len in SIZES {
            let begun = Instant::now();
            client.send(&pattern(len)).await.unwrap();
            let packet = forwarder.recv().await.unwrap();
            forwarder.reject(&packet, Reject::from_io(&ErrorKind::ConnectionRefused.into())).unwrap();
            let error = client.recv(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{len} bytes");
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
        // The kernel believes a router beyond the gateway, and cuts by itself.
        client.send(&pattern(1472)).await.unwrap();
        let packet = forwarder.recv().await.unwrap();
        assert!(packet.dont_fragment);
        let router = "203.0.113.9".parse().unwrap();
        forwarder.send_error(&packet, IcmpError::PacketTooBig { mtu: 1300 }, Some(router)).unwrap();
        loop {
            // It reports the error to the socket once, instead of sending.
            if client.send(&pattern(1472)).await.is_err() {
                continue;
            }
            let packet = forwarder.recv().await.unwrap();
            if !packet.dont_fragment {
                assert!(packet.payload == pattern(1472));
                break;
            }
        }
    });
}

/// At a port of our own where nobody listens.
#[test]
fn a_closed_port_of_our_own_is_reported_of_fragments_too() {
    run_beside(&[], Config::default(), async |_world| {
        let client = UdpSocket::bind((KERNEL, 0)).await.unwrap();
        client.connect((OURS, 9)).await.unwrap();
        for len in SIZES {
            client.send(&pattern(len)).await.unwrap();
            let error = client.recv(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{len} bytes");
        }
    });
}

/// Runs `ping` once, and returns whether it succeeded, and its output.
async fn ping(size: usize) -> (bool, String) {
    let ping = tokio::task::spawn_blocking(move || {
        let size = size.to_string();
        let foreign = FOREIGN.to_string();
        Command::new("ping").args(["-n", "-c1", "-W2", "-s", &size, &foreign]).output().unwrap()
    });
    let output = ping.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn pings_of_any_length_go_through_a_forwarder_and_back_fwd_21() {
    run_beside(&["ping"], Config::default(), async |world| {
        let forwarder = EchoForwarder::bind(&world.net, ForwardRule::all()).unwrap();
        tokio::spawn(async move {
            while let Ok(request) = forwarder.recv().await {
                forwarder.try_send(&request.reply()).unwrap();
            }
        });
        for size in [1, 56, 1472, 1473, 9000, 65_507] {
            let (success, text) = ping(size).await;
            assert!(success, "{size}: {text}");
        }
    });
}

#[test]
fn a_ping_to_nobody_is_told_so_fwd_21() {
    run_beside(&["ping"], Config::default(), async |world| {
        let forwarder = EchoForwarder::bind(&world.net, ForwardRule::all()).unwrap();
        tokio::spawn(async move {
            while let Ok(request) = forwarder.recv().await {
                forwarder.reject(&request, Reject::HostUnreachable).unwrap();
            }
        });
        for size in [56, 9000] {
            let (success, text) = ping(size).await;
            assert!(!success && text.contains("Destination Host Unreachable"), "{size}: {text}");
        }
    });
}
