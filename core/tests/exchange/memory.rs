//! Writes that `tcp_mem` refuses, and what gives way for it (THREAT-8).

use steadfast_core::trace::State;
use steadfast_core::{ConnectOptions, Duration, Error, Event, SocketId, SocketOptions};

use crate::harness::{PEER, Test, each, each_with};

/// The port of peers that never answer.
const SILENT: u16 = 5000;

fn scarce(test: impl Fn(&mut Test)) {
    each_with(|c| (c.tcp_mem, c.tcp_sndbuf, c.tcp_init_cwnd) = (65_536, 1 << 20, 5), test);
}

/// Connects take all memory. Returns those that hold some, and the one that found none.
fn take_all(t: &mut Test) -> (Vec<SocketId>, SocketId) {
    t.peer(SILENT);
    let remote = t.remote();
    let mut holders = Vec::new();
    let refused = loop {
        let id = t.stack.connect(t.now, remote, ConnectOptions::default()).unwrap();
        match t.stack.send(id, &[0; 4096]) {
            Ok(_) => while t.stack.send(id, &[0; 4096]).is_ok() {},
            Err(error) => {
                assert_eq!(error, Error::WouldBlock);
                break id;
            }
        }
        holders.push(id);
        assert!(holders.len() < 100, "memory is never full");
    };
    t.drain();
    t.peer(PEER);
    (holders, refused)
}

#[test]
fn a_connect_whose_write_was_refused_is_woken_when_memory_is_free_threat_8() {
    scarce(|t| {
        let (holders, refused) = take_all(t);
        assert!(!t.events(refused).contains(Event::WRITABLE));
        for id in holders {
            t.stack.abort(t.now, id).unwrap();
        }
        assert!(t.events(refused).contains(Event::WRITABLE));
        assert_eq!(t.stack.send(refused, &[0; 1000]), Ok(1000));
    });
}

/// No memory that others free makes room in it, so that to wake its writer would be in vain.
#[test]
fn a_send_buffer_of_nothing_is_not_refused_for_lack_of_memory() {
    each(|t| {
        let socket = Some(SocketOptions::new(t.stack.config()).with(|o| o.sndbuf = 0));
        t.connect_with(ConnectOptions { socket, ..ConnectOptions::default() });
        t.events(t.sock);
        assert_eq!(t.stack.send(t.sock, b"x"), Err(Error::WouldBlock));
        assert_eq!(t.stack.poll_event(), None);
    });
}

/// A RST with text, in the window but not at RCV.NXT, is challenged. Were memory freed for its text, the orphan might be
/// reset, and a RST be answered with a RST (RFC 9293 §3.5.2).
#[test]
fn a_reset_with_text_is_challenged_though_memory_is_short_threat_8() {
    scarce(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 5000");
        t.write(5000);
        assert_eq!(t.drain(), 5);
        while t.try_write(1000).is_ok() {}
        take_all(t);
        t.close();
        t.recv_nothing();
        // The orphan is old enough to give way, and no timer has run since.
        t.now += Duration::from_secs(1);
        t.send("R. seq 61:71 ack 101");
        t.recv(". seq 5101 ack 51");
    });
}

/// Text behind gaps goes until the pressure is over, not one connection at a time.
#[test]
fn one_call_prunes_as_many_queues_as_it_takes_threat_8() {
    const PRESSURE: u64 = 49_152;
    scarce(|t| {
        let listener = t.listen();
        let peers = 6000..6006;
        for peer in peers.clone() {
            t.peer(peer);
            t.establish();
            t.send("P. seq 101:201 ack 1");
            t.drain();
        }
        t.peer(SILENT);
        let remote = t.remote();
        while t.stack.usage().held <= PRESSURE {
            let id = t.stack.connect(t.now, remote, ConnectOptions::default()).unwrap();
            t.stack.send(id, &[0; 4096]).unwrap();
        }
        let before = t.stack.usage().held;
        assert!(before > PRESSURE + 2000, "{before}: more than one queue holds");
        assert_eq!(t.stack.counters().prune_called, 0);
        // Any call that may take memory.
        assert_eq!(t.stack.send(listener, b"x"), Err(Error::NotConnected));
        let (held, pruned) = (t.stack.usage().held, t.stack.counters().prune_called);
        assert!(held <= PRESSURE && (2..6).contains(&pruned), "{held} after {pruned}");
        t.drain();
        t.peer(PEER);
    });
}
