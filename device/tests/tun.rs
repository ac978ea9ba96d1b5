//! Tests of a TUN device against the kernel, in a network namespace of their own.
#![cfg(target_os = "linux")]

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use steadfast_device::{Capabilities, Device, Frame, Tun, TunOptions};
use steadfast_witness::enter_namespace;
use tokio::time::timeout;

/// Runs `test` in a new network namespace, or reports why that is impossible.
fn in_namespace(test: impl Future<Output = ()>) {
    in_namespace_with(&[], test);
}

/// The same for a test that needs programs.
fn in_namespace_with(tools: &[&str], test: impl Future<Output = ()>) {
    // One test at a time: a child process inherits the device files of all tests until it calls `exec`.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // The namespace disappears with this thread.
    if !enter_namespace(tools) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(20), test).await.unwrap() });
}

fn options() -> TunOptions {
    let mut options = TunOptions::new("sf0");
    options.host = vec![("10.9.0.1".parse().unwrap(), 24), ("fd09::1".parse().unwrap(), 64)];
    options
}

/// Receives the next UDP packet, and skips packets that the kernel sends on its own.
async fn recv_udp(tun: &mut Tun) -> Vec<u8> {
    let mut buffer = [0; 65_535];
    loop {
        let received = poll_fn(|cx| tun.poll_recv(cx, &mut buffer)).await.unwrap();
        let packet = &buffer[..received.len];
        let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
        if protocol == 17 {
            return packet.to_vec();
        }
    }
}

async fn send(tun: &mut Tun, packet: &[u8]) {
    poll_fn(|cx| tun.poll_send(cx, Frame::new(packet))).await.unwrap();
}

/// Returns a UDP packet to its sender. Swapping addresses and ports leaves the checksums valid.
fn turned_round(packet: &[u8]) -> Vec<u8> {
    let (addresses, length, ports) = if packet[0] >> 4 == 4 { (12, 4, 20) } else { (8, 16, 40) };
    let mut answer = packet.to_vec();
    answer[addresses..addresses + 2 * length].rotate_left(length);
    answer[ports..ports + 4].rotate_left(2);
    answer
}

#[test]
fn packets_pass_both_ways_between_the_kernel_and_the_device() {
    in_namespace(async {
        let mut tun = Tun::open(&options()).await.unwrap();
        assert_eq!(tun.name(), "sf0");
        assert_eq!(tun.capabilities().mtu, 1500);
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(b"round", "10.9.0.2:9").unwrap();
        let packet = recv_udp(&mut tun).await;
        assert_eq!(packet[12..20], [10, 9, 0, 1, 10, 9, 0, 2]);
        send(&mut tun, &turned_round(&packet)).await;
        let mut buffer = [0; 16];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (b"round".as_slice(), "10.9.0.2:9".parse().unwrap()));
    });
}

#[test]
fn a_packet_in_slices_reaches_the_kernel_as_one() {
    for offload in [true, false] {
        in_namespace(async {
            let mut options = options();
            options.offload = offload;
            let mut tun = Tun::open(&options).await.unwrap();
            assert!(tun.gathers());
            let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(&[3; 1000], "10.9.0.2:9").unwrap();
            let answer = turned_round(&recv_udp(&mut tun).await);
            let (head, rest) = answer.split_at(28);
            // As many as the core makes of one payload.
            let slices: Vec<_> = rest.chunks(16).map(Bytes::copy_from_slice).collect();
            assert_eq!(slices.len(), 63);
            let mut frame = Frame::new(head);
            frame.slices = &slices;
            poll_fn(|cx| tun.poll_send(cx, frame)).await.unwrap();
            let mut buffer = [0; 1500];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 1000);
            assert_eq!(buffer[..1000], [3; 1000]);
        });
    }
}

#[test]
fn ipv6_passes_both_ways_as_soon_as_the_device_is_open() {
    in_namespace(async {
        for _ in 0..10 {
            let mut tun = Tun::open(&options()).await.unwrap();
            let socket = UdpSocket::bind("[fd09::1]:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.send_to(b"six", "[fd09::2]:9").unwrap();
            let packet = recv_udp(&mut tun).await;
            send(&mut tun, &turned_round(&packet)).await;
            assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 3);
        }
    });
}

#[test]
fn offload_is_there_unless_it_is_not_wanted() {
    in_namespace(async {
        let tun = Tun::open(&options()).await.unwrap();
        let capabilities = tun.capabilities();
        assert!(capabilities.segmentation_offload && capabilities.checksum_offload);
        drop(tun);
        let mut options = options();
        options.offload = false;
        assert_eq!(Tun::open(&options).await.unwrap().capabilities(), Capabilities::new(1500));
    });
}

/// Receives the next UDP packet, and returns the index of its queue.
async fn recv_udp_of(queues: &mut [Tun]) -> (usize, Vec<u8>) {
    let [first, second] = queues else { panic!("two queues") };
    tokio::select! {
        packet = recv_udp(first) => (0, packet),
        packet = recv_udp(second) => (1, packet),
    }
}

#[test]
fn a_flow_comes_through_the_queue_that_its_last_answer_went_into() {
    in_namespace(async {
        let mut queues = Tun::open_queues(&options(), 2).await.unwrap();
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(b"first", "10.9.0.2:9").unwrap();
        let (mut queue, packet) = recv_udp_of(&mut queues).await;
        let answer = turned_round(&packet);
        for _ in 0..4 {
            queue = 1 - queue;
            send(&mut queues[queue], &answer).await;
            assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 5);
            socket.send_to(b"again", "10.9.0.2:9").unwrap();
            assert_eq!(recv_udp_of(&mut queues).await.0, queue);
        }
    });
}

#[test]
fn mtu_and_routes_are_as_asked_for() {
    in_namespace(async {
        let mut options = options();
        options.mtu = Some(1280);
        options.queue_len = Some(2000);
        let far: IpAddr = "192.0.2.0".parse().unwrap();
        options.routes = vec![(far, 24)];
        let mut tun = Tun::open(&options).await.unwrap();
        assert_eq!(tun.capabilities().mtu, 1280);
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(&[7; 1280 - 28], "192.0.2.77:9").unwrap();
        assert_eq!(recv_udp(&mut tun).await.len(), 1280);
    });
}

#[test]
fn a_packet_that_is_no_packet_is_lost_and_the_device_goes_on() {
    in_namespace(async {
        let mut tun = Tun::open(&options()).await.unwrap();
        send(&mut tun, &[0xff; 20]).await;
        send(&mut tun, &[]).await;
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"on", "10.9.0.2:9").unwrap();
        assert!(recv_udp(&mut tun).await.ends_with(b"on"));
    });
}

#[test]
fn a_device_that_is_in_use_cannot_be_opened_again_until_it_is_dropped() {
    in_namespace(async {
        let tun = Tun::open(&options()).await.unwrap();
        let error = Tun::open(&options()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        assert!(error.to_string().starts_with("cannot make the TUN device sf0: "), "{error}");
        drop(tun);
        Tun::open(&options()).await.unwrap();
    });
}

#[track_caller]
fn ip(args: &str) {
    let status = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

#[test]
fn a_device_that_is_there_is_taken_as_it_is_and_stays() {
    in_namespace_with(&["ip"], async {
        ip("tuntap add dev sf0 mode tun");
        ip("link set sf0 mtu 1400");
        for _ in 0..2 {
            let tun = Tun::open(&TunOptions::new("sf0")).await.unwrap();
            assert_eq!(tun.capabilities().mtu, 1400);
        }
        ip("link del sf0");
    });
}

#[test]
fn packets_are_lost_while_the_interface_is_down_and_pass_when_it_is_up_again() {
    in_namespace_with(&["ip"], async {
        let mut tun = Tun::open(&options()).await.unwrap();
        ip("link set sf0 down");
        // The packet is lost, or not accepted while the interface is down.
        let sent = poll_fn(|cx| Poll::Ready(tun.poll_send(cx, Frame::new(&[0x45; 40])))).await;
        assert!(!matches!(sent, Poll::Ready(Err(_))), "{sent:?}");
        ip("link set sf0 up");
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"up", "10.9.0.2:9").unwrap();
        assert!(recv_udp(&mut tun).await.ends_with(b"up"));
    });
}

#[test]
fn a_device_that_is_deleted_says_so() {
    in_namespace_with(&["ip"], async {
        let mut tun = Tun::open(&options()).await.unwrap();
        ip("link del sf0");
        let mut buffer = [0; 1500];
        loop {
            if let Err(e) = poll_fn(|cx| tun.poll_recv(cx, &mut buffer)).await {
                assert_ne!(e.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
        assert!(poll_fn(|cx| tun.poll_recv(cx, &mut buffer)).await.is_err(), "and says so again");
        assert!(poll_fn(|cx| tun.poll_send(cx, Frame::new(&[0x45; 40]))).await.is_err());
    });
}

#[test]
fn an_address_that_cannot_be_set_is_named() {
    in_namespace(async {
        let mut options = TunOptions::new("sf0");
        options.host = vec![("10.9.0.1".parse().unwrap(), 24), ("0.0.0.0".parse().unwrap(), 40)];
        let error = Tun::open(&options).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot give sf0 the address 0.0.0.0/40: "), "{error}");
    });
}
