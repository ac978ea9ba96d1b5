//! What the IP layer remembers: incomplete datagrams, path MTUs, budgets of answers, our own addresses.
//!
//! Each module is a small table that knows nothing of the others nor of TCP. Time and settings come in as
//! arguments, so that a change of either takes effect at once. All are deterministic: they hold nothing that
//! iterates in a random order, and whatever must be unpredictable is handed in by the caller.

pub(crate) mod addresses;
pub(crate) mod fragments;
pub(crate) mod limit;
pub(crate) mod pmtu;
pub(crate) mod recent;
