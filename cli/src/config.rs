//! `steadfast config`: the table of settings.

use clap::Args;
use steadfast::Config;

use crate::failure::Failure;
use crate::output::say;
use crate::settings::SettingOptions;

/// Print the settings.
#[derive(Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    settings: SettingOptions,
}

impl Settings {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        say(&table(&self.settings.config()?))
    }
}

/// Formats one line per setting. The part before `#` is valid input for the settings.
fn table(config: &Config) -> String {
    let assignments: Vec<_> =
        Config::settings().iter().map(|s| format!("{} = {}", s.name, s.value(config))).collect();
    let width = assignments.iter().map(|a| a.chars().count()).max().unwrap_or(0);
    let lines = Config::settings().iter().zip(assignments).map(|(setting, assignment)| {
        let unit = if setting.unit.is_empty() { String::new() } else { format!(" [{}]", setting.unit) };
        format!("{assignment:width$}  # {}{unit}\n", setting.doc.trim())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use steadfast::Profile;

    use super::*;

    #[test]
    fn the_table_reads_back_as_the_settings_it_shows() {
        let shown = Config::profile(Profile::Bsd);
        let mut read = Config::default();
        read.apply(&table(&shown)).unwrap();
        assert_eq!(read, shown);
    }
}
