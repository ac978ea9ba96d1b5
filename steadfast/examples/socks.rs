//! A SOCKS5 proxy (RFC 1928): clients of this network reach the kernel's network through it.
//!
//! ```sh
//! cargo run --example socks
//! ```

use std::io::{self, Error, ErrorKind::InvalidData};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast::{Net, Reject, RelayConfig, Report, TcpListener, TcpStream, device, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Serves one client: greeting, request, dial, reply, relay.
async fn serve_one(mut client: TcpStream) -> io::Result<Report> {
    let [5, count] = array(&mut client).await? else { return Err(InvalidData.into()) };
    client.read_exact(&mut vec![0; count.into()]).await?;
    client.write_all(&[5, 0]).await?; // no authentication
    let [5, 1, 0, kind] = array(&mut client).await? else { return Err(InvalidData.into()) };
    let host = match kind {
        1 => Ipv4Addr::from(array::<4>(&mut client).await?).to_string(),
        4 => Ipv6Addr::from(array::<16>(&mut client).await?).to_string(),
        3 => {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(|error| Error::new(InvalidData, error))?
        }
        _ => return Err(InvalidData.into()),
    };
    let port = client.read_u16().await?;
    match tokio::net::TcpStream::connect((host, port)).await {
        Ok(upstream) => {
            client.write_all(&reply(0)).await?;
            Ok(relay(client, upstream, &RelayConfig::default()).await)
        }
        Err(error) => {
            let code = match Reject::from_io(&error) {
                Reject::AdminProhibited => 2,
                Reject::NetUnreachable => 3,
                Reject::HostUnreachable => 4,
                Reject::Reset => 5,
                _ => 1,
            };
            client.write_all(&reply(code)).await?;
            Err(error)
        }
    }
}

async fn array<const N: usize>(client: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Names no address: clients do not need that of the dialled end.
fn reply(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// Asks the proxy for a connection, and returns the stream and the reply's code.
async fn ask(net: &Net, to: SocketAddr) -> io::Result<(TcpStream, u8)> {
    let mut stream = TcpStream::connect(net, "10.9.0.2:1080").await?;
    stream.write_all(&[5, 1, 0]).await?;
    array::<2>(&mut stream).await?;
    let SocketAddr::V4(to) = to else { return Err(InvalidData.into()) };
    let [a, b, c, d] = to.ip().octets();
    let [high, low] = to.port().to_be_bytes();
    stream.write_all(&[5, 1, 0, 1, a, b, c, d, high, low]).await?;
    let [_, code, ..] = array::<10>(&mut stream).await?;
    Ok((stream, code))
}

async fn run() -> io::Result<(String, u8)> {
    let (left, right) = device::memory::pair(1500);
    let proxy = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
    let listener = TcpListener::bind(&proxy, "10.9.0.2:1080").await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                match serve_one(stream).await {
                    Ok(report) => eprintln!("{} bytes up, {} down", report.a_to_b.bytes, report.b_to_a.bytes),
                    Err(error) => eprintln!("{error}"),
                }
            });
        }
    });

    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = server.local_addr()?;
    let (mut stream, _) = ask(&client, address).await?;
    let (mut accepted, _) = server.accept().await?;
    accepted.write_all(b"hold fast").await?;
    drop((accepted, server));
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    // Nobody listens there any more.
    let (_, refused) = ask(&client, address).await?;
    Ok((text, refused))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let (text, refused) = run().await?;
    println!("{text}; a closed port gives {refused}");
    Ok(())
}

#[tokio::test]
async fn the_proxy_relays_and_says_why_it_cannot() {
    assert_eq!(run().await.unwrap(), ("hold fast".to_owned(), 5));
}
