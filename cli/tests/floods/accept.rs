//! Complete handshakes that nobody accepts: THREAT-2.

use std::time::{Duration, Instant};

use steadfast::device::{Tun, TunOptions};
use steadfast::{Config, Net, TcpListener};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::namespace::enter_namespace;
use crate::scene::{ECHO, turn};
use crate::wire::{OURS, ours};

/// The size of the accept queue, and of the queue of half-open connections.
const BACKLOG: u32 = 64;
/// The number of concurrent clients.
const CLIENTS: usize = 600;
/// Time limit of the attempts. SYNs and SYN-ACKs are retransmitted in this time.
const TRY: Duration = Duration::from_secs(2);
/// The initial retransmission timeout of a SYN.
const RTO: Duration = Duration::from_secs(1);

/// THREAT-2: the queue stays within its bound, and the excess is dropped, not reset. Once connections are accepted
/// again, a new client is accepted within one retransmission of its SYN.
#[test]
fn connections_that_nobody_accepts_are_bounded_and_never_reset_t02() {
    if !enter_namespace(&[]) {
        return;
    }
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = TunOptions::new("sf0");
        options.host = vec![([10, 9, 0, 1].into(), 24)];
        options.queue_len = Some(2000);
        let device = Tun::open(&options).await.unwrap();
        let mut config = Config::default();
        (config.somaxconn, config.tcp_max_syn_backlog) = (BACKLOG, BACKLOG);
        let net = Net::builder().config(config).address(OURS[0], 24).start(device).unwrap();
        let listener = TcpListener::bind(&net, ours(ECHO)).await.unwrap();

        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(timeout(TRY, TcpStream::connect(ours(ECHO))));
        }
        let results = clients.join_all().await;
        let refused: Vec<_> =
            results.iter().filter_map(|tried| tried.as_ref().ok()?.as_ref().err()).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let (usage, counters) = (net.usage(), net.counters());
        let overflows = counters.value("ListenOverflows");
        println!(
            "{CLIENTS} clients, backlog {BACKLOG}: {} connections, {} half-open, {} overflows",
            usage.connections,
            usage.half_open,
            overflows.unwrap()
        );
        assert!((1..=BACKLOG as usize + 1).contains(&usage.connections), "{usage:?}");
        assert!(usage.half_open <= BACKLOG as usize, "{usage:?}");
        assert!(overflows > Some(0));
        assert_eq!(counters.value("OutRsts"), Some(0));

        drop(results);
        let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                sender.send((stream, peer)).unwrap();
            }
        });
        let began = Instant::now();
        let late = TcpStream::connect(ours(ECHO)).await.unwrap();
        while accepted.recv().await.unwrap().1 != late.local_addr().unwrap() {}
        println!("the next client is accepted after {} ms", began.elapsed().as_millis());
        assert!(began.elapsed() < RTO);
    });
}
