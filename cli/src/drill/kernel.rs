//! `--against kernel`: a script played against this machine's kernel, in real time.
//!
//! Each run has a network namespace of its own with a TUN device in it, whose far end is the script. The namespace is
//! that of two threads: one that waits for packets and time, and one that makes the calls, which may block there.

mod calls;
mod namespace;
mod options;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant as Clock};

use steadfast::core::Instant;
use steadfast::device::{Device, Frame, Tun, TunOptions};
use steadfast_lab::drill::subject::{
    Errno, Happening, Listed, Network, Refused, Reply, Request, Subject, TcpInfo,
};
use steadfast_lab::drill::{Drill, DrillOptions, Outcome};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::calls::{Files, perform};
use crate::failure::Failure;

/// Real time is dear: what may come at any time is waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the device, in a namespace where there is no other.
const DEVICE: &str = "drill0";
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;
/// From here on ICMPv6 is about the link: neighbours, routers, groups.
const ICMPV6_OF_THE_LINK: u8 = 130;

/// Plays a script against the kernel.
pub(super) fn run(drill: &Drill, options: &DrillOptions<'_>) -> Result<Outcome, Failure> {
    let network = drill.network(options);
    thread::scope(|scope| {
        let played = scope.spawn(|| {
            namespace::enter()?;
            let mut kernel = Kernel::open(&network)?;
            Ok(drill.run_against(&mut kernel, options))
        });
        played.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

type Returned = (Clock, Result<Result<Reply, Errno>, Refused>);

/// The kernel's sockets in a namespace, and the device that joins them to the script.
struct Kernel {
    runtime: Runtime,
    inbox: Inbox,
    files: Files,
    requests: mpsc::Sender<Request>,
}

/// What comes from the kernel.
struct Inbox {
    /// What the kernel's time is counted from.
    began: Clock,
    tun: Tun,
    local: IpAddr,
    returned: UnboundedReceiver<Returned>,
    happened: VecDeque<Happening>,
    frame: Vec<u8>,
}

impl Kernel {
    /// Sets up the namespace of this thread.
    fn open(network: &Network) -> Result<Kernel, Failure> {
        namespace::quieten()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::system("cannot start the runtime", e))?;
        let mut options = TunOptions::new(DEVICE);
        options.mtu = Some(network.mtu);
        // A script speaks of what is on the wire.
        options.offload = false;
        options.host = vec![(network.local, network.prefix_len)];
        let everything: IpAddr = if network.local.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        options.routes = vec![(everything, 0)];
        let tun = runtime.block_on(Tun::open(&options)).map_err(|e| Failure::usage(e.to_string()))?;

        let files = Files::default();
        let (requests, to_make) = mpsc::channel();
        let (made, returned) = unbounded_channel();
        let theirs = files.clone();
        // Not waited for: a call may never return. It ends with the sockets that it waits on.
        thread::spawn(move || {
            for request in to_make {
                let result = perform(&theirs, request);
                if made.send((Clock::now(), result)).is_err() {
                    return;
                }
            }
        });
        let frame = vec![0; tun.capabilities().frame_len()];
        let (began, local, happened) = (Clock::now(), network.local, VecDeque::new());
        let inbox = Inbox { began, tun, local, returned, happened, frame };
        Ok(Kernel { runtime, inbox, files, requests })
    }

    /// Waits for something to happen until `limit`; what has happened already is taken in even if that is past.
    fn await_something(&mut self, limit: Clock) {
        let inbox = &mut self.inbox;
        self.runtime.block_on(async {
            // Only a turn of the runtime tells whether there is something to read.
            tokio::task::yield_now().await;
            let there = poll_fn(|cx| Poll::Ready(inbox.poll(cx).is_ready())).await;
            if !there && Clock::now() < limit {
                // Late: the caller sees that nothing has happened.
                let _ = tokio::time::timeout_at(limit.into(), poll_fn(|cx| inbox.poll(cx))).await;
            }
        });
    }
}

impl Inbox {
    fn instant(&self, at: Clock) -> Instant {
        Instant::ZERO + at.saturating_duration_since(self.began)
    }

    /// Takes in what is there: packets, and the call's return. Pending: there is nothing.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Ok(received)) = self.tun.poll_recv(cx, &mut self.frame) {
            let packet = &self.frame[..received.len];
            if is_for_the_script(packet, self.local) {
                let at = self.instant(Clock::now());
                self.happened.push_back(Happening::Sent { at, packet: packet.to_vec() });
            }
        }
        while let Poll::Ready(Some((at, result))) = self.returned.poll_recv(cx) {
            let at = self.instant(at);
            self.happened.push_back(Happening::Returned { at, result });
        }
        if self.happened.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Whether a packet is one that scripts speak of, not the kernel's own care of the link.
fn is_for_the_script(packet: &[u8], local: IpAddr) -> bool {
    match (packet.first().map(|first| first >> 4), local) {
        (Some(4), IpAddr::V4(local)) => {
            let protocol = packet.get(9).copied();
            packet.get(12..16) == Some(local.octets().as_slice())
                && matches!(protocol, Some(PROTOCOL_TCP | PROTOCOL_ICMP))
        }
        (Some(6), IpAddr::V6(local)) => {
            let about_the_link = packet.get(40).is_none_or(|kind| *kind >= ICMPV6_OF_THE_LINK);
            packet.get(8..24) == Some(local.octets().as_slice())
                && match packet.get(6) {
                    Some(&PROTOCOL_TCP) => true,
                    Some(&PROTOCOL_ICMPV6) => !about_the_link,
                    _ => false,
                }
        }
        _ => false,
    }
}

impl Subject for Kernel {
    fn now(&self) -> Instant {
        self.inbox.instant(Clock::now())
    }

    fn call(&mut self, request: Request) {
        // The thread that makes the calls ends after this end of the channel.
        let _ = self.requests.send(request);
    }

    fn inject(&mut self, packet: &[u8]) {
        let tun = &mut self.inbox.tun;
        // A device that is gone carries nothing: then no packet comes back either.
        let _ = self.runtime.block_on(poll_fn(|cx| tun.poll_send(cx, Frame::new(packet))));
        self.await_something(Clock::now());
    }

    fn happened(&mut self) -> Option<Happening> {
        self.inbox.happened.pop_front()
    }

    fn wait(&mut self, limit: Instant) -> bool {
        let limit = self.inbox.began + limit.saturating_since(Instant::ZERO);
        self.await_something(limit);
        !self.inbox.happened.is_empty() || Clock::now() < limit
    }

    fn idle(&self) -> bool {
        false
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn listeners(&self) -> Vec<SocketAddr> {
        self.files.listeners()
    }

    fn sockets(&self) -> Vec<Listed> {
        namespace::sockets()
    }

    fn tcp_info(&self, fd: i32) -> Option<TcpInfo> {
        options::tcp_info(&*self.files.get(fd).ok()?)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<Option<String>, String> {
        namespace::set(name, value).map(|()| None)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.files.shut_down();
    }
}
