//! The observable state of a stack: one connection, all of them, and the fill of every table.

use std::net::SocketAddr;

use crate::socket::SocketId;
use crate::state::State;
use crate::time::Duration;

pub use crate::state::CaState;

/// The state of one connection, with the fields of Linux's `tcp_info`.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Connection state.
    pub state: State,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Time in this state.
    pub state_age: Duration,
    /// Congestion control state.
    pub ca_state: CaState,
    /// Consecutive retransmission timeouts.
    pub retransmits: u32,
    /// Unanswered zero-window or keepalive probes.
    pub probes: u32,
    /// Number of times that the RTO was doubled.
    pub backoff: u32,
    /// Whether timestamps are in use.
    pub timestamps: bool,
    /// Whether SACK is in use.
    pub sack: bool,
    /// Whether ECN is in use.
    pub ecn: bool,
    /// Shift of the windows that the peer advertises; `None`: no scaling.
    pub snd_wscale: Option<u8>,
    /// Shift of the windows that the local side advertises; `None`: no scaling.
    pub rcv_wscale: Option<u8>,
    /// Retransmission timeout, without back-off.
    pub rto: Duration,
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt: Duration,
    /// Mean deviation of the round-trip time.
    pub rttvar: Duration,
    /// Smallest round-trip time seen; zero before the first sample.
    pub min_rtt: Duration,
    /// Payload of a full segment that is sent, in bytes, less the options of an ordinary segment.
    pub snd_mss: u16,
    /// Largest payload received, in bytes.
    pub rcv_mss: u16,
    /// Advertised MSS, in bytes.
    pub advmss: u16,
    /// Path MTU, in bytes.
    pub pmtu: u16,
    /// Congestion window, in bytes.
    pub snd_cwnd: u32,
    /// Slow-start threshold, in bytes; `u32::MAX`: none yet.
    pub snd_ssthresh: u32,
    /// Bytes in flight (RFC 6675 pipe).
    pub in_flight: u32,
    /// Bytes sent but not acknowledged.
    pub unacked: u32,
    /// Selectively acknowledged bytes among `unacked`.
    pub sacked: u32,
    /// Window that the peer advertises, in bytes.
    pub snd_wnd: u32,
    /// Advertised receive window, in bytes.
    pub rcv_wnd: u32,
    /// Segments retransmitted.
    pub total_retrans: u32,
    /// Bytes queued but not sent yet.
    pub notsent_bytes: u64,
    /// Bytes acknowledged by the peer.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Bytes that the application has not read yet (`Recv-Q`).
    pub recv_q: u64,
    /// Bytes that the peer has not acknowledged yet (`Send-Q`).
    pub send_q: u64,
    /// Bytes held out of order.
    pub out_of_order: u64,
}

/// One line of the socket listing, as in `ss`.
#[derive(Clone, Debug, PartialEq)]
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
}

/// A likely problem with the connections of a stack, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// The listener's address, or the local end of an actively opened connection.
    pub owner: SocketAddr,
    /// Number of connections concerned.
    pub connections: usize,
    /// Age of the oldest of them.
    pub oldest: Duration,
    /// The meaning, and where to look.
    pub text: String,
}

/// The fill of every table. At rest all fields are zero but the application's `sockets` and `listeners`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sockets that the application holds, including listeners.
    pub sockets: usize,
    /// Listeners.
    pub listeners: usize,
    /// Passive opens that wait for the third segment.
    pub half_open: usize,
    /// Active opens that wait for an answer.
    pub opening: usize,
    /// Connections with a full control block.
    pub connections: usize,
    /// Orphans among `connections`: no application holds them.
    pub orphans: usize,
    /// TIME-WAIT entries.
    pub time_wait: usize,
    /// Armed timers.
    pub timers: usize,
    /// Bytes in send, receive and out-of-order queues.
    pub buffered: u64,
    /// Bytes of memory that these queues take, limited by `tcp_mem`.
    pub held: u64,
    /// Incomplete datagrams.
    pub fragments: usize,
    /// Bytes of memory that these take.
    pub fragment_bytes: usize,
    /// Destinations whose path MTU is remembered.
    pub path_mtus: usize,
    /// Stateless replies that wait for the device.
    pub replies: usize,
}

impl Usage {
    /// Adds the fill of another stack's tables.
    pub fn add(&mut self, other: &Usage) {
        let Usage {
            sockets,
            listeners,
            half_open,
            opening,
            connections,
            orphans,
            time_wait,
            timers,
            buffered,
            held,
            fragments,
            fragment_bytes,
            path_mtus,
            replies,
        } = other;
        self.sockets += sockets;
        self.listeners += listeners;
        self.half_open += half_open;
        self.opening += opening;
        self.connections += connections;
        self.orphans += orphans;
        self.time_wait += time_wait;
        self.timers += timers;
        self.buffered += buffered;
        self.held += held;
        self.fragments += fragments;
        self.fragment_bytes += fragment_bytes;
        self.path_mtus += path_mtus;
        self.replies += replies;
    }
}
