//! `steadfast drill run`: its output, its files and its exit status.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const GOOD: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n\
                    +0 < S 0:0(0) win 1000 <mss 1000>\n+0 > S. 0:0(0) ack 1 <mss 1460>\n";

fn drill(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.current_dir(directory).args(["drill", "run"]).args(args).output().unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir_all(folder.path().join("a/common")).unwrap();
    fs::create_dir_all(folder.path().join("family")).unwrap();
    write("a/good.pkt", GOOD);
    write("a/wrong.pkt", &GOOD.replace("ack 1 <", "ack 2 <"));
    write("a/broken.pkt", "0 < S");
    write("a/empty.pkt", "// nothing\n");
    write("a/other.pkt", "0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3\n");
    write("a/note.txt", "no script");
    write("a/common/setup.sh", "#!/bin/sh\nsysctl -q net.ipv4.tcp_syn_retries=1\n");
    let family = format!("{{% for ack in [1, 2] %}}\n=== ack {{{{ ack }}}}\n{GOOD}{{% endfor %}}\n");
    write("family/ack.pkt.jinja", &family.replace("ack 1 <", "ack {{ ack }} <"));
    write("family/wrong.pkt.jinja", "=== A\n\n{{ no_such_name }}\n");
    write("setup.pkt", &format!("`a/common/setup.sh`\n{GOOD}"));
    folder
}

#[test]
fn each_script_is_one_object_a_line() {
    let folder = folder();
    let output = drill(folder.path(), &["a", "--json", "--ip-version", "ipv4", "--ip-version", "ipv6"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |file: &str| -> Vec<&Value> { lines.iter().filter(|line| line["file"] == file).collect() };
    let results = |file: &str| of(file).iter().map(|o| o["result"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(results("a/good.pkt"), ["pass", "pass"]);
    assert_eq!(results("a/wrong.pkt"), ["fail", "fail"]);
    assert_eq!(results("a/broken.pkt"), ["error"]);
    assert_eq!(results("a/empty.pkt"), ["empty", "empty"]);
    assert_eq!(results("a/other.pkt"), ["skip", "skip"]);
    assert_eq!(of("a/good.pkt")[1]["ip_version"], "ipv6");
    assert_eq!((&of("a/wrong.pkt")[0]["line"], &of("a/broken.pkt")[0]["column"]), (&5.into(), &6.into()));
    assert_eq!(of("a/wrong.pkt")[0]["reason"], "acknowledgment number: expected 2, came 1");
}

#[test]
fn a_person_sees_what_failed_and_a_table() {
    let folder = folder();
    let output = drill(folder.path(), &["a", "setup.pkt", "--junit", "j.xml", "--pcap", "p.pcapng"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("a/wrong.pkt:5: fail (ipv4): acknowledgment number: expected 2, came 1"), "{text}");
    assert!(text.contains("a/broken.pkt:1:6: error (ipv4): line 1, column 6: expected"), "{text}");
    assert!(text.contains("1  sockets of SOCK_DGRAM are not interpreted"), "{text}");
    let numbers =
        |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ");
    let row = |name: &str| numbers(text.lines().rfind(|line| line.starts_with(name)).unwrap());
    assert_eq!((row("a "), row("all ")), ("1 1 1 1 1".to_owned(), "2 1 1 1 1".to_owned()));
    assert!(
        fs::read_to_string(folder.path().join("j.xml"))
            .unwrap()
            .contains("tests=\"6\" failures=\"1\" errors=\"1\"")
    );
    assert!(fs::metadata(folder.path().join("p.pcapng")).unwrap().len() > 500);
}

#[test]
fn only_a_run_without_failure_is_a_success() {
    let folder = folder();
    assert_eq!(drill(folder.path(), &["a/good.pkt", "setup.pkt", "a/other.pkt"]).status.code(), Some(0));
    assert_eq!(drill(folder.path(), &["a/wrong.pkt"]).status.code(), Some(1));
    assert_eq!(drill(folder.path(), &["a/none.pkt"]).status.code(), Some(2));
    assert_eq!(drill(folder.path(), &["a/common"]).status.code(), Some(2));
    assert_eq!(drill(folder.path(), &["a/good.pkt", "--ip-version", "ipv5"]).status.code(), Some(2));
    assert_eq!(drill(folder.path(), &["a/good.pkt", "--profile", "freebsd"]).status.code(), Some(0));
}

#[test]
fn each_script_of_a_family_is_a_run_of_its_own() {
    let folder = folder();
    let output = drill(folder.path(), &["family", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["file"].as_str().unwrap(), line["result"].as_str().unwrap(), line["line"].as_u64()))
        .collect();
    let expected = [
        ("family/ack.pkt.jinja: ack 1", "pass", None),
        ("family/ack.pkt.jinja: ack 2", "fail", Some(5)),
        ("family/wrong.pkt.jinja", "error", Some(3)),
    ];
    assert_eq!(told, expected);
    let output = drill(folder.path(), &["family/ack.pkt.jinja"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\n    5 | +0 > S. 0:0(0) ack 2 <mss 1460>\n"), "{text}");
}

#[test]
fn a_family_is_shown_as_it_is_run() {
    let folder = folder();
    let show = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        let output = command.current_dir(folder.path()).args(["drill", "show"]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let second = GOOD.replace("ack 1 <", "ack 2 <");
    assert_eq!(show(&["family/ack.pkt.jinja", "ack 2"]), (Some(0), second.clone()));
    let whole = format!("=== ack 1\n{GOOD}=== ack 2\n{second}");
    assert_eq!(show(&["family/ack.pkt.jinja"]), (Some(0), whole));
    assert_eq!(show(&["a/good.pkt"]), (Some(0), GOOD.to_owned()));
    assert_eq!(show(&["family/ack.pkt.jinja", "ack 3"]).0, Some(2));
    assert_eq!(show(&["family/wrong.pkt.jinja"]).0, Some(2));
}

#[test]
fn who_asks_for_it_sees_every_script_by_name() {
    let folder = folder();
    let text = |args: &[&str]| String::from_utf8(drill(folder.path(), args).stdout).unwrap();
    let named = text(&["a", "--verbose"]);
    assert!(named.contains("a/good.pkt: pass (ipv4)\n"), "{named}");
    assert!(
        named.contains("a/other.pkt: skip (ipv4): sockets of SOCK_DGRAM are not interpreted\n"),
        "{named}"
    );
    assert!(!text(&["a"]).contains("a/good.pkt"));
}

/// An option of packetdrill by its name is as one at the top of a script, and `--dry_run` only reads.
#[test]
fn options_of_packetdrill_are_taken_by_their_names() {
    let folder = folder();
    let status = |args: &[&str]| drill(folder.path(), args).status.code();
    assert_eq!(status(&["a/wrong.pkt", "--dry_run"]), Some(0));
    assert_eq!(status(&["a/broken.pkt", "--dry_run"]), Some(1));
    assert_eq!(status(&["a/good.pkt", "--ip_version=ipv6", "--mtu=1520", "--speed=10", "--debug"]), Some(0));
    assert_eq!(status(&["a/good.pkt", "--mtu=1400"]), Some(1));
    // An option that is wrong, before any script is read.
    assert_eq!(status(&["a/good.pkt", "--local_ip=192.0.2"]), Some(2));
    assert_eq!(status(&["a/good.pkt", "--non_fatal=everything"]), Some(2));
    assert_eq!(status(&["a/wrong.pkt", "--non_fatal=packet"]), Some(0));
}
