//! Invalid input: one clear line, exit status 2, and no side effect.

use std::process::{Command, Output};

fn steadfast(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_steadfast")).args(args).output().unwrap()
}

#[track_caller]
fn refuses(args: &str, expected: &str) {
    let output = steadfast(&args.split(' ').collect::<Vec<_>>());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args}: {stderr}");
    assert!(stderr.contains(expected), "{args}: {stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn each_bad_argument_is_named_with_what_was_expected() {
    let ends = "--host 10.9.0.1/24 --address 10.9.0.2";
    refuses("serve", "<SERVICE>");
    refuses("serve gopher --address 10.9.0.2", "[possible values: echo, discard, chargen, http]");
    refuses("serve echo --host 10.9.0.1/24", "--address");
    refuses("serve echo --address 10.9.0", "expected an address, as 10.9.0.1/24 or fd09::1/64");
    refuses("serve echo --address 10.9.0.2/40", "expected a prefix from 0 to 32");
    refuses(
        "serve echo --host 10.9.0.1 --address 10.9.0.2",
        "--host 10.9.0.1: expected a prefix, as in 10.9.0.1/24",
    );
    refuses(
        "serve echo --host 10.9.0.1/24 --address 10.9.0.1",
        "steadfast: --address 10.9.0.1: this address was given before",
    );
    refuses(&format!("serve echo {ends} --port 0"), "0 is not in 1..=65535");
    refuses(&format!("serve echo {ends} --mtu 67"), "67 is not in 68..=65535");
    refuses(
        "serve echo --address fd09::2 --mtu 1279",
        "--mtu 1279: expected at least 1280, for fd09::2 is IPv6",
    );
    refuses(&format!("serve echo {ends} --dir /"), "--dir: `echo` serves no directory, only `http` does");
    refuses(&format!("serve http {ends} --dir /nowhere"), "--dir /nowhere: expected a directory");
    refuses(
        &format!("serve echo {ends} --tun a/b"),
        "`a/b` is no name of an interface; expected 1 to 15 letters",
    );
    refuses(&format!("serve echo {ends} --profile vms"), "expected a profile: default, linux, bsd or rfc");
    refuses(&format!("serve echo {ends} --sysctl tcp_retries2"), "expected `name = value`");
    refuses(
        &format!("serve echo {ends} --sysctl tcp_retries2=0"),
        "steadfast: --sysctl 'tcp_retries2=0': tcp_retries2: `0`: expected a number from 1 to 255",
    );
    refuses(&format!("serve echo {ends} --sysctl tcp_retry=1"), "`tcp_retry`: no such setting");
    refuses(
        &format!("connect 10.9.0.1 {ends}"),
        "`10.9.0.1`: expected HOST:PORT, as 10.9.0.1:80 or [fd09::1]:80",
    );
    refuses(&format!("connect 10.9.0.1:0 {ends}"), "expected HOST:PORT");
    refuses(
        &format!("connect [fd09::1]:80 {ends}"),
        "`[fd09::1]:80`: no --address is of the family of fd09::1",
    );
    refuses("config --sysctl nothing=1", "`nothing`: no such setting");
    refuses(&format!("connect 10.9.0.1:80 {ends} --pcap /nowhere/x"), "--pcap /nowhere/x: ");
}

#[test]
fn the_settings_of_each_profile_are_printed_and_can_be_changed() {
    let output = steadfast(&["config", "--profile", "linux", "--sysctl", "tcp_retries2=3"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("net.ipv4.tcp_syn_retries = 6 "), "{text}");
    assert!(text.contains("net.ipv4.tcp_retries2 = 3 "), "{text}");
}
