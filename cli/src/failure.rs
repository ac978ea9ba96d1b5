//! The reason why a command failed, in one line, and its exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use steadfast::stack::Error;

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A connection failed: exit status 1.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Connection(String),
    /// Scenarios or scripts failed: exit status 1.
    Failed {
        /// Their number.
        failed: usize,
        /// The number of all that ran.
        of: usize,
        /// The noun, in the plural.
        what: &'static str,
    },
    /// The command line is wrong: exit status 2.
    Usage(String),
    /// The system refused: exit status 2.
    System(String),
}

impl Failure {
    /// A connection failed while we did `what`.
    #[cfg(target_os = "linux")]
    pub(crate) fn connection(what: impl fmt::Display, error: io::Error) -> Failure {
        Failure::Connection(format!("{what}: {}", describe(&error)))
    }

    /// The system refused `what`.
    pub(crate) fn system(what: impl fmt::Display, error: io::Error) -> Failure {
        Failure::System(format!("{what}: {}", describe(&error)))
    }

    /// The command line is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::Usage(text.into())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Connection(_) | Failure::Failed { .. } => ExitCode::from(1),
            Failure::Usage(_) | Failure::System(_) => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connection(text) | Failure::Usage(text) | Failure::System(text) => f.write_str(text),
            Failure::Failed { failed, of, what } => write!(f, "{failed} of {of} {what} failed"),
        }
    }
}

/// Describes an error, with its POSIX name if it is one of the stack's: `connection refused (ECONNREFUSED)`.
pub(crate) fn describe(error: &io::Error) -> String {
    // A file descriptor that is not open is no socket of the stack.
    let named = error.raw_os_error().and_then(Error::from_errno).filter(|e| *e != Error::NoSuchSocket);
    match named {
        Some(named) => format!("{named} ({})", named.name()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_stack_is_shown_with_its_posix_name() {
        let error = io::Error::from_raw_os_error(Error::ConnectionRefused.errno());
        assert_eq!(describe(&error), "connection refused (ECONNREFUSED)");
        assert_eq!(describe(&io::Error::other("odd")), "odd");
    }
}
