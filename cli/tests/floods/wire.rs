//! The attacker's packets, their path into the device, and the answers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt,
    socket, sockopt,
};

/// The server's device.
const DEVICE: &str = "sf0";
/// The device's queue holds 2,000 packets; this limit keeps it from overflowing.
const UNDER_WAY: u64 = 1000;
/// Packets between two checks of the queue.
const BURST: u64 = 250;
/// Timeout for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const TTL: u8 = 64;

/// A socket that sends to the device, bypassing all checks of the kernel.
pub(crate) struct Wire {
    out: OwnedFd,
    tap: OwnedFd,
    device: LinkAddr,
    /// Packets sent through this socket.
    sent: u64,
}

/// The size of a flood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) took: Duration,
}

impl Sent {
    pub(crate) fn rate(self) -> f64 {
        self.packets as f64 / self.took.as_secs_f64()
    }
}

impl Wire {
    pub(crate) fn open() -> Wire {
        let open = || {
            let (packets, flags) = (SockType::Raw, SockFlag::SOCK_NONBLOCK);
            socket(AddressFamily::Packet, packets, flags, SockProtocol::EthAll).unwrap()
        };
        let (out, tap) = (open(), open());
        // `UNDER_WAY` is the limit, not the socket buffer: packets wait there while others use the device.
        setsockopt(&out, sockopt::SndBufForce, &(16 << 20)).unwrap();
        setsockopt(&tap, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        // The device is the only one that is up in the namespace, so any packet reveals its address.
        UdpSocket::bind("10.9.0.1:0").unwrap().send_to(&[0], ours(9)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let device = loop {
            assert!(Instant::now() < deadline, "nothing crosses the device");
            if let Ok((_, Some(device))) = recvfrom::<LinkAddr>(tap.as_raw_fd(), &mut [0; 64]) {
                break device;
            }
        };
        Wire { out, tap, device, sent: 0 }
    }

    /// Sends one packet.
    pub(crate) fn send(&mut self, packet: &[u8]) {
        sendto(self.out.as_raw_fd(), packet, &self.device, MsgFlags::empty()).unwrap();
        self.sent += 1;
    }

    /// Sends the packets of `next` for `time`, as fast as the device and the stack behind it read them.
    pub(crate) fn flood(&mut self, time: Duration, mut next: impl FnMut() -> Vec<u8>) -> Sent {
        let (began, before) = (Instant::now(), self.sent);
        let (_, dropped_before) = read_and_dropped();
        while began.elapsed() < time {
            for _ in 0..BURST {
                self.send(&next());
            }
            self.settle();
        }
        let sent = Sent { packets: self.sent - before, took: began.elapsed() };
        let dropped = read_and_dropped().1 - dropped_before;
        println!("{} packets, {:.0}/s, {dropped} dropped by the device", sent.packets, sent.rate());
        sent
    }

    /// Waits until the device's queue has room.
    pub(crate) fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Read these counters first: the kernel keeps sending.
            let (read, dropped) = read_and_dropped();
            if self.sent + kernels() <= read + dropped + UNDER_WAY {
                return;
            }
            assert!(Instant::now() < deadline, "the device takes no packet");
            std::thread::yield_now();
        }
    }

    /// Returns all answers of the stack to these packets, without the pongs that mark the end.
    pub(crate) fn answers<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        self.drain();
        for packet in packets {
            self.send(packet);
        }
        // A pong may overtake packets in another queue: the answers are complete once a round brings only its pong.
        let mut answers = Vec::new();
        self.until_pong(&mut answers);
        loop {
            let before = answers.len();
            self.until_pong(&mut answers);
            if answers.len() == before {
                return answers;
            }
        }
    }

    /// Sends a ping, and collects the packets before its pong.
    fn until_pong(&mut self, answers: &mut Vec<Vec<u8>>) {
        let mark = fastrand::u16(..);
        self.send(&ping(Ipv4Addr::new(10, 9, 0, 77), mark));
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the stack answers no more: {answers:?}");
            let mut ponged = false;
            for packet in self.drain() {
                if is_pong(&packet, mark) {
                    ponged = true;
                } else {
                    answers.push(packet);
                }
            }
            if ponged {
                return;
            }
        }
    }

    /// Returns the packets from the stack since the last call.
    pub(crate) fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((packet, outbound)) = self.next_seen() {
            if !outbound {
                all.push(packet);
            }
        }
        all
    }

    /// Returns the first packet in either direction that `like` accepts.
    pub(crate) fn find<T>(&mut self, mut like: impl FnMut(&[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = self.next_seen().and_then(|(packet, _)| like(&packet)) {
                return found;
            }
        }
        panic!("no such packet");
    }

    /// A packet that crossed the device, and whether its destination is the stack.
    fn next_seen(&mut self) -> Option<(Vec<u8>, bool)> {
        let mut buffer = vec![0; 65_536];
        let (len, device) = recvfrom::<LinkAddr>(self.tap.as_raw_fd(), &mut buffer).ok()?;
        buffer.truncate(len);
        Some((buffer, device.is_some_and(|device| device.pkttype() == libc::PACKET_OUTGOING)))
    }
}

/// The server's addresses.
pub(crate) const OURS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2)),
];

/// The server's IPv4 endpoint.
pub(crate) fn ours(port: u16) -> SocketAddr {
    SocketAddr::new(OURS[0], port)
}

/// A random remote host of the same address family.
pub(crate) fn anybody(rng: &mut fastrand::Rng, to: IpAddr) -> SocketAddr {
    let address: IpAddr = match to {
        IpAddr::V4(_) => [198, 18 + rng.u8(..2), rng.u8(..), rng.u8(1..255)].into(),
        IpAddr::V6(_) => (0x2001_0db8_u128 << 96 | u128::from(rng.u64(1..))).to_be_bytes().into(),
    };
    SocketAddr::new(address, rng.u16(1024..))
}

/// One of the server's addresses.
pub(crate) fn either(rng: &mut fastrand::Rng) -> IpAddr {
    OURS[usize::from(rng.bool())]
}

/// The number of packets that the kernel itself sent to the device.
fn kernels() -> u64 {
    let all = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let v6 = all.lines().find_map(|line| line.strip_prefix("Ip6OutRequests")).unwrap();
    let v6: u64 = v6.trim().parse().unwrap();
    // A row of names, then a row of values.
    let all = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut rows = all.lines().filter_map(|line| line.strip_prefix("Ip:"));
    let (names, numbers) = (rows.next().unwrap(), rows.next().unwrap());
    let mut both = names.split_whitespace().zip(numbers.split_whitespace());
    let v4: u64 = both.find(|(name, _)| *name == "OutRequests").unwrap().1.parse().unwrap();
    v4 + v6
}

/// The numbers of packets that the stack read from the device, and that its queue dropped.
fn read_and_dropped() -> (u64, u64) {
    let all = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let row = all.lines().find_map(|line| line.trim_start().strip_prefix(DEVICE)?.strip_prefix(':'));
    let columns: Vec<u64> = row.unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect();
    (columns[9], columns[11])
}

/// The TCP header of an IPv4 packet without IP options.
pub(crate) fn tcp_of(packet: &[u8]) -> Option<TcpHeader> {
    let v4 = packet.first()? == &0x45 && packet.get(9) == Some(&6);
    TcpHeader::from_slice(packet.get(20..).filter(|_| v4)?).ok().map(|(header, _)| header)
}

/// A segment; `change` modifies a minimal header.
pub(crate) fn segment(
    from: SocketAddr,
    to: SocketAddr,
    change: impl FnOnce(&mut TcpHeader),
    payload: &[u8],
) -> Vec<u8> {
    let mut tcp = TcpHeader::new(from.port(), to.port(), 0, 65_535);
    change(&mut tcp);
    tcp.checksum = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload),
        _ => panic!("addresses of two versions"),
    }
    .unwrap();
    let body = [tcp.to_bytes().as_slice(), payload].concat();
    packet(from.ip(), to.ip(), IpNumber::TCP, &body)
}

/// An IP packet with this body.
pub(crate) fn packet(from: IpAddr, to: IpAddr, protocol: IpNumber, body: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = body.len() as u16;
            let mut header = Ipv4Header::new(len, TTL, protocol, from.octets(), to.octets()).unwrap();
            header.dont_fragment = false;
            let mut bytes = Vec::with_capacity(20 + body.len());
            header.write(&mut bytes).unwrap();
            bytes.extend(body);
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                payload_length: body.len() as u16,
                next_header: protocol,
                hop_limit: TTL,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            [header.to_bytes().as_slice(), body].concat()
        }
        _ => panic!("addresses of two versions"),
    }
}

/// The checksum of RFC 1071, for headers that were modified.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ICMP message to the server, with its checksum.
pub(crate) fn icmp(from: IpAddr, kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Vec<u8> {
    let mut body = [&[kind, code, 0, 0], rest.to_be_bytes().as_slice(), quoted].concat();
    let sum = checksum(&body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(from, OURS[0], IpNumber::ICMP, &body)
}

fn ping(from: Ipv4Addr, mark: u16) -> Vec<u8> {
    icmp(from.into(), 8, 0, u32::from(mark) << 16, &[0; 8])
}

fn is_pong(packet: &[u8], mark: u16) -> bool {
    packet.get(9) == Some(&1) && packet.get(20) == Some(&0) && packet.get(24..26) == Some(&mark.to_be_bytes())
}
