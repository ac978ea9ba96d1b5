//! An echo server that the kernel of this machine reaches through a TUN device. As root, on Linux:
//!
//! ```sh
//! cargo run --example echo &
//! nc 10.9.0.2 7
//! ```

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::time::Duration;

    use steadfast::device::{Tun, TunOptions};
    use steadfast::{Net, TcpListener};
    use tokio::task::JoinHandle;

    /// Starts the network and its server.
    pub(crate) async fn start() -> Result<(Net, JoinHandle<()>), Box<dyn std::error::Error>> {
        let mut options = TunOptions::new("sf0");
        options.host = vec![([10, 9, 0, 1].into(), 24)];
        let net = Net::builder().address([10, 9, 0, 2], 24).start(Tun::open(&options).await?)?;
        let listener = TcpListener::bind(&net, "10.9.0.2:7").await?;
        eprintln!("echoing at {}", listener.local_addr()?);
        Ok((net, tokio::spawn(echo(listener))))
    }

    async fn echo(listener: TcpListener) {
        while let Ok((mut stream, peer)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                match tokio::io::copy(&mut reader, &mut writer).await {
                    Ok(bytes) => eprintln!("{peer}: {bytes} bytes"),
                    Err(error) => eprintln!("{peer}: {error}"),
                }
            });
        }
    }

    /// Ends both. Written data still arrives.
    pub(crate) async fn end(net: Net, server: JoinHandle<()>) -> io::Result<()> {
        server.abort();
        net.close(Duration::from_secs(5)).await
    }
}

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (net, server) = linux::start().await?;
    tokio::signal::ctrl_c().await?;
    linux::end(net, server).await?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this example needs a TUN device of Linux");
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernel_hears_its_echo() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    if !steadfast_witness::enter_namespace(&[]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (net, server) = linux::start().await.unwrap();
        let mut stream = tokio::net::TcpStream::connect("10.9.0.2:7").await.unwrap();
        stream.write_all(b"hold fast").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "hold fast");
        linux::end(net, server).await.unwrap();
    });
}
