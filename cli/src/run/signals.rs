//! The signals of `steadfast run`: those that somebody sends to it alone go on to the command.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

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

/// Whoever asks a command again this long after the first time to end does not want to wait any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// The signal that the command gets. `terminated` is when it got its first SIGTERM.
fn passed_as(signal: Signal, terminated: &mut Option<Instant>, now: Instant) -> Signal {
    if signal != Signal::SIGTERM {
        return signal;
    }
    let first = *terminated.get_or_insert(now);
    if now.duration_since(first) >= PATIENCE { Signal::SIGKILL } else { signal }
}

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
    let mut terminated = None;
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
            let _ = kill(command, passed_as(signal, &mut terminated, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_request_to_end_kills_once_the_first_had_its_time() {
        let (start, mut terminated) = (Instant::now(), None);
        let mut at =
            |signal, millis| passed_as(signal, &mut terminated, start + Duration::from_millis(millis));
        assert_eq!(at(Signal::SIGHUP, 0), Signal::SIGHUP);
        assert_eq!(at(Signal::SIGTERM, 1000), Signal::SIGTERM);
        assert_eq!(at(Signal::SIGTERM, 5999), Signal::SIGTERM);
        assert_eq!(at(Signal::SIGTERM, 6000), Signal::SIGKILL);
        assert_eq!(at(Signal::SIGUSR1, 9000), Signal::SIGUSR1);
    }
}
