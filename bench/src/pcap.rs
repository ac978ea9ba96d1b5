//! `steadfast-bench pcap`: reading captures, by CPU time. It makes its files itself, and runs tshark and tcptrace beside
//! when they are present.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::time::{ClockId, clock_gettime};
use steadfast_capture::Reader;
use steadfast_diagnose::{Check, Options};
use steadfast_wire::seq::SeqNum;
use steadfast_wire::tcp::{Flags, Header, Timestamps};
use steadfast_wire::{build, tcp};

/// A file of the benchmark.
struct Case {
    name: &'static str,
    what: &'static str,
    write: fn(&mut dyn Write) -> io::Result<()>,
}

const CASES: [Case; 3] = [
    Case { name: "bulk", what: "263,000 packets of 4 transfers, 214 MB", write: bulk },
    Case { name: "many", what: "10,000 connections of 13 packets", write: |out| many(out, 10_000, true) },
    Case { name: "live", what: "100,000 connections that stay open", write: |out| many(out, 100_000, false) },
];

/// The port of servers. A port that tshark knows a protocol of would cost it minutes: it looks for the end of a line of
/// HTTP in 50 MB.
const PORT: u16 = 5001;

/// Runs the benchmark, and prints a table of CPU times.
pub(crate) fn run() -> io::Result<()> {
    let dir = std::env::temp_dir().join(format!("steadfast-bench-pcap-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    println!("CPU time of this process, the file in the page cache\n");
    for case in CASES {
        let path = dir.join(format!("{}.pcap", case.name));
        let mut out = BufWriter::new(File::create(&path)?);
        let mut head = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
            head.extend(word.to_le_bytes());
        }
        out.write_all(&head)?;
        (case.write)(&mut out)?;
        out.flush()?;
        drop(out);
        // Into the page cache, and not into this process, whose peak is told.
        io::copy(&mut File::open(&path)?, &mut io::sink())?;
        let bytes = fs::metadata(&path)?.len();
        let before = cpu();
        let (packets, connections) = check(&path)?;
        let took = cpu() - before;
        let rate = packets as f64 / took / 1e6;
        println!(
            "{:<5} {}: {:.3} s, {rate:.2} M packets/s, {:.0} MB/s, {packets} packets, {connections} connections",
            case.name,
            case.what,
            took,
            bytes as f64 / took / 1e6
        );
        for (tool, arguments) in [("tshark", &["-q", "-z", "expert", "-r"][..]), ("tcptrace", &["-n"][..])] {
            beside(tool, arguments, &path);
        }
    }
    println!("\npeak memory of this process: {}", peak());
    fs::remove_dir_all(&dir)
}

/// Checks a capture. Returns its packets and its connections.
fn check(path: &PathBuf) -> io::Result<(u64, u32)> {
    let mut reader = Reader::new(File::open(path)?).map_err(io::Error::other)?;
    let mut check = Check::new(Options::default());
    while let Some(record) = reader.next()? {
        check.record(&record);
    }
    let report = check.finish(reader.format(), reader.position(), reader.interfaces(), reader.damage());
    Ok((report.captured.packets, report.connections_total))
}

/// Seconds of CPU time that this process has used.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Runs another tool on the file, and prints its CPU time.
fn beside(tool: &str, arguments: &[&str], path: &Path) {
    let times = || {
        let usage = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let after = usage.rsplit(") ").next().unwrap_or_default().to_owned();
        // User and system time of children that have ended, in hundredths of a second.
        after.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    };
    let before = times();
    let status =
        Command::new(tool).args(arguments).arg(path).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        println!("      {tool} {}: {:.2} s", arguments.join(" "), times() - before);
    }
}

fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned()
}

/// Writes a segment. The packet's time is in microseconds.
fn segment(
    out: &mut dyn Write,
    micros: u64,
    ends: [SocketAddr; 2],
    header: Header,
    payload: &[u8],
) -> io::Result<()> {
    let mut header = header;
    if !header.flags.syn() {
        header.options.timestamps = Some(Timestamps { val: (micros / 1000) as u32, ecr: 1 });
    }
    let packet = build::tcp(ends[0], ends[1], header, payload).unwrap_or_default();
    let len = packet.len() as u32;
    for word in [(micros / 1_000_000) as u32 + 1_700_000_000, (micros % 1_000_000) as u32, len, len] {
        out.write_all(&word.to_le_bytes())?;
    }
    out.write_all(&packet)
}

fn header(flags: Flags, seq: u32, ack: u32) -> Header {
    let mut header =
        Header { flags, seq: SeqNum(seq), ack: SeqNum(ack), window: 60_000, ..Header::default() };
    if flags.syn() {
        header.options = tcp::Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            ..tcp::Options::default()
        };
    }
    header
}

fn ends(n: u32) -> [SocketAddr; 2] {
    let client = [10, 1, (n >> 15) as u8, 1];
    [SocketAddr::from((client, 1024 + (n & 0x7fff) as u16)), SocketAddr::from(([10, 2, 0, 1], PORT))]
}

/// Four transfers with an acknowledgment for every second segment.
fn bulk(out: &mut dyn Write) -> io::Result<()> {
    let payload = vec![0x5a; 1148];
    let mut micros = 0;
    for flow in 0..4 {
        let [client, server] = ends(flow);
        segment(out, micros, [client, server], header(Flags::SYN, 0, 0), &[])?;
        segment(out, micros + 50, [server, client], header(Flags::SYN | Flags::ACK, 0, 1), &[])?;
        segment(out, micros + 100, [client, server], header(Flags::ACK, 1, 1), &[])?;
        let mut seq = 1u32;
        for n in 0..43_800 {
            micros += 10;
            segment(out, micros, [client, server], header(Flags::ACK, seq, 1), &payload)?;
            seq = seq.wrapping_add(payload.len() as u32);
            if n % 2 == 1 {
                segment(out, micros + 5, [server, client], header(Flags::ACK, 1, seq), &[])?;
            }
        }
        micros += 1000;
    }
    Ok(())
}

/// Short connections, `close`d or left open.
fn many(out: &mut dyn Write, count: u32, close: bool) -> io::Result<()> {
    let (syn, ack, fin) = (Flags::SYN, Flags::ACK, Flags::FIN | Flags::ACK);
    for n in 0..count {
        let [c, s] = ends(n);
        let (there, back) = ([c, s], [s, c]);
        let at = u64::from(n) * 400;
        let mut say = |after: u64, ends, flags, seq, ack, len: usize| {
            segment(out, at + after, ends, header(flags, seq, ack), &vec![7; len])
        };
        say(0, there, syn, 0, 0, 0)?;
        say(50, back, syn | ack, 0, 1, 0)?;
        say(90, there, ack, 1, 1, 0)?;
        say(100, there, ack, 1, 1, 200)?;
        say(150, back, ack, 1, 201, 0)?;
        say(160, back, ack, 1, 201, 600)?;
        say(200, there, ack, 201, 601, 0)?;
        if close {
            say(210, there, ack, 201, 601, 100)?;
            say(250, back, ack, 601, 301, 300)?;
            say(300, there, ack, 301, 901, 0)?;
            say(310, there, fin, 301, 901, 0)?;
            say(350, back, fin, 901, 302, 0)?;
            say(390, there, ack, 302, 902, 0)?;
        }
    }
    Ok(())
}
