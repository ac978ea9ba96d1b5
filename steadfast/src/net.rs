//! The network: its interfaces, routes and sockets, and how it is closed. `builder` starts it, and `threads` on many
//! runtimes.

mod builder;
mod threads;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use steadfast_core::counters::Counters;
use steadfast_core::info::{Diagnosis, SocketEntry, Usage};
use steadfast_core::{Error, Instant, Interface, InterfaceId, Neighbour, Route, RouterAdvertisement, Stack};
use steadfast_device::{Device, HardwareAddress};

use crate::addr::sealed::Target;
use crate::addr::{self, Addresses, Names};
use crate::options::invalid;
use crate::shared::{Handle, Phase, State, Waiting, into_io};

pub use self::builder::NetBuilder;
use self::builder::describe;
pub use self::threads::QueueThread;

/// A TCP/IP stack on a device, with the task that drives it. Clones are handles of the same network.
///
/// A network may have several devices: see [`NetBuilder`]. [`add_interface`](Net::add_interface) adds another one, and
/// [`add_route`](Net::add_route) a route. Interfaces, addresses and routes may come and go while connections live.
///
/// A device with several queues has one stack per queue, and connections are spread over them: see
/// [`NetBuilder::start_queues`] and [`NetBuilder::build_threads`].
///
/// After all handles, listeners and streams are dropped, the driver ends once the last connection has closed in good
/// order. The runtime must live that long: call [`close`](Net::close) to wait for it.
///
/// ```
/// use std::time::Duration;
///
/// use steadfast::{Net, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (device, _other_end) = device::memory::pair(1500);
/// let net = Net::builder().address([10, 9, 0, 2], 24).start(device)?;
/// net.add_address([10, 9, 0, 3], 24);
/// assert_eq!(net.usage().connections, 0);
/// assert!(net.sockets().is_empty());
/// net.close(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Net {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// One stack for each queue of the device.
    stacks: Vec<Arc<Handle>>,
    /// Counts calls of `connect`, to spread connections over the stacks.
    turn: AtomicUsize,
    names: Names,
}

impl Net {
    /// Returns a builder with the default configuration and no address.
    pub fn builder() -> NetBuilder {
        NetBuilder::new()
    }

    pub(crate) fn new(stacks: Vec<Arc<Handle>>, names: Names) -> Net {
        Net { inner: Arc::new(Inner { stacks, turn: AtomicUsize::new(0), names }) }
    }

    /// Ends the network: listeners close, no connection is opened or accepted any more, and written data is delivered.
    /// Streams that the application still holds keep working until it drops them.
    ///
    /// Returns once no stream is held and every peer has acknowledged all written data and the FIN. It does not wait
    /// for a peer that keeps its own direction open, nor for TIME-WAIT. Such a peer is not reset either, for it may not
    /// have read everything yet.
    ///
    /// Connections left after `limit`, orphans included, are reset. With [`Duration::MAX`], only TCP's own timeouts
    /// give up a peer. A stream held beyond the limit returns the bytes that had arrived, then `NetworkDown`.
    ///
    /// # Errors
    ///
    /// `TimedOut` if `limit` cut off a connection. If the device failed, the error says how.
    ///
    /// # Cancel safety
    ///
    /// The first poll starts the closing. Dropping the future afterwards stops the wait, not the closing. A second call
    /// replaces the limit.
    pub async fn close(&self, limit: Duration) -> io::Result<()> {
        self.all_stacks().iter().for_each(|stack| Net::begin_to_close(stack, limit));
        self.closed().await
    }

    /// Waits until the network has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// - `TimedOut`: [`close`](Net::close) cut off a connection at its limit.
    /// - The device's error, if it failed.
    /// - An error that says so, if the driver panicked or was dropped.
    pub async fn closed(&self) -> io::Result<()> {
        let mut result = Ok(());
        for stack in self.all_stacks().iter() {
            result = result.and(stack.ended().await);
        }
        result
    }

    fn begin_to_close(stack: &Handle, limit: Duration) {
        let waiting = stack.call(|state, now| {
            if !state.is_closed() {
                state.phase = Phase::Closing { deadline: Some(now + limit) };
            }
            let all = state.sockets.iter();
            let listeners = all.filter(|(_, w)| matches!(w, Waiting::Listener(_))).map(|(id, _)| id);
            let mut waiting = Vec::new();
            for id in listeners.collect::<Vec<_>>() {
                // It fails only if the listener is gone already.
                let _ = state.stack.close(now, id);
                if let Some(Waiting::Listener(arrivals)) = state.sockets.remove(id) {
                    waiting.push(arrivals);
                }
            }
            waiting
        });
        waiting.iter().for_each(|arrivals| arrivals.notify());
    }

    /// Returns the event counters, summed over all stacks. It copies them under the lock.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        self.all_stacks().iter().for_each(|stack| counters.add(stack.lock().stack.counters()));
        counters
    }

    /// Returns how full the tables are, summed over all stacks. It counts nothing anew.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.all_stacks().iter().for_each(|stack| usage.add(&stack.lock().stack.usage()));
        usage
    }

    /// Recounts the sums and flags that the stacks keep, and returns the first difference. It is for tests: it visits
    /// every connection under the lock.
    ///
    /// # Errors
    ///
    /// The first difference: its name, the value that is kept, and the one that was counted. It is a defect of the
    /// stack.
    pub fn check_consistent(&self) -> Result<(), String> {
        self.all_stacks().iter().try_for_each(|stack| stack.lock().stack.check_consistent())
    }

    /// Lists all sockets, as `ss -a` does: listeners, half-open, connections, orphans, TIME-WAIT. It visits each of them
    /// under the lock: its time and its memory grow with their number.
    pub fn sockets(&self) -> Vec<SocketEntry> {
        self.all_stacks().iter().flat_map(|stack| stack.call(|state, now| state.stack.sockets(now))).collect()
    }

    /// Lists connections that the application seems to have forgotten: in CLOSE-WAIT for longer than `older_than`. It
    /// visits each connection under the lock.
    pub fn diagnose(&self, older_than: Duration) -> Vec<Diagnosis> {
        let stacks = self.all_stacks().iter();
        stacks.flat_map(|stack| stack.call(|state, now| state.stack.diagnose(now, older_than))).collect()
    }

    /// Answers questions at a control socket until the network ends, in a task of the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// The runtime does not take the socket.
    #[cfg(all(feature = "control", unix))]
    pub fn serve_control(&self, socket: crate::ControlSocket) -> io::Result<()> {
        socket.answer(self.shared(), None)
    }

    /// Like [`serve_control`](Net::serve_control), for a program with commands of its own: `commands` gets each line that
    /// does not begin as JSON does, and returns the answer with its line ends.
    ///
    /// # Errors
    ///
    /// As [`serve_control`](Net::serve_control).
    #[cfg(all(feature = "control", unix))]
    pub fn serve_control_with(
        &self,
        socket: crate::ControlSocket,
        commands: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> io::Result<()> {
        socket.answer(self.shared(), Some(Box::new(commands)))
    }

    #[cfg(all(feature = "control", unix))]
    fn shared(&self) -> Vec<Arc<crate::shared::Shared>> {
        self.all_stacks().iter().map(|stack| stack.0.clone()).collect()
    }

    /// Adds an address. Listeners on the unspecified address accept connections to it too. Below an MTU of 1280 bytes
    /// an IPv6 address is not added (RFC 8200 §5).
    pub fn add_address(&self, address: impl Into<IpAddr>, prefix_len: u8) {
        let address = address.into();
        self.all_stacks()
            .iter()
            .for_each(|stack| stack.call_untimed(|state| state.stack.add_address(address, prefix_len)));
    }

    /// Removes an address and returns whether it was there. Its connections stay, as in Linux: their own timers end
    /// them, unless the address returns first.
    pub fn remove_address(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.change(|stack| stack.remove_address(address))
    }

    /// Adds an interface on a device of its own, with addresses and the routes to their networks. The device moves into
    /// the driver, which reads all devices in turn.
    ///
    /// A packet to any address of the network is taken, whatever interface it came by (the weak host model of RFC 1122
    /// §3.3.4.2, as in Linux). Packets leave by the [route](Net::add_route) to their destination. While a device is full,
    /// at most `txqueuelen` packets wait for it, and more are dropped and counted (`tx_dropped`).
    ///
    /// A device that fails takes its interface with it, as if [`remove_interface`](Net::remove_interface) had been
    /// called. The network ends with the device that it was started on.
    ///
    /// ```
    /// use steadfast::{Net, Route, device};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let ((lan, _hosts), (wan, _router)) = (device::memory::pair(1500), device::memory::pair(1492));
    /// let net = Net::builder().address([192, 168, 0, 1], 24).start(lan)?;
    /// let wan = net.add_interface(wan, [([203, 0, 113, 7].into(), 24)])?;
    /// net.add_route(Route::new([0, 0, 0, 0].into(), 0, wan).via([203, 0, 113, 1].into()))?;
    /// assert_eq!(net.interfaces().len(), 2);
    /// assert_eq!(net.route_to([198, 51, 100, 1]).unwrap().interface, wan);
    ///
    /// net.remove_interface(wan)?;
    /// assert_eq!(net.interfaces().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: a prefix is too long, or the device's MTU is below 68 bytes with an IPv4 address, or 1280 with an
    ///   IPv6 address.
    /// - `AddrInUse`: another interface has one of the addresses.
    /// - `ENOBUFS`: `interface_max`.
    /// - `Unsupported`: the network was started on a device with several queues.
    /// - `NetworkDown`: the network is closing.
    pub fn add_interface(
        &self,
        device: impl Device,
        addresses: impl IntoIterator<Item = (IpAddr, u8)>,
    ) -> io::Result<InterfaceId> {
        let [stack] = self.all_stacks() else { return Err(io::ErrorKind::Unsupported.into()) };
        let interface = describe(&device.capabilities(), addresses.into_iter().collect())?;
        let mut device: Option<Box<dyn Device>> = Some(Box::new(device));
        // Where that fails, the device is dropped with the lock released.
        begin(stack, |state, _| {
            let id = state.stack.add_interface(interface)?;
            state.new_devices.extend(device.take().map(|device| (id, device)));
            state.devices_changed = true;
            Ok(id)
        })
    }

    /// Removes an interface with its addresses and routes, and drops its device. Connections stay, as in Linux: their
    /// packets leave by the routes that are left, and their own timers end them if there is none.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: there is no such interface, or it is that of the device that the network was started on.
    pub fn remove_interface(&self, id: InterfaceId) -> io::Result<()> {
        let removed = self.all_stacks()[0].call_untimed(|state| {
            state.check_whole()?;
            state.devices_changed = true;
            Ok::<_, io::Error>(state.stack.remove_interface(id))
        })?;
        if removed { Ok(()) } else { Err(invalid("no interface that can be removed")) }
    }

    /// Lists the interfaces with their addresses.
    pub fn interfaces(&self) -> Vec<(InterfaceId, Interface)> {
        self.all_stacks()[0].lock().stack.interfaces()
    }

    /// Adds an address to an interface: see [`Stack::add_address_to`].
    ///
    /// # Errors
    ///
    /// `InvalidInput`: no such interface, or an IPv6 address where the MTU is below 1280. `AddrInUse`: another interface
    /// has the address.
    pub fn add_address_to(
        &self,
        id: InterfaceId,
        address: impl Into<IpAddr>,
        prefix_len: u8,
    ) -> io::Result<()> {
        let address = address.into();
        self.change(|stack| stack.add_address_to(id, address, prefix_len)).map_err(into_io)
    }

    /// Adds a route: see [`Stack::add_route`].
    ///
    /// # Errors
    ///
    /// `InvalidInput`: no such interface, bits beyond the prefix, or two families. `NetworkUnreachable`: the gateway is no
    /// neighbour on the interface. `ENOBUFS`: `route_max`.
    pub fn add_route(&self, route: Route) -> io::Result<()> {
        self.change(|stack| stack.add_route(route)).map_err(into_io)
    }

    /// Removes a route. Returns whether it was there.
    pub fn remove_route(&self, route: &Route) -> bool {
        self.change(|stack| stack.remove_route(route))
    }

    /// Lists the routes.
    pub fn routes(&self) -> Vec<Route> {
        self.all_stacks()[0].lock().stack.routes()
    }

    /// Returns the route of packets to a destination (`ip route get`).
    pub fn route_to(&self, destination: impl Into<IpAddr>) -> Option<Route> {
        self.all_stacks()[0].lock().stack.route_to(destination.into())
    }

    /// Lists the neighbours on links with hardware addresses (`ip neigh`).
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.all_stacks()[0].lock().stack.neighbours()
    }

    /// Sets the hardware address of a neighbour for good: see [`Stack::add_neighbour`].
    ///
    /// # Errors
    ///
    /// `InvalidInput`: an interface of bare packets, or an address that is not that of a single host. `ENOBUFS`:
    /// `gc_thresh3`.
    pub fn add_neighbour(
        &self,
        id: InterfaceId,
        address: impl Into<IpAddr>,
        hardware: HardwareAddress,
    ) -> io::Result<()> {
        let address = address.into();
        self.change(|stack| stack.add_neighbour(id, address, hardware)).map_err(into_io)
    }

    /// Answers questions for the hardware address of another host: see [`Stack::add_neighbour_proxy`].
    ///
    /// # Errors
    ///
    /// `InvalidInput`: an interface of bare packets, or an address that is not that of a single host. `ENOBUFS`: 64 of
    /// them.
    pub fn add_neighbour_proxy(&self, id: InterfaceId, address: impl Into<IpAddr>) -> io::Result<()> {
        let address = address.into();
        self.change(|stack| stack.add_neighbour_proxy(id, address)).map_err(into_io)
    }

    /// Advertises this network as a router on an interface, or no more: see [`Stack::advertise`].
    ///
    /// # Errors
    ///
    /// `InvalidInput`: an interface of bare packets or without a link-local address, or more than eight prefixes or
    /// servers.
    pub fn advertise(&self, id: InterfaceId, router: Option<RouterAdvertisement>) -> io::Result<()> {
        self.change(|stack| stack.advertise(id, router.clone())).map_err(into_io)
    }

    /// Changes all stacks alike, and returns the result of the last.
    fn change<R>(&self, change: impl Fn(&mut Stack) -> R) -> R {
        let [first, others @ ..] = self.all_stacks() else { unreachable!("a network has a stack") };
        let result = first.call_untimed(|state| change(&mut state.stack));
        others.iter().for_each(|stack| _ = stack.call_untimed(|state| change(&mut state.stack)));
        result
    }

    /// All stacks, by index.
    pub(crate) fn all_stacks(&self) -> &[Arc<Handle>] {
        &self.inner.stacks
    }

    /// The part behind each queue.
    fn parts(&self) -> impl Iterator<Item = Net> {
        let part = |stack: &Arc<Handle>| Net::new(vec![stack.clone()], self.inner.names.clone());
        self.all_stacks().iter().map(part)
    }

    /// Returns the addresses of a target, in the order in which they are tried.
    // 6724-4, 6724-5
    pub(crate) async fn resolve(&self, target: Target) -> io::Result<Addresses> {
        let sort = |found: &mut [IpAddr]| {
            self.all_stacks()[0].call_untimed(|state| state.stack.sort_destinations(found));
        };
        addr::resolve(&self.inner.names, target, sort).await
    }

    /// All stacks, starting with another one at each call.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = &Arc<Handle>> {
        let Inner { stacks, turn, .. } = &*self.inner;
        let turn = turn.fetch_add(1, Ordering::Relaxed) % stacks.len();
        stacks[turn..].iter().chain(&stacks[..turn])
    }
}

/// Runs a call that opens a socket. Fails once the network is closing.
pub(crate) fn begin<R>(
    stack: &Handle,
    call: impl FnOnce(&mut State, Instant) -> Result<R, Error>,
) -> io::Result<R> {
    stack.call(|state, now| {
        state.check_open()?;
        call(state, now).map_err(into_io)
    })
}
