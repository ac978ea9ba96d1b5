//! ACKs of new data and old ones: the retransmission timer, SACK blocks, and what is left to send.

use steadfast_core::trace::State;

use crate::harness::{Test, each, each_with};

fn rto(t: &Test) -> u64 {
    t.stack.info(t.now, t.sock).unwrap().rto.as_micros().div_ceil(1000) as u64
}

/// RFC 6298 (5.3): without RTO restart, the segment that is left has a whole RTO from the ACK on.
#[test]
fn an_ack_of_new_data_starts_the_timer_anew_6298_5() {
    each_with(
        |config| config.tcp_rto_restart = false,
        |t| {
            t.reach(State::Established);
            t.write(2000);
            assert_eq!(t.drain(), 2);
            t.wait(rto(t) - 1);
            t.send(". seq 51 ack 1101");
            let rto = rto(t);
            t.recv_after(rto, "P. seq 1101:2101 ack 51");
        },
    );
}

/// An ACK that a later one has overtaken acknowledges nothing, but its SACK blocks are news.
#[test]
fn an_ack_that_was_overtaken_brings_its_sack_blocks_sa_est_16() {
    each(|t| {
        t.reach(State::Established);
        t.write(6000);
        assert_eq!(t.drain(), 6);
        t.send(". seq 51 ack 2101");
        t.send(". seq 51 ack 1101 <sack 4101:5101>");
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.sacked, info.unacked), (1000, 4000));
        t.send(". seq 51 ack 6101");
    });
}

/// A driver asks before it offers a frame.
#[test]
fn an_ack_that_leaves_nothing_to_send_asks_for_no_frame() {
    each(|t| {
        t.reach(State::Established);
        t.write(100);
        assert_eq!(t.drain(), 1);
        let ack = t.packet(". seq 51 ack 201");
        t.stack.receive(t.now, &ack[..]);
        assert!(!t.stack.wants_transmit());
        let text = t.packet("P. seq 51:151 ack 201");
        t.stack.receive(t.now, &text[..]);
        t.wait(100);
        t.drain();
        assert!(!t.stack.wants_transmit());
    });
}
