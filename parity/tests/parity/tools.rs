//! Helpers of the cases that depend on no carrier.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

pub(crate) use steadfast_testkit::Count;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

/// No case may take longer.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn in_real_time(case: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LIMIT, case).await.expect("the case ends") });
}

pub(crate) fn in_virtual_time(case: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async { timeout(LIMIT, case).await.expect("the case ends") });
}

/// Lets packets and tasks make progress.
pub(crate) async fn tick() {
    sleep(Duration::from_millis(1)).await;
}

/// Polls once.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Polls a future at most `times` times, and drops it if it is still pending.
pub(crate) async fn cancel_after<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = poll_once(future.as_mut()).await {
            return Some(output);
        }
        tick().await;
    }
    None
}

/// Repeats a look until it succeeds.
pub(crate) async fn until(mut look: impl FnMut() -> bool) {
    while !look() {
        tick().await;
    }
}

/// Returns `len` bytes in which shifted data is noticed.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
