//! The core as exchanges: one stack, segments made by hand on the other side, a clock that the test moves.
//!
//! A module per state of RFC 9293 §3.10.7, and for what crosses them: `synchronized` and `resets` (rows that six states
//! share),
//! `calls`, `carrying`, `when_to_send`, `loss`, `rate_reduction`, `recovery`, `tail_loss`, `stalls`, `hostile`, `out_of_order`, `reduction`, `round_trips`, `windows`, `timestamps` and
//! `urgent` (data), `slices`, `delivery_rate`, `living` (timers, limits, keepalive), `limits` (on time), `listing`, `path_mtu`, `ip`. A test's name says the
//! behaviour and ends with a row of the decision tables (`SA-EST-03`: `sa_est_03`); where it stands for more, its
//! comment lists them.

#![allow(unreachable_pub, reason = "its modules are its own")]

mod acks;
mod calls;
mod carrying;
mod closed;
mod closing;
mod counts;
mod datagrams;
mod delivery_rate;
mod fast_open;
mod forward;
mod going_down;
mod harness;
mod hostile;
mod interfaces;
mod ip;
mod limits;
mod link;
mod listen;
mod listing;
mod living;
mod loopback;
mod loss;
mod many;
mod membership;
mod memory;
mod out_of_order;
mod pacing;
mod path_mtu;
mod rate_reduction;
mod recovery;
mod reduction;
mod resets;
mod round_trips;
mod slices;
mod slow_start;
mod stalls;
mod strangers;
mod syn_received;
mod syn_sent;
mod synchronized;
mod tail_loss;
mod text;
mod time_wait;
mod timestamps;
mod turns;
mod udp;
mod urgent;
mod when_to_send;
mod windows;
