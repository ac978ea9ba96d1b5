//! Reads captures: pcap, pcapng, and both under gzip.
//!
//! A [`Reader`] takes bytes from any [`Read`](std::io::Read) and returns [`Record`]s. [`link::ip`] finds the IP packet
//! in a record. Nothing is allocated by a length that the file declares. A damaged record is reported with its offset,
//! and reading goes on at the next plausible one.
//!
//! ```
//! use steadfast_capture::{Reader, link};
//!
//! let file: &[u8] = &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
//! let mut reader = Reader::new(file).unwrap();
//! while let Some(record) = reader.next().unwrap() {
//!     let _ = link::ip(record.link, record.data);
//! }
//! assert!(reader.damage().is_empty());
//! ```
#![forbid(unsafe_code)]

mod bytes;
mod damage;
pub mod link;
mod options;
mod pcap;
mod pcapng;
mod reader;
mod record;
mod tunnel;
mod window;

pub use damage::{Damage, Error, Problem};
pub use reader::Reader;
pub use record::{Direction, Format, Interface, Record};

/// Limit of one record's captured bytes, unless the interface declares a larger snapshot length.
pub const RECORD_LIMIT: u32 = (256 + 64) * 1024;
/// Limit of one record or block, whatever the file declares.
pub const HARD_LIMIT: u32 = 16 * 1024 * 1024;
/// Limit of the bytes that are searched for the next plausible record.
pub const SEARCH_LIMIT: usize = 1024 * 1024;
/// Limit of the interfaces of one section.
pub const INTERFACE_LIMIT: usize = 65_536;
/// Limit of the addresses whose names are kept.
pub const NAMES_LIMIT: usize = 4096;
/// Limit of the problems that are kept in full. Further ones are counted.
pub const PROBLEM_LIMIT: usize = 64;

#[cfg(test)]
mod tests;
