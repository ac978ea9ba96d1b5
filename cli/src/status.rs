//! The status of a running stack, printed at SIGUSR1: connections as in `ss`, counters as in `nstat`, and the size of
//! its tables.

use std::time::Duration;

use steadfast::Net;
use steadfast::stack::info::{Diagnosis, SocketEntry, Usage};
use steadfast::stack::trace::State;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// A connection this long in CLOSE-WAIT is reported as forgotten by its application.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Prints the status of `net` to standard error at each SIGUSR1.
pub(crate) fn print_on_signal(net: Net) -> Result<(), Failure> {
    let failed = |e| Failure::system("cannot watch for signals", e);
    let mut asked = signal(SignalKind::user_defined1()).map_err(failed)?;
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
            // In one piece, so that no other line comes in between.
            eprint!("{}", report(&net));
        }
    });
    Ok(())
}

/// Connections, diagnoses, counters that are not zero, and the line of usage at the end.
fn report(net: &Net) -> String {
    let columns = ["State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port", "Age"];
    let mut text = row(columns.map(str::to_owned));
    text.extend(net.sockets().iter().map(socket));
    text.extend(net.diagnose(FORGOTTEN_AFTER).iter().map(note));
    let counters = net.counters();
    let counted = counters.iter().filter(|(_, value)| *value > 0);
    text.extend(counted.map(|(name, value)| format!("{name:<32} {value}\n")));
    text + &usage(&net.usage())
}

fn socket(socket: &SocketEntry) -> String {
    let local = socket.local.to_string();
    let remote = if socket.state == State::Listen { "*".to_owned() } else { socket.remote.to_string() };
    let age = format!("{:.3}s", socket.state_age.as_secs_f64());
    let state = socket.state.ss_name().to_owned();
    row([state, socket.recv_q.to_string(), socket.send_q.to_string(), local, remote, age])
}

fn row([state, recv_q, send_q, local, remote, age]: [String; 6]) -> String {
    format!("{state:<12} {recv_q:>8} {send_q:>8} {local:>28} {remote:>28} {age:>12}\n")
}

fn note(diagnosis: &Diagnosis) -> String {
    format!(
        "note: {diagnosis}: the peer has closed, the application has not. It must close what it has read to the end.\n"
    )
}

fn usage(usage: &Usage) -> String {
    let fields: String =
        usage.iter().map(|(name, fill)| format!(" {} {fill}", name.replace('_', "-"))).collect();
    format!("usage:{fields}\n")
}
