//! A hundred requests at once on one connection, by h2. Here client and server are two stacks with a wire in memory.
//!
//! ```sh
//! cargo run --example h2
//! ```

use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const STREAMS: usize = 100;
/// Bytes of an answer: more than the window of a stream, so that the streams wait for each other.
const LENGTH: usize = 100_000;

/// Answers each request with as many bytes, all of the value that its path names.
async fn serve(stream: TcpStream) -> Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        let value: u8 = request.uri().path()[1..].parse()?;
        let mut body = respond.send_response(Response::new(()), false)?;
        body.send_data(Bytes::from(vec![value; LENGTH]), true)?;
    }
    Ok(())
}

/// Reads an answer, and returns its length and whether all its bytes are right.
async fn read(response: h2::client::ResponseFuture, value: u8) -> Result<(usize, bool)> {
    let mut body = response.await?.into_body();
    let (mut length, mut right) = (0, true);
    while let Some(data) = body.data().await {
        let data = data?;
        length += data.len();
        right &= data.iter().all(|byte| *byte == value);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((length, right))
}

async fn run() -> Result<(usize, usize)> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
    let listener = TcpListener::bind(&server, "10.9.0.2:80").await?;
    let served = tokio::spawn(async move { serve(listener.accept().await?.0).await });

    let stream = TcpStream::connect(&client, "10.9.0.2:80").await?;
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let mut answers = JoinSet::new();
    for value in 0..STREAMS as u8 {
        sender = sender.ready().await?;
        let request = Request::get(format!("http://10.9.0.2/{value}")).body(())?;
        let (response, _) = sender.send_request(request, true)?;
        answers.spawn(read(response, value));
    }
    let mut whole = 0;
    while let Some(answer) = answers.join_next().await {
        whole += usize::from(answer?? == (LENGTH, true));
    }
    drop(sender);
    connection.await??;
    served.await??;
    Ok((whole, client.counters().active_opens as usize))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (answers, connections) = run().await?;
    println!("{answers} answers, {connections} connection");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hundred_answers_come_whole_on_one_connection() {
    assert_eq!(run().await.unwrap(), (STREAMS, 1));
}
