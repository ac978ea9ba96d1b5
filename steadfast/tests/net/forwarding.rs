//! Forwarders: requests, their decisions, and what the peer sees of them.

use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use steadfast::{
    Config, ForwardRule, Net, Reject, RelayConfig, SocketOptions, TcpForwarder, TcpRequest, TcpStream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep, timeout};

use crate::Pair;

/// An address of no host here.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

impl Pair {
    async fn forwarder(&self) -> TcpForwarder {
        TcpForwarder::bind(&self.server, ForwardRule::all()).await.unwrap()
    }

    /// Begins to connect to the foreign address, in a task.
    fn ask(&self) -> tokio::task::JoinHandle<io::Result<TcpStream>> {
        tokio::spawn(TcpStream::connect(&self.client, (FOREIGN, 80)))
    }

    /// A request, and the connect that waits for its decision.
    async fn request(&self) -> (TcpRequest, tokio::task::JoinHandle<io::Result<TcpStream>>) {
        let forwarder = self.forwarder().await;
        let asked = self.ask();
        (forwarder.accept().await.unwrap(), asked)
    }
}

fn nothing_is_left(net: &Net) {
    let usage = net.usage();
    assert_eq!((usage.requests, usage.connections, usage.sockets), (0, 0, 0), "{usage:?}");
    net.check_consistent().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_is_refused_fwd_5() {
    let pair = Pair::new();
    let (request, asked) = pair.request().await;
    assert_eq!((request.destination(), request.source().ip()), ((FOREIGN, 80).into(), crate::CLIENT.into()));
    assert!(request.syn().sack_permitted);
    // Nothing is answered meanwhile.
    sleep(Duration::from_millis(500)).await;
    assert!(!asked.is_finished());
    drop(request);
    assert_eq!(asked.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    nothing_is_left(&pair.server);
}

/// The table of gateways.
#[tokio::test(start_paused = true)]
async fn the_peer_sees_what_the_dial_met_fwd_5() {
    let errno = io::Error::from_raw_os_error;
    let of = |kind: ErrorKind| io::Error::from(kind);
    let table = [
        (of(ErrorKind::ConnectionRefused), Reject::Reset, ErrorKind::ConnectionRefused),
        (of(ErrorKind::NetworkUnreachable), Reject::NetUnreachable, ErrorKind::NetworkUnreachable),
        (of(ErrorKind::HostUnreachable), Reject::HostUnreachable, ErrorKind::HostUnreachable),
        // As Linux shows it to an IPv4 client.
        (of(ErrorKind::PermissionDenied), Reject::AdminProhibited, ErrorKind::HostUnreachable),
        (errno(1), Reject::AdminProhibited, ErrorKind::HostUnreachable),
        (of(ErrorKind::TimedOut), Reject::Silent, ErrorKind::TimedOut),
        (errno(24), Reject::Silent, ErrorKind::TimedOut),
        (errno(23), Reject::Silent, ErrorKind::TimedOut),
        (errno(105), Reject::Silent, ErrorKind::TimedOut),
        (of(ErrorKind::AddrNotAvailable), Reject::Silent, ErrorKind::TimedOut),
        (of(ErrorKind::ConnectionReset), Reject::Reset, ErrorKind::ConnectionRefused),
        (io::Error::other("anything"), Reject::Reset, ErrorKind::ConnectionRefused),
    ];
    for (error, how, seen) in table {
        assert_eq!(Reject::from_io(&error), how, "{error}");
        let config = Config { tcp_syn_linear_timeouts: 0, tcp_syn_retries: 1, ..Config::default() };
        let pair = Pair::with(config);
        let (request, asked) = pair.request().await;
        request.reject(how);
        assert_eq!(asked.await.unwrap().unwrap_err().kind(), seen, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_accepted_request_is_a_stream_fwd_8() {
    let pair = Pair::new();
    let (request, asked) = pair.request().await;
    let options = SocketOptions::new(&Config::default()).with(|options| options.nodelay = true);
    let mut stream = request.accept_with(options).await.unwrap();
    let mut client = asked.await.unwrap().unwrap();
    assert!(stream.nodelay().unwrap());
    assert_eq!(
        (stream.local_addr().unwrap(), client.peer_addr().unwrap()),
        ((FOREIGN, 80).into(), (FOREIGN, 80).into())
    );
    client.write_all(b"hold").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    stream.write_all(b"fast").await.unwrap();
    drop(stream);
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "holdfast");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_gives_up_is_gone_fwd_7() {
    let pair = Pair::new();
    let (request, asked) = pair.request().await;
    asked.abort();
    let begin = Instant::now();
    request.gone().await;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(request.accept().await.unwrap_err().kind(), ErrorKind::TimedOut);
    nothing_is_left(&pair.server);
}

#[tokio::test(start_paused = true)]
async fn accept_can_be_given_up_and_loses_nothing() {
    let pair = Pair::new();
    let forwarder = pair.forwarder().await;
    for _ in 0..20 {
        let asked = pair.ask();
        let request = loop {
            if let Ok(request) = timeout(Duration::from_micros(50), forwarder.accept()).await {
                break request.unwrap();
            }
        };
        // One that is given up before the handshake is complete resets it.
        drop(timeout(Duration::ZERO, request.accept()).await);
        drop(asked.await.unwrap());
        assert_eq!(pair.server.usage().requests, 0);
    }
    let asked = pair.ask();
    let request = poll_fn(|cx| forwarder.poll_accept(cx)).await.unwrap();
    assert!(poll_fn(|cx| Poll::Ready(forwarder.poll_accept(cx).is_pending())).await);
    drop((request, asked));
}

#[tokio::test(start_paused = true)]
async fn a_second_forwarder_needs_another_rule_and_a_closing_network_has_none() {
    let pair = Pair::new();
    let forwarder = pair.forwarder().await;
    let again = TcpForwarder::bind(&pair.server, ForwardRule::all()).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    let bad = TcpForwarder::bind(&pair.server, ForwardRule::to(FOREIGN.into(), 33)).await;
    assert_eq!(bad.unwrap_err().kind(), ErrorKind::InvalidInput);
    let asked = pair.ask();
    let request = forwarder.accept().await.unwrap();
    let net = pair.server.clone();
    let (closed, accepted) = tokio::join!(net.close(Duration::from_secs(5)), forwarder.accept());
    closed.unwrap();
    assert_eq!(accepted.unwrap_err().kind(), ErrorKind::NetworkDown);
    request.gone().await;
    assert_eq!(request.accept().await.unwrap_err().kind(), ErrorKind::NetworkDown);
    asked.abort();
}

/// A dial, and whether it was dropped.
fn dial_that_hangs() -> (impl Future<Output = io::Result<tokio::io::DuplexStream>>, Arc<AtomicBool>) {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::<AtomicBool>::default();
    let flag = Flag(dropped.clone());
    let dial = async move {
        let _flag = flag;
        pending().await
    };
    (dial, dropped)
}

#[tokio::test(start_paused = true)]
async fn splice_answers_as_the_dial_went() {
    let pair = Pair::new();
    let config = RelayConfig::default();
    // It works.
    let (request, asked) = pair.request().await;
    let (near, mut server) = duplex(1024);
    let serve = async {
        let mut client = asked.await.unwrap().unwrap();
        client.write_all(b"hold fast").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        text
    };
    let (report, text) = tokio::join!(request.splice_with(async { Ok(near) }, &config), serve);
    assert_eq!((report.unwrap().a_to_b.bytes, &*text), (9, "hold fast"));
    // It fails.
    let pair = Pair::new();
    let (request, asked) = pair.request().await;
    let refused = async { Err::<tokio::io::DuplexStream, _>(ErrorKind::ConnectionRefused.into()) };
    let error = request.splice_with(refused, &config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(asked.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // The peer gives up first.
    let pair = Pair::new();
    let (request, asked) = pair.request().await;
    asked.abort();
    let (dial, dropped) = dial_that_hangs();
    let error = request.splice_with(dial, &config).await.unwrap_err();
    assert_eq!((error.kind(), dropped.load(Ordering::Relaxed)), (ErrorKind::ConnectionAborted, true));
    nothing_is_left(&pair.server);
}

/// The peer resets the SYN-ACK, as a scanner does: the dialled end gets it too.
#[tokio::test(start_paused = true)]
async fn splice_resets_the_dialled_end_where_the_handshake_fails() {
    let (pair, dialled) = (Pair::new(), Pair::new());
    let (upstream, mut server) = dialled.streams().await;
    let (request, asked) = pair.request().await;
    asked.abort();
    sleep(Duration::from_millis(1)).await;
    let error = request.splice_with(async { Ok(upstream) }, &RelayConfig::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    nothing_is_left(&pair.server);
}
