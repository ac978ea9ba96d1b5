//! Standard output.

use std::io::{self, Write};

use crate::failure::Failure;

/// Prints to standard output, also the beginning of a line. A closed pipe is no error.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::system("standard output", error)),
    }
}
