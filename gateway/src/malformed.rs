//! The error of text that cannot be read.

use std::fmt;

/// A rule, a forward or a proxy that cannot be read. It says where the text is wrong, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    text: String,
    expected: String,
}

impl Malformed {
    pub(crate) fn new(text: &str, expected: impl Into<String>) -> Malformed {
        Malformed { text: text.to_owned(), expected: expected.into() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: expected {}", self.text, self.expected)
    }
}

impl std::error::Error for Malformed {}
