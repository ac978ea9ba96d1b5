//! A proxy from this stack to the kernel's: what connects to 10.9.0.2:80 reaches the given address. As root, on Linux:
//!
//! ```sh
//! cargo run --example proxy -- 127.0.0.1:8080 &
//! curl http://10.9.0.2/
//! ```

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::net::SocketAddr;

    use steadfast::device::{Tun, TunOptions};
    use steadfast::{Net, TcpListener, TcpStream};

    async fn carry(mut client: TcpStream, target: SocketAddr) -> std::io::Result<(u64, u64)> {
        let mut server = tokio::net::TcpStream::connect(target).await?;
        // A FIN of one side becomes a FIN to the other, and the other direction stays open.
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    }

    let target: SocketAddr = std::env::args().nth(1).ok_or("expected an address and port")?.parse()?;
    let mut options = TunOptions::new("sf0");
    options.host = vec![([10, 9, 0, 1].into(), 24)];
    let net = Net::builder().address([10, 9, 0, 2], 24).start(Tun::open(&options).await?)?;
    let listener = TcpListener::bind(&net, ([10, 9, 0, 2], 80)).await?;
    loop {
        let (client, peer) = listener.accept().await?;
        tokio::spawn(async move {
            match carry(client, target).await {
                Ok((up, down)) => eprintln!("{peer}: {up} bytes up, {down} bytes down"),
                Err(error) => eprintln!("{peer}: {error}"),
            }
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this example needs a TUN device of Linux");
}
