//! A script is played against the kernel, in real time.
//!
//! Each run has its own network namespace with a TUN device, whose far end is the script. Two threads share the
//! namespace: one waits for packets and timeouts, the other makes the system calls, which may block.

mod calls;
mod files;
mod options;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant as Clock};

use steadfast_core::{Instant, InterfaceId, PathMetrics, Route};
use steadfast_device::{Device, Frame, Tun};
use steadfast_drill::subject::{
    Addresses, Errno, Listed, Refused, Reply, Request, Subject, SubjectEvent, TcpInfo,
};
use steadfast_drill::{Drill, DrillOptions, Outcome};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::calls::perform;
use self::files::Files;
use crate::sock_diag::{self, Line, canonical};
use crate::{Error, Link, namespace};

/// Limit of waiting for events without a fixed time: real time is expensive.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the device, the only one in its namespace.
const DEVICE: &str = "drill0";
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;
/// Types from this one on concern the link: neighbours, routers, groups.
const ICMPV6_OF_THE_LINK: u8 = 130;

/// Plays a script against the kernel.
pub fn play(drill: &Drill, options: &DrillOptions<'_>) -> Result<Outcome, Error> {
    let addresses = drill.addresses(options);
    thread::scope(|scope| {
        let played = scope.spawn(|| {
            namespace::enter()?;
            let mut kernel = Kernel::open(&addresses)?;
            Ok(drill.run_against(&mut kernel, options))
        });
        played.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `with` on a fresh kernel in a namespace of its own, as [`play`] does.
pub fn with_kernel<T: Send>(
    addresses: &Addresses,
    with: impl FnOnce(&mut dyn Subject) -> T + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        let played = scope.spawn(|| {
            namespace::enter()?;
            Ok(with(&mut Kernel::open(addresses)?))
        });
        played.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

type Returned = (Clock, Result<Result<Reply, Errno>, Refused>);

/// The kernel's sockets in a namespace, and the device between them and the script.
struct Kernel {
    runtime: Runtime,
    inbox: Inbox,
    files: Files,
    requests: mpsc::Sender<Request>,
}

/// The events of the kernel.
struct Inbox {
    /// The start of the run, which times are relative to.
    began: Clock,
    tun: Tun,
    local: IpAddr,
    returned: UnboundedReceiver<Returned>,
    events: VecDeque<SubjectEvent>,
    frame: Vec<u8>,
}

impl Kernel {
    /// Sets up the namespace of this thread.
    fn open(addresses: &Addresses) -> Result<Kernel, Error> {
        namespace::quieten()?;
        let everything: IpAddr = if addresses.local.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let host = vec![(addresses.local, addresses.prefix_len)];
        let Link { tun, runtime } = Link::open(DEVICE, addresses.mtu, host, everything)?;
        let files = Files::default();
        let (requests, to_make) = mpsc::channel();
        let (made, returned) = unbounded_channel();
        let theirs = files.clone();
        // The thread is detached: a call may block forever. It returns when its sockets are shut down.
        thread::spawn(move || {
            for request in to_make {
                let result = perform(&theirs, request);
                if made.send((Clock::now(), result)).is_err() {
                    return;
                }
            }
        });
        let frame = vec![0; tun.capabilities().frame_len()];
        let (began, local, events) = (Clock::now(), addresses.local, VecDeque::new());
        let inbox = Inbox { began, tun, local, returned, events, frame };
        Ok(Kernel { runtime, inbox, files, requests })
    }

    /// Waits for an event until `limit`. Collects pending events even if the limit has passed.
    fn await_something(&mut self, limit: Clock) {
        let inbox = &mut self.inbox;
        self.runtime.block_on(async {
            // The runtime learns of readable descriptors only when it gets a turn.
            tokio::task::yield_now().await;
            let there = poll_fn(|cx| Poll::Ready(inbox.poll(cx).is_ready())).await;
            if !there && Clock::now() < limit {
                // A timeout is no error: the caller sees that there is no event.
                let _ = tokio::time::timeout_at(limit.into(), poll_fn(|cx| inbox.poll(cx))).await;
            }
        });
    }
}

impl Inbox {
    fn instant(&self, at: Clock) -> Instant {
        Instant::ZERO + at.saturating_duration_since(self.began)
    }

    /// Collects packets and the call's return. Pending if there is nothing.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Ok(received)) = self.tun.poll_recv(cx, &mut self.frame) {
            let packet = &self.frame[..received.len];
            if is_for_the_script(packet, self.local) {
                let at = self.instant(Clock::now());
                self.events.push_back(SubjectEvent::Sent { at, packet: packet.to_vec() });
            }
        }
        while let Poll::Ready(Some((at, result))) = self.returned.poll_recv(cx) {
            let at = self.instant(at);
            self.events.push_back(SubjectEvent::Returned { at, result });
        }
        if self.events.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Returns whether scripts may expect a packet. The kernel's own link maintenance is left out.
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
        // The thread that makes the calls outlives this end of the channel.
        let _ = self.requests.send(request);
    }

    fn inject(&mut self, packet: &[u8]) {
        let tun = &mut self.inbox.tun;
        // If the device is gone, packets are lost, and no reply comes back.
        let _ = self.runtime.block_on(poll_fn(|cx| tun.poll_send(cx, Frame::new(packet))));
        self.await_something(Clock::now());
    }

    fn next_event(&mut self) -> Option<SubjectEvent> {
        self.inbox.events.pop_front()
    }

    fn wait(&mut self, limit: Instant) -> bool {
        let limit = self.inbox.began + limit.saturating_since(Instant::ZERO);
        self.await_something(limit);
        !self.inbox.events.is_empty() || Clock::now() < limit
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
        let listed = |line: Line| Listed {
            local: canonical(line.local),
            remote: canonical(line.remote),
            state: line.state,
            fd: None,
        };
        sock_diag::lines().into_iter().map(listed).collect()
    }

    fn tcp_info(&self, fd: i32) -> Option<TcpInfo> {
        options::tcp_info(&*self.files.get(fd).ok()?)
    }

    fn set_path(&mut self, network: IpAddr, prefix_len: u8, path: PathMetrics) -> Result<(), String> {
        let route = Route::new(network, prefix_len, InterfaceId::FIRST).path(path).to_string();
        let route = route.replace(" dev 1 metric 0", &format!(" dev {DEVICE}"));
        let version = if network.is_ipv4() { "-4" } else { "-6" };
        let words = [version, "route", "replace"].into_iter().chain(route.split(' '));
        // It inherits the namespace of this thread.
        let output = Command::new("ip").args(words).output().map_err(|error| format!("`ip`: {error}"))?;
        let reason = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("`ip route replace {route}`: {}", reason.trim()))
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<Option<String>, String> {
        namespace::set(name, value).map(|()| None).map_err(|error| error.to_string())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.files.shut_down();
    }
}
