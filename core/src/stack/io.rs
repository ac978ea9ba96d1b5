//! The packets that enter and leave a stack, and the interface that they cross.

use std::net::IpAddr;
use std::num::NonZeroU64;

use bytes::Bytes;

use crate::ip::routes::{InterfaceId, Link};
use crate::tcp::room::{MAX_PACKET, MIN_MTU_V4, MIN_MTU_V6};
use crate::wire::ethernet::{Address, HEADER_LEN};

/// A device that the stack is attached to.
///
/// Several interfaces follow the weak host model of RFC 1122 §3.3.4.2, as in Linux: a packet to any address of the stack
/// is taken whatever interface it came by, and packets leave by the route to their destination, whatever their source
/// address. Link-local addresses are the exception: they belong to their interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// The kind of packets that the device carries.
    pub medium: Medium,
    /// Largest IP packet, bytes. At least 68 (IPv4) or 1280 (IPv6).
    pub mtu: u16,
    /// Our addresses with their prefix lengths. An IPv4 prefix of up to 30 bits implies a broadcast address.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The device segments: [`Transmit::segment_size`] may be set and a frame may hold 64 KiB.
    pub segmentation_offload: bool,
    /// The device fills in TCP checksums: the field then holds the sum of the pseudo-header, not complemented.
    pub checksum_offload: bool,
}

impl Interface {
    /// A device without offload.
    pub fn new(mtu: u16, addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Interface {
        Interface {
            medium: Medium::Ip,
            mtu,
            addresses: addresses.into_iter().collect(),
            segmentation_offload: false,
            checksum_offload: false,
        }
    }

    /// A device that carries Ethernet frames, without offload. `address` is its hardware address.
    ///
    /// ```
    /// use steadfast_core::Interface;
    ///
    /// let address = "52:54:00:12:34:56".parse().unwrap();
    /// let interface = Interface::ethernet(1500, address, [("10.0.0.2".parse().unwrap(), 24)]);
    /// assert_eq!((interface.mtu, interface.frame_len()), (1500, 1514));
    /// ```
    pub fn ethernet(
        mtu: u16,
        address: Address,
        addresses: impl IntoIterator<Item = (IpAddr, u8)>,
    ) -> Interface {
        Interface { medium: Medium::Ethernet { address }, ..Interface::new(mtu, addresses) }
    }

    /// Checks that the MTU is at least 68 (RFC 791), and at least 1280 where there is an IPv6 address (RFC 8200 §5),
    /// and that a hardware address is that of a single host.
    ///
    /// # Errors
    ///
    /// The first of these that does not hold: the text says what is there and what was expected.
    pub fn validate(&self) -> Result<(), String> {
        if let Medium::Ethernet { address } = self.medium
            && !address.is_unicast()
        {
            return Err(format!("hardware address {address}: expected that of a single host"));
        }
        let v6 = self.addresses.iter().any(|(address, _)| address.is_ipv6());
        let least = if v6 { MIN_MTU_V6 } else { MIN_MTU_V4 };
        if self.mtu >= least { Ok(()) } else { Err(format!("MTU {}: expected at least {least}", self.mtu)) }
    }

    pub(super) fn link(&self, id: InterfaceId) -> Link {
        let &Interface { mtu, segmentation_offload, checksum_offload, .. } = self;
        Link { id, mtu, segmentation_offload, checksum_offload }
    }

    pub(super) fn expect_valid(&self) {
        if let Err(error) = self.validate() {
            panic!("interface: {error}");
        }
    }

    /// The length of a frame for [`transmit`](crate::Stack::transmit). No frame exceeds it: the MTU, or 65,535 bytes
    /// where the device cuts segments, and the header of the medium.
    pub fn frame_len(&self) -> usize {
        self.packet_len() + self.medium.header_len()
    }

    /// The length of the longest packet.
    pub(super) fn packet_len(&self) -> usize {
        let longest = if self.segmentation_offload { MAX_PACKET } else { self.mtu };
        usize::from(longest)
    }
}

/// The kind of packets that a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Medium {
    /// Bare IP packets: a TUN device.
    #[default]
    Ip,
    /// Ethernet frames. The hardware addresses of neighbours are found by ARP (RFC 826) and neighbour discovery (RFC
    /// 4861).
    Ethernet {
        /// The hardware address of the interface.
        address: Address,
    },
}

impl Medium {
    /// Returns the length of the header before a packet, in bytes.
    pub const fn header_len(self) -> usize {
        match self {
            Medium::Ip => 0,
            Medium::Ethernet { .. } => HEADER_LEN,
        }
    }
}

/// A received packet and its metadata from the device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Packet<'a> {
    /// The IP packet or Ethernet frame: as received from the wire, or a super-segment of up to 64 KiB.
    pub bytes: PacketBytes<'a>,
    /// The device has verified the TCP checksum, or the packet never left this machine.
    pub checksum_trusted: bool,
    /// The interface by which it came; the first unless [`on`](Packet::on) names another one.
    pub interface: InterfaceId,
}

/// Who owns the bytes of a packet.
#[derive(Clone, Debug)]
pub enum PacketBytes<'a> {
    /// The caller owns them: the stack copies the payload.
    Borrowed(&'a [u8]),
    /// The buffer is shared: the stack keeps a large payload as a slice of it.
    Shared(Bytes),
}

impl<'a> Packet<'a> {
    /// Returns a packet with this claim about its checksum.
    #[inline]
    pub fn new(bytes: PacketBytes<'a>, checksum_trusted: bool) -> Packet<'a> {
        Packet { bytes, checksum_trusted, interface: InterfaceId::FIRST }
    }

    /// Returns the packet as one that came by this interface.
    #[inline]
    pub fn on(self, interface: InterfaceId) -> Packet<'a> {
        Packet { interface, ..self }
    }
}

impl<'a> From<&'a [u8]> for Packet<'a> {
    fn from(bytes: &'a [u8]) -> Packet<'a> {
        Packet::new(PacketBytes::Borrowed(bytes), false)
    }
}

impl From<Bytes> for Packet<'_> {
    fn from(bytes: Bytes) -> Self {
        Packet::new(PacketBytes::Shared(bytes), false)
    }
}

/// Describes the packet that [`transmit`](crate::Stack::transmit) put into the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transmit {
    /// Bytes of the IP packet or Ethernet frame that are in the frame: all, unless [`sliced`](Transmit::sliced) follow.
    pub len: usize,
    /// Bytes of payload behind them, in the slices of [`transmit_slices`](crate::Stack::transmit_slices).
    pub sliced: usize,
    /// The device must cut the payload into segments of this many bytes.
    pub segment_size: Option<u16>,
    /// The device must fill in the TCP checksum.
    pub checksum_offload: bool,
    /// The interface by which it leaves.
    pub interface: InterfaceId,
}

/// The part of [`Transmit`] that the packet itself decides, in two words: three would be returned in memory, field by
/// field, and a wide read of them would stall.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) len: usize,
    /// The interface, above a bit for the checksum and one that is always set.
    via: NonZeroU64,
}

impl Sent {
    #[inline]
    pub(super) fn new(len: usize, interface: InterfaceId, checksum_offload: bool) -> Sent {
        let via = u64::from(interface.index()) << 2 | u64::from(checksum_offload) << 1;
        Sent { len, via: NonZeroU64::MIN | via }
    }

    #[inline]
    pub(super) fn interface(self) -> InterfaceId {
        InterfaceId::from_index((self.via.get() >> 2) as u32)
    }

    #[inline]
    pub(super) fn checksum_offload(self) -> bool {
        self.via.get() & 2 != 0
    }

    #[inline]
    pub(super) fn transmit(self, segment_size: Option<u16>, sliced: usize) -> Transmit {
        Transmit {
            len: self.len - sliced,
            sliced,
            segment_size,
            checksum_offload: self.checksum_offload(),
            interface: self.interface(),
        }
    }
}
