//! What happened on a network, and its pictures.
#![forbid(unsafe_code)]

pub mod junit;
pub mod pcapng;
