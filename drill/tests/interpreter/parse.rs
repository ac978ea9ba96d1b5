//! Syntax errors: their place, and what was expected there.

use std::collections::BTreeMap;

use proptest::prelude::*;
use steadfast_drill::{Drill, DrillOptions, Verdict, run_script};

#[track_caller]
fn error(text: &str, line: usize, column: usize, expected: &str) {
    let error = Drill::parse(text, &BTreeMap::new()).map(drop).unwrap_err();
    assert_eq!((error.at.line, error.at.column), (line, column), "{text}: {error}");
    assert!(error.to_string().contains(expected), "{text}: {error}");
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    error("0 < X 0:0(0)", 1, 5, "flags of `SFRP.UEWA`");
    error("0 < S 0:0", 1, 10, "expected `(`, found the end of the script");
    error("0 < S 0:5(4)", 1, 9, "expected 4, which is 0 and 4 more, found `5`");
    error("0 < S 0:0(0) win 70000", 1, 18, "the window, a number from 0 to 65535");
    error("0 < S 0:0(0) win 1 <mss 1000,foo>", 1, 30, "an option: mss, wscale");
    error("0 < S 0:0(0) win 1 <mss 1000,nop>", 1, 20, "a multiple of 4 bytes, 40 at most, found 5 bytes");
    error("0 < S 0:0(0) win 1 <mss 1000", 1, 29, "`,` or `>`");
    error("0 < S 0:0(0) win 1 <...>", 1, 20, "the options of a packet that is sent");
    error("0 < S 0:0(0) win 1 <TS val 1>", 1, 29, "expected `ecr`");
    error("0 < S 0:0(0) win 1 <FO abc>", 1, 24, "hexadecimal digits in pairs");
    error("0 < [ect7] S 0:0(0)", 1, 6, "ect0, ect1, ect01, ce");
    error("0 < icmp", 1, 9, "the type of the ICMP message");
    error("\n\n  hello", 3, 3, "a time: `0.5`");
    error("0 socket(1 2) = 3", 1, 12, "`,` or `)`");
    error("0 socket(1) 3", 1, 13, "expected `=`");
    error("0 socket({a=1, b=2) = 3", 1, 19, "`,` or `}`");
    error("0 close(3) = ", 1, 14, "a value: `...`, a number");
    error("0 close(\"abc) = 0", 1, 9, "a `\"` that is never closed");
    error("0 `sysctl", 1, 3, "never closed");
    error("0 %{ assert 1", 1, 3, "`}%` at the end of the code");
    error("0 %{ assert }%", 1, 13, "a value, found the end of the code");
    error("0 %{\nassert 1 ==\n}%", 2, 12, "a value, found the end of the line");
    error("0 %{ for x in y }%", 1, 17, "`:`");
    error("0 %{ but x }%", 1, 6, "a statement: assert, print, if, for, while or an assignment");
    error("1 close(3) = 0\n.5 close(3) = 0", 2, 1, "a time not before 1 s");
    error("+1~.5 close(3) = 0", 1, 4, "an end not before the start");
    error("+.5...0.2 close(3) = 0", 1, 7, "an end not before the start");
    error("#ifdef A\n#ifdef B\n", 2, 1, "`#ifdef` does not nest");
    error("0 close(3) = 0\n#ifdef A\n", 2, 1, "`#endif` to this `#ifdef`");
    error("#endif", 1, 1, "no `#endif` without `#ifdef`");
    error("--ip_version=ipv5\n", 1, 1, "ipv4, ipv4-mapped-ipv6 or ipv6");
    error("--no_such=1\n", 1, 1, "an option that there is");
    error("0 /* no end", 1, 3, "a comment that is never closed");
    error("0 close(99999999999999999999) = 0", 1, 9, "a number of 64 bits");
}

#[test]
fn an_error_is_a_verdict_of_its_own() {
    let outcome = run_script("0 < S", &DrillOptions::default());
    assert_eq!(outcome.verdict, Verdict::Error);
    let json = outcome.to_json("x");
    assert_eq!((&json["result"], &json["line"], &json["column"]), (&"error".into(), &1.into(), &6.into()));
}

/// Tokens of the language, which reach deeper into the parser than random text does.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "0 ",
        "+.1 ",
        "* ",
        "+0~+1 ",
        "+0...0.1 ",
        "< ",
        "> ",
        "S ",
        ". ",
        "P. ",
        "0:0(0) ",
        "1:101(100) ",
        "ack 1 ",
        "win 100 ",
        "<mss 1000>",
        "<...>",
        "<nop,nop,TS val 1 ecr 2>",
        "socket(..., SOCK_STREAM, 0) = 3",
        "bind(3, ..., ...) = 0",
        "listen(3, 1) = 0",
        "accept(3, ..., ...) = 4",
        "read(4, ..., 10) = 1",
        "close(4) = 0",
        "connect(3, ..., ...) = 0",
        "%{ assert tcpi_state == 1 }%",
        "%{",
        "}%",
        "`true`",
        "`",
        "\"",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "icmp unreachable ",
        "mtu 1200 ",
        "\n",
        "#ifdef X\n",
        "#endif\n",
        "--mtu=100\n",
        "/*",
        "//",
        "=",
        "-1 EAGAIN",
        "poll([{fd=3, events=POLLIN}], 1, 10) = 0",
        "write(4, ..., 5000) = 5000",
        "|",
        ",",
        "é",
        "0x",
        "4294967296",
    ]);
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => ".{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_never_panics(text in "(?s).{0,200}") {
        run_script(&text, &DrillOptions::default());
    }

    #[test]
    fn pieces_of_scripts_never_panic(pieces in prop::collection::vec(piece(), 0..40)) {
        run_script(&pieces.concat(), &DrillOptions::default());
    }

    #[test]
    fn code_never_panics(code in "[a-z0-9 ()+*<>=&|%'\n;:,.!-]{0,80}") {
        run_script(&format!("0 %{{{code}}}%\n+0 close(3) = -1"), &DrillOptions::default());
    }
}

#[test]
fn depth_and_length_are_bounded() {
    for text in [
        format!("0 close({}", "[".repeat(100_000)),
        format!("0 %{{ assert {}", "(".repeat(100_000)) + "}%",
        format!("0 %{{ assert 1{}", "+1".repeat(100_000)) + "}%",
        format!("0 %{{ assert {}1", "not ".repeat(1000)) + "}%",
        format!("0 %{{ assert {}1", "-".repeat(1000)) + "}%",
    ] {
        let outcome = run_script(&text, &DrillOptions::default());
        assert!(matches!(outcome.verdict, Verdict::Error | Verdict::Pass), "{}", outcome.reason);
    }
}
