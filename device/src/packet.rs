//! Packet sockets: Ethernet frames to and from an interface of the kernel (packet(7)).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::segments::Segments;
use crate::{Capabilities, Device, Frame, HardwareAddress, Received, offload};
use steadfast_wire::ethernet::HEADER_LEN;

/// Bytes of frames that the kernel keeps for us, where it allows it: a full window of super-segments.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// A packet socket (`AF_PACKET`) on an interface of the kernel, such as the far end of a `veth` pair.
///
/// The stack is a host of the link with the hardware address of the interface, so the interface should have no address
/// of IP. Super-segments of TCP pass both ways, with checksums that nobody computes (`PACKET_VNET_HDR`); those of UDP are
/// received as the datagrams that they stand for. Frames that others send by the interface are not received
/// (`PACKET_IGNORE_OUTGOING`).
///
/// ```no_run
/// use steadfast_device::{Device, PacketSocket};
///
/// # fn open() -> std::io::Result<()> {
/// // A process with `CAP_NET_RAW` opens the socket in its network namespace …
/// let socket = PacketSocket::bind("veth1")?;
/// // … and another one, to which it passes the descriptor, uses it.
/// let device = PacketSocket::from_fd(socket)?;
/// println!("{:?}", device.capabilities().ethernet);
/// # Ok(())
/// # }
/// ```
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    capabilities: Capabilities,
    /// Datagrams that came in one frame, and are received one by one.
    segments: Segments,
}

impl fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketSocket").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl PacketSocket {
    /// Opens a socket on the interface called `name`: [`bind`](PacketSocket::bind) and
    /// [`from_fd`](PacketSocket::from_fd). Needs a Tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// As [`bind`](PacketSocket::bind) and [`from_fd`](PacketSocket::from_fd).
    pub fn open(name: &str) -> io::Result<PacketSocket> {
        PacketSocket::from_fd(PacketSocket::bind(name)?)
    }

    /// Opens a socket on the interface called `name` in the network namespace of this thread, and sets its options. It
    /// takes `CAP_NET_RAW`, and no runtime.
    ///
    /// # Errors
    ///
    /// `NotFound`: there is no such interface. `PermissionDenied`: the right is missing.
    pub fn bind(name: &str) -> io::Result<OwnedFd> {
        let fd = socket()?;
        set_packet_options(&fd)?;
        // Forcing takes a right that not everybody has; the limit of the system applies without.
        let forced = set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
        if forced.is_err() {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
        }
        bind_to(&fd, index_of(&fd, name)?)?;
        Ok(fd)
    }

    /// Uses a socket that [`bind`](PacketSocket::bind) opened, also one of another network namespace. Needs a Tokio
    /// runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the descriptor is no packet socket on an Ethernet interface with `PACKET_VNET_HDR`.
    pub fn from_fd(fd: OwnedFd) -> io::Result<PacketSocket> {
        let address = name_of(&fd).map_err(|_| expected_packet_socket())?;
        let virtio = get_option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR).unwrap_or(0);
        let hardware: Option<&[u8; 6]> = address.sll_addr.first_chunk();
        let is_ethernet = address.sll_hatype == libc::ARPHRD_ETHER && address.sll_halen == 6;
        let Some(hardware) = hardware.filter(|_| is_ethernet && virtio != 0) else {
            return Err(expected_packet_socket());
        };
        let mut capabilities = Capabilities::new(mtu_of(&fd, address.sll_ifindex)?);
        capabilities.ethernet = Some(HardwareAddress(*hardware));
        capabilities.segmentation_offload = true;
        capabilities.checksum_offload = true;
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: the file is open and owned here, and it is neither replaced nor closed before the `AsyncFd` is
        // dropped.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(PacketSocket { fd, capabilities, segments: Segments::default() })
    }
}

/// Gives access to the file, for programs with an event loop of their own. It is non-blocking, and each read or write
/// is a `virtio_net_hdr` and one frame, which may be a super-segment.
impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

impl Device for PacketSocket {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        if let Some(next) = self.segments.next(buffer) {
            return Poll::Ready(Ok(next));
        }
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| Ok(self.segments.read(fd, HEADER_LEN, buffer)?)) {
                Ok(Ok(received)) => return Poll::Ready(Ok(received)),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                // Before Linux 6.2 a super-segment of UDP has no header, and is lost.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EINVAL) => {}
                // The interface is down, which is told once, or it is gone.
                Ok(Err(e)) if e.kind() == io::ErrorKind::NetworkDown && is_bound(&self.fd) => {}
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) if is_bound(&self.fd) => {}
                Err(_would_block) => return Poll::Ready(Err(Errno::NODEV.into())),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            let written = guard.try_io(|fd| {
                match offload::write(fd, true, HEADER_LEN, &frame) {
                    Err(Errno::AGAIN) => Err(Errno::AGAIN.into()),
                    Err(e @ (Errno::NXIO | Errno::NODEV)) if !is_bound(fd) => Err(e.into()),
                    // The interface is down, or its queue is full: only the frame is lost.
                    _ => Ok(()),
                }
            });
            if let Ok(result) = written {
                return Poll::Ready(result);
            }
        }
    }

    fn gathers(&self) -> bool {
        true
    }
}

fn expected_packet_socket() -> io::Error {
    let text = "expected a packet socket on an Ethernet interface, with PACKET_VNET_HDR";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn is_bound(fd: &impl AsRawFd) -> bool {
    name_of(fd).is_ok_and(|address| address.sll_ifindex > 0)
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn socket() -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received before `bind` names the interface.
    // SAFETY: the call accesses no memory.
    let fd = checked(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just returned the descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_option(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` lives during the call, and `len` is its size.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) })?;
    Ok(())
}

/// Sets what a device needs of the kernel.
fn set_packet_options(fd: &OwnedFd) -> io::Result<()> {
    for (option, name, since) in [
        (libc::PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING", "4.20"),
        (libc::PACKET_VNET_HDR, "PACKET_VNET_HDR", "2.6.34"),
    ] {
        set_option(fd, libc::SOL_PACKET, option, 1).map_err(|error| {
            io::Error::new(error.kind(), format!("{name}: {error}: expected Linux {since} or later"))
        })?;
    }
    Ok(())
}

fn get_option(fd: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let (to, room) = ((&raw mut value).cast(), &raw mut len);
    // SAFETY: `value` lives during the call, and `len` is its size.
    checked(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, to, room) })?;
    Ok(value)
}

fn bind_to(fd: &OwnedFd, index: libc::c_int) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` lives during the call, and `len` is its size.
    checked(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(())
}

/// Returns the address of the socket: its interface, and the interface's hardware address.
fn name_of(fd: &impl AsRawFd) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: all fields are integers, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    let (to, room) = ((&raw mut address).cast(), &raw mut len);
    // SAFETY: `address` lives during the call, and `len` is its size: the kernel writes no more.
    checked(unsafe { libc::getsockname(fd.as_raw_fd(), to, room) })?;
    let is_packet = i32::from(address.sll_family) == libc::AF_PACKET;
    if is_packet { Ok(address) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Returns an empty request about the interface called `name`.
fn request(name: &[u8]) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is a name and a union of integers, addresses and pointers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is left for the end of the name.
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::NODEV.into());
    }
    request.ifr_name.iter_mut().zip(name).for_each(|(to, from)| *to = *from as libc::c_char);
    Ok(request)
}

fn index_of(fd: &OwnedFd, name: &str) -> io::Result<libc::c_int> {
    let mut request = request(name.as_bytes())?;
    let result = ask(fd, libc::SIOCGIFINDEX, &mut request);
    match result {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no interface `{name}`")))
        }
        // SAFETY: SIOCGIFINDEX has written this member.
        other => other.map(|()| unsafe { request.ifr_ifru.ifru_ifindex }),
    }
}

/// The MTU of an interface in the network namespace of the socket.
fn mtu_of(fd: &OwnedFd, index: libc::c_int) -> io::Result<u16> {
    let mut named = request(b"")?;
    named.ifr_ifru.ifru_ifindex = index;
    ask(fd, libc::SIOCGIFNAME, &mut named)?;
    ask(fd, libc::SIOCGIFMTU, &mut named)?;
    // SAFETY: SIOCGIFMTU has written this member.
    let mtu = unsafe { named.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

fn ask(fd: &OwnedFd, question: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: each of these questions reads and writes one `struct ifreq`, which lives during the call.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), question, &raw mut *request) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_the_kernel_lacks_is_named_with_its_release() {
        // No socket but those of packets has the option.
        let socket = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let error = set_packet_options(&socket).unwrap_err().to_string();
        assert!(error.starts_with("PACKET_IGNORE_OUTGOING: "), "{error}");
        assert!(error.ends_with(": expected Linux 4.20 or later"), "{error}");
    }
}
