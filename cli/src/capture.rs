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

use steadfast::core::wire::checksum::pseudo_header;
use steadfast::core::wire::{PROTOCOL_TCP, ipv4, ipv6, tcp};
use steadfast::device::{Capabilities, Device, Frame, Received};

use crate::failure::Failure;

/// The file, shared by the queues of a device. `None` once a write failed: the traffic continues.
#[derive(Clone)]
pub(crate) struct Capture(Arc<Mutex<Option<BufWriter<File>>>>);

impl Capture {
    /// Creates the file and writes its header.
    pub(crate) fn create(path: &Path) -> Result<Capture, Failure> {
        let create = || {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&head())?;
            file.flush()?;
            Ok(Capture(Arc::new(Mutex::new(Some(file)))))
        };
        create().map_err(|e| Failure::system(format_args!("--pcap {}", path.display()), e))
    }

    fn write_packet(&self, packet: &[u8], partial: bool, direction: Direction) {
        let mut block = packet_block(packet, direction);
        if partial {
            set_checksum(&mut block[PACKET_AT..PACKET_AT + packet.len()]);
        }
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
                self.capture.write_packet(&buffer[..received.len], partial, Direction::In);
            }
            Poll::Ready(Err(_)) => {}
            // No packet is waiting: flush, for readers that follow the file.
            Poll::Pending => self.capture.write(|file| file.flush()),
        }
        received
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let sent = self.device.poll_send(cx, frame);
        if matches!(sent, Poll::Ready(Ok(()))) {
            self.capture.write_packet(frame.bytes, frame.checksum_offload, Direction::Out);
        }
        sent
    }
}

/// The direction in `epb_flags`.
#[derive(Clone, Copy)]
enum Direction {
    In = 1,
    Out = 2,
}

/// Section header and interface description: bare IP packets, timestamps in nanoseconds.
fn head() -> Vec<u8> {
    const LINKTYPE_RAW: u16 = 101;
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]); // version 1.0
    section.extend(u64::MAX.to_le_bytes()); // length of the section: not known
    let mut interface = LINKTYPE_RAW.to_le_bytes().to_vec();
    interface.extend([0; 2]);
    interface.extend(0_u32.to_le_bytes()); // packets are not cut off
    interface.extend(option(9, &[9])); // if_tsresol: 10^-9 s
    interface.extend([0; 4]);
    [block(0x0a0d_0d0a, &section), block(1, &interface)].concat()
}

/// Writes the complete checksum into a TCP segment.
fn set_checksum(packet: &mut [u8]) {
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
    tcp::set_checksum(&mut packet[at..], 0);
    let mut sum = pseudo_header(source, destination, PROTOCOL_TCP, len as u32);
    sum.add_bytes(&packet[at..]);
    tcp::set_checksum(&mut packet[at..], sum.finish());
}

/// Offset of the packet in its block.
const PACKET_AT: usize = 28;

/// An enhanced packet block.
fn packet_block(packet: &[u8], direction: Direction) -> Vec<u8> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = since_epoch.as_nanos() as u64;
    let len = packet.len() as u32;
    let mut body = Vec::with_capacity(packet.len() + 40);
    for word in [0, (nanos >> 32) as u32, nanos as u32, len, len] {
        body.extend(word.to_le_bytes());
    }
    body.extend(packet);
    pad(&mut body);
    body.extend(option(2, &(direction as u32).to_le_bytes()));
    body.extend([0; 4]);
    block(6, &body)
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes(), &len, body, &len].concat()
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = code.to_le_bytes().to_vec();
    option.extend((value.len() as u16).to_le_bytes());
    option.extend(value);
    pad(&mut option);
    option
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_says_its_length_at_both_ends() {
        let mut rest: &[u8] = &[head(), packet_block(&[0x45; 41], Direction::In)].concat();
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(len - 4) as usize, len);
            kinds.push(word(0));
            rest = &rest[len..];
        }
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 6]);
    }
}
