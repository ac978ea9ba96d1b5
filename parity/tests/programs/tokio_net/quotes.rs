//! A service of quotes over UDP and over TCP (in the manner of RFC 865), without a task for each client: it waits for
//! readiness, and then tries.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UdpSocket};

const QUOTES: [&str; 3] = ["hold fast", "stand firm", "stay the course"];

/// Opens both services on one port, and returns their address.
pub(crate) async fn open(local: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(local).await?;
    let address = listener.local_addr()?;
    let socket = UdpSocket::bind(address).await?;
    tokio::spawn(serve(listener, socket));
    Ok(address)
}

async fn serve(listener: TcpListener, socket: UdpSocket) -> io::Result<()> {
    let mut question = [0; 512];
    for quote in QUOTES.iter().cycle() {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.writable().await?;
                stream.try_write(quote.as_bytes())?;
            }
            received = socket.recv_from(&mut question) => {
                let (_, from) = received?;
                socket.send_to(quote.as_bytes(), from).await?;
            }
        }
    }
    Ok(())
}

/// Asks over UDP.
pub(crate) async fn by_udp(local: SocketAddr, server: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(b"").await?;
    let mut quote = [0; 512];
    let len = socket.recv(&mut quote).await?;
    Ok(String::from_utf8_lossy(&quote[..len]).into_owned())
}

/// Asks over TCP.
pub(crate) async fn by_tcp(server: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(server).await?;
    let mut quote = Vec::with_capacity(512);
    loop {
        stream.readable().await?;
        match stream.try_read_buf(&mut quote) {
            Ok(0) => return Ok(String::from_utf8_lossy(&quote).into_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
