//! Real input: the kernel of this machine talks to the stack, over a TUN device in a network namespace of the
//! test's own. Where that cannot be made, a test says so and passes; with `STEADFAST_REQUIRE_TUN=1` it fails.

mod drill;
mod http;
mod namespace;
mod offload;
mod services;

use crate::namespace::refused_without_rights;

/// Whether the tool is run by root or by anybody else, without the right it says what is missing.
#[test]
fn without_the_right_to_make_a_device_one_line_says_what_is_missing() {
    let stderr = refused_without_rights("serve echo --tun sf0 --host 10.9.0.1/24 --address 10.9.0.2");
    assert!(stderr.starts_with("steadfast: cannot "), "{stderr}");
    assert!(stderr.contains("run as root") || stderr.contains("modprobe tun"), "{stderr}");
}
