//! The `http` service: axum over the stack's listener.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};
use tower_http::services::ServeDir;

use crate::attach::CLOSE_LIMIT;
use crate::logged::{LoggedStream, LoggingListener, stopped};

/// Serves until told to stop, and lets running requests finish.
pub(crate) async fn serve(
    listener: LoggingListener,
    dir: Option<PathBuf>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (failed, failure) = oneshot::channel();
    let server = axum::serve(Axum { listener, failed: Some(failed) }, routes(dir));
    let server = server.with_graceful_shutdown(stopped(stop.clone()));
    tokio::select! {
        result = async { server.await } => result,
        Ok(failure) = failure => Err(failure),
        () = async { stopped(stop).await; tokio::time::sleep(CLOSE_LIMIT).await } => Ok(()),
    }
}

fn routes(dir: Option<PathBuf>) -> Router {
    let router =
        Router::new().route("/bytes/{length}", get(generated)).route("/upload", post(upload).put(upload));
    match dir {
        Some(dir) => router.fallback_service(ServeDir::new(dir)),
        None => router,
    }
}

async fn generated(Path(length): Path<String>) -> Response {
    match length.parse() {
        Ok(length) => {
            let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
            (kind, Body::new(Generated { sent: 0, length })).into_response()
        }
        Err(_) => {
            let text = format!("/bytes/{length}: expected a number of bytes from 0 to {}\n", u64::MAX);
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

async fn upload(mut body: Body) -> Response {
    let mut length = 0_u64;
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(e) => return (StatusCode::BAD_REQUEST, format!("the body broke off: {e}\n")).into_response(),
        };
        if let Ok(data) = frame.into_data() {
            length += data.len() as u64;
            hash.update(&data);
        }
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let json = format!("{{\"length\":{length},\"sha256\":\"{hash}\"}}\n");
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// A body of a given length, whose byte at offset `i` is `i % 251`, so that a shift by any power of two is noticed.
struct Generated {
    sent: u64,
    length: u64,
}

const PERIOD: usize = 251;

static BLOCK: LazyLock<Bytes> = LazyLock::new(|| (0..PERIOD * 256).map(|i| (i % PERIOD) as u8).collect());

impl http_body::Body for Generated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.length - self.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        // Every block but the last has whole periods, so each starts at the start of the pattern.
        let len = left.min(BLOCK.len() as u64);
        self.sent += len;
        Poll::Ready(Some(Ok(Frame::data(BLOCK.slice(..len as usize)))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.sent)
    }
}

/// The listener as axum expects it.
struct Axum {
    listener: LoggingListener,
    /// Reports an error of the listener: axum expects listeners to work forever.
    failed: Option<oneshot::Sender<io::Error>>,
}

impl axum::serve::Listener for Axum {
    type Io = LoggedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LoggedStream, SocketAddr) {
        match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                self.failed.take().map(|failed| failed.send(e));
                std::future::pending().await
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_generated_body_has_its_length_and_goes_on_across_blocks() {
        for length in [0, 1, 251, BLOCK.len() as u64, BLOCK.len() as u64 * 2 + 77] {
            let body = Body::new(Generated { sent: 0, length }).collect().await.unwrap().to_bytes();
            assert_eq!(body.len() as u64, length);
            assert!(body.iter().enumerate().all(|(i, &byte)| usize::from(byte) == i % PERIOD));
        }
    }
}
