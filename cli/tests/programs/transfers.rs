//! Rate-limited transfers, and `steadfast connect` as the client of real servers.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use sha2::{Digest, Sha256};

use crate::namespace::{Running, curl, enter_namespace, run, serve, steadfast};

/// The content of `/bytes/…` and of the servers' files.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Downloads and checks `len` bytes.
pub(crate) fn download(base: &str, len: usize, options: &[&str]) {
    let (status, body, errors) = run(curl(&[&format!("{base}/bytes/{len}")]).args(options), b"");
    assert!(status.success(), "{errors}");
    assert!(body == pattern(len), "{} bytes from {base}", body.len());
}

/// Uploads `len` bytes and checks the server's reply.
pub(crate) fn upload(base: &str, len: usize, options: &[&str]) {
    let body = pattern(len);
    let hash: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let (status, said, errors) =
        run(curl(&["--upload-file", "-", &format!("{base}/upload")]).args(options), &body);
    assert!(status.success(), "{errors}");
    let expected = format!("{{\"length\":{len},\"sha256\":\"{hash}\"}}\n");
    assert_eq!(String::from_utf8(said).unwrap(), expected, "to {base}");
}

/// curl reads (and writes) in bursts and sleeps in between, so windows fill and open again.
#[test]
fn curl_transfers_at_a_limited_rate() {
    if !enter_namespace(&["curl"]) {
        return;
    }
    let _server = serve("http");
    thread::scope(|scope| {
        for base in ["http://10.9.0.2", "http://[fd09::2]"] {
            scope.spawn(move || download(base, 12_000_000, &["--limit-rate", "2M"]));
            scope.spawn(move || upload(base, 12_000_000, &["--limit-rate", "2M"]));
        }
    });
}

/// The test's own nginx on port 80, which serves `dir`.
pub(crate) fn nginx(dir: &Path) -> Running {
    let at = dir.display();
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temps: String = temps.iter().map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).collect();
    let config = format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {at}/nginx.pid;\nerror_log stderr notice;\n\
         events {{}}\nhttp {{\naccess_log off;\nsendfile on;\n{temps}\
         server {{ listen 80; listen [::]:80; root {at}; }}\n}}\n"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let mut nginx = Running::start(Command::new("nginx").arg("-e").arg("stderr").arg("-c").arg(path));
    // It prints its version once it listens.
    nginx.wait_for("nginx/");
    nginx
}

/// Requests two files on one connection through `steadfast connect`, and checks them.
pub(crate) fn connect_fetches(connect: &mut Command, content: &[u8]) {
    let request = b"GET /file.bin HTTP/1.1\r\nHost: x\r\n\r\n\
                    GET /file.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut client = Running::start(connect.stdin(Stdio::piped()).stdout(Stdio::piped()));
    // The input stays open: nginx does not answer a client that half-closes, not even the kernel.
    let mut input = client.child.stdin.take().unwrap();
    input.write_all(request).unwrap();
    let mut output = BufReader::new(client.child.stdout.take().unwrap());
    for _ in 0..2 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            output.read_until(b'\n', &mut head).unwrap();
        }
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let mut body = vec![0; content.len()];
        output.read_exact(&mut body).unwrap();
        assert!(body == content);
    }
    drop(input);
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
    assert!(client.wait().success(), "{:?}", client.said);
}

#[test]
fn connect_fetches_twice_from_nginx_on_one_connection() {
    if !enter_namespace(&["nginx"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = pattern(50_000_000);
    fs::write(dir.path().join("file.bin"), &content).unwrap();
    let _nginx = nginx(dir.path());
    for address in ["10.9.0.1:80", "[fd09::1]:80"] {
        connect_fetches(&mut steadfast(&format!("connect {address}")), &content);
    }
}
