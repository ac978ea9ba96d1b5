//! The network: how a stack is configured, started and closed.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use steadfast_core::counters::Counters;
use steadfast_core::info::{Diagnosis, SocketEntry, Usage};
use steadfast_core::steer::Steering;
use steadfast_core::{
    Config, Error, Instant, Interface, InterfaceId, Medium, Neighbour, Route, RouterAdvertisement, Stack,
};
use steadfast_device::{Capabilities, Device, HardwareAddress};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::addr::sealed::Target;
use crate::addr::{self, Addresses, Names, Resolver, SystemResolver};
use crate::driver::Driver;
use crate::options::invalid;
use crate::queue::Exchange;
use crate::shared::{Handle, Phase, Shared, State, Waiting, into_io};

/// A TCP/IP stack on a device, with the task that drives it. Clones are handles of the same network.
///
/// [`add_interface`](Net::add_interface) adds another device, and [`add_route`](Net::add_route) routes. Interfaces,
/// addresses and routes may come and go while connections live.
///
/// A device with several queues has one stack per queue, and connections are spread over them: see
/// [`NetBuilder::start_queues`].
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
        NetBuilder {
            config: Config::default(),
            addresses: Vec::new(),
            secret: None,
            names: Names::new(SystemResolver),
            #[cfg(all(feature = "control", unix))]
            control: None,
        }
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

    /// Returns the event counters, summed over all stacks.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        self.all_stacks().iter().for_each(|stack| counters.add(stack.lock().stack.counters()));
        counters
    }

    /// Returns how full the tables are, summed over all stacks.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.all_stacks().iter().for_each(|stack| usage.add(&stack.lock().stack.usage()));
        usage
    }

    /// Recounts the sums and flags that the stacks keep, and returns the first difference. It is for tests: it visits
    /// every connection under the lock.
    pub fn check_consistent(&self) -> Result<(), String> {
        self.all_stacks().iter().try_for_each(|stack| stack.lock().stack.check_consistent())
    }

    /// Lists all sockets, as `ss -a` does: listeners, half-open, connections, orphans, TIME-WAIT.
    pub fn sockets(&self) -> Vec<SocketEntry> {
        self.all_stacks().iter().flat_map(|stack| stack.call(|state, now| state.stack.sockets(now))).collect()
    }

    /// Lists connections that the application seems to have forgotten: in CLOSE-WAIT for longer than `older_than`.
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
    fn shared(&self) -> Vec<Arc<Shared>> {
        self.all_stacks().iter().map(|stack| stack.0.clone()).collect()
    }

    /// Adds an address. Listeners on the unspecified address accept connections to it too. Below an MTU of 1280 bytes
    /// an IPv6 address is not added (RFC 8200 §5).
    pub fn add_address(&self, address: impl Into<IpAddr>, prefix_len: u8) {
        let address = address.into();
        self.all_stacks()
            .iter()
            .for_each(|stack| stack.call(|state, _| state.stack.add_address(address, prefix_len)));
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
        let removed = self.all_stacks()[0].call(|state, _| {
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
        let result = first.call(|state, _| change(&mut state.stack));
        others.iter().for_each(|stack| _ = stack.call(|state, _| change(&mut state.stack)));
        result
    }

    /// All stacks, by index.
    pub(crate) fn all_stacks(&self) -> &[Arc<Handle>] {
        &self.inner.stacks
    }

    /// Returns the addresses of a target, in the order in which they are tried.
    // 6724-4, 6724-5
    pub(crate) async fn resolve(&self, target: Target) -> io::Result<Addresses> {
        let sort = |found: &mut [IpAddr]| {
            self.all_stacks()[0].call(|state, _| state.stack.sort_destinations(found));
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

/// Configures and starts a [`Net`].
///
/// ```
/// use steadfast::{Config, Net, Profile, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (device, _other_end) = device::memory::pair(1500);
/// let config = Config { tcp_syn_retries: 2, ..Config::profile(Profile::Linux) };
/// let net = Net::builder().config(config).address([10, 9, 0, 2], 24).start(device)?;
///
/// // A setting out of its bounds is an error, and names the setting.
/// let (device, _other_end) = device::memory::pair(1500);
/// let config = Config { tcp_reordering: 0, ..Config::default() };
/// let error = Net::builder().config(config).address([10, 9, 0, 2], 24).start(device).unwrap_err();
/// assert_eq!(error.to_string(), "tcp_reordering: `0`: expected a number from 1 to 127");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct NetBuilder {
    config: Config,
    addresses: Vec<(IpAddr, u8)>,
    secret: Option<[u8; 32]>,
    names: Names,
    #[cfg(all(feature = "control", unix))]
    control: Option<crate::control::Control>,
}

impl NetBuilder {
    /// Sets timers and limits. The secret in `config` is ignored and a fresh one is drawn: see
    /// [`secret`](NetBuilder::secret).
    pub fn config(mut self, config: Config) -> NetBuilder {
        self.config = config;
        self
    }

    /// Adds an address of the stack with its prefix length in bits. At least one address is required.
    pub fn address(mut self, address: impl Into<IpAddr>, prefix_len: u8) -> NetBuilder {
        self.addresses.push((address.into(), prefix_len));
        self
    }

    /// Fixes the seed of all randomness, so that a test is reproducible. Stacks on a real network must not share a
    /// secret: their sequence numbers and cookies could be guessed.
    pub fn secret(mut self, secret: [u8; 32]) -> NetBuilder {
        self.secret = Some(secret);
        self
    }

    /// Sets the resolver of names for `bind`, `connect` and [`lookup_host`](crate::lookup_host). The default is that of
    /// the system, [`SystemResolver`].
    pub fn resolver(mut self, resolver: impl Resolver) -> NetBuilder {
        self.names = Names::new(resolver);
        self
    }

    /// Opens a control socket at this path, which `steadfast ss`, `nstat` and `top` ask. It belongs to the user of this
    /// process: others but root are refused. It is removed when the network ends.
    ///
    /// Starting fails with `AddrInUse` if another process answers there.
    #[cfg(all(feature = "control", unix))]
    pub fn control(mut self, path: impl Into<std::path::PathBuf>) -> NetBuilder {
        let write = self.control.is_some_and(|control| control.write);
        self.control = Some(crate::control::Control { path: path.into(), write });
        self
    }

    /// Lets the control socket change settings and reset connections. Without a call of
    /// [`control`](NetBuilder::control) it does nothing.
    #[cfg(all(feature = "control", unix))]
    pub fn control_write(mut self, write: bool) -> NetBuilder {
        if let Some(control) = &mut self.control {
            control.write = write;
        }
        self
    }

    /// Starts the network on `device`. The driver runs as a task of the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: no address was given, or a prefix is too long.
    /// - `InvalidInput`: the device's MTU is below 68 bytes with an IPv4 address, or 1280 with an IPv6 address.
    /// - `InvalidInput`: a setting is out of its bounds.
    /// - `Other`: the system has no entropy for the secret.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime with time enabled.
    pub fn start(self, device: impl Device) -> io::Result<Net> {
        let (net, driver) = self.build(device)?;
        tokio::spawn(driver);
        Ok(net)
    }

    /// Starts the network on a runtime of its own, in a thread of its own. A program that blocks its runtime then does
    /// not hold the network up: packets are acknowledged and timers run. In return each call of the driver and each
    /// wake-up crosses threads.
    ///
    /// `open` runs in the new thread, because a [`Tun`](steadfast_device::Tun) belongs to the runtime that opened it. The
    /// thread ends with the network. Streams may be used on any runtime, but not with paused time.
    ///
    /// # Errors
    ///
    /// As [`start`](NetBuilder::start), the error of `open`, and that of the system if it has no thread.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the network.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use steadfast::{Net, device};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (device, _other_end) = device::memory::pair(1500);
    /// let net = Net::builder().address([10, 9, 0, 2], 24).start_thread(|| async { Ok(device) }).await?;
    /// net.close(Duration::from_secs(5)).await
    /// # }
    /// ```
    pub async fn start_thread<D: Device, F>(
        self,
        open: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Net>
    where
        F: Future<Output = io::Result<D>>,
    {
        let (tell, told) = oneshot::channel();
        let run = move || {
            let started = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                let device = runtime.block_on(open())?;
                let entered = runtime.enter();
                let (net, driver) = self.build(device)?;
                drop(entered);
                Ok((net, driver, runtime))
            });
            match started {
                Ok((net, driver, runtime)) => {
                    // If nobody waits any more, the network ends with its last handle.
                    drop(tell.send(Ok(net)));
                    // The network tells its handles how it ended.
                    let _ended = runtime.block_on(driver);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        std::thread::Builder::new().name("steadfast".to_owned()).spawn(run)?;
        let gone = |_| Err(io::Error::other("the thread of the network panicked"));
        told.await.unwrap_or_else(gone)
    }

    /// Like [`start`](NetBuilder::start), but returns the driver instead of spawning it. The network does nothing until
    /// the driver is polled.
    ///
    /// # Panics
    ///
    /// As [`start`](NetBuilder::start).
    pub fn build<D: Device>(self, device: D) -> io::Result<(Net, Driver<D>)> {
        let (net, mut drivers) = self.build_queues(vec![device])?;
        Ok((net, drivers.swap_remove(0)))
    }

    /// Starts the network on all queues of one device, with a stack and a task for each queue. A listener accepts
    /// connections from all of them. Packets of a connection always reach the stack that opened it. On a runtime with
    /// several threads the queues work in parallel. Limits, such as that of half-open connections, apply to each stack.
    ///
    /// # Errors
    ///
    /// As [`start`](NetBuilder::start), and `InvalidInput` for more than 65,535 queues.
    ///
    /// # Panics
    ///
    /// As [`start`](NetBuilder::start), and if `queues` is empty.
    pub fn start_queues<D: Device>(self, queues: Vec<D>) -> io::Result<Net> {
        let (net, drivers) = self.build_queues(queues)?;
        for driver in drivers {
            tokio::spawn(driver);
        }
        Ok(net)
    }

    fn build_queues<D: Device>(self, queues: Vec<D>) -> io::Result<(Net, Vec<Driver<D>>)> {
        let capabilities = queues.first().expect("a device has a queue").capabilities();
        if self.addresses.is_empty() {
            return Err(invalid("a network needs at least one address"));
        }
        let interface = describe(&capabilities, self.addresses)?;
        self.config.validate().map_err(|error| invalid(error.to_string()))?;
        let mut config = self.config;
        config.secret = self.secret.map_or_else(draw_secret, Ok)?;
        if capabilities.ethernet.is_some() && queues.len() > 1 {
            return Err(invalid("a device with several queues carries no Ethernet frames here"));
        }
        let count = u16::try_from(queues.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let steering = Steering::new(&config.secret, count);
        let max_backlog = config.netdev_max_backlog as usize;
        let mut exchanges =
            if count > 1 { Exchange::all(steering, count, max_backlog) } else { Vec::new() }.into_iter();
        let (mut stacks, mut drivers) = (Vec::new(), Vec::new());
        for (index, device) in (0..).zip(queues) {
            let mut stack = Stack::new(config.clone(), interface.clone());
            if count > 1 {
                stack.set_share(steering, index);
            }
            let shared = Arc::new(Shared::new(stack));
            drivers.push(Driver::new(shared.clone(), device, exchanges.next()));
            stacks.push(Arc::new(Handle(shared)));
        }
        #[cfg(all(feature = "control", unix))]
        if let Some(control) = self.control {
            control.open(stacks.iter().map(|stack: &Arc<Handle>| stack.0.clone()).collect())?;
        }
        let inner = Inner { stacks, turn: AtomicUsize::new(0), names: self.names };
        Ok((Net { inner: Arc::new(inner) }, drivers))
    }
}

/// Describes a device to the stack. Fails if it cannot carry the addresses.
fn describe(capabilities: &Capabilities, addresses: Vec<(IpAddr, u8)>) -> io::Result<Interface> {
    let mtu = capabilities.mtu;
    for &(address, prefix_len) in &addresses {
        let (longest, smallest_mtu) = if address.is_ipv4() { (32, 68) } else { (128, 1280) };
        if prefix_len > longest {
            return Err(invalid(format!("{address}/{prefix_len}: expected a prefix of at most {longest}")));
        }
        if mtu < smallest_mtu {
            let text = format!("{address} needs an MTU of at least {smallest_mtu}, the device has {mtu}");
            return Err(invalid(text));
        }
    }
    let mut interface = Interface::new(mtu, addresses);
    interface.segmentation_offload = capabilities.segmentation_offload;
    interface.checksum_offload = capabilities.checksum_offload;
    if let Some(address) = capabilities.ethernet {
        interface.medium = Medium::Ethernet { address };
    }
    interface.validate().map_err(invalid)?;
    Ok(interface)
}

/// Fails without entropy: initial sequence numbers would be predictable (RFC 9293 §3.4.1).
fn draw_secret() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| io::Error::other(format!("the system has no entropy: {e}")))?;
    Ok(secret)
}
