//! The parts of a connection that most connections never need.

use super::mtu::PmtuSearch;
use super::pace::Pace;
use super::quanta::Quanta;
use super::recovery::rack::Reordering;
use super::rtt::VarRound;
use super::tcb::Connection;
use crate::seq::SeqNum;
use crate::time::{Deadline, Stamp, Tick};
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
    pub(crate) reordering: Reordering,
    pub(crate) answers: Answers,
    /// A Fast Open cookie that replaces the client's, on our first SYN-ACK.
    pub(crate) cookie: Option<Cookie>,
}

/// The ACKs that were sent in answer to segments that are not acceptable, and Linux's view of ACKs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Answers {
    /// Challenge ACKs in the second that began at `challenge_from` (5961-9).
    pub(crate) challenges: u8,
    pub(crate) challenge_from: Tick,
    /// The last ACK of an out-of-window segment.
    pub(crate) invalid_at: Option<Stamp>,
    /// Data answers data, so that ACKs wait for it (`linux_release`).
    pub(crate) interactive: bool,
    /// There was a reason to hasten ACKs, so that those that are delayed wait in full (`linux_release`).
    pub(crate) hastened: bool,
}

const _: () = assert!(size_of::<Answers>() <= 12);

impl Connection {
    /// Returns the rarely needed part, to change it.
    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn answers(&self) -> Answers {
        self.rare.as_ref().map(|rare| rare.answers.clone()).unwrap_or_default()
    }

    #[inline]
    pub(super) fn is_interactive(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.answers.interactive)
    }

    /// The reordering that the connection has seen.
    pub(crate) fn reordering(&self) -> Reordering {
        self.rare.as_ref().map(|rare| rare.reordering).unwrap_or_default()
    }

    /// The next answer to an unacceptable segment is not held back.
    pub(super) fn forget_answer(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.answers.invalid_at = None;
        }
    }
}
