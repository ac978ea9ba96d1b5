//! The stack: packets and time in, packets and events out.
//!
//! This module and its children are the only code that moves anything between the tables. This file holds the tables.
//!
//! | room | what happens there |
//! |---|---|
//! | `inbound`, `icmp` | demultiplexing of packets |
//! | `passive`, `bindings` | from a SYN to a connection in the accept queue, by way of the listener |
//! | `forward` | from a SYN to any address to the decision of a forwarder |
//! | `connections` | events of connections, and what follows from them |
//! | `tables` | moves between the tables |
//! | `outbound`, `template`, `replies` | filling of frames |
//! | `interfaces` | interfaces, addresses and routes that come and go |
//! | `link` | frames, and the hardware addresses of neighbours |
//! | `timers` | the passage of time |
//! | `memory` | relief when `tcp_mem` runs short |
//! | `calls`, `options`, `sockets` | user calls, and the handles that they use |
//! | `readiness`, `view`, `consistent`, `model` | what calls would do, reports, checks for tests and for searches |

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::Pool;
use crate::config::Config;
use crate::counters::Counters;
use crate::flow::FlowTable;
use crate::histograms::Histograms;
use crate::ip::addresses::Addresses;
use crate::ip::fragments::Fragments;
use crate::ip::limit::{RateLimiter, Shares};
use crate::ip::pmtu::PmtuCache;
use crate::ip::routes::Routing;
use crate::keys::Keys;
use crate::link::ports::LinkLayer;
use crate::list::List;
use crate::memory::Account;
use crate::ports::Ports;
use crate::queue::Queue;
use crate::socket::{SocketId, SocketOptions};
use crate::steer::{Share, Steering};
use crate::table::Table;
use crate::tcp::cookie::SpentCookies;
use crate::tcp::dormant::Dormant;
use crate::tcp::fast_open::CookieCache;
use crate::tcp::listen::{HalfOpen, Listener};
use crate::tcp::recycle::Peers;
use crate::tcp::segment::Outgoing;
use crate::tcp::syn_sent::Opening;
use crate::tcp::time_wait::TimeWaits;
use crate::time::Instant;
use crate::trace::Trace;
use crate::wheel::Wheel;
use crate::wire::tcp::Header;

use self::bindings::Bindings;
use self::connections::{Connections, Ready};
use self::forward::Forwards;
use self::memory::Ladder;
use self::outbound::{Slices, Turns};
use self::pacer::Pacer;
use self::replies::Replies;
use self::sockets::{Finished, Sockets};
use self::udp::Udp;

pub use self::io::{Interface, Medium, Packet, PacketBytes, Transmit};
#[cfg(feature = "model")]
pub use self::model::{AgreedOptions, Variables};

mod admin;
mod bindings;
mod calls;
mod closing;
mod connections;
mod consistent;
mod delay;
mod forward;
mod groups;
mod icmp;
mod inbound;
mod interfaces;
mod io;
mod link;
mod membership;
mod memory;
#[cfg(feature = "model")]
mod model;
mod options;
mod outbound;
mod pacer;
mod passive;
mod readiness;
mod replies;
mod router;
mod sockets;
mod tables;
mod template;
mod timers;
mod udp;
mod view;

/// A TCP/IP stack on one interface, or on several.
///
/// One interface needs no routes: a default route leads to it. [`add_interface`](Stack::add_interface) adds another one,
/// and [`add_route`](Stack::add_route) a route.
///
/// Methods are of four kinds. *Getters* only read. *Inputs* ([`receive`](Stack::receive), [`advance`](Stack::advance))
/// take in packets and time. *User calls* (`listen` … `abort`) are those of RFC 9293 §3.9.1. *Polls*
/// ([`transmit`](Stack::transmit), [`poll_event`](Stack::poll_event), [`poll_at`](Stack::poll_at)) are called until
/// they return nothing, after each input or user call. Any order is legal.
///
/// # Time
///
/// A method takes the time, `now`, if it starts, changes or ends something that a timer watches, or shows an age:
/// inputs, [`transmit`](Stack::transmit), [`connect`](Stack::connect), [`shutdown`](Stack::shutdown),
/// [`close`](Stack::close), [`abort`](Stack::abort), [`set_options`](Stack::set_options) and the listings. The others
/// move bytes and connections between the stack and its application, and happen at the latest time that was passed in:
/// [`listen`](Stack::listen), [`accept`](Stack::accept), [`send`](Stack::send), [`recv`](Stack::recv). The next
/// `transmit`, which has the time, sends the result.
///
/// ```
/// use steadfast_core::{Config, Instant, Interface, ListenOptions, Stack};
///
/// let interface = Interface::new(1500, [("10.0.0.2".parse().unwrap(), 24)]);
/// let mut stack = Stack::new(Config::default(), interface);
/// stack.listen("10.0.0.2:80".parse().unwrap(), ListenOptions::default())?;
/// let mut frame = vec![0; stack.interface().frame_len()];
/// assert!(stack.transmit(Instant::ZERO, &mut frame).is_none());
/// assert_eq!((stack.poll_at(), stack.usage().listeners), (None, 1));
/// # Ok::<(), steadfast_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stack {
    config: Config,
    interface: Interface,
    counters: Counters,
    histograms: Histograms,
    trace: Trace,
    keys: Keys,
    pool: Pool,
    flights: crate::tcp::flight::Flights,
    /// The default options of a socket, and the options set most recently. Sockets mostly share options, so these
    /// copies suffice.
    default_options: Arc<SocketOptions>,
    last_options: Arc<SocketOptions>,
    now: Instant,
    /// The latest time up to which all timers have run.
    timers_ran: Instant,

    addresses: Addresses,
    /// The interfaces, and the routes to them.
    routing: Routing,
    /// The interfaces that carry frames, and the neighbours there.
    link: LinkLayer,
    /// The length of the longest frame of any interface.
    frame_len: usize,
    /// This stack's share of the connections, where several stacks share an interface.
    share: Option<Share>,
    fragments: Fragments,
    pmtu: PmtuCache,
    rst_limit: RateLimiter,
    icmp_limit: RateLimiter,
    syn_ack_limit: Shares,

    flows: FlowTable,
    half_open: Table<HalfOpen>,
    openings: Table<Opening>,
    connections: Connections,
    /// Orphans in FIN-WAIT-2, once there are many.
    dormant: Table<Dormant>,
    /// The connection that received the last segment. Most segments belong to the same connection as the one before.
    last_flow: u32,
    /// The last segment that a connection sent, or the next one while it is built.
    outgoing: Outgoing,
    /// The payload of the packet under way, if it is not in the frame.
    slices: Slices,
    time_waits: TimeWaits,
    /// Half-open entries that replaced a TIME-WAIT, each with that entry. The entry is restored if the SYN turns out to
    /// be an old duplicate (6191-5).
    gave_way: BTreeMap<u32, u32>,
    listeners: Table<Listener>,
    /// Closed listeners that still have connections or half-open entries, and the next one to clean up.
    closing: Vec<(u32, u32)>,
    /// Sorted by the [`binding`] of their local ends, for binary search.
    bindings: Bindings,
    sockets: Sockets,
    finished: Table<Finished>,
    udp: Udp,
    forwards: Forwards,
    /// The local ports of active opens.
    ports: Ports,
    orphans: usize,
    /// A connection that was not settled at the last check.
    unsettled: u32,
    /// The memory that all queues take.
    memory: Account,
    ladder: Ladder,
    cookies: CookieCache,
    spent_cookies: SpentCookies,
    peers: Peers,

    /// Timers, and the queues of SYNs and SYN-ACKs that are due.
    wheel: Wheel,
    /// Connections that may have something to send.
    ready: List<Ready>,
    /// Those of them whose new data waits for its time.
    pacer: Pacer,
    turns: Turns,
    /// Stateless replies.
    replies: Replies,
    /// Packets to our own addresses, which `advance` receives.
    looped: VecDeque<Bytes>,
    /// `transmit` paused because no route leads to the peers of many packets.
    astray: bool,
    events: Queue<SocketId>,
}

/// Borrows all parts of the stack that a handler may use besides its connection.
macro_rules! env_of {
    ($stack:expr) => {
        crate::tcp::tcb::Env {
            now: $stack.now,
            config: &$stack.config,
            counters: &mut $stack.counters,
            trace: &mut $stack.trace,
            keys: &$stack.keys,
            pool: &mut $stack.pool,
            flights: &mut $stack.flights,
            routing: &$stack.routing,
            memory: $stack.memory.gauge($stack.config.tcp_mem),
        }
    };
}
use env_of;

impl Stack {
    /// Creates an empty stack.
    ///
    /// # Panics
    ///
    /// Panics if [`Config::validate`] or [`Interface::validate`] rejects an argument. Checking here keeps later calls
    /// from panicking.
    pub fn new(config: Config, interface: Interface) -> Stack {
        config.expect_valid();
        interface.expect_valid();
        let default_options = Arc::new(SocketOptions::new(&config));
        let (addresses, routing, link) = interfaces::first(&interface);
        Stack {
            keys: Keys::new(&config.secret),
            addresses,
            routing,
            link,
            frame_len: interface.frame_len(),
            share: None,
            counters: Counters::default(),
            histograms: Histograms::default(),
            trace: Trace::default(),
            pool: Pool::default(),
            flights: Default::default(),
            last_options: Arc::clone(&default_options),
            default_options,
            now: Instant::ZERO,
            timers_ran: Instant::ZERO,
            fragments: Fragments::default(),
            pmtu: PmtuCache::default(),
            rst_limit: RateLimiter::default(),
            icmp_limit: RateLimiter::default(),
            syn_ack_limit: Shares::default(),
            flows: FlowTable::default(),
            half_open: Table::default(),
            openings: Table::default(),
            connections: Connections::default(),
            dormant: Table::default(),
            last_flow: 0,
            outgoing: Outgoing::bare(Header::default()),
            slices: Slices::default(),
            time_waits: TimeWaits::default(),
            gave_way: BTreeMap::new(),
            listeners: Table::default(),
            closing: Vec::new(),
            bindings: Bindings::default(),
            sockets: Sockets::default(),
            finished: Table::default(),
            udp: Udp::default(),
            forwards: Forwards::default(),
            ports: Ports::default(),
            orphans: 0,
            unsettled: 0,
            memory: Account::default(),
            ladder: Ladder::default(),
            cookies: CookieCache::default(),
            spent_cookies: SpentCookies::default(),
            peers: Peers::default(),
            wheel: Wheel::new(),
            ready: List::default(),
            pacer: Pacer::default(),
            turns: Turns::new(&interface),
            replies: Replies::default(),
            looped: VecDeque::new(),
            astray: false,
            events: Queue::default(),
            config,
            interface,
        }
    }

    /// Makes this stack number `index` of several on one interface. It must then be given the packets that `steering`
    /// assigns to it. It opens only connections whose replies are steered back to it.
    pub fn set_share(&mut self, steering: Steering, index: u16) {
        self.share = Some(Share { steering, index });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{ConnectOptions, Event};

    #[test]
    fn what_is_gone_takes_no_place_while_nobody_polls_and_nothing_is_sent() {
        let interface = Interface::new(1500, [("10.0.0.1".parse().unwrap(), 24)]);
        let mut stack = Stack::new(Config::default(), interface);
        let connect = |stack: &mut Stack| {
            let remote = "10.0.0.2:80".parse().unwrap();
            let id = stack.connect(Instant::ZERO, remote, ConnectOptions::default()).unwrap();
            stack.notify(id, Event::SOFT_ERROR);
            id
        };
        // Many at once, and then many one after another.
        let crowd: Vec<_> = (0..1000).map(|_| connect(&mut stack)).collect();
        crowd.into_iter().for_each(|id| stack.abort(Instant::ZERO, id).unwrap());
        for _ in 0..10_000 {
            let id = connect(&mut stack);
            stack.abort(Instant::ZERO, id).unwrap();
        }
        assert_eq!(stack.wheel.len(), 0);
        assert!(stack.events.len() < 100);
    }

    #[test]
    fn one_call_catches_up_with_a_month_of_sleep() {
        let interface = Interface::new(1500, [("10.0.0.1".parse().unwrap(), 24)]);
        let mut stack = Stack::new(Config::default(), interface);
        stack.connect(Instant::ZERO, "10.0.0.2:80".parse().unwrap(), ConnectOptions::default()).unwrap();
        assert!(stack.transmit(Instant::ZERO, &mut [0; 1500]).is_some(), "a SYN, which arms a timer");
        let month = Instant::from_millis(30 * 86_400_000);
        stack.advance(month);
        assert_eq!(stack.now, month);
        assert!(stack.poll_at().is_none_or(|at| at > month));
    }
}
