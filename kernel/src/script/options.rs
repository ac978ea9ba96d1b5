//! Socket options, and `TCP_INFO`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use nix::sys::socket::{GetSockOpt, SetSockOpt, sockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use rustix::io::Errno as Error;
use steadfast_drill::subject::{Errno, Refused, Setting, SocketOption, TcpInfo};

use super::files::{File, name};

/// A table of integer options: level and name in scripts, and their numbers.
macro_rules! int_options {
    ($($option:ident: $level:literal $text:literal = $number:path, $flag:path;)*) => {
        mod int {
            use super::*;
            $(sockopt_impl!($option, Both, $number, $flag, i32);)*
        }

        fn get_int(file: &File, option: &SocketOption) -> Option<nix::Result<i32>> {
            match (option.level.as_str(), option.name.as_str()) {
                $(($level, $text) => Some(int::$option.get(file)),)*
                _ => None,
            }
        }

        fn set_int(file: &File, option: &SocketOption, value: i32) -> Option<nix::Result<()>> {
            match (option.level.as_str(), option.name.as_str()) {
                $(($level, $text) => Some(int::$option.set(file, &value)),)*
                _ => None,
            }
        }
    };
}

int_options! {
    ReuseAddr: "SOL_SOCKET" "SO_REUSEADDR" = libc::SOL_SOCKET, libc::SO_REUSEADDR;
    ReusePort: "SOL_SOCKET" "SO_REUSEPORT" = libc::SOL_SOCKET, libc::SO_REUSEPORT;
    Debug: "SOL_SOCKET" "SO_DEBUG" = libc::SOL_SOCKET, libc::SO_DEBUG;
    Priority: "SOL_SOCKET" "SO_PRIORITY" = libc::SOL_SOCKET, libc::SO_PRIORITY;
    Mark: "SOL_SOCKET" "SO_MARK" = libc::SOL_SOCKET, libc::SO_MARK;
    DontRoute: "SOL_SOCKET" "SO_DONTROUTE" = libc::SOL_SOCKET, libc::SO_DONTROUTE;
    KeepAlive: "SOL_SOCKET" "SO_KEEPALIVE" = libc::SOL_SOCKET, libc::SO_KEEPALIVE;
    OobInline: "SOL_SOCKET" "SO_OOBINLINE" = libc::SOL_SOCKET, libc::SO_OOBINLINE;
    RcvBuf: "SOL_SOCKET" "SO_RCVBUF" = libc::SOL_SOCKET, libc::SO_RCVBUF;
    SndBuf: "SOL_SOCKET" "SO_SNDBUF" = libc::SOL_SOCKET, libc::SO_SNDBUF;
    RcvBufForce: "SOL_SOCKET" "SO_RCVBUFFORCE" = libc::SOL_SOCKET, libc::SO_RCVBUFFORCE;
    SndBufForce: "SOL_SOCKET" "SO_SNDBUFFORCE" = libc::SOL_SOCKET, libc::SO_SNDBUFFORCE;
    RcvLowat: "SOL_SOCKET" "SO_RCVLOWAT" = libc::SOL_SOCKET, libc::SO_RCVLOWAT;
    Type: "SOL_SOCKET" "SO_TYPE" = libc::SOL_SOCKET, libc::SO_TYPE;
    Domain: "SOL_SOCKET" "SO_DOMAIN" = libc::SOL_SOCKET, libc::SO_DOMAIN;
    Protocol: "SOL_SOCKET" "SO_PROTOCOL" = libc::SOL_SOCKET, libc::SO_PROTOCOL;
    AcceptConn: "SOL_SOCKET" "SO_ACCEPTCONN" = libc::SOL_SOCKET, libc::SO_ACCEPTCONN;
    NoDelay: "IPPROTO_TCP" "TCP_NODELAY" = libc::IPPROTO_TCP, libc::TCP_NODELAY;
    Cork: "IPPROTO_TCP" "TCP_CORK" = libc::IPPROTO_TCP, libc::TCP_CORK;
    MaxSeg: "IPPROTO_TCP" "TCP_MAXSEG" = libc::IPPROTO_TCP, libc::TCP_MAXSEG;
    KeepIdle: "IPPROTO_TCP" "TCP_KEEPIDLE" = libc::IPPROTO_TCP, libc::TCP_KEEPIDLE;
    KeepIntvl: "IPPROTO_TCP" "TCP_KEEPINTVL" = libc::IPPROTO_TCP, libc::TCP_KEEPINTVL;
    KeepCnt: "IPPROTO_TCP" "TCP_KEEPCNT" = libc::IPPROTO_TCP, libc::TCP_KEEPCNT;
    SynCnt: "IPPROTO_TCP" "TCP_SYNCNT" = libc::IPPROTO_TCP, libc::TCP_SYNCNT;
    Linger2: "IPPROTO_TCP" "TCP_LINGER2" = libc::IPPROTO_TCP, libc::TCP_LINGER2;
    DeferAccept: "IPPROTO_TCP" "TCP_DEFER_ACCEPT" = libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT;
    WindowClamp: "IPPROTO_TCP" "TCP_WINDOW_CLAMP" = libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP;
    QuickAck: "IPPROTO_TCP" "TCP_QUICKACK" = libc::IPPROTO_TCP, libc::TCP_QUICKACK;
    UserTimeout: "IPPROTO_TCP" "TCP_USER_TIMEOUT" = libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT;
    FastOpen: "IPPROTO_TCP" "TCP_FASTOPEN" = libc::IPPROTO_TCP, libc::TCP_FASTOPEN;
    FastOpenConnect: "IPPROTO_TCP" "TCP_FASTOPEN_CONNECT" = libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT;
    NotSentLowat: "IPPROTO_TCP" "TCP_NOTSENT_LOWAT" = libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT;
    Inq: "IPPROTO_TCP" "TCP_INQ" = libc::IPPROTO_TCP, libc::TCP_INQ;
    RecvErr: "IPPROTO_IP" "IP_RECVERR" = libc::IPPROTO_IP, libc::IP_RECVERR;
    RecvErrV6: "IPPROTO_IPV6" "IPV6_RECVERR" = libc::IPPROTO_IPV6, libc::IPV6_RECVERR;
    Tos: "IPPROTO_IP" "IP_TOS" = libc::IPPROTO_IP, libc::IP_TOS;
    Ttl: "IPPROTO_IP" "IP_TTL" = libc::IPPROTO_IP, libc::IP_TTL;
    Mtu: "IPPROTO_IP" "IP_MTU" = libc::IPPROTO_IP, libc::IP_MTU;
    MtuDiscover: "IPPROTO_IP" "IP_MTU_DISCOVER" = libc::IPPROTO_IP, libc::IP_MTU_DISCOVER;
    FreeBind: "IPPROTO_IP" "IP_FREEBIND" = libc::IPPROTO_IP, libc::IP_FREEBIND;
    Transparent: "IPPROTO_IP" "IP_TRANSPARENT" = libc::IPPROTO_IP, libc::IP_TRANSPARENT;
    NoPort: "IPPROTO_IP" "IP_BIND_ADDRESS_NO_PORT" = libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT;
    Tclass: "IPPROTO_IPV6" "IPV6_TCLASS" = libc::IPPROTO_IPV6, libc::IPV6_TCLASS;
    UnicastHops: "IPPROTO_IPV6" "IPV6_UNICAST_HOPS" = libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS;
    MtuV6: "IPPROTO_IPV6" "IPV6_MTU" = libc::IPPROTO_IPV6, libc::IPV6_MTU;
    V6Only: "IPPROTO_IPV6" "IPV6_V6ONLY" = libc::IPPROTO_IPV6, libc::IPV6_V6ONLY;
}

sockopt_impl!(TcpInfoBytes, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; INFO_LEN]);

/// Sets an option. Options without a safe interface are refused.
pub(super) fn set(
    file: &File,
    option: &SocketOption,
    setting: &Setting,
) -> Result<Result<(), Errno>, Refused> {
    let set = match (setting, option.name.as_str()) {
        (Setting::Number(number), _) => set_int(file, option, *number as i32),
        (Setting::Linger(on, seconds), "SO_LINGER") => {
            let linger = libc::linger { l_onoff: i32::from(*on), l_linger: *seconds as i32 };
            Some(sockopt::Linger.set(file, &linger))
        }
        (Setting::Text(text), "TCP_CONGESTION") => {
            Some(sockopt::TcpCongestion.set(file, &OsString::from(text)))
        }
        _ => None,
    };
    set.map(|set| set.map_err(named)).ok_or_else(|| unknown(option))
}

/// Reads an option.
pub(super) fn get(file: &File, option: &SocketOption) -> Result<Result<Setting, Errno>, Refused> {
    let came = match option.name.as_str() {
        "SO_ERROR" => sockopt::SocketError
            .get(file)
            .map(|error| Setting::Error((error != 0).then(|| name(Error::from_raw_os_error(error))))),
        "SO_LINGER" => sockopt::Linger
            .get(file)
            .map(|linger| Setting::Linger(linger.l_onoff != 0, i64::from(linger.l_linger))),
        "TCP_CONGESTION" => sockopt::TcpCongestion
            .get(file)
            .map(|algorithm| Setting::Text(algorithm.to_string_lossy().into_owned())),
        "TCP_INFO" => TcpInfoBytes.get(file).map(|_| Setting::Opaque),
        _ => get_int(file, option)
            .ok_or_else(|| unknown(option))?
            .map(|number| Setting::Number(i64::from(number))),
    };
    Ok(came.map_err(named))
}

fn unknown(option: &SocketOption) -> Refused {
    Refused::Skip(format!("the socket option {} {} is not passed on", option.level, option.name))
}

fn named(error: nix::Error) -> Errno {
    name(Error::from_raw_os_error(error as i32))
}

/// Length of `struct tcp_info` up to `tcpi_snd_wnd`, which Linux has since 5.4.
const INFO_LEN: usize = 232;
/// `TCP_LISTEN`
const LISTENS: i64 = 10;

const BYTES: [(&str, usize); 6] =
    [("state", 0), ("ca_state", 1), ("retransmits", 2), ("probes", 3), ("backoff", 4), ("options", 5)];

const WORDS: [(&str, usize); 36] = [
    ("rto", 8),
    ("ato", 12),
    ("snd_mss", 16),
    ("rcv_mss", 20),
    ("unacked", 24),
    ("sacked", 28),
    ("lost", 32),
    ("retrans", 36),
    ("fackets", 40),
    ("last_data_sent", 44),
    ("last_ack_sent", 48),
    ("last_data_recv", 52),
    ("last_ack_recv", 56),
    ("pmtu", 60),
    ("rcv_ssthresh", 64),
    ("rtt", 68),
    ("rttvar", 72),
    ("snd_ssthresh", 76),
    ("snd_cwnd", 80),
    ("advmss", 84),
    ("reordering", 88),
    ("rcv_rtt", 92),
    ("rcv_space", 96),
    ("total_retrans", 100),
    ("segs_out", 136),
    ("segs_in", 140),
    ("notsent_bytes", 144),
    ("min_rtt", 148),
    ("data_segs_in", 152),
    ("data_segs_out", 156),
    ("delivered", 192),
    ("delivered_ce", 196),
    ("dsack_dups", 216),
    ("reord_seen", 220),
    ("rcv_ooopack", 224),
    ("snd_wnd", 228),
];

const LONG_WORDS: [(&str, usize); 10] = [
    ("pacing_rate", 104),
    ("max_pacing_rate", 112),
    ("bytes_acked", 120),
    ("bytes_received", 128),
    ("delivery_rate", 160),
    ("busy_time", 168),
    ("rwnd_limited", 176),
    ("sndbuf_limited", 184),
    ("bytes_sent", 200),
    ("bytes_retrans", 208),
];

/// `SIOCOUTQNSD`: bytes written and not yet sent.
pub(super) fn unsent(file: &File) -> Option<i64> {
    Some(tcp_info(file)?.fields["notsent_bytes"])
}

/// `TCP_INFO` of a socket.
pub(super) fn tcp_info(file: &File) -> Option<TcpInfo> {
    file.socket?;
    let bytes = TcpInfoBytes.get(file).ok()?;
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
    let long_word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
    let mut fields = BTreeMap::new();
    fields.extend(BYTES.map(|(name, at)| (name, i64::from(bytes[at]))));
    fields.extend(WORDS.map(|(name, at)| (name, i64::from(word(at)))));
    fields.extend(LONG_WORDS.map(|(name, at)| (name, i64::try_from(long_word(at)).unwrap_or(i64::MAX))));
    // Two fields of four bits, whose order depends on the byte order.
    let (low, high) = (i64::from(bytes[6] & 15), i64::from(bytes[6] >> 4));
    let (snd_wscale, rcv_wscale) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    fields.extend([("snd_wscale", snd_wscale), ("rcv_wscale", rcv_wscale)]);
    Some(TcpInfo { connection: fields["state"] != LISTENS, fields })
}
