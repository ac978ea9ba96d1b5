//! The path MTU of a connection, as routers report it (RFC 1191, RFC 8201, RFC 5927 §7).

use steadfast_core::config::MtuProbing;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::{Config, Error, InterfaceId, PathMetrics, Route};

use crate::harness::{Test, each, each_with};

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

/// With `tcp_mtu_probing` = 2: a router reports `mtu` to one connection, and the next one begins there and searches.
fn searching(mtu_below: u16, test: impl Fn(&mut Test, u32)) {
    let configure = |c: &mut Config| (c.tcp_mtu_probing, c.tcp_sndbuf) = (MtuProbing::Always, 1 << 20);
    each_with(configure, |t| {
        t.peer(5000);
        establish(t);
        t.write(10);
        t.drain();
        let mtu = t.stack.interface().mtu - mtu_below;
        t.icmp_error(ErrorKind::PacketTooBig { mtu: mtu.into() }, 1);
        t.abort();
        t.drain();
        t.peer(4000);
        t.restart_peer(0);
        t.send("S seq 0 <mss 1460, sackOK, wscale 0>");
        t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        t.wait(100);
        t.send(". seq 1 ack 1");
        t.accept();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().pmtu, mtu);
        t.set_options(|options| options.nodelay = true);
        test(t, mtu.into());
    });
}

/// The lengths of the segments that leave now.
fn lens(t: &mut Test) -> Vec<u32> {
    std::iter::from_fn(|| t.recv_any()).map(|got| got.payload.len() as u32).collect()
}

/// The search ends once fewer than `tcp_probe_threshold` (8) bytes are left to learn, and has one probe out at a time.
#[test]
fn eight_bytes_are_searched_and_seven_are_not_4821_1() {
    searching(8, |t, mtu| {
        t.write(20_000);
        let (full, lens) = (payload(t, mtu), lens(t));
        assert_eq!(lens[..3], [full + 4, full, full]);
        let sent: u32 = lens.iter().sum();
        t.send(&format!(". seq 1 ack {}", 1 + sent));
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().pmtu as u32, mtu + 4);
        t.drain();
    });
    searching(7, |t, mtu| {
        t.write(20_000);
        let full = payload(t, mtu);
        assert_eq!(lens(t)[..3], [full, full, full]);
    });
}

/// To the byte: a probe leaves where the congestion window has just room for it.
#[test]
fn a_probe_that_just_fits_the_congestion_window_leaves_4821_1() {
    for spare in [0, 1] {
        searching(100, |t, mtu| {
            let full = payload(t, mtu);
            let probe = full + 50;
            let mut left = t.stack.info(t.now, t.sock).unwrap().snd_cwnd - probe + spare;
            // Too little for a probe each time.
            while left > 0 {
                let len = left.min(3 * full);
                t.write(len);
                left -= len;
            }
            assert!(lens(t).iter().all(|len| *len <= full));
            t.write(20_000);
            let first = lens(t).first().copied();
            assert_eq!(first, (spare == 0).then_some(probe));
        });
    }
}

/// Four segments behind a probe reveal its loss. With a byte less to send there is none.
#[test]
fn a_probe_has_four_segments_behind_it_4821_1() {
    for missing in [0, 1] {
        searching(100, |t, mtu| {
            let full = payload(t, mtu);
            t.write(full + 50 + 4 * full - missing);
            assert_eq!(lens(t)[0], if missing == 0 { full + 50 } else { full });
        });
    }
}

/// RFC 4821 §7.6.2: losses that congestion control does not see are rarer than others. After one, there is no probe for
/// as many round trips as the window has segments.
#[test]
fn a_lost_probe_is_followed_by_as_many_round_trips_as_the_window_has_segments_4821_3() {
    searching(200, |t, mtu| {
        t.write(20_000);
        let (full, first) = (payload(t, mtu), lens(t));
        let (probe, sent) = (first[0], first.iter().sum::<u32>());
        assert_eq!(probe, full + 100);
        t.wait(100);
        t.send(&format!(". seq 1 ack 1 <sack {}:{}>", 1 + probe, 1 + sent));
        let again = lens(t).iter().sum::<u32>();
        let mut end = 1 + sent + again - probe;
        assert_eq!(t.stack.counters().tcp_mtup_fail, 1);
        t.wait(100);
        t.send(&format!(". seq 1 ack {end}"));
        end += lens(t).iter().sum::<u32>();
        for _ in 0..5 {
            t.wait(100);
            t.send(&format!(". seq 1 ack {end}"));
            t.write(20_000);
            let lens = lens(t);
            assert!(lens.iter().all(|len| *len <= full), "{lens:?} of {full}");
            end += lens.iter().sum::<u32>();
        }
    });
}

/// A small segment as large as the largest that got through proves nothing new, and a larger one behind it does.
#[test]
fn a_larger_segment_behind_a_proven_size_is_proven_too_5927_4() {
    each(|t| {
        establish(t);
        t.set_options(|options| options.nodelay = true);
        t.write(500);
        assert_eq!(t.drain(), 1);
        t.send(". seq 1 ack 501");
        t.write(500);
        t.write(1400);
        assert_eq!(t.drain(), 2);
        t.send(". seq 1 ack 2401");
        t.write(1400);
        assert_eq!(t.drain(), 1);
        let before = t.stack.info(t.now, t.sock).unwrap().pmtu;
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 2401);
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().pmtu, before);
        t.send(". seq 1 ack 3801");
    });
}

/// The route to the peer alone, with these properties of its path.
fn route(t: &Test, path: PathMetrics) -> Route {
    let peer = t.theirs();
    Route::new(peer, if peer.is_ipv4() { 32 } else { 128 }, InterfaceId::FIRST).path(path)
}

/// DRILL-L10: the route says the advertised MSS, the path MTU and the initial window, and that no router lowers the path
/// MTU. A connection follows the path MTU of a route that comes later.
#[test]
fn a_route_says_what_its_path_takes_drill_l10() {
    each(|t| {
        let path = PathMetrics { mtu: 1400, mtu_lock: true, advmss: 1000, initcwnd: 2 };
        let first = route(t, path);
        t.stack.add_route(first).unwrap();
        t.listen();
        t.send("S seq 0 <mss 1460, sackOK, wscale 0>");
        t.recv("S. seq 0 ack 1 <mss 1000, sackOK, wscale 0>");
        t.send(". seq 1 ack 1");
        t.accept();
        let full = payload(t, 1400);
        t.write(4 * full);
        assert_eq!(t.drain(), 2, "the initial window");
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 1);
        t.recv_nothing();
        let pmtu = |t: &Test| t.stack.info(t.now, t.sock).unwrap().pmtu;
        assert_eq!(pmtu(t), 1400);
        assert!(t.stack.remove_route(&first));
        t.stack.add_route(route(t, PathMetrics { mtu: 1450, ..path })).unwrap();
        t.send(&format!(". seq 1 ack {}", 1 + 2 * full));
        t.drain();
        assert_eq!(pmtu(t), 1450);
    });
}

#[test]
fn a_route_of_less_than_the_smallest_path_is_refused_drill_l10() {
    each(|t| {
        let least = if t.v6 { 1280 } else { 68 };
        for (mtu, advmss, right) in
            [(least, 0, true), (least - 1, 0, false), (0, 28, true), (0, 27, false), (0, 0, true)]
        {
            let path = PathMetrics { mtu, advmss, ..PathMetrics::default() };
            let expected = if right { Ok(()) } else { Err(Error::InvalidArgument) };
            assert_eq!(t.stack.add_route(route(t, path)), expected, "mtu {mtu}, advmss {advmss}");
        }
    });
}
