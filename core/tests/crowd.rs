//! A crowd larger than the accept queue: as long as the application accepts, everybody is served.

mod common;

use std::collections::BTreeSet;

use allocation_counter::measure;
use steadfast_core::config::Profile;
use steadfast_core::config::SynCookies;
use steadfast_core::{Config, ConnectOptions, Duration, Error, Event, ListenOptions, SocketId, Stack};

use common::{Pair, SERVER, Side};

const CROWD: usize = 60;

/// How a crowd comes, and who serves it.
#[derive(Clone, Copy, Debug)]
struct Case {
    profile: Profile,
    syncookies: SynCookies,
    /// Between two clients.
    spread: Duration,
    /// Between two calls of `accept`.
    pace: Duration,
    /// Who speaks first.
    speaks: Side,
}

impl Case {
    fn config(self) -> Config {
        Config { tcp_syncookies: self.syncookies, ..Config::profile(self.profile) }
    }
}

/// The outcome after two minutes at the latest.
struct Served {
    served: usize,
    failed: Vec<Error>,
    took: Duration,
}

fn serve(case: Case, config: Config) -> Served {
    let mut pair = Pair::new(config);
    let options = ListenOptions { backlog: 8, ..ListenOptions::default() };
    let listener = pair.server.listen(SERVER.parse().unwrap(), options).unwrap();
    let start = pair.now;
    let mut clients = Vec::new();
    let (mut next_client, mut next_accept) = (start, start + case.pace);
    let (mut waiting, mut served, mut failed) = (BTreeSet::new(), 0, Vec::new());
    while pair.now < start + Duration::from_secs(120) && served + failed.len() < CROWD {
        while clients.len() < CROWD && next_client <= pair.now {
            let options = ConnectOptions::default();
            clients.push(pair.client.connect(pair.now, SERVER.parse().unwrap(), options).unwrap());
            next_client += case.spread;
        }
        if next_accept <= pair.now {
            next_accept += case.pace;
            if let Ok((id, _)) = pair.server.accept(listener) {
                waiting.insert(id);
                if case.speaks == Side::Server {
                    pair.server.send(id, b"hello").unwrap();
                }
            }
        }
        waiting.retain(|id| !answer(&mut pair, *id));
        let coming = (clients.len() < CROWD).then_some(next_client);
        pair.step(coming.into_iter().chain([next_accept]).min().unwrap());
        for (side, id, event) in std::mem::take(&mut pair.events) {
            if side == Side::Client && event.contains(Event::CONNECTED) && case.speaks == Side::Client {
                pair.client.send(id, b"hello").unwrap();
            }
            if side == Side::Client
                && let Some(end) = hear(&mut pair.client, id, case.speaks)
            {
                match end {
                    Ok(()) => served += 1,
                    Err(error) => failed.push(error),
                }
                pair.client.close(pair.now, id).unwrap();
            }
        }
    }
    pair.server.check_consistent().unwrap();
    Served { served, failed, took: pair.now - start }
}

/// The server echoes what it reads, or hangs up on a client that has answered. Says whether it is done with it.
fn answer(pair: &mut Pair, id: SocketId) -> bool {
    let mut heard = [0; 16];
    match pair.server.recv(id, &mut heard) {
        Err(Error::WouldBlock) => return false,
        Ok(count) => _ = pair.server.send(id, &heard[..count]),
        Err(_) => {}
    }
    pair.server.close(pair.now, id).unwrap();
    true
}

/// How it ended for a client, if it has.
fn hear(stack: &mut Stack, id: SocketId, speaks: Side) -> Option<Result<(), Error>> {
    let mut heard = [0; 16];
    match stack.recv(id, &mut heard) {
        Err(Error::WouldBlock) => None,
        Ok(0) => None,
        Ok(_) if speaks == Side::Client => Some(Ok(())),
        Ok(count) => {
            stack.send(id, &heard[..count]).unwrap();
            Some(Ok(()))
        }
        Err(error) => Some(Err(error)),
    }
}

/// Every case, and what follows for each.
fn cases() -> impl Iterator<Item = Case> {
    let profiles = [Profile::Default, Profile::Linux].into_iter();
    let with_cookies = profiles.flat_map(|profile| {
        [SynCookies::Never, SynCookies::WhenFull, SynCookies::Always].map(|syncookies| (profile, syncookies))
    });
    let times = [(0, 50), (0, 500), (3, 50), (3, 500)];
    let in_time = with_cookies.flat_map(move |(profile, syncookies)| {
        let millis = Duration::from_millis;
        times.map(|(spread, pace)| (profile, syncookies, millis(spread), millis(pace)))
    });
    in_time.flat_map(|(profile, syncookies, spread, pace)| {
        [Side::Client, Side::Server].map(|speaks| Case { profile, syncookies, spread, pace, speaks })
    })
}

#[test]
fn a_crowd_larger_than_the_accept_queue_is_served_sa_syn_rcvd_07() {
    for case in cases() {
        let Served { served, failed, took } = serve(case, case.config());
        assert_eq!((served, &failed[..]), (CROWD, &[][..]), "{case:?}");
        if case.spread.is_zero() && case.speaks == Side::Server {
            // Whenever the application accepts, somebody is there: nobody waits for a timer.
            let enough = case.pace * CROWD as u32 + Duration::from_secs(1);
            assert!(took <= enough, "{case:?}: {took:?}");
        }
    }
}

#[test]
fn with_tcp_abort_on_overflow_some_of_a_crowd_are_reset_sa_syn_rcvd_07() {
    for case in cases().filter(|case| case.spread.is_zero()) {
        let config = Config { tcp_abort_on_overflow: true, ..case.config() };
        let Served { served, failed, .. } = serve(case, config);
        assert_eq!(served + failed.len(), CROWD, "{case:?}");
        assert!(failed.len() >= CROWD / 2, "{case:?}: {failed:?}");
        assert!(failed.iter().all(|error| *error == Error::ConnectionReset), "{case:?}: {failed:?}");
    }
}

/// Strangers complete their handshakes while the accept queue is full, and reset what waits. Their places in the queue
/// of those that wait must not add up.
#[test]
fn who_waits_and_leaves_takes_no_memory_sa_syn_rcvd_13() {
    let config = Config { tcp_syncookies: SynCookies::Never, ..Config::default() };
    let mut pair = Pair::new(config);
    let options = ListenOptions { backlog: 1, ..ListenOptions::default() };
    let listener = pair.server.listen(SERVER.parse().unwrap(), options).unwrap();
    let mut heap = 0;
    for round in 0..100 {
        let info = measure(|| {
            // The first completes its handshake, and the others find the queue full.
            let connect = |pair: &mut Pair| {
                pair.client.connect(pair.now, SERVER.parse().unwrap(), ConnectOptions::default()).unwrap()
            };
            let strangers: Vec<_> = (0..1000).map(|_| connect(&mut pair)).collect();
            pair.run_for(Duration::from_millis(100));
            assert_eq!(pair.server.usage().half_open, 999);
            for id in strangers {
                pair.client.abort(pair.now, id).unwrap();
                pair.flush();
            }
            pair.run_for(Duration::from_millis(100));
            assert_eq!(pair.server.usage().half_open, 0);
            let (id, _) = pair.server.accept(listener).unwrap();
            pair.server.abort(pair.now, id).unwrap();
            pair.events.clear();
        });
        heap += info.bytes_current;
        if round == 0 {
            heap = 0;
        }
    }
    // 100,000 places of eight bytes, were they kept.
    assert!(heap < 65_536, "{heap} bytes");
}
