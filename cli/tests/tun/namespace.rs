//! A network namespace of the test's own, and programs in it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Nothing here takes longer, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A network namespace. It lives as long as the process that holds it, which ends when its input does: also
/// when the test is killed.
pub(crate) struct Namespace {
    holder: Child,
    _input: ChildStdin,
}

impl Namespace {
    /// Makes one, or says why that cannot be done here and gives `None`. With `STEADFAST_REQUIRE_TUN=1` in the
    /// environment, that is a failure.
    pub(crate) fn make(tools: &[&str]) -> Option<Namespace> {
        match Namespace::try_make(tools) {
            Ok(namespace) => Some(namespace),
            Err(reason) => {
                skip(&reason);
                None
            }
        }
    }

    fn try_make(tools: &[&str]) -> Result<Namespace, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it takes root to make a network namespace".to_owned());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Err("/dev/net/tun is not there".to_owned());
        }
        for tool in ["ip", "nsenter", "unshare"].iter().chain(tools) {
            if !is_installed(tool) {
                return Err(format!("{tool} is not installed"));
            }
        }
        let script = "ip link set lo up && echo ready && exec cat";
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = holder.spawn().map_err(|e| format!("unshare: {e}"))?;
        let mut ready = String::new();
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        output.read_line(&mut ready).map_err(|e| format!("unshare: {e}"))?;
        let input = holder.stdin.take().unwrap();
        let namespace = Namespace { holder, _input: input };
        if ready == "ready\n" { Ok(namespace) } else { Err("unshare --net: refused".to_owned()) }
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// A command that runs in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Our tool, in the namespace, with both ends of its device given.
    pub(crate) fn steadfast(&self, args: &str) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_steadfast"));
        command.args(args.split(' ')).args("--tun sf0 --host 10.9.0.1/24 --address 10.9.0.2".split(' '));
        command.args("--host fd09::1/64 --address fd09::2".split(' '));
        command
    }

    /// Starts a server of ours on both addresses and waits until it listens.
    pub(crate) fn serve(&self, args: &str) -> Running {
        let mut server = Running::start(&mut self.steadfast(&format!("serve -v {args}")));
        server.wait_for("listening on 10.9.0.2:");
        server.wait_for("listening on [fd09::2]:");
        server
    }

    /// Runs `work` in a thread whose sockets are those of the namespace.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(self.path()).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).exists())
}

/// Reports that a test was not run, and fails where that is not allowed.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("STEADFAST_REQUIRE_TUN").is_none(),
        "STEADFAST_REQUIRE_TUN is set, but {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// A program that runs, with what it says on standard error. It is killed when this is dropped.
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

    /// Waits for a line of standard error that contains `text`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.said.iter().any(|line| line.contains(text)) {
            match self.errors.recv_timeout(deadline - Instant::now()) {
                Ok(line) => self.said.push(line),
                Err(e) => panic!("no `{text}` ({e}) among {:#?}", self.said),
            }
        }
    }

    /// Asks it to end, as `kill` does.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until it ends; standard error is then whole.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        // Standard error ends with the program.
        while let Ok(line) = self.errors.recv_timeout(deadline - Instant::now()) {
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

/// Runs `command` with `input`, and gives its status, output and errors.
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
