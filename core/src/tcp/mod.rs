//! TCP.
pub(crate) mod rtt;
