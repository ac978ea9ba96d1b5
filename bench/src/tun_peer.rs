//! smoltcp on a TUN device with segmentation offload. Our `Tun` writes the `virtio_net_hdr`, and this glue adds the sum
//! of the pseudo-header to segments that smoltcp leaves without a checksum.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use steadfast::device::{Device as _, Frame, Tun};
use steadfast::stack::wire::checksum::pseudo_header;
use steadfast::stack::wire::tcp::set_checksum;
use steadfast::stack::wire::{PROTOCOL_TCP, ipv4, ipv6};

/// Bytes in a buffer with super-segments, and without: the sizes with which smoltcp is fastest here. With larger
/// buffers the device drops single segments, which smoltcp recovers only by timeout.
const SUPER_BUFFER: usize = 256 * 1024;
const BUFFER: usize = 65_535;
const FRAME: usize = 65_535;
/// Turns of its loop before other tasks run.
const TURNS: usize = 16;

/// The service on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Reads and discards.
    Sink,
    /// Writes for ever.
    Source,
}

/// Serves both ports until `stopped` resolves, one connection at a time.
pub(crate) async fn serve(
    mut tun: Tun,
    addresses: (Ipv4Addr, Ipv6Addr),
    ports: [(u16, Service); 2],
    stopped: impl Future,
) -> io::Result<()> {
    let (mut incoming, mut outgoing) = (vec![0; FRAME], vec![0; FRAME]);
    let start = tokio::time::Instant::now();
    let now = || Instant::from_micros(start.elapsed().as_micros() as i64);
    let mut sockets = SocketSet::new(Vec::new());
    // Two sockets for each port: one may not have closed yet when the next connection arrives.
    let buffer = if tun.capabilities().segmentation_offload { SUPER_BUFFER } else { BUFFER };
    let twice = ports.into_iter().chain(ports);
    let services: Vec<_> =
        twice.map(|(port, service)| (sockets.add(new_socket(buffer)), port, service)).collect();
    let mut text = vec![1; SUPER_BUFFER];
    let mut interface = poll_fn(|cx| {
        let waker = cx.waker();
        let mut link = Link { tun: &mut tun, waker, incoming: &mut incoming, outgoing: &mut outgoing };
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut link, now());
        interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(IpAddress::Ipv4(addresses.0), 24)).expect("there is room");
            all.push(IpCidr::new(IpAddress::Ipv6(addresses.1), 64)).expect("there is room");
        });
        Poll::Ready(interface)
    })
    .await;
    let mut stopped = pin!(stopped);
    let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
    let turn = |cx: &mut Context<'_>| {
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let waker = cx.waker();
        let mut link = Link { tun: &mut tun, waker, incoming: &mut incoming, outgoing: &mut outgoing };
        for _ in 0..TURNS {
            interface.poll(now(), &mut link, &mut sockets);
            let moved: usize = services.iter().map(|one| attend(&mut sockets, *one, &mut text)).sum();
            let wait = interface.poll_delay(now(), &sockets).map_or(Duration::from_secs(1), Duration::from);
            if moved == 0 && !wait.is_zero() {
                alarm.as_mut().reset(tokio::time::Instant::now() + wait);
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    };
    poll_fn(turn).await;
    Ok(())
}

fn new_socket(buffer: usize) -> Socket<'static> {
    let ring = || SocketBuffer::new(vec![0; buffer]);
    let mut socket = Socket::new(ring(), ring());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

/// Runs the application of one socket. Returns the bytes that it moved.
fn attend(
    sockets: &mut SocketSet<'_>,
    (handle, port, service): (SocketHandle, u16, Service),
    text: &mut [u8],
) -> usize {
    let socket = sockets.get_mut::<Socket<'_>>(handle);
    if !socket.is_open() {
        socket.listen(port).expect("it is closed");
    }
    if socket.state() == State::CloseWait {
        socket.abort();
    }
    match service {
        Service::Sink => socket.recv_slice(text).unwrap_or(0),
        Service::Source => socket.send_slice(text).unwrap_or(0),
    }
}

/// The device for one turn.
struct Link<'a> {
    tun: &'a mut Tun,
    waker: &'a Waker,
    incoming: &'a mut [u8],
    outgoing: &'a mut [u8],
}

struct Arriving<'a>(&'a [u8]);

struct Leaving<'a> {
    tun: &'a mut Tun,
    waker: &'a Waker,
    frame: &'a mut [u8],
    meta: PacketMeta,
}

impl RxToken for Arriving<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let packet = &mut self.frame[..len];
        let result = f(packet);
        let checksum_offload = self.tun.capabilities().checksum_offload && sum_pseudo_header(packet);
        let mut frame = Frame::new(packet);
        frame.checksum_offload = checksum_offload;
        let told = self.meta.segmentation_offload_size.map(u16::from);
        frame.segment_size = told.or_else(|| untold_segment_size(packet, self.tun.capabilities().mtu));
        // A packet that the device has no room for is lost, as on any network.
        let _ = self.tun.poll_send(&mut Context::from_waker(self.waker), frame);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// Returns the segment size of a super-segment over IPv6, with which its segments fit the MTU. smoltcp does not report
/// one: `dispatch_ip` of 0.14 does not call `set_meta` there.
fn untold_segment_size(packet: &[u8], mtu: u16) -> Option<u16> {
    let header_len = ipv6::HEADER_LEN as u16 + u16::from(packet.get(ipv6::HEADER_LEN + 12)? >> 4) * 4;
    (packet.len() > usize::from(mtu)).then_some(mtu - header_len)
}

/// Writes the sum of the pseudo-header into a TCP segment. Returns whether the packet is one.
fn sum_pseudo_header(packet: &mut [u8]) -> bool {
    let parsed = if packet[0] >> 4 == 4 {
        let parsed = ipv4::parse(packet).ok();
        parsed.map(|(ip, rest)| (ip.source.into(), ip.destination.into(), ip.protocol, rest.len()))
    } else {
        let parsed = ipv6::parse(packet).ok();
        parsed.map(|(ip, rest)| (ip.source.into(), ip.destination.into(), ip.protocol, rest.len()))
    };
    let Some((source, destination, PROTOCOL_TCP, len)) = parsed else { return false };
    let at = packet.len() - len;
    let partial = !pseudo_header(source, destination, PROTOCOL_TCP, len as u32).finish();
    set_checksum(&mut packet[at..], partial);
    true
}

impl Device for Link<'_> {
    type RxToken<'a>
        = Arriving<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Leaving<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Arriving<'_>, Leaving<'_>)> {
        match self.tun.poll_recv(&mut Context::from_waker(self.waker), self.incoming) {
            Poll::Ready(Ok(received)) => {
                let leaving = Leaving {
                    tun: self.tun,
                    waker: self.waker,
                    frame: self.outgoing,
                    meta: PacketMeta::default(),
                };
                Some((Arriving(&self.incoming[..received.len]), leaving))
            }
            _ => None,
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving { tun: self.tun, waker: self.waker, frame: self.outgoing, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let ours = self.tun.capabilities();
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = ours.mtu.into();
        if ours.segmentation_offload {
            let most = NonZeroUsize::new(FRAME);
            // Over IPv6 it drops packets above this MTU, even super-segments. Its segments still respect the peer's
            // MSS.
            capabilities.max_transmission_unit = FRAME;
            capabilities.segmentation.tcpv4 = most;
            capabilities.segmentation.tcpv6 = most;
            capabilities.checksum.tcp = Checksum::None;
        }
        capabilities
    }
}
