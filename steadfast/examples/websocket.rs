//! A WebSocket by tokio-tungstenite: messages both ways, and the closing handshake before the FIN.
//!
//! ```sh
//! cargo run --example websocket
//! ```

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Returns each text in capitals, until the client closes.
async fn serve(stream: TcpStream) -> Result<()> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            socket.send(Message::text(text.to_uppercase())).await?;
        }
    }
    Ok(())
}

async fn run() -> Result<Vec<String>> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
    let listener = TcpListener::bind(&server, "10.9.0.2:80").await?;
    let served = tokio::spawn(async move { serve(listener.accept().await?.0).await });

    let stream = TcpStream::connect(&client, "10.9.0.2:80").await?;
    let (mut socket, _) = client_async("ws://10.9.0.2/", stream).await?;
    let mut answers = Vec::new();
    for text in ["hold", "fast"] {
        socket.send(Message::text(text)).await?;
        let answer = socket.next().await.ok_or("the server has closed")??;
        answers.push(answer.into_text()?.to_string());
    }
    socket.close(None).await?;
    // The rest of the stream is the server's part of the closing handshake.
    while let Some(message) = socket.next().await {
        message?;
    }
    served.await??;
    Ok(answers)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    println!("{}", run().await?.join(" "));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn messages_go_both_ways_and_the_end_is_orderly() {
    assert_eq!(run().await.unwrap(), ["HOLD", "FAST"]);
}
