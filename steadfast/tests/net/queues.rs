//! Several stacks behind the queues of one device. The device does not steer: it changes the queue with every packet.

use std::collections::HashSet;
use std::io;
use std::task::{Context, Poll};

use steadfast::device::memory::MemoryDevice;
use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::stack::wire::tcp;
use steadfast::{ConnectOptions, Net, TcpListener, TcpStream, device};
use steadfast_testkit::packets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{CLIENT, SERVER, at, pattern};

/// The peer's end of two queues.
struct Fickle {
    queues: [MemoryDevice; 2],
    turn: usize,
}

impl Device for Fickle {
    fn capabilities(&self) -> Capabilities {
        self.queues[0].capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        let [left, right] = &mut self.queues;
        match left.poll_recv(cx, buffer) {
            Poll::Pending => right.poll_recv(cx, buffer),
            ready => ready,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let sent = self.queues[self.turn].poll_send(cx, frame);
        self.turn ^= usize::from(sent.is_ready());
        sent
    }
}

fn nets() -> (Net, Net) {
    let (a, left) = device::memory::pair(1500);
    let (b, right) = device::memory::pair(1500);
    let server = Net::builder().secret([2; 32]).address(SERVER, 24).start_queues(vec![a, b]).unwrap();
    let fickle = Fickle { queues: [left, right], turn: 0 };
    let client = Net::builder().secret([1; 32]).address(CLIENT, 24).start(fickle).unwrap();
    (server, client)
}

async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.unwrap();
    to.shutdown().await.unwrap();
}

async fn expect_echo(mut stream: TcpStream, data: &[u8]) {
    let mut received = Vec::new();
    let (mut from, mut to) = stream.split();
    let send = async {
        to.write_all(data).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(send, from.read_to_end(&mut received));
    read.unwrap();
    assert!(received == data, "{} bytes", received.len());
}

#[tokio::test(start_paused = true)]
async fn a_listener_accepts_on_all_queues_whichever_a_packet_comes_through() {
    let (server, client) = nets();
    let listener = TcpListener::bind(&server, (SERVER, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    assert_eq!(server.usage().listeners, 2);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let mut guests = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let stream = TcpStream::connect(&client, to).await.unwrap();
        guests.spawn(async move { expect_echo(stream, &pattern(100_000)).await });
    }
    while let Some(done) = guests.join_next().await {
        done.unwrap();
    }
    let counters = server.counters();
    assert_eq!(counters.passive_opens, 16);
    assert_eq!(counters.out_rsts, 0, "no stack answers for the other");
}

#[tokio::test(start_paused = true)]
async fn what_a_stack_connects_comes_back_to_it_and_both_connect() {
    let (server, client) = nets();
    let listener = TcpListener::bind(&client, (CLIENT, 7)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let mut ports = HashSet::new();
    for _ in 0..16 {
        let stream = TcpStream::connect(&server, (CLIENT, 7)).await.unwrap();
        ports.insert(stream.local_addr().unwrap().port());
        expect_echo(stream, &pattern(10_000)).await;
    }
    assert_eq!(ports.len(), 16);
    assert_eq!(server.counters().out_rsts, 0);
    // With a requested port, the stack that owns the connection must open it.
    for port in 5000..5008 {
        let options = ConnectOptions { local_port: Some(port), ..ConnectOptions::default() };
        let stream = TcpStream::connect_with(&server, (CLIENT, 7), options).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), at(SERVER, port));
        expect_echo(stream, &pattern(1000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_fragmented_segment_one_stack_alone_answers() {
    let (a, left) = device::memory::pair(1500);
    let (b, right) = device::memory::pair(1500);
    let server = Net::builder().secret([2; 32]).address(SERVER, 24).start_queues(vec![a, b]).unwrap();
    let mut fickle = Fickle { queues: [left, right], turn: 0 };
    for source_port in 1000..1008_u16 {
        // A segment to a closed port, in two fragments through different queues.
        let header = tcp::Header { flags: tcp::Flags::SYN, ..tcp::Header::default() };
        let packet = packets::segment(at(CLIENT, source_port), at(SERVER, 9), header, &[0; 4]);
        for packet in packets::fragments(&packet, source_port, 16) {
            std::future::poll_fn(|cx| fickle.poll_send(cx, Frame::new(&packet))).await.unwrap();
        }
    }
    for _ in 0..8 {
        let mut buffer = [0; 1500];
        std::future::poll_fn(|cx| fickle.poll_recv(cx, &mut buffer)).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(server.counters().out_rsts, 8);
}

#[tokio::test]
async fn each_queue_has_a_thread_that_serves_its_connections_alone() {
    let (a, left) = device::memory::pair(1500);
    let (b, right) = device::memory::pair(1500);
    let mut devices = vec![a, b];
    let builder = Net::builder().secret([2; 32]).address(SERVER, 24);
    let (server, queues) = builder.build_threads(2, || Ok(devices.remove(0))).unwrap();
    let (seen, mut threads) = tokio::sync::mpsc::unbounded_channel();
    for queue in queues {
        let listener = TcpListener::bind(queue.net(), (SERVER, 7)).await.unwrap();
        let seen = seen.clone();
        let serve = async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.send(std::thread::current().id()).unwrap();
                tokio::spawn(echo(stream));
            }
        };
        queue.start(serve).unwrap();
    }
    drop(seen);
    let fickle = Fickle { queues: [left, right], turn: 0 };
    let client = Net::builder().secret([1; 32]).address(CLIENT, 24).start(fickle).unwrap();
    for _ in 0..16 {
        let stream = TcpStream::connect(&client, (SERVER, 7)).await.unwrap();
        expect_echo(stream, &pattern(100_000)).await;
    }
    assert_eq!(server.counters().passive_opens, 16);
    // The first queue that ends takes its part of the peer's device away.
    let _ = server.close(std::time::Duration::from_secs(5)).await;
    // The threads end with the network, and with them what they hold.
    let mut all = Vec::new();
    while let Some(thread) = threads.recv().await {
        all.push(thread);
    }
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (16, 2));
    assert!(!distinct.contains(&std::thread::current().id()));
}

#[tokio::test]
async fn a_queue_that_cannot_be_opened_ends_the_others() {
    let mut devices = vec![device::memory::pair(1500).0];
    let open = || devices.pop().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    let built = Net::builder().address(SERVER, 24).build_threads(2, open);
    assert_eq!(built.err().unwrap().kind(), io::ErrorKind::NotFound);
    // Queues that are never started.
    let open = || Ok(device::memory::pair(1500).0);
    let (net, queues) = Net::builder().address(SERVER, 24).build_threads(2, open).unwrap();
    drop(queues);
    net.closed().await.unwrap_err();
}
