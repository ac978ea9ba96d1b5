//! Faults between the command and its network.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Output;

use crate::datagrams::serve_echo;
use crate::scene::{SERVER, Scene, serve_here};

/// Answers a request of HTTP.
pub(crate) fn answer(mut stream: TcpStream) {
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhold\n").unwrap();
    // The request must not be left unread: that would be a RST.
    let _ = crate::scene::read_all(&stream);
}

/// `curl`, which prints the body and on the next line the time in seconds.
pub(crate) fn curl(scene: &Scene, options: &[&str], url: &str) -> (Output, f64) {
    let curl = ["curl", "--silent", "--show-error", "--max-time", "20", "--write-out", "%{time_total}", url];
    let output = scene.run(options, &curl).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text.lines().last().and_then(|line| line.parse().ok());
    let seconds = seconds.unwrap_or_else(|| panic!("{output:?}"));
    (output, seconds)
}

#[test]
fn f25_a_lost_syn_takes_a_second_and_the_ladder_shows_it() {
    let Some(scene) = Scene::new() else { return };
    let url = format!("http://{SERVER}:{}/", scene.serve(answer));
    let (output, seconds) = curl(&scene, &[], &url);
    assert!(output.stdout.starts_with(b"hold\n") && output.stderr.is_empty(), "{output:?}");
    assert!(seconds < 0.5, "{seconds}");

    let file = scene.file("faults.pcapng");
    // The user must be able to write it.
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let capture = format!("--pcap={}", file.display());
    let options = ["--fault=lose C>S [S] 1", "--must-bite", "--report", "--ladder", &capture];
    let (output, seconds) = curl(&scene, &options, &url);
    assert!(output.stdout.starts_with(b"hold\n"), "{output:?}");
    assert!((1.0..1.5).contains(&seconds), "{seconds}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("`lose C>S [S] 1` hit 1 time\n"), "{errors}");
    let lost = errors.lines().find(|line| line.ends_with("lost: lose C>S [S] 1")).unwrap();
    assert!(lost.contains("-- [S] seq 0") && lost.contains("-X "), "{lost}");
    assert!(errors.lines().any(|line| line.contains("[S] seq 0") && line.ends_with("again")), "{errors}");
    let capture = fs::read(&file).unwrap();
    let has = |text: &[u8]| capture.windows(text.len()).any(|window| window == text);
    assert!(has(b"lost: lose C>S [S] 1") && has(b"hold\n"));
}

#[test]
fn f25_a_fault_that_hits_nothing_fails_if_it_must_bite() {
    let Some(scene) = Scene::new() else { return };
    let output = scene.run(&["--fault=lose C>S [S] 5", "--must-bite"], &["true"]).output().unwrap();
    let expected = "steadfast: --must-bite: no fault has hit a packet: `lose C>S [S] 5` hit 0 times\n";
    assert_eq!((output.status.code(), &*output.stderr), (Some(125), expected.as_bytes()));
}

#[test]
fn f25_the_local_server_of_a_program_is_reached_through_the_faults() {
    let Some(mut scene) = Scene::new() else { return };
    let here = serve_here(answer);
    local_server(&scene, here);
    // Over Ethernet.
    scene.device("closed");
    local_server(&scene, here);
}

fn local_server(scene: &Scene, here: std::net::SocketAddr) {
    let url = format!("http://127.0.0.1:{}/", here.port());
    let port = format!("--localhost={}", here.port());
    let (output, seconds) = curl(scene, &[&port], &url);
    assert!(output.stdout.starts_with(b"hold\n") && seconds < 0.5, "{output:?}");
    let (_, seconds) = curl(scene, &[&port, "--fault=latency C|S 50ms"], &url);
    assert!((0.2..1.0).contains(&seconds), "{seconds}");
    // Other ports are those of the command's own namespace.
    let other = scene.client(&[&port], &["dial", "127.0.0.1:9"]);
    assert_eq!(other, "ECONNREFUSED\n");
}

#[test]
fn f25_a_partition_lasts_as_long_as_it_says() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(answer);
    let url = format!("http://127.0.0.1:{}/", here.port());
    let port = format!("--localhost={}", here.port());
    // The first SYN is lost, and the second one comes a second later.
    let (output, seconds) = curl(&scene, &[&port, "--fault=partition C|S from 0s until 0.7s"], &url);
    assert!(output.stdout.starts_with(b"hold\n") && (1.0..1.7).contains(&seconds), "{output:?} {seconds}");
}

#[test]
fn f25_the_same_seed_loses_the_same_datagrams() {
    let Some(scene) = Scene::new() else { return };
    let port = serve_echo(&scene).to_string();
    let fault = format!("--fault=lose C>S udp dport {port} 30%");
    let seen = |seed: &str| scene.client(&[&fault, seed], &["numbered", SERVER, &port, "60"]);
    let first = seen("--seed=7");
    assert!((20..60).contains(&first.split_whitespace().count()), "{first}");
    assert_eq!(first, seen("--seed=7"));
    assert_ne!(first, seen("--seed=8"));
}

#[test]
fn f25_the_faults_of_a_scenario_and_of_a_preset_act() {
    let Some(scene) = Scene::new() else { return };
    let url = format!("http://{SERVER}:{}/", scene.serve(answer));
    // The third segment of the handshake is lost, and the request takes its place.
    let (output, seconds) = curl(&scene, &["--fault=H3b", "--must-bite", "--report"], &url);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.stdout.starts_with(b"hold\n") && seconds < 0.5, "{output:?} {seconds}");
    assert!(errors.contains("`lose C>S [.] 1` hit 1 time\n"), "{errors}");
    let (output, seconds) = curl(&scene, &["--fault=slow-accept"], &url);
    assert!(output.stdout.starts_with(b"hold\n") && (3.0..4.0).contains(&seconds), "{output:?} {seconds}");
}
