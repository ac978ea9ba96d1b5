//! Standard output.

use std::io::{self, Write};

use crate::failure::Failure;

/// Prints to standard output. A closed pipe is no error.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::system("standard output", error)),
    }
}
