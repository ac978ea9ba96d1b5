//! Checks the invariants of a stack from outside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;

use steadfast_core::counters::ReplyReason;
use steadfast_core::info::Usage;
use steadfast_core::seq::SeqNum;
use steadfast_core::trace::{State, TraceEvent, TraceKind};
use steadfast_core::wire::tcp::Header;
use steadfast_core::{Duration, Event, Instant, SocketId, Stack};

use super::packets::{self, Sent};

/// State of a connection, derived from the segments that the stack sent.
#[derive(Clone, Copy, Debug)]
struct Edge {
    iss: SeqNum,
    /// Shift of the windows that the stack advertises, once it is known.
    scale: Option<u8>,
    /// Right edge of the advertised window.
    right: Option<SeqNum>,
    /// Acknowledgment number of the SYN-ACK.
    acked: SeqNum,
    /// ACKs of the half-open entry that wait for the device. Those of the connection may overtake them.
    late: u32,
}

/// Checks one stack.
#[derive(Default)]
pub struct Watch {
    edges: BTreeMap<(SocketAddr, SocketAddr), Edge>,
    /// Half-open entries created since the stack last had nothing to send. Queued answers of several entries cannot be
    /// told apart: within a tick of the ISS clock their numbers are equal.
    begun: BTreeMap<(SocketAddr, SocketAddr), u32>,
    /// The payload that the stack sends, as a function of its position in the stream.
    payload: Option<fn(u32) -> u8>,
    frame: Vec<u8>,
    /// A RST arrived since this was last cleared.
    pub heard_rst: bool,
}

/// Most frames that a stack may send from one state.
const FRAMES: usize = 20_000;

impl Watch {
    /// Checks that all payload is this function of its position in the stream.
    pub fn of_pattern(pattern: fn(u32) -> u8) -> Watch {
        Watch { payload: Some(pattern), ..Watch::default() }
    }

    /// Forgets all connections, because a listener closes. Its SYN-ACKs (cookies leave no trace) do not bind the next
    /// listener.
    pub fn forget(&mut self) {
        self.edges.clear();
    }

    /// Takes all packets that the stack has to send now.
    pub fn drain(&mut self, stack: &mut Stack, now: Instant) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(packet) = self.transmit(stack, now) {
            sent.push(packet);
            assert!(sent.len() < FRAMES, "transmit never ends");
        }
        // Packets to local addresses appear only in the trace.
        self.look(stack, now);
        self.begun.clear();
        sent
    }

    /// Takes the next packet, and checks it.
    pub fn transmit(&mut self, stack: &mut Stack, now: Instant) -> Option<Vec<u8>> {
        // The buffer has exactly the size that is documented to be enough.
        self.frame.resize(stack.interface().frame_len(), 0xa5);
        let transmit = stack.transmit(now, &mut self.frame)?;
        let limit = if transmit.segment_size.is_some() { 65_535 } else { usize::from(stack.interface().mtu) };
        assert!(transmit.len <= limit, "a packet of {} bytes", transmit.len);
        let packet = self.frame[..transmit.len].to_vec();
        self.look(stack, now);
        let Sent::Tcp { local, remote, header, payload } = packets::read(&packet, transmit.checksum_offload)
        else {
            return Some(packet);
        };
        if let (Some(pattern), Some(edge)) = (self.payload, self.edges.get(&(local, remote)))
            && !header.flags.rst()
        {
            let syn = u32::from(!header.flags.syn());
            for (i, byte) in payload.iter().enumerate() {
                let at = header.seq.since(edge.iss) - syn + i as u32;
                assert_eq!(*byte, pattern(at), "byte {at} of {local} to {remote}");
            }
        }
        Some(packet)
    }

    /// Reads the trace. Returns whether a state changed or a timer ran.
    pub fn look(&mut self, stack: &mut Stack, now: Instant) -> bool {
        let mut happened = false;
        while let Some(event) = stack.poll_trace() {
            let tuple = (event.local, event.remote);
            show(&event);
            match event.kind {
                TraceKind::State { from, to } => {
                    happened = true;
                    if to == State::SynReceived {
                        *self.begun.entry(tuple).or_default() += 1;
                    }
                    let begins = matches!(from, State::Closed | State::Listen | State::TimeWait);
                    if begins || matches!(to, State::Closed | State::TimeWait | State::Listen) {
                        self.edges.remove(&tuple);
                    }
                }
                TraceKind::Timer(_) => happened = true,
                TraceKind::SegmentIn { header, .. } => self.heard_rst |= header.flags.rst(),
                TraceKind::Reply(ReplyReason::HalfOpenAck) => {
                    if let Some(edge) = self.edges.get_mut(&tuple) {
                        edge.late += 1;
                    }
                }
                TraceKind::SegmentOut { header, .. } => self.window(stack, now, tuple, &header),
                _ => {}
            }
        }
        happened
    }

    fn window(&mut self, stack: &Stack, now: Instant, tuple: (SocketAddr, SocketAddr), header: &Header) {
        let flags = header.flags;
        if flags.rst() {
            return;
        }
        if self.begun.get(&tuple).is_some_and(|entries| *entries > 1) {
            self.edges.remove(&tuple);
            return;
        }
        if flags.syn() {
            let scale = flags.ack().then(|| header.options.window_scale.unwrap_or(0));
            let right = flags.ack().then(|| header.ack + u32::from(header.window));
            let edge = Edge { iss: header.seq, scale, right, acked: header.ack, late: 0 };
            let before = self.edges.insert(tuple, edge);
            // The same SYN-ACK again, rather than that of another SYN at the same tick of the ISS clock.
            if let Some(Edge { iss, scale: Some(before), right: Some(old), acked, .. }) = before
                && (iss, acked) == (header.seq, header.ack)
            {
                assert_eq!(Some(before), scale, "{tuple:?} changed the window scale it offers");
                // The window field of a SYN-ACK is not scaled. It cannot exceed 65,535, nor reach the edge to which an
                // ACK in between was rounded up.
                let mut rounded = (1 << before) - 1;
                if stack.config().tcp_bsd_rules {
                    // The buffer of a connection is whole segments. A second cookie tells that of the listener.
                    rounded += 0xffff;
                }
                let back = header.window < 0xffff && right.is_some_and(|right| (right + rounded).lt(old));
                assert!(!back, "{tuple:?} takes back a part of its window: {old:?} {header:?}");
                self.edges.insert(tuple, Edge { right: right.map(|right| right.max(old)), ..edge });
            }
            return;
        }
        let Some(edge) = self.edges.get_mut(&tuple) else { return };
        if header.seq.since(edge.iss) > 1 << 24 {
            // A SYN-ACK with a cookie left late, after the connection of another cookie was created.
            self.edges.remove(&tuple);
            return;
        }
        if edge.late > 0 && header.ack == edge.acked {
            edge.late -= 1;
            return;
        }
        let known = scale_of(stack, now, tuple);
        if let (Some(known), Some(announced)) = (known, edge.scale) {
            assert_eq!(known, announced, "{tuple:?} has another window scale than it announced");
        }
        edge.scale = edge.scale.or(known);
        let Some(scale) = edge.scale else { return };
        let right = header.ack + (u32::from(header.window) << scale);
        // Scaling may move the advertised edge left by less than a unit. The earlier edge still holds (RFC 7323 §2.4).
        let back = edge.right.is_some_and(|old| (right + (1 << scale)).le(old));
        assert!(!back, "{tuple:?} takes back a part of its window: {edge:?} {right:?} {header:?}");
        edge.right = Some(edge.right.map_or(right, |old| right.max(old)));
    }

    /// Moves time on. Nothing may happen before `poll_at`, and afterwards `poll_at` must lie in the future.
    pub fn advance(&mut self, stack: &mut Stack, now: Instant) {
        self.look(stack, now);
        let at = stack.poll_at();
        stack.advance(now);
        let happened = self.look(stack, now);
        assert!(!happened || at.is_some_and(|at| at <= now), "a timer ran at {now}, poll_at said {at:?}");
        for _ in 0..64 {
            if stack.poll_at().is_none_or(|at| at > now) {
                return;
            }
            stack.advance(now);
            self.look(stack, now);
        }
        panic!("poll_at stays at {:?} when it is {now}", stack.poll_at());
    }

    /// Checks that everything is within its limits.
    pub fn check(&mut self, stack: &Stack, now: Instant) {
        let (usage, config) = (stack.usage(), stack.config());
        // As many again in the place of TIME-WAITs that gave way.
        assert!(usage.half_open <= 2 * config.tcp_max_half_open as usize, "{usage:?}");
        assert!(usage.connections + usage.opening <= config.tcp_max_connections as usize, "{usage:?}");
        assert!(usage.orphans <= config.tcp_max_orphans as usize, "{usage:?}");
        assert!(usage.orphans <= usage.connections, "{usage:?}");
        assert!(usage.time_wait <= config.tcp_max_tw_buckets as usize, "{usage:?}");
        assert!(usage.replies <= config.reply_queue as usize, "{usage:?}");
        assert!(usage.fragment_bytes <= config.ipfrag_high_thresh as usize, "{usage:?}");
        assert!(usage.path_mtus <= config.pmtu_cache as usize, "{usage:?}");
        assert!(
            usage.timers <= usage.half_open + usage.requests + usage.opening + usage.connections,
            "{usage:?}"
        );
        // Excess that one call may cause: see the documentation of the setting.
        let slack = 128 << 10;
        assert!(usage.held <= config.tcp_mem + slack, "{usage:?}");
        assert_eq!(stack.check_consistent(), Ok(()));
        let mut waiting = 0;
        for entry in stack.sockets(now) {
            if entry.state == State::Listen {
                assert!(entry.recv_q <= entry.send_q, "{entry:?}");
                let most = config.tcp_max_syn_backlog + config.tcp_max_half_open;
                assert!(entry.half_open <= most, "{entry:?}");
                waiting += entry.recv_q as usize;
                continue;
            }
            let Some(Ok(info)) = entry.socket.map(|id| stack.info(now, id)) else { continue };
            assert!(info.unacked as u64 <= info.send_q + 2, "{info:?}");
            assert!(info.out_of_order <= u64::from(info.rcv_wnd), "{info:?}");
            assert!(info.snd_mss > 0 && info.snd_cwnd > 0, "{info:?}");
        }
        assert!(waiting <= usage.connections + usage.sockets, "{usage:?}");
    }

    /// Checks that nothing remains once the application has closed everything and nothing arrives any more.
    pub fn expect_rest(&mut self, stack: &mut Stack, mut now: Instant) {
        let begin = now;
        let mut turns = 0;
        loop {
            self.drain(stack, now);
            while stack.poll_event().is_some() {}
            let Some(at) = stack.poll_at() else { break };
            now = now.max(at);
            self.advance(stack, now);
            turns += 1;
            assert!(turns < 20_000, "timers without end: {:?}", stack.usage());
            assert!(
                now < begin + Duration::from_secs(86_400),
                "still busy after a day: {:?}",
                stack.sockets(now)
            );
        }
        let mut usage = stack.usage();
        usage.path_mtus = 0;
        assert_eq!(usage, Usage::default(), "{:?}", stack.sockets(now));
    }
}

/// Prints events to standard error if `FUZZ_TRACE` is set, for analysing a finding.
fn show(event: &TraceEvent) {
    static ON: OnceLock<bool> = OnceLock::new();
    if *ON.get_or_init(|| std::env::var_os("FUZZ_TRACE").is_some()) {
        let TraceEvent { at, local, remote, kind, .. } = event;
        match kind {
            TraceKind::SegmentIn { header, payload_len } => {
                eprintln!("{at} {local} < {remote} {}", header.tcpdump(*payload_len));
            }
            TraceKind::SegmentOut { header, payload_len } => {
                eprintln!("{at} {local} > {remote} {}", header.tcpdump(*payload_len));
            }
            other => eprintln!("{at} {local} | {remote} {other:?}"),
        }
    }
}

fn scale_of(stack: &Stack, now: Instant, (local, remote): (SocketAddr, SocketAddr)) -> Option<u8> {
    let entries = stack.sockets(now);
    let ours =
        entries.iter().find(|e| e.local == local && e.remote == remote && e.state != State::SynSent)?;
    let info = stack.info(now, ours.socket?).ok()?;
    Some(info.rcv_wscale.unwrap_or(0))
}

/// Takes the events of a stack, and checks that they end.
pub fn events(stack: &mut Stack) -> Vec<(SocketId, Event)> {
    let events: Vec<_> = std::iter::from_fn(|| stack.poll_event()).take(10_000).collect();
    assert!(events.len() < 10_000, "events without end");
    events
}
