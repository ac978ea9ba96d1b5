//! The subject of this crate: a stack under a virtual clock. Blocking calls are retried as events happen; no thread
//! waits.

mod carry;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use steadfast_core::info::Info;
use steadfast_core::time::Duration;
use steadfast_core::trace::{State, TraceKind};
use steadfast_core::{Config, Instant, Interface, InterfaceId, PathMetrics, Profile, Route, Stack};

use super::code;
use super::command;
use super::posix::{KnownOption, Lingering, Posix, System, Unset};
use super::subject::{Addresses, Errno, Listed, Refused, Reply, Request, Subject, SubjectEvent, TcpInfo};
use super::symbol;

/// The start of the stack's clock. It is not zero, so that timestamps differ from times since the start.
const START: Instant = Instant::from_secs(1000);
/// Waiting in virtual time is free: longer than any timer, and than timestamps take to wrap.
const PATIENCE: Duration = Duration::from_secs(100 * 24 * 3600);
/// The release of Linux on which most scripts rest.
const LINUX_RELEASE: u32 = 609;
/// The seed of all randomness.
const SECRET: [u8; 32] = *b"drill: the same script, same run";
/// The buffer for one packet of any size.
const FRAME: usize = 65_535;

/// A stack, its clock, and the blocked call.
pub(crate) struct Simulated {
    posix: Posix,
    waiting: Option<Waiting>,
    events: VecDeque<SubjectEvent>,
}

/// A call that has not returned.
struct Waiting {
    request: Request,
    progress: Progress,
    /// When its own timeout ends.
    until: Option<Instant>,
}

/// The progress of a call.
#[derive(Clone, Debug, Default)]
struct Progress {
    started: bool,
    /// A write waits for the connection that it opened.
    opening: bool,
    /// Bytes written.
    done: usize,
    read: Vec<u8>,
    until: Option<Instant>,
    lingering: Option<Lingering>,
}

/// The result of one attempt at a call.
enum Attempt {
    Returned(Result<Reply, Errno>),
    /// The call blocks, until this time at the latest.
    Blocks(Option<Instant>),
}

type Tried = Result<Attempt, Refused>;

fn returned(result: Result<Reply, Errno>) -> Tried {
    Ok(Attempt::Returned(result))
}

/// The result of a call that returns 0.
fn done(result: Result<(), Errno>) -> Tried {
    returned(result.map(|()| Reply::Number(0)))
}

fn counted(result: Result<usize, Errno>) -> Tried {
    returned(result.map(|count| Reply::Number(count as i64)))
}

fn made(result: Result<i32, Errno>) -> Tried {
    returned(result.map(Reply::Descriptor))
}

/// The result of a call that would block: `EAGAIN`, or it blocks.
fn block_or(nonblocking: bool, until: Option<Instant>) -> Tried {
    if nonblocking { returned(Err("EAGAIN")) } else { Ok(Attempt::Blocks(until)) }
}

impl Simulated {
    pub(crate) fn new(profile: Profile, addresses: &Addresses) -> Simulated {
        let mut config = Config::profile(profile);
        if profile != Profile::Linux {
            // A loss probe comes before the timeouts that most scripts are about. The others turn it on.
            config.tcp_early_retrans = 0;
        }
        if profile == Profile::Linux {
            // Scripts rest on the system itself, and scenarios on the standards.
            config.linux_release = LINUX_RELEASE;
            config.tcp_rto_var_min = true;
        }
        config.secret = SECRET;
        let interface = Interface::new(addresses.mtu, [(addresses.local, addresses.prefix_len)]);
        let mut stack = Stack::new(config, interface);
        stack.advance(START);
        stack.set_tracing(true);
        let system = match profile {
            Profile::Bsd | Profile::FreeBsd => System::FreeBsd,
            _ => System::Linux,
        };
        let posix = Posix::new(stack, START, system);
        Simulated { posix, waiting: None, events: VecDeque::new() }
    }

    /// A SYN in TIME-WAIT is treated as the system does, and not as the standard says.
    // DRILL-L23
    pub(crate) fn follow_system(&mut self) {
        let config = self.posix.stack.config().clone();
        self.posix.set_config(Config { tcp_tw_syn: 2, ..config });
    }

    #[cfg(test)]
    pub(crate) fn stack(&self) -> &Stack {
        &self.posix.stack
    }

    /// Transmits the stack's packets and retries the blocked call, until both make no more progress.
    fn settle(&mut self) {
        self.transmit();
        // A call may send and go on blocking.
        while self.go_on() | self.transmit() {}
    }

    /// Takes the packets that left during a call, and those that leave now. Returns whether there were any.
    fn transmit(&mut self) -> bool {
        self.trace();
        let mut packets = std::mem::take(&mut self.posix.sent);
        let mut frame = vec![0; FRAME];
        let mut any = !packets.is_empty();
        let at = self.posix.now;
        self.events.extend(packets.drain(..).map(|packet| SubjectEvent::Sent { at, packet }));
        while let Some(sent) = self.posix.stack.transmit(at, &mut frame) {
            self.trace();
            self.events.push_back(SubjectEvent::Sent { at, packet: frame[..sent.len].to_vec() });
            any = true;
        }
        any
    }

    fn trace(&mut self) {
        while let Some(event) = self.posix.stack.poll_trace() {
            if let TraceKind::State { from, to } = event.kind {
                let (at, local, remote) = (event.at, event.local, event.remote);
                self.events.push_back(SubjectEvent::State { at, local, remote, from, to });
            }
        }
    }

    /// Retries the blocked call. Returns whether it returned.
    fn go_on(&mut self) -> bool {
        let Some(mut waiting) = self.waiting.take() else { return false };
        let attempt = self.attempt(&waiting.request, &mut waiting.progress);
        let attempt = self.within_timeout(&waiting.request, &mut waiting.progress, attempt);
        waiting.progress.started = true;
        let at = self.posix.now;
        let result = match attempt {
            Ok(Attempt::Blocks(until)) => {
                waiting.until = until;
                self.waiting = Some(waiting);
                return false;
            }
            Ok(Attempt::Returned(result)) => Ok(result),
            Err(refused) => Err(refused),
        };
        self.events.push_back(SubjectEvent::Returned { at, result });
        true
    }

    /// Limits how long a call blocks by the timeouts of its socket. The bytes that it carried count.
    fn within_timeout(&self, request: &Request, progress: &mut Progress, attempt: Tried) -> Tried {
        let (fd, sends) = match request {
            Request::Receive { fd, .. } | Request::Accept { fd, .. } => (*fd, false),
            Request::Send { fd, .. } | Request::Connect { fd, .. } => (*fd, true),
            _ => return attempt,
        };
        let (Ok(Attempt::Blocks(None)), Some(timeout)) = (&attempt, self.posix.timeout(fd, sends)) else {
            return attempt;
        };
        let until = *progress.until.get_or_insert(self.posix.now + timeout);
        if self.posix.now < until {
            return Ok(Attempt::Blocks(Some(until)));
        }
        match request {
            Request::Connect { .. } => returned(Err("EINPROGRESS")),
            Request::Send { .. } if progress.done > 0 => counted(Ok(progress.done)),
            Request::Receive { .. } if !progress.read.is_empty() => {
                returned(Ok(Reply::Received(std::mem::take(&mut progress.read), 0, Vec::new())))
            }
            _ => returned(Err("EAGAIN")),
        }
    }

    /// When the next timer or timeout fires.
    fn next_due(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref().and_then(|waiting| waiting.until);
        [self.posix.stack.poll_at(), waiting].into_iter().flatten().min()
    }

    /// Attempts a call, or continues a blocked one.
    fn attempt(&mut self, request: &Request, progress: &mut Progress) -> Tried {
        let posix = &mut self.posix;
        match request {
            Request::Socket { ipv6, nonblocking } => made(posix.socket(*ipv6, *nonblocking)),
            Request::Bind { fd, address } => done(posix.bind(*fd, *address)),
            Request::Listen { fd, backlog } => done(posix.listen(*fd, *backlog)),
            Request::Accept { fd, nonblocking } => match posix.accept(*fd, *nonblocking) {
                Ok((fd, peer)) => returned(Ok(Reply::Accepted(fd, peer))),
                Err("EAGAIN") => block_or(posix.nonblocking(*fd), None),
                Err(errno) => returned(Err(errno)),
            },
            Request::Connect { fd, .. } if progress.started => match posix.connected(*fd) {
                Ok(None) => Ok(Attempt::Blocks(None)),
                ended => done(ended.map(|_| ())),
            },
            Request::Connect { fd, address } => match posix.connect(*fd, *address) {
                Err("EINPROGRESS" | "EALREADY") if !posix.nonblocking(*fd) => Ok(Attempt::Blocks(None)),
                result => done(result),
            },
            // Nothing but ICMP errors comes there: zero copy and timestamps are not interpreted.
            Request::Receive { fd, len, flags } if flags.error_queue => {
                returned(posix.next_report(*fd).map(|report| carry::report(report, *len)))
            }
            Request::Receive { fd, len, flags } => carry::receive(posix, *fd, *len, *flags, progress),
            Request::Send { fd, len, to: Some(to), .. }
                if !progress.started && posix.connects_by_sending(*fd) =>
            {
                counted(posix.send_connecting(*fd, *to, *len))
            }
            Request::Send { fd, len, flags, fast_open, .. } => {
                carry::send(posix, *fd, *len, *flags, *fast_open, progress)
            }
            Request::Splice { from, to, len, nonblocking } => {
                carry::splice(posix, *from, *to, *len, *nonblocking, progress)
            }
            Request::Sendfile { to, from, len } => carry::sendfile(posix, *to, *from, *len, progress),
            Request::Shutdown { fd, how } => done(posix.shutdown(*fd, *how)),
            Request::Close { fd } => close(posix, *fd, progress),
            Request::SetOption { fd, option, setting } => {
                match posix.set_option(*fd, known(option)?, setting) {
                    Ok(()) => done(Ok(())),
                    Err(Unset::Errno(errno)) => done(Err(errno)),
                    Err(Unset::NotKept) => {
                        Err(Refused::Skip(format!("the socket option {} cannot be set so", option.name)))
                    }
                }
            }
            Request::Option { fd, option } => match posix.option(*fd, known(option)?) {
                Ok(setting) => returned(Ok(Reply::Setting(setting))),
                Err(Unset::Errno(errno)) => returned(Err(errno)),
                Err(Unset::NotKept) => Err(not_kept(&option.name)),
            },
            Request::Poll { all, timeout } => {
                let revents: Vec<_> = all.iter().map(|(fd, events)| posix.poll(*fd, *events)).collect();
                let ready = revents.iter().any(|revents| *revents != 0);
                if ready || timed_out(posix, *timeout, progress) {
                    return returned(Ok(Reply::Readiness(revents)));
                }
                Ok(Attempt::Blocks(progress.until))
            }
            Request::EpollWait { epoll, limit, timeout } => match posix.epoll_wait(*epoll, *limit) {
                Ok(ready) if ready.is_empty() && !timed_out(posix, *timeout, progress) => {
                    Ok(Attempt::Blocks(progress.until))
                }
                ready => returned(ready.map(Reply::Events)),
            },
            request => self.attempt_at_once(request),
        }
    }

    /// Performs a call that never blocks.
    fn attempt_at_once(&mut self, request: &Request) -> Tried {
        let posix = &mut self.posix;
        match request {
            Request::Flags { fd } => {
                // Every socket is open for reading and writing (`O_RDWR`).
                let flags = if posix.nonblocking(*fd) { symbol::O_NONBLOCK | 2 } else { 2 };
                returned(if posix.exists(*fd) { Ok(Reply::Number(flags)) } else { Err("EBADF") })
            }
            Request::SetNonblocking { fd, on } => done(posix.set_nonblocking(*fd, *on)),
            Request::Exists { fd } => done(if posix.exists(*fd) { Ok(()) } else { Err("EBADF") }),
            Request::Unread { fd } => counted(posix.unread(*fd)),
            Request::Outstanding { fd, unsent } => counted(posix.outstanding(*fd, *unsent)),
            Request::LocalAddress { fd } => returned(posix.local_address(*fd).map(Reply::Address)),
            Request::PeerAddress { fd } => returned(posix.peer_address(*fd).map(Reply::Address)),
            Request::Epoll => made(posix.epoll()),
            Request::EpollSet { epoll, fd, events, data, add } => {
                done(posix.epoll_set(*epoll, *fd, *events, *data, *add))
            }
            Request::EpollRemove { epoll, fd } => done(posix.epoll_remove(*epoll, *fd)),
            Request::Pipe => returned(posix.pipe().map(|(out, into)| Reply::Pipe(out, into))),
            Request::Open => made(posix.open_plain()),
            other => Err(Refused::Skip(format!("{other:?} is not simulated"))),
        }
    }
}

impl Subject for Simulated {
    fn now(&self) -> Instant {
        self.posix.now
    }

    fn call(&mut self, request: Request) {
        self.waiting = Some(Waiting { request, progress: Progress::default(), until: None });
        self.go_on();
        self.settle();
    }

    fn inject(&mut self, packet: &[u8]) {
        self.posix.stack.receive(self.posix.now, packet);
        self.settle();
    }

    fn inject_all(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            self.posix.stack.receive(self.posix.now, packet.as_slice());
        }
        self.settle();
    }

    fn next_event(&mut self) -> Option<SubjectEvent> {
        self.events.pop_front()
    }

    fn wait(&mut self, limit: Instant) -> bool {
        let Some(next) = self.next_due().filter(|next| *next <= limit) else {
            self.posix.now = self.posix.now.max(limit);
            return false;
        };
        // A timer that is due but does nothing must not stop the clock.
        let idle = next <= self.posix.now;
        self.posix.now = self.posix.now.max(next);
        self.posix.stack.advance(self.posix.now);
        self.settle();
        let still = self.next_due().is_some_and(|at| at <= self.posix.now);
        if idle && still && self.events.is_empty() {
            self.posix.now = limit.min(self.posix.now + Duration::from_millis(1)).max(self.posix.now);
            return self.posix.now < limit;
        }
        true
    }

    fn idle(&self) -> bool {
        self.next_due().is_none()
    }

    fn next_timer(&self) -> Option<Instant> {
        self.next_due()
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn listeners(&self) -> Vec<SocketAddr> {
        let all = self.sockets();
        all.iter().filter(|listed| listed.state == State::Listen).map(|listed| listed.local).collect()
    }

    fn sockets(&self) -> Vec<Listed> {
        let all = self.posix.stack.sockets(self.posix.now);
        let mut held = self.posix.held();
        let mut listed: Vec<Listed> = all
            .iter()
            .map(|entry| {
                let (local, remote) = (entry.local, entry.remote);
                let owner = held.iter().position(|held| (held.local, held.remote) == (local, remote));
                let fd = owner.and_then(|at| held.swap_remove(at).fd);
                Listed { local, remote, state: entry.state, fd }
            })
            .collect();
        // A descriptor whose connection is over, or has not begun.
        listed.extend(held);
        listed
    }

    fn counters(&self) -> Option<Vec<(String, u64)>> {
        Some(self.posix.stack.counters().iter().collect())
    }

    fn tcp_info(&self, fd: i32) -> Option<TcpInfo> {
        if self.posix.listens(fd) {
            return Some(code::state_alone(State::Listen, false));
        }
        // A socket that never was connected, and one whose connection is over, have all fields.
        let stack = &self.posix.stack;
        let id = self.posix.stream(fd);
        let mut info = id.and_then(|id| stack.info(self.posix.now, id).ok()).unwrap_or_default();
        let state = id.and_then(|id| stack.state(id).ok());
        // A connect that waits for its first data has begun.
        let idle = if self.posix.deferred(fd).is_some() { State::SynSent } else { State::Closed };
        info.state = state.unwrap_or(idle);
        let mut all = code::info(&info);
        if self.posix.system == System::FreeBsd {
            // They are bytes there.
            let bytes = |bytes: u32| i64::from(bytes);
            all.fields.insert("snd_cwnd", bytes(info.snd_cwnd));
            all.fields.insert("snd_ssthresh", bytes(info.snd_ssthresh));
        }
        self.posix.exists(fd).then_some(all)
    }

    fn infos(&self) -> Vec<Info> {
        let (stack, now) = (&self.posix.stack, self.posix.now);
        stack.sockets(now).into_iter().filter_map(|entry| stack.info(now, entry.socket?).ok()).collect()
    }

    fn forget_peers(&mut self) {
        self.posix.stack.forget_fast_open();
    }

    fn set_path(&mut self, network: IpAddr, prefix_len: u8, path: PathMetrics) -> Result<(), String> {
        let stack = &mut self.posix.stack;
        let route = Route::new(network, prefix_len, InterfaceId::FIRST).path(path);
        let alike =
            |there: &Route| (there.destination, there.prefix_len, there.metric) == (network, prefix_len, 0);
        let before = stack.routes().into_iter().find(alike);
        before.into_iter().for_each(|route| _ = stack.remove_route(&route));
        stack.add_route(route).map_err(|error| format!("the route {route}: {error}"))
    }

    fn refuse_packets(&mut self, refuse: bool) -> Result<(), String> {
        self.posix.stack.refuse_packets(refuse);
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<Option<String>, String> {
        let mut config = self.posix.stack.config().clone();
        let note = command::apply(&mut config, name, value)?;
        if note.is_none() {
            self.posix.set_config(config);
            self.settle();
        }
        Ok(note)
    }
}

fn known(option: &super::subject::SocketOption) -> Result<KnownOption, Refused> {
    KnownOption::find(option).ok_or_else(|| not_kept(&format!("{} {}", option.level, option.name)))
}

fn not_kept(option: &str) -> Refused {
    Refused::Skip(format!("the socket option {option} is not kept"))
}

fn close(posix: &mut Posix, fd: i32, progress: &mut Progress) -> Tried {
    if !progress.started {
        match posix.close(fd) {
            Ok(lingering) => progress.lingering = lingering,
            Err(errno) => return done(Err(errno)),
        }
    }
    match &progress.lingering {
        Some(lingering) if posix.lingers(lingering) => Ok(Attempt::Blocks(Some(lingering.until))),
        _ => done(Ok(())),
    }
}

/// Returns whether a call with a `timeout` has waited for that long.
fn timed_out(posix: &Posix, timeout: Option<Duration>, progress: &mut Progress) -> bool {
    let Some(timeout) = timeout else { return false };
    let until = *progress.until.get_or_insert(posix.now + timeout);
    posix.now >= until
}
