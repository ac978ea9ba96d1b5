//! Devices that carry Ethernet frames, with the kernel as the other host of the link.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, PacketSocket, Received};
use steadfast::{Config, Net, TcpListener, TcpStream};
use steadfast_witness::enter_namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::pattern;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const HOST_6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
const OURS_6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);

/// Runs `test` in a new network namespace with a veth pair: `eth0` of the kernel, and `sf0` for us.
fn beside_the_kernel(tools: &[&str], test: impl Future<Output = ()>) {
    // One test at a time: a child process inherits the device files of all tests until it calls `exec`.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !enter_namespace(tools) {
        return;
    }
    ip("link add eth0 type veth peer name sf0");
    ip("link set sf0 addrgenmode none up");
    ip("address add 10.9.0.1/24 dev eth0");
    ip("address add fd09::1/64 dev eth0 nodad");
    ip("link set eth0 up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(20), test).await.unwrap() });
}

#[track_caller]
fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A device that notes the longest frame of each direction: in, out.
struct Measured {
    device: PacketSocket,
    longest: Arc<[AtomicUsize; 2]>,
}

impl Device for Measured {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        let received = self.device.poll_recv(cx, buffer);
        if let Poll::Ready(Ok(received)) = &received {
            self.longest[0].fetch_max(received.len, Ordering::Relaxed);
        }
        received
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        self.longest[1].fetch_max(frame.bytes.len(), Ordering::Relaxed);
        self.device.poll_send(cx, frame)
    }
}

fn start(device: impl Device) -> Net {
    // Who does not answer shall not hold the tests up.
    let config = Config { retrans_time: Duration::from_millis(50), ..Config::default() };
    Net::builder().config(config).address(OURS, 24).address(OURS_6, 64).start(device).unwrap()
}

/// The kernel sends `data` to an address of ours, and gets it back.
async fn echoes(net: &Net, ours: IpAddr, data: &[u8]) {
    let listener = TcpListener::bind(net, (ours, 7)).await.unwrap();
    let serve = async {
        let (mut reader, mut writer) = listener.accept().await.unwrap().0.into_split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let ask = async {
        let stream = tokio::net::TcpStream::connect((ours, 7)).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let mut back = Vec::new();
        let send = async {
            writer.write_all(data).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(send, reader.read_to_end(&mut back));
        read.unwrap();
        back
    };
    let ((), back) = tokio::join!(serve, ask);
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
}

#[test]
fn bulk_crosses_a_packet_socket_in_super_segments_both_ways() {
    beside_the_kernel(&["ip"], async {
        let longest = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let device = PacketSocket::open("sf0").unwrap();
        assert_eq!(device.capabilities().mtu, 1500);
        let net = start(Measured { device, longest: longest.clone() });
        let data = pattern(8 << 20);
        for ours in [IpAddr::V4(OURS), IpAddr::V6(OURS_6)] {
            longest.iter().for_each(|longest| longest.store(0, Ordering::Relaxed));
            echoes(&net, ours, &data).await;
            let [in_, out] = [0, 1].map(|at| longest[at].load(Ordering::Relaxed));
            assert!(in_ > 10_000 && out > 10_000, "{ours}: {in_} in, {out} out");
        }
    });
}

#[test]
fn we_and_the_kernel_find_each_other_on_the_link() {
    beside_the_kernel(&["ip", "ping"], async {
        let device = PacketSocket::open("sf0").unwrap();
        let hardware = device.capabilities().ethernet.unwrap();
        let net = start(device);
        // The kernel asks first …
        for (ours, family) in [("10.9.0.2", "-4"), ("fd09::2", "-6")] {
            let args = [family, "-c", "2", "-i", "0.01", "-W", "5", ours];
            let ping = std::thread::spawn(move || Command::new("ping").args(args).output());
            while !ping.is_finished() {
                tokio::task::yield_now().await;
            }
            let output = ping.join().unwrap().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            let known = ip(&format!("neigh show {ours}"));
            assert!(known.contains(&format!("lladdr {hardware}")), "{known}");
        }
        // … and we ask.
        for host in [IpAddr::V4(HOST), IpAddr::V6(HOST_6)] {
            let listener = tokio::net::TcpListener::bind((host, 0)).await.unwrap();
            let stream = TcpStream::connect(&net, listener.local_addr().unwrap()).await.unwrap();
            drop(stream);
            let known = net.neighbours();
            assert!(known.iter().any(|neighbour| neighbour.address == host), "{known:?}");
        }
        // Nobody has this address.
        let error = TcpStream::connect(&net, (Ipv4Addr::new(10, 9, 0, 77), 9)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    });
}

#[test]
fn a_socket_passes_to_who_has_no_right_to_open_it_and_others_are_refused() {
    beside_the_kernel(&["ip"], async {
        let error = PacketSocket::open("no-such").unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (io::ErrorKind::NotFound, "there is no interface `no-such`".to_owned(),)
        );
        let other = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        let error = PacketSocket::from_fd(other.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("expected a packet socket"), "{error}");
        // As a process in another namespace would: nothing but the descriptor is used.
        let socket = PacketSocket::bind("sf0").unwrap();
        let net = start(PacketSocket::from_fd(socket).unwrap());
        echoes(&net, OURS.into(), b"hello").await;
    });
}

#[test]
fn frames_are_lost_while_the_interface_is_down_and_a_deleted_one_ends_the_network() {
    beside_the_kernel(&["ip"], async {
        let (net, driver) = {
            let builder = Net::builder().address(OURS, 24);
            builder.build(PacketSocket::open("sf0").unwrap()).unwrap()
        };
        let driver = tokio::spawn(driver);
        echoes(&net, OURS.into(), b"up").await;
        ip("link set sf0 down");
        tokio::task::yield_now().await;
        ip("link set sf0 up");
        echoes(&net, OURS.into(), b"up again").await;
        ip("link del sf0");
        let error = driver.await.unwrap().unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(19 | 100)), "{error:?}");
    });
}
