//! Devices that take payloads in slices, and devices that do not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use steadfast::device::{Capabilities, Device, Frame, Received, memory};
use steadfast::{Net, RelayConfig, TcpListener, TcpStream, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{CLIENT, SERVER, pattern};

/// A device that counts the bytes in its frames, and those in slices.
struct Counting {
    device: memory::MemoryDevice,
    gathers: bool,
    bytes: Arc<AtomicUsize>,
    sliced: Arc<AtomicUsize>,
}

impl Device for Counting {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        self.device.poll_recv(cx, buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let sent = self.device.poll_send(cx, frame);
        if sent.is_ready() {
            self.bytes.fetch_add(frame.packet_len(), Ordering::Relaxed);
            self.sliced.fetch_add(frame.slices.iter().map(Bytes::len).sum(), Ordering::Relaxed);
        }
        sent
    }

    fn gathers(&self) -> bool {
        self.gathers
    }
}

/// A kernel's socket writes `data`, a relay carries it to a network behind the device, and a client there reads it.
async fn relayed(data: &[u8], gathers: bool) -> (usize, usize) {
    let (bytes, sliced) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (left, right) = memory::pair_with_offload(1500);
    let device = Counting { device: left, gathers, bytes: bytes.clone(), sliced: sliced.clone() };
    let near = Net::builder().address(SERVER, 24).start(device).unwrap();
    let far = Net::builder().address(CLIENT, 24).start(right).unwrap();
    let listener = TcpListener::bind(&near, (SERVER, 80)).await.unwrap();
    let mut client = TcpStream::connect(&far, (SERVER, 80)).await.unwrap();
    let (guest, _) = listener.accept().await.unwrap();

    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = tokio::net::TcpStream::connect(host.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = host.accept().await.unwrap();
    let relayed = tokio::spawn(async move { relay(guest, upstream, &RelayConfig::default()).await });
    let mut got = Vec::new();
    let write = async {
        server.write_all(data).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let read = async {
        client.read_to_end(&mut got).await.unwrap();
        client.shutdown().await.unwrap();
    };
    tokio::join!(write, read);
    assert!(got == data);
    assert_eq!(relayed.await.unwrap().b_to_a.bytes as usize, data.len());
    (bytes.load(Ordering::Relaxed), sliced.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_relay_hands_slices_to_a_device_that_gathers_and_to_no_other() {
    let data = pattern(4_000_000);
    let (bytes, sliced) = relayed(&data, true).await;
    assert!(bytes > data.len() && sliced > data.len() / 2, "{sliced} of {bytes}");
    let (bytes, sliced) = relayed(&data, false).await;
    assert!(bytes > data.len() && sliced == 0, "{sliced} of {bytes}");
}
