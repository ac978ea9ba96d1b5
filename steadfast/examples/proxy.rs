//! A proxy from this stack to the kernel's: what connects to 10.9.0.2:80 reaches the given address. As root, on Linux:
//!
//! ```sh
//! cargo run --example proxy -- 127.0.0.1:8080 &
//! curl http://10.9.0.2/
//! ```

#[cfg(target_os = "linux")]
mod linux {
    use std::net::SocketAddr;

    use steadfast::device::{Tun, TunOptions};
    use steadfast::{Net, TcpListener, TcpStream};

    /// Opens the network of the proxy.
    pub(crate) async fn listen() -> Result<TcpListener, Box<dyn std::error::Error>> {
        let mut options = TunOptions::new("sf0");
        options.host = vec![([10, 9, 0, 1].into(), 24)];
        let net = Net::builder().address([10, 9, 0, 2], 24).start(Tun::open(&options).await?)?;
        Ok(TcpListener::bind(&net, "10.9.0.2:80").await?)
    }

    pub(crate) async fn serve(listener: TcpListener, target: SocketAddr) -> std::io::Result<()> {
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

    async fn carry(mut client: TcpStream, target: SocketAddr) -> std::io::Result<(u64, u64)> {
        let mut server = tokio::net::TcpStream::connect(target).await?;
        // A FIN of one side becomes a FIN to the other, and the other direction stays open. `steadfast::relay` carries
        // resets as well.
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    }
}

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("expected an address and port")?.parse()?;
    linux::serve(linux::listen().await?, target).await?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this example needs a TUN device of Linux");
}

#[cfg(target_os = "linux")]
#[test]
fn a_question_and_its_answer_go_through() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    if !steadfast_witness::enter_namespace(&["ip"]) {
        return;
    }
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        tokio::spawn(linux::serve(linux::listen().await.unwrap(), target));
        let mut client = tokio::net::TcpStream::connect("10.9.0.2:80").await.unwrap();
        client.write_all(b"hold").await.unwrap();
        client.shutdown().await.unwrap();

        let (mut accepted, _) = server.accept().await.unwrap();
        let (mut question, mut answer) = (String::new(), String::new());
        accepted.read_to_string(&mut question).await.unwrap();
        accepted.write_all(b"fast").await.unwrap();
        drop(accepted);
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((&*question, &*answer), ("hold", "fast"));
    });
}
