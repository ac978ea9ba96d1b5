//! Ten thousand concurrent connections, and a hundred thousand in sequence.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::namespace::{Running, enter_namespace, serve};
use crate::pace::{kernel_client, kernel_counter, wait_until};

const AT_ONCE: usize = 10_000;
const IN_A_ROW: usize = 100_000;
/// Limit of connections in TIME-WAIT, on either side.
const TW_BUCKETS: u64 = 4096;

fn sysctl(name: &str, value: impl ToString) {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value.to_string()).unwrap();
}

/// A value of this namespace's kernel from the line `TCP:` of its socket statistics: `inuse`, `tw`.
fn sockstat(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let mut words = line.split(' ');
    words.find(|word| *word == name).unwrap();
    words.next().unwrap().parse().unwrap()
}

/// Resident memory of a process in KiB.
fn resident(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ten_thousand_connections_are_open_at_once() {
    if !enter_namespace(&[]) {
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(20_000), most).unwrap();
    let mut server = serve("echo");
    let before = resident(&server);
    let since = Instant::now();
    let mut streams: Vec<TcpStream> =
        (0..AT_ONCE).map(|i| kernel_client(["10.9.0.2:7", "[fd09::2]:7"][i % 2])).collect();
    eprintln!("{AT_ONCE} opened in {:?}", since.elapsed());
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&i.to_be_bytes()).unwrap();
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; size_of::<usize>()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(usize::from_be_bytes(back), i);
    }
    // An idle connection has no buffer, once the kernel's delayed ACKs have arrived.
    let status = wait_until(&mut server, |s| s.usage("buffered") == 0);
    assert_eq!((status.count("ESTAB"), status.counter("ListenDrops")), (AT_ONCE, 0));
    eprintln!("{:.1} KiB each, with the server's own", (resident(&server) - before) as f64 / AT_ONCE as f64);

    drop(streams);
    let status = wait_until(&mut server, |s| s.usage("connections") == 0);
    assert_eq!((status.usage("sockets"), status.usage("time-wait"), status.usage("timers")), (2, 0, 0));
}

/// Opens connections one after the other on two threads, and checks both sides' TIME-WAIT meanwhile.
fn in_a_row(server: &mut Running, connection: impl Fn(usize) + Sync) {
    const ROUNDS: usize = 20;
    const THREADS: usize = 2;
    let since = Instant::now();
    for _ in 0..ROUNDS {
        let work = || (0..IN_A_ROW / ROUNDS / THREADS).for_each(&connection);
        thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
        let (ours, kernels) = (server.status().usage("time-wait"), sockstat("tw"));
        assert!(
            ours <= TW_BUCKETS && kernels <= TW_BUCKETS,
            "TIME-WAIT: {ours} here, {kernels} in the kernel"
        );
    }
    eprintln!("{IN_A_ROW} connections, {:.0}/s", IN_A_ROW as f64 / since.elapsed().as_secs_f64());
    let status = wait_until(server, |s| s.usage("connections") == 0);
    assert_eq!(status.counter("PassiveOpens"), IN_A_ROW as u64);
    assert_eq!((status.counter("AttemptFails"), status.counter("EstabResets")), (0, 0), "{status:?}");
}

#[test]
fn short_connections_that_clients_close_stay_below_the_kernels_bound_on_time_wait() {
    if !enter_namespace(&[]) {
        return;
    }
    sysctl("tcp_max_tw_buckets", TW_BUCKETS);
    let mut server = serve("echo");
    in_a_row(&mut server, |i| {
        let mut stream = kernel_client(["10.9.0.2:7", "[fd09::2]:7"][i % 2]);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
    assert_eq!(server.status().counter("TW"), 0, "the clients closed first");
    assert_eq!(sockstat("tw"), TW_BUCKETS);
    assert!(kernel_counter("TCPTimeWaitOverflow") > 0);
}

#[test]
fn short_connections_that_a_server_closes_stay_below_our_bound_on_time_wait_t11() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve(&format!("http --sysctl tcp_max_tw_buckets={TW_BUCKETS}"));
    in_a_row(&mut server, |i| {
        let mut stream = kernel_client(["10.9.0.2:80", "[fd09::2]:80"][i % 2]);
        stream.write_all(b"GET /bytes/1 HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.0 200 OK\r\n") && answer.ends_with(b"\r\n\r\n\0"));
    });
    let status = server.status();
    assert_eq!(status.usage("time-wait"), TW_BUCKETS);
    assert_eq!(status.counter("TW") + status.counter("TCPTimeWaitOverflow"), IN_A_ROW as u64, "{status:?}");
    assert_eq!(sockstat("tw"), 0, "the server closed first");
}
