//! A server of lines, with the codecs of tokio-util and the combinators of futures.
//!
//! ```sh
//! cargo run --example lines --features futures,tokio-util
//! ```

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use tokio_util::net::Listener;

/// Answers the lines of one client, who may come through any kind of listener.
async fn serve_one<L: Listener>(mut listener: L) -> Result<L, LinesCodecError>
where
    L::Io: Unpin,
{
    let (stream, _) = listener.accept().await?;
    answer(Framed::new(stream, LinesCodec::new())).await?;
    Ok(listener)
}

async fn answer<S>(mut lines: Framed<S, LinesCodec>) -> Result<(), LinesCodecError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(line) = lines.next().await {
        lines.send(line?.to_uppercase()).await?;
    }
    Ok(())
}

async fn ask(net: &Net, line: &str) -> Result<String, Box<dyn Error>> {
    let mut lines = Framed::new(TcpStream::connect(net, "10.9.0.2:7").await?, LinesCodec::new());
    lines.send(line).await?;
    Ok(lines.next().await.ok_or("no answer")??)
}

async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
    let listener = TcpListener::bind(&server, "10.9.0.2:7").await?;
    tokio::spawn(async move {
        let listener = serve_one(listener).await?;
        // The others as a stream of connections, four at a time.
        let serve = |stream: Result<TcpStream, _>| async {
            if let Err(error) = answer(Framed::new(stream?, LinesCodec::new())).await {
                eprintln!("{error}");
            }
            Ok::<_, std::io::Error>(())
        };
        listener.incoming().map(serve).buffer_unordered(4).for_each(|_| async {}).await;
        Ok::<_, LinesCodecError>(())
    });
    Ok(vec![ask(&client, "hold").await?, ask(&client, "fast").await?])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("{}", run().await?.join(" "));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn lines_come_back_in_capitals() {
    assert_eq!(run().await.unwrap(), ["HOLD", "FAST"]);
}
