//! The path MTU of a connection, as routers report it (RFC 1191, RFC 8201, RFC 5927 §7).

use steadfast_core::wire::icmp::ErrorKind;

use crate::harness::{Test, each};

/// The MSS of these connections: full segments fill the interface's MTU, which carries 1460 bytes beside the headers.
const MSS: u32 = 1460;

/// A connection whose segments fill the interface's MTU.
fn establish(t: &mut Test) {
    t.listen();
    t.send("S seq 0 <mss 1460, sackOK, wscale 0>");
    t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
    t.send(". seq 1 ack 1");
    t.accept();
}

/// The payload of a full segment in packets of `mtu` bytes.
fn payload(t: &Test, mtu: u32) -> u32 {
    mtu - if t.v6 { 60 } else { 40 } - if t.ts { 12 } else { 0 }
}

/// The bytes of IP packets that the stack sends now.
fn bytes_out(t: &mut Test) -> u32 {
    let headers = if t.v6 { 60 } else { 40 } + if t.ts { 12 } else { 0 };
    std::iter::from_fn(|| t.recv_any()).map(|got| headers + got.payload.len() as u32).sum()
}

/// THREAT-31: a peer that acknowledges nothing reports the path MTU byte by byte. Each report would draw a window of
/// retransmissions; what leaves is no more than what came.
#[test]
fn reports_that_fall_byte_by_byte_draw_no_more_than_they_bring_threat_31() {
    each(|t| {
        establish(t);
        t.write(10 * MSS);
        t.drain();
        let (mut bytes_in, mut sent) = (0, 0);
        let least = if t.v6 { 1280 } else { 552 };
        for mtu in (least..1500).rev() {
            t.icmp_error(ErrorKind::PacketTooBig { mtu }, 1);
            bytes_in += 56;
            sent += bytes_out(t);
        }
        assert!(sent > 0, "the first report is answered");
        assert!(sent <= bytes_in, "{sent} bytes for {bytes_in}");
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().pmtu, least as u16);
    });
}

/// RFC 1191 §6.5: one segment tries the new size; its acknowledgement releases the rest.
#[test]
fn one_segment_tries_a_smaller_path_mtu_before_the_rest_1191_1() {
    each(|t| {
        establish(t);
        let full = MSS - if t.ts { 12 } else { 0 };
        t.write(5 * full);
        assert_eq!(t.drain(), 5);
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 1);
        let size = payload(t, 1300);
        t.recv(&format!(". seq 1:{} ack 1", 1 + size));
        t.recv_nothing();
        // The next router takes less. Again a single segment tries.
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1280 }, 1);
        let stepped = if t.v6 { 1280 } else { 1300 - 1300 / 16 };
        let size = payload(t, stepped);
        t.recv(&format!(". seq 1:{} ack 1", 1 + size));
        t.recv_nothing();
        t.send(&format!(". seq 1 ack {}", 1 + size));
        let again = 5 * full - size;
        let payloads: Vec<u32> =
            std::iter::from_fn(|| t.recv_any()).map(|got| got.payload.len() as u32).collect();
        assert_eq!(payloads.iter().sum::<u32>(), again, "all that was too big is sent again: {payloads:?}");
        assert!(payloads.iter().all(|len| *len <= size), "{payloads:?}");
        let cwnd = t.stack.info(t.now, t.sock).unwrap().snd_cwnd;
        assert!(cwnd >= 10 * full, "no sign of congestion (8201-2): {cwnd}");
    });
}

/// 1191-2: a report is believed for ten minutes. Then a full segment tries the interface's MTU again, and a router that
/// still cannot pass it on says so.
#[test]
fn a_connection_tries_the_interface_mtu_again_after_ten_minutes_1191_2() {
    each(|t| {
        establish(t);
        let full = MSS - if t.ts { 12 } else { 0 };
        t.write(full);
        t.drain();
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 1);
        let size = payload(t, 1300);
        t.recv(&format!(". seq 1:{} ack 1", 1 + size));
        t.send(&format!(". seq 1 ack {}", 1 + size));
        t.drain();
        t.send(&format!(". seq 1 ack {}", 1 + full));
        let expires = t.stack.config().mtu_expires.as_millis() as u64;
        t.wait(expires - 1);
        t.write(size);
        t.recv(&format!("P. seq {}:{} ack 1", 1 + full, 1 + full + size));
        t.send(&format!(". seq 1 ack {}", 1 + full + size));
        t.wait(1);
        let start = 1 + full + size;
        t.write(full);
        t.recv(&format!("P. seq {start}:{} ack 1", start + full));
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, start);
        t.recv(&format!(". seq {start}:{} ack 1", start + size));
        t.send(&format!(". seq 1 ack {}", start + size));
        t.drain();
        t.send(&format!(". seq 1 ack {}", start + full));
    });
}
