//! A chat: each line of a client goes to all others.

use std::io;
use std::net::SocketAddr;

use steadfast::{Net, TcpListener, TcpStream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::broadcast::{self, Sender};

/// Opens the chat, and returns its address.
pub(crate) async fn open(net: &Net, local: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(net, local).await?;
    let address = listener.local_addr()?;
    let (lines, _) = broadcast::channel(100);
    tokio::spawn(async move {
        while let Ok((stream, from)) = listener.accept().await {
            tokio::spawn(attend(stream, from, lines.clone()));
        }
    });
    Ok(address)
}

async fn attend(stream: TcpStream, from: SocketAddr, lines: Sender<(SocketAddr, String)>) -> io::Result<()> {
    let mut heard = lines.subscribe();
    let (read, mut write) = stream.into_split();
    let mut said = BufReader::new(read).lines();
    write.write_all(b"welcome\n").await?;
    loop {
        tokio::select! {
            line = said.next_line() => match line? {
                // Nobody else may be there.
                Some(line) => _ = lines.send((from, line)),
                None => return write.shutdown().await,
            },
            line = heard.recv() => match line {
                Ok((by, line)) if by != from => write.write_all(format!("{line}\n").as_bytes()).await?,
                Ok(_) => {}
                Err(_) => return Ok(()),
            },
        }
    }
}

/// A member of the chat.
pub(crate) struct Member(BufReader<TcpStream>);

impl Member {
    /// Joins, and waits for the welcome.
    pub(crate) async fn join(net: &Net, chat: SocketAddr) -> io::Result<Member> {
        let stream = TcpStream::connect(net, chat).await?;
        stream.set_nodelay(true)?;
        let mut member = Member(BufReader::new(stream));
        member.hear().await?;
        Ok(member)
    }

    pub(crate) async fn say(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes()).await
    }

    pub(crate) async fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        Ok(line)
    }

    /// Leaves, and waits until the chat has closed its end.
    pub(crate) async fn leave(mut self) -> io::Result<String> {
        self.0.shutdown().await?;
        self.hear().await
    }
}
