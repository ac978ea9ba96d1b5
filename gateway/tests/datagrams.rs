//! UDP through a gateway: how long flows live, how many there are, who may answer, and what each packet carries.
//!
//! The clock is virtual. The servers are the kernel's, in a network namespace of the test. The numbers are those of the
//! gateway's acceptance tests.
#![cfg(target_os = "linux")]

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::{IpRecvTos, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvTClass};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use socket2::SockRef;
use steadfast::device::memory;
use steadfast::stack::UdpPacket;
use steadfast::{ForwardRule, Net, UdpForwarder};
use steadfast_gateway::{Dns, Gateway, Subnet};
use steadfast_witness::enter_namespace;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::sleep;

/// Addresses of servers.
const SERVER: &str = "198.51.100.1";
const OTHER: &str = "198.51.100.2";
const SERVER_V6: &str = "2001:db8::1";

/// The port of the guest in most tests.
const PORT: u16 = 7000;

/// The tests count the files of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// A guest that chooses the fields of its packets, and sees those of the packets to it.
///
/// It is a forwarder behind the stack of another host, so that the datagrams to the guest are foreign there.
struct Guest(UdpForwarder);

impl Guest {
    fn address(v4: bool) -> IpAddr {
        Subnet::with_v6().guest().find(|guest| guest.is_ipv4() == v4).unwrap()
    }

    fn packet(port: u16, to: SocketAddr, text: &str) -> UdpPacket {
        UdpPacket::new((Guest::address(to.is_ipv4()), port).into(), to, text.as_bytes().to_vec())
    }

    fn send(&self, port: u16, to: SocketAddr, text: &str) {
        self.0.try_send(&Guest::packet(port, to, text)).unwrap();
    }

    /// The next datagram to it. `None`: there is none.
    async fn receive(&self) -> Option<UdpPacket> {
        soon(|| self.0.try_recv()).await
    }

    /// Whether it gets exactly this next.
    async fn gets(&self, text: &str) -> bool {
        self.receive().await.is_some_and(|packet| packet.payload[..] == *text.as_bytes())
    }
}

/// Tries for a tenth of a second. Its steps let the kernel's sockets have their turn before the virtual clock moves on.
async fn soon<R>(mut attempt: impl FnMut() -> io::Result<R>) -> Option<R> {
    for _ in 0..100 {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Some(done.unwrap()),
        }
        sleep(Duration::from_millis(1)).await;
    }
    None
}

/// Runs `test` with a gateway and its guest.
fn beside_a_gateway<T: Future<Output = ()>>(test: impl FnOnce(Gateway, Guest) -> T) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !enter_namespace(&["ip"]) {
        return;
    }
    let addresses = [SERVER, OTHER, SERVER_V6].map(|address| format!("address add {address} dev lo"));
    for line in ["link set lo up".to_owned()].iter().chain(&addresses) {
        assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "{line}");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (outside, inside) = memory::pair(1500);
        let builder = Gateway::builder().subnet(Subnet::with_v6()).dns(Dns::None);
        let gateway = builder.start(outside).await.unwrap();
        let host = Net::builder().address([10, 0, 2, 99], 24).address([0xfd73, 0, 0, 0, 0, 0, 0, 0x99], 64);
        let host = host.start(inside).unwrap();
        let guest = Guest(UdpForwarder::bind(&host, ForwardRule::all()).unwrap());
        test(gateway, guest).await;
    });
}

/// A server's socket, which tells the fields of what it receives.
async fn bind(address: &str, port: u16) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((address, port)).await.unwrap();
    if address == SERVER_V6 {
        setsockopt(&socket, Ipv6RecvHopLimit, &true).unwrap();
        setsockopt(&socket, Ipv6RecvTClass, &true).unwrap();
    } else {
        setsockopt(&socket, Ipv4RecvTtl, &true).unwrap();
        setsockopt(&socket, IpRecvTos, &true).unwrap();
    }
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The sender of the next datagram, which must have this text.
async fn heard(socket: &UdpSocket, text: &str) -> SocketAddr {
    let mut buffer = [0; 64];
    let (len, from) = soon(|| socket.try_recv_from(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..len], text.as_bytes());
    from
}

fn after(seconds: u64) -> impl Future<Output = ()> {
    sleep(Duration::from_secs(seconds))
}

#[test]
fn f15_an_answered_flow_lives_300_s_after_the_guests_last_datagram() {
    beside_a_gateway(|gateway, guest| async move {
        let (server, address) = bind(SERVER, 0).await;
        guest.send(PORT, address, "first");
        let mapped = heard(&server, "first").await;
        server.send_to(b"answer", mapped).await.unwrap();
        assert!(guest.gets("answer").await);
        after(200).await;
        guest.send(PORT, address, "again");
        assert_eq!(heard(&server, "again").await, mapped);
        after(299).await;
        assert_eq!(gateway.flows().len(), 1);
        // It passes, but only what the guest sends keeps the flow alive.
        server.send_to(b"at 299 s", mapped).await.unwrap();
        assert!(guest.gets("at 299 s").await);
        after(2).await;
        assert_eq!(gateway.flows(), []);
        // Nobody has the port any more, so the kernel refuses the datagram.
        server.send_to(b"at 301 s", mapped).await.unwrap();
        assert_eq!(guest.receive().await, None);
        assert_eq!(gateway.counters().udp_mappings, 1);
    });
}

#[test]
fn f15_a_flow_without_an_answer_lives_120_s() {
    beside_a_gateway(|gateway, guest| async move {
        let (server, address) = bind(SERVER, 0).await;
        guest.send(PORT, address, "hello");
        let mapped = heard(&server, "hello").await;
        after(119).await;
        assert_eq!(gateway.flows().len(), 1);
        after(2).await;
        assert_eq!(gateway.flows(), []);
        server.send_to(b"late", mapped).await.unwrap();
        assert_eq!(guest.receive().await, None);
    });
}

#[test]
fn f15_a_query_of_names_ends_10_s_after_its_answer_and_after_30_s_without() {
    beside_a_gateway(|gateway, guest| async move {
        let (server, address) = bind(SERVER, 53).await;
        guest.send(PORT, address, "query");
        let mapped = heard(&server, "query").await;
        after(29).await;
        server.send_to(b"answer", mapped).await.unwrap();
        assert!(guest.gets("answer").await);
        after(9).await;
        // A server that goes on answering keeps nothing alive.
        server.send_to(b"again", mapped).await.unwrap();
        assert!(guest.gets("again").await);
        after(2).await;
        assert_eq!(gateway.flows(), []);

        guest.send(PORT, address, "nobody answers");
        after(29).await;
        assert_eq!(gateway.flows().len(), 1);
        after(2).await;
        assert_eq!(gateway.flows(), []);
    });
}

#[test]
fn f15_a_second_query_on_a_socket_has_its_own_time() {
    beside_a_gateway(|gateway, guest| async move {
        let (server, address) = bind(SERVER, 53).await;
        guest.send(PORT, address, "one");
        let mapped = heard(&server, "one").await;
        server.send_to(b"answer", mapped).await.unwrap();
        assert!(guest.gets("answer").await);
        after(9).await;
        guest.send(PORT, address, "two");
        assert_eq!(heard(&server, "two").await, mapped);
        after(20).await;
        server.send_to(b"slow answer", mapped).await.unwrap();
        assert!(guest.gets("slow answer").await);
        after(11).await;
        assert_eq!(gateway.flows(), []);
    });
}

fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn f15_the_4097th_socket_takes_the_place_of_the_one_that_was_silent_for_longest() {
    const LIMIT: u16 = 4096;
    const FIRST: u16 = 10_000;
    // Each socket takes a file, and the soft limit may be lower.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    beside_a_gateway(|gateway, guest| async move {
        let (server, address) = bind(SERVER, 0).await;
        let speak = async |port| {
            guest.send(port, address, "x");
            heard(&server, "x").await;
            sleep(Duration::from_millis(1)).await;
        };
        for port in FIRST..FIRST + LIMIT {
            speak(port).await;
        }
        // The first one is not the oldest any more.
        speak(FIRST).await;
        let (before, counters) = (files(), gateway.counters());
        assert_eq!((counters.udp_mappings, counters.udp_evicted), (LIMIT.into(), 0));
        speak(FIRST + LIMIT).await;
        assert_eq!(gateway.counters().udp_evicted, 1);
        let mut ports: Vec<u16> = gateway.flows().iter().map(|flow| flow.guest.port()).collect();
        ports.sort_unstable();
        let expected = [FIRST].into_iter().chain(FIRST + 2..=FIRST + LIMIT).collect::<Vec<_>>();
        assert!(ports == expected, "{} flows", ports.len());
        // The kernel's socket of the other one is closed at once.
        assert_eq!(files(), before);
    });
}

#[test]
fn f15_a_socket_has_one_port_for_all_and_answers_pass_from_hosts_that_were_asked() {
    beside_a_gateway(|gateway, guest| async move {
        let ((one, first), (other, second)) = (bind(SERVER, 0).await, bind(OTHER, 0).await);
        guest.send(PORT, first, "x");
        let mapped = heard(&one, "x").await;
        other.send_to(b"not asked", mapped).await.unwrap();
        assert_eq!(guest.receive().await, None);
        guest.send(PORT, second, "x");
        let from = heard(&other, "x").await;
        // The machine has several addresses.
        assert_eq!(from.port(), mapped.port());
        other.send_to(b"asked", from).await.unwrap();
        assert_eq!(guest.receive().await.unwrap().source, second);
        // Another port of a host that was asked.
        let (third, address) = bind(SERVER, 0).await;
        third.send_to(b"by another port", mapped).await.unwrap();
        assert_eq!(guest.receive().await.unwrap().source, address);
        // Another socket of the guest has another one.
        guest.send(PORT + 1, first, "x");
        assert_ne!(heard(&one, "x").await.port(), mapped.port());
        assert_eq!(gateway.counters().udp_mappings, 2);
    });
}

/// The sender, TTL and TOS of a datagram.
async fn fields(socket: &UdpSocket) -> (SocketAddr, i32, i32) {
    let read = || -> io::Result<_> {
        let mut space = nix::cmsg_space!(i32, i32);
        let mut buffer = [0; 64];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let (mut ttl, mut tos) = (0, 0);
        for field in received.cmsgs()? {
            match field {
                ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => ttl = value,
                ControlMessageOwned::Ipv4Tos(value) => tos = value.into(),
                ControlMessageOwned::Ipv6TClass(value) => tos = value,
                other => panic!("{other:?}"),
            }
        }
        let from = received.address.unwrap();
        let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        let from = v4.unwrap_or_else(|| SocketAddr::V6((*from.as_sockaddr_in6().unwrap()).into()));
        Ok((from, ttl, tos))
    };
    soon(|| socket.try_io(Interest::READABLE, read)).await.unwrap()
}

#[test]
fn f15_ttl_and_tos_pass_both_ways_and_the_gateway_is_a_hop() {
    beside_a_gateway(|gateway, guest| async move {
        for server in [SERVER, SERVER_V6] {
            let (socket, address) = bind(server, 0).await;
            // Expedited forwarding, and then a lower class with ECT(0).
            for (ttl, tos) in [(33, 0xb8), (2, 0x22)] {
                let mut packet = Guest::packet(PORT, address, "x");
                (packet.ttl, packet.tos) = (ttl, tos);
                guest.0.try_send(&packet).unwrap();
                let seen = fields(&socket).await;
                assert_eq!((seen.1, seen.2), (i32::from(ttl) - 1, tos.into()), "{server}");

                let options = SockRef::from(&socket);
                if address.is_ipv4() {
                    options.set_ttl_v4(ttl.into()).unwrap();
                    options.set_tos_v4(tos.into()).unwrap();
                } else {
                    options.set_unicast_hops_v6(ttl.into()).unwrap();
                    options.set_tclass_v6(tos.into()).unwrap();
                }
                socket.send_to(b"y", seen.0).await.unwrap();
                let answer = guest.receive().await.unwrap();
                assert_eq!((answer.ttl, answer.tos), (ttl - 1, tos), "{server}");
            }
        }
        assert_eq!(gateway.counters().udp_in, 4);
    });
}
