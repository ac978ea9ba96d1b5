//! The packets of a network as they pass its driver, for `capture` at the control socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use steadfast_core::InterfaceId;
use steadfast_device::Frame;

/// Bytes that wait for the client, with what each packet takes besides. More packets are lost, and counted.
const ROOM: usize = 16 * 1024 * 1024;

/// A packet as it passed.
pub(crate) struct Packet {
    /// Time since 1970.
    pub(crate) nanos: u64,
    /// Number of the interface.
    pub(crate) interface: u32,
    /// It was sent.
    pub(crate) out: bool,
    /// An Ethernet header comes first.
    pub(crate) ethernet: bool,
    /// Its TCP checksum may not be complete.
    pub(crate) partial: bool,
    /// Its length, even if it was cut.
    pub(crate) len: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Where the driver leaves copies of its packets while somebody captures.
#[derive(Default)]
pub(crate) struct Tap {
    on: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    packets: Vec<Packet>,
    held: usize,
    lost: u64,
    snaplen: usize,
}

impl Tap {
    /// Captures from now on: at most so many bytes of each packet.
    pub(crate) fn start(&self, snaplen: usize) {
        *self.kept() = Kept { snaplen, ..Kept::default() };
        self.on.store(true, Ordering::Release);
    }

    pub(crate) fn stop(&self) {
        self.on.store(false, Ordering::Release);
        *self.kept() = Kept::default();
    }

    /// Returns the packets since the last call, and how many were lost.
    pub(crate) fn take(&self) -> (Vec<Packet>, u64) {
        let mut kept = self.kept();
        kept.held = 0;
        (std::mem::take(&mut kept.packets), std::mem::take(&mut kept.lost))
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Copies packets that came in.
    pub(crate) fn received<'a>(
        &self,
        interface: InterfaceId,
        ethernet: bool,
        packets: impl Iterator<Item = (&'a [u8], bool)>,
    ) {
        let (mut kept, nanos) = (self.kept(), now());
        for (bytes, partial) in packets {
            kept.keep(Frame::new(bytes), |len, bytes| Packet {
                nanos,
                interface: interface.index(),
                out: false,
                ethernet,
                partial,
                len,
                bytes,
            });
        }
    }

    /// Copies packets that go out.
    pub(crate) fn sent<'a>(
        &self,
        ethernet: impl Fn(InterfaceId) -> bool,
        frames: impl Iterator<Item = (Frame<'a>, InterfaceId)>,
    ) {
        let (mut kept, nanos) = (self.kept(), now());
        for (frame, interface) in frames {
            kept.keep(frame, |len, bytes| Packet {
                nanos,
                interface: interface.index(),
                out: true,
                ethernet: ethernet(interface),
                partial: frame.checksum_offload,
                len,
                bytes,
            });
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Keeps a packet, if there is room for it.
    fn keep(&mut self, frame: Frame<'_>, packet: impl FnOnce(usize, Vec<u8>) -> Packet) {
        let len = frame.packet_len();
        let more = len.min(self.snaplen) + size_of::<Packet>();
        if self.held + more > ROOM {
            self.lost += 1;
            return;
        }
        self.held += more;
        let mut bytes = Vec::with_capacity(len.min(self.snaplen));
        for part in std::iter::once(frame.bytes).chain(frame.slices.iter().map(|slice| &slice[..])) {
            let room = self.snaplen - bytes.len();
            bytes.extend_from_slice(&part[..part.len().min(room)]);
        }
        self.packets.push(packet(len, bytes));
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}
