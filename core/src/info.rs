//! The observable state of a stack: one connection, all of them, and the fill of every table.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use crate::socket::SocketId;
use crate::state::State;
use crate::time::Duration;
use crate::trace::TimerKind;

pub use crate::state::CaState;

/// The value of a field of [`Info`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A number, of bytes, segments or events.
    Number(u64),
    /// A time.
    Time(Duration),
    /// Whether something is in use.
    Switch(bool),
    /// A window shift; `None`: no scaling.
    Shift(Option<u8>),
    /// The time until a timer fires; `None`: it does not run.
    Timer(Option<Duration>),
    /// A state.
    State(State),
    /// A congestion control state.
    CaState(CaState),
    /// An address and port.
    Address(SocketAddr),
}

/// A type of a field of [`Info`].
trait Field: Into<Value> + Sized {
    /// The value without a connection.
    const NONE: Self;

    /// Returns the field of a value of its kind.
    fn of(value: Value) -> Option<Self>;
}

macro_rules! kinds_of_fields {
    ($($ty:ty = $none:expr, $value:ident => $kind:expr, $back:pat => $field:expr;)+) => { $(
        impl Field for $ty {
            const NONE: $ty = $none;

            fn of(value: Value) -> Option<$ty> {
                match value {
                    $back => $field,
                    _ => None,
                }
            }
        }

        impl From<$ty> for Value {
            fn from($value: $ty) -> Value {
                $kind
            }
        }
    )+ };
}

kinds_of_fields! {
    u16 = 0, n => Value::Number(n.into()), Value::Number(n) => n.try_into().ok();
    u32 = 0, n => Value::Number(n.into()), Value::Number(n) => n.try_into().ok();
    u64 = 0, n => Value::Number(n), Value::Number(n) => Some(n);
    bool = false, on => Value::Switch(on), Value::Switch(on) => Some(on);
    Duration = Duration::ZERO, time => Value::Time(time), Value::Time(time) => Some(time);
    Option<u8> = None, shift => Value::Shift(shift), Value::Shift(shift) => Some(shift);
    Option<Duration> = None, left => Value::Timer(left), Value::Timer(left) => Some(left);
    State = State::Closed, state => Value::State(state), Value::State(state) => Some(state);
    CaState = CaState::Open, state => Value::CaState(state), Value::CaState(state) => Some(state);
    SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), end => Value::Address(end),
        Value::Address(end) => Some(end);
}

macro_rules! info {
    ($( $(#[doc = $doc:literal])+ $field:ident: $ty:ty, )+) => {
        /// The state of one connection, with the fields of Linux's `tcp_info`.
        ///
        /// ```
        /// use steadfast_core::info::{Info, Value};
        ///
        /// let none = Info::default();
        /// assert!(none.iter().any(|field| field == ("snd_cwnd", Value::Number(0))));
        /// let mut some = none.clone();
        /// assert!(some.set("snd_cwnd", Value::Number(14_600)) && !some.set("snd_mss", Value::Number(1 << 16)));
        /// assert_eq!((some.snd_cwnd, some.snd_mss), (14_600, 0));
        /// ```
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct Info { $( $(#[doc = $doc])+ pub $field: $ty, )+ }

        impl Info {
            /// Iterates over all fields, each with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value)> + use<> {
                [$( (stringify!($field), Value::from(self.$field)), )+].into_iter()
            }

            /// Sets the field of this name. Returns whether there is one, and the value is of its kind and fits.
            pub fn set(&mut self, name: &str, value: Value) -> bool {
                $( if name == stringify!($field) {
                    return Field::of(value).map(|value| self.$field = value).is_some();
                } )+
                false
            }
        }

        impl Default for Info {
            /// Returns the values without a connection: closed, unspecified ends, zeros.
            fn default() -> Info {
                Info { $( $field: Field::NONE, )+ }
            }
        }
    };
}

info! {
    /// Connection state.
    state: State,
    /// Local end.
    local: SocketAddr,
    /// Remote end.
    remote: SocketAddr,
    /// Time in this state.
    state_age: Duration,
    /// Congestion control state.
    ca_state: CaState,
    /// Consecutive retransmission timeouts.
    retransmits: u32,
    /// Unanswered zero-window or keepalive probes.
    probes: u32,
    /// Number of times that the RTO was doubled.
    backoff: u32,
    /// Whether timestamps are in use.
    timestamps: bool,
    /// Whether SACK is in use.
    sack: bool,
    /// Whether ECN is in use.
    ecn: bool,
    /// Whether data of a SYN or SYN-ACK was taken (Fast Open).
    syn_data: bool,
    /// Shift of the windows that the peer advertises; `None`: no scaling.
    snd_wscale: Option<u8>,
    /// Shift of the windows that the local side advertises; `None`: no scaling.
    rcv_wscale: Option<u8>,
    /// Retransmission timeout, without back-off.
    rto: Duration,
    /// Smoothed round-trip time; zero before the first sample.
    rtt: Duration,
    /// Mean deviation of the round-trip time.
    rttvar: Duration,
    /// Smallest round-trip time of the last ten seconds with a sample; zero before the first one.
    min_rtt: Duration,
    /// Payload of a full segment that is sent, in bytes, less the options of an ordinary segment.
    snd_mss: u16,
    /// Largest payload received, in bytes. By Linux's rules at least 536, or what the peer's window makes of it.
    rcv_mss: u16,
    /// Advertised MSS, in bytes.
    advmss: u16,
    /// Path MTU, in bytes.
    pmtu: u16,
    /// Congestion window, in bytes.
    snd_cwnd: u32,
    /// Slow-start threshold, in bytes; `u32::MAX`: none yet.
    snd_ssthresh: u32,
    /// Bytes considered in the network: in flight, neither selectively acknowledged nor lost.
    in_flight: u32,
    /// Bytes sent but not acknowledged.
    unacked: u32,
    /// Selectively acknowledged bytes among `unacked`.
    sacked: u32,
    /// Bytes among `unacked` that were taken for lost, whether or not they were retransmitted.
    lost: u32,
    /// Bytes among `unacked` that were retransmitted, and neither acknowledged nor lost again.
    retrans: u32,
    /// Segments among `unacked`; where nothing knows their boundaries, as many as full ones would be.
    segs_unacked: u32,
    /// Segments delivered to the peer, the SYN included; zero without `tcp_gso_quanta`.
    delivered: u64,
    /// The furthest that data is known to come late, in segments, and at least `tcp_reordering`.
    reordering: u32,
    /// How often data came late that was sent once.
    reord_seen: u32,
    /// Memory that the send queue takes of the send buffer, in bytes.
    wmem_queued: u64,
    /// Window that the peer advertises, in bytes.
    snd_wnd: u32,
    /// Advertised receive window, in bytes.
    rcv_wnd: u32,
    /// Segments retransmitted.
    total_retrans: u32,
    /// Bytes per second that arrived at the peer in the last round trip that used the window; zero before it.
    delivery_rate: u64,
    /// Whether the application, or the peer's window, limited the round trip of `delivery_rate`.
    delivery_rate_app_limited: bool,
    /// Time in which something was queued or in flight; zero without `tcp_gso_quanta`, as the next two are.
    busy_time: Duration,
    /// Time in which the peer's window held data back.
    rwnd_limited: Duration,
    /// Time in which a writer waited for room, although everything had left and congestion control permitted more.
    sndbuf_limited: Duration,
    /// Bytes queued but not sent yet.
    notsent_bytes: u64,
    /// Bytes acknowledged by the peer.
    bytes_acked: u64,
    /// Bytes received in order.
    bytes_received: u64,
    /// Bytes that the application has not read yet (`Recv-Q`).
    recv_q: u64,
    /// Bytes that the peer has not acknowledged yet (`Send-Q`).
    send_q: u64,
    /// Bytes held out of order.
    out_of_order: u64,
    /// Time since data was last sent.
    last_data_sent: Duration,
    /// Time since data was last received; before that, since the connection began.
    last_data_recv: Duration,
    /// Time since the last ACK came.
    last_ack_recv: Duration,
    /// Time until the retransmission timer fires, or the probe timer instead of it; `None`: it does not run.
    retransmit_timer: Option<Duration>,
    /// Time until the next zero-window probe.
    persist_timer: Option<Duration>,
    /// Time until the delayed ACK.
    delayed_ack_timer: Option<Duration>,
    /// Time until the next keepalive probe, or until the end of an orphan.
    keepalive_timer: Option<Duration>,
}

/// A timer of a socket, as `ss -o` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketTimer {
    /// The kind. A loss probe counts as a retransmission.
    pub kind: TimerKind,
    /// Time until it fires.
    pub left: Duration,
    /// Retransmissions or probes without an answer.
    pub retries: u32,
}

impl SocketTimer {
    pub(crate) fn new(kind: TimerKind, left: Duration, retries: impl Into<u32>) -> SocketTimer {
        SocketTimer { kind, left, retries: retries.into() }
    }
}

/// One line of the socket listing, as in `ss`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SocketEntry {
    /// State.
    pub state: State,
    /// `Recv-Q`: unread bytes. On a listener: connections that wait to be accepted.
    pub recv_q: u64,
    /// `Send-Q`: unacknowledged bytes. On a listener: its backlog.
    pub send_q: u64,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end. On a listener: the unspecified address.
    pub remote: SocketAddr,
    /// Time in this state.
    pub state_age: Duration,
    /// The application's handle; `None`: an orphan, a half-open connection, or TIME-WAIT.
    pub socket: Option<SocketId>,
    /// The listener of a passively opened connection.
    pub listener: Option<SocketAddr>,
    /// Half-open connections of a listener.
    pub half_open: u32,
    /// The timer that fires next.
    pub timer: Option<SocketTimer>,
}

/// A place in the listing of sockets: [`Stack::sockets_from`](crate::Stack::sockets_from). The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCursor {
    pub(crate) table: u8,
    pub(crate) row: u32,
}

impl SocketCursor {
    /// Number of tables that the listing goes through.
    pub(crate) const TABLES: u8 = 8;
}

/// A likely problem with the connections of a stack: their peers have closed, and the application has not (CLOSE-WAIT).
/// It displays as a sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The listener's address, or the local end of an actively opened connection.
    pub owner: SocketAddr,
    /// The connections were accepted by a listener.
    pub passive: bool,
    /// Number of connections concerned.
    pub connections: usize,
    /// Age of the oldest of them.
    pub oldest: Duration,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnosis { owner, passive, connections, oldest } = self;
        let origin = if *passive { "accepted from listener" } else { "opened from" };
        let (noun, verb) = if *connections == 1 { ("connection", "stays") } else { ("connections", "stay") };
        let seconds = oldest.as_secs();
        write!(f, "{connections} {noun} {origin} {owner} {verb} in CLOSE-WAIT, the oldest for {seconds} s")
    }
}

macro_rules! usage {
    ($( $(#[doc = $doc:literal])+ $field:ident: $ty:ty, )+) => {
        /// The fill of every table. At rest all fields are zero but the application's `sockets` and `listeners`, and
        /// the cache of `path_mtus`.
        ///
        /// ```
        /// use steadfast_core::info::Usage;
        ///
        /// assert!(Usage::default().iter().all(|(_, fill)| fill == 0));
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Usage { $( $(#[doc = $doc])+ pub $field: $ty, )+ }

        impl Usage {
            /// Iterates over all fields, each with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$( (stringify!($field), self.$field as u64), )+].into_iter()
            }

            /// Adds the fill of another stack's tables.
            pub fn add(&mut self, other: &Usage) {
                $( self.$field += other.$field; )+
            }
        }
    };
}

usage! {
    /// Sockets that the application holds, including listeners.
    sockets: usize,
    /// Listeners.
    listeners: usize,
    /// Passive opens that wait for the third segment.
    half_open: usize,
    /// SYNs that wait for the decision of a forwarder.
    requests: usize,
    /// Active opens that wait for an answer.
    opening: usize,
    /// Connections with a full control block.
    connections: usize,
    /// Orphans among `connections`: no application holds them.
    orphans: usize,
    /// TIME-WAIT entries.
    time_wait: usize,
    /// Armed timers.
    timers: usize,
    /// Bytes in send, receive and out-of-order queues.
    buffered: u64,
    /// Bytes of memory that these queues take, limited by `tcp_mem`.
    held: u64,
    /// Incomplete datagrams.
    fragments: usize,
    /// Bytes of memory that these take.
    fragment_bytes: usize,
    /// Destinations whose path MTU is remembered.
    path_mtus: usize,
    /// Neighbours with an entry in the cache of hardware addresses.
    neighbours: usize,
    /// Bytes that wait for hardware addresses, and of frames of the link layer that wait for the device.
    neighbour_bytes: usize,
    /// Stateless replies that wait for the device.
    replies: usize,
    /// UDP sockets, and closed ones whose datagrams wait for the device.
    udp_sockets: usize,
    /// The cost of all datagrams that wait, in bytes, limited by `udp_mem`.
    udp_held: u64,
}
