//! Tests of what `steadfast` and `tokio::net` have in common. There is one source of test cases, in
//! `tests/parity/cases`, and it is compiled once for each carrier:
//!
//! | carrier | the tested side | its peer |
//! |---|---|---|
//! | `loopback` | `tokio::net` | `tokio::net`, over the loopback interface of the kernel |
//! | `memory` | `steadfast` | `steadfast`, over a wire in memory, in virtual time |
//! | `tun` | `steadfast` | `tokio::net`, over a TUN device to the kernel |
//!
//! A case that passes on `loopback` says what Tokio does, so the other carriers say whether `steadfast` does the same.
//! A case for which the two differ belongs in the tests of `steadfast`, and the difference in its documentation.
#![forbid(unsafe_code)]
