//! TCP, laid out as RFC 9293 §3.10.7 is.
//!
//! Handlers change the connection that they are given and nothing else. They return changes to
//! the tables as an [`Outcome`](input::Outcome), which `stack/` applies.

pub(crate) mod bsd;
pub(crate) mod close;
pub(crate) mod closed;
pub(crate) mod congestion;
pub(crate) mod cookie;
pub(crate) mod dormant;
pub(crate) mod early;
pub(crate) mod ecn;
pub(crate) mod fast_open;
pub(crate) mod flight;
pub(crate) mod info;
pub(crate) mod input;
pub(crate) mod limits;
pub(crate) mod linux;
pub(crate) mod listen;
pub(crate) mod mtu;
pub(crate) mod output;
pub(crate) mod pace;
pub(crate) mod quanta;
pub(crate) mod rare;
pub(crate) mod reassembly;
pub(crate) mod receive;
pub(crate) mod recovery;
pub(crate) mod recycle;
pub(crate) mod refused;
pub(crate) mod room;
pub(crate) mod rtt;
pub(crate) mod segment;
pub(crate) mod send;
pub(crate) mod syn_sent;
pub(crate) mod tcb;
pub(crate) mod time_wait;
pub(crate) mod timers;
