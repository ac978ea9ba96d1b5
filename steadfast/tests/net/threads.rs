//! Networks on a runtime of their own.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use steadfast::{Net, NetBuilder, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::{CLIENT, SERVER};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn builder(secret: u8, address: std::net::Ipv4Addr) -> NetBuilder {
    Net::builder().secret([secret; 32]).address(address, 24)
}

#[test]
fn a_blocked_runtime_does_not_stop_a_network_that_has_its_own() {
    let (left, right) = device::memory::pair(1500);
    let (blocked, ours) = (runtime(), runtime());
    let server = blocked.block_on(builder(2, SERVER).start_thread(|| async { Ok(left) })).unwrap();
    let listener = blocked.block_on(TcpListener::bind(&server, (SERVER, 7))).unwrap();
    // From here on, nothing runs on `blocked`.
    ours.block_on(async {
        let client = builder(1, CLIENT).start(right).unwrap();
        let mut stream = TcpStream::connect(&client, (SERVER, 7)).await.unwrap();
        stream.write_all(b"hold fast").await.unwrap();
        let acknowledged = async {
            while stream.info().unwrap().bytes_acked < 9 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), acknowledged).await.unwrap();
        // The streams of such a network work on every runtime.
        let (mut accepted, _) = listener.accept().await.unwrap();
        let mut text = [0; 9];
        accepted.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hold fast");
        drop((accepted, stream));
        server.close(Duration::from_secs(10)).await.unwrap();
    });
}

#[test]
fn a_network_that_cannot_start_in_its_thread_says_why() {
    let runtime = runtime();
    let refused =
        || async { Err::<device::memory::Loopback, _>(Error::new(ErrorKind::NotFound, "no device")) };
    let error = runtime.block_on(builder(1, CLIENT).start_thread(refused)).unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::NotFound, "no device"));
    let open = || async { Ok(device::memory::loopback()) };
    let error = runtime.block_on(Net::builder().start_thread(open)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let panics = || async { panic!("this panic is part of a test") };
    let error = runtime.block_on(builder(1, CLIENT).start_thread::<device::memory::Loopback, _>(panics));
    assert_eq!(error.unwrap_err().to_string(), "the thread of the network panicked");
}
