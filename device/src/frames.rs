//! Ethernet frames over sockets, as virtual machine monitors carry them.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, SocketAddrUnix};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixDatagram, UnixListener, UnixStream};
use tokio::time::Sleep;

use crate::{Capabilities, Device, Frame, HardwareAddress, Received};

/// The longest frame that a stream may announce: a larger length means that the two sides disagree.
pub const LONGEST_FRAME: usize = 65_550;

const LENGTH_LEN: usize = 4;

/// Frames over a stream: each is behind its length, 32 bits in network order (QEMU's `-netdev stream` and `-netdev
/// socket`, passt, libkrun).
///
/// A device that listens takes one peer at a time. A new peer replaces the present one, as after a restart of the
/// monitor; frames are lost while there is none. A device without a listener ends with its peer.
#[derive(Debug)]
pub struct UnixStreamFrames {
    capabilities: Capabilities,
    listener: Option<UnixListener>,
    peer: Option<Peer>,
}

/// A connection, and the frames that have crossed it in part.
#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    /// The length and the frame, as far as they are read.
    read: Vec<u8>,
    /// The rest of a frame that is written in part, with its length.
    unwritten: Vec<u8>,
    written: usize,
}

impl Peer {
    fn new(stream: UnixStream) -> Peer {
        Peer { stream, read: Vec::new(), unwritten: Vec::new(), written: 0 }
    }

    /// Reads the next frame into `buffer`. `Ok(None)`: the peer closed in good order.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        loop {
            let wanted = match self.read.first_chunk::<LENGTH_LEN>() {
                None => LENGTH_LEN,
                Some(len) => {
                    let len = u32::from_be_bytes(*len) as usize;
                    if len > LONGEST_FRAME {
                        let text = format!("a frame of {len} bytes: expected at most {LONGEST_FRAME}");
                        return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, text)));
                    }
                    if self.read.len() == LENGTH_LEN + len {
                        let frame = &self.read[LENGTH_LEN..];
                        let fits = buffer.get_mut(..len);
                        // A frame above the MTU is lost, as on any link.
                        let taken = fits.map(|place| place.copy_from_slice(frame)).is_some();
                        self.read.clear();
                        if taken && len > 0 {
                            return Poll::Ready(Ok(Some(len)));
                        }
                        continue;
                    }
                    LENGTH_LEN + len
                }
            };
            let had = self.read.len();
            self.read.resize(wanted, 0);
            let mut space = ReadBuf::new(&mut self.read[had..]);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut space);
            let read = space.filled().len();
            self.read.truncate(had + read);
            match ready!(polled) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(()) if read == 0 => return Poll::Ready(Ok(None)),
                Ok(()) => {}
            }
        }
    }

    /// Writes what is left of a frame.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.unwritten.len() {
            let rest = &self.unwritten[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(written) => self.written += written,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a frame once the one before is written, and writes as much as the stream takes.
    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &[u8]) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.unwritten.clear();
        self.written = 0;
        self.unwritten.extend((frame.len() as u32).to_be_bytes());
        self.unwritten.extend_from_slice(frame);
        match self.poll_flush(cx) {
            // The frame is taken: `poll_flush` before the next one writes the rest.
            Poll::Pending => Poll::Ready(Ok(())),
            written => written,
        }
    }
}

impl UnixStreamFrames {
    /// Carries frames over a connected stream. `hardware` is the address of our end.
    pub fn connected(stream: UnixStream, hardware: HardwareAddress, mtu: u16) -> UnixStreamFrames {
        let capabilities = of_frames(hardware, mtu);
        UnixStreamFrames { capabilities, listener: None, peer: Some(Peer::new(stream)) }
    }

    /// Connects to a socket at a path. Needs a Tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// Nobody listens at the path, or it cannot be opened: see connect(2).
    pub async fn connect(
        path: impl AsRef<Path>,
        hardware: HardwareAddress,
        mtu: u16,
    ) -> io::Result<UnixStreamFrames> {
        Ok(UnixStreamFrames::connected(UnixStream::connect(path).await?, hardware, mtu))
    }

    /// Waits for peers at a listener, which the caller has bound to a path.
    pub fn listening(listener: UnixListener, hardware: HardwareAddress, mtu: u16) -> UnixStreamFrames {
        let capabilities = of_frames(hardware, mtu);
        UnixStreamFrames { capabilities, listener: Some(listener), peer: None }
    }

    /// Takes a new peer, if there is one.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        while let Poll::Ready(accepted) = listener.poll_accept(cx) {
            match accepted {
                Ok((stream, _)) => self.peer = Some(Peer::new(stream)),
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Errors of one connection that was about to be accepted.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted)
}

impl Device for UnixStreamFrames {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        loop {
            self.poll_accept(cx)?;
            let Some(peer) = &mut self.peer else {
                // Without a listener nobody else will come.
                return if self.listener.is_some() { Poll::Pending } else { Poll::Ready(Err(gone())) };
            };
            let ended = match ready!(peer.poll_recv(cx, buffer)) {
                Ok(Some(len)) => return Poll::Ready(Ok(Received::new(len))),
                Ok(None) => gone(),
                Err(e) => end_of(e),
            };
            // The peer went, or broke the protocol. At a listener, another one may come.
            self.peer = None;
            if self.listener.is_none() {
                return Poll::Ready(Err(ended));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let Some(peer) = &mut self.peer else {
            return Poll::Ready(if self.listener.is_some() { Ok(()) } else { Err(gone()) });
        };
        match ready!(peer.poll_send(cx, frame.bytes)) {
            Ok(()) => Poll::Ready(Ok(())),
            // `poll_recv` finds the end, behind the frames that came before it.
            Err(_) if self.listener.is_some() => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(end_of(e))),
        }
    }
}

/// The first datagram of a monitor that asks for this kind of frames.
const HELLO: &[u8] = b"VFKT";

/// How often a frame is tried while the peer's buffers are full, and how long each wait lasts.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_micros(500);

/// Frames over datagrams, one each (vfkit, gvproxy's `unixgram`, BESS).
///
/// The peer is the sender of the last datagram, whose path gets the answers. A first datagram `VFKT` says hello, and is
/// no frame. A frame is lost if the peer's buffers stay full for ten tries; [`lost`](UnixDatagramFrames::lost) counts.
#[derive(Debug)]
pub struct UnixDatagramFrames {
    capabilities: Capabilities,
    socket: UnixDatagram,
    /// The path of the peer. `None`: the socket is connected, or nobody has sent anything yet.
    peer: Option<PathBuf>,
    connected: bool,
    /// The wait before the next try, and the tries for the present frame.
    wait: Option<Pin<Box<Sleep>>>,
    tries: u32,
    lost: Arc<AtomicU64>,
}

impl UnixDatagramFrames {
    /// Carries frames over a socket that is bound to a path. Whoever sends the first datagram is the peer. Needs a Tokio
    /// runtime with I/O and time enabled.
    pub fn bound(socket: UnixDatagram, hardware: HardwareAddress, mtu: u16) -> UnixDatagramFrames {
        UnixDatagramFrames::new(socket, hardware, mtu, false)
    }

    /// Carries frames over a socket that is connected to its peer, such as one of a pair.
    pub fn connected(socket: UnixDatagram, hardware: HardwareAddress, mtu: u16) -> UnixDatagramFrames {
        UnixDatagramFrames::new(socket, hardware, mtu, true)
    }

    fn new(socket: UnixDatagram, hardware: HardwareAddress, mtu: u16, connected: bool) -> UnixDatagramFrames {
        let capabilities = of_frames(hardware, mtu);
        UnixDatagramFrames {
            capabilities,
            socket,
            peer: None,
            connected,
            wait: None,
            tries: 0,
            lost: Arc::default(),
        }
    }

    /// Returns the number of frames that were lost because the peer took nothing.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns the counter of lost frames, which can be read while a network owns the device.
    pub fn lost_counter(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }

    /// Asks the kernel itself: Tokio would wait for an event that does not come when the peer's queue has room again.
    fn try_send(&self, frame: &[u8]) -> rustix::io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match &self.peer {
            Some(path) => {
                rustix::net::sendto(&self.socket, frame, flags, &SocketAddrUnix::new(path.as_path())?)
            }
            None => rustix::net::send(&self.socket, frame, flags),
        }
    }

    fn give_up(&mut self) -> Poll<io::Result<()>> {
        (self.tries, self.wait) = (0, None);
        self.lost.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl Device for UnixDatagramFrames {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        loop {
            let mut space = ReadBuf::new(buffer);
            let from = match ready!(self.socket.poll_recv_from(cx, &mut space)) {
                Ok(from) => from,
                // The peer of a connected socket is gone; it may come back.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::Interrupted) => continue,
                Err(e) => return Poll::Ready(Err(e)),
            };
            let len = space.filled().len();
            let is_hello = space.filled() == HELLO;
            if !self.connected
                && let Some(path) = from.as_pathname()
                && self.peer.as_deref() != Some(path)
            {
                self.peer = Some(path.to_owned());
            }
            if len > 0 && !is_hello {
                return Poll::Ready(Ok(Received::new(len)));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        if self.peer.is_none() && !self.connected {
            return self.give_up();
        }
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            match self.try_send(frame.bytes) {
                Ok(_) => {
                    self.tries = 0;
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.tries += 1;
                    if self.tries >= TRIES {
                        return self.give_up();
                    }
                    self.wait = Some(Box::pin(tokio::time::sleep(BETWEEN)));
                }
                // The peer is gone, and may come back.
                Err(_) => return self.give_up(),
            }
        }
    }
}

/// The end of a stream, by its error. A peer that leaves frames unread resets it.
fn end_of(error: io::Error) -> io::Error {
    if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) { gone() } else { error }
}

fn gone() -> io::Error {
    io::Error::new(ErrorKind::NetworkDown, "the peer of the frame socket is gone")
}

fn of_frames(hardware: HardwareAddress, mtu: u16) -> Capabilities {
    let mut capabilities = Capabilities::new(mtu);
    capabilities.ethernet = Some(hardware);
    capabilities
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const HARDWARE: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 1]);

    fn streams() -> (UnixStreamFrames, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (UnixStreamFrames::connected(ours, HARDWARE, 1500), theirs)
    }

    async fn recv(device: &mut impl Device) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; device.capabilities().frame_len()];
        let received = poll_fn(|cx| device.poll_recv(cx, &mut buffer)).await?;
        buffer.truncate(received.len);
        Ok(buffer)
    }

    async fn send(device: &mut impl Device, bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| device.poll_send(cx, Frame::new(bytes))).await
    }

    fn framed(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    #[tokio::test]
    async fn a_peer_that_leaves_frames_unread_is_gone_too() {
        let (mut device, peer) = streams();
        send(&mut device, b"hello").await.unwrap();
        drop(peer);
        assert_eq!(recv(&mut device).await.unwrap_err().to_string(), gone().to_string());
        assert_eq!(send(&mut device, b"hello").await.unwrap_err().to_string(), gone().to_string());
    }

    #[tokio::test]
    async fn a_frame_is_behind_its_length_in_network_order_and_may_come_in_pieces() {
        let (mut device, mut peer) = streams();
        send(&mut device, b"hello").await.unwrap();
        let mut sent = [0; 9];
        peer.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent, *b"\0\0\0\x05hello");
        let bytes = [framed(b"one"), framed(b""), framed(&[7; 1515]), framed(b"two")].concat();
        let write = async {
            for piece in bytes.chunks(5) {
                peer.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        // An empty frame is none, and one above the MTU is lost.
        let read = async { [recv(&mut device).await.unwrap(), recv(&mut device).await.unwrap()] };
        let ((), read) = tokio::join!(write, read);
        assert_eq!(read, [b"one", b"two"]);
    }

    #[tokio::test]
    async fn a_frame_that_is_written_in_part_is_completed_before_the_next_one() {
        let (mut device, mut peer) = streams();
        let frame = [9; 1514];
        let mut sent = 0;
        // Until the stream takes no more.
        while poll_fn(|cx| Poll::Ready(device.poll_send(cx, Frame::new(&frame)).is_ready())).await {
            sent += 1;
        }
        assert!(sent > 10);
        let write = async { send(&mut device, b"last").await.unwrap() };
        let read = async {
            for _ in 0..sent {
                let mut read = vec![0; 4 + frame.len()];
                peer.read_exact(&mut read).await.unwrap();
                assert_eq!(read, framed(&frame));
            }
            let mut last = [0; 8];
            peer.read_exact(&mut last).await.unwrap();
            assert_eq!(last[..], framed(b"last"));
        };
        tokio::join!(write, read);
    }

    #[tokio::test]
    async fn a_length_that_no_frame_has_ends_the_link_with_an_error() {
        for length in [65_551, u32::MAX] {
            let (mut device, mut peer) = streams();
            peer.write_all(&framed(b"before")).await.unwrap();
            peer.write_all(&length.to_be_bytes()).await.unwrap();
            assert_eq!(recv(&mut device).await.unwrap(), b"before");
            let error = recv(&mut device).await.unwrap_err();
            assert_eq!(error.to_string(), format!("a frame of {length} bytes: expected at most 65550"));
            assert_eq!(recv(&mut device).await.unwrap_err().kind(), ErrorKind::NetworkDown);
        }
        let (mut device, mut peer) = streams();
        peer.write_all(&65_550_u32.to_be_bytes()).await.unwrap();
        peer.write_all(&[0; 65_550]).await.unwrap();
        peer.write_all(&framed(b"after")).await.unwrap();
        assert_eq!(recv(&mut device).await.unwrap(), b"after");
    }

    #[tokio::test]
    async fn a_device_without_a_listener_ends_with_its_peer() {
        let (mut device, mut peer) = streams();
        peer.write_all(&framed(b"bye")).await.unwrap();
        peer.write_all(&[0, 0]).await.unwrap();
        drop(peer);
        assert_eq!(recv(&mut device).await.unwrap(), b"bye");
        assert_eq!(recv(&mut device).await.unwrap_err().kind(), ErrorKind::NetworkDown);
        assert_eq!(send(&mut device, b"?").await.unwrap_err().kind(), ErrorKind::NetworkDown);
    }

    /// A path for a socket, and what removes it.
    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("steadfast-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[tokio::test]
    async fn a_new_peer_replaces_the_one_before() {
        let path = path("stream");
        let listener = UnixListener::bind(&path).unwrap();
        let mut device = UnixStreamFrames::listening(listener, HARDWARE, 1500);
        send(&mut device, b"nobody hears it").await.unwrap();
        let mut first = UnixStream::connect(&path).await.unwrap();
        first.write_all(&framed(b"first")).await.unwrap();
        assert_eq!(recv(&mut device).await.unwrap(), b"first");
        let mut second = UnixStream::connect(&path).await.unwrap();
        second.write_all(&framed(b"second")).await.unwrap();
        assert_eq!(recv(&mut device).await.unwrap(), b"second");
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0, "it is let go");
        // Neither a broken peer nor a missing one ends the device.
        second.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let third = async {
            assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
            UnixStream::connect(&path).await.unwrap().write_all(&framed(b"third")).await.unwrap();
        };
        let ((), read) = tokio::join!(third, recv(&mut device));
        assert_eq!(read.unwrap(), b"third");
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn the_answers_go_to_who_sent_and_a_hello_is_no_frame() {
        let (ours, theirs) = (path("ours"), path("theirs"));
        let mut device = UnixDatagramFrames::bound(UnixDatagram::bind(&ours).unwrap(), HARDWARE, 1500);
        send(&mut device, b"nobody is there").await.unwrap();
        assert_eq!(device.lost(), 1);
        let peer = UnixDatagram::bind(&theirs).unwrap();
        peer.send_to(b"VFKT", &ours).await.unwrap();
        peer.send_to(b"frame", &ours).await.unwrap();
        assert_eq!(recv(&mut device).await.unwrap(), b"frame");
        send(&mut device, b"answer").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(peer.recv(&mut buffer).await.unwrap(), 6);
        // The monitor restarts: frames are lost meanwhile, and the new one is answered.
        drop(peer);
        std::fs::remove_file(&theirs).unwrap();
        send(&mut device, b"lost").await.unwrap();
        assert_eq!(device.lost(), 2);
        let peer = UnixDatagram::bind(&theirs).unwrap();
        send(&mut device, b"again").await.unwrap();
        assert_eq!(peer.recv(&mut buffer).await.unwrap(), 5);
        [ours, theirs].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_loses_frames_and_stops_nobody() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut device = UnixDatagramFrames::connected(ours, HARDWARE, 1500);
        for _ in 0..1000 {
            send(&mut device, &[1; 1514]).await.unwrap();
            if device.lost() > 1 {
                break;
            }
        }
        assert_eq!(device.lost(), 2);
        // A peer that reads late gets the frame that is being tried.
        let read = async {
            tokio::task::yield_now().await;
            theirs.recv(&mut [0; 1514]).await.unwrap();
        };
        let ((), sent) = tokio::join!(read, send(&mut device, b"in time"));
        assert_eq!((sent.is_ok(), device.lost()), (true, 2));
    }
}
