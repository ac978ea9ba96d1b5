//! The options at the top of a script.

use std::net::IpAddr;

use super::IpVersion;
use super::ast::ScriptOption;
use super::lex::{Parsed, Position, SyntaxError};

/// The parsed options.
#[derive(Clone, Debug)]
pub(crate) struct ScriptOptions {
    pub(crate) ip_version: Option<IpVersion>,
    pub(crate) bind_port: u16,
    pub(crate) connect_port: u16,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) remote_ip: Option<IpAddr>,
    pub(crate) mtu: Option<u16>,
    pub(crate) tolerance_usecs: u64,
    pub(crate) tolerance_percent: f64,
    /// Microseconds per tick of the stack's clock; 0: timestamps are not checked.
    pub(crate) tick_usecs: u64,
    pub(crate) strict_segments: bool,
    pub(crate) non_fatal_packets: bool,
    pub(crate) non_fatal_calls: bool,
    pub(crate) init_scripts: Vec<String>,
    /// The payload of each segment of a line that is sent to the stack; `None`: a line is one segment.
    pub(crate) mss: Option<u16>,
    /// An option asks for something that is not there: its place, and the reason.
    pub(crate) needs: Option<(Position, String)>,
}

impl Default for ScriptOptions {
    fn default() -> ScriptOptions {
        ScriptOptions {
            ip_version: None,
            bind_port: 8080,
            connect_port: 8080,
            local_ip: None,
            remote_ip: None,
            mtu: None,
            tolerance_usecs: 4000,
            tolerance_percent: 12.5,
            tick_usecs: 0,
            strict_segments: false,
            non_fatal_packets: false,
            non_fatal_calls: false,
            init_scripts: Vec::new(),
            mss: None,
            needs: None,
        }
    }
}

/// Options that apply only to a real network, or to programs that are executed.
const IGNORED: [&str; 30] = [
    "speed",
    "gateway_ip",
    "netmask_ip",
    "tcp_ts_ecr_scaled",
    "is_anyip",
    "send_omit_free",
    "define",
    "verbose",
    "debug",
    "dry_run",
    "no_cleanup",
    "persistent_tun_dev",
    "tun_dev_name",
    "wire_client",
    "wire_server",
    "wire_client_dev",
    "wire_server_dev",
    "wire_server_ip",
    "wire_server_port",
    "so_filename",
    "so_flags",
    "fm_filename",
    "fm_flags",
    "code_command",
    "code_format",
    "code_sockopt",
    "bind_address",
    "prefix_len",
    "ssh_path",
    "live_bind_ip",
];

impl ScriptOptions {
    pub(crate) fn read(given: &[ScriptOption]) -> Parsed<ScriptOptions> {
        let mut options = ScriptOptions::default();
        for option in given {
            options.set(option)?;
        }
        Ok(options)
    }

    fn set(&mut self, option: &ScriptOption) -> Parsed<()> {
        let text = option.value.as_str();
        match option.name.as_str() {
            "ip_version" => {
                self.ip_version = Some(value(option, "ipv4, ipv4-mapped-ipv6 or ipv6")?);
            }
            "bind_port" => self.bind_port = value(option, "a port")?,
            "connect_port" => self.connect_port = value(option, "a port")?,
            "local_ip" => self.local_ip = Some(value(option, "an address")?),
            "remote_ip" => self.remote_ip = Some(value(option, "an address")?),
            // DRILL-L21
            "mss" => self.mss = Some(value(option, "a number of bytes up to 65535")?).filter(|mss| *mss > 0),
            "udp_encaps" | "tcp_ao" => {
                self.needs = Some((option.at, format!("--{} is not interpreted", option.name)));
            }
            "mtu" => self.mtu = Some(value(option, "a number of bytes up to 65535")?),
            "tolerance_usecs" => {
                let plain = ScriptOption { value: text.replace('_', ""), ..option.clone() };
                self.tolerance_usecs = value(&plain, "a number of microseconds")?;
            }
            "tolerance_percent" => {
                let percent: f64 = value(option, "a percentage")?;
                if !(0.0..=10_000.0).contains(&percent) {
                    return Err(wrong(option, "a percentage"));
                }
                self.tolerance_percent = percent;
            }
            "tcp_ts_tick_usecs" => self.tick_usecs = value(option, "a number of microseconds")?,
            "strict_segments" => self.strict_segments = text.is_empty() || text == "1" || text == "true",
            "non_fatal" => {
                for part in text.split(',') {
                    match part {
                        "packet" => self.non_fatal_packets = true,
                        "syscall" => self.non_fatal_calls = true,
                        _ => return Err(wrong(option, "packet, syscall or both with a comma between")),
                    }
                }
            }
            "init_scripts" => self.init_scripts.extend(text.split(',').map(str::to_owned)),
            name if IGNORED.contains(&name) => {}
            _ => {
                return Err(SyntaxError {
                    at: option.at,
                    expected: "an option that there is, such as --ip_version or --tolerance_usecs".to_owned(),
                    found: format!("`--{}`", option.name),
                });
            }
        }
        Ok(())
    }
}

fn value<T: std::str::FromStr>(option: &ScriptOption, expected: &str) -> Parsed<T> {
    option.value.parse().map_err(|_| wrong(option, expected))
}

fn wrong(option: &ScriptOption, expected: &str) -> SyntaxError {
    SyntaxError {
        at: option.at,
        expected: format!("--{} with {expected}", option.name),
        found: format!("`{}`", option.value),
    }
}
