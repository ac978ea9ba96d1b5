//! Forwarders: requests that wait for a decision, and connections from and to addresses of other hosts.

use std::net::IpAddr;

use steadfast_core::counters::{DropReason, ReplyReason};
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::{self, ErrorKind, Message};
use steadfast_core::wire::{ipv4, ipv6, tcp};
use steadfast_core::{
    ConnectOptions, Duration, Error, Event, ForwardRule, ListenOptions, Reject, Shutdown, SocketId,
};

use crate::harness::{BUFFER, PEER, Test, each, each_with};

impl Test {
    /// A forwarder of everything; the peer speaks to an address of another host from now on.
    #[track_caller]
    fn forward(&mut self) -> SocketId {
        self.foreign = true;
        self.stack.forward(ForwardRule::all()).unwrap()
    }

    /// The next request, as the socket of the test.
    #[track_caller]
    fn request(&mut self, forwarder: SocketId) -> SocketId {
        assert!(self.events(forwarder).contains(Event::READABLE));
        self.sock = self.stack.next_request(forwarder).expect("a request");
        self.sock
    }

    #[track_caller]
    fn accept_request(&mut self) {
        assert_eq!(self.stack.accept_request(self.now, self.sock, None), Ok(()));
        self.pump();
    }

    #[track_caller]
    fn reject(&mut self, how: Reject) {
        assert_eq!(self.stack.reject_request(self.now, self.sock, how), Ok(()));
        self.pump();
    }

    /// The request is gone, and its application learns of `error`.
    #[track_caller]
    fn is_gone(&mut self, error: Error) {
        assert_eq!(self.stack.usage().requests, 0);
        assert!(self.events(self.sock).contains(Event::CLOSED | Event::ERROR));
        assert_eq!(self.stack.accept_request(self.now, self.sock, None), Err(error));
        self.close();
        self.recv_nothing();
    }

    fn bad_address(&self) -> u64 {
        self.stack.counters().dropped(DropReason::NotOurs)
    }
}

#[test]
fn nothing_is_sent_before_the_decision_fwd_1() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0 <mss 1200, sackOK, wscale 3>");
        t.recv_nothing();
        t.request(forwarder);
        assert_eq!(t.stack.next_request(forwarder), Err(Error::WouldBlock));
        let syn = t.stack.request(t.sock).unwrap();
        assert_eq!((syn.source, syn.destination), (t.remote(), t.local()));
        assert_eq!((syn.mss, syn.window_scale, syn.sack_permitted), (1200, Some(3), true));
        assert_eq!((syn.timestamp.is_some(), syn.ecn, syn.ttl, syn.tos, syn.count), (t.ts, false, 64, 0, 1));
        assert_eq!((t.stack.usage().requests, t.tuple_state()), (1, State::SynReceived));
        // Nothing of it can be written or read yet.
        assert_eq!(t.stack.send(t.sock, b"x"), Err(Error::WouldBlock));
        assert_eq!(t.stack.recv(t.sock, &mut [0]), Err(Error::WouldBlock));
        for text in [". seq 1 ack 7", "P. seq 1:9 ack 7", "F. seq 1 ack 7", "S. seq 0 ack 7"] {
            t.send(text);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::Undecided; 4]);
        t.reject(Reject::Silent);
        t.recv_nothing();
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn a_retransmitted_syn_refreshes_its_request_fwd_2() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        for _ in 0..6 {
            t.wait(7000);
            t.send("S seq 0");
            t.recv_nothing();
        }
        assert_eq!(t.stack.request(t.sock).unwrap().count, 7);
        assert_eq!(t.stack.next_request(forwarder), Err(Error::WouldBlock));
        assert_eq!((t.events(forwarder), t.stack.counters().forward_requests), (Event::default(), 1));
        t.accept_request();
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send("R seq 1");
        t.is_closed(Some(Error::ConnectionReset));
    });
}

#[test]
fn a_syn_with_another_isn_replaces_the_request_fwd_3() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        let old = t.request(forwarder);
        t.restart_peer(100_000);
        t.send("S seq 0");
        t.recv_nothing();
        assert_eq!(t.stack.counters().forward_requests, 2);
        assert!(t.events(old).contains(Event::CLOSED));
        assert_eq!(t.stack.accept_request(t.now, old, None), Err(Error::ConnectionReset));
        t.stack.close(t.now, old).unwrap();
        t.request(forwarder);
        t.accept_request();
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send("R seq 1");
    });
}

/// One that nobody has taken yet leaves nothing behind.
#[test]
fn a_reset_of_the_request_ends_it_and_no_other_does_fwd_4() {
    each(|t| {
        let forwarder = t.forward();
        for taken in [true, false] {
            t.send("S seq 0");
            if taken {
                t.request(forwarder);
            }
            for text in ["R seq 0", "R seq 2", "R. seq 100 ack 1"] {
                t.send(text);
            }
            assert_eq!(t.stack.usage().requests, 1);
            t.send("R seq 1");
            t.dropped(&[
                DropReason::RstOutOfWindow,
                DropReason::RstOutOfWindow,
                DropReason::RstOutOfWindow,
                DropReason::HalfOpenRst,
            ]);
            if taken {
                t.is_gone(Error::ConnectionReset);
            }
            assert_eq!((t.stack.usage().requests, t.stack.usage().sockets), (0, 1));
            assert_eq!(t.stack.next_request(forwarder), Err(Error::WouldBlock));
            t.events(forwarder);
        }
        assert_eq!(t.stack.counters().forward_gone, 2);
    });
}

#[test]
fn a_refusal_is_a_reset_of_the_syn_fwd_5() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        t.reject(Reject::Reset);
        t.recv("R. seq =0 ack 1 win 0");
        let counters = t.stack.counters();
        assert_eq!((counters.replied(ReplyReason::RstForward), counters.forward_rejected), (1, 1));
        // To close it, without a decision, is the same.
        t.send("S seq 0");
        t.request(forwarder);
        t.close();
        t.recv("R. seq =0 ack 1 win 0");
        assert_eq!(t.stack.usage().requests, 0);
    });
}

#[test]
fn a_refusal_is_an_icmp_error_that_quotes_the_syn_fwd_5() {
    each(|t| {
        let forwarder = t.forward();
        for (how, kind) in [
            (Reject::NetUnreachable, ErrorKind::NetworkUnreachable),
            (Reject::HostUnreachable, ErrorKind::HostUnreachable),
            (Reject::PortUnreachable, ErrorKind::PortUnreachable),
            (Reject::AdminProhibited, ErrorKind::AdminProhibited),
            (Reject::TimeExceeded, ErrorKind::TimeExceeded),
        ] {
            let packet = t.packet("S seq 0 <sackOK>");
            t.stack.receive(t.now, &packet[..]);
            t.request(forwarder);
            t.reject(how);
            t.recv_nothing();
            let (to, message) = t.icmp.pop_front().expect("an error");
            assert_eq!(to, t.theirs());
            let quoted = quoted(t, how, &message, kind);
            // The fields by which the peer finds its socket; the rest of the packet is not kept.
            let (header, rest) = if t.v6 {
                let (header, rest) = ipv6::parse_quoted(&quoted).unwrap();
                ((IpAddr::from(header.source), IpAddr::from(header.destination), header.hop_limit), rest)
            } else {
                let (header, rest) = ipv4::parse_quoted(&quoted).unwrap();
                ((IpAddr::from(header.source), IpAddr::from(header.destination), header.ttl), rest)
            };
            assert_eq!(header, (t.theirs(), t.ours(), 64));
            assert_eq!(quoted[..8], packet[..8], "length, service, identification");
            let iss = t.cur().iss;
            assert_eq!(tcp::parse_quoted(rest), Some((PEER, t.port, iss)));
        }
        assert_eq!(t.stack.counters().replied(ReplyReason::IcmpForward), 5);
    });
}

/// Returns the quotation of an ICMP error of this kind. It comes from our address, and from the destination where that speaks.
fn quoted(t: &mut Test, how: Reject, message: &[u8], kind: ErrorKind) -> Vec<u8> {
    t.foreign = how == Reject::PortUnreachable;
    let (from, to) = (t.ours(), t.theirs());
    t.foreign = true;
    let parsed = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => icmp::parse_v6(from, to, message),
        _ => icmp::parse_v4(message),
    };
    match parsed {
        Some(Message::Error { kind: told, quoted }) if told == kind => quoted.to_vec(),
        other => panic!("{other:?}, expected {kind:?}"),
    }
}

#[test]
fn above_a_limit_a_syn_is_dropped_and_never_reset_fwd_6() {
    each_with(
        |c| c.forward_max_pending = 2,
        |t| {
            let forwarder = t.forward();
            for port in [5000, 5001, 5002] {
                t.peer(port);
                t.send("S seq 0");
                t.recv_nothing();
            }
            t.dropped(&[DropReason::ForwardLimit]);
            let counters = t.stack.counters();
            assert_eq!((t.stack.usage().requests, counters.forward_pending_full), (2, 1));
            // A retransmission of one that waits is none too many, and a decision makes room.
            t.peer(5000);
            t.send("S seq 0");
            t.request(forwarder);
            t.reject(Reject::Silent);
            t.peer(5002);
            t.send("S seq 0");
            assert_eq!((t.stack.usage().requests, t.stack.counters().forward_pending_full), (2, 1));
        },
    );
}

#[test]
fn requests_of_a_source_and_to_a_destination_are_limited_fwd_6() {
    each_with(
        |c| (c.forward_max_pending_per_source, c.forward_max_pending_per_destination) = (3, 2),
        |t| {
            let forwarder = t.forward();
            for port in [5000, 5001, 5002] {
                t.peer(port);
                t.send("S seq 0");
            }
            assert_eq!((t.stack.usage().requests, t.stack.counters().forward_destination_full), (2, 1));
            // To our own address there is room, until the source has its share.
            t.foreign = false;
            for port in [5003, 5004] {
                t.peer(port);
                t.send("S seq 0");
                t.recv_nothing();
            }
            assert_eq!((t.stack.usage().requests, t.stack.counters().forward_source_full), (3, 1));
            t.request(forwarder);
            t.reject(Reject::Silent);
            t.send("S seq 0");
            assert_eq!(t.stack.usage().requests, 3);
            t.dropped(&[DropReason::ForwardLimit; 2]);
        },
    );
}

#[test]
fn a_peer_that_stops_asking_is_gone_fwd_7() {
    each(|t| {
        let forwarder = t.forward();
        // One SYN alone is taken for that of a peer with three seconds of patience.
        t.send("S seq 0");
        t.request(forwarder);
        t.wait(7499);
        assert_eq!(t.stack.usage().requests, 1);
        t.wait(1);
        t.is_gone(Error::TimedOut);
        // After that the last interval counts, and copies that the network makes do not.
        t.send("S seq 0");
        t.request(forwarder);
        t.wait(1000);
        t.send("S seq 0");
        t.wait(1);
        t.send("S seq 0");
        t.wait(2498);
        assert_eq!(t.stack.usage().requests, 1);
        t.wait(1);
        t.is_gone(Error::TimedOut);
    });
}

#[test]
fn a_request_waits_no_longer_than_its_limit_fwd_7() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        // As Linux asks, and then goes on.
        for gap in [1000, 1000, 1000, 1000, 1000, 2000, 4000, 8000, 16_000, 32_000, 62_999] {
            t.wait(gap);
            t.send("S seq 0");
            assert_eq!(t.stack.usage().requests, 1, "after {gap}");
        }
        t.wait(1);
        t.is_gone(Error::TimedOut);
    });
}

#[test]
fn an_accepted_request_is_answered_by_the_options_of_its_syn_fwd_8() {
    each(|t| {
        let forwarder = t.forward();
        t.send("SEW seq 0 <mss 1200, sackOK, wscale 6>");
        t.wait(900);
        t.request(forwarder);
        t.accept_request();
        t.recv(&format!("SE. seq 0 ack 1 win {BUFFER} <mss 1460, sackOK, wscale 0>"));
        assert_eq!((t.state(), t.events(t.sock)), (State::SynReceived, Event::default()));
        assert_eq!(t.stack.request(t.sock), Err(Error::InvalidArgument), "no more");
        t.recv_after(1000, "SE. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        t.send("P. seq 1:101 ack 1 win 10");
        t.recv(". seq 1 ack 101");
        assert!(t.events(t.sock).contains(Event::CONNECTED | Event::READABLE | Event::WRITABLE));
        assert_eq!((t.stack.local_addr(t.sock), t.stack.peer_addr(t.sock)), (Ok(t.local()), Ok(t.remote())));
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.sack, info.timestamps, info.snd_wscale, info.snd_wnd), (true, t.ts, Some(6), 640));
        t.read(100);
        t.write(100);
        t.recv("P. seq 1:101 ack 101");
        t.send(". seq 101 ack 101");
        // Its life is that of any connection.
        t.shutdown(Shutdown::Write);
        t.recv("F. seq 101 ack 101");
        t.send("F. seq 101 ack 102");
        t.recv(". seq 102 ack 102");
        assert_eq!(t.tuple_state(), State::TimeWait);
    });
}

#[test]
fn an_accepted_request_whose_peer_is_silent_ends_after_the_last_syn_ack_fwd_8() {
    each_with(
        |c| c.tcp_synack_retries = 1,
        |t| {
            let forwarder = t.forward();
            t.send("S seq 0");
            t.request(forwarder);
            t.accept_request();
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.recv_after(1000, "S. seq 0 ack 1 <mss 1460>");
            t.wait(2000);
            t.recv("R. seq 1 ack 1");
            t.is_closed(Some(Error::TimedOut));
        },
    );
}

#[test]
fn a_request_stays_while_there_is_no_room_for_its_connection_fwd_8() {
    each_with(
        |c| c.tcp_max_connections = 1,
        |t| {
            let forwarder = t.forward();
            t.send("S seq 0");
            t.request(forwarder);
            let (other, remote) = (std::net::SocketAddr::new(t.ours(), 81), t.remote());
            let other = t.stack.connect_from(t.now, other, remote, None).unwrap();
            assert_eq!(t.stack.accept_request(t.now, t.sock, None), Err(Error::NoBufferSpace));
            t.stack.abort(t.now, other).unwrap();
            t.accept_request();
            t.recv("S. seq 0 ack 1 <mss 1460>");
        },
    );
}

#[test]
fn a_request_in_time_wait_begins_above_all_that_was_sent_fwd_8() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        t.accept_request();
        let old = t.recv("S. seq 0 ack 1 <mss 1460>").header.seq;
        t.send(". seq 1 ack 1");
        t.write(100);
        t.recv("P. seq 1:101 ack 1");
        t.shutdown(Shutdown::Write);
        t.recv("F. seq 101 ack 1");
        t.send("F. seq 1 ack 102");
        t.recv(". seq 102 ack 2");
        t.close();
        assert_eq!(t.tuple_state(), State::TimeWait);
        t.restart_peer(1_000_000);
        t.ts_val += 1000;
        t.send("S seq 0");
        t.recv_nothing();
        assert_eq!((t.stack.usage().requests, t.stack.usage().time_wait), (1, 0));
        t.request(forwarder);
        t.accept_request();
        let new = t.recv("S. seq 0 ack 1 <mss 1460>").header.seq;
        assert!(new.gt(old + 102), "{new:?} after {old:?}");
        t.send("R seq 1");
    });
}

#[test]
fn a_listener_comes_first_and_then_the_most_specific_rule_fwd_9() {
    each(|t| {
        let all = t.stack.forward(ForwardRule::all()).unwrap();
        assert_eq!(t.stack.forward(ForwardRule::all()), Err(Error::AddrInUse));
        t.listen();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send("R seq 1");
        t.foreign = true;
        let (network, len) = (t.ours(), if t.v6 { 64 } else { 24 });
        let subnet = t.stack.forward(ForwardRule::to(network, len)).unwrap();
        let web = t.stack.forward(ForwardRule::to(network, len).with_ports(80..=80)).unwrap();
        assert_eq!(t.stack.forward(ForwardRule::to(network, 129)), Err(Error::InvalidArgument));
        let empty = std::ops::RangeInclusive::new(2, 1);
        assert_eq!(t.stack.forward(ForwardRule::all().with_ports(empty)), Err(Error::InvalidArgument));
        for (port, expected) in [(80, web), (81, subnet)] {
            t.port = port;
            t.send("S seq 0");
            t.request(expected);
            t.reject(Reject::Silent);
        }
        // At our own address nobody listens on that port.
        t.foreign = false;
        t.send("S seq 0");
        t.request(all);
        t.reject(Reject::Silent);
        t.port = 80;
        t.foreign = true;
        // A rule that is gone leaves its destinations to the others.
        t.stack.close(t.now, web).unwrap();
        t.send("S seq 0");
        t.request(subnet);
        t.reject(Reject::Silent);
        t.recv_nothing();
    });
}

/// One on all addresses is on all of ours.
#[test]
fn a_listener_on_all_addresses_takes_nothing_of_other_hosts_fwd_9() {
    each(|t| {
        let all = if t.v6 { "[::]:80" } else { "0.0.0.0:80" };
        let listener = t.stack.listen(all.parse().unwrap(), ListenOptions::default()).unwrap();
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        t.reject(Reject::Silent);
        t.stack.close(t.now, forwarder).unwrap();
        t.send("S seq 0");
        t.dropped(&[DropReason::NotOurs]);
        t.recv_nothing();
        t.foreign = false;
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send("R seq 1");
        t.stack.close(t.now, listener).unwrap();
    });
}

#[test]
fn closing_a_forwarder_resets_what_nobody_took_and_no_more_fwd_9() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        for port in 5000..5100 {
            t.peer(port);
            t.send("S seq 0");
        }
        // Some ports are over the limit of a destination.
        let waiting = t.stack.usage().requests as u64 - 1;
        assert_eq!(t.stack.close(t.now, forwarder), Ok(()));
        assert_eq!(t.stack.next_request(forwarder), Err(Error::NoSuchSocket));
        t.wait(0);
        assert_eq!(t.stack.counters().replied(ReplyReason::RstForward), waiting);
        for port in 5000..5100 {
            t.peer(port);
            t.drain();
        }
        t.peer(PEER);
        t.accept_request();
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send(". seq 1 ack 1");
        t.write(10);
        t.recv("P. seq 1:11 ack 1");
        t.send(". seq 1 ack 11");
        // Its connection lives on, and another SYN is dropped as before.
        let before = t.bad_address();
        t.peer(5000);
        t.send("S seq 0");
        t.recv_nothing();
        assert_eq!(t.bad_address(), before + 1);
    });
}

#[test]
fn segments_to_foreign_addresses_are_taken_for_forwarders_alone_fwd_10() {
    each(|t| {
        t.foreign = true;
        let mut expected = 0;
        let mut all_dropped = |t: &mut Test, segments: &[&str]| {
            for text in segments {
                t.send(text);
                t.recv_nothing();
                expected += 1;
                assert_eq!(t.bad_address(), expected, "{text}");
            }
            let ping = t.icmp_packet(&Message::EchoRequest { ident: 1, sequence: 1, data: b"x" });
            t.stack.receive(t.now, &ping[..]);
            t.pump();
            expected += 1;
            assert_eq!((t.bad_address(), t.icmp.len()), (expected, 0));
        };
        all_dropped(t, &["S seq 0", ". seq 1 ack 1"]);
        // A forwarder of another network takes none of them.
        t.stack.forward(ForwardRule::to("192.0.2.0".parse().unwrap(), 24)).unwrap();
        all_dropped(t, &["S seq 0", ". seq 1 ack 1"]);
        // Where one takes the destination, what belongs to no connection is reset as at an address of ours.
        let forwarder = t.stack.forward(ForwardRule::all()).unwrap();
        t.send(". seq 1 ack 9");
        t.recv("R seq 9 win 0");
        t.send("R seq 1");
        all_dropped(t, &[]);
        assert_eq!(t.stack.next_request(forwarder), Err(Error::WouldBlock));
    });
}

/// ICMP reaches a connection at its foreign address.
#[test]
fn an_icmp_error_reaches_the_connection_of_a_forwarder_fwd_10() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        t.accept_request();
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send(". seq 1 ack 1");
        t.write(100);
        t.recv("P. seq 1:101 ack 1");
        t.events(t.sock);
        t.icmp_error(ErrorKind::HostUnreachable, 1);
        assert_eq!(t.events(t.sock), Event::SOFT_ERROR);
        assert_eq!(t.stack.take_error(t.sock), Ok(Some(Error::HostUnreachable)));
        t.send(". seq 1 ack 101");
    });
}

#[test]
fn addresses_that_nobody_can_have_are_never_forwarded_fwd_10() {
    each(|t| {
        let forwarder = t.forward();
        let bad: &[&str] = if t.v6 {
            &["ff02::1", "::", "::1", "::ffff:192.0.2.1"]
        } else {
            &["224.0.0.1", "255.255.255.255", "10.0.0.255", "127.0.0.1", "0.0.0.1", "240.0.0.1"]
        };
        let (header, payload) = t.segment("S seq 0");
        for address in bad {
            let packet =
                t.ip_packet(t.theirs(), address.parse().unwrap(), &header, &payload, Default::default());
            t.stack.receive(t.now, &packet[..]);
            assert_eq!(t.stack.next_request(forwarder), Err(Error::WouldBlock), "{address}");
        }
        // Nor is a segment that seems to come from where it goes, or from us.
        for from in [t.ours(), if t.v6 { "fd00::2" } else { "10.0.0.2" }.parse().unwrap()] {
            let packet = t.ip_packet(from, t.ours(), &header, &payload, Default::default());
            t.stack.receive(t.now, &packet[..]);
        }
        t.recv_nothing();
        assert_eq!(t.stack.counters().in_addr_errors, bad.len() as u64 + 2);
    });
}

#[test]
fn a_connect_comes_from_a_foreign_address_fwd_11() {
    each(|t| {
        t.foreign = true;
        let (source, remote) = (t.local(), t.remote());
        t.sock = t.stack.connect_from(t.now, source, remote, None).unwrap();
        t.recv("S seq 0 <mss 1460, sackOK, wscale 0>");
        t.send("S. seq 0 ack 1");
        t.recv(". seq 1 ack 1");
        assert!(t.events(t.sock).contains(Event::CONNECTED));
        assert_eq!(t.stack.local_addr(t.sock), Ok(source));
        t.write(10);
        t.recv("P. seq 1:11 ack 1");
        t.send("R seq 1");
        t.is_closed(Some(Error::ConnectionReset));
        for (from, to) in [("0.0.0.1:9", remote), ("224.0.0.1:9", remote), ("127.0.0.1:9", remote)] {
            let error = t.stack.connect_from(t.now, from.parse().unwrap(), to, None);
            assert_eq!(error, Err(Error::InvalidArgument), "{from}");
        }
        let none = std::net::SocketAddr::new(source.ip(), 0);
        assert_eq!(t.stack.connect_from(t.now, none, remote, None), Err(Error::InvalidArgument));
        // The plain call keeps to our own addresses.
        let plain = t.stack.connect(t.now, remote, ConnectOptions::from_local(source));
        assert_eq!(plain, Err(Error::AddrNotAvailable));
    });
}

#[test]
fn a_reset_waits_for_the_acknowledgement_of_what_is_queued_fwd_12() {
    each(|t| {
        t.establish();
        t.write(1500);
        t.recv(". seq 1:1001 ack 1");
        t.recv("P. seq 1001:1501 ack 1");
        assert_eq!(t.stack.abort_after(t.now, t.sock, Duration::from_secs(2)), Ok(()));
        assert_eq!(t.stack.state(t.sock), Err(Error::NoSuchSocket));
        t.recv_nothing();
        // Data of the peer is discarded, and its bytes are acknowledged.
        t.send("P. seq 1:51 ack 1001");
        t.recv(". seq 1501 ack 51");
        t.send(". seq 51 ack 1501");
        t.recv("R. seq 1501 ack 51");
        assert_eq!((t.tuple_state(), t.stack.usage().orphans), (State::Closed, 0));
    });
}

#[test]
fn a_reset_waits_no_longer_than_its_limit_fwd_12() {
    each(|t| {
        t.establish();
        t.write(100);
        t.recv("P. seq 1:101 ack 1");
        t.stack.abort_after(t.now, t.sock, Duration::from_millis(150)).unwrap();
        t.wait(149);
        t.recv_nothing();
        t.wait(1);
        t.recv("R. seq 101 ack 1");
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn a_reset_leaves_at_once_where_nothing_waits_fwd_12() {
    each_with(
        |c| c.tcp_max_orphans = 1,
        |t| {
            t.establish();
            t.stack.abort_after(t.now, t.sock, Duration::from_secs(2)).unwrap();
            t.recv("R. seq 1 ack 1");
            // Data that waits does not matter without time or room for an orphan.
            t.restart_peer(1_000_000);
            t.establish();
            t.write(10);
            t.recv("P. seq 1:11 ack 1");
            t.stack.abort_after(t.now, t.sock, Duration::ZERO).unwrap();
            t.recv("R. seq 11 ack 1");
        },
    );
}

/// The peer's own end does not cut the wait short, and its RST ends it.
#[test]
fn the_peer_may_end_its_side_while_a_reset_waits_fwd_12() {
    each(|t| {
        t.establish();
        t.write(100);
        t.recv("P. seq 1:101 ack 1");
        t.stack.abort_after(t.now, t.sock, Duration::from_secs(2)).unwrap();
        t.send("F. seq 1 ack 1");
        t.recv(". seq 101 ack 2");
        t.send(". seq 2 ack 101");
        t.recv("R. seq 101 ack 2");
        t.restart_peer(1_000_000);
        t.establish();
        t.write(100);
        t.recv("P. seq 1:101 ack 1");
        t.stack.abort_after(t.now, t.sock, Duration::from_secs(2)).unwrap();
        t.send("R seq 1");
        t.recv_nothing();
        assert_eq!(t.stack.usage().orphans, 0);
    });
}

#[test]
fn requests_end_with_the_stack() {
    each(|t| {
        let forwarder = t.forward();
        t.send("S seq 0");
        t.request(forwarder);
        t.peer(5000);
        t.send("S seq 0");
        assert!(t.stack.abort_all(t.now, steadfast_core::Spare::Nothing));
        t.is_gone(Error::NetworkDown);
        let options = ListenOptions::default();
        t.stack.listen("0.0.0.0:1".parse().unwrap(), options).unwrap();
    });
}
