//! How each end uses TCP options: tshark reads captures of the kernel and our stack, in both roles. These are the facts
//! behind `docs/linux-options.md`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use steadfast::Net;
use steadfast::device::{Tun, TunOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::faulty::{Faults, Faulty, Tape};
use crate::namespace::enter_namespace;

const PORT: u16 = 99;
/// The kernel's and our addresses, for each IP version.
const ENDS: [[&str; 2]; 2] = [["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]];
const KERNEL: usize = 0;
const OURS: usize = 1;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A segment as tshark decodes it. Sequence numbers are relative.
#[derive(Debug)]
struct Segment {
    /// `KERNEL` or `OURS`.
    from: usize,
    at: f64,
    syn: bool,
    seq: u32,
    len: u32,
    ack: u32,
    /// The window field, unscaled.
    window: u32,
    /// The kinds of the options, in order.
    options: String,
    mss: Option<u32>,
    shift: Option<u32>,
    tsval: Option<u32>,
    /// Left edges of the SACK blocks.
    sack: Vec<u32>,
    packet_len: u32,
    dont_fragment: bool,
}

const FIELDS: [&str; 17] = [
    "frame.time_epoch",
    "ip.src",
    "ipv6.src",
    "tcp.flags.syn",
    "tcp.seq",
    "tcp.len",
    "tcp.ack",
    "tcp.window_size_value",
    "tcp.option_kind",
    "tcp.options.mss_val",
    "tcp.options.wscale.shift",
    "tcp.options.timestamp.tsval",
    "tcp.options.sack_le",
    "frame.len",
    "ip.flags.df",
    "tcp.checksum",
    "tcp.checksum.status",
];

fn segments(capture: &Path) -> Vec<Segment> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-o", "tcp.check_checksum:TRUE", "-n", "-r"]).arg(capture).args([
        "-Y",
        "tcp && !icmp && !icmpv6",
        "-T",
        "fields",
    ]);
    let output = tshark.args(FIELDS.iter().flat_map(|field| ["-e", field])).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(segment).collect()
}

fn segment(line: &str) -> Segment {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |at: usize| fields[at].parse().ok();
    // Linux writes a checksum of 0x0000 as 0xffff, which only UDP requires.
    assert!(["1", "Good"].contains(&fields[16]) || fields[15] == "0xffff", "a bad checksum: {line}");
    let source = if fields[1].is_empty() { fields[2] } else { fields[1] };
    Segment {
        from: ENDS.iter().find_map(|ends| ends.iter().position(|end| *end == source)).unwrap(),
        at: fields[0].parse().unwrap(),
        syn: fields[3] == "1",
        seq: number(4).unwrap(),
        len: number(5).unwrap(),
        ack: number(6).unwrap(),
        window: number(7).unwrap(),
        options: fields[8].to_owned(),
        mss: number(9),
        shift: number(10),
        tsval: number(11),
        sack: fields[12].split(',').filter_map(|edge| edge.parse().ok()).collect(),
        packet_len: number(13).unwrap(),
        dont_fragment: fields[14] == "1",
    }
}

/// Captures one connection between `opener` and its peer. `sender` sends 200,000 bytes, pauses for a second and sends
/// the rest. The fault begins once the connection is established.
fn capture(family: usize, opener: usize, sender: usize, faults: &[&str]) -> Vec<Segment> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("traffic.pcapng");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let in_force = Faults::default();
        let mut options = TunOptions::new("sf0");
        // Faults apply to segments, not to the large packets that offload splits later.
        options.offload = false;
        options.host =
            ENDS.iter().zip([24, 64]).map(|(ends, len)| (ends[KERNEL].parse().unwrap(), len)).collect();
        let tun = Tun::open(&options).await.unwrap();
        let device = Faulty::new(tun, in_force.clone(), 1, Some(Tape::new(&path).unwrap()));
        let [v4, v6] = ENDS.map(|ends| ends[OURS].parse::<std::net::IpAddr>().unwrap());
        let net = Net::builder().address(v4, 24).address(v6, 64).start(device).unwrap();
        let mut ends = open(&net, family, opener).await;
        in_force.set(faults);
        let (first, second) = ends.split_at_mut(1);
        let (from, to) =
            if sender == KERNEL { (&mut first[0], &mut second[0]) } else { (&mut second[0], &mut first[0]) };
        for _ in 0..2 {
            let data = vec![7; 200_000];
            let mut received = vec![0; data.len()];
            tokio::try_join!(from.write_all(&data), to.read_exact(&mut received)).unwrap();
            assert!(received == data);
            // The capture includes idle time.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(ends);
        net.close(Duration::from_secs(10)).await.unwrap();
    });
    drop(runtime);
    segments(&path)
}

/// Opens a connection. Returns the kernel's end and ours.
async fn open(net: &Net, family: usize, opener: usize) -> [Box<dyn Stream>; 2] {
    let [kernel, ours] = ENDS[family].map(|end| std::net::SocketAddr::new(end.parse().unwrap(), PORT));
    if opener == KERNEL {
        let listener = steadfast::TcpListener::bind(net, ours).await.unwrap();
        let (client, server) = tokio::join!(tokio::net::TcpStream::connect(ours), listener.accept());
        [Box::new(client.unwrap()), Box::new(server.unwrap().0)]
    } else {
        let listener = tokio::net::TcpListener::bind(kernel).await.unwrap();
        let (client, server) = tokio::join!(steadfast::TcpStream::connect(net, kernel), listener.accept());
        [Box::new(server.unwrap().0), Box::new(client.unwrap())]
    }
}

/// Every combination of IP version and opener.
fn roles() -> impl Iterator<Item = (usize, usize)> {
    [0, 1].into_iter().flat_map(|family| [KERNEL, OURS].map(|opener| (family, opener)))
}

fn name(end: usize) -> &'static str {
    ["the kernel", "ours"][end]
}

#[test]
fn the_options_of_a_handshake_are_the_same_in_the_same_order() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    for (family, opener) in roles() {
        let segments = capture(family, opener, opener, &[]);
        for end in [KERNEL, OURS] {
            let what = format!("{}, IPv{}", name(end), [4, 6][family]);
            let syn = segments.iter().find(|s| s.from == end && s.syn).unwrap();
            eprintln!("{what}: {syn:?}");
            // MSS, SACK permitted, timestamps, NOP, window scale.
            assert_eq!(syn.options, "2,4,8,1,3", "{what}");
            assert_eq!(syn.mss, Some([1460, 1440][family]), "{what}");
            assert!(syn.shift.is_some_and(|shift| (1..=14).contains(&shift)), "{what}");
            // The window of a SYN is not scaled; the next one is.
            let next = segments.iter().find(|s| s.from == end && !s.syn).unwrap();
            eprintln!("{what}: window {} after {}", next.window, syn.window);
            assert!(next.window << syn.shift.unwrap() >= 60_000, "{what}: {next:?}");
        }
    }
}

#[test]
fn timestamps_stand_on_every_segment_and_tick_in_milliseconds() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    for (family, opener) in roles() {
        let segments = capture(family, opener, opener, &[]);
        for end in [KERNEL, OURS] {
            let what = format!("{}, IPv{}", name(end), [4, 6][family]);
            let mut stamps = Vec::new();
            for segment in segments.iter().filter(|s| s.from == end) {
                stamps.push((segment.at, segment.tsval.unwrap_or_else(|| panic!("{what}: {segment:?}"))));
            }
            let (first, last) = (stamps[0], stamps[stamps.len() - 1]);
            let ticks = f64::from(last.1.wrapping_sub(first.1)) / (last.0 - first.0);
            assert!((990.0..1010.0).contains(&ticks), "{what}: {ticks} in a second");
            assert!(stamps.is_sorted_by_key(|(_, tsval)| tsval.wrapping_sub(first.1)), "{what}");
        }
    }
}

#[test]
fn one_lost_segment_is_reported_by_sack_and_nothing_else_is_sent_again() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    for (family, sender) in roles() {
        let fault = ["lose K>S data 20", "lose S>K data 20"][sender];
        let segments = capture(family, OURS, sender, &[fault]);
        let what = format!("{} sends, IPv{}", name(sender), [4, 6][family]);
        let mut sent = BTreeSet::new();
        let mut data = segments.iter().enumerate().filter(|(_, s)| s.from == sender && s.len > 0);
        let (at, lost) = data.find(|(_, s)| !sent.insert(s.seq)).expect("it is sent again");
        let (lost, len) = (lost.seq, lost.len);
        // Only until the hole is filled: on a slow machine a tail loss probe may follow later.
        let filled = |s: &&Segment| s.from == sender || s.ack <= lost;
        let again =
            segments[at..].iter().take_while(filled).filter(|s| s.from == sender && sent.contains(&s.seq));
        assert_eq!(again.count(), 1, "{what}");
        let reports = segments.iter().filter(|s| s.from != sender && s.ack == lost && !s.sack.is_empty());
        let edges: BTreeSet<_> = reports.map(|s| s.sack[0]).collect();
        assert_eq!(edges, BTreeSet::from([lost + len]), "{what}");
    }
}

#[test]
fn a_segment_that_comes_twice_is_reported_by_dsack() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    // At once, and after the pause: then PAWS rejects its old timestamp.
    let delays = ["0s", "1100ms"];
    for ((family, sender), delay) in roles().flat_map(|role| delays.map(|delay| (role, delay))) {
        let fault = format!("duplicate {} data 20 after {delay}", ["K>S", "S>K"][sender]);
        let segments = capture(family, KERNEL, sender, &[&fault]);
        let what = format!("{} sends, IPv{}, {delay}", name(sender), [4, 6][family]);
        let below =
            segments.iter().filter(|s| s.from != sender && s.sack.first().is_some_and(|&edge| edge < s.ack));
        let edges: Vec<_> = below.map(|s| s.sack[0]).collect();
        let twentieth = segments.iter().filter(|s| s.from == sender && s.len > 0).nth(19).unwrap();
        // There is more than one if a slow machine sent an unnecessary tail loss probe.
        assert!(edges.contains(&twentieth.seq), "{what}: {edges:?}");
    }
}

#[test]
fn packets_shrink_at_once_to_the_mtu_that_a_router_reports() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    for (family, sender) in roles() {
        let fault = ["mtu K>S 1300 icmp", "mtu S>K 1300 icmp"][sender];
        let segments = capture(family, KERNEL, sender, &[fault]);
        let what = format!("{} sends, IPv{}", name(sender), [4, 6][family]);
        let sizes: Vec<_> =
            segments.iter().filter(|s| s.from == sender && s.len > 0).map(|s| s.packet_len).collect();
        let big = sizes.iter().filter(|size| **size > 1300).count();
        eprintln!("{what}: {big} packets above 1300 of {}", sizes.len());
        // Only packets in flight when the report arrived.
        assert!((1..=10).contains(&big), "{what}: {sizes:?}");
        assert!(sizes[big..].iter().all(|size| *size <= 1300), "{what}: {sizes:?}");
        assert_eq!(sizes.iter().filter(|size| **size <= 1300).max(), Some(&1300), "{what}");
        assert!(family == 1 || segments.iter().all(|s| s.dont_fragment), "{what}");
    }
}
