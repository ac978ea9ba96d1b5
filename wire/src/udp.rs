//! UDP (RFC 768).

use super::u16_at;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum in the header.
pub const CHECKSUM_AT: usize = 6;

/// A UDP header without its length, which is that of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port; 0 means that no reply is expected.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The checksum; 0 means that the sender computed none.
    pub checksum: u16,
}

/// Returns the header of a datagram and its payload. Bytes behind the length of the header are padding. `None`: the
/// header is truncated, or its length is below 8 or past the end.
pub fn parse(datagram: &[u8]) -> Option<(Header, &[u8])> {
    let fixed = datagram.first_chunk::<HEADER_LEN>()?;
    let payload = datagram.get(HEADER_LEN..usize::from(u16_at(fixed, 4)))?;
    Some((read(fixed), payload))
}

/// Returns the header and the length of the whole datagram that an ICMP error quotes.
pub fn parse_quoted(quoted: &[u8]) -> Option<(Header, u16)> {
    let fixed = quoted.first_chunk::<HEADER_LEN>()?;
    Some((read(fixed), u16_at(fixed, 4)))
}

fn read(fixed: &[u8; HEADER_LEN]) -> Header {
    Header {
        source_port: u16_at(fixed, 0),
        destination_port: u16_at(fixed, 2),
        checksum: u16_at(fixed, CHECKSUM_AT),
    }
}

impl Header {
    /// Writes [`HEADER_LEN`] bytes for a payload of `payload_len` bytes.
    ///
    /// The buffer must hold that many bytes, and both together must not exceed 65 535 bytes. Otherwise nothing is
    /// written (a debug build asserts).
    pub fn emit(&self, payload_len: usize, buffer: &mut [u8]) {
        let len = payload_len.checked_add(HEADER_LEN).and_then(|len| u16::try_from(len).ok());
        let (Some(len), Some(out)) = (len, buffer.first_chunk_mut::<HEADER_LEN>()) else {
            debug_assert!(false, "no room for a UDP header, or {payload_len} bytes of payload");
            return;
        };
        out[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        out[4..6].copy_from_slice(&len.to_be_bytes());
        out[6..8].copy_from_slice(&self.checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_are_those_of_etherparse(ports in any::<(u16, u16)>(), checksum: u16, payload: Vec<u8>) {
            let header = Header { source_port: ports.0, destination_port: ports.1, checksum };
            let mut bytes = vec![0; HEADER_LEN];
            header.emit(payload.len(), &mut bytes);
            bytes.extend(&payload);
            let (theirs, rest) = etherparse::UdpHeader::from_slice(&bytes).unwrap();
            prop_assert_eq!((theirs.source_port, theirs.destination_port, theirs.checksum), (ports.0, ports.1, checksum));
            prop_assert_eq!(usize::from(theirs.length), bytes.len());
            prop_assert_eq!(rest, &payload[..]);
            prop_assert_eq!(parse(&bytes), Some((header, &payload[..])));
            prop_assert_eq!(parse_quoted(&bytes[..8]), Some((header, bytes.len() as u16)));
        }

        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>) {
            if let Some((_, payload)) = parse(&bytes) {
                prop_assert!(payload.len() + HEADER_LEN <= bytes.len());
            }
        }
    }

    #[test]
    fn a_length_that_does_not_fit_is_refused_and_padding_is_cut_off() {
        let datagram = |len: u8| [0, 1, 0, 2, 0, len, 0, 0, b'a', b'b'];
        assert_eq!(parse(&datagram(7)), None);
        assert_eq!(parse(&datagram(8)).unwrap().1, b"");
        assert_eq!(parse(&datagram(9)).unwrap().1, b"a");
        assert_eq!(parse(&datagram(10)).unwrap().1, b"ab");
        assert_eq!(parse(&datagram(11)), None);
        assert_eq!(parse(&datagram(10)[..7]), None);
    }
}
