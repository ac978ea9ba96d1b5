//! Numbers in the byte order of a file.

/// The byte order of a file or of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    /// Returns the number at `at`, or 0 past the end.
    pub(crate) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(
            0,
            |b| if self == Order::Little { u16::from_le_bytes(*b) } else { u16::from_be_bytes(*b) },
        )
    }

    /// Returns the number at `at`, or 0 past the end.
    pub(crate) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(
            0,
            |b| if self == Order::Little { u32::from_le_bytes(*b) } else { u32::from_be_bytes(*b) },
        )
    }

    /// Returns the number at `at`, or 0 past the end.
    pub(crate) fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(
            0,
            |b| if self == Order::Little { u64::from_le_bytes(*b) } else { u64::from_be_bytes(*b) },
        )
    }
}
