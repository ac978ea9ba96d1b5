//! The application's half of a connection: handles, options, readiness.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, CongestionControl};
use crate::time::Duration;

slotmap::new_key_type! {
    /// The application's handle of a listener or a stream. It is never reused for another socket.
    pub struct SocketId;
}

/// What changed on a socket since the application last looked. Several changes come as one event.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Event(u8);

impl Event {
    /// A connect succeeded.
    pub const CONNECTED: Event = Event(1);
    /// There is something to read, or the end of the stream; of a listener: a connection to accept.
    pub const READABLE: Event = Event(2);
    /// There is room to write.
    pub const WRITABLE: Event = Event(4);
    /// The connection failed: [`Stack::take_error`](crate::Stack::take_error) says how.
    pub const ERROR: Event = Event(8);
    /// The connection is over in both directions; unread bytes can still be read.
    pub const CLOSED: Event = Event(16);
    /// Retransmissions reached R1: there may be a problem (SHLD-9), or a router reported one (MUST-47).
    pub const TROUBLE: Event = Event(32);
    /// Urgent data was announced (MUST-32).
    pub const URGENT: Event = Event(64);

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Event) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing changed.
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
        let names = ["CONNECTED", "READABLE", "WRITABLE", "ERROR", "CLOSED", "TROUBLE", "URGENT"];
        let set = names.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        f.debug_set().entries(set.map(|(_, name)| format_args!("{name}").to_string())).finish()
    }
}

/// Which direction a [`shutdown`](crate::Stack::shutdown) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// No more reading: what still arrives is discarded and acknowledged (SA-EST-25).
    Read,
    /// No more writing: FIN after what is queued (half-close).
    Write,
    /// Both.
    Both,
}

/// Which connections [`abort_all`](crate::Stack::abort_all) leaves alone, for a reset could cost their peers bytes that
/// they have not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spare {
    /// None.
    Nothing,
    /// Orphans whose peer has acknowledged everything, the FIN included.
    Delivered,
    /// Those that have sent everything, the FIN included, and have nothing unread.
    Sent,
}

/// What can be set for one socket. A stream from `accept` begins with those of its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Switch the Nagle algorithm off (`TCP_NODELAY`, MUST-17).
    pub nodelay: bool,
    /// Send full segments only, until it is switched off, the stream ends or the override timer fires (`TCP_CORK`,
    /// MAY-16).
    pub cork: bool,
    /// Probe idle connections (`SO_KEEPALIVE`, MUST-24; off by default, MUST-25).
    pub keepalive: bool,
    /// Idle time before the first probe (`TCP_KEEPIDLE`).
    pub keepalive_time: Duration,
    /// Time between probes (`TCP_KEEPINTVL`).
    pub keepalive_intvl: Duration,
    /// Unanswered probes that end the connection (`TCP_KEEPCNT`).
    pub keepalive_probes: u8,
    /// Longest time that sent data may stay unacknowledged (`TCP_USER_TIMEOUT`); it overrides R2 and the number of
    /// keepalive probes. Zero: off.
    pub user_timeout: Duration,
    /// R2 as a time (MUST-21); `None`: never give up.
    pub r2: Option<Duration>,
    /// What `close` does: `Some(0)` resets (`SO_LINGER` with zero); anything else ends in good order without waiting.
    pub linger: Option<Duration>,
    /// FIN-WAIT-2 of this socket once it is an orphan (`TCP_LINGER2`); zero: no limit.
    pub fin_timeout: Duration,
    /// Upper bound of the MSS announced and used (`TCP_MAXSEG`).
    pub max_segment: Option<u16>,
    /// Receive buffer, bytes (`SO_RCVBUF`). Counts when given to `listen` or `connect`.
    pub rcvbuf: u32,
    /// The window scale is chosen for this much, where it is more than `rcvbuf`. Counts when `rcvbuf` does.
    pub rcvbuf_max: u32,
    /// Send buffer, bytes (`SO_SNDBUF`).
    pub sndbuf: u32,
    /// TTL or hop limit (MUST-49).
    pub ttl: u8,
    /// DiffServ code point (MUST-48).
    pub dscp: u8,
    /// Congestion control. Counts when set before the connection is made.
    pub congestion: CongestionControl,
}

impl SocketOptions {
    /// The defaults that `config` gives.
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
            rcvbuf: config.tcp_rcvbuf,
            rcvbuf_max: config.tcp_rcvbuf_max,
            sndbuf: config.tcp_sndbuf,
            ttl: config.ip_default_ttl,
            dscp: 0,
            congestion: config.tcp_congestion_control,
        }
    }

    /// Takes over what differs between `before` and `after`.
    pub fn apply_changes(&mut self, before: &SocketOptions, after: SocketOptions) {
        macro_rules! apply {
            ($($field:ident)+) => {
                // A field that is missing here does not compile.
                let SocketOptions { $($field),+ } = after;
                $(if $field != before.$field {
                    self.$field = $field;
                })+
            };
        }
        apply!(nodelay cork keepalive keepalive_time keepalive_intvl keepalive_probes user_timeout r2 linger
            fin_timeout max_segment rcvbuf rcvbuf_max sndbuf ttl dscp congestion);
    }

    /// The smallest shift with which a window field covers the buffer (at most 14, 7323-3).
    pub(crate) fn window_scale(&self) -> u8 {
        let buffer = self.rcvbuf.max(self.rcvbuf_max);
        (0..14).find(|shift| buffer >> shift <= 0xffff).unwrap_or(14)
    }
}

/// What a listener is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Established connections that wait for `accept` at the most, capped by `somaxconn`. Exactly so many.
    pub backlog: u32,
    /// Accept Fast Open, where `tcp_fastopen` allows servers to.
    pub fast_open: bool,
    /// On `[::]`, take no IPv4 clients (`IPV6_V6ONLY`). Without it the listener takes both families, and shows IPv4
    /// ends as IPv4-mapped addresses.
    pub only_v6: bool,
    /// What the accepted streams begin with; `None`: the defaults of the configuration.
    pub socket: Option<SocketOptions>,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { backlog: 4096, fast_open: false, only_v6: false, socket: None }
    }
}

/// What a connect is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Local address; `None`: chosen by the destination (MUST-44).
    pub local_address: Option<IpAddr>,
    /// Local port; `None`: chosen from `ip_local_port_range` (RFC 6056).
    pub local_port: Option<u16>,
    /// Put the first data on the SYN, where `tcp_fastopen` allows clients to and a cookie is known. Only for
    /// requests that may arrive twice (7413-4).
    pub fast_open: bool,
    /// What the stream begins with; `None`: the defaults of the configuration.
    pub socket: Option<SocketOptions>,
}

impl ConnectOptions {
    /// From exactly this local end.
    pub fn from_local(local: SocketAddr) -> ConnectOptions {
        ConnectOptions {
            local_address: Some(local.ip()),
            local_port: Some(local.port()),
            ..Default::default()
        }
    }
}
