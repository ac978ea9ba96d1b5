//! A device that records its packets as pcapng.
//!
//! With offload, a super-segment is one packet of the capture, as in captures on Linux. Its checksum is recorded as it
//! will be on the wire; Linux would show the partial one.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::SystemTime;

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::stack::wire::{PROTOCOL_TCP, ipv4, ipv6, tcp};
use steadfast_timeline::pcapng;

use crate::failure::Failure;

/// The file, shared by the queues of a device. `None` once a write failed: the traffic continues.
#[derive(Clone)]
pub(crate) struct Capture(Arc<Mutex<Option<BufWriter<File>>>>);

impl Capture {
    /// Creates the file and writes its header.
    pub(crate) fn create(path: &Path) -> Result<Capture, Failure> {
        let create = || {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&pcapng::section(""))?;
            file.write_all(&pcapng::interface(""))?;
            file.flush()?;
            Ok(Capture(Arc::new(Mutex::new(Some(file)))))
        };
        create().map_err(|e| Failure::system(format_args!("--pcap {}", path.display()), e))
    }

    fn write_packet(&self, packet: &[u8], partial: bool, outbound: bool) {
        let completed = partial.then(|| {
            let mut packet = packet.to_vec();
            set_checksum(&mut packet);
            packet
        });
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = since_epoch.as_nanos() as u64;
        let bytes = completed.as_deref().unwrap_or(packet);
        let block = pcapng::packet(&pcapng::Packet {
            nanos,
            interface: 0,
            outbound,
            bytes,
            len: bytes.len() as u32,
            comments: &[],
        });
        self.write(|file| file.write_all(&block));
    }

    fn write(&self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        let mut file = self.0.lock().expect("writing does not panic");
        if let Some(open) = file.as_mut()
            && let Err(e) = write(open)
        {
            eprintln!("steadfast: the capture ends here: {e}");
            *file = None;
        }
    }
}

/// A device, and the file for its packets.
pub(crate) struct Captured<D> {
    device: D,
    capture: Capture,
}

impl<D> Captured<D> {
    pub(crate) fn new(device: D, capture: Capture) -> Captured<D> {
        Captured { device, capture }
    }
}

impl<D: Device> Device for Captured<D> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        let received = self.device.poll_recv(cx, buffer);
        match &received {
            Poll::Ready(Ok(received)) => {
                let partial = received.checksum_trusted;
                if let Some(at) = ip_at(&self.device.capabilities(), &buffer[..received.len]) {
                    self.capture.write_packet(&buffer[at..received.len], partial, false);
                }
            }
            Poll::Ready(Err(_)) => {}
            // No packet is waiting: flush, for readers that follow the file.
            Poll::Pending => self.capture.write(|file| file.flush()),
        }
        received
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let sent = self.device.poll_send(cx, frame);
        if matches!(sent, Poll::Ready(Ok(())))
            && let Some(at) = ip_at(&self.device.capabilities(), frame.bytes)
        {
            self.capture.write_packet(&frame.bytes[at..], frame.checksum_offload, true);
        }
        sent
    }
}

/// Where the IP packet of a frame begins. `None` for a frame of Ethernet without one.
pub(crate) fn ip_at(capabilities: &Capabilities, frame: &[u8]) -> Option<usize> {
    if capabilities.ethernet.is_some() { ip_in(frame) } else { Some(0) }
}

/// Where the IP packet of a frame of Ethernet begins, if it has one.
pub(crate) fn ip_in(frame: &[u8]) -> Option<usize> {
    const HEADER_LEN: usize = 14;
    matches!(frame.get(12..HEADER_LEN), Some([0x08, 0x00] | [0x86, 0xdd])).then_some(HEADER_LEN)
}

/// Writes the complete checksum into a TCP segment.
pub(crate) fn set_checksum(packet: &mut [u8]) {
    let parsed = match packet.first().map(|byte| byte >> 4) {
        Some(4) => ipv4::parse(packet).ok().map(|(header, payload)| {
            (IpAddr::V4(header.source), IpAddr::V4(header.destination), header.protocol, payload.len())
        }),
        _ => ipv6::parse(packet).ok().map(|(header, payload)| {
            (IpAddr::V6(header.source), IpAddr::V6(header.destination), header.protocol, payload.len())
        }),
    };
    let Some((source, destination, PROTOCOL_TCP, len)) = parsed else { return };
    let at = packet.len() - len;
    tcp::write_checksum(source, destination, &mut packet[at..]);
}
