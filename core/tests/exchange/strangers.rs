//! Replies that strangers may draw from us, and effects of their old segments: budgets of replies, cookies used twice.

use std::cell::RefCell;

use steadfast_core::config::{FastOpenMode, SynCookies};
use steadfast_core::counters::{DropReason, ReplyReason};
use steadfast_core::trace::State;
use steadfast_core::{Config, Error, ListenOptions};

use crate::harness::{Test, each, each_with};
use crate::text::to_hex;

/// How many of `count` segments like this are answered, all at one moment.
fn answered(t: &mut Test, count: usize, text: &str) -> usize {
    let packet = t.packet(text);
    let mut frame = vec![0; 65_535];
    let mut answered = 0;
    for _ in 0..count {
        t.stack.receive(t.now, &packet[..]);
        while t.stack.transmit(t.now, &mut frame).is_some() {
            answered += 1;
        }
    }
    answered
}

/// A network has a quarter of the limit, and at one moment an eighth of a second's of that.
fn at_once(config: &Config) -> usize {
    config.tcp_rst_limit as usize / 4 / 8
}

/// SA-CLOSED-05, THREAT-5: one budget for all strays, wherever they meet something that is not a connection yet.
#[test]
fn a_half_open_entry_answers_strays_within_the_budget_threat_5() {
    each(|t| {
        t.listen();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        let drawn = answered(t, 10_000, ". seq 1 ack 99");
        let most = at_once(t.stack.config());
        assert!((most / 2..=most).contains(&drawn), "{drawn}");
        t.wait(500);
        t.send(". seq 1 ack 1");
        t.accept();
        assert_eq!(t.state(), State::Established);
    });
}

/// SA-CLOSED-05, THREAT-5: nor do the segments that an opening has no use for.
#[test]
fn an_opening_answers_strays_within_the_budget_threat_5() {
    each(|t| {
        t.connect();
        let drawn = answered(t, 10_000, "S. seq 0 ack 99");
        let most = at_once(t.stack.config());
        assert!((most / 2..=most).contains(&drawn), "{drawn}");
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
    });
}

/// A crowd behind one address is refused at once, as by the kernel, even while strays use up the budget (SA-CLOSED-02).
#[test]
fn a_crowd_of_refused_clients_is_told_at_once_sa_closed_02() {
    each(|t| {
        answered(t, 1000, ". seq 1 ack 99");
        for port in 0..1500 {
            t.peer(5000 + port);
            t.send("S seq 0");
            t.recv("R. seq =0 ack 1");
        }
    });
}

/// 0 is no limit, as in Linux.
#[test]
fn without_a_limit_every_stray_is_answered_sa_closed_05() {
    each_with(
        |c| c.tcp_rst_limit = 0,
        |t| {
            assert_eq!(answered(t, 10_000, ". seq 1 ack 99"), 10_000);
            assert_eq!(t.stack.counters().dropped(DropReason::ReplyThrottled), 0);
        },
    );
}

/// THREAT-34: an old SYN of ours wakes a half-open entry at a peer, and its SYN-ACK meets our TIME-WAIT. Neither side
/// may answer each other's ACKs for ever, even where nothing limits those (profile `bsd`): RFC 9293 §3.5.2 group 2.
#[test]
fn a_half_open_entry_and_a_time_wait_do_not_argue_threat_34() {
    each_with(
        |c| c.tcp_invalid_ratelimit = steadfast_core::Duration::ZERO,
        |t| {
            t.listen();
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            // The TIME-WAIT has its own numbers, far from those of the old SYN.
            t.send(". seq 20000 ack 30000");
            t.recv("R seq 30000");
            t.recv_nothing();
            t.dropped(&[DropReason::AckOfUnsent]);
            assert_eq!(t.tuple_state(), State::SynReceived);
        },
    );
}

/// THREAT-3: who puts a victim's address on 10,000 SYNs draws no more than 1.1 packets for each, repeats included.
#[test]
fn syns_in_the_name_of_one_victim_draw_little_more_than_one_packet_each_threat_3() {
    each(|t| {
        t.listen();
        let mut frame = vec![0; 65_535];
        let mut sent = 0;
        for n in 0..10_000 {
            t.peer(1000 + n);
            let packet = t.packet("S seq 0 <sackOK, wscale 7>");
            t.stack.receive(t.now, &packet[..]);
            while t.stack.transmit(t.now, &mut frame).is_some() {
                sent += 1;
            }
            t.now += steadfast_core::Duration::from_micros(100);
        }
        assert_eq!(sent, 10_000, "each is answered once");
        while let Some(at) = t.stack.poll_at() {
            t.now = t.now.max(at);
            t.stack.advance(t.now);
            while t.stack.transmit(t.now, &mut frame).is_some() {
                sent += 1;
            }
        }
        assert!(sent <= 11_000, "{sent}");
        let counters = t.stack.counters();
        assert!(counters.synack_repeats_saved > 0);
        assert_eq!(counters.replied(ReplyReason::SynAckRetransmit), sent - 10_000);
        assert_eq!(counters.synack_retries_exhausted as usize, 10_000 - counters.syncookies_sent as usize);
    });
}

/// The other side: with as few repeats as honest loss brings, none is saved.
#[test]
fn a_lost_syn_ack_is_sent_again_within_the_budget_threat_3() {
    each_with(
        |c| c.tcp_synack_ratelimit = 16,
        |t| {
            t.listen();
            t.send("S seq 0");
            for millis in [0, 1000, 2000, 4000, 8000, 16_000] {
                t.recv_after(millis, "S. seq 0 ack 1 <mss 1460>");
            }
            assert_eq!(t.stack.counters().synack_repeats_saved, 0);
            t.wait(40_000);
        },
    );
}

/// One SYN of somebody else, which keeps the listener looking for cookies.
fn another_syn(t: &mut Test) {
    t.peer(9999);
    t.send("S seq 0");
    assert_eq!(t.drain(), 1);
    t.peer(4000);
}

/// THREAT-6, H4b: the third segment of a cookie makes one connection, however late its copies come, and leaves nothing
/// in TIME-WAIT for it.
#[test]
fn a_spent_cookie_makes_no_second_connection_threat_6() {
    each_with(
        |c| c.tcp_syncookies = SynCookies::Always,
        |t| {
            t.listen();
            // Just after an epoch began: the cookie is good for nearly two minutes.
            t.wait(50_500);
            t.send("S seq 0 <sackOK, wscale 0>");
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
            let third = t.packet("P. seq 1:23 ack 1");
            t.stack.receive(t.now, &third[..]);
            t.recv(". seq 1 ack 23");
            t.accept();
            t.read(22);
            t.send("R seq 23");
            t.recv_nothing();
            assert_eq!(t.stack.usage().time_wait, 0);
            assert_eq!(t.read_end(), Err(Error::ConnectionReset));
            for _ in 0..59 {
                t.wait(2000);
                another_syn(t);
                t.stack.receive(t.now, &third[..]);
                t.recv("R seq 1");
                assert_eq!(t.stack.accept(t.listener.unwrap()), Err(Error::WouldBlock));
            }
            assert_eq!(t.stack.counters().syncookies_failed, 59);
        },
    );
}

/// RFC 6191, H4b: nor when the tuple has had another connection since.
#[test]
fn a_spent_cookie_stays_spent_when_its_tuple_is_used_again_threat_6() {
    each_with(
        |c| c.tcp_syncookies = SynCookies::Always,
        |t| {
            t.listen();
            t.send("S seq 0 <sackOK, wscale 0>");
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
            let third = t.packet("P. seq 1:23 ack 1");
            t.stack.receive(t.now, &third[..]);
            t.recv(". seq 1 ack 23");
            t.accept();
            t.read(22);
            t.send("R seq 23");
            let first_irs = t.cur().irs.unwrap();
            t.restart_peer(100_000);
            t.establish();
            t.send("R seq 1");
            another_syn(t);
            t.stack.receive(t.now, &third[..]);
            let rst = t.recv_any().unwrap().header;
            assert!(rst.flags.rst() && rst.seq == first_irs + 1);
            assert_eq!(t.stack.accept(t.listener.unwrap()), Err(Error::WouldBlock));
            assert_eq!(t.stack.usage().connections, 0);
        },
    );
}

/// Invariant 1: above `tcp_max_spent_cookies` a connection is made all the same, and counted.
#[test]
fn spent_cookies_are_bounded_threat_6() {
    each_with(
        |c| (c.tcp_syncookies, c.tcp_max_spent_cookies) = (SynCookies::Always, 2),
        |t| {
            t.listen();
            for (port, not_kept) in [(5000, 0), (6000, 0), (7000, 1)] {
                t.peer(port);
                t.send("S seq 0");
                t.recv("S. seq 0 ack 1 <mss 1460>");
                t.send(". seq 1 ack 1");
                t.accept();
                assert_eq!(t.state(), State::Established);
                assert_eq!(t.stack.counters().syncookies_not_kept, not_kept);
            }
        },
    );
}

/// RFC 7413 §4.1.2: a cookie is good for one to two lives of a key.
#[test]
fn a_fast_open_cookie_expires_7413_1() {
    const LIFE: u64 = 3600;
    each_with(
        |c| {
            (c.tcp_fastopen, c.tcp_fastopen_key_life) =
                (FastOpenMode::SERVER, steadfast_core::Duration::from_secs(LIFE))
        },
        |t| {
            t.listen_with(ListenOptions { fast_open: true, ..ListenOptions::default() });
            t.send("S seq 0 <sackOK, wscale 0, tfo>");
            let cookie = t.recv_any().unwrap().header.options.fast_open.expect("a cookie");
            t.send("R seq 1");
            let cookie = to_hex(cookie.as_bytes());
            // The clock stands at 10 s.
            t.wait((2 * LIFE - 11) * 1000);
            t.peer(5000);
            t.send(&format!("S seq 0:10 <sackOK, wscale 0, tfo {cookie}>"));
            let got = t.recv_any().unwrap().header;
            assert_eq!(got.ack.since(t.cur().iss), 11, "the data is taken");
            let successor = got.options.fast_open.expect("the cookie of the next key");
            assert_ne!(to_hex(successor.as_bytes()), cookie);
            t.send("R seq 11");
            t.wait(1000);
            t.peer(6000);
            t.send(&format!("S seq 0:10 <sackOK, wscale 0, tfo {cookie}>"));
            let got = t.recv_any().unwrap().header;
            assert_eq!(got.ack.since(t.cur().iss), 1, "the data is not taken");
            let fresh = got.options.fast_open.expect("a new one");
            assert_ne!(to_hex(fresh.as_bytes()), cookie);
            t.send("R seq 1");
        },
    );
}

/// THREAT-27, 6528-1: two starts have nothing in common that an outsider could carry over.
#[test]
fn two_starts_have_other_numbers_and_other_cookies_threat_27() {
    for syncookies in [SynCookies::Never, SynCookies::Always] {
        let answers = |secret| {
            let answers = RefCell::new(Vec::new());
            each_with(
                |c| (c.secret, c.tcp_syncookies) = ([secret; 32], syncookies),
                |t| {
                    t.listen();
                    t.send("S seq 0");
                    let got = t.recv_any().unwrap().header;
                    t.send("R seq 1");
                    answers.borrow_mut().push((got.seq, got.options.timestamps.map(|ts| ts.val)));
                },
            );
            answers.into_inner()
        };
        for (first, second) in answers(1).into_iter().zip(answers(2)) {
            assert_ne!(first.0, second.0);
            assert!(first.1.is_none() && second.1.is_none() || first.1 != second.1);
        }
    }
}
