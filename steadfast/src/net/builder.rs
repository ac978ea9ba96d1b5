//! How a network is configured and started.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use steadfast_core::steer::Steering;
use steadfast_core::{Config, Error, Interface, InterfaceId, Medium, Route, Stack};
use steadfast_device::{Capabilities, Device};
use tokio::runtime::{self, Builder};
use tokio::sync::oneshot;

use super::Net;
use crate::addr::{Names, Resolver, SystemResolver};
use crate::driver::Driver;
use crate::options::invalid;
use crate::queue::Exchange;
use crate::shared::{Handle, Shared, into_io};

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
///
/// A network on several devices names the others before it starts on the first:
///
/// ```
/// use steadfast::{InterfaceId, Net, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let ((lan, _hosts), (wan, _router)) = (device::memory::pair(1500), device::memory::pair(1492));
/// let net = Net::builder()
///     .address([192, 168, 0, 1], 24)
///     .interface(wan, [([203, 0, 113, 7].into(), 24)])
///     .gateway([203, 0, 113, 1])
///     .start(lan)?;
/// assert_eq!(net.route_to([192, 168, 0, 9]).unwrap().interface, InterfaceId::FIRST);
/// assert_eq!(net.route_to([198, 51, 100, 1]).unwrap().gateway, Some([203, 0, 113, 1].into()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NetBuilder {
    config: Config,
    addresses: Vec<(IpAddr, u8)>,
    others: Vec<Other>,
    gateways: Vec<IpAddr>,
    secret: Option<[u8; 32]>,
    names: Names,
    #[cfg(all(feature = "control", unix))]
    control: Option<crate::control::Control>,
}

impl NetBuilder {
    pub(super) fn new() -> NetBuilder {
        NetBuilder {
            config: Config::default(),
            addresses: Vec::new(),
            others: Vec::new(),
            gateways: Vec::new(),
            secret: None,
            names: Names::new(SystemResolver),
            #[cfg(all(feature = "control", unix))]
            control: None,
        }
    }

    /// Sets timers and limits. The secret in `config` is ignored and a fresh one is drawn: see
    /// [`secret`](NetBuilder::secret).
    pub fn config(mut self, config: Config) -> NetBuilder {
        self.config = config;
        self
    }

    /// Adds an address of the first interface, that of the device on which the network starts, with its prefix length in
    /// bits. At least one address is required.
    pub fn address(mut self, address: impl Into<IpAddr>, prefix_len: u8) -> NetBuilder {
        self.addresses.push((address.into(), prefix_len));
        self
    }

    /// Adds an interface on a device of its own, with addresses and the routes to their networks. The interfaces have the
    /// numbers 2, 3 and so on ([`InterfaceId::from_index`]); the first is that of the device on which the network
    /// starts. [`Net::add_interface`] adds one to a network that runs.
    pub fn interface(
        mut self,
        device: impl Device,
        addresses: impl IntoIterator<Item = (IpAddr, u8)>,
    ) -> NetBuilder {
        self.others.push(Other { device: Box::new(device), addresses: addresses.into_iter().collect() });
        self
    }

    /// Adds a default route through a router, by the interface that has an address in its network. Without a gateway,
    /// packets to destinations in no network leave by the first interface. [`Net::add_route`] adds routes of other kinds.
    pub fn gateway(mut self, gateway: impl Into<IpAddr>) -> NetBuilder {
        self.gateways.push(gateway.into());
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
    /// - `InvalidInput`: a setting is out of its bounds, or a [gateway](NetBuilder::gateway) is in no network of an
    ///   interface.
    /// - `AddrInUse`: two interfaces have one address.
    /// - An error that names the interface or the gateway: `interface_max` or `route_max` is reached.
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
    /// # Errors
    ///
    /// As [`start`](NetBuilder::start).
    ///
    /// # Panics
    ///
    /// As [`start`](NetBuilder::start).
    pub fn build<D: Device>(self, device: D) -> io::Result<(Net, Driver<D>)> {
        let (net, mut drivers) = self.build_queues(vec![(device, None)])?;
        Ok((net, drivers.swap_remove(0)))
    }

    /// Starts the network on all queues of one device, with a stack and a task for each queue. A listener accepts
    /// connections from all of them. Packets of a connection always reach the stack that opened it. On a runtime with
    /// several threads the queues work in parallel. Limits, such as that of half-open connections, apply to each stack.
    ///
    /// # Errors
    ///
    /// As [`start`](NetBuilder::start); `InvalidInput` for more than 65,535 queues; `Unsupported` for Ethernet frames, or
    /// with another [`interface`](NetBuilder::interface).
    ///
    /// # Panics
    ///
    /// As [`start`](NetBuilder::start), and if `queues` is empty.
    pub fn start_queues<D: Device>(self, queues: Vec<D>) -> io::Result<Net> {
        let queues = queues.into_iter().map(|queue| (queue, None)).collect();
        let (net, drivers) = self.build_queues(queues)?;
        for driver in drivers {
            tokio::spawn(driver);
        }
        Ok(net)
    }

    /// Makes a stack and a driver for each queue. A driver has the timers of its runtime, or of the current one.
    pub(super) fn build_queues<D: Device>(
        mut self,
        queues: Vec<(D, Option<runtime::Handle>)>,
    ) -> io::Result<(Net, Vec<Driver<D>>)> {
        let capabilities = queues.first().expect("a device has a queue").0.capabilities();
        if self.addresses.is_empty() {
            return Err(invalid("a network needs at least one address"));
        }
        let interface = describe(&capabilities, self.addresses)?;
        self.config.validate().map_err(|error| invalid(error.to_string()))?;
        let mut config = self.config;
        config.secret = self.secret.map_or_else(draw_secret, Ok)?;
        if queues.len() > 1 && (capabilities.ethernet.is_some() || !self.others.is_empty()) {
            let text = "a device with several queues: expected bare IP packets, and no other interface";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let count = u16::try_from(queues.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let steering = Steering::new(&config.secret, count);
        let max_backlog = config.netdev_max_backlog as usize;
        let mut exchanges =
            if count > 1 { Exchange::all(steering, count, max_backlog) } else { Vec::new() }.into_iter();
        let (mut stacks, mut drivers) = (Vec::new(), Vec::new());
        for (index, (device, runtime)) in (0..).zip(queues) {
            let _entered = runtime.as_ref().map(runtime::Handle::enter);
            let mut stack = Stack::new(config.clone(), interface.clone());
            if count > 1 {
                stack.set_share(steering, index);
            }
            let devices = add_others(&mut stack, std::mem::take(&mut self.others))?;
            add_gateways(&mut stack, &self.gateways)?;
            let shared = Arc::new(Shared::new(stack, devices));
            drivers.push(Driver::new(shared.clone(), device, exchanges.next()));
            stacks.push(Arc::new(Handle(shared)));
        }
        #[cfg(all(feature = "control", unix))]
        if let Some(control) = self.control {
            control.open(stacks.iter().map(|stack: &Arc<Handle>| stack.0.clone()).collect())?;
        }
        Ok((Net::new(stacks, self.names), drivers))
    }
}

/// A device beside the first, with its addresses.
struct Other {
    device: Box<dyn Device>,
    addresses: Vec<(IpAddr, u8)>,
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Other").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Adds the interfaces of devices to a stack, and returns the devices with their interfaces.
fn add_others(stack: &mut Stack, others: Vec<Other>) -> io::Result<Vec<(InterfaceId, Box<dyn Device>)>> {
    let add = |Other { device, addresses }| {
        let shown: Vec<_> = addresses.iter().map(|(address, len)| format!("{address}/{len}")).collect();
        let interface = describe(&device.capabilities(), addresses)?;
        let id = stack.add_interface(interface);
        Ok((id.map_err(|error| named(error, &format!("an interface with {}", shown.join(", "))))?, device))
    };
    others.into_iter().map(add).collect()
}

/// Adds default routes.
fn add_gateways(stack: &mut Stack, gateways: &[IpAddr]) -> io::Result<()> {
    for &gateway in gateways {
        // The default route of the first interface leads everywhere, so it says nothing about neighbours.
        let connected =
            stack.route_to(gateway).filter(|route| route.prefix_len > 0 && route.gateway.is_none());
        let Some(Route { interface, .. }) = connected else {
            return Err(invalid(format!(
                "gateway {gateway}: expected an address in the network of an interface"
            )));
        };
        let all: IpAddr = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let added = stack.add_route(Route::new(all, 0, interface).via(gateway));
        added.map_err(|error| named(error, &format!("gateway {gateway}")))?;
    }
    Ok(())
}

/// An error of the stack that says what it is about.
fn named(error: Error, what: &str) -> io::Error {
    let error = into_io(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Describes a device to the stack. Fails if it cannot carry the addresses.
pub(super) fn describe(capabilities: &Capabilities, addresses: Vec<(IpAddr, u8)>) -> io::Result<Interface> {
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
