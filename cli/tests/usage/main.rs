//! Invalid input: one clear line, exit status 2, and no side effect.

use std::process::{Command, Output};

mod deploy;

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
    refuses(
        &format!("serve echo {ends} --profile vms"),
        "expected a profile: default, linux, bsd, rfc or freebsd",
    );
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
    refuses("config --sysctl-file /nowhere/x", "--sysctl-file /nowhere/x: ");
    refuses("config --strict", "--sysctl-file");
    refuses(&format!("connect 10.9.0.1:80 {ends} --source-port 0"), "0 is not in 1..=65535");
    refuses(
        &format!("connect 10.9.0.1:80 {ends} --option ttl=0"),
        "expected `ttl=` and a number from 1 to 255",
    );
    refuses(&format!("serve echo {ends} --backlog 0"), "0 is not in 1..");
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

/// Loads the settings that operators are told to set against connections in TIME-WAIT that pile up, beside others.
const CARRIED: &str = "# from the old servers\n; twice\n\nnet.ipv4.tcp_syn_retries = 2\nnet.ipv4.tcp_synack_retries=2\n\
    net/ipv4/tcp_keepalive_time = 1200\nnet.ipv4.tcp_orphan_retries = 3\nnet.ipv4.tcp_fin_timeout = 30\n\
    net.ipv4.tcp_max_syn_backlog = 4096\nnet.ipv4.tcp_syncookies = 1\nnet.ipv4.tcp_tw_reuse = 1\n\
    net.ipv4.tcp_tw_recycle = 1\nnet.ipv4.tcp_keepalive_probes = 5\nnet.core.netdev_max_backlog = 3000\n\
    -kernel.no_such = 1\n";

const CARRIED_VALUES: [(&str, &str); 11] = [
    ("net.ipv4.tcp_syn_retries", "2"),
    ("net.ipv4.tcp_synack_retries", "2"),
    ("net.ipv4.tcp_keepalive_time", "1200"),
    ("net.ipv4.tcp_orphan_retries", "3"),
    ("net.ipv4.tcp_fin_timeout", "30"),
    ("net.ipv4.tcp_max_syn_backlog", "4096"),
    ("net.ipv4.tcp_syncookies", "1"),
    ("net.ipv4.tcp_tw_reuse", "1"),
    ("net.ipv4.tcp_tw_recycle", "1"),
    ("net.ipv4.tcp_keepalive_probes", "5"),
    ("net.core.netdev_max_backlog", "3000"),
];

/// The value of a setting in what `config` prints.
fn value<'a>(printed: &'a str, name: &str) -> &'a str {
    let line = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default()
}

#[test]
fn a_sysctl_conf_is_loaded_and_what_is_no_setting_here_is_reported_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("99-tcp.conf");
    let path = file.to_str().unwrap();
    std::fs::write(&file, CARRIED).unwrap();
    for args in [
        &["config", "--profile", "bsd", "--sysctl-file", path][..],
        &["config", "--sysctl-file", path, "--strict"],
    ] {
        let output = steadfast(args);
        let (text, errors) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        for (name, expected) in CARRIED_VALUES {
            assert_eq!(value(&text, name), expected, "{name}");
        }
    }
    // A setting of the command line overrides one of the file.
    let output = steadfast(&["config", "--sysctl", "tcp_fin_timeout=7", "--sysctl-file", path]);
    assert_eq!(value(&String::from_utf8(output.stdout).unwrap(), "net.ipv4.tcp_fin_timeout"), "7");

    std::fs::write(&file, format!("{CARRIED}vm.swappiness = 10\nnet.ipv4.tcp_sack = 2\n")).unwrap();
    let expected = [
        format!("{path}:16: `vm.swappiness`: no such setting"),
        format!("{path}:17: net.ipv4.tcp_sack: `2`: expected 0 or 1"),
    ];
    let output = steadfast(&["config", "--sysctl-file", path]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let [first, second] = &expected;
    assert_eq!(errors, format!("steadfast: {first}; left out\nsteadfast: {second}; left out\n"));
    assert_eq!(value(&String::from_utf8(output.stdout).unwrap(), "net.ipv4.tcp_fin_timeout"), "30");
    let output = steadfast(&["config", "--sysctl-file", path, "--strict"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("steadfast: {first}\n{second}\n"));
}

#[test]
fn the_lab_takes_a_sysctl_conf_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("short.conf");
    std::fs::write(&file, "net.ipv4.tcp_syn_retries = 1\n").unwrap();
    let path = file.to_str().unwrap();
    let output = steadfast(&["lab", "run", "H1b", "--profile", "linux", "--ladder", "--sysctl-file", path]);
    let text = String::from_utf8(output.stdout).unwrap();
    // The first, four that are repeated at equal distances, and one.
    assert_eq!(text.matches("-- [S] seq 0").count(), 6, "{text}");
}

#[test]
fn a_scenario_is_found_by_its_id_and_by_its_name() {
    let explained = |name: &str| String::from_utf8(steadfast(&["lab", "explain", name]).stdout).unwrap();
    let by_id = explained("H1b");
    assert!(by_id.starts_with("H1b  Every SYN lost\nsyn-lost-every\n"), "{by_id}");
    assert_eq!(explained("syn-lost-every"), by_id);
    let run = steadfast(&["lab", "run", "syn-lost-every", "--profile", "linux", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["id"], "H1b");
    let listed = String::from_utf8(steadfast(&["lab", "list"]).stdout).unwrap();
    assert!(listed.lines().any(|line| line.starts_with("H1b ") && line.contains(" syn-lost-every ")));
    refuses("lab explain syn-lost-never", "`syn-lost-never`: no such scenario and no such file");
}

/// Shards that ran as processes of their own add up to the whole, in any order. A shard that is missing, repeated or
/// of another exploration is named.
#[test]
fn shards_of_an_exploration_are_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |shard: &str, faults: &str| {
        let args = ["lab", "explore", "half-close", "X1", "--json", "--faults", faults, "--shard", shard];
        let output = steadfast(&args);
        assert!(output.status.success(), "{output:?}");
        let file = folder.path().join(format!("{}-{faults}.json", shard.replace('/', "-of-")));
        std::fs::write(&file, output.stdout).unwrap();
        file.display().to_string()
    };
    let merge = |files: &[&String]| {
        let mut args = vec!["lab", "explore", "merge"];
        args.extend(files.iter().map(|file| file.as_str()));
        let output = steadfast(&args);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (whole, first, second) = (shard("0/1", "1"), shard("0/2", "1"), shard("1/2", "1"));
    let of_the_whole = merge(&[&whole]);
    assert!(of_the_whole.0 == Some(0) && of_the_whole.1.ends_with(": 0 break a rule\n"), "{of_the_whole:?}");
    assert_eq!(merge(&[&second, &first]), of_the_whole);
    let (code, text) = merge(&[&first, &second, &first]);
    assert!(code == Some(0) && text.contains("given more than once, counted once: shards [0]"), "{text}");
    let (code, text) = merge(&[&second]);
    assert!(code == Some(1) && text.contains("not given: shards [0]"), "{text}");
    let (code, text) = merge(&[&first, &shard("1/2", "2")]);
    assert!(code == Some(2) && text.contains("of another exploration than the first file"), "{text}");
    refuses("lab explore X99", "`X99`: expected a program such as X1 or client-closes, or a file");
    refuses("lab explore X1 --shard 2/2", "`2/2`: expected a part and how many there are");
    refuses("lab explore X1 --sysctl tcp_sck=0", "`tcp_sck`: no such setting");
    refuses("lab explore merge Cargo.toml", "expected what `lab explore --json` prints");
}

/// A finding is kept as a scenario that the lab plays, with its ladder.
#[test]
fn a_finding_is_kept_as_a_scenario_with_its_ladder() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("one.scenario");
    let text = "id X0\ntitle Two SYNs\nsysctl C tcp_syn_retries = 1\nsysctl C tcp_syn_linear_timeouts = 0\n\napp C\n  connect S:80\n\napp S\n  listen 80\n";
    std::fs::write(&program, text).unwrap();
    let keep = folder.path().join("found");
    let (program, kept) = (program.to_str().unwrap(), keep.to_str().unwrap());
    let output = steadfast(&["lab", "explore", program, "--first", "2", "--keep", kept]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && stdout.contains("lose C>S all 2"), "{stdout}");
    let scenario = keep.join("X0-1.scenario");
    let again = steadfast(&["lab", "run", scenario.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1), "the lab judges it, too");
    let ladder = std::fs::read_to_string(keep.join("X0-1.ladder")).unwrap();
    assert!(ladder.contains("connect = ETIMEDOUT"), "{ladder}");
    std::fs::write(program, format!("{text}\nfault lose C>S 1\n")).unwrap();
    refuses(&format!("lab explore {program}"), "expected a scenario without faults");
}
