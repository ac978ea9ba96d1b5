//! TUN devices: packets to and from the kernel of this machine.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, IntegerSetter, Opcode, Updater, opcode};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::link::Link;
use crate::{Capabilities, Device, Frame, Received, offload};

const CLONE_DEVICE: &str = "/dev/net/tun";

/// The TUN device to open, and the configuration of the kernel's end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunOptions {
    /// Name of the interface. If none has it, the kernel creates the interface, and deletes it when the device is
    /// dropped. A persistent interface (`ip tuntap add`) is used as it is.
    pub name: String,
    /// Largest IP packet in bytes. `None` keeps the MTU of the interface; a new one has 1500.
    pub mtu: Option<u16>,
    /// Packets that the kernel queues towards the device before it drops. `None` keeps the interface's queue length. A
    /// new interface has 500, which is less than one full receive window.
    pub queue_len: Option<u32>,
    /// Addresses of the kernel's end, each with its prefix length in bits. The kernel adds a route to each prefix.
    pub host: Vec<(IpAddr, u8)>,
    /// Further networks, with prefix lengths, that the kernel routes into the device.
    pub routes: Vec<(IpAddr, u8)>,
    /// Offload segmentation and checksums to the kernel, and accept packets that the kernel has not segmented or
    /// summed. [`Capabilities`] tell whether the kernel does it.
    pub offload: bool,
}

impl TunOptions {
    /// The device called `name`, with offload. An interface keeps its settings, except that it is brought up.
    pub fn new(name: impl Into<String>) -> TunOptions {
        TunOptions {
            name: name.into(),
            mtu: None,
            queue_len: None,
            host: Vec::new(),
            routes: Vec::new(),
            offload: true,
        }
    }
}

/// A TUN device. It carries bare IP packets, without the packet information header (`IFF_NO_PI`).
///
/// ```no_run
/// use steadfast_device::{Device, Tun, TunOptions};
///
/// # async fn open() -> Result<(), steadfast_device::TunError> {
/// let mut options = TunOptions::new("sf0");
/// options.host = vec![([10, 9, 0, 1].into(), 24)]; // `ip address add 10.9.0.1/24 dev sf0`
/// let tun = Tun::open(&options).await?;
/// println!("MTU {}", tun.capabilities().mtu);
/// # Ok(())
/// # }
/// ```
pub struct Tun {
    fd: Arc<AsyncFd<OwnedFd>>,
    /// Resolves once the interface is deleted: the file then reports an error but is not readable.
    deleted: Pin<Box<dyn Future<Output = ()> + Send>>,
    name: String,
    capabilities: Capabilities,
    /// Every packet has a `virtio_net_hdr` before it.
    virtio: bool,
}

impl fmt::Debug for Tun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tun").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tun {
    /// Opens a device and configures the kernel's end of it. Needs a Tokio runtime with I/O and time enabled.
    ///
    /// Creating an interface takes root or `CAP_NET_ADMIN`. A user may open a persistent interface of their own without
    /// either, provided that `options` change nothing.
    ///
    /// # Errors
    ///
    /// The message names the step that failed, its cause and a remedy.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the device. An interface that it created goes with it; settings of a persistent
    /// interface that were already changed stay changed.
    pub async fn open(options: &TunOptions) -> Result<Tun, TunError> {
        Ok(Tun::open_queues(options, 1).await?.swap_remove(0))
    }

    /// Like [`open`](Tun::open), with several queues (`IFF_MULTI_QUEUE`): returns one `Tun` per queue, at least one.
    ///
    /// The kernel delivers a flow through the queue that last sent a packet of it. It remembers 4096 flows, each for
    /// three seconds after its last sent packet. For any other flow, a hash of the kernel's own selects the queue.
    ///
    /// # Errors
    ///
    /// As [`open`](Tun::open).
    ///
    /// # Cancel safety
    ///
    /// As [`open`](Tun::open).
    pub async fn open_queues(options: &TunOptions, queues: usize) -> Result<Vec<Tun>, TunError> {
        check_name(&options.name)?;
        let queues = queues.max(1);
        let mut name = options.name.clone();
        let mut files = Vec::with_capacity(queues);
        for _ in 0..queues {
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::open(CLONE_DEVICE, flags, Mode::empty()).map_err(TunError::open)?;
            name = attach(&fd, options, queues > 1).map_err(|e| TunError::attach(&options.name, e))?;
            files.push(fd);
        }
        let offload = set_offload(&files[0], options.offload);
        let mut capabilities = Capabilities::new(set_up(&name, options).await?);
        capabilities.segmentation_offload = offload;
        capabilities.checksum_offload = offload;
        let queue = |fd| Tun::new(fd, name.clone(), capabilities, options.offload);
        files.into_iter().map(queue).collect()
    }

    /// Takes over the file of a device that another process has opened and configured, such as one in another network
    /// namespace. `mtu` is that of its interface. `offload` is as in [`TunOptions`], and is off for a device that was
    /// opened without it. Needs a Tokio runtime with I/O enabled.
    ///
    /// ```no_run
    /// use std::os::fd::OwnedFd;
    /// use steadfast_device::{Tun, TunError};
    ///
    /// fn adopt(received: OwnedFd) -> Result<Tun, TunError> {
    ///     Tun::from_fd(received, 1500, true)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The file is not that of a TUN device without the packet information header (`IFF_TUN | IFF_NO_PI`).
    pub fn from_fd(fd: OwnedFd, mtu: u16, offload: bool) -> Result<Tun, TunError> {
        let foreign = |cause: io::Error| {
            TunError::new(
                "cannot take over the device",
                cause,
                "expected the file of a TUN device without IFF_PI",
            )
        };
        let (name, flags) = interface_of(&fd).map_err(|e| foreign(e.into()))?;
        let wanted = InterfaceRequest::IFF_TUN | InterfaceRequest::IFF_NO_PI;
        if flags & wanted != wanted {
            return Err(foreign(io::ErrorKind::InvalidInput.into()));
        }
        let blocking = rustix::fs::fcntl_getfl(&fd).map_err(|e| foreign(e.into()))?;
        rustix::fs::fcntl_setfl(&fd, blocking | OFlags::NONBLOCK).map_err(|e| foreign(e.into()))?;
        let virtio = flags & InterfaceRequest::IFF_VNET_HDR != 0;
        let offload = virtio && set_offload(&fd, offload);
        let mut capabilities = Capabilities::new(mtu);
        capabilities.segmentation_offload = offload;
        capabilities.checksum_offload = offload;
        Tun::new(fd, name, capabilities, virtio)
    }

    fn new(fd: OwnedFd, name: String, capabilities: Capabilities, virtio: bool) -> Result<Tun, TunError> {
        // SAFETY: the file is open and owned here, and it is neither replaced nor closed before the `AsyncFd` is
        // dropped.
        let fd = unsafe { AsyncFd::register(fd) };
        let fd = fd.map_err(|e| TunError::new("cannot watch the device", e.into(), ""))?;
        let fd = Arc::new(fd);
        let deleted = Box::pin(shows_error(fd.clone()));
        Ok(Tun { fd, deleted, name, capabilities, virtio })
    }

    /// Returns the name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Gives access to the file, for programs with an event loop of their own. It is non-blocking, and each read or write
/// is one packet. Unless [`TunOptions::offload`] is off, a `virtio_net_hdr` precedes the packet, which may be a
/// super-segment.
impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

impl Device for Tun {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        loop {
            let Poll::Ready(ready) = self.fd.poll_read_ready(cx) else {
                ready!(self.deleted.as_mut().poll(cx));
                // A completed future must not be polled again; this one can be, and reports the deletion again.
                self.deleted = Box::pin(poll_fn(|_| Poll::Ready(())));
                return Poll::Ready(Err(Errno::NODEV.into()));
            };
            let mut guard = ready?;
            let virtio = self.virtio;
            match guard.try_io(|fd| Ok(offload::read(fd, virtio, buffer)?)) {
                Ok(Ok(received)) => return Poll::Ready(Ok(received)),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            let virtio = self.virtio;
            let written = guard.try_io(|fd| match offload::write(fd, virtio, 0, &frame) {
                Err(e) if is_final(e) || e == Errno::AGAIN => Err(e.into()),
                // The interface is down or the kernel is out of memory: only the packet is lost.
                _ => Ok(()),
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

/// Waits for an error on the file, which is permanent.
async fn shows_error(fd: Arc<AsyncFd<OwnedFd>>) {
    // It fails only when the runtime shuts down, which also ends the task that waits.
    let _ = fd.ready(Interest::ERROR).await;
}

/// Returns whether the device behind the file is gone.
fn is_final(error: Errno) -> bool {
    matches!(error, Errno::BADFD | Errno::BADF | Errno::NODEV)
}

fn check_name(name: &str) -> Result<(), TunError> {
    let fits = (1..InterfaceRequest::NAME_LEN).contains(&name.len());
    let sound = name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'%' && b != b':');
    if fits && sound && name != "." && name != ".." {
        return Ok(());
    }
    let what = format!("`{name}` is no name of an interface");
    let expected = "expected 1 to 15 letters, digits or signs without `/`, `:` and `%`";
    Err(TunError::new(what, io::ErrorKind::InvalidInput.into(), expected))
}

/// `struct ifreq`, as `TUNSETIFF` takes it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; InterfaceRequest::NAME_LEN],
    flags: u16,
    padding: [u8; 22],
}

impl InterfaceRequest {
    const NAME_LEN: usize = 16;
    const IFF_TUN: u16 = 0x0001;
    const IFF_NO_PI: u16 = 0x1000;
    const IFF_MULTI_QUEUE: u16 = 0x0100;
    const IFF_VNET_HDR: u16 = 0x4000;

    fn name(&self) -> String {
        let end = self.name.iter().position(|&b| b == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40, "struct ifreq");

/// Attaches `fd` to the interface and returns its name.
fn attach(fd: &OwnedFd, options: &TunOptions, multi_queue: bool) -> Result<String, Errno> {
    const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
    let name = &options.name;
    let mut flags = InterfaceRequest::IFF_TUN | InterfaceRequest::IFF_NO_PI;
    if options.offload {
        flags |= InterfaceRequest::IFF_VNET_HDR;
    }
    if multi_queue {
        flags |= InterfaceRequest::IFF_MULTI_QUEUE;
    }
    let mut request = InterfaceRequest { name: [0; InterfaceRequest::NAME_LEN], flags, padding: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`. `InterfaceRequest` has its size and layout.
    unsafe { ioctl::ioctl(fd.as_fd(), Updater::<TUNSETIFF, _>::new(&mut request)) }?;
    Ok(request.name())
}

/// The name and the flags of the interface that `fd` is attached to.
fn interface_of(fd: &OwnedFd) -> Result<(String, u16), Errno> {
    const TUNGETIFF: Opcode = opcode::read::<u32>(b'T', 210);
    let mut request = InterfaceRequest { name: [0; InterfaceRequest::NAME_LEN], flags: 0, padding: [0; 22] };
    // SAFETY: TUNGETIFF writes one `struct ifreq`, in spite of the size in its number. `InterfaceRequest` has its size
    // and layout.
    unsafe { ioctl::ioctl(fd.as_fd(), Updater::<TUNGETIFF, _>::new(&mut request)) }?;
    Ok((request.name(), request.flags))
}

/// Tells the kernel whether it may deliver packets that are not segmented or summed. Returns whether it segments and
/// sums ours. The setting of a persistent interface outlives its last user, so that it must be cleared too.
fn set_offload(fd: &OwnedFd, offload: bool) -> bool {
    const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
    const TUN_F_CSUM: usize = 0x01;
    const TUN_F_TSO4: usize = 0x02;
    const TUN_F_TSO6: usize = 0x04;
    const TUN_F_TSO_ECN: usize = 0x08;
    let features = if offload { TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN } else { 0 };
    // SAFETY: TUNSETOFFLOAD takes its bits as the argument itself, and accesses no memory.
    let set = unsafe { ioctl::ioctl(fd.as_fd(), IntegerSetter::<TUNSETOFFLOAD>::new_usize(features)) };
    offload && set.is_ok()
}

/// Configures the kernel's end and returns the MTU in bytes.
async fn set_up(name: &str, options: &TunOptions) -> Result<u16, TunError> {
    let failed = |what: String| move |e: io::Error| TunError::change(what, e);
    let mut link =
        Link::open(name).await.map_err(|e| TunError::new(format!("cannot find interface {name}"), e, ""))?;
    if let Some(mtu) = options.mtu.filter(|&mtu| u32::from(mtu) != link.mtu) {
        link.set_mtu(mtu).await.map_err(failed(format!("cannot set the MTU of {name} to {mtu}")))?;
    }
    if let Some(packets) = options.queue_len {
        link.set_queue_len(packets)
            .await
            .map_err(failed(format!("cannot set the queue length of {name}")))?;
    }
    if !link.up {
        link.set_up().await.map_err(failed(format!("cannot bring {name} up")))?;
    }
    for &(address, prefix_len) in &options.host {
        let what = format!("cannot give {name} the address {address}/{prefix_len}");
        link.add_address(address, prefix_len).await.map_err(failed(what))?;
    }
    for &(network, prefix_len) in &options.routes {
        let what = format!("cannot route {network}/{prefix_len} into {name}");
        link.add_route(network, prefix_len).await.map_err(failed(what))?;
    }
    Ok(u16::try_from(link.mtu).unwrap_or(u16::MAX))
}

/// The error of opening a TUN device: what failed, the cause and a remedy, in one line.
#[derive(Debug)]
pub struct TunError {
    what: String,
    cause: io::Error,
    advice: &'static str,
}

const NEEDS_ADMIN: &str =
    "run as root, or give the program the right to: setcap cap_net_admin+ep (and rw on /dev/net/tun)";

impl TunError {
    fn new(what: impl Into<String>, cause: io::Error, advice: &'static str) -> TunError {
        TunError { what: what.into(), cause, advice }
    }

    fn open(error: Errno) -> TunError {
        let advice = match error {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => {
                "the kernel's TUN driver is missing: modprobe tun; in a container, pass the device through: \
                 --device /dev/net/tun --cap-add NET_ADMIN"
            }
            Errno::ACCESS | Errno::PERM => NEEDS_ADMIN,
            _ => "",
        };
        TunError::new(format!("cannot open {CLONE_DEVICE}"), error.into(), advice)
    }

    fn attach(name: &str, error: Errno) -> TunError {
        let advice = match error {
            Errno::PERM | Errno::ACCESS => NEEDS_ADMIN,
            Errno::BUSY => "another program uses it, or an interface of another kind has this name",
            Errno::INVAL => {
                "an interface of this name is there and is no TUN device, or one with another kind of queues \
                 (ip tuntap add … multi_queue)"
            }
            _ => "",
        };
        TunError::new(format!("cannot make the TUN device {name}"), error.into(), advice)
    }

    fn change(what: String, error: io::Error) -> TunError {
        let advice = if error.kind() == io::ErrorKind::PermissionDenied { NEEDS_ADMIN } else { "" };
        TunError::new(what, error, advice)
    }

    /// Returns the kind of the underlying error.
    pub fn kind(&self) -> io::ErrorKind {
        self.cause.kind()
    }
}

impl fmt::Display for TunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.cause.kind() != io::ErrorKind::InvalidInput || self.cause.raw_os_error().is_some() {
            let cause = self.cause.to_string();
            // Drop the " (os error 13)" of the standard library: the text says it already.
            write!(f, ": {}", cause.split(" (os error").next().unwrap_or(&cause).to_lowercase())?;
        }
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for TunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<TunError> for io::Error {
    fn from(error: TunError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_refuse_is_refused_with_what_is_expected() {
        for name in ["", "a-name-of-16-byte", "a/b", "a b", "tun%d", ".", "..", "é"] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{name}` is no name of an interface; expected ")), "{error}");
        }
        for name in ["t", "tun0", "fifteen-letters"] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn an_error_is_one_line_that_says_what_is_missing_and_how_to_get_it() {
        let error = TunError::open(Errno::ACCESS).to_string();
        assert_eq!(error, format!("cannot open /dev/net/tun: permission denied; {NEEDS_ADMIN}"));
        let error = TunError::open(Errno::NOENT).to_string();
        assert!(error.contains("modprobe tun") && !error.contains('\n'), "{error}");
    }
}
