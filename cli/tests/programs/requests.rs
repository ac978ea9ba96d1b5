//! Many requests in parallel, in sequence, and per second.

use std::process::Command;
use std::thread;

use crate::namespace::{curl, enter_namespace, run, serve};

const BASES: [&str; 2] = ["http://10.9.0.2", "http://[fd09::2]"];

/// The end of a URL that makes curl send `count` requests.
fn times(count: usize) -> String {
    format!("/bytes/4096?[1-{count}]")
}

/// Sends `count` requests from concurrent curl processes, each with as many in parallel as it supports.
pub(crate) fn in_parallel(base: &str, count: usize) {
    const AT_ONCE: usize = 250;
    let each = count.min(AT_ONCE);
    let request = || {
        let url = format!("{base}{}", times(each));
        let max = each.to_string();
        // Without this switch, curl waits to see whether connections can be shared.
        let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", &max];
        let mut curl = curl(&[&url, "--fail", "--output", "/dev/null", "--write-out", "%{size_download}\n"]);
        let (status, sizes, errors) = run(curl.args(parallel), b"");
        assert!(status.success(), "{errors}");
        let sizes = String::from_utf8(sizes).unwrap();
        assert_eq!(sizes.lines().filter(|size| *size == "4096").count(), each, "{sizes}");
    };
    thread::scope(|scope| (0..count / each).for_each(|_| drop(scope.spawn(request))));
}

/// Sends `count` requests in sequence on one connection.
pub(crate) fn on_one_connection(base: &str, count: usize) {
    let url = format!("{base}{}", times(count));
    let line = "%{num_connects} %{size_download}\n";
    let mut curl = curl(&[&url, "--fail", "--output", "/dev/null", "--write-out", line]);
    let (status, said, errors) = run(&mut curl, b"");
    assert!(status.success(), "{errors}");
    let said = String::from_utf8(said).unwrap();
    let expected = "1 4096\n".to_owned() + &"0 4096\n".repeat(count - 1);
    assert!(said == expected, "{said}");
}

#[test]
fn curl_makes_1000_requests_in_parallel() {
    if !enter_namespace(&["curl"]) {
        return;
    }
    let mut server = serve("http");
    for base in BASES {
        in_parallel(base, 1000);
    }
    let status = server.status();
    assert!(status.counter("PassiveOpens") >= 2000, "a connection for each: {status:?}");
    assert_eq!(status.counter("ListenDrops"), 0, "{status:?}");
}

#[test]
fn curl_makes_2000_requests_on_one_connection() {
    if !enter_namespace(&["curl"]) {
        return;
    }
    let mut server = serve("http");
    for base in BASES {
        on_one_connection(base, 2000);
    }
    assert_eq!(server.status().counter("PassiveOpens"), 2);
}

/// wrk counts every kind of failed request.
#[test]
fn wrk_has_no_failed_request() {
    if !enter_namespace(&["wrk"]) {
        return;
    }
    let seconds = if crate::full() { 30 } else { 5 };
    let _server = serve("http");
    for base in BASES {
        for header in ["Connection: keep-alive", "Connection: close"] {
            let mut wrk = Command::new("wrk");
            wrk.args(["--threads", "2", "--connections", "64", "--timeout", "10s", "--header", header]);
            wrk.args([format!("--duration={seconds}s"), format!("{base}/bytes/1024")]);
            let (status, said, errors) = run(&mut wrk, b"");
            let said = String::from_utf8(said).unwrap();
            assert!(status.success(), "{errors}");
            assert!(said.contains("Requests/sec"), "{said}");
            assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{base}, {header}: {said}");
            eprintln!("{base}, {header}:\n{said}");
        }
    }
}
