//! The names available to code: the fields of Linux's `tcp_info`, and its constants.

use std::collections::BTreeMap;

use steadfast_core::info::{CaState, Info};
use steadfast_core::time::Duration;
use steadfast_core::trace::State;

use super::Value;
use crate::subject::TcpInfo;

/// The value of `tcpi_snd_ssthresh` before the threshold is set.
const NO_THRESHOLD: i64 = 0x7fff_ffff;

const OPTION_TIMESTAMPS: i64 = 1;
const OPTION_SACK: i64 = 2;
const OPTION_WINDOW_SCALE: i64 = 4;
const OPTION_ECN: i64 = 8;
const OPTION_SYN_DATA: i64 = 32;

/// `TCP_INFO` of a connection of the stack.
pub(crate) fn info(info: &Info) -> TcpInfo {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let large = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mss = i64::from(info.snd_mss).max(1);
    let segments = |bytes: u32| (i64::from(bytes) + mss - 1) / mss;
    let scale = |shift: Option<u8>| i64::from(shift.unwrap_or(0));
    let threshold = match info.snd_ssthresh {
        u32::MAX => NO_THRESHOLD,
        bytes => i64::from(bytes) / mss,
    };
    let fields = [
        ("state", info.state.linux_number().into()),
        ("ca_state", ca_number(info.ca_state)),
        ("retransmits", i64::from(info.retransmits)),
        ("probes", i64::from(info.probes)),
        ("backoff", i64::from(info.backoff)),
        ("options", options(info)),
        ("snd_wscale", scale(info.snd_wscale)),
        ("rcv_wscale", scale(info.rcv_wscale)),
        ("rto", micros(info.rto)),
        ("rtt", micros(info.rtt)),
        ("rttvar", micros(info.rttvar)),
        ("min_rtt", micros(info.min_rtt)),
        ("snd_mss", i64::from(info.snd_mss)),
        ("rcv_mss", i64::from(info.rcv_mss)),
        ("advmss", i64::from(info.advmss)),
        ("pmtu", i64::from(info.pmtu)),
        ("snd_cwnd", i64::from(info.snd_cwnd) / mss),
        ("snd_ssthresh", threshold),
        ("unacked", info.segs_unacked.into()),
        ("lost", segments(info.lost)),
        ("retrans", segments(info.retrans)),
        ("delivered", large(info.delivered)),
        ("sacked", segments(info.sacked)),
        ("reordering", info.reordering.into()),
        ("reord_seen", info.reord_seen.into()),
        ("last_data_sent", millis(info.last_data_sent)),
        ("last_data_recv", millis(info.last_data_recv)),
        ("last_ack_recv", millis(info.last_ack_recv)),
        ("total_retrans", i64::from(info.total_retrans)),
        ("busy_time", micros(info.busy_time)),
        ("rwnd_limited", micros(info.rwnd_limited)),
        ("sndbuf_limited", micros(info.sndbuf_limited)),
        ("delivery_rate", large(info.delivery_rate)),
        ("delivery_rate_app_limited", info.delivery_rate_app_limited.into()),
        ("notsent_bytes", large(info.notsent_bytes)),
        ("bytes_acked", large(info.bytes_acked)),
        ("bytes_received", large(info.bytes_received)),
        ("snd_wnd", i64::from(info.snd_wnd)),
        ("rcv_wnd", i64::from(info.rcv_wnd)),
        // Linux begins with ten segments.
        ("rcv_space", i64::from(info.rcv_wnd).min(10 * i64::from(info.advmss))),
    ];
    TcpInfo { connection: true, fields: BTreeMap::from(fields) }
}

/// `TCP_INFO` with nothing but a state.
pub(crate) fn state_alone(state: State, connection: bool) -> TcpInfo {
    TcpInfo { connection, fields: BTreeMap::from([("state", state.linux_number().into())]) }
}

fn options(info: &Info) -> i64 {
    let bit = |on: bool, bit: i64| if on { bit } else { 0 };
    bit(info.timestamps, OPTION_TIMESTAMPS)
        | bit(info.sack, OPTION_SACK)
        | bit(info.snd_wscale.is_some(), OPTION_WINDOW_SCALE)
        | bit(info.ecn, OPTION_ECN)
        | bit(info.syn_data, OPTION_SYN_DATA)
}

fn ca_number(state: CaState) -> i64 {
    match state {
        CaState::Open => 0,
        CaState::Disorder => 1,
        CaState::Cwr => 2,
        CaState::Recovery => 3,
        CaState::Loss => 4,
    }
}

/// Constants from Linux's headers.
pub(crate) fn constant(name: &str) -> Option<Value> {
    const NAMES: [(&str, i64); 34] = [
        ("TCPI_OPT_TIMESTAMPS", OPTION_TIMESTAMPS),
        ("TCPI_OPT_SACK", OPTION_SACK),
        ("TCPI_OPT_WSCALE", OPTION_WINDOW_SCALE),
        ("TCPI_OPT_ECN", OPTION_ECN),
        ("TCPI_OPT_ECN_SEEN", 16),
        ("TCPI_OPT_SYN_DATA", OPTION_SYN_DATA),
        ("TCP_ESTABLISHED", 1),
        ("TCP_SYN_SENT", 2),
        ("TCP_SYN_RECV", 3),
        ("TCP_FIN_WAIT1", 4),
        ("TCP_FIN_WAIT2", 5),
        ("TCP_TIME_WAIT", 6),
        ("TCP_CLOSE", 7),
        ("TCP_CLOSE_WAIT", 8),
        ("TCP_LAST_ACK", 9),
        ("TCP_LISTEN", 10),
        ("TCP_CLOSING", 11),
        // FreeBSD's names. Only equality matters.
        ("TCPI_CLOSED", 7),
        ("TCPI_LISTEN", 10),
        ("TCPI_SYN_SENT", 2),
        ("TCPI_SYN_RECEIVED", 3),
        ("TCPI_ESTABLISHED", 1),
        ("TCPI_CLOSE_WAIT", 8),
        ("TCPI_FIN_WAIT_1", 4),
        ("TCPI_CLOSING", 11),
        ("TCPI_LAST_ACK", 9),
        ("TCPI_FIN_WAIT_2", 5),
        ("TCPI_TIME_WAIT", 6),
        ("TCP_CA_Open", 0),
        ("TCP_CA_Disorder", 1),
        ("TCP_CA_CWR", 2),
        ("TCP_CA_Recovery", 3),
        ("TCP_CA_Loss", 4),
        ("TCP_INFINITE_SSTHRESH", NO_THRESHOLD),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| Value::Integer(*value))
}
