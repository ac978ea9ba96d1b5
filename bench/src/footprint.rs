//! `bytes_…`: memory of one of a hundred thousand objects, with its share of tables and spare capacity.
//!
//! The memory of a stack is the memory that dropping it frees. The memory of a cookie is the growth after a hundred
//! thousand of them.

use std::net::SocketAddr;

use steadfast_core::{ListenOptions, Stack};

use crate::flood::{Flood, syn};
use crate::measure::{Effort, Rounds};
use crate::ours::{SERVER, Stacks};
use crate::pair::Setup;
use crate::report::{Goal, Row, Unit};

const COUNT: usize = 100_000;

fn unconnected() -> Stacks {
    Stacks::unconnected(&Setup::PLAIN, |config| {
        config.tcp_max_syn_backlog = u32::try_from(2 * COUNT).expect("it fits");
        config.tcp_max_half_open = config.tcp_max_syn_backlog;
    })
}

fn held_by(stack: Stack) -> i64 {
    -allocation_counter::measure(|| drop(stack)).bytes_current
}

fn row(name: &str, full: Stack, empty: Stack, goal: f64) -> Row {
    let each = (held_by(full) - held_by(empty)) as f64 / COUNT as f64;
    let ours = Rounds(vec![each]);
    Row { name: name.to_string(), unit: Unit::Bytes, ours, peer: None, goal: Goal::Value(goal) }
}

/// Memory of an idle connection, at both ends.
pub(crate) fn idle(_: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut full = unconnected();
    full.open_idle(COUNT, &|count| progress(format!("bytes_idle: {count} of {COUNT}")));
    let empty = unconnected();
    vec![
        row("bytes_idle (client)", full.client, empty.client, 420.0),
        row("bytes_idle (server)", full.server, empty.server, 420.0),
    ]
}

/// Memory of a TIME-WAIT entry, at the end that closed first.
pub(crate) fn time_wait(_: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut full = unconnected();
    for i in 0..COUNT {
        let (stream, accepted) = full.connect((i / 50_000) as u16, Some((10_001 + i % 50_000) as u16));
        let now = full.now();
        full.client.close(now, stream).expect("it is open");
        full.carry();
        full.server.close(now, accepted).expect("it is open");
        full.carry();
        if i % 1000 == 0 {
            progress(format!("bytes_timewait: {i} of {COUNT}"));
        }
    }
    assert_eq!(full.client.usage().time_wait, COUNT);
    vec![row("bytes_timewait", full.client, unconnected().client, 96.0)]
}

/// Memory of a half-open connection.
pub(crate) fn half_open(_: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let listening = || {
        let mut stacks = unconnected();
        let listener = stacks.server.listen(SocketAddr::new(SERVER, 80), ListenOptions::default());
        listener.expect("the port is free");
        stacks
    };
    let mut full = listening();
    let mut frame = [0; 1500];
    for number in 0..COUNT as u32 {
        full.server.receive(full.now(), &syn(number)[..]);
        full.server.transmit(full.now(), &mut frame).expect("a SYN-ACK");
        if number % 1000 == 0 {
            progress(format!("bytes_halfopen: {number} of {COUNT}"));
        }
    }
    assert_eq!(full.server.usage().half_open, COUNT);
    vec![row("bytes_halfopen", full.server, listening().server, 96.0)]
}

/// Memory of a SYN that is answered by a cookie because the half-open table is full. It must be zero.
pub(crate) fn cookie(_: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut flood = Flood::new();
    let syns: Vec<_> = (0..COUNT as u32).map(|number| syn(number * 397)).collect();
    progress(format!("bytes_cookie: {COUNT} SYNs"));
    let grown = allocation_counter::measure(|| syns.iter().for_each(|packet| flood.syn(packet)));
    let ours = Rounds(vec![grown.bytes_current as f64 / COUNT as f64]);
    vec![Row { name: "bytes_cookie".into(), unit: Unit::Bytes, ours, peer: None, goal: Goal::Value(0.0) }]
}
