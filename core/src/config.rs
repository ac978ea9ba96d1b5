//! Every timer, limit and switch, in one table.
//!
//! A setting has the name of its Linux sysctl if one exists (`net.ipv4.tcp_syn_retries`); other names begin with
//! `steadfast.`. Each has a unit, a source and a value in each of the four profiles. A [`Config`] reads and writes the
//! text format of `sysctl`. The doc of a memory bound gives the size of one entry. In addition, a stack keeps a page of
//! 64 KiB for each of its tables.
//!
//! ```
//! use steadfast_core::config::{Config, Profile};
//!
//! let mut config = Config::profile(Profile::Linux);
//! config.apply("net.ipv4.tcp_syn_retries = 2\n# a comment\ntcp_syncookies=2\n")?;
//! assert_eq!(config.tcp_syn_retries, 2);
//! assert_eq!(config.value("tcp_syncookies").unwrap(), "2");
//! assert!(config.to_string().contains("net.ipv4.tcp_syn_retries = 2"));
//!
//! let error = config.apply("tcp_retries2 = many").unwrap_err();
//! assert_eq!(error.to_string(), "line 1: tcp_retries2: `many`: expected a number from 1 to 255");
//! # Ok::<(), steadfast_core::config::ConfigError>(())
//! ```

mod kinds;
mod modes;
mod profile;
mod refuse;
mod sysctl_conf;

use std::fmt;
use std::time::Duration;

use self::kinds::Kind;
pub use self::kinds::{CongestionControl, FastOpenKeys, PortRange};
pub use self::modes::{EcnMode, FastOpenMode, MtuProbing, SynCookies, TwReuse};
pub use self::profile::Profile;
pub use self::refuse::{Refusal, Refusals, RefuseWith};
pub use self::sysctl_conf::{Assignment, SysctlConf};
use crate::wire::tcp::OptionLayout;
use thiserror::Error;

/// Why a text could not be applied to a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No setting has this name.
    #[error("line {line}: `{name}`: no such setting{}", suggestion(.name))]
    UnknownName {
        /// Line of the text, from 1.
        line: usize,
        /// The given name.
        name: String,
    },
    /// The line is not `name = value`.
    #[error("line {line}: `{text}`: expected `name = value`")]
    NotAnAssignment {
        /// Line of the text, from 1.
        line: usize,
        /// The given line.
        text: String,
    },
    /// A field holds a value that the text format does not allow.
    #[error("{name}: `{value}`: expected {expected}")]
    OutOfRange {
        /// The setting.
        name: String,
        /// The current value.
        value: String,
        /// The allowed values.
        expected: String,
    },
    /// The value is not allowed for the setting.
    #[error("line {line}: {name}: `{value}`: expected {expected}")]
    BadValue {
        /// Line of the text, from 1.
        line: usize,
        /// The setting.
        name: String,
        /// The given value.
        value: String,
        /// The allowed values.
        expected: String,
    },
}

impl ConfigError {
    /// The line of the text, from 1; `None`: it is about a field.
    pub fn line(&self) -> Option<usize> {
        match self {
            ConfigError::UnknownName { line, .. }
            | ConfigError::NotAnAssignment { line, .. }
            | ConfigError::BadValue { line, .. } => Some(*line),
            ConfigError::OutOfRange { .. } => None,
        }
    }

    /// The error without the number of the line.
    pub fn message(&self) -> String {
        let text = self.to_string();
        let line = self.line().map(|line| format!("line {line}: "));
        line.and_then(|line| text.strip_prefix(&line).map(str::to_owned)).unwrap_or(text)
    }
}

fn suggestion(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let stem: String = last.chars().take(last.len().min(8)).collect();
    let near: Vec<_> = Config::settings().iter().filter(|s| s.short_name().starts_with(&stem)).collect();
    match near.as_slice() {
        [] => String::new(),
        near => {
            let names: Vec<_> = near.iter().take(3).map(|s| s.short_name()).collect();
            format!(" (near it: {})", names.join(", "))
        }
    }
}

/// One row of the table: name, meaning and access to the value.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Full name: `net.ipv4.tcp_syn_retries`.
    pub name: &'static str,
    /// The unit of the value: `s`, `ms`, `bytes`, or empty for a plain number.
    pub unit: &'static str,
    /// The description.
    pub doc: &'static str,
    /// The standard, kernel or decision behind it.
    pub source: &'static str,
    read: fn(&Config) -> String,
    write: fn(&mut Config, &str) -> Result<(), String>,
    check: fn(&Config) -> Result<(), String>,
}

impl Setting {
    /// Returns the last part of the name, which also identifies the setting: `tcp_syn_retries`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// Returns the value in `config`, as text.
    pub fn value(&self, config: &Config) -> String {
        (self.read)(config)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Config {
    /// Returns the setting with this `name`, in full or its last part.
    pub fn setting(name: &str) -> Option<&'static Setting> {
        // Its former name here.
        let name = if name == "steadfast.tcp_tw_recycle" { "tcp_tw_recycle" } else { name };
        Config::settings().iter().find(|s| s.name == name || s.short_name() == name)
    }

    /// Returns the value of the setting with this `name`, as text.
    pub fn value(&self, name: &str) -> Option<String> {
        Config::setting(name).map(|s| s.value(self))
    }

    /// Applies lines of `name = value`; `#` starts a comment. Either the whole text takes effect or nothing does.
    ///
    /// # Errors
    ///
    /// The first line that has an unknown name, or a value out of its bounds: the error names both, and the values
    /// that are allowed.
    pub fn apply(&mut self, text: &str) -> Result<(), ConfigError> {
        let mut changed = self.clone();
        for (index, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or("").trim();
            if !content.is_empty() {
                changed.apply_line(index + 1, content)?;
            }
        }
        *self = changed;
        Ok(())
    }

    /// Checks that every setting has a value that its text format allows. Fields can be set to anything, but a stack
    /// accepts only a valid configuration.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its bounds: the error names it, its value, and the values that are allowed.
    ///
    /// ```
    /// use steadfast_core::Config;
    ///
    /// let config = Config { tcp_reordering: 0, ..Config::default() };
    /// let error = config.validate().unwrap_err();
    /// assert_eq!(error.to_string(), "tcp_reordering: `0`: expected a number from 1 to 127");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        for setting in Config::settings() {
            (setting.check)(self).map_err(|expected| ConfigError::OutOfRange {
                name: setting.short_name().to_owned(),
                value: setting.value(self),
                expected,
            })?;
        }
        Ok(())
    }

    /// For callers that cannot return an error.
    pub(crate) fn expect_valid(&self) {
        if let Err(error) = self.validate() {
            panic!("{error}");
        }
    }

    fn apply_line(&mut self, line: usize, content: &str) -> Result<(), ConfigError> {
        let Some((name, value)) = content.split_once('=') else {
            return Err(ConfigError::NotAnAssignment { line, text: content.to_owned() });
        };
        let (name, value) = (name.trim(), value.trim());
        let Some(setting) = Config::setting(name) else {
            return Err(ConfigError::UnknownName { line, name: name.to_owned() });
        };
        (setting.write)(self, value).map_err(|expected| ConfigError::BadValue {
            line,
            name: name.to_owned(),
            value: value.to_owned(),
            expected,
        })
    }
}

impl Config {
    /// The values of FreeBSD that differ from Linux (its `tcp_timer.h` and sysctl defaults).
    fn into_freebsd(self) -> Config {
        Config {
            tcp_bsd_rules: true,
            tcp_syn_retries: 12,
            tcp_syn_linear_timeouts: 0,
            tcp_syn_timeout: secs(75),
            tcp_synack_retries: 3,
            somaxconn: 128,
            tcp_option_layout: OptionLayout::FreeBsd,
            tcp_tolerate_missing_ts: false,
            tcp_rcvbuf: 65_536,
            tcp_rcvbuf_max: 2 << 20,
            tcp_sndbuf: 32_768,
            tcp_min_snd_mss: 216,
            tcp_rto_min: millis(30),
            tcp_rto_slop: millis(200),
            tcp_rto_max: secs(64),
            tcp_retries2: 12,
            tcp_early_retrans: 0,
            tcp_frto: 0,
            tcp_delack: millis(40),
            tcp_quickack: 0,
            tcp_invalid_ratelimit: millis(0),
            tcp_always_keepalive: true,
            tcp_drop_synfin: false,
            tcp_tw_syn: 1,
            tcp_fastopen: FastOpenMode::OFF,
            tcp_fastopen_path_disable: secs(900),
            min_pmtu: 296,
            tcp_keepalive_probes: 8,
            tcp_rst_limit: 200,
            tcp_rfc1337: true,
            tcp_gso_quanta: false,
            tcp_abc_limit: 8,
            tcp_shut_rd_keeps: false,
            tcp_tw_reuse: TwReuse::Never,
            netdev_max_backlog: 256,
            ip_local_port_range: PortRange::known(10_000, 65_535),
            ..self
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::profile(Profile::Default)
    }
}

impl fmt::Display for Config {
    /// Writes one line for each setting. [`Config::apply`] reads them back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Config::settings().iter().try_for_each(|s| writeln!(f, "{} = {}", s.name, s.value(self)))
    }
}

macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:literal $field:ident: $ty:ty as $kind:expr,
        [$default:expr, $linux:expr, $bsd:expr, $rfc:expr], $source:literal; )+) => {
        /// Every timer, limit and switch of a [`Stack`](crate::Stack). See the [module](self) for the text format.
        ///
        /// ```
        /// use steadfast_core::config::{Config, EcnMode, Profile};
        ///
        /// let config = Config { tcp_ecn: EcnMode::On, ..Config::profile(Profile::Linux) };
        /// assert_eq!(config.validate(), Ok(()));
        /// assert_eq!(config.value("net.ipv4.tcp_ecn").as_deref(), Some("1"));
        /// ```
        #[derive(Clone, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $doc])+ #[doc = concat!("\n\n`", $name, "`. Source: ", $source, ".")] pub $field: $ty, )+
            /// The source of all randomness: ISS, cookies, hash keys, ports, jitter (RFC 6528). It must come from the
            /// system's entropy, and two stacks on a real network must never share it. It has no text format.
            pub secret: [u8; 32],
        }

        impl Config {
            /// Returns the values of a profile, with an all-zero secret.
            pub fn profile(profile: Profile) -> Config {
                let config = Config {
                    $( $field: match profile {
                        Profile::Default => $default,
                        Profile::Linux | Profile::FreeBsd => $linux,
                        Profile::Bsd => $bsd,
                        Profile::Rfc => $rfc,
                    }, )+
                    secret: [0; 32],
                };
                if profile == Profile::FreeBsd { config.into_freebsd() } else { config }
            }

            /// Returns the whole table, in its order.
            pub fn settings() -> &'static [Setting] {
                const SETTINGS: &[Setting] = &[ $( Setting {
                    name: $name,
                    unit: $kind.unit(),
                    doc: concat!($($doc),+),
                    source: $source,
                    read: |config| $kind.show(&config.$field),
                    write: |config, text| { config.$field = $kind.parse(text)?; Ok(()) },
                    check: |config| $kind.check(&config.$field),
                }, )+ ];
                SETTINGS
            }
        }

        impl fmt::Debug for Config {
            /// Omits the secret.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct("Config") $( .field(stringify!($field), &self.$field) )+ .finish_non_exhaustive()
            }
        }
    };
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

settings! {
    // Connection setup.

    /// Retransmissions of a SYN after the linear ones; each waits twice as long as the one before.
    // MUST-23
    "net.ipv4.tcp_syn_retries" tcp_syn_retries: u8 as kinds::Count(1, 127), [7, 6, 2, 7], "RFC 9293 §3.8.3; Linux";
    /// Retransmissions of a SYN at intervals of the initial RTO, before back-off starts; 0: none.
    "net.ipv4.tcp_syn_linear_timeouts" tcp_syn_linear_timeouts: u8 as kinds::Count(0, 127), [4, 4, 0, 0], "Linux 6.5";
    /// Fixed intervals between SYNs (the coarse timer of 4.4BSD); empty: computed from the RTO.
    "steadfast.tcp_syn_intervals" tcp_syn_intervals: Vec<Duration> as kinds::MillisList,
        [vec![], vec![], vec![millis(5_800), millis(24_000), millis(48_000)], vec![]], "Stevens, TCP/IP Illustrated";
    /// Longest duration of a connect, from its first SYN; 0: limited only by the number of retransmissions.
    // MUST-23
    "steadfast.tcp_syn_timeout" tcp_syn_timeout: Duration as kinds::Secs(0, 86_400),
        [secs(195), secs(0), secs(75), secs(0)], "RFC 9293 §3.8.3; BSD keepinit";
    /// Send only the MSS option from the third retransmission of a SYN on.
    "steadfast.tcp_rexmit_drop_options" tcp_rexmit_drop_options: bool as kinds::Switch, [false, false, false, false], "FreeBSD rexmit_drop_options";
    /// Most retransmissions of a SYN-ACK; 0: none.
    "net.ipv4.tcp_synack_retries" tcp_synack_retries: u8 as kinds::Count(0, 127), [5, 5, 3, 7], "Linux";
    /// Longest life of a half-open connection, from its SYN; 0: limited only by the number of retransmissions.
    "steadfast.tcp_synack_timeout" tcp_synack_timeout: Duration as kinds::Secs(0, 86_400),
        [secs(0), secs(0), secs(75), secs(0)], "BSD keepinit";
    /// Send a RST when a half-open connection times out.
    "steadfast.synack_timeout_rst" synack_timeout_rst: bool as kinds::Switch, [false, false, false, false], "scenario H3c";
    /// Most half-open connections of one listener; above it SYNs are answered with cookies or dropped.
    "net.ipv4.tcp_max_syn_backlog" tcp_max_syn_backlog: u32 as kinds::Number(1, 1 << 20), [2048, 2048, 1024, 128], "Linux; RFC 4987";
    /// Most half-open connections of the whole stack. As many again may replace TIME-WAITs. Each takes 100 bytes,
    /// including its timer and its place in the flow table.
    // THREAT-1
    "steadfast.tcp_max_half_open" tcp_max_half_open: u32 as kinds::Number(1, 1 << 24), [65_536, 65_536, 15_360, 65_536], "invariant 1";
    /// Largest backlog that a listener can request. A connection in it takes the memory of any connection, see
    /// `tcp_max_connections`.
    "net.core.somaxconn" somaxconn: u32 as kinds::Number(1, 1 << 20), [4096, 4096, 128, 128], "Linux";
    /// SYN cookies: 0 never, 1 when the half-open table is full, 2 always. With 1, the table counts as full above a
    /// random share of at least half, drawn for each SYN.
    "net.ipv4.tcp_syncookies" tcp_syncookies: SynCookies as kinds::Mode,
        [SynCookies::WhenFull, SynCookies::WhenFull, SynCookies::WhenFull, SynCookies::Never], "RFC 4987; Linux";
    /// Most used cookies that are remembered until they expire, so that none becomes a second connection; above it one
    /// may; 0: none. Each takes 24 bytes.
    // THREAT-6
    "steadfast.tcp_max_spent_cookies" tcp_max_spent_cookies: u32 as kinds::Number(0, 1 << 24), [262_144, 262_144, 262_144, 262_144], "invariant 1";
    /// SYN-ACK retransmissions per second to one destination prefix (IPv4 /24, IPv6 /64); 0: no limit.
    // THREAT-3
    "steadfast.tcp_synack_ratelimit" tcp_synack_ratelimit: u32 as kinds::Number(0, 1 << 20), [200, 0, 0, 200], "SYN-ACKs reflect";
    /// Answer with RST instead of silence when the accept queue is full.
    "net.ipv4.tcp_abort_on_overflow" tcp_abort_on_overflow: bool as kinds::Switch, [false, false, false, false], "Linux";
    /// Fast Open, bits: 1 client, 2 server, 0x4 client without a cookie, 0x200 server without a cookie, 0x400 all
    /// listeners.
    "net.ipv4.tcp_fastopen" tcp_fastopen: FastOpenMode as modes::Bits,
        [FastOpenMode::OFF, FastOpenMode::CLIENT, FastOpenMode::OFF, FastOpenMode::OFF], "RFC 7413; Linux";
    /// Keys of Fast Open cookies, the first for new ones; empty: they come from the secret.
    // DRILL-X31
    "net.ipv4.tcp_fastopen_key" tcp_fastopen_key: Option<FastOpenKeys> as kinds::Keys,
        [None, None, None, None], "RFC 7413 §4.1.2; Linux";
    /// Most Fast Open connections of one listener with an incomplete handshake; above it the ordinary handshake is
    /// used; 0: always. Each takes the memory of any connection, see `tcp_max_connections`.
    // 7413-2
    "steadfast.tcp_fastopen_pending" tcp_fastopen_pending: u32 as kinds::Number(0, 1 << 20), [256, 256, 256, 256], "RFC 7413 §5.1";
    /// Lifetime of a key for Fast Open cookies; a cookie is valid for one to two lifetimes; 0: unlimited.
    "steadfast.tcp_fastopen_key_life" tcp_fastopen_key_life: Duration as kinds::Secs(0, 31_536_000), [secs(43_200), secs(0), secs(43_200), secs(43_200)], "RFC 7413 §4.1.2";
    /// Most servers whose Fast Open cookie is remembered; 0: none. Each takes 160 bytes.
    "steadfast.tcp_fastopen_cache" tcp_fastopen_cache: u32 as kinds::Number(0, 1 << 20), [1024, 1024, 1024, 1024], "RFC 7413 §4.1.3";
    /// Time for which a destination gets no Fast Open after a SYN-ACK without a valid cookie took no data of our SYN; 0:
    /// none.
    "steadfast.tcp_fastopen_path_disable" tcp_fastopen_path_disable: Duration as kinds::Secs(0, 86_400), [secs(0), secs(0), secs(0), secs(0)], "FreeBSD fastopen.path_disable_time";
    /// Refused sources, and how: `10.0.0.0/8 tcp-reset, 2001:db8::/32:80 admin-prohibited, 192.0.2.1 drop`.
    "steadfast.tcp_refuse" tcp_refuse: Refusals as refuse::Refuse,
        [Refusals::default(), Refusals::default(), Refusals::default(), Refusals::default()], "scenario H10b";
    /// Range from which a connect chooses its local port.
    "net.ipv4.ip_local_port_range" ip_local_port_range: PortRange as kinds::Ports,
        [PortRange::known(10_000, 65_535), PortRange::known(32_768, 60_999), PortRange::known(1024, 5000), PortRange::known(1024, 65_535)], "RFC 6056";

    // Forwarders.

    /// Most SYNs that wait for the decision of a forwarder; a SYN above it is dropped, and its sender repeats it. Each
    /// takes 256 bytes, with its timer, its counts and its place in the flow table.
    // FWD-6
    "steadfast.forward_max_pending" forward_max_pending: u32 as kinds::Number(1, 1 << 20), [1024, 1024, 1024, 1024], "invariant 1";
    /// Most of these from one source address.
    // FWD-6
    "steadfast.forward_max_pending_per_source" forward_max_pending_per_source: u32 as kinds::Number(1, 1 << 20), [1024, 1024, 1024, 1024], "invariant 1";
    /// Most of these to one destination address: a dead host must not keep the others waiting.
    // FWD-6
    "steadfast.forward_max_pending_per_destination" forward_max_pending_per_destination: u32 as kinds::Number(1, 1 << 20), [64, 64, 64, 64], "invariant 1";
    /// Longest wait for the decision of a forwarder. It is longer than the SYNs of a client of Linux go on.
    // FWD-7
    "steadfast.forward_pending_limit" forward_pending_limit: Duration as kinds::Secs(1, 86_400), [secs(130), secs(130), secs(130), secs(130)], "invariant 2";
    /// Most datagrams, or echo requests, that wait in a forwarder until the program takes them, and as many that wait for
    /// the device; above it they are dropped. Each takes 256 bytes, plus its payload.
    // FWD-18
    "steadfast.forward_queue" forward_queue: u32 as kinds::Number(1, 1 << 20), [1024, 1024, 1024, 1024], "invariant 1";
    /// Most memory of these, each way. It counts for `udp_mem` too.
    // FWD-18
    "steadfast.forward_queue_bytes" forward_queue_bytes: u32 as kinds::Bytes(4096, 1 << 30), [4 << 20, 4 << 20, 4 << 20, 4 << 20], "invariant 1";

    // Options.

    /// Offer and accept window scaling.
    "net.ipv4.tcp_window_scaling" tcp_window_scaling: bool as kinds::Switch, [true, true, false, true], "RFC 7323";
    /// Offer and accept timestamps.
    "net.ipv4.tcp_timestamps" tcp_timestamps: bool as kinds::Switch, [true, true, false, true], "RFC 7323";
    /// Process a segment without timestamps on a connection that negotiated them, instead of dropping it.
    // 7323-6
    "steadfast.tcp_tolerate_missing_ts" tcp_tolerate_missing_ts: bool as kinds::Switch, [false, true, false, false], "RFC 7323 §3.2; Linux; FreeBSD";
    /// Offer and accept selective acknowledgements.
    "net.ipv4.tcp_sack" tcp_sack: bool as kinds::Switch, [true, true, false, true], "RFC 2018";
    /// Report duplicate segments in a SACK block.
    "net.ipv4.tcp_dsack" tcp_dsack: bool as kinds::Switch, [true, true, false, true], "RFC 2883";
    /// ECN: 0 off, 1 request and accept, 2 only accept.
    "net.ipv4.tcp_ecn" tcp_ecn: EcnMode as kinds::Mode,
        [EcnMode::Passive, EcnMode::Passive, EcnMode::Off, EcnMode::Off], "RFC 3168; Linux";

    /// Retransmissions of a SYN that still ask for ECN.
    // 3168-6
    "steadfast.tcp_ecn_maxretries" tcp_ecn_maxretries: u8 as kinds::Count(0, 127), [1, 1, 1, 1], "RFC 3168 §6.1.1.1; FreeBSD ecn.maxretries";
    /// Order and padding of the options of a SYN: as `linux` or `freebsd`.
    "steadfast.tcp_option_layout" tcp_option_layout: OptionLayout as kinds::Layout,
        [OptionLayout::Linux, OptionLayout::Linux, OptionLayout::Linux, OptionLayout::Linux], "interoperation";

    // Sizes.

    /// Receive buffer of a connection, in bytes: unread data, plus out-of-order data with its overhead. The advertised
    /// window exceeds it, if at all, by less than one unit of the window scale. It takes at most a quarter more memory,
    /// plus 128 KiB for partly filled buffers.
    "steadfast.tcp_rcvbuf" tcp_rcvbuf: u32 as kinds::Bytes(1024, 1 << 30), [1 << 20, 131_072, 8192, 65_535], "Linux, middle value of tcp_rmem";
    /// Size of the receive buffer for which the window scale is chosen, if larger than the buffer; 0: the buffer's own
    /// size.
    "steadfast.tcp_rcvbuf_max" tcp_rcvbuf_max: u32 as kinds::Bytes(0, u32::MAX), [0, 6 << 20, 0, 0], "Linux, last value of tcp_rmem; FreeBSD maxsockbuf";
    /// Send buffer of a connection, in bytes. It takes at most 128 KiB more memory, for partly filled buffers.
    "steadfast.tcp_sndbuf" tcp_sndbuf: u32 as kinds::Bytes(1024, 1 << 30), [1 << 20, 131_072, 8192, 65_535], "Linux, middle value of tcp_wmem";
    /// Unsent bytes of a connection at which writes are refused, in flight ones not counted. It keeps send queues short
    /// enough for the cache. A reader on another core sleeps between two turns if they send less than some 256 KiB.
    "net.ipv4.tcp_notsent_lowat" tcp_notsent_lowat: u32 as kinds::Bytes(1, u32::MAX), [393_216, u32::MAX, u32::MAX, u32::MAX], "Linux";
    /// Memory of all send, receive and out-of-order queues: capacities, lists and the packets that hold payloads. Above
    /// 1/2, each connection is limited to a share; above 3/4, out-of-order queues are pruned; above 7/8, orphans are
    /// aborted, then connections whose peer takes nothing for a second, or less than 1/16 in 90 seconds; above 15/16,
    /// data is refused, except 4096 bytes for a connection with nothing unread. One call may exceed it by 128 KiB. It
    /// excludes up to 6 MiB of spare buffers, and the rest of buffers that the application or the device shares with
    /// the stack.
    // THREAT-8
    "steadfast.tcp_mem" tcp_mem: u64 as kinds::Memory(4096, 1 << 40), [256 << 20, 256 << 20, 256 << 20, 256 << 20], "Linux tcp_mem";
    /// Most connections of the stack, including opening ones; above it a connect fails and final ACKs are dropped.
    /// Each takes at most 1 KiB, plus its queues (`tcp_mem`) and its ranges (`tcp_max_sack_ranges`).
    "steadfast.tcp_max_connections" tcp_max_connections: u32 as kinds::Number(1, 1 << 28), [1 << 21, 1 << 21, 1 << 21, 1 << 21], "invariant 1";
    /// Most ranges that a sender remembers as selectively acknowledged. A flight has at most four times as many ranges, of
    /// 12 bytes each.
    // THREAT-15
    "steadfast.tcp_max_sack_ranges" tcp_max_sack_ranges: u32 as kinds::Number(1, 4096), [256, 256, 256, 256], "invariant 1";
    /// Smallest MSS that a peer can impose, options not counted.
    // THREAT-16
    "net.ipv4.tcp_min_snd_mss" tcp_min_snd_mss: u16 as kinds::Size(48, 1460), [48, 48, 48, 48], "Linux; FreeBSD minmss";
    /// Most stateless replies (RST, cookies, challenge ACKs of TIME-WAIT) that wait for the device. Each takes 256
    /// bytes, plus a packet if it holds one.
    "steadfast.reply_queue" reply_queue: u32 as kinds::Number(1, 1 << 20), [1024, 1024, 1024, 1024], "invariant 1";
    /// Most memory of waiting stateless replies: an ICMP reply is as long as the packet that it answers.
    "steadfast.reply_queue_bytes" reply_queue_bytes: u32 as kinds::Bytes(4096, 1 << 30), [1 << 20, 1 << 20, 1 << 20, 1 << 20], "invariant 1";
    /// Most UDP sockets. Each takes at most 1 KiB, plus its datagrams (`udp_mem`).
    "steadfast.udp_max_sockets" udp_max_sockets: u32 as kinds::Number(1, 1 << 20), [65_536, 65_536, 65_536, 65_536], "invariant 1";
    /// Memory of all datagrams of UDP that wait, in bytes; 256 are added for each. Above it arriving datagrams are
    /// dropped, and sending fails.
    "steadfast.udp_mem" udp_mem: u64 as kinds::Memory(4096, 1 << 40), [64 << 20, 64 << 20, 64 << 20, 64 << 20], "Linux udp_mem";
    /// Receive buffer of a UDP socket, in bytes, counted as for `udp_mem`.
    "steadfast.udp_rcvbuf" udp_rcvbuf: u32 as kinds::Bytes(4096, 1 << 30), [212_992, 212_992, 212_992, 212_992], "Linux rmem_default";
    /// Send buffer of a UDP socket, in bytes, counted as for `udp_mem`. One datagram of any length fits into an empty one.
    "steadfast.udp_sndbuf" udp_sndbuf: u32 as kinds::Bytes(4096, 1 << 30), [212_992, 212_992, 212_992, 212_992], "Linux wmem_default";
    /// Most multicast groups that a UDP socket joins. Each takes 128 bytes.
    "net.ipv4.igmp_max_memberships" igmp_max_memberships: u32 as kinds::Number(0, 65_536), [20, 20, 20, 20], "Linux; invariant 1";
    /// Most packets from the stack to itself that wait for input; above it sending pauses, and none is lost.
    "steadfast.loop_queue" loop_queue: u32 as kinds::Number(1, 1 << 16), [64, 64, 64, 64], "invariant 1";

    // Data transfer.

    /// Resolution of the clock that gives the times of all calls; 0: finer than a microsecond. Data is taken for lost later
    /// by this much.
    "steadfast.clock_resolution_us" clock_resolution: Duration as kinds::Micros(0, 100_000), [secs(0), secs(0), secs(0), secs(0)], "RFC 8985 §6.2";
    /// RTO before the first round-trip measurement.
    "steadfast.tcp_rto_initial_ms" tcp_rto_initial: Duration as kinds::Millis(1, 120_000), [secs(1), secs(1), secs(3), secs(1)], "RFC 6298 §2.1";
    /// Smallest RTO.
    "net.ipv4.tcp_rto_min_us" tcp_rto_min: Duration as kinds::Micros(1000, 60_000_000), [millis(200), millis(200), secs(1), secs(1)], "RFC 6298 §2.4; Linux";
    /// Largest RTO.
    "net.ipv4.tcp_rto_max_ms" tcp_rto_max: Duration as kinds::Millis(1000, 120_000), [secs(120), secs(120), secs(64), secs(60)], "RFC 6298 §2.5; Linux";
    /// The RTO is SRTT and at least the least RTO, and each ACK of data that was sent once is a sample: Linux's estimator.
    /// Otherwise the least RTO bounds the sum.
    // DRILL-X14
    "steadfast.tcp_rto_var_min" tcp_rto_var_min: bool as kinds::Switch, [false, false, false, false], "Linux";
    /// Added to a measured RTO, and to one that was backed off.
    "steadfast.tcp_rto_slop_ms" tcp_rto_slop: Duration as kinds::Millis(0, 10_000), [secs(0), secs(0), secs(0), secs(0)], "FreeBSD rexmit_slop";
    /// The application is notified of a problem (R1) after the time that this many retransmissions with back-off take.
    // SHLD-10
    "net.ipv4.tcp_retries1" tcp_retries1: u8 as kinds::Count(1, 255), [3, 3, 3, 3], "RFC 9293 §3.8.3";
    /// A connection times out (R2) after the time that this many retransmissions with back-off take.
    // SHLD-11
    "net.ipv4.tcp_retries2" tcp_retries2: u8 as kinds::Count(1, 255), [15, 15, 12, 6], "RFC 9293 §3.8.3; Linux";
    /// A connection times out when sent data stays unacknowledged for this long; 0: only R2 applies.
    "steadfast.tcp_user_timeout_ms" tcp_user_timeout: Duration as kinds::Millis(0, 1 << 31), [secs(0), secs(0), secs(0), secs(0)], "RFC 5482; TCP_USER_TIMEOUT";
    /// Congestion control: `cubic` or `reno`.
    "net.ipv4.tcp_congestion_control" tcp_congestion_control: CongestionControl as kinds::Congestion,
        [CongestionControl::Cubic, CongestionControl::Cubic, CongestionControl::Reno, CongestionControl::Reno], "RFC 9438, RFC 5681";
    /// Size of the initial window, in segments.
    "steadfast.tcp_init_cwnd" tcp_init_cwnd: u8 as kinds::Count(1, 255), [10, 10, 1, 10], "RFC 6928";
    /// Restart from the initial window after an idle time of one RTO.
    "net.ipv4.tcp_slow_start_after_idle" tcp_slow_start_after_idle: bool as kinds::Switch, [true, true, true, true], "RFC 5681 §4.1";
    /// Let the initial slow start end when the round-trip time grows: HyStart++.
    "steadfast.tcp_hystart" tcp_hystart: bool as kinds::Switch, [true, true, false, true], "RFC 9406; Linux, tcp_cubic parameter hystart";
    /// By Linux's rules (`linux_release`), what ends slow start: bit 0 a train of ACKs, bit 1 the delay.
    // DRILL-X08
    "steadfast.tcp_hystart_detect" tcp_hystart_detect: u8 as kinds::Count(0, 3), [3, 3, 3, 3], "Linux, tcp_cubic parameter hystart_detect";
    /// Reduce the window less after an echo of a congestion mark than after a loss.
    "steadfast.tcp_abe" tcp_abe: bool as kinds::Switch, [true, false, false, false], "RFC 8511; FreeBSD cc.abe";
    /// Segments by which an ACK may raise the window in slow start, unless data is paced; 0: all that it acknowledges.
    // DRILL-X05
    "steadfast.tcp_abc_limit" tcp_abc_limit: u8 as kinds::Count(0, 255), [0, 0, 8, 8], "RFC 9406 §4.3; Linux";
    /// After a shutdown for reading, queue data that arrives, and let it be read.
    // DRILL-X20
    "steadfast.tcp_shut_rd_keeps" tcp_shut_rd_keeps: bool as kinds::Switch, [false, true, false, false], "Linux";
    /// Send in quanta, as Linux does for segmentation offload: a burst of several segments ends in a PSH and takes at most
    /// half of the window, and one that a window cuts may wait for the next ACK.
    // DRILL-X01 to DRILL-X03
    "steadfast.tcp_gso_quanta" tcp_gso_quanta: bool as kinds::Switch, [false, true, false, false], "Linux";
    /// Least segments of a burst, as far as windows allow.
    "net.ipv4.tcp_min_tso_segs" tcp_min_tso_segs: u8 as kinds::Count(1, 255), [2, 2, 2, 2], "Linux";
    /// A burst waits for the next ACK only while less than this part of the window may leave; 0: while no more than three
    /// segments may.
    // DRILL-X02b
    "net.ipv4.tcp_tso_win_divisor" tcp_tso_win_divisor: u8 as kinds::Count(0, 255), [3, 3, 3, 3], "Linux";
    /// Release of Linux whose rules count also where they are not those of the standards: 612 is Linux 6.12; 0: none.
    "steadfast.linux_release" linux_release: u32 as kinds::Number(0, 699), [0, 0, 0, 0], "Linux";
    /// Pace new data: let it leave at a rate computed from window and round-trip time, instead of as fast as the window
    /// allows. A socket with a `max_pacing_rate` is always paced.
    "steadfast.tcp_pacing" tcp_pacing: bool as kinds::Switch, [false, false, false, false], "Linux, without the qdisc fq";
    /// Pacing rate in slow start, in percent of the window in a round-trip time.
    "net.ipv4.tcp_pacing_ss_ratio" tcp_pacing_ss_ratio: u32 as kinds::Number(100, 1000), [200, 200, 200, 200], "Linux";
    /// Pacing rate in congestion avoidance, in percent of the window in a round-trip time.
    "net.ipv4.tcp_pacing_ca_ratio" tcp_pacing_ca_ratio: u32 as kinds::Number(100, 1000), [120, 120, 120, 120], "Linux";
    /// Number of duplicate ACKs that trigger a fast retransmit.
    "net.ipv4.tcp_reordering" tcp_reordering: u8 as kinds::Count(1, 127), [3, 3, 3, 3], "RFC 5681 §3.2";
    /// Find out by the ACKs after a timeout whether it was spurious, with peers that support SACK: 0 no, 1 or 2 yes.
    "net.ipv4.tcp_frto" tcp_frto: u8 as kinds::Count(0, 2), [2, 2, 0, 2], "RFC 5682; Linux";
    /// Loss probes at the tail of a flight, to peers with SACK: 0 to 2 none, 3 or 4 on.
    "net.ipv4.tcp_early_retrans" tcp_early_retrans: u8 as kinds::Count(0, 4), [3, 3, 0, 3], "RFC 8985 §7; Linux";
    /// Time that a loss probe gives the peer to delay its ACK, where one segment is in flight. If a probe proves needless,
    /// it is at least 200 ms for the rest of the connection.
    "steadfast.tcp_tlp_max_ack_delay_ms" tcp_tlp_max_ack_delay: Duration as kinds::Millis(0, 1000), [millis(25), millis(200), millis(200), millis(200)], "RFC 8985 §7.2";
    /// Shortest wait for a loss probe.
    "steadfast.tcp_tlp_min_ms" tcp_tlp_min: Duration as kinds::Millis(1, 1000), [millis(10), millis(10), millis(10), millis(10)], "short paths";
    /// While fewer than four segments are in flight or unsent, an ACK lets the RTO run from when the oldest was sent.
    "steadfast.tcp_rto_restart" tcp_rto_restart: bool as kinds::Switch, [true, false, false, false], "RFC 7765";
    /// Longest delay of an ACK; 0: no delay.
    // MUST-40
    "steadfast.tcp_delack_ms" tcp_delack: Duration as kinds::Millis(0, 499), [millis(40), millis(40), millis(200), millis(200)], "RFC 9293 §3.8.6.3";
    /// Number of segments at the start of a connection that are acknowledged at once; 0: none.
    "steadfast.tcp_quickack" tcp_quickack: u8 as kinds::Count(0, 255), [16, 16, 0, 0], "Linux";
    /// Probe the path MTU without ICMP: 0 never, 1 after a black hole is detected, 2 always.
    "net.ipv4.tcp_mtu_probing" tcp_mtu_probing: MtuProbing as kinds::Mode,
        [MtuProbing::BlackHole, MtuProbing::Never, MtuProbing::Never, MtuProbing::Never], "RFC 4821; Linux";
    /// MSS to fall back to when a black hole is detected.
    "net.ipv4.tcp_base_mss" tcp_base_mss: u16 as kinds::Size(48, 1460), [1024, 1024, 1024, 1024], "RFC 4821; Linux";
    /// Time until the next search for a larger path MTU.
    // 1191-2
    "net.ipv4.tcp_probe_interval" tcp_probe_interval: Duration as kinds::Secs(1, 86_400), [secs(600), secs(600), secs(600), secs(600)], "RFC 4821; Linux";
    /// Smallest range for which the search of the path MTU continues.
    "net.ipv4.tcp_probe_threshold" tcp_probe_threshold: u16 as kinds::Size(1, 1024), [8, 8, 8, 8], "RFC 4821; Linux";

    // Established connections.

    /// Idle time before the first keepalive probe, if keepalive is on.
    // MUST-28
    "net.ipv4.tcp_keepalive_time" tcp_keepalive_time: Duration as kinds::Secs(1, 32_767), [secs(7200), secs(7200), secs(7200), secs(7200)], "RFC 9293 §3.8.4";
    /// Interval between keepalive probes.
    "net.ipv4.tcp_keepalive_intvl" tcp_keepalive_intvl: Duration as kinds::Secs(1, 32_767), [secs(75), secs(75), secs(75), secs(75)], "Linux, BSD";
    /// Number of unanswered keepalive probes after which a connection ends.
    "net.ipv4.tcp_keepalive_probes" tcp_keepalive_probes: u8 as kinds::Count(1, 127), [9, 9, 8, 10], "Linux, BSD";
    /// Probe every connection, whether or not its socket asks for keepalive.
    "steadfast.tcp_always_keepalive" tcp_always_keepalive: bool as kinds::Switch, [false, false, false, false], "FreeBSD always_keepalive";
    /// Most challenge ACKs of one connection per second.
    // 5961-9
    "steadfast.tcp_challenge_ack_limit" tcp_challenge_ack_limit: u8 as kinds::Count(1, 255), [5, 5, 5, 5], "RFC 5961 §7";
    /// Accept a RST anywhere in the window. **Harmful**: this disables RFC 5961 §3. For tests only.
    "steadfast.tcp_insecure_rst" tcp_insecure_rst: bool as kinds::Switch, [false, false, false, false], "FreeBSD insecure_rst";
    /// Let a SYN in the window reset its connection. **Harmful**: this disables RFC 5961 §4. For tests only.
    "steadfast.tcp_insecure_syn" tcp_insecure_syn: bool as kinds::Switch, [false, false, false, false], "FreeBSD insecure_syn";
    /// Drop segments with SYN and FIN.
    // THREAT-60
    "steadfast.tcp_drop_synfin" tcp_drop_synfin: bool as kinds::Switch, [true, true, true, true], "FreeBSD drop_synfin";
    /// Let an ICMP error end a connect.
    "steadfast.tcp_icmp_may_rst" tcp_icmp_may_rst: bool as kinds::Switch, [true, true, true, true], "RFC 5927; FreeBSD icmp_may_rst";
    /// Follow FreeBSD in what has no setting of its own: receive buffers, RSTs, FINs, ICMP errors. `docs/deviations.md`
    /// lists it.
    "steadfast.tcp_bsd_rules" tcp_bsd_rules: bool as kinds::Switch, [false, false, false, false], "FreeBSD";
    /// Shortest interval between two replies of one connection to invalid segments without data; 0: no limit.
    // THREAT-34
    "net.ipv4.tcp_invalid_ratelimit" tcp_invalid_ratelimit: Duration as kinds::Millis(0, 60_000), [millis(500), millis(500), millis(0), millis(500)], "Linux";
    /// RSTs per second in reply to segments of no connection, except SYNs; one destination prefix (IPv4 /24, IPv6 /64)
    /// gets at most a quarter; 0: no limit.
    // SA-CLOSED-05
    "steadfast.tcp_rst_limit" tcp_rst_limit: u32 as kinds::Number(0, 1 << 20), [1000, 0, 200, 1000], "RFC 9293 §3.10.7.1; FreeBSD icmplim";

    // Connection teardown.

    /// Duration of FIN-WAIT-2 once no application holds the socket; 0: no limit.
    "net.ipv4.tcp_fin_timeout" tcp_fin_timeout: Duration as kinds::Secs(0, 86_400), [secs(60), secs(60), secs(675), secs(0)], "Linux; Stevens";
    /// Most retransmissions of an orphan, or probes of its peer's closed window, answered or not; 0: limited by R2.
    "net.ipv4.tcp_orphan_retries" tcp_orphan_retries: u8 as kinds::Count(0, 255), [8, 8, 0, 0], "Linux (where 0 means 8)";
    /// Time for an orphan to deliver its data and FIN, plus a second for each KiB unsent at its close; 0: no limit.
    "steadfast.tcp_orphan_timeout" tcp_orphan_timeout: Duration as kinds::Secs(0, 86_400), [secs(300), secs(0), secs(0), secs(0)], "invariant 2";
    /// Most connections that no application holds; above it a close resets. In FIN-WAIT-2 each takes 256 bytes, except
    /// the first 64; before that see `tcp_max_connections`.
    // THREAT-10
    "net.ipv4.tcp_max_orphans" tcp_max_orphans: u32 as kinds::Number(0, 1 << 28), [131_072, 131_072, 131_072, 131_072], "Linux";
    /// Duration of TIME-WAIT (2MSL); 0: it ends at once.
    // MUST-13
    "steadfast.tcp_tw_timeout" tcp_tw_timeout: Duration as kinds::Secs(0, 240), [secs(60), secs(60), secs(60), secs(240)], "RFC 9293 §3.6.1; Linux";
    /// Most TIME-WAIT entries; above it a closing connection skips TIME-WAIT.
    // THREAT-11
    "net.ipv4.tcp_max_tw_buckets" tcp_max_tw_buckets: u32 as kinds::Number(0, 1 << 28), [262_144, 131_072, 131_072, 262_144], "Linux";
    /// Most memory of TIME-WAIT entries, including their share of the flow table; above it a closing connection skips
    /// TIME-WAIT. An entry takes 58 bytes for IPv4 and 82 for IPv6. Partly empty pages of 64 KiB come on top, at most
    /// as many as the peak number of entries filled.
    // THREAT-11
    "steadfast.tcp_tw_mem" tcp_tw_mem: u64 as kinds::Memory(0, 1 << 40), [16 << 20, 16 << 20, 16 << 20, 16 << 20], "invariant 1";
    /// A SYN in TIME-WAIT: 0 opens a new connection by timestamp or sequence number, 1 is challenged, 2 opens one by its
    /// sequence number alone, and is ignored otherwise.
    "steadfast.tcp_tw_syn" tcp_tw_syn: u8 as kinds::Count(0, 2), [0, 0, 0, 0], "RFC 6191; RFC 9293; FreeBSD";
    /// Let a connect replace a TIME-WAIT entry by timestamps: 0 never, 1 always, 2 for loopback addresses.
    "net.ipv4.tcp_tw_reuse" tcp_tw_reuse: TwReuse as kinds::Mode,
        [TwReuse::Always, TwReuse::Loopback, TwReuse::Never, TwReuse::Never], "RFC 6191; Linux";
    /// Smallest age of a TIME-WAIT entry that a connect may replace.
    "net.ipv4.tcp_tw_reuse_delay" tcp_tw_reuse_delay: Duration as kinds::Millis(1, 120_000), [secs(1), secs(1), secs(1), secs(1)], "Linux 6.14";
    /// Short TIME-WAIT and a timestamp check for each peer address. **Harmful**: it refuses clients that share an
    /// address behind a NAT, so Linux 4.12 removed it. Present only to demonstrate that (scenario T9c).
    "net.ipv4.tcp_tw_recycle" tcp_tw_recycle: bool as kinds::Switch, [false, false, false, false], "Linux before 4.12";
    /// Most peers whose last timestamp `tcp_tw_recycle` remembers. Each takes 160 bytes.
    "steadfast.tcp_tw_recycle_peers" tcp_tw_recycle_peers: u32 as kinds::Number(1, 1 << 20), [4096, 4096, 4096, 4096], "invariant 1";
    /// Ignore RST in TIME-WAIT (protects against TIME-WAIT assassination).
    "net.ipv4.tcp_rfc1337" tcp_rfc1337: bool as kinds::Switch, [true, false, false, false], "RFC 1337 F1";

    // IP.

    /// Most interfaces of the stack. Each takes at most 1 KiB, plus its addresses and routes.
    "steadfast.interface_max" interface_max: u32 as kinds::Number(1, 4096), [64, 64, 64, 64], "invariant 1";
    /// Most routes; above it adding one fails. Each takes at most 256 bytes. Those to the networks of addresses count, but
    /// are never refused.
    "steadfast.route_max" route_max: u32 as kinds::Number(1, 1 << 20), [4096, 4096, 4096, 4096], "invariant 1; Linux route.max_size";
    /// Most neighbours above which a host that asks for our address becomes no entry of the cache.
    // THREAT-85
    "net.ipv4.neigh.default.gc_thresh2" gc_thresh2: u32 as kinds::Number(0, 1 << 20), [512, 512, 512, 512], "Linux";
    /// Most neighbours; above it the one that is worth least gives way. Each takes at most 512 bytes.
    // THREAT-85
    "net.ipv4.neigh.default.gc_thresh3" gc_thresh3: u32 as kinds::Number(1, 1 << 20), [1024, 1024, 1024, 1024], "Linux; invariant 1";
    /// Most bytes that wait for one hardware address; 64 are added for each packet. The oldest packets give way.
    "net.ipv4.neigh.default.unres_qlen_bytes" unres_qlen_bytes: u32 as kinds::Bytes(0, 1 << 30), [212_992, 212_992, 212_992, 212_992], "Linux; RFC 1122 §2.3.2.2";
    /// Most bytes that wait for hardware addresses, counted as for `unres_qlen_bytes`.
    // THREAT-85
    "steadfast.neigh_mem" neigh_mem: u32 as kinds::Bytes(0, 1 << 30), [4 << 20, 4 << 20, 4 << 20, 4 << 20], "invariant 1";
    /// Time for which a neighbour counts as reachable after an answer, on average.
    "net.ipv4.neigh.default.base_reachable_time_ms" base_reachable_time: Duration as kinds::Millis(1000, 3_600_000), [secs(30), secs(30), secs(30), secs(30)], "RFC 4861 §10; Linux";
    /// Time between two solicitations.
    "net.ipv4.neigh.default.retrans_time_ms" retrans_time: Duration as kinds::Millis(10, 60_000), [secs(1), secs(1), secs(1), secs(1)], "RFC 4861 §10; Linux";
    /// Solicitations to all before a neighbour counts as unreachable.
    "net.ipv4.neigh.default.mcast_solicit" mcast_solicit: u8 as kinds::Count(1, 16), [3, 3, 3, 3], "RFC 4861 §10; Linux";
    /// Solicitations to a known hardware address before the neighbour counts as unreachable.
    "net.ipv4.neigh.default.ucast_solicit" ucast_solicit: u8 as kinds::Count(1, 16), [3, 3, 3, 3], "RFC 4861 §10; Linux";
    /// Time from the first packet to a stale neighbour until the first solicitation.
    "net.ipv4.neigh.default.delay_first_probe_time" delay_first_probe_time: Duration as kinds::Secs(0, 60), [secs(5), secs(5), secs(5), secs(5)], "RFC 4861 §10; Linux";
    /// Smallest time between two changes of a neighbour's hardware address.
    // THREAT-86
    "steadfast.neigh_locktime_ms" locktime: Duration as kinds::Millis(0, 60_000), [secs(1), secs(1), secs(1), secs(1)], "Linux neigh.default.locktime";
    /// Most packets that wait between a driver and its stack, for each queue of the device. The driver reads no more in
    /// a turn, and packets that other queues hand over are dropped above it.
    "net.core.netdev_max_backlog" netdev_max_backlog: u32 as kinds::Number(1, 1 << 20), [1000, 1000, 50, 1000], "Linux; 4.4BSD IFQ_MAXLEN; invariant 1";
    /// Most packets that wait for a device that is full, where there are several devices; above it they are dropped. A
    /// single device makes the stack wait instead.
    "steadfast.txqueuelen" txqueuelen: u32 as kinds::Number(1, 1 << 20), [500, 500, 500, 500], "Linux, TUN; invariant 1";
    /// TTL or hop limit of sent packets.
    // MUST-49
    "net.ipv4.ip_default_ttl" ip_default_ttl: u8 as kinds::Count(1, 255), [64, 64, 64, 64], "RFC 9293 §3.9.2";
    /// Smallest path MTU that an ICMP error can set, for IPv4.
    // 1191-1, THREAT-31
    "net.ipv4.route.min_pmtu" min_pmtu: u16 as kinds::Size(68, 1500), [552, 552, 68, 68], "RFC 1191 §3";
    /// Time until a learned path MTU expires.
    // 1191-2
    "net.ipv4.route.mtu_expires" mtu_expires: Duration as kinds::Secs(300, 86_400), [secs(600), secs(600), secs(600), secs(600)], "RFC 1191 §6.3";
    /// Most destinations whose path MTU is remembered; 0: none. Each takes 160 bytes.
    "steadfast.pmtu_cache" pmtu_cache: u32 as kinds::Number(0, 1 << 20), [4096, 4096, 4096, 4096], "invariant 1";
    /// Time within which all fragments of a datagram must arrive.
    "net.ipv4.ipfrag_time" ipfrag_time: Duration as kinds::Secs(1, 120), [secs(30), secs(30), secs(60), secs(60)], "RFC 1122 §3.3.2; Linux";
    /// Most memory of incomplete datagrams; 0: no reassembly.
    // THREAT-18
    "net.ipv4.ipfrag_high_thresh" ipfrag_high_thresh: u32 as kinds::Bytes(0, 1 << 30), [4 << 20, 4 << 20, 4 << 20, 4 << 20], "Linux";
    /// Most incomplete datagrams between one source and one destination, within `ipfrag_high_thresh`.
    // THREAT-18
    "steadfast.ipfrag_max_datagrams" ipfrag_max_datagrams: u32 as kinds::Number(1, 65_536), [128, 128, 128, 128], "invariant 1";
    /// Most fragments of one datagram, within `ipfrag_high_thresh`.
    // THREAT-18
    "steadfast.ipfrag_max_fragments" ipfrag_max_fragments: u32 as kinds::Number(1, 8192), [64, 64, 64, 64], "invariant 1";
    /// ICMP messages sent per second; one destination prefix (IPv4 /24, IPv6 /64) gets at most a quarter; 0: no
    /// limit.
    "steadfast.icmp_ratelimit" icmp_ratelimit: u32 as kinds::Number(0, 1 << 20), [1000, 1000, 200, 1000], "RFC 4443 §2.4(f); Linux, where 0 means no limit as well";
    /// Do not answer echo requests.
    "net.ipv4.icmp_echo_ignore_all" icmp_echo_ignore_all: bool as kinds::Switch, [false, false, false, false], "Linux";
}

#[cfg(test)]
mod tests;
