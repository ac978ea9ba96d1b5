//! Live lists of a running network: `ss`, `nstat`, `sysctl`, `metrics`, `top`, `trace` and `capture` ask its control
//! socket.

mod capture;
mod event;
mod keys;
mod metrics;
mod nstat;
mod page;
mod screen;
mod ss;
mod sysctl;
mod top;
mod trace;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use steadfast::device::free_socket_path;

use crate::failure::Failure;

pub(crate) use capture::Capture;
pub(crate) use metrics::Metrics;
pub(crate) use nstat::Nstat;
pub(crate) use ss::Ss;
pub(crate) use sysctl::Sysctl;
pub(crate) use top::Top;
pub(crate) use trace::Trace;

/// How long an answer may take to go on.
const PATIENCE: Duration = Duration::from_secs(10);

/// The folder of control sockets: `/run/steadfast` for root, else in `$XDG_RUNTIME_DIR`.
fn folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/steadfast");
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    runtime.join("steadfast")
}

/// The path of this process's control socket. Makes the folder, for nobody else, and removes what killed processes have
/// left there.
pub(crate) fn own_socket() -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = folder();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| Failure::system(folder.display(), error))?;
    for path in sockets(&folder) {
        // Most belong to programs that run.
        let _ = free_socket_path(&path);
    }
    Ok(folder.join(format!("{}.sock", std::process::id())))
}

fn sockets(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
}

/// The network that is asked.
#[derive(Args)]
pub(crate) struct Whom {
    /// The process of the network. Without this and `--socket`: the only one.
    #[arg(long, value_name = "PID", conflicts_with = "socket")]
    pid: Option<u32>,
    /// Its control socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Whom {
    /// The path of the socket.
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        let folder = folder();
        if let Some(pid) = self.pid {
            return Ok(folder.join(format!("{pid}.sock")));
        }
        // A process that was killed leaves its file.
        let mut found: Vec<PathBuf> =
            sockets(&folder).filter(|path| UnixStream::connect(path).is_ok()).collect();
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => Err(Failure::usage(format!(
                "no control socket in {}: start `serve`, `connect`, `run` or `gateway` with --control, or name one with --socket",
                folder.display()
            ))),
            (Some(last), _) => {
                found.push(last);
                let pids: Vec<_> = found.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
                Err(Failure::usage(format!(
                    "several networks run: choose one with --pid, of {}",
                    pids.join(", ")
                )))
            }
        }
    }

    fn connect(&self) -> Result<Asked, Failure> {
        let path = self.path()?;
        let failed = |error| Failure::system(path.display(), error);
        let stream = UnixStream::connect(&path).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let write = stream.try_clone().map_err(failed)?;
        Ok(Asked { path, read: BufReader::new(stream), write })
    }
}

/// A conversation with a network.
struct Asked {
    path: PathBuf,
    read: BufReader<UnixStream>,
    write: UnixStream,
}

impl Asked {
    fn path(&self) -> &Path {
        &self.path
    }

    /// Waits longer for the next row.
    fn patience(&mut self, seconds: u64) -> Result<(), Failure> {
        let limit = Some(Duration::from_secs(seconds));
        self.write.set_read_timeout(limit).map_err(|error| Failure::system(self.path.display(), error))
    }

    /// Asks, and gives each row of the answer to `take`. Returns the number of rows that the network says.
    fn each(
        &mut self,
        request: &Value,
        mut take: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let path = self.path.display().to_string();
        let failed = |error| Failure::system(&path, error);
        self.write.write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.read.read_line(&mut line).map_err(failed)? == 0 {
                return Err(Failure::system(&path, std::io::ErrorKind::UnexpectedEof.into()));
            }
            let row: Value = serde_json::from_str(&line)
                .map_err(|error| Failure::System(format!("{path}: expected a line of JSON: {error}")))?;
            if let Some(error) = row.get("error") {
                return Err(Failure::System(format!("{path}: {}", error.as_str().unwrap_or("refused"))));
            }
            if row.get("done").is_some() {
                return Ok(row["rows"].as_u64().unwrap_or(0));
            }
            take(row)?;
        }
    }

    /// Counters with the names of `nstat`, and the fill of each table.
    fn counters(&mut self) -> Result<Value, Failure> {
        Ok(named(self.one("counters")?))
    }

    /// Asks for one object.
    fn one(&mut self, verb: &str) -> Result<Value, Failure> {
        let mut all = Value::Null;
        self.each(&json!({"do": verb}), |row| {
            all = row;
            Ok(())
        })?;
        Ok(all)
    }
}

/// Gives the counters of an answer the names of `nstat`.
fn named(mut all: Value) -> Value {
    if let Some(counters) = all["counters"].as_object() {
        let named = counters.iter().map(|(name, value)| (nstat_name(name), value.clone()));
        all["counters"] = Value::Object(named.collect());
    }
    all
}

/// The name of a counter with the group that Linux has it in. A counter of our own has none.
fn nstat_name(name: &str) -> String {
    const OWN: [&str; 8] = [
        "LoopQueueFull",
        "SyncookiesNotKept",
        "SynAckRepeatsSaved",
        "StalledAborted",
        "MtuBlackHoles",
        "R1Reached",
        "CloseWaitEntered",
        "CloseWaitLeft",
    ];
    let own = OWN.contains(&name)
        || name == "TraceLost"
        || name.starts_with("Forward")
        || name.starts_with(|letter: char| letter.is_ascii_lowercase());
    let group = match name {
        _ if own || name.starts_with("Icmp") || name.starts_with("Udp") => "",
        "InReceives" | "InHdrErrors" | "InAddrErrors" | "OutRequests" | "OutNoRoutes" | "ReasmReqds"
        | "ReasmOKs" | "ReasmFails" | "ReasmTimeout" => "Ip",
        "InSegs" | "OutSegs" | "RetransSegs" | "InErrs" | "InCsumErrors" | "OutRsts" | "ActiveOpens"
        | "PassiveOpens" | "AttemptFails" | "EstabResets" => "Tcp",
        _ => "TcpExt",
    };
    format!("{group}{name}")
}

/// A time in microseconds, as `ss` writes it: milliseconds, with as many digits as there are.
fn millis(micros: f64) -> String {
    let text = format!("{:.3}", micros / 1000.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Sentences about the state of a network, each with its id.
fn alarms(summary: &Value) -> Vec<String> {
    /// Half-open connections that no ordinary load leaves.
    const MANY: u64 = 100;
    let rows = |key: &str| summary[key].as_array().cloned().unwrap_or_default();
    let count = |row: &Value, key: &str| row[key].as_u64().unwrap_or(0);
    let name = |row: &Value| row["local"].as_str().unwrap_or_default().to_owned();
    let mut out = Vec::new();
    for row in rows("half_open") {
        let (half_open, sources) = (count(&row, "count"), count(&row, "sources"));
        if half_open < MANY {
            continue;
        }
        let local = name(&row);
        out.push(if sources * 2 > half_open {
            format!("open-syn-flood: {half_open} half-open connections at {local} from {sources} sources (spread)")
        } else {
            format!("open-half-open-pileup: {half_open} half-open connections at {local} from {sources} sources (few)")
        });
    }
    for row in rows("listeners") {
        let (waiting, backlog) = (count(&row, "waiting"), count(&row, "backlog"));
        if waiting > 0 && waiting >= backlog {
            out.push(format!(
                "open-backlog-full: {waiting} connections wait at {} to be accepted, backlog {backlog}",
                name(&row)
            ));
        }
    }
    for row in rows("close_wait") {
        let oldest = row["oldest"].as_f64().unwrap_or(0.0);
        if oldest >= 60.0 {
            let leaked = count(&row, "count");
            out.push(format!(
                "close-wait-leak: {leaked} connections of {} in CLOSE-WAIT, the oldest for {oldest:.0} s",
                name(&row)
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_named_with_its_sources_spread_or_not() {
        let summary = |count, sources| json!({"half_open": [{"local": "10.0.0.2:80", "count": count, "sources": sources}]});
        let spread = alarms(&summary(512, 500));
        assert_eq!(
            spread,
            ["open-syn-flood: 512 half-open connections at 10.0.0.2:80 from 500 sources (spread)"]
        );
        assert!(alarms(&summary(512, 3))[0].starts_with("open-half-open-pileup: "));
        assert!(alarms(&summary(99, 99)).is_empty());
    }

    #[test]
    fn counters_have_the_groups_of_linux_and_own_ones_have_none() {
        for (name, full) in [
            ("InSegs", "TcpInSegs"),
            ("InReceives", "IpInReceives"),
            ("ListenOverflows", "TcpExtListenOverflows"),
            ("TCPTimeouts", "TcpExtTCPTimeouts"),
            ("UdpInDatagrams", "UdpInDatagrams"),
            ("StalledAborted", "StalledAborted"),
            ("drop.no_listener", "drop.no_listener"),
            ("orphan_timeouts", "orphan_timeouts"),
        ] {
            assert_eq!(nstat_name(name), full);
        }
    }

    #[test]
    fn a_full_backlog_and_a_leak_are_named() {
        let summary = json!({
            "listeners": [{"local": "10.0.0.2:80", "waiting": 5, "backlog": 5}, {"local": "10.0.0.2:81", "waiting": 4, "backlog": 5}],
            "close_wait": [{"local": "10.0.0.2:80", "count": 3, "oldest": 61.0}, {"local": "10.0.0.2:81", "count": 3, "oldest": 59.0}],
        });
        let said = alarms(&summary);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("open-backlog-full: 5 ") && said[1].starts_with("close-wait-leak: 3 "));
    }
}
