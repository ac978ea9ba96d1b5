//! Real input: the kernel of this machine talks to the stack, over a TUN device in a network namespace of the
//! test's own. Where that cannot be made, a test says so and passes; with `STEADFAST_REQUIRE_TUN=1` it fails.

mod drill;
mod http;
mod namespace;
mod offload;
mod services;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Whether the tool is run by root or by anybody else, without the right it says what is missing.
#[test]
fn without_the_right_to_make_a_device_one_line_says_what_is_missing() {
    let binary = env!("CARGO_BIN_EXE_steadfast");
    let args = "serve echo --tun sf0 --host 10.9.0.1/24 --address 10.9.0.2".split(' ');
    let output = if nix::unistd::geteuid().is_root() {
        // Where everybody may reach it, unlike perhaps the directory of the build.
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("steadfast");
        std::fs::copy(binary, &copy).unwrap();
        let nobody =
            ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
        Command::new("setpriv").args(nobody).arg(&copy).args(args).output().unwrap()
    } else {
        Command::new(binary).args(args).output().unwrap()
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("steadfast: cannot "), "{stderr}");
    assert!(stderr.contains("run as root") || stderr.contains("modprobe tun"), "{stderr}");
}
