//! State of the IP layer: incomplete datagrams, path MTUs, rate limits of replies, local addresses.
//!
//! Each module is a small table that is independent of the others and of TCP. Time and settings are arguments, so that
//! a change of either takes effect at once. All are deterministic: none iterates in a random order, and the caller
//! passes in whatever must be unpredictable.

pub(crate) mod addresses;
pub(crate) mod fragments;
pub(crate) mod limit;
pub(crate) mod membership;
pub(crate) mod pmtu;
pub(crate) mod policy;
pub(crate) mod prefix;
pub(crate) mod recent;
pub(crate) mod routes;
