//! No foreign code runs under a lock of the stack, and its panics harm nobody else.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use steadfast::TcpStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::Pair;

/// Runs a test in a thread of its own, because a deadlock would never end.
fn ends<F: Future<Output = ()>>(test: impl FnOnce(Pair) -> F + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async { test(Pair::new()).await });
        done.send(()).unwrap();
    });
    match ended.recv_timeout(Duration::from_secs(20)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it waits for a lock for ever"),
        _ => thread.join().unwrap(),
    }
}

/// A waker that runs code when it is woken and when its last clone is dropped.
struct Meddler<F: Fn() + Send + Sync> {
    meddle: F,
    woken: Arc<AtomicUsize>,
}

impl<F: Fn() + Send + Sync + 'static> Meddler<F> {
    /// Returns the waker and the count of its wake-ups.
    fn waker(meddle: F) -> (Waker, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        (Arc::new(Meddler { meddle, woken: woken.clone() }).into(), woken)
    }
}

impl<F: Fn() + Send + Sync> Wake for Meddler<F> {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
        (self.meddle)();
    }
}

impl<F: Fn() + Send + Sync> Drop for Meddler<F> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            (self.meddle)();
        }
    }
}

fn poll_read(stream: &mut TcpStream, waker: &Waker) -> Poll<usize> {
    let mut bytes = [0; 10];
    let mut buffer = ReadBuf::new(&mut bytes);
    let polled = Pin::new(stream).poll_read(&mut Context::from_waker(waker), &mut buffer);
    polled.map(|read| read.map(|()| buffer.filled().len()).unwrap())
}

#[test]
fn a_closure_that_changes_options_may_use_streams() {
    ends(|pair| async move {
        let (a, b) = pair.streams().await;
        b.set_nodelay(true).unwrap();
        a.set_options(|options| {
            options.nodelay = b.nodelay().unwrap();
            // The value is unchanged, so that the concurrent change of keepalive must stay.
            options.keepalive_probes = 3;
            a.set_keepalive(true).unwrap();
            assert_eq!(pair.server.usage().connections, 1);
        })
        .unwrap();
        let options = a.options().unwrap();
        assert_eq!((options.nodelay, options.keepalive, options.keepalive_probes), (true, true, 3));
    });
}

#[test]
fn a_closure_that_panics_harms_nobody_else() {
    ends(|pair| async move {
        let (a, _b) = pair.streams().await;
        let (mut c, mut d) = pair.streams().await;
        let panics = || a.set_options(|_| panic!("a bug of the program"));
        catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        c.write_all(b"unharmed").await.unwrap();
        let mut word = [0; 8];
        d.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"unharmed");
        assert!(!a.nodelay().unwrap());
    });
}

#[test]
fn a_waker_may_ask_the_network_when_it_is_woken_replaced_or_dropped() {
    ends(|pair| async move {
        let (mut client, mut server) = pair.streams().await;
        let net = pair.server.clone();
        let ask = move || assert_eq!(net.usage().connections, 1);
        let (first, first_woken) = Meddler::waker(ask.clone());
        let (second, second_woken) = Meddler::waker(ask);
        assert_eq!(poll_read(&mut server, &first), Poll::Pending);
        drop(first);
        // The network holds the last clone of the first waker, and drops it now.
        assert_eq!(poll_read(&mut server, &second), Poll::Pending);
        client.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((first_woken.load(Ordering::Relaxed), second_woken.load(Ordering::Relaxed)), (0, 1));
        assert_eq!(poll_read(&mut server, &second), Poll::Ready(1));
        assert_eq!(poll_read(&mut server, &second), Poll::Pending);
        drop(second);
        // The waker is dropped with the stream, whose connection becomes an orphan.
        drop(server);
    });
}

#[test]
fn a_waker_that_waits_for_connections_may_ask_the_network_when_it_is_closed() {
    ends(|pair| async move {
        let listener = pair.listen(7).await;
        let net = pair.server.clone();
        let (waker, woken) = Meddler::waker(move || _ = net.usage());
        let mut accept = pin!(listener.accept());
        assert!(accept.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        pair.server.close(Duration::from_secs(1)).await.unwrap();
        assert!(woken.load(Ordering::Relaxed) > 0);
        assert!(accept.await.is_err());
    });
}

#[test]
fn a_waker_that_panics_costs_no_other_its_wake_up() {
    ends(|pair| async move {
        let (mut a, mut b) = pair.streams().await;
        let (mut c, mut d) = pair.streams().await;
        let (bad, bad_woken) = Meddler::waker(|| panic!("a bug of an executor"));
        let (good, good_woken) = Meddler::waker(|| {});
        assert_eq!(poll_read(&mut b, &bad), Poll::Pending);
        assert_eq!(poll_read(&mut d, &good), Poll::Pending);
        // Both arrive in the same turn.
        let _ = (a.write(b"x").await.unwrap(), c.write(b"x").await.unwrap());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((bad_woken.load(Ordering::Relaxed), good_woken.load(Ordering::Relaxed)), (1, 1));
        assert_eq!(poll_read(&mut d, &good), Poll::Ready(1));
        std::mem::forget(bad);
        a.write_all(b"still here").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(poll_read(&mut b, &good), Poll::Ready(10));
        pair.server.close(Duration::ZERO).await.unwrap_err();
    });
}
