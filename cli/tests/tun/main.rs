//! Real input: this machine's kernel talks to the stack over a TUN device, in the test's own network namespace.
//!
//! If that is not available, a test says so and passes; with `STEADFAST_REQUIRE_TUN=1` it fails.
#![cfg(target_os = "linux")]

mod drill;
mod http;
mod live;
mod namespace;
mod offload;
mod services;

use crate::namespace::refused_without_rights;

/// Without the right to create a device, the tool says what is missing, for root and for any other user.
#[test]
fn without_the_right_to_make_a_device_one_line_says_what_is_missing() {
    let stderr = refused_without_rights("serve echo --tun sf0 --host 10.9.0.1/24 --address 10.9.0.2");
    assert!(stderr.starts_with("steadfast: cannot "), "{stderr}");
    assert!(stderr.contains("run as root") || stderr.contains("modprobe tun"), "{stderr}");
}
