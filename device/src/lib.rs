//! Packet devices for the steadfast TCP stack.
//!
//! A [`Device`] carries bare IP packets between the stack and a network. [`Tun`] is the one that reaches the
//! kernel; [`memory::pair`] joins two stacks inside one program, for tests.
//!
//! This is the only crate of the workspace where `unsafe` may stand: the `ioctl`s that make a TUN device.
#![deny(unsafe_op_in_unsafe_fn)]

use std::io;
use std::task::{Context, Poll};

pub mod memory;

#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod offload;
#[cfg(target_os = "linux")]
mod tun;

#[cfg(target_os = "linux")]
pub use tun::{Tun, TunError, TunOptions};

/// Something that carries IP packets, in the style of `poll`.
///
/// One task owns a device and polls both directions. Where a poll is pending, the waker of its last call in
/// that direction is woken once it is worth trying again.
pub trait Device: Send + 'static {
    /// What the device can do. It does not change while the device is in use.
    fn capabilities(&self) -> Capabilities;

    /// Reads the next packet into `buffer`, which holds at least [`Capabilities::frame_len`] bytes.
    ///
    /// An error means that the device is gone for good, and comes again at the next call.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>>;

    /// Writes a packet. `Pending`: the device is full, offer the same frame again.
    ///
    /// A packet that the device cannot carry just now (the interface is down) is lost, as on any network: that
    /// is no error. An error means that the device is gone for good.
    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>>;
}

/// What a [`Device`] can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Largest IP packet on the wire, bytes.
    pub mtu: u16,
    /// The device cuts super-segments of up to 64 KiB, and may hand them in.
    pub segmentation_offload: bool,
    /// The device fills in TCP checksums.
    pub checksum_offload: bool,
}

impl Capabilities {
    /// A device without offload.
    pub const fn new(mtu: u16) -> Capabilities {
        Capabilities { mtu, segmentation_offload: false, checksum_offload: false }
    }

    /// Bytes that a buffer for one frame must hold.
    pub const fn frame_len(&self) -> usize {
        if self.segmentation_offload { 65_535 } else { self.mtu as usize }
    }
}

/// What [`Device::poll_recv`] put into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Bytes of the IP packet.
    pub len: usize,
    /// The device has verified the TCP checksum, or the packet never left this machine.
    pub checksum_trusted: bool,
    /// The packet is a super-segment, made of segments with so many bytes of payload.
    pub segment_size: Option<u16>,
}

impl Received {
    /// A packet as it came from the wire.
    pub const fn new(len: usize) -> Received {
        Received { len, checksum_trusted: false, segment_size: None }
    }
}

/// A packet on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame<'a> {
    /// The IP packet.
    pub bytes: &'a [u8],
    /// The device must cut the payload into segments of so many bytes.
    pub segment_size: Option<u16>,
    /// The device must fill in the TCP checksum.
    pub checksum_offload: bool,
}

impl<'a> Frame<'a> {
    /// A packet that is ready for the wire.
    pub const fn new(bytes: &'a [u8]) -> Frame<'a> {
        Frame { bytes, segment_size: None, checksum_offload: false }
    }
}

impl<D: Device + ?Sized> Device for Box<D> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        (**self).poll_recv(cx, buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        (**self).poll_send(cx, frame)
    }
}
