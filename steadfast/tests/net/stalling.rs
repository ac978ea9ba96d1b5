//! Devices and drivers that stall, and the clock of paced networks. Nothing that waits is lost.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::{Config, Net, TcpListener, TcpStream, UdpSocket, device, lab};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::{CLIENT, SERVER, pattern};

/// A device that takes no frame before a time, which a test may put off.
struct Blocking<D> {
    device: D,
    until: Arc<Mutex<Instant>>,
    alarm: Pin<Box<Sleep>>,
}

impl<D: Device> Device for Blocking<D> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        self.device.poll_recv(cx, buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let until = *self.until.lock().unwrap();
        if Instant::now() < until {
            self.alarm.as_mut().reset(until);
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.device.poll_send(cx, frame)
    }
}

/// Retransmissions, timeouts and loss probes.
fn sent_again(net: &Net) -> (u64, u64, u64) {
    let counters = net.counters();
    (counters.retrans_segs, counters.tcp_timeouts, counters.tcp_loss_probes)
}

/// Carries data over a path of 20 ms whose first end takes no frames for a while, from some time after each write on.
async fn carry_through_blocks(len: usize, from: Duration, block: Duration, second: bool) {
    let (left, right) = lab::pair(1500, "delay 10ms".parse().unwrap(), "delay 10ms".parse().unwrap(), 1);
    let until = Arc::new(Mutex::new(Instant::now()));
    let alarm = Box::pin(sleep_until(Instant::now()));
    let left = Blocking { device: left, until: until.clone(), alarm };
    let builder = Net::builder().secret([1; 32]);
    let client = if second {
        let client = builder.address([192, 168, 7, 1], 24).start(device::memory::loopback()).unwrap();
        client.add_interface(left, [(CLIENT.into(), 24)]).unwrap();
        client
    } else {
        builder.address(CLIENT, 24).start(left).unwrap()
    };
    let server = Net::builder().secret([2; 32]).address(SERVER, 24).start(right).unwrap();
    let listener = TcpListener::bind(&server, (SERVER, 80)).await.unwrap();
    let (stream, accepted) = tokio::join!(TcpStream::connect(&client, (SERVER, 80)), listener.accept());
    let (mut stream, (mut accepted, _)) = (stream.unwrap(), accepted.unwrap());
    let (data, mut buffer) = (pattern(len), vec![0; len]);
    for _ in 0..3 {
        let blocked = async {
            sleep(from).await;
            *until.lock().unwrap() = Instant::now() + block;
        };
        let (sent, read, ()) =
            tokio::join!(stream.write_all(&data), accepted.read_exact(&mut buffer), blocked);
        sent.and(read.map(|_| ())).unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let name = format!("{len} bytes, blocked after {from:?} for {block:?}, second device: {second}");
    assert_eq!(sent_again(&client), (0, 0, 0), "{name}");
}

/// A second device has a line of its own. The network closes at the end, perhaps while frames wait: if its driver did not
/// rest then, paused time would stand still.
#[tokio::test(start_paused = true)]
async fn frames_that_a_device_holds_back_are_not_lost_8985_35() {
    let millis = Duration::from_millis;
    for second in [false, true] {
        for block in [millis(2), millis(50), millis(300), millis(5000)] {
            for len in [1000, 10_000, 100_000] {
                for from in [millis(0), millis(30)] {
                    carry_through_blocks(len, from, block, second).await;
                }
            }
        }
    }
}

/// 8985-31: a driver does not run for 300 ms, and so many packets wait before the ACK that its first turn does not hold
/// them all.
#[tokio::test(start_paused = true)]
async fn a_driver_that_stalls_hears_the_acks_before_it_sends_anything_again_8985_31() {
    let (left, right) = device::memory::pair(1500);
    let (client, driver) = Net::builder().secret([1; 32]).address(CLIENT, 24).build(left).unwrap();
    let server = Net::builder().secret([2; 32]).address(SERVER, 24).start(right).unwrap();
    // The turns that the driver may have, and its waker.
    let gate = Arc::new(Mutex::new((usize::MAX, None::<Waker>)));
    let driven = gate.clone();
    tokio::spawn(async move {
        let mut driver = pin!(driver);
        poll_fn(|cx| {
            let (turns, waker) = &mut *driven.lock().unwrap();
            *waker = Some(cx.waker().clone());
            let Some(left) = turns.checked_sub(1) else { return Poll::Pending };
            *turns = left;
            driver.as_mut().poll(cx)
        })
        .await
    });
    let allow = |turns| {
        let (left, waker) = &mut *gate.lock().unwrap();
        *left = turns;
        waker.take().into_iter().for_each(Waker::wake);
    };
    let listener = TcpListener::bind(&server, (SERVER, 80)).await.unwrap();
    let (stream, accepted) = tokio::join!(TcpStream::connect(&client, (SERVER, 80)), listener.accept());
    let (mut stream, (mut accepted, _)) = (stream.unwrap(), accepted.unwrap());
    let to = UdpSocket::bind(&client, (CLIENT, 53)).await.unwrap();
    let from = UdpSocket::bind(&server, (SERVER, 53)).await.unwrap();
    sleep(Duration::from_secs(1)).await;

    // It stands still while datagrams come. Then it sends in a turn that reads a part of them only.
    allow(0);
    for number in 0..200 {
        from.send_to(&[number], (CLIENT, 53)).await.unwrap();
        yield_now().await;
    }
    stream.write_all(&pattern(10_000)).await.unwrap();
    allow(1);
    accepted.read_exact(&mut [0; 10_000]).await.unwrap();
    assert!(client.counters().udp_in_datagrams < 150, "the turn read everything");
    tokio::time::advance(Duration::from_millis(300)).await;

    allow(usize::MAX);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(client.counters().udp_in_datagrams, 200);
    assert_eq!(sent_again(&client), (0, 0, 0));
    drop(to);
}

/// The timers of the kernel that this process has open.
#[cfg(target_os = "linux")]
fn kernel_timers() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    links.filter(|link| link.as_os_str() == "anon_inode:[timerfd]").count()
}

/// PACE-3: while data is paced, the driver has a finer clock than Tokio's. Without pacing it needs none.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn only_a_paced_network_has_a_finer_clock_pace_3() {
    for (tcp_pacing, timers) in [(false, 0), (true, 1)] {
        let (left, right) = lab::pair(1500, "delay 2ms".parse().unwrap(), "delay 2ms".parse().unwrap(), 1);
        let config = Config { tcp_pacing, ..Config::default() };
        let client = Net::builder().config(config).address(CLIENT, 24).start(left).unwrap();
        let server = Net::builder().address(SERVER, 24).start(right).unwrap();
        let listener = TcpListener::bind(&server, (SERVER, 80)).await.unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(&client, (SERVER, 80)), listener.accept());
        let (mut stream, (mut accepted, _)) = (stream.unwrap(), accepted.unwrap());
        let (data, mut buffer) = (pattern(300_000), vec![0; 300_000]);
        let (sent, read) = tokio::join!(stream.write_all(&data), accepted.read_exact(&mut buffer));
        sent.and(read.map(|_| ())).unwrap();
        assert_eq!(kernel_timers(), timers, "pacing: {tcp_pacing}");
    }
}
