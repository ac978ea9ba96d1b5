//! Files in the syntax of sysctl.conf(5).

use super::{Config, ConfigError, Setting};

/// The settings in a file in the syntax of sysctl.conf(5).
///
/// Blank lines and lines that begin with `#` or `;` are ignored, and so is a `#` behind a blank with all that follows it.
/// The parts of a name are separated by `.` or `/`. Errors in a line that begins with `-` are ignored.
///
/// ```
/// use steadfast_core::config::{Config, SysctlConf};
///
/// let conf = SysctlConf::read("; of the servers\nnet/ipv4/tcp_fin_timeout = 30\nvm.swappiness = 10\n-kernel.foo = 1\n");
/// let problems: Vec<String> = conf.problems.iter().map(|problem| problem.to_string()).collect();
/// assert_eq!(problems, ["line 3: `vm.swappiness`: no such setting"]);
/// let mut config = Config::default();
/// for assignment in &conf.assignments {
///     config.apply(&assignment.to_string())?;
/// }
/// assert_eq!(config.value("tcp_fin_timeout").unwrap(), "30");
/// # Ok::<(), steadfast_core::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SysctlConf {
    /// Lines that name a known setting and a valid value, in their order. The last one of a setting counts.
    pub assignments: Vec<Assignment>,
    /// Errors in the other lines, except those that begin with `-`.
    pub problems: Vec<ConfigError>,
}

/// A line that assigns a value to a setting. It is displayed as `name = value`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Assignment {
    /// The setting.
    pub setting: &'static Setting,
    /// The value, as written in the file.
    pub value: String,
}

impl std::fmt::Display for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.setting.name, self.value)
    }
}

impl SysctlConf {
    /// Reads the text of a file.
    pub fn read(text: &str) -> SysctlConf {
        let mut conf = SysctlConf::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let (may_fail, assignment) = match line.strip_prefix('-') {
                Some(rest) => (true, rest.trim_start()),
                None => (false, line),
            };
            match read(index + 1, without_comment(assignment)) {
                Ok(assignment) => conf.assignments.push(assignment),
                Err(_) if may_fail => {}
                Err(problem) => conf.problems.push(problem),
            }
        }
        conf
    }
}

fn read(line: usize, text: &str) -> Result<Assignment, ConfigError> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(ConfigError::NotAnAssignment { line, text: text.to_owned() });
    };
    let name = with_dots(name.trim());
    let value = value.trim().to_owned();
    Config::default().apply_line(line, &format!("{name} = {value}"))?;
    let setting = Config::setting(&name).ok_or(ConfigError::UnknownName { line, name })?;
    Ok(Assignment { setting, value })
}

/// Removes a comment behind a blank, as `steadfast config` writes it.
fn without_comment(text: &str) -> &str {
    let comment = text.char_indices().find(|&(at, c)| c == '#' && text[..at].ends_with(char::is_whitespace));
    comment.map_or(text, |(at, _)| text[..at].trim_end())
}

/// The first separator in a name decides: in `net/ipv4/conf/eth0.7/mtu` the dot is part of a word.
fn with_dots(name: &str) -> String {
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SynCookies, TwReuse};

    /// Reads a text: what it assigns, and what is wrong with it.
    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let conf = SysctlConf::read(text);
        (
            conf.assignments.iter().map(Assignment::to_string).collect(),
            conf.problems.iter().map(ConfigError::to_string).collect(),
        )
    }

    #[test]
    fn comments_blanks_and_both_separators_are_read() {
        let text = "# one\n; two\n\n  \t\n  net.ipv4.tcp_fin_timeout =  30  \nnet/core/somaxconn=128\n\
                    tcp_syn_retries\t=\t2\t# a comment\nnet.ipv4.ip_local_port_range = 1024\t65000\n";
        let (assigned, problems) = read(text);
        let expected = [
            "net.ipv4.tcp_fin_timeout = 30",
            "net.core.somaxconn = 128",
            "net.ipv4.tcp_syn_retries = 2",
            "net.ipv4.ip_local_port_range = 1024\t65000",
        ];
        assert_eq!((assigned, problems), (expected.map(str::to_owned).to_vec(), Vec::new()));
    }

    #[test]
    fn each_line_that_cannot_be_applied_is_named_and_the_others_count() {
        let (assigned, problems) = read(
            "vm.swappiness = 10\ntcp_fin_timeout = 30\nnet/ipv4/conf/eth0.7/forwarding = 1\ntcp_sack = 2\nnonsense\n",
        );
        assert_eq!(assigned, ["net.ipv4.tcp_fin_timeout = 30"]);
        assert_eq!(
            problems,
            [
                "line 1: `vm.swappiness`: no such setting",
                "line 3: `net.ipv4.conf.eth0/7.forwarding`: no such setting",
                "line 4: tcp_sack: `2`: expected 0 or 1",
                "line 5: `nonsense`: expected `name = value`",
            ]
        );
    }

    #[test]
    fn a_line_with_a_minus_may_fail_without_a_word_and_counts_where_it_does_not() {
        let (assigned, problems) =
            read("-vm.swappiness = 10\n- tcp_sack = 2\n-tcp_sack = 0\n-net.ipv4.conf.all.rp_filter\n");
        assert_eq!((assigned, problems), (vec!["net.ipv4.tcp_sack = 0".to_owned()], Vec::new()));
    }

    /// `steadfast config` writes such a file.
    #[test]
    fn the_text_form_of_a_config_is_such_a_file() {
        let written = Config::profile(crate::config::Profile::Bsd);
        let conf = SysctlConf::read(&written.to_string());
        assert!(conf.problems.is_empty(), "{:?}", conf.problems);
        let mut config = Config::default();
        conf.assignments.iter().for_each(|assignment| config.apply(&assignment.to_string()).unwrap());
        assert_eq!(config, written);
    }

    /// Operators are told to set these against connections in TIME-WAIT that pile up.
    #[test]
    fn the_settings_that_operators_are_told_to_set_are_known() {
        let text = "net.ipv4.tcp_syn_retries = 2\nnet.ipv4.tcp_synack_retries = 2\nnet.ipv4.tcp_keepalive_time = 1200\n\
                    net.ipv4.tcp_orphan_retries = 3\nnet.ipv4.tcp_fin_timeout = 30\nnet.ipv4.tcp_max_syn_backlog = 4096\n\
                    net.ipv4.tcp_syncookies = 1\nnet.ipv4.tcp_tw_reuse = 1\nnet.ipv4.tcp_tw_recycle = 1\n\
                    net.ipv4.tcp_keepalive_probes = 5\nnet.core.netdev_max_backlog = 3000\n";
        let conf = SysctlConf::read(text);
        assert!(conf.problems.is_empty(), "{:?}", conf.problems);
        let mut config = Config::default();
        conf.assignments.iter().for_each(|assignment| config.apply(&assignment.to_string()).unwrap());
        let expected = Config {
            tcp_syn_retries: 2,
            tcp_synack_retries: 2,
            tcp_keepalive_time: std::time::Duration::from_secs(1200),
            tcp_orphan_retries: 3,
            tcp_fin_timeout: std::time::Duration::from_secs(30),
            tcp_max_syn_backlog: 4096,
            tcp_syncookies: SynCookies::WhenFull,
            tcp_tw_reuse: TwReuse::Always,
            tcp_tw_recycle: true,
            tcp_keepalive_probes: 5,
            netdev_max_backlog: 3000,
            ..Config::default()
        };
        assert_eq!(config, expected);
    }
}
