//! Packet devices for the steadfast TCP stack.
//!
//! A [`Device`] carries bare IP packets or Ethernet frames between the stack and a network. [`Tun`] and [`PacketSocket`]
//! connect to the kernel; [`memory::pair`] connects two stacks in one program, for tests.
//!
//! Unsafe code in this crate is limited to these two: the system calls that create and describe a TUN device or a packet
//! socket, and the registration of their files.
#![deny(unsafe_op_in_unsafe_fn)]
// A user reads when a call fails, or panics.
#![deny(clippy::missing_errors_doc, clippy::missing_panics_doc)]

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use steadfast_wire::ethernet::HEADER_LEN;

pub use steadfast_wire::ethernet::Address as HardwareAddress;

pub mod memory;

#[cfg(target_os = "linux")]
mod frames;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod offload;
#[cfg(target_os = "linux")]
mod packet;
#[cfg(target_os = "linux")]
mod segments;
#[cfg(unix)]
mod socket_path;
#[cfg(target_os = "linux")]
mod tun;

#[cfg(target_os = "linux")]
pub use frames::{LONGEST_FRAME, UnixDatagramFrames, UnixStreamFrames};
#[cfg(target_os = "linux")]
pub use packet::PacketSocket;
#[cfg(unix)]
pub use socket_path::free_socket_path;
#[cfg(target_os = "linux")]
pub use tun::{Tun, TunError, TunOptions};

/// A carrier of IP packets or Ethernet frames, in the style of `poll`.
///
/// One task owns a device and polls both directions. After `Pending`, the device wakes the waker of the last call in
/// that direction once another call is worthwhile.
pub trait Device: Send + 'static {
    /// Returns the capabilities of the device, which do not change while it is in use.
    fn capabilities(&self) -> Capabilities;

    /// Reads the next packet into `buffer`, which holds at least [`Capabilities::frame_len`] bytes.
    ///
    /// An error is final: the device is gone, and every later call returns it again.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>>;

    /// Writes a packet. `Pending` means that the device is full: offer the same frame again.
    ///
    /// A packet that the device cannot carry now is lost without an error, as on any network. An example is an
    /// interface that is down. An error is final: the device is gone.
    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>>;

    /// Returns whether [`poll_send`](Device::poll_send) sends the [`slices`](Frame::slices) of a frame, which saves the
    /// stack a copy. The default is false: the bytes of all frames are in one piece.
    fn gathers(&self) -> bool {
        false
    }
}

/// The capabilities of a [`Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Largest IP packet on the wire, in bytes.
    pub mtu: u16,
    /// The device segments packets of up to 64 KiB (TSO), and may deliver packets of that size (GRO).
    pub segmentation_offload: bool,
    /// The device computes TCP checksums of outgoing packets.
    pub checksum_offload: bool,
    /// The device carries Ethernet frames, and this is its hardware address. `None`: it carries bare IP packets.
    pub ethernet: Option<HardwareAddress>,
}

impl Capabilities {
    /// A device without offload.
    pub const fn new(mtu: u16) -> Capabilities {
        Capabilities { mtu, segmentation_offload: false, checksum_offload: false, ethernet: None }
    }

    /// Bytes that a buffer for one frame must hold.
    pub const fn frame_len(&self) -> usize {
        let header = if self.ethernet.is_some() { HEADER_LEN } else { 0 };
        header + if self.segmentation_offload { 65_535 } else { self.mtu as usize }
    }
}

/// A packet that [`Device::poll_recv`] wrote into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Length of the IP packet or Ethernet frame in bytes.
    pub len: usize,
    /// The device has verified the TCP checksum, or the packet never left this machine.
    pub checksum_trusted: bool,
}

impl Received {
    /// A packet as it came from the wire.
    pub const fn new(len: usize) -> Received {
        Received { len, checksum_trusted: false }
    }
}

/// An outgoing packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame<'a> {
    /// The IP packet or Ethernet frame, or all headers of it.
    pub bytes: &'a [u8],
    /// The payload behind `bytes`, for a device that [gathers](Device::gathers). Empty if `bytes` is all.
    pub slices: &'a [Bytes],
    /// If present, the device must cut the payload into segments of this many bytes.
    pub segment_size: Option<u16>,
    /// The device must compute the TCP checksum.
    pub checksum_offload: bool,
}

impl<'a> Frame<'a> {
    /// A packet that is ready for the wire.
    pub const fn new(bytes: &'a [u8]) -> Frame<'a> {
        Frame { bytes, slices: &[], segment_size: None, checksum_offload: false }
    }

    /// Returns the length of the IP packet or Ethernet frame in bytes.
    pub fn packet_len(&self) -> usize {
        self.bytes.len() + self.slices.iter().map(Bytes::len).sum::<usize>()
    }

    /// Appends the IP packet or Ethernet frame to `to`, in one piece.
    pub fn copy_to(&self, to: &mut Vec<u8>) {
        to.reserve(self.packet_len());
        to.extend_from_slice(self.bytes);
        self.slices.iter().for_each(|slice| to.extend_from_slice(slice));
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

    fn gathers(&self) -> bool {
        (**self).gathers()
    }
}
