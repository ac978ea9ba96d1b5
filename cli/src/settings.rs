//! The options that change settings, shared by all commands.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use steadfast::stack::config::{Assignment, SysctlConf};
use steadfast::{Config, Profile};

use crate::failure::Failure;

/// Settings on top of a profile.
#[derive(Args, Default)]
pub(crate) struct Sysctls {
    /// Change one setting: tcp_syn_retries=3. May be repeated; `steadfast config` lists them.
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    sysctls: Vec<String>,
    /// Read settings from a file in the syntax of sysctl.conf(5). May be repeated; `--sysctl` comes on top. Lines that
    /// cannot be applied are reported and left out.
    #[arg(long = "sysctl-file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Refuse a `--sysctl-file` with a line that cannot be applied, and apply nothing.
    #[arg(long, requires = "files")]
    strict: bool,
}

impl Sysctls {
    /// Returns all changes in their order, each as `name = value`. Reports the lines of files that are left out.
    pub(crate) fn assignments(&self) -> Result<Vec<String>, Failure> {
        let mut all = Vec::new();
        let mut problems = Vec::new();
        for file in &self.files {
            let conf = read(file)?;
            all.extend(conf.assignments.iter().map(Assignment::to_string));
            let place = |problem: &steadfast::stack::config::ConfigError| match problem.line() {
                Some(line) => format!("{}:{line}: {}", file.display(), problem.message()),
                None => format!("{}: {}", file.display(), problem.message()),
            };
            problems.extend(conf.problems.iter().map(place));
        }
        if self.strict && !problems.is_empty() {
            return Err(Failure::usage(problems.join("\n")));
        }
        problems.iter().for_each(|problem| eprintln!("steadfast: {problem}; left out"));
        for sysctl in &self.sysctls {
            let applied = Config::default().apply(sysctl);
            applied.map_err(|e| Failure::usage(format!("--sysctl '{sysctl}': {}", e.message())))?;
        }
        all.extend(self.sysctls.iter().cloned());
        Ok(all)
    }
}

fn read(file: &Path) -> Result<SysctlConf, Failure> {
    let failed = |e| Failure::system(format_args!("--sysctl-file {}", file.display()), e);
    // Comments may be in any encoding.
    let bytes = fs::read(file).map_err(failed)?;
    Ok(SysctlConf::read(&String::from_utf8_lossy(&bytes)))
}

/// Profile and settings.
#[derive(Args)]
pub(crate) struct SettingOptions {
    /// Values of the settings: default, linux, bsd, rfc or freebsd.
    #[arg(long, default_value_t = Profile::Default)]
    profile: Profile,
    #[command(flatten)]
    sysctls: Sysctls,
}

impl SettingOptions {
    /// The resulting settings.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::profile(self.profile);
        for assignment in self.sysctls.assignments()? {
            config.apply(&assignment).map_err(|e| Failure::usage(e.message()))?;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_setting_says_what_was_expected() {
        let options = |s: &str| SettingOptions {
            profile: Profile::Linux,
            sysctls: Sysctls { sysctls: vec![s.to_owned()], ..Sysctls::default() },
        };
        assert_eq!(options("tcp_syn_retries=2").config().unwrap().tcp_syn_retries, 2);
        assert_eq!(
            options("tcp_retries2=many").config().unwrap_err().to_string(),
            "--sysctl 'tcp_retries2=many': tcp_retries2: `many`: expected a number from 1 to 255"
        );
    }
}
