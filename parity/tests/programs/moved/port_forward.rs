//! A port that leads elsewhere: each connection is carried to a target, with half-closed ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use steadfast::{Net, TcpListener, TcpSocket, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};

/// Opens the port, and returns its address.
pub(crate) async fn open(net: &Net, local: SocketAddr, target: SocketAddr) -> io::Result<SocketAddr> {
    let socket = TcpSocket::new_v4(net)?;
    socket.set_reuseaddr(true)?;
    socket.bind(local)?;
    let listener = socket.listen(128)?;
    let address = listener.local_addr()?;
    let net = net.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let net = net.clone();
            tokio::spawn(async move {
                let dial = TcpStream::connect(&net, target);
                match tokio::time::timeout(Duration::from_secs(5), dial).await {
                    Ok(Ok(server)) => carry(client, server).await,
                    // The client sees a reset: nobody is there.
                    _ => client.set_zero_linger(),
                }
            });
        }
    });
    Ok(address)
}

async fn carry(mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// A server that answers once it has read everything: the number of bytes.
pub(crate) async fn count(net: &Net, local: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(net, local).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = Vec::new();
            if stream.read_to_end(&mut text).await.is_ok() {
                stream.write_all(text.len().to_string().as_bytes()).await.ok();
            }
        }
    });
    Ok(address)
}

/// Sends `length` bytes, closes that direction, and returns what comes back.
pub(crate) async fn ask(net: &Net, server: SocketAddr, length: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(net, server).await?;
    stream.write_all(&vec![7; length]).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
