//! The link layer of interfaces that carry frames: between the device and IP.
//!
//! Nothing here costs an interface of bare IP packets more than one comparison for each packet.

pub(crate) mod neighbours;
pub(crate) mod ports;
