//! `steadfast sysctl`: the settings of a running network.

use clap::Args;
use serde_json::json;

use super::Whom;
use super::nstat::glob;
use crate::failure::Failure;
use crate::output::say;

/// Print or change the settings of a running network.
#[derive(Args)]
pub(crate) struct Sysctl {
    /// Print all settings.
    #[arg(short, long)]
    all: bool,
    /// Change settings. Needs a network with --control-write. Connections keep what was decided before.
    #[arg(short, long)]
    write: bool,
    #[command(flatten)]
    whom: Whom,
    /// Names, also in part; with -w: `name=value`.
    #[arg(value_name = "NAME[=VALUE]", required_unless_present = "all")]
    names: Vec<String>,
}

impl Sysctl {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut network = self.whom.connect()?;
        if self.write {
            if let Some(wrong) = self.names.iter().find(|name| !name.contains('=')) {
                return Err(Failure::usage(format!("-w {wrong}: expected name=value")));
            }
            for setting in &self.names {
                network.each(&json!({"do": "set", "setting": setting}), |_| Ok(()))?;
            }
        }
        let wanted: Vec<&str> =
            self.names.iter().map(|name| name.split('=').next().unwrap_or(name).trim()).collect();
        let mut out = String::new();
        let mut found = vec![false; wanted.len()];
        network.each(&json!({"do": "config"}), |row| {
            let (name, value) =
                (row["name"].as_str().unwrap_or_default(), row["value"].as_str().unwrap_or_default());
            let short = name.rsplit('.').next().unwrap_or(name);
            let mut named = self.all;
            for (wanted, found) in wanted.iter().zip(&mut found) {
                if *wanted == name || *wanted == short || wanted.contains('*') && glob(wanted, name) {
                    (*found, named) = (true, true);
                }
            }
            if named {
                out.push_str(&format!("{name} = {value}\n"));
            }
            Ok(())
        })?;
        if let Some((unknown, _)) = wanted.iter().zip(&found).find(|(_, found)| !**found) {
            return Err(Failure::usage(format!("`{unknown}`: no such setting; `sysctl -a` prints all")));
        }
        say(&out)
    }
}
