//! The turns of connections and answers in `transmit`.

use steadfast_core::wire::tcp::Flags;

use crate::harness::{PORT, Test, each, each_with};

/// Destination port and flags of the next packet, as the device sees it.
fn next(t: &mut Test) -> Option<(u16, u8)> {
    let mut frame = vec![0; 65_535];
    t.stack.transmit(t.now, &mut frame)?;
    let tcp = &frame[if t.v6 { 40 } else { 20 }..];
    Some((u16::from_be_bytes([tcp[2], tcp[3]]), tcp[13]))
}

fn receive(t: &mut Test, text: &str) {
    let packet = t.packet(text);
    t.stack.receive(t.now, &packet[..]);
}

/// SYN-ACKs and other answers take turns, so that a flood of SYNs keeps no reset back.
#[test]
fn a_reset_does_not_wait_for_all_syn_acks_threat_1() {
    each(|t| {
        t.listen();
        for port in 5000..5020 {
            t.peer(port);
            receive(t, "S seq 0");
        }
        t.peer(4000);
        t.port = 81;
        receive(t, ". seq 1 ack 1");
        t.port = PORT;
        let flags: Vec<u8> = std::iter::from_fn(|| next(t)).map(|(_, flags)| flags).collect();
        let reset = flags.iter().position(|flags| flags & Flags::RST.0 as u8 != 0).expect("a reset");
        assert!(flags.len() == 21 && reset < 4, "{reset} of {}", flags.len());
    });
}

/// Other connections that end meanwhile do not make the turn of one longer.
#[test]
fn a_turn_ends_though_others_end_during_it() {
    each_with(
        |c| (c.tcp_sndbuf, c.tcp_init_cwnd) = (1 << 20, 100),
        |t| {
            let mut both = Vec::new();
            for port in [4000, 4001] {
                t.peer(port);
                t.establish();
                both.push(t.sock);
            }
            for port in 5000..5060 {
                t.peer(port);
                t.establish();
            }
            for id in both {
                assert_eq!(t.stack.send(id, &[0; 60_000]), Ok(60_000));
            }
            let mut sent = [0; 2];
            for port in 5000..5060 {
                let (to, _) = next(t).expect("a segment");
                sent[usize::from(to - 4000)] += 1;
                t.peer(port);
                receive(t, "R. seq 1 ack 1");
            }
            // A turn is 32 KiB.
            assert!(sent.iter().all(|count| *count >= 20), "{sent:?}");
            for port in [4000, 4001] {
                t.peer(port);
                t.drain();
            }
        },
    );
}
