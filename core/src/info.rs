//! What can be seen of a stack from outside: one connection, all of them, and the fill of every table.

use std::net::SocketAddr;

use crate::socket::SocketId;
use crate::time::Duration;
use crate::trace::State;

/// Where congestion control stands, as `tcpi_ca_state` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum CaState {
    /// No trouble.
    #[default]
    Open,
    /// Duplicate ACKs or SACK blocks, not enough of them to act on.
    Disorder,
    /// Fast recovery.
    Recovery,
    /// Recovery after a retransmission timeout.
    Loss,
}

/// The state of one connection, with the fields of Linux's `tcp_info`.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Connection state.
    pub state: State,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// How long the connection has been in this state.
    pub state_age: Duration,
    /// Congestion control state.
    pub ca_state: CaState,
    /// Retransmission timeouts in a row.
    pub retransmits: u32,
    /// Unanswered zero-window or keepalive probes.
    pub probes: u32,
    /// Doublings of the RTO.
    pub backoff: u32,
    /// Timestamps are on.
    pub timestamps: bool,
    /// SACK is on.
    pub sack: bool,
    /// ECN is on.
    pub ecn: bool,
    /// Shift of the windows that the peer announces; `None`: scaling is off.
    pub snd_wscale: Option<u8>,
    /// Shift of the windows that we announce.
    pub rcv_wscale: Option<u8>,
    /// Retransmission timeout, back-off not included.
    pub rto: Duration,
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rttvar: Duration,
    /// Smallest round-trip time seen; zero before the first sample.
    pub min_rtt: Duration,
    /// Payload of a full segment that we send, options of an ordinary segment subtracted.
    pub snd_mss: u16,
    /// Largest payload received.
    pub rcv_mss: u16,
    /// The MSS that we announced.
    pub advmss: u16,
    /// Path MTU.
    pub pmtu: u16,
    /// Congestion window, bytes.
    pub snd_cwnd: u32,
    /// Slow-start threshold, bytes; `u32::MAX`: none yet.
    pub snd_ssthresh: u32,
    /// Bytes in flight (RFC 6675 pipe).
    pub in_flight: u32,
    /// Bytes sent and not acknowledged.
    pub unacked: u32,
    /// Of these, bytes selectively acknowledged.
    pub sacked: u32,
    /// Send window of the peer, bytes.
    pub snd_wnd: u32,
    /// Receive window that we announced, bytes.
    pub rcv_wnd: u32,
    /// Segments retransmitted.
    pub total_retrans: u32,
    /// Bytes queued and not sent yet.
    pub notsent_bytes: u64,
    /// Bytes that the peer acknowledged.
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

/// One line of the socket listing: what `ss` shows.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketEntry {
    /// State.
    pub state: State,
    /// `Recv-Q`: unread bytes; of a listener, connections that wait to be accepted.
    pub recv_q: u64,
    /// `Send-Q`: unacknowledged bytes; of a listener, its backlog.
    pub send_q: u64,
    /// Our end.
    pub local: SocketAddr,
    /// The other end; of a listener, the unspecified address.
    pub remote: SocketAddr,
    /// How long it has been in this state.
    pub state_age: Duration,
    /// The application's handle; `None`: an orphan, a half-open connection, a TIME-WAIT.
    pub socket: Option<SocketId>,
    /// The listener that it came from, if it was opened passively.
    pub listener: Option<SocketAddr>,
    /// Half-open connections of a listener.
    pub half_open: u32,
}

/// What looks wrong with the connections of a stack, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Whose connections: the listener's address, or the local end of a connection opened actively.
    pub owner: SocketAddr,
    /// How many.
    pub connections: usize,
    /// The oldest of them.
    pub oldest: Duration,
    /// What it means and where to look.
    pub text: String,
}

/// The fill of every table. At rest all but `sockets` and `listeners` of the application are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sockets that the application holds, listeners included.
    pub sockets: usize,
    /// Listeners.
    pub listeners: usize,
    /// Passive opens that wait for the third segment.
    pub half_open: usize,
    /// Active opens that wait for an answer.
    pub opening: usize,
    /// Connections with a full control block.
    pub connections: usize,
    /// Of these, those that no application holds.
    pub orphans: usize,
    /// TIME-WAIT entries.
    pub time_wait: usize,
    /// Timers that are armed.
    pub timers: usize,
    /// Bytes in send, receive and out-of-order queues.
    pub buffered: u64,
    /// Bytes of memory that these queues take: what `tcp_mem` bounds.
    pub held: u64,
    /// Incomplete datagrams.
    pub fragments: usize,
    /// Bytes that they take.
    pub fragment_bytes: usize,
    /// Destinations whose path MTU is remembered.
    pub path_mtus: usize,
    /// Stateless answers that wait for the device.
    pub replies: usize,
}

impl Usage {
    /// Adds what the tables of another stack hold.
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
