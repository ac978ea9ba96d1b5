//! The signals of `steadfast run`: those that somebody sends to it alone go on to the command.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

/// The signals that go on. Those of job control keep their meaning: a terminal stops both of us.
const PASSED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// `si_code` of a signal that `kill` has sent (sigaction(2)).
const SENT_BY_USER: i32 = 0;

/// Blocks the signals, and passes them on to `command` until it is gone and waits to be reaped. A terminal's signals reach
/// the whole group, and so the command.
///
/// Returns what tells the end. A thread waits for both: the kernel's files for it have no safe counterpart in Tokio.
pub(super) fn watch(command: Pid) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let set: SigSet = PASSED.into_iter().collect();
    set.thread_block()?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let pid = rustix::process::Pid::from_raw(command.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let (sender, end) = oneshot::channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // It fails only if the run has ended for another reason.
        let _ = sender.send(pass_on(&signals, &process, command));
    })?;
    Ok(end)
}

fn pass_on(signals: &SignalFd, process: &OwnedFd, command: Pid) -> io::Result<()> {
    loop {
        let mut files = [PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut files, None) {
            Err(Errno::INTR) => continue,
            polled => polled?,
        };
        if !files[0].revents().is_empty() {
            return Ok(());
        }
        let sent = signals.read_signal()?.filter(|info| info.ssi_code == SENT_BY_USER);
        if let Some(signal) = sent.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()) {
            // It fails only if the command is gone.
            let _ = kill(command, signal);
        }
    }
}
