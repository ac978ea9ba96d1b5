//! Scripts with one error: each fails at its line, with a message about the error.

use steadfast_drill::{DrillOptions, IpVersion, Verdict, run_script};

use super::{passes, run};

const LISTEN: &str =
    "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n";

/// Seven lines that end with an accepted connection without options.
const OPEN: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n\
    +0 bind(3, ..., ...) = 0\n\
    +0 listen(3, 1) = 0\n\
    +0 < S 0:0(0) win 32792 <mss 1000>\n\
    +0 > S. 0:0(0) ack 1 <mss 1460>\n\
    +.1 < . 1:1(0) ack 1 win 32792\n\
    +0 accept(3, ..., ...) = 4\n";

/// The same with timestamps and selective acknowledgements.
const TIMED: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n\
    +0 bind(3, ..., ...) = 0\n\
    +0 listen(3, 1) = 0\n\
    +0 < S 0:0(0) win 32792 <mss 1000,sackOK,TS val 10 ecr 0,nop,wscale 7>\n\
    +0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10,nop,wscale 7>\n\
    +.1 < . 1:1(0) ack 1 win 257 <nop,nop,TS val 20 ecr 100>\n\
    +0 accept(3, ..., ...) = 4\n";

/// Checks that after `before`, `right` passes, and that `wrong` fails at its line `line` with `reason`.
#[track_caller]
fn check(before: &str, right: &str, wrong: &str, line: usize, reason: &str) {
    passes(&format!("{before}{right}\n"));
    fails(&format!("{before}{wrong}\n"), before.lines().count() + line, reason);
}

#[track_caller]
fn fails(text: &str, line: usize, reason: &str) {
    let outcome = run(text);
    assert_eq!(
        outcome.verdict,
        Verdict::Fail,
        "expected to fail with `{reason}`: {}\n{text}",
        outcome.reason
    );
    assert!(outcome.reason.contains(reason), "expected `{reason}`: {}\n{}", outcome.reason, outcome.details);
    assert_eq!(outcome.at.map(|at| at.line), Some(line), "{}", outcome.reason);
}

/// Checks a wrong answer to the first data of a connection.
#[track_caller]
fn wrong_data(wrong: &str, reason: &str) {
    let write = "+0 write(4, ..., 100) = 100\n";
    check(OPEN, &format!("{write}+0 > P. 1:101(100) ack 1"), &format!("{write}{wrong}"), 2, reason);
}

#[track_caller]
fn wrong_syn_ack(wrong: &str, reason: &str) {
    let syn = "+0 < S 0:0(0) win 32792 <mss 1000,sackOK,TS val 10 ecr 0,nop,wscale 7>\n";
    let right = format!("{syn}+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10,nop,wscale 7>");
    check(LISTEN, &right, &format!("{syn}{wrong}"), 2, reason);
}

#[test]
fn each_flag_is_checked() {
    wrong_data("+0 > . 1:101(100) ack 1", "flags: expected ., came P.");
    wrong_data("+0 > FP. 1:101(100) ack 1", "flags: expected FP., came P.");
    wrong_data("+0 > SP. 1:101(100) ack 1", "flags: expected SP., came P.");
    wrong_data("+0 > RP. 1:101(100) ack 1", "flags: expected RP., came P.");
    wrong_data("+0 > UP. 1:101(100) ack 1", "flags: expected PU., came P.");
    wrong_data("+0 > EP. 1:101(100) ack 1", "flags: expected PE., came P.");
    wrong_data("+0 > WP. 1:101(100) ack 1", "flags: expected PW., came P.");
    wrong_data("+0 > AP. 1:101(100) ack 1", "flags: expected PA., came P.");
    wrong_data("+0 > 5P. 1:101(100) ack 1", "flags: expected PEA., came P.");
    wrong_data("+0 > P 1:101(100)", "flags: expected P, came P.");
    wrong_data("+0 > - 1:101(100)", "flags: expected -, came P.");
}

#[test]
fn each_field_of_the_segment_is_checked() {
    wrong_data("+0 > P. 2:102(100) ack 1", "sequence number: expected 2, came 1");
    wrong_data("+0 > P. 1:102(101) ack 1", "sequence number: expected 101, came 1");
    wrong_data("+0 > P. 1:100(99) ack 1", "length of data: expected 99, came 100");
    wrong_data("+0 > P. 1:101(100) ack 2", "acknowledgment number: expected 2, came 1");
    wrong_data("+0 > P. 1:101(100) ack 1 win 1", "window: expected 1, came");
    wrong_data("+0 > P. 1:101(100) ack 1 urg 3", "urgent pointer: expected 3, came 0");
    wrong_data(
        "+0 > P. 1:101(100) ack 1 <nop,nop,nop,nop>",
        "options: expected <nop,nop,nop,nop>, came none",
    );
    wrong_data("+0 > 8080 > 1 P. 1:101(100) ack 1", "destination port: expected 1, came");
}

#[test]
fn strict_segments_are_not_put_together() {
    let write = "+0 write(4, ..., 2000) = 2000\n+0 > P. 1:2001(2000) ack 1\n";
    passes(&format!("{OPEN}{write}"));
    fails(
        &format!("--strict_segments\n{OPEN}{write}"),
        10,
        "flags: expected P., came . (also wrong: length of data)",
    );
}

#[test]
fn each_field_of_the_ip_header_is_checked() {
    wrong_data("+0 > [ect0] P. 1:101(100) ack 1", "ECN: expected ect0, came noecn");
    wrong_data("+0 > [ect1] P. 1:101(100) ack 1", "ECN: expected ect1, came noecn");
    wrong_data("+0 > [ect01] P. 1:101(100) ack 1", "ECN: expected ect01, came noecn");
    wrong_data("+0 > [ce] P. 1:101(100) ack 1", "ECN: expected ce, came noecn");
    wrong_data("+0 > (tos 0x20) P. 1:101(100) ack 1", "TOS: expected 0x20, came 0x00");
    wrong_data("+0 > [ttl 63] P. 1:101(100) ack 1", "TTL: expected 63, came 64");
    let set = "+0 setsockopt(4, IPPROTO_IP, IP_TOS, [0x20], 4) = 0\n+0 write(4, ..., 1) = 1\n";
    check(
        OPEN,
        &format!("{set}+0 > (tos 0x20) P. 1:2(1) ack 1"),
        &format!("{set}+0 > [noecn, tos 0x0] P. 1:2(1) ack 1"),
        3,
        "TOS: expected 0x00, came 0x20",
    );
}

#[test]
fn each_field_of_ipv6_is_checked() {
    let options = DrillOptions { ip_version: IpVersion::V6, ..DrillOptions::default() };
    for (info, reason) in [
        ("[flowlabel 0x1]", "flow label: expected 0x1, came 0x0"),
        ("[hlim 1]", "TTL: expected 1, came 64"),
        ("[class 0x4]", "TOS: expected 0x04, came 0x00"),
    ] {
        let text = format!("{OPEN}+0 write(4, ..., 1) = 1\n+0 > {info} P. 1:2(1) ack 1\n");
        let outcome = run_script(&text, &options);
        assert_eq!((outcome.verdict, outcome.reason.as_str()), (Verdict::Fail, reason));
    }
}

#[test]
fn each_option_is_checked() {
    wrong_syn_ack(
        "+0 > S. 0:0(0) ack 1 <mss 1461,sackOK,TS val 100 ecr 10,nop,wscale 7>",
        "options: expected <mss 1461",
    );
    wrong_syn_ack(
        "+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 11,nop,wscale 7>",
        "ecr 11,nop,wscale 7>, came",
    );
    wrong_syn_ack("+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10,nop,wscale 3>", "wscale 3>, came");
    wrong_syn_ack(
        "+0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,TS val 100 ecr 10,nop,wscale 7>",
        "options: expected",
    );
    wrong_syn_ack("+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10>", "options: expected");
    wrong_syn_ack("+0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK,nop,wscale 7>", "options: expected");
    wrong_syn_ack("+0 > S. 0:0(0) ack 1", "options: expected none, came <mss 1460");
    wrong_syn_ack(
        "+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10,nop,wscale 7,FO aabbccdd,nop,nop>",
        "options: expected",
    );
}

#[test]
fn order_and_padding_of_options_are_checked() {
    let order = "order of options: expected";
    wrong_syn_ack("+0 > S. 0:0(0) ack 1 <mss 1460,nop,wscale 7,sackOK,TS val 100 ecr 10>", order);
    wrong_syn_ack("+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10,wscale 7,nop>", order);
    wrong_syn_ack("+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10,wscale 7,eol>", order);
    wrong_syn_ack(
        "+0 > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 10,nop,wscale 7,nop,nop,nop,nop>",
        order,
    );
}

#[test]
fn sack_blocks_are_checked() {
    let data = "+0 < . 1001:2001(1000) ack 1 win 257 <nop,nop,TS val 20 ecr 100>\n";
    let ack =
        |blocks: &str| format!("{data}+0 > . 1:1(0) ack 1 <nop,nop,TS val 200 ecr 20,nop,nop,sack {blocks}>");
    check(TIMED, &ack("1001:2001"), &ack("1001:2002"), 2, "sack 1001:2002>, came");
    check(TIMED, &ack("1001:2001"), &ack("1000:2001"), 2, "sack 1000:2001>, came");
}

#[test]
fn the_stacks_clock_is_checked_where_a_tick_is_given() {
    let tick = format!("--tcp_ts_tick_usecs=1000\n{TIMED}");
    let send =
        |val: u32| format!("+0 write(4, ..., 1) = 1\n+0 > P. 1:2(1) ack 1 <nop,nop,TS val {val} ecr 20>");
    check(&tick, &send(200), &send(300), 2, "TS val: expected 300, came 200");
    passes(&format!("{TIMED}{}", send(300)));
}

#[test]
fn an_echo_of_the_stacks_clock_is_translated() {
    // The stack measures the RTT from the echo: a wrong echo would yield another RTT.
    let text = "+0 write(4, ..., 1) = 1\n+0 > P. 1:2(1) ack 1 <nop,nop,TS val 777 ecr 20>\n\
                +.05 < . 1:1(0) ack 2 win 257 <nop,nop,TS val 30 ecr 777>\n";
    let right = format!("{text}+0 %{{ assert 50000 <= tcpi_rtt <= 110000 }}%");
    check(
        TIMED,
        &right,
        &format!("{text}+0 %{{ assert tcpi_rtt < 50000 }}%"),
        4,
        "assert tcpi_rtt < 50000, where tcpi_rtt is",
    );
}

/// Makes the retransmission timer one second, with the round trip of 0.1 s.
const SECOND: &str = "`sysctl -q net.ipv4.tcp_rto_min_us=900000`\n";

#[test]
fn a_packet_that_is_early_fails_as_one_that_is_late() {
    let write = "+0 write(4, ..., 100) = 100\n";
    let sent = format!("{write}+0 > P. 1:101(100) ack 1\n");
    let first = |time: &str| format!("{write}{time} > P. 1:101(100) ack 1");
    check(OPEN, &first("+0"), &first("+.1"), 2, "early: it came at 0.100000 s, expected at 0.200000 s");
    let before = format!("{SECOND}{OPEN}");
    let again = |time: &str| format!("{sent}{time} > P. 1:101(100) ack 1");
    check(&before, &again("+1"), &again("+.5"), 3, "0.500000 s late: it came at 1.100000 s");
    check(&before, &again("+1"), &again("+2"), 3, "1.000000 s early: it came at 1.100000 s");
    check(&before, &again("+.9~+1.2"), &again("+.1~+.5"), 3, "0.500000 s late");
    check(&before, &again("+.9~+1.2"), &again("+1.5~+2"), 3, "0.500000 s early");
    check(&before, &again("1.1"), &again("2.1"), 3, "1.000000 s early");
    check(&before, &again("1~1.2"), &again("1.2~1.3"), 3, "0.100000 s early");
}

#[test]
fn tolerances_are_as_the_options_say() {
    let sent = "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n+1.3 > P. 1:101(100) ack 1\n";
    let sent = format!("{SECOND}{OPEN}{sent}");
    fails(&sent, 11, "early");
    passes(&format!("--tolerance_usecs=350000\n{sent}"));
    passes(&format!("--tolerance_percent=30\n{sent}"));
}

#[test]
fn a_packet_that_does_not_come_and_one_that_nobody_expects_fail() {
    let ack = "+0 < P. 1:101(100) ack 1 win 32792\n+0~+.05 > . 1:1(0) ack 101";
    check(OPEN, ack, &format!("{ack}\n+0 > . 1:1(0) ack 101"), 3, "no packet came");
    check(OPEN, ack, &format!("{ack}\n* > . 1:1(0) ack 101"), 3, "no packet came");
    // The next line sees a packet that no line expected.
    let write = "+0 write(4, ..., 100) = 100\n+.01 < . 1:1(0) ack 101 win 9\n+0 shutdown(4, SHUT_WR) = 0\n";
    let right = "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n+.01 < . 1:1(0) ack 101 win 9\n+0 shutdown(4, SHUT_WR) = 0\n+0 > F. 101:101(0) ack 1";
    check(OPEN, right, &format!("{write}+0 > F. 101:101(0) ack 1"), 4, "flags: expected F., came P.");
}

#[test]
fn results_of_calls_are_checked() {
    check(
        OPEN,
        "+0 write(4, ..., 10) = 10",
        "+0 write(4, ..., 10) = 11",
        1,
        "write returned 10, expected 11",
    );
    check(
        OPEN,
        "+0 write(4, ..., 10) = 10",
        "+0 write(4, ..., 10) = -1 EPIPE",
        1,
        "write returned 10, expected -1 EPIPE",
    );
    check(
        OPEN,
        "+0 close(9) = -1 EBADF",
        "+0 close(9) = -1 EINVAL",
        1,
        "close returned -1 EBADF, expected -1 EINVAL",
    );
    check(OPEN, "+0 close(4) = 0", "+0 close(9) = 0", 1, "close returned -1 EBADF, expected 0");
    check(
        OPEN,
        "+0 recv(4, ..., 10, MSG_DONTWAIT) = -1 EAGAIN",
        "+0 recv(4, ..., 10, MSG_DONTWAIT) = 0",
        1,
        "recv returned -1 EAGAIN, expected 0",
    );
    check(
        OPEN,
        "+0 fcntl(4, F_GETFL) = 2",
        "+0 fcntl(4, F_GETFL) = 0x802",
        1,
        "fcntl returned 2, expected 2050",
    );
    check(
        OPEN,
        "+0 socket(..., SOCK_STREAM, 0) = 5",
        "+0 socket(..., SOCK_STREAM, 0) = -1 EMFILE",
        1,
        "socket returned",
    );
}

#[test]
fn what_calls_leave_in_their_arguments_is_checked() {
    let get = "getsockopt(4, SOL_SOCKET, SO_ERROR,";
    check(
        OPEN,
        &format!("+0 {get} [0], [4]) = 0"),
        &format!("+0 {get} [ECONNRESET], [4]) = 0"),
        1,
        "getsockopt: SO_ERROR is 0, expected ECONNRESET",
    );
    let data = "+0 < P. 1:11(10) ack 1 win 32792\n";
    check(
        OPEN,
        &format!("{data}+0 ioctl(4, SIOCINQ, [10]) = 0"),
        &format!("{data}+0 ioctl(4, SIOCINQ, [11]) = 0"),
        2,
        "ioctl gave 10, expected 11",
    );
    let poll =
        |revents: &str| format!("{data}+0 poll([{{fd=4, events=POLLIN, revents={revents}}}], 1, 0) = 1");
    check(OPEN, &poll("POLLIN"), &poll("POLLOUT"), 2, "revents of 4 is POLLIN, expected POLLOUT");
    let urgent = |revents: &str| {
        format!(
            "+0 < PU. 1:11(10) ack 1 win 32792 urg 10\n+0 poll([{{fd=4, events=POLLPRI, revents={revents}}}], 1, 0) = 1"
        )
    };
    check(OPEN, &urgent("POLLPRI"), &urgent("POLLIN"), 2, "revents of 4 is POLLPRI, expected POLLIN");
    let epoll = |event: &str| {
        format!(
            "{data}+0 epoll_create(1) = 9\n+0 epoll_ctl(9, EPOLL_CTL_ADD, 4, {{events=EPOLLIN, fd=4}}) = 0\n+0 epoll_wait(9, {{{event}}}, 1, 0) = 1"
        )
    };
    check(
        OPEN,
        &epoll("events=EPOLLIN, fd=4"),
        &epoll("events=EPOLLOUT, fd=4"),
        4,
        "events is POLLIN, expected POLLOUT",
    );
    check(
        OPEN,
        &epoll("events=EPOLLIN, fd=4"),
        &epoll("events=EPOLLIN, fd=5"),
        4,
        "the data is 4, expected 5",
    );
    let linger =
        |time: u32| format!("+0 getsockopt(4, SOL_SOCKET, SO_LINGER, {{onoff=0, linger={time}}}, [8]) = 0");
    check(OPEN, &linger(0), &linger(3), 1, "SO_LINGER is {onoff=0, linger=0}, expected {onoff=0, linger=3}");
    let text = |name: &str| format!("+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, [\"{name}\"], [9]) = 0");
    check(OPEN, &text("cubic"), &text("reno"), 1, "TCP_CONGESTION is cubic, expected reno");
}

#[test]
fn when_a_call_returns_is_checked() {
    let read = |end: &str| format!("+0...{end} read(4, ..., 10) = 10\n+.3 < P. 1:11(10) ack 1 win 32792");
    check(
        OPEN,
        &read("0.3"),
        &read("0.5"),
        1,
        "the call returned 0.200000 s early: at 0.400000 s, expected at 0.600000 s",
    );
    check(OPEN, &read("0.3"), &read("0.1"), 1, "the call returned 0.200000 s late");
    check(OPEN, &read("0.3"), "+0...1 read(4, ..., 10) = 10\n", 1, "never returns");
    check(
        OPEN,
        &read("0.3"),
        "+0...0.3 read(4, ..., 10) = 9\n+.3 < P. 1:11(10) ack 1 win 32792",
        1,
        "read returned 10, expected 9",
    );
    check(OPEN, "+0 write(4, ..., 10) = 10", "+0 read(4, ..., 10) = 10", 1, "never returns");
}

#[test]
fn an_event_whose_time_is_past_fails() {
    let wait = "+0 poll([{fd=4, events=POLLIN}], 1, 500) = 0\n";
    let at = |time: &str| format!("{wait}{time} write(4, ..., 1) = 1");
    check(OPEN, &at("0.6"), &at("0.3"), 2, "the event is 0.300000 s late");
}

#[test]
fn assertions_are_checked() {
    let code = |text: &str| format!("+0 %{{ {text} }}%");
    let wrong = |right: &str, wrong: &str, reason: &str| check(OPEN, &code(right), &code(wrong), 1, reason);
    wrong(
        "assert tcpi_state == TCP_ESTABLISHED",
        "assert tcpi_state == TCP_CLOSE_WAIT",
        "where tcpi_state is 1",
    );
    wrong("assert 1 < 2 < 3", "assert 1 < 3 < 2", "assert 1 < 3 < 2");
    wrong("assert 6 & 2", "assert 6 & 1", "assert 6 & 1");
    wrong(
        "x = 1; x += 2; assert x == 3",
        "x = 1; x += 2; assert x == 4, 'x'",
        "assert x == 4, where x is 3: x",
    );
    wrong("assert tcpi_snd_mss == 1000", "assert y == 1", "code: `y` is not defined");
    wrong("assert 4 / 2 == 2", "assert 4 / 0 == 2", "`/` of 4 and 0");
}

#[test]
fn assertions_on_the_sockets_are_checked() {
    let grep = |state: &str| format!("+0 `sockstat -4 -P tcp | grep -c {state} | grep 1`");
    check(
        OPEN,
        &grep("ESTABLISHED"),
        &grep("CLOSE_WAIT"),
        1,
        "finds nothing: root packetdril 100 3 tcp4 192.168.0.1:8080",
    );
}

#[test]
fn assertions_on_the_counters_are_checked() {
    let drops = |count: u32| format!("+0 < - 1:1(0) win 0\n+0 `nstat | grep -x \"drop.tcp_flags {count}\"`");
    check(OPEN, &drops(1), &drops(2), 2, "drop.tcp_flags 1");
}

/// A segment with an impossible address or a bad checksum gets no answer; the unmodified SYN gets a SYN-ACK.
#[test]
fn segments_of_no_host_and_with_a_wrong_checksum_are_sent_so() {
    for what in ["from multicast", "from broadcast", "to multicast", "to broadcast", "to nobody", "badsum"] {
        let syn =
            |info: &str| format!("+0 < {info} S 0:0(0) win 1000 <mss 1000>\n+0 > S. 0:0(0) ack 1 <...>");
        check(LISTEN, &syn(""), &syn(&format!("[{what}]")), 2, "no packet came");
    }
}

/// `FO ...` stands for the cookie that the stack issued. If the script returns that cookie, the stack accepts data on
/// the SYN.
#[test]
fn a_cookie_that_was_given_is_told_from_another() {
    let listen = "`sysctl -q net.ipv4.tcp_fastopen=2`\n0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n\
        +0 setsockopt(3, SOL_TCP, TCP_FASTOPEN, [5], 4) = 0\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 5) = 0\n";
    let ask = "+0 < S 0:0(0) win 1000 <mss 1000,FO,nop,nop>\n";
    let given = format!("{listen}{ask}+0 > S. 0:0(0) ack 1 <mss 1460,FO ...,nop,nop>\n");
    let back = |cookie: &str| {
        format!(
            "+.1 < R 1:1(0) win 0\n+.1 < S 0:10(10) win 1000 <mss 1000,FO {cookie},nop,nop>\n\
             +0 > S. 0:0(0) ack 11 <mss 1460>"
        )
    };
    check(&given, &back("..."), &back("0102030405060708"), 3, "acknowledgment number");
    // A client that requests no cookie gets none.
    let plain = ask.replace(",FO,nop,nop", "");
    let expected = "+0 > S. 0:0(0) ack 1 <mss 1460,FO ...,nop,nop>";
    check(listen, &format!("{ask}{expected}"), &format!("{plain}{expected}"), 2, "options");
}

#[test]
fn icmp_of_the_stack_is_checked() {
    let ping = "0 < icmp echo_request id 7\n";
    check(
        "",
        &format!("{ping}+0 > icmp echo_reply id 7"),
        &format!("{ping}+0 > icmp echo_reply id 8"),
        2,
        "identifier: expected 8, came 7",
    );
    check(
        "",
        &format!("{ping}+0 > icmp echo_reply id 7"),
        &format!("{ping}+0 > icmp echo_request"),
        2,
        "type and code: expected echo_request, came echo_reply",
    );
    check(
        "",
        &format!("{ping}+0 > icmp echo_reply"),
        &format!("{ping}+0 > . 1:1(0) ack 1"),
        2,
        "protocol: expected TCP, came ICMP",
    );
}

#[test]
fn a_failure_shows_all_fields_and_what_led_to_it() {
    let outcome = run(&format!("{OPEN}+0 write(4, ..., 100) = 100\n+0 > . 2:102(100) ack 1\n"));
    assert_eq!(outcome.reason, "flags: expected ., came P. (also wrong: sequence number)");
    let marked = |name: &str| outcome.details.lines().any(|line| line.starts_with(&format!("* {name} ")));
    assert!(marked("flags") && marked("sequence number") && !marked("window"), "{}", outcome.details);
    assert!(outcome.details.contains("came:   > P. 1:101(100) ack 1 win"), "{}", outcome.details);
    assert!(outcome.ladder.contains("SYN-RECEIVED > ESTABLISHED"), "{}", outcome.ladder);
    assert!(outcome.ladder.contains("-- S 0:0(0) win 32792 <mss 1000> ---"), "{}", outcome.ladder);
}
