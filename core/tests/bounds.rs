//! Every table, cache and queue against peers that push against it with a million segments: what the stack holds stays
//! within what the setting that bounds it allows, at the size that the setting's doc names.
//!
//! An allocator that counts looks after every few thousand segments. `pressure.rs` does so for `tcp_mem`, `held.rs` for
//! what one connection receives.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use allocation_counter::measure;
use steadfast_core::config::Config;
use steadfast_core::config::{FastOpenMode, SynCookies};
use steadfast_core::counters::{Counters, DropReason};
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::icmp::{ErrorKind, Message};
use steadfast_core::wire::tcp::{Cookie, Flags, Header, Options, SackBlocks, Timestamps};
use steadfast_core::wire::{PROTOCOL_UDP, build, ethernet, ipv4, udp};
use steadfast_core::{
    ConnectOptions, Duration, Error, ForwardRule, Instant, Interface, InterfaceId, ListenOptions, Packet,
    Route, SocketId, Spare, Stack, UdpOptions,
};
use steadfast_testkit::{Client, Segment, next_segment, packets};

/// Segments that the peers send.
const SEGMENTS: u64 = 1_000_000;
/// Between two looks.
const LOOK: u64 = 5_000;
/// Other memory of a stack: vacant rows of its tables, the chunk of a queue, and the table of budgets.
const BESIDE: u64 = 128 << 10;
/// Memory that a stack keeps at the end: a page of 64 KiB of each of its tables.
const PAGES: u64 = 10 << 16;
/// Spare buffers, see `tcp_mem`.
const SPARE: u64 = 6 << 20;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 80;
/// The address on a link with hardware addresses.
const LINK: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 1);

/// A bound, and how peers push against it.
struct Row {
    name: &'static str,
    /// The setting, and its value.
    limit: &'static str,
    value: u64,
    /// Bytes that the setting's doc names for one of what it counts; 1 where it counts bytes.
    each: u64,
    /// Bytes beside, which the doc or [`PAGES`] names.
    slack: u64,
    configure: fn(&mut Config),
    /// Some segments of peers, and what the application does.
    push: fn(&mut World, u32),
    /// How many there are of what the setting counts, where that can be seen from outside.
    count: Option<fn(&World) -> u64>,
    /// How often the limit was in the way, where that is counted.
    bites: Option<fn(&Counters) -> u64>,
}

/// A stack among peers. Time stands still unless a row moves it.
struct World {
    stack: Stack,
    now: Instant,
    frame: Vec<u8>,
    listener: SocketId,
    /// Segments that peers sent.
    sent: u64,
    /// The state that a row keeps between two pushes.
    client: Option<(Client, SocketId)>,
    cookie: Option<Cookie>,
    udp: Vec<SocketId>,
}

impl World {
    fn new(config: Config) -> World {
        let interface = Interface::new(1500, [(SERVER.into(), 24)]);
        let mut stack = Stack::new(config, interface);
        let options = ListenOptions { backlog: 1 << 20, fast_open: true, ..ListenOptions::default() };
        let listener = stack.listen((SERVER, PORT).into(), options).unwrap();
        let (now, frame) = (Instant::from_secs(1000), vec![0; 1500]);
        World { stack, now, frame, listener, sent: 0, client: None, cookie: None, udp: Vec::new() }
    }

    fn send(&mut self, packet: &[u8]) {
        self.sent += 1;
        self.stack.receive(self.now, packet);
    }

    /// A packet in a frame of a host on a link of its own.
    fn send_on_link(&mut self, packet: &[u8]) {
        self.sent += 1;
        let (ours, theirs) = (ethernet::Address([2, 0, 0, 0, 0, 1]), ethernet::Address([2, 0, 0, 0, 0, 2]));
        let link = match self.stack.interface_of(LINK.into()) {
            Some(link) => link,
            None => {
                let link = Interface::ethernet(1500, ours, [(LINK.into(), 8)]);
                let link = self.stack.add_interface(link).unwrap();
                self.frame.resize(self.stack.frame_len(), 0);
                link
            }
        };
        let header = ethernet::Header::new(theirs, ours, ethernet::TYPE_IPV4);
        let frame = build::ethernet(&header, packet);
        self.stack.receive(self.now, Packet::from(&frame[..]).on(link));
    }

    fn answer(&mut self) -> Option<Segment> {
        next_segment(&mut self.stack, self.now, &mut self.frame)
    }

    /// The device takes everything.
    fn drain(&mut self) {
        while self.stack.transmit(self.now, &mut self.frame).is_some() {}
    }

    /// A client opens a connection, if it gets an answer.
    fn open(&mut self, mut client: Client) -> Option<Client> {
        self.send(&client.syn());
        while let Some(segment) = self.answer() {
            client.hears(&segment);
        }
        if client.ack == SeqNum(0) {
            return None;
        }
        self.send(&client.acknowledges());
        self.drain();
        Some(client)
    }

    /// A client's connection that the application has.
    fn accepted(&mut self, number: u32) -> Option<(Client, SocketId)> {
        let client = self.open(client(number))?;
        let (id, _) = self.stack.accept(self.listener).ok()?;
        Some((client, id))
    }

    /// The one connection of a row that has but one.
    fn one(&mut self, offer: Options) -> (Client, SocketId) {
        if let Some((client, id)) = self.client.take() {
            return (client, id);
        }
        let client = self.open(client(0).offering(offer)).expect("an answer");
        (client, self.stack.accept(self.listener).expect("it is established").0)
    }

    /// Everybody goes.
    fn end(&mut self) {
        for id in self.stack.sockets(self.now).into_iter().filter_map(|entry| entry.socket) {
            if id != self.listener {
                // Fails for a connection that was not accepted: it has no socket yet, and ends with the listener.
                let _ = self.stack.abort(self.now, id);
            }
        }
        for id in std::mem::take(&mut self.udp) {
            self.stack.close(self.now, id).unwrap();
        }
        self.stack.close(self.now, self.listener).unwrap();
        self.stack.abort_all(self.now, Spare::Nothing);
        let end = self.now + Duration::from_secs(3600);
        while let Some(at) = self.stack.poll_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.stack.advance(self.now);
            self.drain();
        }
        self.drain();
        while self.stack.poll_event().is_some() {}
    }
}

/// A host in a network of its own, as far as networks last.
fn client(number: u32) -> Client {
    let address = Ipv4Addr::from_bits(0x0b00_0000 + (number % (1 << 20)) * 256);
    Client::new((address, 4000), (SERVER, PORT))
}

impl Row {
    /// Pushes, and looks.
    fn run(&self) {
        let mut config = Config { secret: [5; 32], ..Config::default() };
        (self.configure)(&mut config);
        config.apply(&format!("{} = {}", self.limit, self.value)).unwrap();
        let mut world = World::new(config);
        let (mut heap, mut most, mut number) = (0, 0, 0);
        let bound = self.value * self.each + self.slack;
        while world.sent < SEGMENTS {
            let until = world.sent + LOOK;
            let info = measure(|| {
                while world.sent < until {
                    (self.push)(&mut world, number);
                    number += 1;
                }
            });
            heap += info.bytes_current;
            let count = self.count.map_or(0, |count| count(&world));
            assert!(count <= self.value, "{}: {count} of {}", self.limit, self.value);
            assert!(heap <= bound as i64, "{}: {heap} bytes of {bound} with {count}", self.limit);
            most = most.max(count);
        }
        println!("{}: {heap} bytes of {bound}, {most} of {}", self.limit, self.value);
        assert!(self.count.is_none() || most >= self.value / 10 * 9, "{}: at most {most}", self.limit);
        if let Some(bites) = self.bites {
            assert!(bites(world.stack.counters()) > 0, "{}: {:?}", self.limit, world.stack.counters());
        }
        assert_eq!(world.stack.check_consistent(), Ok(()));
        heap += measure(|| world.end()).bytes_current;
        let usage = world.stack.usage();
        let left =
            (usage.sockets, usage.connections, usage.half_open, usage.time_wait, usage.held, usage.timers);
        assert_eq!(left, (0, 0, 0, 0, 0, 0), "{}", self.limit);
        // Caches keep what they have; all others are empty.
        let cached = if self.is_cache() { self.value * self.each } else { 0 };
        let kept = (cached + PAGES + SPARE) as i64;
        assert!(heap <= kept, "{}: {heap} bytes are kept of {kept}", self.limit);
    }

    fn is_cache(&self) -> bool {
        ["pmtu_cache", "tcp_fastopen_cache", "tcp_tw_recycle_peers"].contains(&self.limit)
    }
}

/// Each row is a test of its own, and all of them are in `ROWS`.
macro_rules! rows {
    ($($name:ident: $limit:literal = $value:literal, $each:literal each, $slack:expr => {
        configure: $configure:expr, push: $push:expr, count: $count:expr, bites: $bites:expr,
    })+) => {
        const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            limit: $limit,
            value: $value,
            each: $each,
            slack: $slack,
            configure: $configure,
            push: $push,
            count: $count,
            bites: $bites,
        }),+];

        $(#[test]
        fn $name() {
            let row = ROWS.iter().find(|row| row.name == stringify!($name)).expect("it is there");
            row.run();
        })+
    };
}

rows! {
    half_open_entries_threat_1: "tcp_max_half_open" = 4096, 100 each, BESIDE => {
        configure: |config| (config.tcp_syncookies, config.tcp_max_syn_backlog) = (SynCookies::Never, 1 << 20),
        push: |world, number| {
            world.send(&client(number).syn());
            world.drain();
        },
        count: Some(|world| world.stack.usage().half_open as u64),
        bites: Some(|counters| counters.tcp_req_q_full_drop),
    }
    half_open_entries_of_a_listener_threat_1: "tcp_max_syn_backlog" = 2048, 100 each, BESIDE => {
        configure: |_| (),
        push: |world, number| {
            world.send(&client(number).syn());
            world.drain();
        },
        count: Some(|world| world.stack.usage().half_open as u64),
        bites: Some(|counters| counters.tcp_req_q_full_do_cookies),
    }
    connections_that_nobody_accepts: "somaxconn" = 1024, 1024 each, BESIDE => {
        configure: |config| config.tcp_max_half_open = 16,
        push: |world, number| _ = world.open(client(number)),
        count: Some(|world| world.stack.usage().connections as u64),
        bites: Some(|counters| counters.listen_overflows),
    }
    connections: "tcp_max_connections" = 2048, 1024 each, BESIDE => {
        configure: |config| config.tcp_max_half_open = 16,
        push: |world, number| _ = world.accepted(number),
        count: Some(|world| world.stack.usage().connections as u64),
        bites: Some(|counters| counters.dropped(DropReason::NoMemory)),
    }
    time_wait_entries_threat_11: "tcp_max_tw_buckets" = 4096, 58 each, BESIDE => {
        configure: |_| (),
        push: closes_first,
        count: Some(|world| world.stack.usage().time_wait as u64),
        bites: Some(|counters| counters.tcp_time_wait_overflow),
    }
    memory_of_time_wait_entries_threat_11: "tcp_tw_mem" = 262_144, 1 each, BESIDE => {
        configure: |_| (),
        push: closes_first,
        count: Some(|world| world.stack.usage().time_wait as u64 * 58),
        bites: Some(|counters| counters.tcp_time_wait_overflow),
    }
    peers_that_recycling_remembers: "tcp_tw_recycle_peers" = 1024, 160 each, BESIDE => {
        configure: |config| (config.tcp_tw_recycle, config.tcp_max_tw_buckets) = (true, 0),
        push: closes_first,
        count: None,
        bites: None,
    }
    orphans_threat_10: "tcp_max_orphans" = 1024, 256 each, BESIDE + (64 << 10) => {
        configure: |_| (),
        push: |world, number| {
            let Some((mut client, id)) = world.accepted(number) else { return };
            world.stack.close(world.now, id).unwrap();
            world.drain();
            client.ack += 1;
            world.send(&client.acknowledges());
            world.drain();
        },
        count: Some(|world| world.stack.usage().orphans as u64),
        bites: Some(|counters| counters.tcp_abort_on_memory),
    }
    spent_cookies_threat_6: "tcp_max_spent_cookies" = 4096, 24 each, BESIDE => {
        configure: |config| config.tcp_syncookies = SynCookies::Always,
        push: |world, number| {
            let (_, id) = world.accepted(number).expect("cookies are never full");
            world.stack.abort(world.now, id).unwrap();
            world.drain();
        },
        count: Some(|world| {
            let counters = world.stack.counters();
            counters.syncookies_recv - counters.syncookies_not_kept
        }),
        bites: Some(|counters| counters.syncookies_not_kept),
    }
    path_mtus_threat_31: "pmtu_cache" = 1024, 160 each, BESIDE => {
        configure: |_| (),
        push: |world, number| {
            let (client, id) = world.accepted(number).expect("there is room");
            world.stack.send(id, &[1; 1400]).unwrap();
            let sent = world.stack.transmit(world.now, &mut world.frame).expect("it is sent").len;
            let quoted = world.frame[..sent.min(100)].to_vec();
            let error = Message::Error { kind: ErrorKind::PacketTooBig { mtu: 1300 }, quoted: &quoted };
            let router = packets::icmp(client.end.ip(), SERVER.into(), &error).unwrap();
            world.send(&router);
            world.send(&client.packet(Flags::RST | Flags::ACK, &[]));
            world.drain();
            world.stack.close(world.now, id).unwrap();
        },
        count: Some(|world| world.stack.usage().path_mtus as u64),
        bites: None,
    }
    // Beside it there are the counters of the port choice.
    fast_open_cookies_of_servers: "tcp_fastopen_cache" = 1024, 160 each, BESIDE + (128 << 10) => {
        configure: |config| config.tcp_fastopen = FastOpenMode::CLIENT,
        push: |world, number| {
            let server = client(number).end;
            let options = ConnectOptions { fast_open: true, ..ConnectOptions::default() };
            let id = world.stack.connect(world.now, server, options).unwrap();
            let syn = world.answer().expect("a SYN");
            let (flags, options) = (
                Flags::SYN | Flags::ACK,
                Options { mss: Some(1460), fast_open: Cookie::new(&[1; 16]), ..Options::default() },
            );
            let header =
                Header { seq: SeqNum(1), ack: syn.header.seq + 1, flags, options, window: 9, ..Header::default() };
            world.send(&packets::segment(server, syn.from, header, &[]));
            world.stack.abort(world.now, id).unwrap();
            world.drain();
        },
        count: Some(|world| {
            let known = |number: &u32| world.stack.knows_fast_open_cookie(client(*number).end.ip());
            (0..SEGMENTS as u32).rev().take(10_000).filter(known).count() as u64
        }),
        bites: None,
    }
    // Ports, and the counters of their choice: one connection is there at a time.
    connects_that_are_refused: "tcp_max_connections" = 1, 1024 each, BESIDE + (128 << 10) => {
        configure: |_| (),
        push: |world, number| {
            let server = client(number).end;
            let id = world.stack.connect(world.now, server, ConnectOptions::default()).unwrap();
            let syn = world.answer().expect("a SYN");
            let flags = Flags::RST | Flags::ACK;
            let header = Header { ack: syn.header.seq + 1, flags, ..Header::default() };
            world.send(&packets::segment(server, syn.from, header, &[]));
            assert_eq!(world.stack.take_error(id), Ok(Some(Error::ConnectionRefused)));
            world.stack.close(world.now, id).unwrap();
        },
        count: None,
        bites: None,
    }
    // Each has its text queued beside it.
    fast_open_connections_without_a_third_segment: "tcp_fastopen_pending" = 128, 1536 each, BESIDE => {
        configure: |config| (config.tcp_fastopen, config.tcp_max_half_open) = (FastOpenMode::SERVER, 16),
        push: |world, number| {
            let end = SocketAddr::from((Ipv4Addr::new(11, 0, 0, 1), 1024 + (number % 50_000) as u16));
            let offer = |cookie| Options { mss: Some(1460), fast_open: cookie, ..Options::default() };
            if world.cookie.is_none() {
                let asks = Client::new(end, (SERVER, PORT)).offering(offer(Cookie::new(&[])));
                world.send(&asks.syn());
                let answer = world.answer().expect("a SYN-ACK");
                world.cookie = answer.header.options.fast_open;
                world.send(&asks.at(asks.seq + 1).packet(Flags::RST, &[]));
            }
            let client = Client::new(end, (SERVER, PORT)).offering(offer(world.cookie));
            world.send(&client.packet(Flags::SYN, &[1; 100]));
            world.drain();
        },
        count: Some(|world| world.stack.usage().connections as u64),
        bites: Some(|counters| counters.tcp_fast_open_listen_overflow),
    }
    memory_of_fragments_threat_18: "ipfrag_high_thresh" = 262_144, 1 each, BESIDE => {
        configure: |config| config.icmp_ratelimit = 1,
        push: |world, number| {
            let len = [8, 8, 1400, 64][number as usize % 4];
            world.send(&fragment(number, 0, len));
        },
        count: Some(|world| world.stack.usage().fragment_bytes as u64),
        bites: Some(|counters| counters.reasm_fails),
    }
    incomplete_datagrams_of_a_pair_threat_18: "ipfrag_max_datagrams" = 16, 1024 each, 4096 => {
        configure: |_| (),
        push: |world, number| {
            let mut packet = fragment(0, 0, 64);
            let header = ipv4::Header {
                identification: number as u16,
                ..ipv4::parse(&packet).unwrap().0
            };
            header.emit(64, &mut packet);
            world.send(&packet);
        },
        count: Some(|world| world.stack.usage().fragments as u64),
        bites: Some(|counters| counters.reasm_fails),
    }
    fragments_of_a_datagram_threat_18: "ipfrag_max_fragments" = 16, 64 each, 3072 => {
        configure: |_| (),
        push: |world, number| world.send(&fragment(0, (1 + number % 4000) as u16 * 16, 8)),
        count: None,
        bites: Some(|counters| counters.dropped(DropReason::FragmentLimit)),
    }
    answers_that_wait: "reply_queue" = 1000, 256 each, BESIDE => {
        configure: |config| config.tcp_rst_limit = 0,
        push: |world, number| world.send(&client(number).at(SeqNum(number)).acknowledges()),
        count: Some(|world| world.stack.usage().replies as u64),
        bites: Some(|counters| counters.dropped(DropReason::ReplyQueueFull)),
    }
    datagrams_of_udp: "udp_mem" = 1_048_576, 1 each, BESIDE => {
        configure: |config| config.udp_rcvbuf = 8 << 20,
        push: |world, number| {
            let local = (SERVER, 1000 + (number % 500) as u16).into();
            if number < 500 {
                let options = UdpOptions::new(world.stack.config());
                world.udp.push(world.stack.bind_udp(local, options).unwrap());
            }
            let data = [0; 100];
            let data = &data[..number as usize % 100];
            let mut datagram = vec![0; udp::HEADER_LEN];
            let header = udp::Header { source_port: 9, destination_port: local.port(), checksum: 0 };
            header.emit(data.len(), &mut datagram);
            datagram.extend(data);
            let IpAddr::V4(source) = client(number).end.ip() else { unreachable!("it is one") };
            world.send(&build::ipv4(&ipv4::Header::new(source, SERVER, PROTOCOL_UDP), &datagram));
        },
        count: Some(|world| world.stack.usage().udp_held),
        bites: Some(|counters| counters.udp_mem_errors),
    }
    sockets_of_udp: "udp_max_sockets" = 1000, 1024 each, BESIDE => {
        configure: |_| (),
        push: |world, _| {
            let options = UdpOptions::new(world.stack.config());
            let bound = world.stack.bind_udp((SERVER, 0).into(), options);
            assert!(matches!(bound, Ok(_) | Err(Error::NoBufferSpace)));
            world.udp.extend(bound);
            world.send(&client(0).acknowledges());
        },
        count: Some(|world| world.stack.usage().udp_sockets as u64),
        bites: None,
    }
    requests_of_forwarders: "forward_max_pending" = 4096, 256 each, BESIDE => {
        configure: |config| {
            config.forward_max_pending_per_source = 1 << 20;
            config.forward_max_pending_per_destination = 1 << 20;
        },
        push: |world, number| {
            let source = client(number).end;
            asks_a_forwarder(world, number, source, Ipv4Addr::new(198, 51, 100, 1));
        },
        count: Some(|world| world.stack.usage().requests as u64),
        bites: Some(|counters| counters.forward_pending_full),
    }
    requests_of_a_source: "forward_max_pending_per_source" = 1000, 256 each, BESIDE => {
        configure: |config| config.forward_max_pending = 1 << 20,
        push: |world, number| {
            let port = 1024 + (number % 60_000) as u16;
            let destination = Ipv4Addr::from_bits(0x0c00_0000 + number);
            asks_a_forwarder(world, number, (Ipv4Addr::new(11, 0, 0, 1), port).into(), destination);
        },
        count: Some(|world| world.stack.usage().requests as u64),
        bites: Some(|counters| counters.forward_source_full),
    }
    requests_to_a_destination: "forward_max_pending_per_destination" = 1000, 256 each, BESIDE => {
        configure: |config| config.forward_max_pending = 1 << 20,
        push: |world, number| {
            let source = client(number).end;
            asks_a_forwarder(world, number, source, Ipv4Addr::new(198, 51, 100, 1));
        },
        count: Some(|world| world.stack.usage().requests as u64),
        bites: Some(|counters| counters.forward_destination_full),
    }
    datagrams_of_a_forwarder: "forward_queue" = 4096, 256 each, BESIDE => {
        configure: |_| (),
        push: |world, number| sends_to_a_forwarder(world, number, &[]),
        count: Some(|world| world.stack.usage().udp_held / 256),
        bites: Some(|counters| counters.forward_queue_full),
    }
    bytes_of_datagrams_of_a_forwarder: "forward_queue_bytes" = 1_048_576, 1 each, BESIDE => {
        configure: |config| config.forward_queue = 1 << 20,
        push: |world, number| sends_to_a_forwarder(world, number, &[0; 1400][..number as usize % 1400]),
        count: Some(|world| world.stack.usage().udp_held),
        bites: Some(|counters| counters.forward_queue_full),
    }
    bytes_of_answers_that_wait: "reply_queue_bytes" = 262_144, 1 each, BESIDE => {
        configure: |config| (config.icmp_ratelimit, config.reply_queue) = (1 << 20, 1 << 20),
        push: |world, number| {
            let data = [0; 1400];
            let data = &data[..number as usize % 1400];
            let ping = Message::EchoRequest { ident: 1, sequence: 1, data };
            let ping = packets::icmp(client(number).end.ip(), SERVER.into(), &ping).unwrap();
            world.now += Duration::from_micros(2);
            world.send(&ping);
        },
        count: None,
        bites: Some(|counters| counters.dropped(DropReason::ReplyQueueFull)),
    }
    budgets_of_networks_threat_5: "tcp_rst_limit" = 1000, 0 each, 16 << 10 => {
        configure: |_| (),
        push: |world, number| {
            world.now += Duration::from_micros(10);
            world.send(&client(number).acknowledges());
            world.drain();
        },
        count: None,
        bites: Some(|counters| counters.dropped(DropReason::ReplyThrottled)),
    }
    memberships_of_a_socket: "igmp_max_memberships" = 20, 128 each, BESIDE => {
        configure: |_| (),
        push: |world, number| {
            world.sent += 1;
            if world.udp.is_empty() {
                let options = UdpOptions::new(world.stack.config());
                world.udp.push(world.stack.bind_udp((SERVER, 9).into(), options).unwrap());
            }
            let group = Ipv4Addr::from_bits(0xef00_0000 + number % 4096);
            // Fails at the limit, and for a group that was joined before.
            let _ = world.stack.join_multicast(world.udp[0], group.into(), None);
        },
        count: Some(|world| {
            let joined = world.udp.first().map(|id| world.stack.multicast_groups(*id).unwrap().len());
            joined.unwrap_or(0) as u64
        }),
        bites: None,
    }
    interfaces: "interface_max" = 64, 1024 each, BESIDE => {
        configure: |_| (),
        push: |world, number| {
            world.sent += 1;
            let address = Ipv4Addr::from_bits(0x0c00_0001 + number * 256);
            // Fails at the limit.
            let _ = world.stack.add_interface(Interface::new(1500, [(address.into(), 24)]));
        },
        count: Some(|world| world.stack.interfaces().len() as u64),
        bites: None,
    }
    routes: "route_max" = 1024, 256 each, BESIDE => {
        configure: |_| (),
        push: |world, number| {
            world.sent += 1;
            let network = Ipv4Addr::from_bits(0x0c00_0000 + number % (1 << 20) * 256);
            // Fails at the limit.
            let _ = world.stack.add_route(Route::new(network.into(), 24, InterfaceId::FIRST));
        },
        count: Some(|world| world.stack.routes().len() as u64),
        bites: None,
    }
    neighbours_that_are_not_there_threat_85: "gc_thresh3" = 1024, 512 each, BESIDE + (512 << 10) => {
        configure: |_| (),
        push: |world, number| {
            let from = Ipv4Addr::from_bits(0x0c00_0002 + number % (1 << 20));
            world.send_on_link(&Client::new((from, 4000), (LINK, PORT)).syn());
            world.drain();
            world.now += Duration::from_millis(2);
            world.stack.advance(world.now);
        },
        count: Some(|world| world.stack.usage().neighbours as u64),
        bites: Some(|counters| counters.neigh_forced_gc_runs + counters.neigh_table_fulls),
    }
    packets_for_neighbours_that_are_not_there_threat_85: "neigh_mem" = 262144, 1 each, BESIDE + (1 << 20) => {
        configure: |config| config.icmp_ratelimit = 0,
        push: |world, number| {
            let from = Ipv4Addr::from_bits(0x0c00_0002 + number % 512);
            let ping = Message::EchoRequest { ident: 1, sequence: 1, data: &[0; 1000] };
            world.send_on_link(&build::icmp(from.into(), LINK.into(), &ping).unwrap());
            world.drain();
        },
        count: Some(|world| world.stack.usage().neighbour_bytes as u64),
        bites: Some(|counters| counters.neigh_unresolved_discards),
    }
    packets_to_ourselves: "loop_queue" = 64, 2048 each, BESIDE + SPARE + (3 << 20) => {
        configure: |config| config.tcp_mem = 1 << 30,
        push: |world, _| {
            let own = (SERVER, PORT).into();
            let (client, id) = match world.client.take() {
                Some(there) => there,
                None => {
                    let id = world.stack.connect(world.now, own, ConnectOptions::default()).unwrap();
                    (client(0), id)
                }
            };
            while world.stack.send(id, &[1; 60_000]).is_ok() {}
            world.drain();
            let before = world.stack.counters().in_segs;
            world.stack.advance(world.now);
            while let Ok((other, _)) = world.stack.accept(world.listener) {
                world.cookie = None;
                world.client = Some((client.clone(), other));
            }
            world.sent += (world.stack.counters().in_segs - before).max(1);
            world.client = Some((client, id));
        },
        count: None,
        bites: Some(|counters| counters.loop_queue_full),
    }
    ranges_that_a_peer_says_it_has_threat_15: "tcp_max_sack_ranges" = 512, 24 each, 81 << 10 => {
        configure: |config| (config.tcp_init_cwnd, config.tcp_sndbuf) = (255, 65_536),
        push: |world, number| {
            let (client, id) = world.one(wide());
            while world.stack.send(id, &[1; 65_536]).is_ok() {}
            world.drain();
            let mut blocks = SackBlocks::default();
            for block in 0..3 {
                let at = client.ack + (number.wrapping_mul(2_654_435_761) >> 8).wrapping_add(block * 7919) % 60_000;
                blocks.push(at, at + 1 + block);
            }
            let options = Options { sack: blocks, timestamps: client.timestamps, ..Options::default() };
            let header = Header {
                seq: client.seq,
                ack: client.ack,
                flags: Flags::ACK,
                window: client.window,
                options,
                ..Header::default()
            };
            world.send(&packets::segment(client.end, client.server, header, &[]));
            world.client = Some((client, id));
        },
        count: None,
        bites: None,
    }
}

/// Bounds of memory that others push against: `pressure.rs`, `held.rs`, `exchange/link.rs`, and the library.
const ELSEWHERE: [&str; 8] = [
    "tcp_mem",
    "tcp_rcvbuf",
    "tcp_sndbuf",
    "udp_rcvbuf",
    "udp_sndbuf",
    "netdev_max_backlog",
    "txqueuelen",
    "gc_thresh2",
];
/// Settings that are named like a bound of memory and are none: a mode, a scale, the width of a search, retransmissions.
const NO_BOUND: [&str; 4] = ["tcp_syncookies", "tcp_rcvbuf_max", "tcp_probe_threshold", "tcp_ecn_maxretries"];

#[test]
fn every_bound_of_memory_is_pushed_against() {
    let words =
        ["max", "cache", "queue", "buf", "mem", "thresh", "peers", "conn", "pending", "backlog", "cookies"];
    for setting in Config::settings() {
        let name = setting.short_name();
        let is_bound = ["", "bytes"].contains(&setting.unit)
            && words.iter().any(|word| name.contains(word))
            && !NO_BOUND.contains(&name);
        let is_tested = ROWS.iter().any(|row| row.limit == name) || ELSEWHERE.contains(&name);
        assert!(is_tested || !is_bound, "{name}");
    }
}

/// A client that the server closes first, up to TIME-WAIT.
fn closes_first(world: &mut World, number: u32) {
    let timestamps = Some(Timestamps { val: 1 + number, ecr: 0 });
    let offer = Options { timestamps, ..client(number).offer };
    let mut client = world.open(client(number).offering(offer)).expect("there is room");
    let (id, _) = world.stack.accept(world.listener).expect("it is established");
    world.stack.close(world.now, id).unwrap();
    world.drain();
    client.ack += 1;
    world.send(&client.packet(Flags::FIN | Flags::ACK, &[]));
    world.drain();
}

/// A SYN to an address of another host, which nobody decides about.
fn asks_a_forwarder(world: &mut World, number: u32, source: SocketAddr, destination: Ipv4Addr) {
    if number == 0 {
        // It is closed at the end, as these are.
        world.udp.push(world.stack.forward(ForwardRule::all()).unwrap());
    }
    world.send(&Client::new(source, (destination, PORT)).syn());
}

/// A datagram to an address of another host, which nobody takes.
fn sends_to_a_forwarder(world: &mut World, number: u32, data: &[u8]) {
    if number == 0 {
        world.udp.push(world.stack.forward_udp(ForwardRule::all()).unwrap());
    }
    let IpAddr::V4(source) = client(number).end.ip() else { unreachable!("it is one") };
    let mut datagram = vec![0; udp::HEADER_LEN];
    udp::Header { source_port: 9, destination_port: 53, checksum: 0 }.emit(data.len(), &mut datagram);
    datagram.extend(data);
    let header = ipv4::Header::new(source, Ipv4Addr::new(198, 51, 100, 1), PROTOCOL_UDP);
    world.send(&build::ipv4(&header, &datagram));
}

/// A window that is never in the way, and SACK.
fn wide() -> Options {
    Options { mss: Some(1460), window_scale: Some(10), sack_permitted: true, ..Options::default() }
}

/// A fragment of a datagram that is never whole.
fn fragment(number: u32, offset: u16, len: usize) -> Vec<u8> {
    let IpAddr::V4(source) = client(number).end.ip() else { unreachable!("it is one") };
    let header = ipv4::Header {
        identification: 1,
        dont_fragment: false,
        more_fragments: true,
        fragment_offset: offset,
        ..ipv4::Header::new(source, SERVER, PROTOCOL_UDP)
    };
    build::ipv4(&header, &vec![0; len])
}
