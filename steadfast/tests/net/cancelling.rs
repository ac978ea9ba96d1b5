//! Futures of calls that Tokio does not have, dropped at each of their await points. Those that Tokio has are cases of
//! the crate `parity`.

use std::future::{Future, pending, poll_fn};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use steadfast::{ForwardRule, Net, RelayConfig, TcpForwarder, TcpRequest, TcpStream, device};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{CLIENT, Pair, SERVER};

/// The most polls of a case.
const POLLS: usize = 6;
const LIMIT: Duration = Duration::from_secs(5);

/// Polls a future at most `times` times, and drops it if it is still pending.
async fn cancel_after<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(output);
        }
        sleep(Duration::from_micros(20)).await;
    }
    None
}

/// Returns a request of the client at a forwarder of the server, and the connect that waits for its decision.
async fn request(pair: &Pair) -> (TcpRequest, JoinHandle<io::Result<TcpStream>>) {
    let forwarder = TcpForwarder::bind(&pair.server, ForwardRule::all()).await.unwrap();
    let asked = tokio::spawn(TcpStream::connect(&pair.client, (Ipv4Addr::new(198, 51, 100, 7), 80)));
    (forwarder.accept().await.unwrap(), asked)
}

/// Waits until the client's connect has failed or its connection has been reset.
async fn ends(asked: JoinHandle<io::Result<TcpStream>>) {
    let reset = match asked.await.unwrap() {
        Ok(mut stream) => stream.read(&mut [0; 1]).await.unwrap_err(),
        Err(error) => error,
    };
    assert!([ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused].contains(&reset.kind()), "{reset}");
}

fn nothing_is_left(net: &Net) {
    let usage = net.usage();
    assert_eq!((usage.requests, usage.connections, usage.sockets), (0, 0, 0), "{usage:?}");
    net.check_consistent().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_dropped_goes_on_once_it_was_polled() {
    let pair = Pair::new();
    let streams = pair.streams().await;
    assert!(cancel_after(0, pair.client.close(LIMIT)).await.is_none());
    let listener = pair.listen(80).await;
    drop(tokio::join!(pair.connect(80), listener.accept()));
    assert!(cancel_after(1, pair.client.close(LIMIT)).await.is_none());
    assert_eq!(pair.connect(80).await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert!(cancel_after(1, pair.client.closed()).await.is_none());
    drop(streams);
    pair.client.closed().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_request_that_is_dropped_resets_the_connection_fwd_5() {
    for polls in 0..POLLS {
        let pair = Pair::new();
        let (request, asked) = request(&pair).await;
        if let Some(accepted) = cancel_after(polls, request.accept()).await {
            // It was done before.
            accepted.unwrap().abort();
        }
        ends(asked).await;
        nothing_is_left(&pair.server);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_end_of_a_request_that_is_dropped_changes_nothing() {
    let pair = Pair::new();
    let (request, asked) = request(&pair).await;
    for polls in 0..POLLS {
        assert!(cancel_after(polls, request.gone()).await.is_none());
    }
    let _stream = request.accept().await.unwrap();
    asked.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_splice_that_is_dropped_refuses_the_request_or_resets_both_ends_fwd_5() {
    for dials in [false, true] {
        for polls in 0..POLLS {
            let pair = Pair::new();
            let (request, asked) = request(&pair).await;
            let (near, mut far): (DuplexStream, DuplexStream) = tokio::io::duplex(100);
            let dial = async {
                if !dials {
                    pending::<()>().await;
                }
                Ok(near)
            };
            assert!(cancel_after(polls, request.splice_with(dial, &RelayConfig::default())).await.is_none());
            ends(asked).await;
            // The dialled end is dropped: it has no resets.
            assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
            nothing_is_left(&pair.server);
        }
    }
}

#[tokio::test]
async fn a_network_whose_start_is_dropped_ends_with_its_thread() {
    let (left, right) = device::memory::pair(1500);
    let other = Net::builder().address(CLIENT, 24).start(right).unwrap();
    let start = Net::builder().address(SERVER, 24).start_thread(|| async { Ok(left) });
    drop(cancel_after(1, start).await);
    // The other end of the wire sees that the device is gone.
    let ended = timeout(Duration::from_secs(20), other.closed()).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NetworkDown);
}
