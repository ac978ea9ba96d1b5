//! Reasons why a file, or a part of it, cannot be read.

use std::fmt;
use std::io;

use crate::PROBLEM_LIMIT;

/// The file is not a readable capture.
#[derive(Debug)]
pub enum Error {
    /// The source failed.
    Io(io::Error),
    /// The file has no bytes.
    Empty,
    /// The file begins with neither magic.
    NotACapture {
        /// The first bytes.
        first: Vec<u8>,
    },
    /// The file ends within its header.
    Short {
        /// Bytes present.
        present: usize,
        /// Bytes of the header.
        expected: usize,
    },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "{error}"),
            Error::Empty => f.write_str("empty: expected a pcap or pcapng header at offset 0"),
            Error::NotACapture { first } => {
                f.write_str("not a capture: offset 0 has")?;
                first.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
                f.write_str(", expected the magic of pcap (a1b2c3d4), pcapng (0a0d0d0a) or gzip (1f8b)")
            }
            Error::Short { present, expected } => {
                write!(f, "cut short: the header has {present} bytes, expected {expected}")
            }
        }
    }
}

impl std::error::Error for Error {}

/// A part of the file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Offset in the file, in the unpacked bytes of a gzip file.
    pub offset: u64,
    /// The fault there, and what was expected.
    pub text: String,
    /// Bytes that were passed over.
    pub skipped: u64,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: {}", self.offset, self.text)?;
        if self.skipped > 0 {
            write!(f, "; {} bytes passed over", self.skipped)?;
        }
        Ok(())
    }
}

/// The parts of a file that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// The first problems, at most [`PROBLEM_LIMIT`].
    pub problems: Vec<Problem>,
    /// Number of problems.
    pub count: u64,
}

impl Damage {
    /// Returns whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn add(&mut self, offset: u64, skipped: u64, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.problems.len() < PROBLEM_LIMIT {
            self.problems.push(Problem { offset, text: text(), skipped });
        }
    }
}
