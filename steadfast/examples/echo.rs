//! An echo server that the kernel of this machine reaches through a TUN device. As root, on Linux:
//!
//! ```sh
//! cargo run --example echo &
//! nc 10.9.0.2 7
//! ```

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::time::Duration;

    use steadfast::device::{Tun, TunOptions};
    use steadfast::{Net, TcpListener};

    let mut options = TunOptions::new("sf0");
    options.host = vec![([10, 9, 0, 1].into(), 24)];
    let net = Net::builder().address([10, 9, 0, 2], 24).start(Tun::open(&options).await?)?;
    let listener = TcpListener::bind(&net, ([10, 9, 0, 2], 7)).await?;
    eprintln!("echoing at {}", listener.local_addr()?);

    let server = tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                match tokio::io::copy(&mut reader, &mut writer).await {
                    Ok(bytes) => eprintln!("{peer}: {bytes} bytes"),
                    Err(error) => eprintln!("{peer}: {error}"),
                }
            });
        }
    });
    tokio::signal::ctrl_c().await?;
    server.abort();
    // Written data still arrives.
    net.close(Duration::from_secs(5)).await?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this example needs a TUN device of Linux");
}
