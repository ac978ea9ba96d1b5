//! A device that always has another packet: outgoing data shares each turn with the answers to a flood.
//!
//! The test polls the driver itself, one turn at a time, and plays the peer with a core stack.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::stack::seq::SeqNum;
use steadfast::stack::trace::State;
use steadfast::stack::wire::ipv4;
use steadfast::stack::wire::tcp::{Flags, Header, Options};
use steadfast::stack::{self, Config, ConnectOptions, Instant, Interface, Stack};
use steadfast::{Net, TcpListener};
use steadfast_testkit::packets;
use tokio::io::AsyncWriteExt;

use crate::{CLIENT, SERVER};

const PORT: u16 = 80;
const TURN: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
enum Flood {
    None,
    Syn,
    Ack,
    Rst,
}

impl Flood {
    /// Returns a packet of the flood. Each has another source address.
    fn packet(self, number: u32) -> Option<Vec<u8>> {
        let flags = match self {
            Flood::None => return None,
            Flood::Syn => Flags::SYN,
            Flood::Ack => Flags::ACK,
            Flood::Rst => Flags::RST,
        };
        Some(segment(Ipv4Addr::from_bits(0x0b00_0000 + number), flags))
    }
}

/// Returns a segment without payload from `source` to the server.
fn segment(source: Ipv4Addr, flags: Flags) -> Vec<u8> {
    let mss = flags.syn().then_some(1460);
    let options = Options { mss, ..Options::default() };
    let header =
        Header { seq: SeqNum(source.to_bits()), flags, window: 65_535, options, ..Header::default() };
    packets::segment((source, 1024).into(), (SERVER, PORT).into(), header, &[])
}

/// The wire of the server, with an endless flood on it.
struct Wire {
    flood: Flood,
    drawn: u32,
    /// Alternates: every other packet is one of the flood while both sources have packets.
    floods_next: bool,
    to_server: VecDeque<Vec<u8>>,
    to_client: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Flooded {
    wire: Arc<Mutex<Wire>>,
    offload: bool,
}

impl Device for Flooded {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(1500);
        capabilities.segmentation_offload = self.offload;
        capabilities
    }

    fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        let wire = &mut *self.wire.lock().unwrap();
        wire.floods_next = !wire.floods_next;
        wire.drawn += 1;
        let strange = || wire.flood.packet(wire.drawn);
        let packet = match wire.floods_next {
            true => strange().or_else(|| wire.to_server.pop_front()),
            false => wire.to_server.pop_front().or_else(strange),
        };
        let Some(packet) = packet else { return Poll::Pending };
        buffer[..packet.len()].copy_from_slice(&packet);
        Poll::Ready(Ok(Received::new(packet.len())))
    }

    fn poll_send(&mut self, _: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let (header, _) = ipv4::parse(frame.bytes).unwrap();
        if header.destination == CLIENT {
            self.wire.lock().unwrap().to_client.push(frame.bytes.to_vec());
        }
        Poll::Ready(Ok(()))
    }
}

/// Serves a transfer and 50 legitimate clients for 1,500 turns beside a flood. Returns the bytes that the transfer
/// carried, and how many of the clients are connected.
async fn serve_beside(flood: Flood, offload: bool) -> (usize, usize) {
    let wire = Wire {
        flood: Flood::None,
        drawn: 0,
        floods_next: false,
        to_server: VecDeque::new(),
        to_client: Vec::new(),
    };
    let device = Flooded { wire: Arc::new(Mutex::new(wire)), offload };
    let builder = Net::builder().secret([2; 32]).address(SERVER, 8);
    let (net, mut driver) = builder.build(device.clone()).unwrap();
    let listener = TcpListener::bind(&net, (SERVER, PORT)).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let text = vec![1; 65_536];
            while stream.write_all(&text).await.is_ok() {}
        });
        let mut others = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            others.push(stream);
        }
    });
    let config = Config { secret: [1; 32], ..Config::default() };
    let mut client = Stack::new(config, Interface::new(1500, [(IpAddr::V4(CLIENT), 8)]));
    let (mut now, mut frame, mut text) = (Instant::from_secs(1), vec![0; 1500], vec![0; 65_536]);
    let connect = |client: &mut Stack, now| {
        client.connect(now, (SERVER, PORT).into(), ConnectOptions::default()).unwrap()
    };
    let transfer = connect(&mut client, now);
    let (mut others, mut received, mut warm) = (Vec::new(), 0, 0);
    for turn in 0..1500 {
        client.advance(now);
        while let Some(sent) = client.transmit(now, &mut frame) {
            device.wire.lock().unwrap().to_server.push_back(frame[..sent.len].to_vec());
        }
        let turn_of_driver = Pin::new(&mut driver).poll(&mut Context::from_waker(Waker::noop()));
        assert!(turn_of_driver.is_pending());
        for packet in std::mem::take(&mut device.wire.lock().unwrap().to_client) {
            client.receive(now, &packet[..]);
        }
        while let Ok(count @ 1..) = client.recv(transfer, &mut text) {
            received += count;
        }
        while client.poll_event().is_some() {}
        if turn == 100 {
            device.wire.lock().unwrap().flood = flood;
            warm = received;
        }
        if (100..150).contains(&turn) {
            others.push(connect(&mut client, now));
        }
        tokio::time::advance(TURN).await;
        now += stack::Duration::from_millis(10);
    }
    let connected = others.iter().filter(|id| client.state(**id) == Ok(State::Established)).count();
    (received - warm, connected)
}

#[tokio::test(start_paused = true)]
async fn a_device_that_always_has_more_leaves_a_transfer_half_its_rate_threat_1_threat_5_threat_7() {
    for offload in [false, true] {
        let (alone, connected) = serve_beside(Flood::None, offload).await;
        assert_eq!(connected, 50);
        for flood in [Flood::Syn, Flood::Ack, Flood::Rst] {
            let (beside, connected) = serve_beside(flood, offload).await;
            assert!(beside * 2 >= alone, "{flood:?}, offload {offload}: {beside} of {alone} bytes");
            assert_eq!(connected, 50, "{flood:?}, offload {offload}");
        }
    }
}

/// A waker that calls the network when it is dropped, as a task's last waker may.
struct Asks(Net, mpsc::Sender<usize>);

impl Wake for Asks {
    fn wake(self: Arc<Asks>) {}
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.1.send(self.0.usage().sockets).unwrap();
    }
}

#[test]
fn the_waker_that_a_driver_had_before_goes_when_the_lock_is_free() {
    let (told, tells) = mpsc::channel();
    // In a thread of its own, because a deadlock would never end.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let (device, _other) = steadfast::device::memory::pair(1500);
        let (net, mut driver) = Net::builder().secret([2; 32]).address(SERVER, 24).build(device).unwrap();
        let waker = Waker::from(Arc::new(Asks(net.clone(), told)));
        assert!(Pin::new(&mut driver).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert!(Pin::new(&mut driver).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    });
    assert_eq!(tells.recv_timeout(Duration::from_secs(10)), Ok(0));
}
