//! Programs in the test's own network namespace.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
pub(crate) use steadfast_witness::enter_namespace;

/// A time limit that only a hang exceeds.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The one-line error of our tool, with status 2, for a user who may create neither a namespace nor a device. As root,
/// it drops all rights first.
pub(crate) fn refused_without_rights(args: &str) -> String {
    let (binary, args) = (env!("CARGO_BIN_EXE_steadfast"), args.split(' '));
    let output = if geteuid().is_root() {
        // A directory that every user can reach; that of the build may not be.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("steadfast");
        fs::copy(binary, &copy).unwrap();
        let nobody =
            ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
        Command::new("setpriv").args(nobody).arg(&copy).args(args).output().unwrap()
    } else {
        Command::new(binary).args(args).output().unwrap()
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

/// Our tool, with the addresses of both ends of its device.
pub(crate) fn steadfast(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.args(args.split(' ')).args("--tun sf0 --host 10.9.0.1/24 --address 10.9.0.2".split(' '));
    command.args("--host fd09::1/64 --address fd09::2".split(' '));
    command
}

/// Starts a server of ours on both addresses, and waits until it listens.
pub(crate) fn serve(args: &str) -> Running {
    let mut server = Running::start(&mut steadfast(&format!("serve {args}")));
    server.wait_for("listening on 10.9.0.2:");
    server.wait_for("listening on [fd09::2]:");
    server
}

/// `curl` with error messages and a time limit.
pub(crate) fn curl(args: &[&str]) -> Command {
    let limit = LIMIT.as_secs().to_string();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", &limit]).args(args);
    command
}

/// A running program and its standard error. Dropping it kills the program.
pub(crate) struct Running {
    pub(crate) child: Child,
    errors: Receiver<String>,
    pub(crate) said: Vec<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, errors) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        Running { child, errors, said: Vec::new() }
    }

    /// Waits for a line on standard error that contains `text`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.said.iter().any(|line| line.contains(text)) {
            match self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(e) => panic!("no `{text}` ({e}) among {:#?}", self.said),
            }
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
    }

    /// Returns the status that it prints at SIGUSR1.
    #[track_caller]
    pub(crate) fn status(&mut self) -> Status {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGUSR1).unwrap();
        let deadline = Instant::now() + LIMIT;
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.starts_with("usage: ")) {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.errors.recv_timeout(left).expect("a status within the limit");
            let begun = !lines.is_empty() || line.starts_with("State ");
            if begun { lines.push(line) } else { self.said.push(line) }
        }
        Status { lines }
    }

    /// Waits until it exits and its standard error is complete.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        // Standard error closes when the program exits.
        while let Ok(line) = self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.said.push(line);
        }
        match self.child.try_wait().unwrap() {
            Some(status) => status,
            None if Instant::now() < deadline => self.child.wait().unwrap(),
            None => panic!("still running after {LIMIT:?}: {:#?}", self.said),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            self.said.extend(self.errors.try_iter());
            eprintln!("said: {:#?}", self.said);
        }
    }
}

/// The status that our tool prints at SIGUSR1.
#[derive(Debug)]
pub(crate) struct Status {
    lines: Vec<String>,
}

impl Status {
    /// The value of a counter.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let line = self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// The number of entries in a table.
    pub(crate) fn usage(&self, table: &str) -> u64 {
        let mut words = self.lines.last().unwrap().split(' ');
        words.find(|word| *word == table).unwrap_or_else(|| panic!("no table {table}"));
        words.next().unwrap().parse().unwrap()
    }

    /// The number of sockets in a state, by the state's name in `ss`.
    pub(crate) fn count(&self, state: &str) -> usize {
        self.lines.iter().filter(|line| line.split(' ').next() == Some(state)).count()
    }
}

/// Runs `command` with `input`. Returns its status, output and errors.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: &[u8]) -> (ExitStatus, Vec<u8>, String) {
    let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut to = running.child.stdin.take().unwrap();
    let mut from = running.child.stdout.take().unwrap();
    let mut output = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || to.write_all(input).ok());
        from.read_to_end(&mut output).unwrap();
    });
    let status = running.wait();
    (status, output, running.said.join("\n"))
}
