use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::namespace::{Running, curl, enter_namespace, run, serve, steadfast};

const SIZE: usize = 1 << 30;
const BASES: [&str; 2] = ["http://10.9.0.2", "http://[fd09::2]"];

/// The content of `/bytes/…`, block by block.
fn blocks() -> impl Iterator<Item = Vec<u8>> {
    const BLOCK: usize = 1 << 20;
    (0..SIZE / BLOCK).map(|i| (i * BLOCK..(i + 1) * BLOCK).map(|at| (at % 251) as u8).collect())
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn hash_of_blocks() -> String {
    hex(blocks().fold(Sha256::new(), |hash, block| hash.chain_update(block)))
}

fn rate(what: &str, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    eprintln!("{what}: {:.2} Gbit/s", SIZE as f64 * 8e-9 / seconds);
}

#[test]
fn curl_downloads_1_gib_over_ipv4_and_ipv6() {
    if !enter_namespace(&["curl"]) {
        return;
    }
    let _server = serve("http");
    let expected = hash_of_blocks();
    for base in BASES {
        let since = Instant::now();
        let mut curl = curl(&[&format!("{base}/bytes/{SIZE}")]);
        let mut curl = Running::start(curl.stdout(Stdio::piped()));
        let mut body = curl.child.stdout.take().unwrap();
        let (mut hash, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            let len = body.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            hash.update(&buffer[..len]);
            total += len;
        }
        assert!(curl.wait().success(), "{:?}", curl.said);
        rate(&format!("download from {base}"), since);
        assert_eq!((total, hex(hash)), (SIZE, expected.clone()), "{base}");
    }
}

#[test]
fn curl_uploads_1_gib_over_ipv4_and_ipv6() {
    if !enter_namespace(&["curl"]) {
        return;
    }
    let _server = serve("http");
    let expected = format!("{{\"length\":{SIZE},\"sha256\":\"{}\"}}\n", hash_of_blocks());
    for base in BASES {
        let since = Instant::now();
        let mut curl = curl(&["--upload-file", "-", &format!("{base}/upload")]);
        let mut curl = Running::start(curl.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut body = curl.child.stdin.take().unwrap();
        let writer = thread::spawn(move || blocks().try_for_each(|block| body.write_all(&block)));
        let mut answer = String::new();
        curl.child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
        assert!(curl.wait().success(), "{:?}", curl.said);
        writer.join().unwrap().unwrap();
        rate(&format!("upload to {base}"), since);
        assert_eq!(answer, expected, "{base}");
    }
}

#[test]
fn a_directory_is_served_and_what_is_not_there_is_not_found() {
    if !enter_namespace(&["curl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    fs::write(dir.path().join("file.bin"), &content).unwrap();
    let _server = serve(&format!("http --dir {}", dir.path().display()));
    for base in BASES {
        let (status, body, errors) = run(&mut curl(&[&format!("{base}/file.bin")]), b"");
        assert!(status.success() && body == content, "{errors}");
        let code = ["--output", "/dev/null", "--write-out", "%{http_code}", &format!("{base}/other")];
        assert_eq!(run(&mut curl(&code), b"").1, b"404");
        let (_, body, _) = run(&mut curl(&[&format!("{base}/bytes/many")]), b"");
        assert!(body.starts_with(b"/bytes/many: expected a number of bytes"));
        let (_, body, _) = run(&mut curl(&["--data-binary", "abc", &format!("{base}/upload")]), b"");
        let sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected = format!("{{\"length\":3,\"sha256\":\"{sha256_of_abc}\"}}\n");
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}

#[test]
fn curl_to_a_closed_port_fails_at_once() {
    if !enter_namespace(&["curl"]) {
        return;
    }
    let _server = serve("http");
    for base in BASES {
        let since = Instant::now();
        let (status, _, errors) = run(&mut curl(&[&format!("{base}:81/")]), b"");
        assert_eq!(status.code(), Some(7), "{errors}");
        assert!(errors.contains("refused") || errors.contains("connect"), "{errors}");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
}

#[test]
fn connect_fetches_from_a_server_of_the_kernel_with_a_half_close() {
    if !enter_namespace(&["python3"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(dir.path().join("file.bin"), &content).unwrap();
    let mut server = Command::new("python3");
    server.args(["-u", "-m", "http.server", "80", "--bind", "::", "--directory"]).arg(dir.path());
    // Its ready line goes to standard output.
    let mut server = Running::start(server.stdout(Stdio::piped()));
    let mut ready = [0; 7];
    server.child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"Serving");

    for address in ["10.9.0.1:80", "[fd09::1]:80"] {
        let mut connect = steadfast(&format!("connect {address}"));
        let (status, answer, errors) = run(&mut connect, b"GET /file.bin HTTP/1.0\r\n\r\n");
        assert!(status.success(), "{errors}");
        assert!(answer.starts_with(b"HTTP/1.0 200 OK\r\n"));
        assert!(answer.ends_with(&content), "{} bytes from {address}", answer.len());
    }
}
