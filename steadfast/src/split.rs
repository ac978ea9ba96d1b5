//! The halves of a stream.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::TcpStream;

/// The reading half of a borrowed stream: see [`TcpStream::split`].
///
/// ```
/// use steadfast::{Net, TcpListener, TcpStream, device};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
/// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
/// # let listener = TcpListener::bind(&server, ([10, 9, 0, 2], 7)).await?;
/// let mut stream = TcpStream::connect(&client, ([10, 9, 0, 2], 7)).await?;
/// # tokio::spawn(async move {
/// #     let (mut echo, _) = listener.accept().await?;
/// #     let (mut reader, mut writer) = echo.split();
/// #     tokio::io::copy(&mut reader, &mut writer).await
/// # });
/// let (mut reader, mut writer) = stream.split();
/// // Both directions at once, in one task.
/// let mut answer = [0; 9];
/// let (written, read) = tokio::join!(writer.write_all(b"hold fast"), reader.read_exact(&mut answer));
/// written.and(read.map(drop))?;
/// assert_eq!(&answer, b"hold fast");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReadHalf<'a>(pub(crate) &'a TcpStream);

/// The writing half of a borrowed stream: see [`ReadHalf`] for an example. Dropping it sends nothing.
#[derive(Debug)]
pub struct WriteHalf<'a>(pub(crate) &'a TcpStream);

/// The reading half of a stream: see [`TcpStream::into_split`].
///
/// ```
/// use steadfast::{Net, TcpListener, TcpStream, device};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
/// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
/// # let listener = TcpListener::bind(&server, ([10, 9, 0, 2], 7)).await?;
/// let (mut reader, mut writer) = TcpStream::connect(&client, ([10, 9, 0, 2], 7)).await?.into_split();
/// let writes = tokio::spawn(async move { writer.write_all(b"hold fast").await });
///
/// let (mut accepted, _) = listener.accept().await?;
/// let mut text = String::new();
/// accepted.read_to_string(&mut text).await?; // the task has dropped its half, which sends a FIN
/// assert_eq!(text, "hold fast");
/// writes.await??;
///
/// drop(accepted);
/// assert_eq!(reader.read(&mut [0; 16]).await?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OwnedReadHalf {
    pub(crate) stream: TcpStream,
}

/// The writing half of a stream: see [`OwnedReadHalf`] for an example. Dropping it sends a FIN.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    pub(crate) stream: TcpStream,
    pub(crate) shutdown_on_drop: bool,
}

/// The error of [`OwnedReadHalf::reunite`] and [`OwnedWriteHalf::reunite`]: the halves belong to different streams.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl TcpStream {
    /// Splits the stream into halves that borrow it.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Splits the stream into halves that two tasks may own. Dropping the write half sends a FIN; dropping both halves
    /// closes the connection.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let reader = OwnedReadHalf { stream: TcpStream { socket: self.socket.clone() } };
        (reader, OwnedWriteHalf { stream: self, shutdown_on_drop: true })
    }
}

impl OwnedReadHalf {
    /// Joins the halves to the stream that they were split from.
    ///
    /// # Errors
    ///
    /// They belong to different streams: the error has both.
    pub fn reunite(self, writer: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.stream.socket, &writer.stream.socket) {
            return Err(ReuniteError(self, writer));
        }
        writer.forget();
        Ok(self.stream)
    }
}

impl OwnedWriteHalf {
    /// As [`OwnedReadHalf::reunite`].
    ///
    /// # Errors
    ///
    /// As [`OwnedReadHalf::reunite`].
    pub fn reunite(self, reader: OwnedReadHalf) -> Result<TcpStream, ReuniteError> {
        reader.reunite(self)
    }

    /// Drops the half without sending a FIN.
    pub fn forget(mut self) {
        self.shutdown_on_drop = false;
    }
}

macro_rules! addresses {
    ($($half:ty, $stream:tt;)+) => { $(
        impl $half {
            /// Returns the local address.
            ///
            /// # Errors
            ///
            /// `Other` if the stack has panicked, and nothing else.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.$stream.local_addr()
            }

            /// Returns the peer's address.
            ///
            /// # Errors
            ///
            /// `Other` if the stack has panicked, and nothing else.
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                self.$stream.peer_addr()
            }
        }

        impl AsRef<TcpStream> for $half {
            fn as_ref(&self) -> &TcpStream {
                &self.$stream
            }
        }
    )+ };
}

addresses! {
    ReadHalf<'_>, 0;
    WriteHalf<'_>, 0;
    OwnedReadHalf, stream;
    OwnedWriteHalf, stream;
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.shutdown_on_drop {
            self.stream.socket.end();
        }
    }
}

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves are not of the same stream")
    }
}

impl std::error::Error for ReuniteError {}

macro_rules! reads {
    ($half:ty, $($socket:tt).+) => {
        impl AsyncRead for $half {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.$($socket).+.poll_read(cx, buffer)
            }
        }
    };
}

macro_rules! writes {
    ($half:ty, $($socket:tt).+, $shutdown:expr) => {
        impl AsyncWrite for $half {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                self.$($socket).+.poll_write(cx, &[IoSlice::new(data)])
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.$($socket).+.poll_write(cx, data)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                let result = self.$($socket).+.shutdown_write();
                $shutdown(&mut *self);
                Poll::Ready(result)
            }
        }
    };
}

reads!(ReadHalf<'_>, 0.socket);
reads!(OwnedReadHalf, stream.socket);
writes!(WriteHalf<'_>, 0.socket, |_: &mut WriteHalf<'_>| ());
writes!(OwnedWriteHalf, stream.socket, |half: &mut OwnedWriteHalf| half.shutdown_on_drop = false);
