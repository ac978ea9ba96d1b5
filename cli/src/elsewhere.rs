//! Commands and options that need Linux, on other systems: each says so in one line.
#![cfg_attr(target_os = "linux", allow(dead_code))]

use clap::Args;

use crate::failure::Failure;

/// Accepts any arguments of `serve` and `connect`.
#[derive(Args)]
pub(crate) struct Needless {
    /// Not read: this command needs Linux.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<String>,
}

impl Needless {
    /// Fails with one line that names the requirements of the command.
    pub(crate) fn run(&self, command: &str) -> Result<(), Failure> {
        Err(Failure::usage(format!(
            "`{command}` needs Linux and its TUN devices; `lab`, `drill` and `config` run everywhere"
        )))
    }
}

/// Stands in for the crate `steadfast-kernel`.
pub(crate) mod kernel {
    use std::fmt;

    /// The kernel cannot be the peer.
    #[derive(Debug)]
    pub(crate) struct Error;

    impl fmt::Display for Error {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("this is another system")
        }
    }

    pub(crate) fn check() -> Result<(), Error> {
        Err(Error)
    }

    pub(crate) mod scenario {
        use steadfast_lab::{Report, RunOptions, Scenario};

        pub(crate) fn play(_: &Scenario, _: &str, _: &RunOptions) -> Result<Report, super::Error> {
            Err(super::Error)
        }
    }

    pub(crate) mod script {
        use steadfast_drill::subject::{Addresses, Subject};
        use steadfast_drill::{Drill, DrillOptions, Outcome};

        pub(crate) fn with_kernel<T>(
            _: &Addresses,
            _: impl FnOnce(&mut dyn Subject) -> T,
        ) -> Result<T, super::Error> {
            Err(super::Error)
        }

        pub(crate) fn play(_: &Drill, _: &DrillOptions<'_>) -> Result<Outcome, super::Error> {
            Err(super::Error)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        needless: Needless,
    }

    #[test]
    fn whatever_it_is_given_one_line_says_what_a_command_needs() {
        for arguments in
            ["serve http --tun sf0 --host 10.9.0.1/24 --address 10.9.0.2", "serve", "serve -v echo"]
        {
            let command =
                Command::try_parse_from(arguments.split(' ')).unwrap_or_else(|e| panic!("{arguments}: {e}"));
            assert_eq!(
                command.needless.run("serve").unwrap_err().to_string(),
                "`serve` needs Linux and its TUN devices; `lab`, `drill` and `config` run everywhere"
            );
        }
        assert_eq!(kernel::check().unwrap_err().to_string().lines().count(), 1);
    }
}
