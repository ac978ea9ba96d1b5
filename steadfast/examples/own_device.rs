//! A device of your own: packets travel in the datagrams of a UDP socket, as in a VPN, and some are lost on purpose.
//!
//! ```sh
//! cargo run --example own_device
//! ```

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::{Net, TcpListener, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UdpSocket;

/// A tunnel to one peer. It loses one packet of `loses_one_of`.
struct Tunnel {
    socket: UdpSocket,
    sent: u64,
    loses_one_of: u64,
}

impl Device for Tunnel {
    /// Room for the headers of the datagrams, as usual in a tunnel.
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(1400)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        let mut buffer = ReadBuf::new(buffer);
        loop {
            match ready!(self.socket.poll_recv(cx, &mut buffer)) {
                Ok(()) => return Poll::Ready(Ok(Received::new(buffer.filled().len()))),
                // The other side is not there yet, or not any more: on any network, packets are lost then.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        if (self.sent + 1).is_multiple_of(self.loses_one_of) {
            self.sent += 1;
            return Poll::Ready(Ok(()));
        }
        match ready!(self.socket.poll_send(cx, frame.bytes)) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Poll::Ready(Err(error)),
            _ => {
                self.sent += 1;
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// Two tunnels to each other over the loopback of this machine.
async fn tunnels(loses_one_of: u64) -> io::Result<(Tunnel, Tunnel)> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (left, right) = (UdpSocket::bind(any).await?, UdpSocket::bind(any).await?);
    left.connect(right.local_addr()?).await?;
    right.connect(left.local_addr()?).await?;
    let tunnel = |socket| Tunnel { socket, sent: 0, loses_one_of };
    Ok((tunnel(left), tunnel(right)))
}

/// Sends `length` bytes through the tunnel. Returns how many arrive, and how many segments are retransmitted.
async fn run(length: usize) -> io::Result<(usize, u64)> {
    let (left, right) = tunnels(50).await?;
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
    let listener = TcpListener::bind(&server, "10.9.0.2:7").await?;
    let received = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await
    });
    let mut stream = TcpStream::connect(&client, "10.9.0.2:7").await?;
    stream.write_all(&vec![7; length]).await?;
    stream.shutdown().await?;
    Ok((received.await??, client.counters().retrans_segs))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let (arrived, retransmitted) = run(1_000_000).await?;
    println!("{arrived} bytes arrived, {retransmitted} segments were retransmitted");
    Ok(())
}

#[tokio::test]
async fn all_bytes_arrive_though_the_device_loses_packets() {
    let (arrived, retransmitted) = run(1_000_000).await.unwrap();
    assert_eq!(arrived, 1_000_000);
    assert!(retransmitted >= 10, "{retransmitted}");
}
