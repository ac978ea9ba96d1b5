//! Captures for Wireshark (draft-ietf-opsawg-pcapng). Each function returns one block of the file.

/// Block types.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Says that numbers are in little-endian order.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Option codes. The block decides what a code other than that of a comment means.
const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_FLAGS: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_APPLICATION: u16 = 4;

/// Directions in `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Bare IP packets, without a link header.
const LINKTYPE_RAW: u16 = 101;

/// A packet as one interface saw it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Nanoseconds since the epoch of the capture.
    pub nanos: u64,
    /// Index of the interface in its section.
    pub interface: u32,
    /// The interface sent it.
    pub outbound: bool,
    /// The packet, from its IP header on.
    pub bytes: &'a [u8],
    /// Length of the packet, if the capture has cut it.
    pub len: u32,
    /// Notes about it.
    pub comments: &'a [String],
}

/// Begins a section. A file may hold several in sequence.
pub fn section(title: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
    body.extend(1u16.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    // The length of the section is not known.
    body.extend(u64::MAX.to_le_bytes());
    if !title.is_empty() {
        option(&mut body, OPTION_COMMENT, title.as_bytes());
    }
    option(&mut body, OPTION_APPLICATION, b"steadfast");
    end_of_options(&mut body);
    block(SECTION_HEADER, &body)
}

/// Declares the next interface of a section: bare IP packets, times in nanoseconds.
pub fn interface(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LINKTYPE_RAW.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    // Packets are not cut off.
    body.extend(0u32.to_le_bytes());
    if !name.is_empty() {
        option(&mut body, OPTION_NAME, name.as_bytes());
    }
    // Nanoseconds: the exponent of ten.
    option(&mut body, OPTION_RESOLUTION, &[9]);
    end_of_options(&mut body);
    block(INTERFACE_DESCRIPTION, &body)
}

/// Writes a packet.
pub fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(packet.bytes.len() + 40);
    body.extend(packet.interface.to_le_bytes());
    body.extend(((packet.nanos >> 32) as u32).to_le_bytes());
    body.extend((packet.nanos as u32).to_le_bytes());
    body.extend((packet.bytes.len() as u32).to_le_bytes());
    body.extend(packet.len.max(packet.bytes.len() as u32).to_le_bytes());
    body.extend(packet.bytes);
    pad(&mut body);
    for comment in packet.comments {
        option(&mut body, OPTION_COMMENT, comment.as_bytes());
    }
    let direction = if packet.outbound { OUTBOUND } else { INBOUND };
    option(&mut body, OPTION_FLAGS, &direction.to_le_bytes());
    end_of_options(&mut body);
    block(ENHANCED_PACKET, &body)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a capture into blocks: their types, and what is between the lengths at both ends.
    fn blocks(mut rest: &[u8]) -> Vec<(u32, &[u8])> {
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(len - 4) as usize, len);
            blocks.push((word(0), &rest[8..len - 4]));
            rest = &rest[len..];
        }
        blocks
    }

    #[test]
    fn every_block_says_its_length_twice_and_is_a_multiple_of_four() {
        let comments = ["odd".to_owned()];
        let of =
            Packet { nanos: 10, interface: 1, outbound: true, bytes: b"12345", len: 5, comments: &comments };
        let file = [section("X"), interface("C2"), packet(&of)].concat();
        let kinds: Vec<u32> = blocks(&file).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET]);
    }

    #[test]
    fn a_packet_says_when_where_and_in_which_direction_it_was_seen() {
        let nanos = 7 << 32 | 9;
        let of = Packet { nanos, interface: 1, outbound: false, bytes: b"12345", len: 5, comments: &[] };
        let block = packet(&of);
        let body = blocks(&block)[0].1;
        let words: Vec<u32> =
            body[..20].chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        assert_eq!(words, [1, 7, 9, 5, 5]);
        assert_eq!(&body[20..28], b"12345\0\0\0");
        assert_eq!(body[28..], [2, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
