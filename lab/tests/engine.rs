//! The lab itself: the effect of each fault, and a failing case for each check.

mod play;

use play::{fails, passes, play};
use steadfast_lab::{RunOptions, Scenario, run};

/// C sends 100 bytes and closes; S replies with 50.
const BASE: &str = "
app C
  connect S:80 as c
  send 100
  shutdown write
  read eof => 50 bytes
  close
app S
  listen 80
  accept as s
  read eof => 100 bytes
  after 50ms send 50
  close
";

#[test]
fn the_base_passes_and_every_expectation_about_it_can_hold() {
    let report = passes(&format!(
        "{BASE}expect
  wire C>S [S] at 0
  wire C>S data seq 1 len 100 count 1
  wire S>C [S.] arrives 0.020
  order C>S [S], S>C [S.], S>C data
  states C CLOSED SYN-SENT ESTABLISHED FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT CLOSED
  states S.s LISTEN SYN-RECEIVED ESTABLISHED CLOSE-WAIT LAST-ACK CLOSED
  state S CLOSE-WAIT at 0.050
  queue S:80 half-open 1 accept 0 at 0.015
  usage C time_wait 1 at 1
  info C.c snd_mss 1448 sack on snd_wscale >=1 rto 0..1 state FIN-WAIT-2 at 0.070
  listed S CLOSE-WAIT 1 older 10ms at 0.070
  counter C ActiveOpens 1
"
    ));
    assert!(report.virtual_seconds > 60.0 && report.ladder.contains("SYN-RECEIVED"));
    assert_eq!(report.pcap[..4], 0x0a0d_0d0a_u32.to_le_bytes());
}

/// Each line is wrong in one point.
#[test]
fn every_expectation_can_fail() {
    for (line, message) in [
        ("wire C>S [S] at 0 1", "sent at 0.000000, expected 0.000000 1.000000"),
        ("wire C>S [S] at 0.001", "sent at 0.000000"),
        ("wire S>C [S.] arrives 0.010", "arrived at 0.020000, expected 0.010000"),
        ("wire C>S [.] gaps 7", "gaps of"),
        ("wire C>S [R] count 1", "0 of them, expected 1"),
        ("wire C>S data none", "1 of them, expected 0"),
        ("order S>C [S.], C>S [S]", "number 2 never came"),
        ("exchange C>S [S], C>S [S]", "number 2 at 0.010000 is another one"),
        ("exchange C>S [S]", "and then one more at 0.010000"),
        ("states C CLOSED SYN-SENT", "it was CLOSED SYN-SENT ESTABLISHED"),
        ("states C#2 CLOSED", "there is no such connection"),
        ("state S ESTABLISHED at 0.050", "it was CLOSE-WAIT"),
        ("queue S half-open 0 accept 0 at 0.015", "half-open 1, accept 0"),
        ("queue S:81 half-open 0 accept 0 at 0.015", "there is no such listener"),
        ("usage C time_wait 0 at 1", "time_wait is 1"),
        ("usage C sockets 1", "sockets is 0"),
        ("info C snd_mss 1460 at 0.070", "snd_mss is Number(1448)"),
        ("info C sack off at 0.070", "sack is Switch(true)"),
        ("info C snd_mss 1448 at 1", "no application holds such a connection"),
        ("listed S CLOSE-WAIT 1 older 1s at 0.070", "0 of them"),
        ("diagnosis S \"80\" at 0.070", "there is never"),
        ("counter C ActiveOpens 2", "it is 1"),
        ("drops S duplicate", "drop `duplicate` 0, expected >=1"),
        ("replies S syn_ack 2", "reply `syn_ack` 1, expected 2"),
        ("holds C sockets 1", "C ends with sockets 0"),
        ("iss C ascending", "no tuple was used twice"),
        ("iss C unrelated", "1 tuples are too few"),
        ("violates stream", "expected the rule `stream` to be broken"),
    ] {
        fails(&format!("{BASE}expect {line}\n"), message);
    }
}

#[test]
fn every_outcome_can_fail() {
    for (from, to, message) in [
        (
            "connect S:80 as c",
            "connect S:80 as c => ECONNREFUSED",
            "gave ok at 0.020000, expected ECONNREFUSED",
        ),
        (
            "connect S:80 as c",
            "connect S:80 as c => ok at 0.021",
            "gave ok at 0.020000, expected ok at 0.021000",
        ),
        ("read eof => 50 bytes", "read eof => 49 bytes", "gave eof after 50 bytes"),
        ("read eof => 50 bytes", "read 60", "gave eof after only 50 bytes"),
        ("accept as s\n", "accept as s => waits\n", "gave ok at 0.030000, expected to wait for ever"),
        ("  close\napp S", "  close\n  close => ok\napp S", "gave EBADF"),
    ] {
        let text = BASE.replacen(from, to, 1);
        assert_ne!(text, BASE);
        fails(&text, message);
    }
    fails("app S\n  listen 80\n  accept\n", "`accept` still waits at the end");
    passes("app S\n  listen 80\n  accept => waits\n");
}

#[test]
fn a_drop_and_a_reply_that_are_not_named_fail() {
    let closed = "app C\n  connect S:81 => ECONNREFUSED at 0.020\n";
    fails(closed, "S: reply `rst_closed` 1, which the scenario does not name");
    passes(&format!("{closed}expect replies S rst_closed 1\n"));
    let text = format!("{BASE}fault corrupt C>S data 1 payload\n");
    fails(&text, "S: drop `tcp_checksum` 1, which the scenario does not name");
}

#[test]
fn what_is_left_at_the_end_fails_unless_it_is_held() {
    let open = "until 5\napp C\n  connect S:80\napp S\n  serve 80 hold\n";
    let report = play(open);
    assert!(report.failures.iter().any(|f| f.contains("C ends with sockets 1, connections 1")), "{report:?}");
    passes(&format!(
        "{open}expect\n  holds C sockets 1 connections 1\n  holds S sockets 2 listeners 1 connections 1\n"
    ));
}

#[test]
fn segments_are_lost_copied_delayed_reordered_cut_and_changed() {
    let report = passes(
        "fault
  strip C>S [S] ts
  rewrite S>C [S.] mss=536
  reorder C>S data 2 past 2
  corrupt C>S data 5
  duplicate C>S data 7 after 30ms
  delay C>S data 9 by 50ms
  truncate C>S data 11 to 100
app C
  connect S:80
  send 20000
  shutdown write
  read eof
  close
app S
  listen 80
  accept
  read eof => 20000 bytes
  close
expect
  drops S tcp_checksum 1, ip_header 1, duplicate
  replies S unacceptable_ack
  wire C>S data len 536 count >=36
",
    );
    for text in ["copy: arrives", "reorder C>S data 2 past 2: arrives", "truncate C>S data 11 to 100"] {
        assert!(report.ladder.contains(text), "{text}\n{}", report.ladder);
    }
}

#[test]
fn a_reordered_segment_arrives_behind_those_that_overtake_it() {
    passes(
        "sysctl * tcp_sack = 0
fault reorder C>S data 1 past 2
app C
  connect S:80
  send 3000
  close
app S
  serve 80 sink
expect
  wire C>S data seq 1 len 1448 arrives 0.030
  wire C>S data again none
  counter S TCPOFOQueue 2
  wire S>C [.] ack 1 count 2
",
    );
}

#[test]
fn a_narrow_link_is_told_of_or_silent_h8() {
    let transfer =
        "app C\n  connect S:80\n  send 20000\n  wait flushed\n  at 30 close\napp S\n  serve 80 sink\n";
    let told = passes(&format!(
        "fault mtu C>S 1200 icmp\n{transfer}expect\n  info C pmtu 1200 at 0.3\n  drops C icmp_invalid >=0\n  wire C>S data size >1200 count 10\n"
    ));
    assert!(told.ladder.contains("icmp too big, mtu 1200"));
    let silent = passes(&format!(
        "fault mtu C>S 1200 silent\n{transfer}expect\n  replies S syn_ack_retransmit >=0\n  replies C challenge_ack >=0\n  \
         drops C syn_challenged >=0\n"
    ));
    assert!(!silent.ladder.contains("icmp"));
}

#[test]
fn a_router_or_a_liar_refuses_a_connection() {
    let connect = |with: &str, error: &str| {
        format!("fault reject C>S [S] with {with}\napp C\n  connect S:80 => {error} at 0.010\n")
    };
    passes(&connect("rst", "ECONNREFUSED"));
    passes(&connect("port-unreachable", "ECONNREFUSED"));
    passes("ip 6\nfault reject C>S [S] with admin-prohibited\napp C\n  connect S:80 => EACCES at 0.010\n");
}

#[test]
fn two_clients_behind_one_address_reach_one_server() {
    let report = passes(
        "host C2
nat N 192.0.2.1 for C C2
app C
  connect S:80 from 5000
  send 100
  read 100
  close
app C2
  connect S:80 from 5000
  send 200
  read 200
  close
app S
  serve 80 echo
expect
  counter S PassiveOpens 2
  states C2 CLOSED SYN-SENT ESTABLISHED FIN-WAIT-1 TIME-WAIT CLOSED
",
    );
    assert!(report.ladder.contains("C2 SYN-SENT"), "{}", report.ladder);
}

#[test]
fn a_host_that_crashes_forgets_and_one_that_reboots_starts_again_h7a() {
    let report = passes(
        "fault
  crash C at 1
  reboot C at 2
app C
  connect S:80 from 5000
  send 100
  read eof
app C rebooted
  connect S:80 from 5000 => ok at ~2.042
  send 200
  close
app S
  listen 80
  accept as a
  read closed => ECONNRESET at ~2.030
  accept as b
  read eof => 200 bytes
  close
expect
  replies S challenge_ack
  drops S paws >=0, syn_challenged >=0
  drops C ack_of_unsent
  replies C rst_unacceptable_ack
",
    );
    assert!(report.ladder.contains("ack 101' "), "{}", report.ladder);
}

#[test]
fn the_same_secret_and_clock_give_the_same_iss_and_others_do_not_h7c() {
    let text = |how: &str| {
        format!(
            "fault reboot C at 100 {how}
app C
  connect S:80 from 5000
  at 1 close
app C rebooted
  connect S:80 from 5000
  at 101 close
app S
  serve 80 sink
expect iss C rate 250000
"
        )
    };
    fails(&text(""), "it grew by");
    // With the same secret and a running clock, the timer of RFC 6528 has advanced.
    passes(&text("same-secret"));
    fails(&text("same-secret same-clock"), "no tuple was used twice");
}

#[test]
fn forged_segments_arrive_in_the_name_of_another_t13() {
    let report = passes(
        "ip 6
until 10
fault
  inject C>S [S] seq =5000 sport 999 dport 80 at 0.5
  inject C>S [R] seq rcv.nxt+10 at 1
  inject C>S [R] seq rcv.nxt at 2
app C
  connect S:80
  read closed => waits
app S
  listen 80
  accept
  read closed => ECONNRESET at 2
expect
  replies S challenge_ack 1
  drops S half_open_rst 1, rst_challenged 1
  replies C rst_closed 1
  holds C sockets 1 connections 1
",
    );
    assert!(report.ladder.contains("forged"), "{}", report.ladder);
}

#[test]
fn a_partition_cuts_one_way_or_both_and_heals_h9a() {
    passes(
        "fault partition C|S until 2.5
app C
  connect S:80 => ok at 3.020
  close
app S
  serve 80 sink
expect wire C>S [S] at 0 1 2 3
",
    );
    passes(
        "fault partition S>C until 2.5
app C
  connect S:80 => any
  close
app S
  serve 80 sink
expect
  wire C>S [S] count 3..4
  replies S syn_ack_retransmit >=1, challenge_ack >=0
  drops C syn_challenged >=0
  replies C challenge_ack >=0
  drops S duplicate >=0, syn_challenged >=0
",
    );
}

#[test]
fn a_flood_fills_the_half_open_table_and_no_more_h4() {
    let report = passes(
        "fault flood S:80 5000 from 198.18.0.0/15 over 1s at 0.5
sysctl S tcp_syncookies = 0
until 1.6
app S
  serve 80 sink
expect
  usage S half_open 2048 at 1.5
  drops S syn_backlog_full >=1
  replies S syn_ack_retransmit >=0
  holds S half_open 2048 timers >=1
",
    );
    assert!(report.ladder.lines().count() < 30, "{}", report.ladder);
}

#[test]
fn a_proxy_passes_bytes_both_ways() {
    passes(
        "host P
app C
  connect P:80
  send 5000
  shutdown write
  read eof => 5000 bytes
  close
app P
  serve 80 proxy S:80
app S
  serve 80 echo
",
    );
}

#[test]
fn a_crowd_of_clients_comes_through_or_is_counted() {
    let crowd = "app C\n  clients 30 to S:80 parallel 5 send 10";
    passes(&format!("{crowd}\napp S\n  serve 80 sink\n"));
    let refused = format!("{crowd}\nexpect replies S rst_closed 30\n");
    fails(&refused, "gave 0 of 30");
    passes(&refused.replace("send 10", "send 10 => 0"));
}

#[test]
fn bytes_of_another_stream_are_noticed() {
    // The start of the stream replaces the segment's payload, so the content is wrong.
    let text = "fault rewrite C>S data seq 1449 data=1448
app C
  connect S:80
  send 4000
  close
app S
  serve 80 sink
";
    fails(text, "byte 1448 of the stream is not what was sent");
    passes(&format!("{text}expect violates stream\n"));
}

#[test]
fn a_clock_that_jumps_moves_timers_but_not_the_network() {
    passes(
        "fault
  lose C>S [S] 1
  clock C +300ms at 0.5
app C
  connect S:80 => ok at 0.720
  close
app S
  serve 80 sink
expect wire C>S [S] at 0 0.7
",
    );
}

#[test]
fn a_rate_and_a_queue_make_packets_wait_and_drop() {
    let report = passes(
        "path C>S delay 10ms rate 1mbit queue 5
app C
  connect S:80
  send 100000
  close
app S
  serve 80 sink
expect
  drops S duplicate >=0
  replies S unacceptable_ack >=0
  counter C RetransSegs >=1
",
    );
    assert!(report.ladder.contains("lost: queue full"));
    assert!(report.virtual_seconds > 0.8, "100,000 bytes take 0.8 s at 1 Mbit/s");
}

#[test]
fn phases_run_one_after_the_other_under_their_own_conditions() {
    let report = passes(
        "phase open S listens
phase shut nobody does
app C
  [open] connect S:80 => ok at 0.020
  [shut] connect S:80 => ECONNREFUSED at 0.020
  [open] close
[open] app S
  serve 80 sink
[shut] expect replies S rst_closed 1
",
    );
    assert!(
        report.ladder.contains("phase open: S listens") && report.ladder.contains("phase shut: nobody does")
    );
}

#[test]
fn sockets_set_up_by_hand_carry_their_options() {
    passes(
        "until 5
app C
  connect S:80 maxseg 500 nodelay keepalive 1 1 3
  send 3000
  wait flushed
  sleep 0.5
  set user_timeout 2
  error
  repeat 3
    send 10
    after 10ms
  close
app S
  serve 80 sink rcvbuf 64K
expect
  wire C>S data len <=500 count 10
  holds C time_wait 1 timers >=0
",
    );
}

#[test]
fn a_fault_of_the_command_line_is_added_and_expectations_become_differences() {
    let scenario =
        Scenario::parse("test", &format!("id X\ntitle T\n{BASE}expect wire C>S [S] at 0\n")).unwrap();
    let faults = vec!["lose C>S [S] 1".parse().unwrap()];
    let report = run(&scenario, &RunOptions { faults, ..RunOptions::default() }).unwrap();
    assert!(report.passed(), "{:?}", report.failures);
    assert!(
        report.differences.iter().any(|d| d.contains("sent at 0.000000 1.000000")),
        "{:?}",
        report.differences
    );
    let faults = vec!["lose X>S [S] 1".parse().unwrap()];
    let error = run(&scenario, &RunOptions { faults, ..RunOptions::default() }).unwrap_err();
    assert_eq!(error.to_string(), "`lose X>S [S] 1`: X has the hosts C, S, not `X`");
}

#[test]
fn a_segment_that_brings_its_cookie_back_makes_one_connection_and_not_two() {
    passes(
        "sysctl S tcp_syncookies = 2
until 1.1
fault duplicate C>S data 1 at 1
app C
  connect S:80
  send 100
  close
app S
  serve 80 sink
expect
  counter S PassiveOpens 1
  replies S syn_ack_cookie, rst_listen
  drops C time_wait_rst
  holds C time_wait 1 timers >=0
  holds S sockets 1 timers >=0
",
    );
}

/// A stack that does not run takes what waited for it when it goes on, and no more than its driver may hold.
#[test]
fn what_arrives_at_a_stalled_host_waits_for_it_up_to_netdev_max_backlog() {
    let text = |packets: u32, dropped: u32| {
        format!(
            "settings netdev_max_backlog
sysctl S netdev_max_backlog = 5
fault stall S from 1 until 3
  inject C>S [.] times {packets} every 1ms at 2
app C
  connect S:80
  at 4 close
app S
  listen 80
  accept
  read eof => eof at 4.010
  close
expect
  counter S softnet_dropped {dropped}
"
        )
    };
    for (packets, dropped) in [(4, 0), (5, 0), (6, 1), (9, 4)] {
        passes(&text(packets, dropped));
    }
}

/// A segment that was received before is a drop and draws an answer.
const DUPLICATE: &str = "fault duplicate C>S data 1 after 20ms\n";

#[test]
fn any_names_all_drops_and_all_replies_and_a_reason_beside_it_is_still_judged() {
    let text = |expect: &str| format!("{DUPLICATE}{BASE}expect\n{expect}");
    let [drops, replies] = ["drops S any\n", "replies S any\n"].map(|line| format!("  {line}"));
    passes(&text(&format!("{drops}{replies}")));
    fails(&text(&drops), "which the scenario does not name");
    fails(&text(&replies), "which the scenario does not name");
    // Nothing has to be dropped.
    passes(&format!("{BASE}expect\n{drops}{replies}"));
    fails(&text(&format!("  drops S any, duplicate 2\n{replies}")), "drop `duplicate` 1, expected 2");
}

#[test]
fn several_rules_may_be_named_at_once() {
    passes(&format!("{BASE}expect\n  tolerates stream, ack window\n"));
    fails(&format!("{BASE}expect\n  violates stream\n"), "expected the rule `stream` to be broken");
    let both = play(&format!("{BASE}expect\n  violates stream ack\n"));
    assert_eq!(both.failures.len(), 2, "{:?}", both.failures);
    let wrong = Scenario::parse("t", "id X\ntitle T\nexpect\n  violates\n").unwrap_err().to_string();
    assert!(wrong.contains("stream, datagram, window, ack, reset or empty"), "{wrong}");
}

#[test]
fn sizes_of_settings_may_have_a_suffix() {
    passes(&format!("sysctl S tcp_mem = 4M\n{BASE}"));
}
