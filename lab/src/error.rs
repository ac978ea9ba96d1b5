//! Why a scenario cannot be run.

use steadfast_core::config::ConfigError;

/// Why a scenario cannot be run with these options.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A fault of the options names a host that the scenario does not have.
    #[error("`{fault}`: {scenario} has the hosts {}, not `{unknown}`", .hosts.join(", "))]
    UnknownHost {
        /// The fault.
        fault: String,
        /// The id of the scenario.
        scenario: String,
        /// Its hosts.
        hosts: Vec<String>,
        /// The host that the fault names.
        unknown: String,
    },
    /// The scenario does not have the host that the foreign TCP is to play.
    #[error("{scenario} has no host `{host}`")]
    NoHost {
        /// The id of the scenario.
        scenario: String,
        /// The host.
        host: String,
    },
    /// A setting does not exist, or its value does not fit.
    #[error("{}", .0.message())]
    Setting(#[from] ConfigError),
    /// The foreign TCP cannot be started.
    #[error("{0}")]
    Foreign(String),
}
