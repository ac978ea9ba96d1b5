//! The application's side of a connection: handles, options, readiness.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, CongestionControl, FastOpenKeys};
use crate::error::Error;
use crate::time::Duration;

slotmap::new_key_type! {
    /// An application's handle of a listener or a stream. It is never reused for another socket.
    pub struct SocketId;
}

/// The changes of a socket since the application's last poll. Several changes are merged into one event.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Event(u8);

impl Event {
    /// A connect succeeded.
    pub const CONNECTED: Event = Event(1);
    /// There is data or the end of the stream to read. On a listener: a connection to accept.
    pub const READABLE: Event = Event(2);
    /// There is room to write.
    pub const WRITABLE: Event = Event(4);
    /// The connection failed: [`Stack::take_error`](crate::Stack::take_error) returns the error.
    pub const ERROR: Event = Event(8);
    /// The connection is closed in both directions; unread bytes can still be read.
    pub const CLOSED: Event = Event(16);
    /// Retransmissions reached R1, so there may be a problem (RFC 9293 §3.8.3), or a router reported one (RFC 9293
    /// §3.9.1.8).
    // SHLD-9, MUST-47
    pub const SOFT_ERROR: Event = Event(32);
    /// The peer announced urgent data (RFC 9293 §3.8.5).
    // MUST-32
    pub const URGENT: Event = Event(64);

    /// Returns whether it contains all of `other`.
    pub const fn contains(self, other: Event) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether nothing changed.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for Event {
    type Output = Event;
    fn bitor(self, other: Event) -> Event {
        Event(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Event {
    fn bitor_assign(&mut self, other: Event) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["CONNECTED", "READABLE", "WRITABLE", "ERROR", "CLOSED", "SOFT_ERROR", "URGENT"];
        let set = names.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        f.debug_set().entries(set.map(|(_, name)| format_args!("{name}").to_string())).finish()
    }
}

/// The readiness of a socket, as `poll(2)` tells it: see [`Stack::readiness`](crate::Stack::readiness).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Readiness {
    /// A read returns bytes, the end of the stream or an error. On a listener: a connection can be accepted.
    pub readable: bool,
    /// A write queues bytes or returns an error.
    pub writable: bool,
    /// Nothing arrives any more: the peer has sent its FIN, or reading was shut down. Bytes may be left to read.
    pub read_closed: bool,
    /// Both directions are closed, as `POLLHUP` tells.
    pub write_closed: bool,
    /// The error that ended the connection was not returned yet.
    pub error: bool,
    /// Urgent data is left to read.
    pub urgent: bool,
}

/// The flags of a write: see [`Stack::send_with_flags`](crate::Stack::send_with_flags). They have an effect where
/// `tcp_gso_quanta` is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SendFlags {
    /// More data follows at once: hold back a partial segment (`MSG_MORE`).
    pub more: bool,
    /// The next write begins a segment of its own (`MSG_EOR`).
    pub end_of_record: bool,
}

/// An ICMP error that ended a handshake, as the error queue of `IP_RECVERR` has it: see
/// [`Stack::take_icmp_error`](crate::Stack::take_icmp_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct IcmpReport {
    /// The error that the connect failed with.
    pub error: Error,
    /// The type of the message.
    pub kind: u8,
    /// Its code.
    pub code: u8,
}

/// The direction that a [`shutdown`](crate::Stack::shutdown) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// No more reading: data that still arrives is acknowledged and discarded.
    // SA-EST-25
    Read,
    /// No more writing: FIN after the queued data (half-close).
    Write,
    /// Both.
    Both,
}

/// The connections that [`abort_all`](crate::Stack::abort_all) does not reset, because a reset could cost their peers
/// bytes that they have not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spare {
    /// No connections: all are reset.
    Nothing,
    /// Orphans whose peer has acknowledged everything, including the FIN.
    Delivered,
    /// Connections that have sent everything, including the FIN, and have nothing unread.
    Sent,
}

/// The options of one socket. A stream from `accept` starts with those of its listener.
///
/// ```
/// use steadfast_core::{Config, SocketOptions};
///
/// let options = SocketOptions::new(&Config::default()).with(|o| o.nodelay = true);
/// assert!(options.nodelay && !options.keepalive);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Disable the Nagle algorithm (`TCP_NODELAY`, RFC 9293 §3.7.4).
    // MUST-17
    pub nodelay: bool,
    /// Send only full segments, until this is switched off, the stream ends or the override timer fires (`TCP_CORK`,
    /// RFC 9293 §3.9.1.2).
    // MAY-16
    pub cork: bool,
    /// Probe idle connections (`SO_KEEPALIVE`, RFC 9293 §3.8.4, off by default).
    // MUST-24, MUST-25
    pub keepalive: bool,
    /// Idle time before the first probe (`TCP_KEEPIDLE`).
    pub keepalive_time: Duration,
    /// Time between probes (`TCP_KEEPINTVL`).
    pub keepalive_intvl: Duration,
    /// Number of unanswered probes after which the connection ends (`TCP_KEEPCNT`).
    pub keepalive_probes: u8,
    /// Longest time that sent data may stay unacknowledged (`TCP_USER_TIMEOUT`); overrides R2 and `keepalive_probes`.
    /// Zero: no limit.
    pub user_timeout: Duration,
    /// R2 as a time (RFC 9293 §3.8.3); `None`: never give up.
    // MUST-21
    pub r2: Option<Duration>,
    /// Behavior of `close`: `Some` of zero resets (`SO_LINGER` with zero); any other value closes gracefully without
    /// waiting.
    pub linger: Option<Duration>,
    /// Duration of FIN-WAIT-2 once this socket is an orphan (`TCP_LINGER2`); zero: no limit.
    pub fin_timeout: Duration,
    /// Upper bound of the MSS that is advertised and used (`TCP_MAXSEG`), in bytes.
    pub max_segment: Option<u16>,
    /// Neither send nor take TCP options (`TCP_NOOPT` of the BSDs). Takes effect only when passed to `listen` or `connect`.
    pub no_options: bool,
    /// Longest duration of a connect (`TCP_KEEPINIT` of the BSDs); zero: limited only by the number of retransmissions.
    pub syn_timeout: Duration,
    /// Retransmissions of a SYN, in place of `tcp_syn_retries` (`TCP_SYNCNT`).
    pub syn_retries: Option<u8>,
    /// Receive buffer, in bytes (`SO_RCVBUF`). Takes effect only when passed to `listen` or `connect`.
    pub rcvbuf: u32,
    /// The window scale is chosen for this many bytes, if they exceed `rcvbuf`. Takes effect when `rcvbuf` does.
    pub rcvbuf_max: u32,
    /// Send buffer, in bytes (`SO_SNDBUF`).
    pub sndbuf: u32,
    /// Unsent bytes at which writes are refused, in flight ones not counted (`TCP_NOTSENT_LOWAT`).
    pub notsent_lowat: u32,
    /// TTL or hop limit (RFC 9293 §3.9.2).
    // MUST-49
    pub ttl: u8,
    /// DiffServ code point (RFC 9293 §3.9.1.9).
    // MUST-48
    pub dscp: u8,
    /// Most bytes per second at which new data leaves (`SO_MAX_PACING_RATE`); `u64::MAX`: no limit.
    pub max_pacing_rate: u64,
    /// Congestion control. Takes effect only if set before the connection is made.
    pub congestion: CongestionControl,
    /// Fast Open without cookies (`TCP_FASTOPEN_NO_COOKIE`).
    pub fast_open_no_cookie: bool,
    /// Keys of a listener's Fast Open cookies (`TCP_FASTOPEN_KEY`); `None`: those of the configuration.
    pub fast_open_key: Option<FastOpenKeys>,
}

impl SocketOptions {
    /// Returns the defaults of `config`.
    pub fn new(config: &Config) -> SocketOptions {
        SocketOptions {
            nodelay: false,
            cork: false,
            keepalive: false,
            keepalive_time: config.tcp_keepalive_time,
            keepalive_intvl: config.tcp_keepalive_intvl,
            keepalive_probes: config.tcp_keepalive_probes,
            user_timeout: config.tcp_user_timeout,
            r2: Some(crate::tcp::rtt::model_timeout(config, config.tcp_retries2)),
            linger: None,
            fin_timeout: config.tcp_fin_timeout,
            max_segment: None,
            no_options: false,
            syn_timeout: config.tcp_syn_timeout,
            syn_retries: None,
            rcvbuf: config.tcp_rcvbuf,
            rcvbuf_max: config.tcp_rcvbuf_max,
            sndbuf: config.tcp_sndbuf,
            notsent_lowat: config.tcp_notsent_lowat,
            ttl: config.ip_default_ttl,
            dscp: 0,
            max_pacing_rate: u64::MAX,
            congestion: config.tcp_congestion_control,
            fast_open_no_cookie: false,
            fast_open_key: None,
        }
    }

    /// Returns the options after a change.
    pub fn with(mut self, change: impl FnOnce(&mut SocketOptions)) -> SocketOptions {
        change(&mut self);
        self
    }

    /// Applies the fields that differ between `before` and `after`.
    pub fn apply_changes(&mut self, before: &SocketOptions, after: SocketOptions) {
        macro_rules! apply {
            ($($field:ident)+) => {
                // A field missing here is a compile error.
                let SocketOptions { $($field),+ } = after;
                $(if $field != before.$field {
                    self.$field = $field;
                })+
            };
        }
        apply!(nodelay cork keepalive keepalive_time keepalive_intvl keepalive_probes user_timeout r2 linger
            fin_timeout max_segment no_options syn_timeout syn_retries rcvbuf rcvbuf_max sndbuf notsent_lowat ttl dscp
            max_pacing_rate congestion fast_open_no_cookie fast_open_key);
    }

    /// Returns the smallest shift with which a window field covers the buffer (at most 14, 7323-3).
    pub(crate) fn window_scale(&self) -> u8 {
        let buffer = self.rcvbuf.max(self.rcvbuf_max);
        (0..14).find(|shift| buffer >> shift <= 0xffff).unwrap_or(14)
    }
}

/// The options of a new listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// The most established connections that wait for `accept`, capped by `somaxconn`. The limit is exact.
    pub backlog: u32,
    /// Accept Fast Open, if `tcp_fastopen` allows it for servers.
    pub fast_open: bool,
    /// On `[::]`, accept no IPv4 clients (`IPV6_V6ONLY`). Otherwise the listener accepts both families and reports IPv4
    /// ends as IPv4-mapped addresses.
    pub only_v6: bool,
    /// Others that set this too may listen at the same end (`SO_REUSEPORT`). A keyed hash of its 4-tuple assigns each
    /// client to one of them. Clients that were assigned to a listener end with it.
    pub reuse_port: bool,
    /// Initial options of accepted streams; `None`: the defaults of the configuration.
    pub socket: Option<SocketOptions>,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { backlog: 4096, fast_open: false, only_v6: false, reuse_port: false, socket: None }
    }
}

/// The options of a connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Local address; `None`: chosen by destination (RFC 9293 §3.9.1.1).
    // MUST-44
    pub local_address: Option<IpAddr>,
    /// Local port; `None`: chosen from `ip_local_port_range` (RFC 6056).
    pub local_port: Option<u16>,
    /// Send the first data on the SYN, if `tcp_fastopen` allows it for clients and a cookie is known. Only for requests
    /// that may arrive twice (RFC 7413 §2.1).
    // 7413-4
    pub fast_open: bool,
    /// Initial options of the stream; `None`: the defaults of the configuration.
    pub socket: Option<SocketOptions>,
}

impl ConnectOptions {
    /// Returns options with this local end.
    pub fn from_local(local: SocketAddr) -> ConnectOptions {
        ConnectOptions {
            local_address: Some(local.ip()),
            local_port: Some(local.port()),
            ..Default::default()
        }
    }
}
