//! The parts of a connection that most connections never need.

use super::mtu::PmtuSearch;
use super::pace::Pace;
use super::quanta::Quanta;
use super::rtt::VarRound;
use crate::seq::SeqNum;
use crate::time::Deadline;
use crate::wire::tcp::Cookie;

/// Allocated when the first part is needed, and kept.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Rare {
    /// Duplicate data to report (RFC 2883); empty: none.
    pub(crate) dsack: (SeqNum, SeqNum),
    /// The last segment that is too big for the path, as an ICMP error claims that nothing confirmed yet (5927-4).
    pub(crate) too_big: SeqNum,
    /// SND.UP: where the urgent data ends that the application sent.
    pub(crate) urgent_end: Option<SeqNum>,
    /// RCV.UP, until the application has read so far.
    pub(crate) urgent_received: Option<SeqNum>,
    pub(crate) total_retrans: u32,
    /// D-SACKs that may report one of these retransmissions.
    pub(crate) dsacks: u32,
    /// The timestamp of duplicate data, to be echoed instead of TS.Recent.
    pub(crate) echo: Option<u32>,
    pub(crate) pmtu_search: Option<PmtuSearch>,
    /// Until when a report of a smaller path MTU is believed (1191-2).
    pub(crate) pmtu_until: Option<Deadline>,
    /// Exists once new data was paced.
    pub(crate) pace: Option<Pace>,
    /// The boundaries of what is queued to be sent; exists once something was, with `tcp_gso_quanta`.
    pub(crate) quanta: Option<Box<Quanta>>,
    /// Reads of an empty queue find the end, but data is queued (`tcp_shut_rd_keeps`).
    pub(crate) read_shut: bool,
    /// Data of a SYN was taken, or of a SYN-ACK (`TCPI_OPT_SYN_DATA`).
    pub(crate) syn_data: bool,
    pub(crate) var_round: VarRound,
    /// A Fast Open cookie that replaces the client's, on our first SYN-ACK.
    pub(crate) cookie: Option<Cookie>,
}
