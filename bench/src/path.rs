//! `steadfast-bench paths`: our stack and the kernel as senders over the same emulated paths, to the kernel.
//!
//! The path model is that of the lab. Rounds of both senders alternate, and both rounds of a pair have the same seed.

mod distant;
mod emulator;
mod rig;
mod rows;
mod watch;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use steadfast_kernel::namespace;
use steadfast_lab::path::{Cause, Setup};

pub(crate) use self::distant::Distant;
use self::emulator::Report;
use self::rig::{Rig, Side};
use self::rows::{Bar, Load, Metric, ROWS, Row};
use crate::measure::Rounds;

/// The emulator may be so late at the 99th percentile. A later one voids the round.
const LATEST: Duration = Duration::from_micros(200);
/// Attempts to make a void round good.
const ATTEMPTS: usize = 3;
/// Time for the packets of a round to vanish before the next one.
const REST: Duration = Duration::from_millis(200);
/// The part of a round that Jain's index and the share leave out, in tenths.
const WARM_UP: usize = 3;

/// Runs senders over emulated paths, beside the kernel. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Rows to run: parts of their names. Default: all.
    names: Vec<String>,
    /// Rounds of each sender.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a round. Some rows take longer.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// List the rows and exit.
    #[arg(long)]
    list: bool,
    /// Let the kernel alone send, and print lines of `row | down | up | seconds | figure | kernel`, which the lab's tests
    /// read.
    #[arg(long)]
    record: bool,
}

/// The result of a round.
struct Round {
    /// Bytes of each transfer in each tenth of the time.
    bytes: Vec<Vec<u64>>,
    seconds: f64,
    /// The times of responses, in order.
    times: Vec<Duration>,
    timeouts: u64,
    report: Report,
}

impl Round {
    fn figure(&self, metric: Metric) -> f64 {
        let stats = &self.report.down;
        let millis = |d: Option<Duration>| d.map_or(f64::NAN, |d| d.as_secs_f64() * 1e3);
        let per_mille = |count: u64, of: u64| count as f64 * 1e3 / of.max(1) as f64;
        let seen = &self.report.seen;
        match metric {
            Metric::Goodput => self.bytes.iter().flatten().sum::<u64>() as f64 * 8e-6 / self.seconds,
            Metric::MeanQueue => millis(Some(stats.mean_wait())),
            Metric::QueueP99 => millis(stats.quantile(990, |sample| sample.wait)),
            Metric::Loss => per_mille(stats.all_lost(), stats.packets),
            Metric::AqmDrops => per_mille(stats.lost(Cause::Aqm), stats.packets),
            Metric::Again => per_mille(seen.again, seen.segments),
            Metric::Spurious => per_mille(seen.spurious, seen.segments),
            Metric::P50 => self.time(50),
            Metric::P95 => self.time(95),
            Metric::P99 => self.time(99),
            Metric::Timeouts if self.times.is_empty() => self.timeouts as f64,
            Metric::Timeouts => per_mille(self.timeouts, self.times.len() as u64),
            Metric::Jain => jain(&self.warm()),
            Metric::Share => {
                let warm = self.warm();
                warm[0] / warm.iter().sum::<f64>()
            }
        }
    }

    fn time(&self, percent: usize) -> f64 {
        let rank = (self.times.len() * percent).div_ceil(100).max(1) - 1;
        self.times.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// The bytes of each transfer without the first part of the time.
    fn warm(&self) -> Vec<f64> {
        self.bytes.iter().map(|tenths| tenths[WARM_UP..].iter().sum::<u64>() as f64).collect()
    }
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// A line of the table: a figure of a row.
struct Line {
    row: &'static Row,
    metric: Metric,
    bar: Bar,
    ours: Rounds,
    kernel: Rounds,
    void: usize,
}

impl Line {
    /// Our figure as a multiple of the kernel's.
    fn ratio(&self) -> f64 {
        let (ours, kernel) = (self.ours.median(), self.kernel.median());
        if ours == kernel { 1.0 } else { ours / kernel }
    }

    /// The bar as text, and whether it is reached.
    fn verdict(&self) -> (String, &'static str) {
        let word = |reached: bool| if reached { "reached" } else { "MISSED" };
        match self.bar {
            Bar::AtLeast(times) => (format!("≥ {times}×"), word(self.ratio() >= times)),
            Bar::AtMost(times) => {
                (format!("≤ {times}×"), word(self.ours.median() <= times * self.kernel.median()))
            }
            Bar::Within(low, high) => {
                (format!("{low}..{high}"), word((low..=high).contains(&self.ours.median())))
            }
            Bar::Open => (String::new(), ""),
        }
    }
}

/// Runs the rows, and prints the table.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let wanted = |row: &&Row| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| row.name.contains(name.as_str()))
    };
    let chosen: Vec<&'static Row> = ROWS.iter().filter(wanted).collect();
    if let Some(name) =
        arguments.names.iter().find(|name| !ROWS.iter().any(|row| row.name.contains(name.as_str())))
    {
        return Err(io::Error::other(format!("no row is called `{name}`; --list names them")));
    }
    if arguments.list {
        chosen.iter().for_each(|row| println!("{:<26}{}; back: {}", row.name, row.down, row.up));
        return Ok(());
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    hurry();
    let _awake = stay_awake();
    let mut lines = Vec::new();
    for row in chosen {
        // Each row has a rig of its own: a thread enters the namespace of the receiver.
        let measured = thread::scope(|scope| scope.spawn(|| measure(row, arguments)).join());
        match measured.map_err(|_| io::Error::other("the rig panicked")).flatten() {
            Ok(measured) => {
                if arguments.record {
                    measured.iter().for_each(|line| println!("{}", record(line, arguments)));
                } else {
                    eprint!("{}", table(&measured));
                }
                lines.extend(measured);
            }
            Err(error) => eprintln!("{}: not measured: {error}", row.name),
        }
    }
    if !arguments.record {
        println!("load before: {}", load.trim());
        print!("{}", table(&lines));
    }
    Ok(())
}

/// Asks for a real-time priority for this process, so that other programs do not delay the emulator. Both senders and
/// the receiver have it as well.
fn hurry() {
    let done = Command::new("chrt").args(["-f", "-p", "1", &std::process::id().to_string()]).status();
    if !done.is_ok_and(|status| status.success()) {
        eprintln!("no real-time priority: rounds may be void on a busy machine");
    }
}

/// Keeps the processors from sleep while the file is open. An idle one of a virtual machine wakes up too late.
fn stay_awake() -> Option<File> {
    let awake = OpenOptions::new().write(true).open("/dev/cpu_dma_latency").and_then(|mut file| {
        // The longest time that a processor may take to wake up, in microseconds.
        file.write_all(&0i32.to_ne_bytes())?;
        Ok(file)
    });
    if let Err(error) = &awake {
        eprintln!("/dev/cpu_dma_latency: {error}: rounds may be void where little is sent");
    }
    awake.ok()
}

fn measure(row: &'static Row, arguments: &Arguments) -> io::Result<Vec<Line>> {
    let parse = |text: &str| text.parse::<Setup>().map_err(io::Error::other);
    let (down, up) = (parse(row.down)?, parse(row.up)?);
    let rig = Rig::new()?;
    if row.ecn {
        namespace::set("net.ipv4.tcp_ecn", "1").map_err(io::Error::other)?;
    }
    let line = |(metric, bar): &(Metric, Bar)| {
        let (ours, kernel) = (Rounds::default(), Rounds::default());
        Line { row, metric: *metric, bar: *bar, ours, kernel, void: 0 }
    };
    let mut lines: Vec<Line> = row.figures.iter().map(line).collect();
    for round in 0..arguments.rounds.max(1) {
        let sides = match row.load {
            Load::Versus => vec![Side::Ours],
            _ if arguments.record => vec![Side::Kernel],
            _ if round % 2 == 0 => vec![Side::Ours, Side::Kernel],
            _ => vec![Side::Kernel, Side::Ours],
        };
        for side in sides {
            let (measured, void) = valid(|| play(&rig, row, side, (&down, &up), round as u64, arguments))?;
            for line in &mut lines {
                let rounds = if side == Side::Ours { &mut line.ours } else { &mut line.kernel };
                rounds.0.push(measured.figure(line.metric));
                line.void += void;
            }
        }
    }
    Ok(lines)
}

/// Repeats a round until the emulator is in time. Returns the last attempt, and 1 if that was void, too.
fn valid(mut play: impl FnMut() -> io::Result<Round>) -> io::Result<(Round, usize)> {
    for _ in 1..ATTEMPTS {
        let round = play()?;
        if round.report.late <= LATEST {
            return Ok((round, 0));
        }
    }
    let round = play()?;
    let void = usize::from(round.report.late > LATEST);
    Ok((round, void))
}

fn play(
    rig: &Rig,
    row: &Row,
    side: Side,
    (down, up): (&Setup, &Setup),
    seed: u64,
    arguments: &Arguments,
) -> io::Result<Round> {
    let seconds = arguments.seconds.max(row.least);
    rig.begin(down, up, seed);
    let before = rig.timeouts(side);
    let (mut bytes, mut times) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let senders = match row.load {
            Load::Bulk(flows) => vec![side; flows],
            Load::Versus => vec![Side::Ours, Side::Kernel],
            Load::Short { bytes, clients } => {
                let client = |_| scope.spawn(move || responses(rig, side, bytes, seconds));
                let clients: Vec<_> = (0..clients).map(client).collect();
                for client in clients {
                    times.extend(client.join().expect("a client does not panic")?);
                }
                return Ok(());
            }
            Load::Chunks { bytes, period } => {
                let count = (seconds * 1e3 / period as f64) as usize;
                times = rig.chunks(side, bytes, Duration::from_millis(period), count.max(1))?;
                return Ok(());
            }
        };
        let receiver = |sender| scope.spawn(move || rig.stream(sender, seconds));
        let receivers: Vec<_> = senders.into_iter().map(receiver).collect();
        for receiver in receivers {
            bytes.push(receiver.join().expect("a receiver does not panic")?);
        }
        io::Result::Ok(())
    })?;
    times.sort_unstable();
    let report = rig.end()?;
    let timeouts = rig.timeouts(side) - before;
    thread::sleep(REST);
    Ok(Round { bytes, seconds, times, timeouts, report })
}

/// Asks for responses one after the other for so many seconds.
fn responses(rig: &Rig, side: Side, bytes: u64, seconds: f64) -> io::Result<Vec<Duration>> {
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed().as_secs_f64() < seconds {
        times.push(rig.response(side, bytes)?);
    }
    Ok(times)
}

/// A line for the lab's tests.
fn record(line: &Line, arguments: &Arguments) -> String {
    let Row { name, down, up, least, .. } = line.row;
    let seconds = arguments.seconds.max(*least);
    format!("{name} | {down} | {up} | {seconds} | {} | {:.3}", line.metric.name(), line.kernel.median())
}

fn table(lines: &[Line]) -> String {
    let heads = ["path", "figure", "ours", "kernel", "ratio", "bar", "", "void"];
    let mut cells: Vec<[String; 8]> = vec![heads.map(String::from)];
    let show =
        |value: f64| if value.is_nan() { "–".to_owned() } else { format!("{value:.*}", digits(value)) };
    for line in lines {
        let (bar, verdict) = line.verdict();
        let ratio = line.ratio();
        cells.push([
            line.row.name.to_owned(),
            line.metric.name().to_owned(),
            show(line.ours.median()),
            show(line.kernel.median()),
            if ratio.is_finite() { format!("{ratio:.2}×") } else { String::new() },
            bar,
            verdict.to_owned(),
            if line.void > 0 { line.void.to_string() } else { String::new() },
        ]);
    }
    let width = |column: usize| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |(index, cells): (usize, &[String; 8])| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            2..=4 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        let text = format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "));
        let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join(" | ");
        if index == 0 { format!("{text}| {rule} |\n") } else { text }
    };
    cells.iter().enumerate().map(line).collect()
}

/// Three significant digits.
fn digits(value: f64) -> usize {
    match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    }
}
