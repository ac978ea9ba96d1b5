//! Captures for Wireshark: one interface for each host, comments for state changes and faults
//! (draft-ietf-opsawg-pcapng).

use crate::network::Network;
use crate::record::{Captured, Entry, Fate};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_FLAGS: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_APPLICATION: u16 = 4;

/// Bare IP packets, without a link header.
const LINKTYPE_RAW: u16 = 101;

/// Writes one section of a capture file. A file may hold several in sequence.
pub(crate) fn section(network: &Network, title: &str) -> Vec<u8> {
    let mut out = section_header(title);
    for name in &network.names {
        out.extend(interface(name));
    }
    let mut changes = Changes { network, next: 0 };
    for captured in network.record.captures.iter().flatten() {
        let mut comments = changes.before(captured);
        comments.extend(remarks(network, captured));
        out.extend(packet(captured, &comments));
    }
    out
}

/// As [`section`], but with one interface and without comments.
pub(crate) fn plain_section(title: &str, name: &str, packets: impl Iterator<Item = Captured>) -> Vec<u8> {
    let mut out = section_header(title);
    out.extend(interface(name));
    packets.for_each(|captured| out.extend(packet(&captured, &[])));
    out
}

/// State changes; each is a comment on the next packet of its host.
struct Changes<'a> {
    network: &'a Network,
    next: usize,
}

impl Changes<'_> {
    fn before(&mut self, captured: &Captured) -> Vec<String> {
        let entries = &self.network.record.entries;
        // A sent packet follows the changes that caused it; a received one precedes the changes that it causes.
        let end = captured.entry.filter(|_| captured.outbound);
        let mut comments = Vec::new();
        while let Some(entry) = entries.get(self.next) {
            let due = end.map_or(entry.at() < captured.at, |end| self.next < end);
            if !due {
                break;
            }
            match entry {
                Entry::State { at, host, from, to, .. } => {
                    comments.push(format!("{at} {}: {from} > {to}", self.network.names[*host]));
                }
                Entry::Note { at, host, text, .. } => {
                    let who = host.map_or("network", |host| self.network.names[host].as_str());
                    comments.push(format!("{at} {who}: {text}"));
                }
                Entry::Segment(_) | Entry::Listening { .. } => {}
            }
            self.next += 1;
        }
        comments
    }
}

fn remarks(network: &Network, captured: &Captured) -> Vec<String> {
    if !captured.outbound {
        return if captured.note.is_empty() { Vec::new() } else { vec![captured.note.clone()] };
    }
    let Some(Entry::Segment(segment)) = captured.entry.and_then(|entry| network.record.entries.get(entry))
    else {
        return Vec::new();
    };
    let remark = |fate: &Fate| match fate {
        Fate::Lost(why) => Some(format!("lost: {why}")),
        Fate::Arrived { note, .. } => Some(note.clone()).filter(|note| !note.is_empty()),
    };
    segment.fates.iter().filter_map(remark).collect()
}

/// A block, with its length at both ends.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 12) as u32;
    let mut out = Vec::with_capacity(len as usize);
    out.extend(kind.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(body);
    out.extend(len.to_le_bytes());
    out
}

/// Pads to a multiple of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    pad(out);
}

fn end_of_options(out: &mut Vec<u8>) {
    out.extend([0; 4]);
}

fn section_header(title: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    body.extend(1u16.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend(u64::MAX.to_le_bytes());
    option(&mut body, OPTION_COMMENT, title.as_bytes());
    option(&mut body, OPTION_APPLICATION, b"steadfast lab");
    end_of_options(&mut body);
    block(SECTION_HEADER, &body)
}

fn interface(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LINKTYPE_RAW.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    option(&mut body, OPTION_NAME, name.as_bytes());
    // Nanoseconds: the exponent of ten.
    option(&mut body, OPTION_RESOLUTION, &[9]);
    end_of_options(&mut body);
    block(INTERFACE_DESCRIPTION, &body)
}

fn packet(captured: &Captured, comments: &[String]) -> Vec<u8> {
    let nanos = captured.at.as_nanos();
    let mut body = Vec::new();
    body.extend((captured.host as u32).to_le_bytes());
    body.extend(((nanos >> 32) as u32).to_le_bytes());
    body.extend((nanos as u32).to_le_bytes());
    body.extend((captured.bytes.len() as u32).to_le_bytes());
    body.extend((captured.bytes.len() as u32).to_le_bytes());
    body.extend(&captured.bytes);
    pad(&mut body);
    for comment in comments {
        option(&mut body, OPTION_COMMENT, comment.as_bytes());
    }
    // Inbound is 1, outbound 2.
    let direction: u32 = if captured.outbound { 2 } else { 1 };
    option(&mut body, OPTION_FLAGS, &direction.to_le_bytes());
    end_of_options(&mut body);
    block(ENHANCED_PACKET, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use steadfast_core::Instant;

    #[test]
    fn every_block_says_its_length_twice_and_is_a_multiple_of_four() {
        let captured = Captured {
            at: Instant::from_millis(10),
            host: 1,
            outbound: true,
            bytes: Bytes::from_static(b"12345"),
            entry: None,
            note: String::new(),
        };
        for block in [section_header("X"), interface("C2"), packet(&captured, &["odd".to_owned()])] {
            let len = block.len();
            assert_eq!(len % 4, 0);
            assert_eq!(block[4..8], (len as u32).to_le_bytes());
            assert_eq!(block[len - 4..], (len as u32).to_le_bytes());
        }
    }
}
