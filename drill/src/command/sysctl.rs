//! Maps sysctl names of Linux and FreeBSD to the stack's configuration.

use steadfast_core::Config;
use steadfast_core::time::Duration;

/// The conversion of a FreeBSD value to the stack's unit.
#[derive(Clone, Copy)]
enum Unit {
    /// No conversion.
    Same,
    /// Milliseconds, of a time whose text has seconds.
    Millis,
    MillisToMicros,
    /// Milliseconds of one MSL to seconds of 2 MSL.
    Msl,
    /// `rfc1323`: 1 enables window scaling and timestamps, 2 window scaling only, 3 timestamps only.
    Extensions,
    /// "On" means that cookies are always used.
    CookiesOnly,
    /// Off means no delay.
    Delayed,
    /// A switch for one bit of `tcp_fastopen`.
    FastOpen(u8),
    Algorithm,
}

const FREEBSD: [(&str, &str, Unit); 41] = [
    ("sack.enable", "tcp_sack", Unit::Same),
    ("rfc1323", "tcp_timestamps", Unit::Extensions),
    ("recvspace", "tcp_rcvbuf", Unit::Same),
    ("sendspace", "tcp_sndbuf", Unit::Same),
    ("ecn.enable", "tcp_ecn", Unit::Same),
    ("insecure_rst", "tcp_insecure_rst", Unit::Same),
    ("insecure_syn", "tcp_insecure_syn", Unit::Same),
    ("keepinit", "tcp_syn_timeout", Unit::Millis),
    ("keepidle", "tcp_keepalive_time", Unit::Millis),
    ("keepintvl", "tcp_keepalive_intvl", Unit::Millis),
    ("keepcnt", "tcp_keepalive_probes", Unit::Same),
    ("delacktime", "tcp_delack_ms", Unit::Same),
    ("delayed_ack", "tcp_delack_ms", Unit::Delayed),
    ("rexmit_initial", "tcp_rto_initial_ms", Unit::Same),
    ("rexmit_min", "tcp_rto_min_us", Unit::MillisToMicros),
    ("rexmit_slop", "tcp_rto_slop_ms", Unit::Same),
    ("rexmit_drop_options", "tcp_rexmit_drop_options", Unit::Same),
    ("syncookies", "tcp_syncookies", Unit::Same),
    ("syncookies_only", "tcp_syncookies", Unit::CookiesOnly),
    ("syncache.rexmtlimit", "tcp_synack_retries", Unit::Same),
    ("syncache.rst_on_sock_fail", "tcp_abort_on_overflow", Unit::Same),
    ("drop_synfin", "tcp_drop_synfin", Unit::Same),
    ("icmp_may_rst", "tcp_icmp_may_rst", Unit::Same),
    ("blackhole", "tcp_blackhole", Unit::Same),
    ("msl", "tcp_tw_timeout", Unit::Msl),
    ("finwait2_timeout", "tcp_fin_timeout", Unit::Millis),
    ("maxtcptw", "tcp_max_tw_buckets", Unit::Same),
    ("minmss", "tcp_min_snd_mss", Unit::Same),
    ("pmtud_blackhole_detection", "tcp_mtu_probing", Unit::Same),
    ("initcwnd_segments", "tcp_init_cwnd", Unit::Same),
    ("cc.algorithm", "tcp_congestion_control", Unit::Algorithm),
    ("fastopen.client_enable", "tcp_fastopen", Unit::FastOpen(1)),
    ("fastopen.server_enable", "tcp_fastopen", Unit::FastOpen(2)),
    ("fastopen.enabled", "tcp_fastopen", Unit::FastOpen(2)),
    ("tolerate_missing_ts", "tcp_tolerate_missing_ts", Unit::Same),
    ("retries", "tcp_retries2", Unit::Same),
    ("always_keepalive", "tcp_always_keepalive", Unit::Same),
    ("ecn.maxretries", "tcp_ecn_maxretries", Unit::Same),
    ("fastopen.path_disable_time", "tcp_fastopen_path_disable", Unit::Same),
    ("cc.abe", "tcp_abe", Unit::Same),
    ("challenge_ack_limit", "tcp_challenge_ack_limit", Unit::Same),
];

const BESIDE: [(&str, &str); 6] = [
    ("kern.ipc.maxsockbuf", "tcp_rcvbuf_max"),
    ("kern.ipc.soacceptqueue", "somaxconn"),
    ("kern.ipc.somaxconn", "somaxconn"),
    ("net.inet.icmp.icmplim", "tcp_rst_limit"),
    ("net.inet.ip.ttl", "ip_default_ttl"),
    ("net.inet6.ip6.hlim", "ip_default_ttl"),
];

/// Settings that match the stack's fixed behaviour: these values have no effect.
const FIXED: [(&str, &[&str]); 9] = [
    ("net.inet.tcp.functions_default", &["freebsd"]),
    ("net.inet.tcp.path_mtu_discovery", &["1"]),
    ("net.inet.tcp.delayed_ack", &["1"]),
    ("net.inet.tcp.blackhole", &["0"]),
    ("net.inet.tcp.hostcache.purgenow", &["1"]),
    ("net.inet.tcp.rfc6675_pipe", &["1"]),
    ("net.ipv4.ip_no_pmtu_disc", &["0"]),
    ("net.ipv4.tcp_stdurg", &["1"]),
    ("net.ipv4.ip_forward_use_pmtu", &["0"]),
];

/// Known settings for features that the stack lacks. They are noted, and the run continues.
const NOTED: [&str; 73] = [
    "net.ipv4.tcp_recovery",
    "net.ipv4.tcp_fack",
    "net.ipv4.tcp_autocorking",
    "net.ipv4.tcp_adv_win_scale",
    "net.ipv4.tcp_app_win",
    "net.ipv4.tcp_moderate_rcvbuf",
    "net.ipv4.tcp_no_metrics_save",
    "net.ipv4.tcp_no_ssthresh_metrics_save",
    "net.ipv4.tcp_pacing_ss_ratio",
    "net.ipv4.tcp_pacing_ca_ratio",
    "net.ipv4.tcp_min_tso_segs",
    "net.ipv4.tcp_tso_win_divisor",
    "net.ipv4.tcp_tso_rtt_log",
    "net.ipv4.tcp_limit_output_bytes",
    "net.ipv4.tcp_min_rtt_wlen",
    "net.ipv4.tcp_max_reordering",
    "net.ipv4.tcp_retrans_collapse",
    "net.ipv4.tcp_workaround_signed_windows",
    "net.ipv4.tcp_shrink_window",
    "net.ipv4.tcp_comp_sack_delay_ns",
    "net.ipv4.tcp_comp_sack_slack_ns",
    "net.ipv4.tcp_comp_sack_nr",
    "net.ipv4.tcp_thin_linear_timeouts",
    "net.ipv4.tcp_l3mdev_accept",
    "net.ipv4.tcp_low_latency",
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.tcp_ecn_fallback",
    "net.ipv4.tcp_ecn_option",
    "net.ipv4.tcp_ecn_option_beacon",
    "net.ipv4.tcp_probe_interval",
    "net.ipv4.tcp_backlog_ack_defer",
    "net.ipv4.tcp_reflect_tos",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_fastopen_blackhole_timeout_sec",
    "net.ipv4.tcp_fastopen_key",
    "net.ipv4.tcp_allowed_congestion_control",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.rmem_default",
    "net.core.wmem_default",
    "net.core.optmem_max",
    "net.core.default_qdisc",
    "net.inet.tcp.reass.maxqueuelen",
    "net.inet.tcp.sendbuf_auto",
    "net.inet.tcp.recvbuf_auto",
    "net.inet.tcp.sendbuf_max",
    "net.inet.tcp.recvbuf_max",
    "net.inet.tcp.ts_offset_per_conn",
    "net.inet.tcp.nolocaltimewait",
    "net.inet.tcp.abc_l_var",
    "net.inet.tcp.log_in_vain",
    "net.inet.tcp.log_debug",
    "net.inet.tcp.tso",
    "net.inet.tcp.rfc3042",
    "net.inet.tcp.rfc3390",
    "net.inet.tcp.rfc3465",
    "net.inet.tcp.sack.maxholes",
    "net.inet.tcp.sack.globalmaxholes",
    "net.inet.tcp.hostcache.enable",
    "net.inet.tcp.hostcache.expire",
    "net.inet.tcp.hostcache.purge",
    "net.inet.tcp.syncache.hashsize",
    "net.inet.tcp.syncache.see_other",
    "net.inet.tcp.fast_finwait2_recycle",
    "net.inet.tcp.do_prr",
    "net.inet.tcp.newcwv",
    "net.inet.tcp.persmin",
    "net.inet.tcp.persmax",
    "net.inet.tcp.mssdflt",
    "net.inet.tcp.v6mssdflt",
    "net.inet.tcp.do_lrd",
    "net.inet.tcp.isn_reseed_interval",
    "kern.timecounter.alloweddeviation",
];

/// Applies the sysctl `name`. `Some` is a note that it had no effect. An error says why the script cannot run.
pub(crate) fn apply(config: &mut Config, name: &str, value: &str) -> Result<Option<String>, String> {
    if let Some((_, values)) = FIXED.iter().find(|(known, _)| *known == name)
        && values.contains(&value)
    {
        return Ok(None);
    }
    let tail = name.strip_prefix("net.inet.tcp.");
    if let Some((_, setting, unit)) = FREEBSD.iter().find(|(known, ..)| Some(*known) == tail) {
        return converted(config, setting, *unit, value)
            .map(|()| None)
            .map_err(|why| refused(name, value, &why));
    }
    let setting = match name {
        // The second of three values is the initial size, and the third the limit of the window.
        "net.ipv4.tcp_rmem" => {
            if let Some(largest) = value.split_whitespace().nth(2) {
                assign(config, "tcp_rcvbuf_max", largest).map_err(|why| refused(name, value, &why))?;
            }
            // It counts memory, half of which is for the window. DRILL-X35
            let sizes: Vec<_> = value.split_whitespace().collect();
            let size = sizes.get(1).or(sizes.first()).and_then(|size| size.parse::<u32>().ok());
            let window = size.map_or(value.to_owned(), |size| (size / 2).max(1).to_string());
            return assign(config, "tcp_rcvbuf", &window)
                .map(|()| None)
                .map_err(|why| refused(name, value, &why));
        }
        "net.ipv4.tcp_wmem" => return middle(config, "tcp_sndbuf", value, name),
        "net.ipv4.ip_local_port_range" => {
            let range = value.split_whitespace().collect::<Vec<_>>().join(" ");
            return assign(config, "ip_local_port_range", &range)
                .map(|()| None)
                .map_err(|why| refused(name, value, &why));
        }
        _ => BESIDE.iter().find(|(known, _)| *known == name).map_or(name, |(_, setting)| setting),
    };
    if setting.contains('.') && Config::setting(setting).is_none_or(|known| known.name != setting) {
        let known = NOTED.contains(&name);
        let note = format!("sysctl {name}: nothing of the kind is set here");
        return if known { Ok(Some(note)) } else { Err(format!("sysctl {name} cannot be mapped")) };
    }
    assign(config, setting, value).map(|()| None).map_err(|why| refused(name, value, &why))
}

fn refused(name: &str, value: &str, why: &str) -> String {
    format!("sysctl {name}={value} cannot be mapped: {why}")
}

fn assign(config: &mut Config, setting: &str, value: &str) -> Result<(), String> {
    // Scripts write some values in hexadecimal.
    let value = value.trim();
    let number = value.strip_prefix("0x").and_then(|hex| i64::from_str_radix(hex, 16).ok());
    let value = number.map_or(value.to_owned(), |number| number.to_string());
    config.apply(&format!("{setting} = {value}")).map_err(|error| error.to_string())
}

fn middle(config: &mut Config, setting: &str, value: &str, name: &str) -> Result<Option<String>, String> {
    let default = value.split_whitespace().nth(1).unwrap_or(value);
    assign(config, setting, default).map(|()| None).map_err(|why| refused(name, value, &why))
}

/// Sets a time to the millisecond.
fn millis(config: &mut Config, setting: &str, millis: u64) -> Result<(), String> {
    // The text checks the range.
    assign(config, setting, &millis.div_ceil(1000).to_string())?;
    let time = Duration::from_millis(millis);
    match setting {
        "tcp_syn_timeout" => config.tcp_syn_timeout = time,
        "tcp_keepalive_time" => config.tcp_keepalive_time = time,
        "tcp_keepalive_intvl" => config.tcp_keepalive_intvl = time,
        "tcp_fin_timeout" => config.tcp_fin_timeout = time,
        "tcp_tw_timeout" => config.tcp_tw_timeout = time,
        _ => {}
    }
    config.validate().map_err(|error| error.to_string())
}

fn converted(config: &mut Config, setting: &str, unit: Unit, value: &str) -> Result<(), String> {
    let number = || value.parse::<u64>().map_err(|_| "expected a number".to_owned());
    let text = match unit {
        Unit::Same => value.to_owned(),
        Unit::Millis => return millis(config, setting, number()?),
        Unit::MillisToMicros => (number()?.saturating_mul(1000)).to_string(),
        Unit::Msl => return millis(config, setting, number()?.saturating_mul(2)),
        Unit::Extensions => {
            let number = number()?;
            let on = |yes: bool| if yes { "1" } else { "0" };
            assign(config, "tcp_window_scaling", on(matches!(number, 1 | 2)))?;
            on(matches!(number, 1 | 3)).to_owned()
        }
        Unit::Delayed => if number()? == 0 { "0" } else { "40" }.to_owned(),
        Unit::CookiesOnly => if number()? != 0 { "2" } else { "1" }.to_owned(),
        Unit::FastOpen(bit) => {
            let on = number()? != 0;
            let (mode, bit) = (config.tcp_fastopen.number(), u32::from(bit));
            (if on { mode | bit } else { mode & !bit }).to_string()
        }
        Unit::Algorithm => if value == "newreno" { "reno" } else { value }.to_owned(),
    };
    assign(config, setting, &text)
}
