use super::*;
use crate::scenario::Case;

const SMALL: &str = "\
id     X1
title  A small one   # with a comment
profiles default linux bsd
phase  long  as it should be
phase  short cut short
why
  Because # this stays.

  A second paragraph.
sysctl S tcp_synack_retries = 3
sysctl tcp_tw_timeout = 30
[short] sysctl * tcp_tw_timeout = 0
host C2 mtu 1400
path C S delay 50ms
nat N 192.0.2.1 for C C2 expiry 60 forward 80 to C:80
fault
  lose C>S [S] 1
  [linux] lose C>S [S] 2
app C
  connect S:80 from 5000 as a nodelay
    => ok at 0.020
    [bsd] => ETIMEDOUT at 75
  repeat 3
    a: send 10
    sleep 1
  at 5 close    => any
[!bsd] app S
  listen 80 backlog 5
  [linux] accept
expect
  wire C>S [S] at 0 1 3
  [bsd long] usage S half_open 0, time_wait 1 at 5
  diagnosis S \":80 leaks\" at 2h
";

#[test]
fn every_part_is_selected_by_profile_and_phase() {
    let scenario = Scenario::parse("x", SMALL).unwrap();
    assert_eq!((scenario.id.as_str(), scenario.title.as_str()), ("X1", "A small one"));
    assert_eq!(scenario.why, "Because # this stays.\n\nA second paragraph.");
    assert_eq!(scenario.phases[1], Phase { name: "short".into(), title: "cut short".into() });
    let count = |profile, phase: &str| {
        let part = scenario.select(&Case { profile, phase, kernel: None });
        (part.sysctls.len(), part.faults.len(), part.apps.len(), part.expectations.len())
    };
    assert_eq!(count(Profile::Default, "long"), (2, 1, 2, 2));
    assert_eq!(count(Profile::Linux, "short"), (3, 2, 2, 2));
    assert_eq!(count(Profile::Bsd, "long"), (2, 1, 1, 3));
}

#[test]
fn the_last_outcome_that_applies_counts() {
    let scenario = Scenario::parse("x", SMALL).unwrap();
    let outcome = |profile| {
        scenario.select(&Case { profile, phase: "long", kernel: None }).apps[0].steps[0]
            .outcome()
            .cloned()
            .unwrap()
    };
    assert_eq!(outcome(Profile::Default), script::outcome("ok at 0.020").unwrap());
    assert_eq!(outcome(Profile::Bsd), script::outcome("ETIMEDOUT at 75").unwrap());
}

#[test]
fn steps_below_a_repeat_are_its_body() {
    let scenario = Scenario::parse("x", SMALL).unwrap();
    let apps = scenario.select(&Case { profile: Profile::Linux, phase: "long", kernel: None }).apps;
    let Call::Repeat { times: 3, body } = &apps[0].steps[1].call else { panic!("{:?}", apps[0].steps[1]) };
    assert_eq!(body.len(), 2);
    assert_eq!(body[0].socket.as_deref(), Some("a"));
    assert_eq!((apps[0].steps.len(), apps[1].steps.len()), (3, 2));
}

#[test]
fn lines_are_selected_by_the_host_that_a_kernel_plays() {
    let text = "id X\ntitle T\n[kernel] until 1\n[!kernel] until 2\n[S=kernel] sysctl tcp_tw_timeout = 5\n[!C=kernel] fault lose C>S\n";
    let scenario = Scenario::parse("x", text).unwrap();
    let count = |kernel| {
        let part = scenario.select(&Case { kernel, ..Case::default() });
        (part.until.unwrap().as_nanos() / 1_000_000_000, part.sysctls.len(), part.faults.len())
    };
    assert_eq!(count(None), (2, 0, 1));
    assert_eq!(count(Some("C")), (1, 0, 0));
    assert_eq!(count(Some("S")), (1, 1, 1));
}

#[test]
fn what_is_said_of_a_kernel_is_kept_by_host_with_the_lines_that_go_on() {
    let text = "id X\ntitle T\nkernel\n  S: one thing\n    goes on\n  not C: it\n    cannot\n  S: another\n";
    let scenario = Scenario::parse("x", text).unwrap();
    let role = |host: &str, not: Option<&str>, differences: &[&str]| KernelRole {
        host: host.to_owned(),
        not: not.map(str::to_owned),
        differences: differences.iter().map(|text| (*text).to_owned()).collect(),
    };
    assert_eq!(
        scenario.kernel,
        [role("C", Some("it cannot"), &[]), role("S", None, &["one thing goes on", "another"])]
    );
}

/// Appends each line to a valid scenario. The parser must reject it with the line number and the expectation.
#[test]
fn what_is_wrong_is_named_with_file_line_and_what_was_expected() {
    let start = "id X\ntitle T\nphase p\n";
    for (text, line, message) in [
        ("colour blue", 4, "expected a keyword: id, name, title,"),
        ("name Syn_Lost", 4, "expected a name such as `syn-lost-every`, found `Syn_Lost`"),
        ("name syn-", 4, "expected a name such as `syn-lost-every`, found `syn-`"),
        ("  lose C>S", 4, "expected nothing indented below `phase`"),
        ("id Y", 4, "expected `id` once only"),
        ("phase linux", 4, "expected the name of a phase, found `linux`"),
        (
            "[osx] until 5",
            4,
            "expected a profile, a phase declared above, `kernel` or `HOST=kernel`, found `osx`",
        ),
        ("[] until 5", 4, "expected a profile, a phase or `kernel` between"),
        ("[p title X", 4, "expected `]` after the condition"),
        ("[p] ip 4", 4, "expected no condition before `ip`"),
        ("until soon", 4, "expected a time, found `soon`"),
        ("until 5 6", 4, "expected the end of the line, found `6`"),
        ("ip 5", 4, "expected `4` or `6`, found `5`"),
        ("ladder long", 4, "expected how many rows, or `off`, found `long`"),
        ("profiles osx", 4, "expected a profile: default, linux, bsd, rfc or freebsd, found `osx`"),
        ("settings tcp_magic", 4, "expected a setting such as `tcp_syn_retries`, found `tcp_magic`"),
        ("host 5", 4, "expected the name of a host, found `5`"),
        ("host D 10.0.0.300", 4, "expected an address, mtu, clock or secret, found `10.0.0.300`"),
        ("path C S", 4, "expected a property of the path: delay, rate, loss"),
        ("path C X delay 1", 4, "expected one of the hosts C, S, found `X`"),
        ("nat N 192.0.2.1 behind C", 4, "expected `for` and the hosts behind it, found `behind`"),
        ("sysctl tcp_syn_retries = many", 4, "tcp_syn_retries: `many`: expected a number"),
        ("sysctl S tcp_sin_retries = 5", 4, "`tcp_sin_retries`: no such setting"),
        ("sysctl", 4, "expected something after `sysctl`"),
        ("fault\n  lose X>S [S] 1", 5, "expected one of the hosts C, S, found `X`"),
        ("fault\n  loose C>S [S] 1", 5, "expected a fault: lose"),
        ("app C", 4, "expected steps, indented below `app`"),
        ("app C sometimes\n  close", 4, "expected the end of the line, found `sometimes`"),
        ("app X\n  close", 4, "expected one of the hosts C, S, found `X`"),
        ("app C\n  connect S", 5, "expected whom to connect to, such as `S:80`, found `S`"),
        ("app C\n  connect S:80 quickly", 5, "expected from, as, fast-open, nowait or a socket option"),
        ("app C\n  listen 80 backlog lots", 5, "expected how many connections, found `lots`"),
        ("app C\n  dance", 5, "expected a call: connect, listen"),
        ("app C\n  => ok", 5, "expected a step before its outcome"),
        ("app C\n  close => EMAGIC", 5, "expected an outcome: ok, eof"),
        ("app C\n  close\n    send 5", 6, "expected the same indentation as the step above"),
        ("app C\n    close\n  send 5", 6, "expected the same indentation as the steps above"),
        ("app C\n  serve 80 tea", 5, "expected what to do with connections"),
        ("app C\n  send many", 5, "expected how many bytes, found `many`"),
        ("app C\n  set", 5, "expected a socket option such as"),
        ("app C\n  udp 53 fast", 5, "expected to, as, rcvbuf, sndbuf, ttl or df, found `fast`"),
        ("app C\n  receive in 5", 5, "expected the end of the line, found `in`"),
        ("app C\n  reply", 5, "expected how many bytes, found the end of the line"),
        ("expect wire C>S [S]", 4, "expected `at T…`"),
        ("expect wire C>S [S] at noon", 4, "expected a time such as"),
        ("expect states C OPEN", 4, "expected a state such as `SYN-SENT`, found `OPEN`"),
        ("expect usage S sprockets 5", 4, "expected a field of the usage: sockets, listeners"),
        ("expect usage S half_open", 4, "expected a number such as"),
        ("expect info C speed 5 at 1", 4, "expected a field of `Info` such as `snd_mss`, found `speed`"),
        ("expect info C sack 5 at 1", 4, "expected what `sack` may be: `on` or `off`, found `5`"),
        ("expect info C snd_mss 5", 4, "expected `at`, found the end of the line"),
        ("expect counter S Magic 1", 4, "expected a counter such as `ListenOverflows`, found `Magic`"),
        ("expect drops S magic", 4, "expected the reason of a drop, or `any`, found `magic`"),
        ("expect replies S syn_ack many", 4, "expected the end of the line, found `many`"),
        ("expect diagnosis S leaks at 5", 4, "expected a quoted text and `at T`"),
        (
            "expect violates decency",
            4,
            "expected stream, datagram, window, ack, reset or empty, found `decency`",
        ),
        ("expect order C>S [S], [S.]", 4, "expected a direction such as"),
        ("kernel S", 4, "expected the end of the line, found `S`"),
        ("kernel\n  is another", 5, "expected `HOST:` or `not HOST:`"),
        ("kernel\n  X: is another", 5, "expected one of the hosts C, S, found `X`"),
        ("expect\n\tstates C CLOSED", 5, "expected blanks, found a tab"),
    ] {
        let error = Scenario::parse("bad.scenario", &format!("{start}{text}\n")).unwrap_err();
        assert_eq!((&*error.file, error.line), ("bad.scenario", line), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn a_scenario_without_id_or_title_is_refused() {
    for (text, message) in
        [("title T", "expected `id`"), ("id X\n", "expected `title`"), ("", "expected `id`")]
    {
        let error = Scenario::parse("bad", text).unwrap_err();
        assert!(error.message.starts_with(message), "{error}");
    }
}
