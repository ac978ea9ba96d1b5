//! `--option`: the options of sockets, with the names that scenarios use.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use steadfast::stack::config::CongestionControl;
use steadfast::{Config, SocketOptions};

/// Options of sockets.
#[derive(Args)]
pub(crate) struct SocketArgs {
    /// An option of the connections: nodelay, cork, keepalive, keepalive_time=S, keepalive_intvl=S, keepalive_probes=N,
    /// user_timeout=S, linger=S, fin_timeout=S, maxseg=BYTES, rcvbuf=BYTES, sndbuf=BYTES, ttl=N, dscp=N,
    /// congestion=cubic|reno. May be repeated. Times are seconds.
    #[arg(long = "option", value_name = "NAME[=VALUE]")]
    options: Vec<SocketOption>,
}

impl SocketArgs {
    /// The options of new connections. `None`: the defaults of the configuration.
    pub(crate) fn socket(&self, config: &Config) -> Option<SocketOptions> {
        let mut options = SocketOptions::new(config);
        self.options.iter().for_each(|option| option.apply(&mut options));
        (!self.options.is_empty()).then_some(options)
    }
}

/// A valid option.
#[derive(Clone)]
struct SocketOption {
    kind: &'static Kind,
    value: String,
}

struct Kind {
    name: &'static str,
    expected: &'static str,
    /// Returns `None` for an invalid value.
    set: fn(&mut SocketOptions, &str) -> Option<()>,
}

impl SocketOption {
    fn apply(&self, options: &mut SocketOptions) {
        (self.kind.set)(options, &self.value).expect("it was tried when it was read");
    }
}

impl FromStr for SocketOption {
    type Err = String;

    fn from_str(text: &str) -> Result<SocketOption, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            return Err(format!("expected one of {}", names.join(", ")));
        };
        let mut scratch = SocketOptions::new(&Config::default());
        (kind.set)(&mut scratch, value).ok_or_else(|| format!("expected {}", kind.expected))?;
        Ok(SocketOption { kind, value: value.to_owned() })
    }
}

macro_rules! kinds {
    ($($name:literal $expected:literal |$options:ident, $value:ident| $set:expr;)+) => {
        const KINDS: &[Kind] = &[$(Kind {
            name: $name,
            expected: $expected,
            set: |$options, $value| { $set; Some(()) },
        },)+];
    };
}

kinds! {
    "nodelay" "`nodelay` alone" |o, v| o.nodelay = none(v)?;
    "cork" "`cork` alone" |o, v| o.cork = none(v)?;
    "keepalive" "`keepalive` alone" |o, v| o.keepalive = none(v)?;
    "keepalive_time" "`keepalive_time=` and seconds" |o, v| (o.keepalive, o.keepalive_time) = (true, some_seconds(v)?);
    "keepalive_intvl" "`keepalive_intvl=` and seconds" |o, v| (o.keepalive, o.keepalive_intvl) = (true, some_seconds(v)?);
    "keepalive_probes" "`keepalive_probes=` and a number from 1 to 127"
        |o, v| (o.keepalive, o.keepalive_probes) = (true, v.parse().ok().filter(|n| (1..=127).contains(n))?);
    "user_timeout" "`user_timeout=` and seconds" |o, v| o.user_timeout = seconds(v)?;
    "linger" "`linger=` and seconds" |o, v| o.linger = Some(seconds(v)?);
    "fin_timeout" "`fin_timeout=` and seconds" |o, v| o.fin_timeout = seconds(v)?;
    "maxseg" "`maxseg=` and bytes from 88 to 65495"
        |o, v| o.max_segment = Some(v.parse().ok().filter(|n| (88..=65_495).contains(n))?);
    "rcvbuf" "`rcvbuf=` and bytes from 1024 on" |o, v| o.rcvbuf = buffer(v)?;
    "sndbuf" "`sndbuf=` and bytes from 1024 on" |o, v| o.sndbuf = buffer(v)?;
    "ttl" "`ttl=` and a number from 1 to 255" |o, v| o.ttl = v.parse().ok().filter(|n| *n >= 1)?;
    "dscp" "`dscp=` and a number from 0 to 63" |o, v| o.dscp = v.parse().ok().filter(|n| *n <= 63)?;
    "congestion" "`congestion=cubic` or `congestion=reno`" |o, v| o.congestion = match v {
        "cubic" => CongestionControl::Cubic,
        "reno" => CongestionControl::Reno,
        _ => return None,
    };
}

/// A switch has no value.
fn none(value: &str) -> Option<bool> {
    value.is_empty().then_some(true)
}

fn seconds(value: &str) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(value.parse().ok()?).ok()?;
    // The stack's clock counts milliseconds in 32 bits.
    (duration <= Duration::from_secs(86_400)).then_some(duration)
}

fn some_seconds(value: &str) -> Option<Duration> {
    seconds(value).filter(|duration| *duration >= Duration::from_secs(1))
}

fn buffer(value: &str) -> Option<u32> {
    value.parse().ok().filter(|bytes| (1024..=1 << 30).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_changes_its_field_and_a_bad_value_says_what_was_expected() {
        let args = |options: &[&str]| SocketArgs {
            options: options
                .iter()
                .map(|text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}")))
                .collect(),
        };
        let config = Config::default();
        assert_eq!(args(&[]).socket(&config), None);
        let set =
            args(&["nodelay", "keepalive_time=1.5", "user_timeout=30", "maxseg=536", "ttl=255", "linger=0"]);
        let mut expected = SocketOptions::new(&config);
        (expected.nodelay, expected.keepalive) = (true, true);
        expected.keepalive_time = Duration::from_millis(1500);
        expected.user_timeout = Duration::from_secs(30);
        (expected.max_segment, expected.ttl) = (Some(536), 255);
        expected.linger = Some(Duration::ZERO);
        assert_eq!(set.socket(&config), Some(expected));
        for (text, error) in [
            ("nagle", "expected one of nodelay, cork,"),
            ("nodelay=1", "expected `nodelay` alone"),
            ("ttl=0", "expected `ttl=` and a number from 1 to 255"),
            ("ttl=256", "expected `ttl=` and a number from 1 to 255"),
            ("dscp=64", "expected `dscp=` and a number from 0 to 63"),
            ("user_timeout=-1", "expected `user_timeout=` and seconds"),
            ("rcvbuf=1023", "expected `rcvbuf=` and bytes from 1024 on"),
            ("congestion=bbr", "expected `congestion=cubic` or `congestion=reno`"),
        ] {
            let told = text.parse::<SocketOption>().err().unwrap();
            assert!(told.starts_with(error), "{text}: {told}");
        }
    }
}
