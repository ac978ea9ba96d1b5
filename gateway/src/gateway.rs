//! The gateway: how it is configured, started and closed.

use std::future::pending;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steadfast::device::{Device, HardwareAddress};
use steadfast::{
    Config, EchoForwarder, ForwardRule, Net, NetBuilder, RelayConfig, TcpForwarder, UdpForwarder,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::counters::{Counters, Counts};
use crate::dns;
use crate::flows::{self, Flow};
use crate::forwards::{Bound, Forward, Forwards, Parts};
use crate::guests;
use crate::localhost::Localhost;
use crate::names::Names;
use crate::proxy::Proxy;
use crate::rules::{Rule, Rules};
use crate::servers::Dns;
use crate::shared::Shared;
use crate::subnet::Subnet;
use crate::tcp;
use crate::{echo, udp};

/// A running gateway. Dropping it takes no request any more; connections that live then go on.
#[derive(Debug)]
pub struct Gateway {
    net: Net,
    shared: Arc<Shared>,
    table: Arc<udp::Table>,
    forwards: Mutex<Forwards>,
    /// The services. They end with the gateway.
    _services: JoinSet<()>,
}

/// Milliseconds without an upload after which nothing more is expected of a guest that has ended.
const QUIET: u32 = 3;

/// Requests that are being dialled at a time: of all, as of the one guest that most gateways have, and to one destination.
/// A program may open thousands of connections at once. SYNs beyond these limits come again a second later.
const PENDING: u32 = 8192;
const PENDING_PER_DESTINATION: u32 = 2048;

impl Gateway {
    /// Returns a builder with the defaults.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder {
            subnet: Subnet::default(),
            config: Config {
                forward_max_pending: PENDING,
                forward_max_pending_per_source: PENDING,
                forward_max_pending_per_destination: PENDING_PER_DESTINATION,
                ..Config::default()
            },
            relay: RelayConfig::default(),
            dns: Dns::Host,
            rules: Vec::new(),
            connections: 65_536,
            localhost: false,
            forwards: Vec::new(),
            fixed_guest: false,
            proxy: None,
        }
    }

    /// Returns the network on the guests' side.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Returns what the gateway has done.
    pub fn counters(&self) -> Counters {
        self.shared.counts.now()
    }

    /// Lists the connections and the flows of UDP that guests have now.
    pub fn flows(&self) -> Vec<Flow> {
        flows::of(&self.net, &self.shared.subnet).chain(self.table.flows()).collect()
    }

    /// Adds a forward to those of [`GatewayBuilder::forward`]. Call it on the runtime of the gateway.
    ///
    /// # Errors
    ///
    /// The machine's port is taken, or takes a right that this process lacks.
    pub fn add_forward(&self, forward: Forward) -> io::Result<()> {
        let parts = Parts { net: self.net.clone(), shared: self.shared.clone() };
        self.lock_forwards().serve(&Bound::new(forward)?, &self.table, &parts)
    }

    /// Removes a forward. Connections through it live on. Returns whether it was there.
    pub fn remove_forward(&self, forward: &Forward) -> bool {
        self.lock_forwards().remove(forward)
    }

    /// Lists the forwards.
    pub fn forwards(&self) -> Vec<Forward> {
        self.lock_forwards().list()
    }

    fn lock_forwards(&self) -> std::sync::MutexGuard<'_, Forwards> {
        self.forwards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no request any more, and waits until all connections have ended. Those left after `limit` are reset.
    ///
    /// # Errors
    ///
    /// As [`Net::close`].
    pub async fn close(&self, limit: Duration) -> io::Result<()> {
        self.net.close(limit).await
    }

    /// Waits until the bytes that guests had sent are with the kernel, or until `limit`. It is for the end of a guest
    /// that has closed all its connections: answers to it are not awaited.
    pub async fn drain(&self, limit: Duration) {
        let drained = async {
            // The stack must first take in what the device holds.
            let mut quiet = 0;
            while quiet < QUIET {
                quiet = if self.shared.uploads.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // At the limit, the rest is lost.
        let _ = tokio::time::timeout(limit, drained).await;
    }

    /// Waits until the network has ended, for example since the device is gone.
    ///
    /// # Errors
    ///
    /// As [`Net::closed`].
    pub async fn closed(&self) -> io::Result<()> {
        self.net.closed().await
    }
}

/// Configures and starts a [`Gateway`].
#[derive(Clone, Debug)]
pub struct GatewayBuilder {
    subnet: Subnet,
    config: Config,
    relay: RelayConfig,
    dns: Dns,
    rules: Vec<Rule>,
    connections: usize,
    localhost: bool,
    forwards: Vec<Arc<Bound>>,
    fixed_guest: bool,
    proxy: Option<Proxy>,
}

impl GatewayBuilder {
    /// Sets the network of the guests.
    pub fn subnet(mut self, subnet: Subnet) -> GatewayBuilder {
        self.subnet = subnet;
        self
    }

    /// Sets timers and limits of the stack on the guests' side. The default has room for more pending requests than that of
    /// [`Config`]: 8,192, and 2,048 of them to one destination.
    pub fn config(mut self, config: Config) -> GatewayBuilder {
        self.config = config;
        self
    }

    /// Sets the limits of a relayed connection.
    pub fn relay(mut self, relay: RelayConfig) -> GatewayBuilder {
        self.relay = relay;
        self
    }

    /// Sets who answers queries of names. The default is [`Dns::Host`].
    pub fn dns(mut self, dns: Dns) -> GatewayBuilder {
        self.dns = dns;
        self
    }

    /// Adds a rule: see [`Rules`].
    pub fn rule(mut self, rule: Rule) -> GatewayBuilder {
        self.rules.push(rule);
        self
    }

    /// Sets the limit of TCP connections at a time, those that are being dialled included: 65,536. Each takes a file
    /// descriptor. Requests beyond it wait.
    pub fn connections(mut self, limit: usize) -> GatewayBuilder {
        self.connections = limit;
        self
    }

    /// Sets whether 127.0.0.1 of a guest, where its kernel routes it into the device, stands for that of the machine. Rules
    /// decide which ports of it are open.
    pub fn localhost(mut self, on: bool) -> GatewayBuilder {
        self.localhost = on;
        self
    }

    /// Adds a forward. It takes the machine's port at once, so that a program can give up its rights before it starts the
    /// gateway.
    ///
    /// # Errors
    ///
    /// The machine's port is taken, or takes a right that this process lacks.
    pub fn forward(mut self, forward: Forward) -> io::Result<GatewayBuilder> {
        self.forwards.push(Arc::new(Bound::new(forward)?));
        Ok(self)
    }

    /// Sets whether the first guest has its addresses of both families from whoever has made its device. Otherwise guests
    /// ask for them by DHCP, and only the IPv4 address of the first one is known: forwards lead there.
    pub fn fixed_guest(mut self, on: bool) -> GatewayBuilder {
        self.fixed_guest = on;
        self
    }

    /// Lets the connections of guests leave by a proxy, and their datagrams, if it is one of SOCKS5. Pings are refused then,
    /// and datagrams with HTTP, except queries to the gateway's name server.
    pub fn proxy(mut self, proxy: Proxy) -> GatewayBuilder {
        self.proxy = Some(proxy);
        self
    }

    /// Starts the gateway on the device behind which the guests are, on the current Tokio runtime. Guests behind a device
    /// that carries Ethernet frames get addresses by DHCP, and hear of the IPv6 network by advertisements of a router.
    ///
    /// # Errors
    ///
    /// A setting is out of its bounds, or the MTU of the device is too small for an address.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was started.
    pub async fn start(self, device: impl Device) -> io::Result<Gateway> {
        let capabilities = device.capabilities();
        let hardware = capabilities.ethernet.map(|hardware| (hardware, capabilities.mtu));
        let builder = self.network(hardware);
        let net = if self.localhost {
            builder.start(Localhost::new(device, &self.subnet))?
        } else {
            builder.start(device)?
        };
        let shared = self.shared();
        let mut services = JoinSet::new();
        let forwarder = TcpForwarder::bind(&net, ForwardRule::all()).await?;
        services.spawn(tcp::serve(forwarder, shared.clone()));
        self.serve(net, shared, services, hardware).await
    }

    /// Starts the gateway on several queues of a device that carries IP packets. Each queue has a thread and a runtime of
    /// its own, with its stack, and with the sockets of the machine for its connections of TCP. Everything else uses the
    /// current runtime. `open` is called for each queue, within its runtime.
    ///
    /// # Errors
    ///
    /// As [`start`](GatewayBuilder::start), those of `open`, and `Unsupported` for a device that carries Ethernet frames.
    ///
    /// # Panics
    ///
    /// Panics if `queues` is 0.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was started.
    pub async fn start_queues<D: Device>(
        self,
        queues: usize,
        mut open: impl FnMut() -> io::Result<D>,
    ) -> io::Result<Gateway> {
        let open = || -> io::Result<Box<dyn Device>> {
            let device = open()?;
            Ok(if self.localhost { Box::new(Localhost::new(device, &self.subnet)) } else { Box::new(device) })
        };
        let (net, queues) = self.network(None).build_threads(queues, open)?;
        let shared = self.shared();
        let mut services = JoinSet::new();
        for queue in queues {
            let forwarder = TcpForwarder::bind(queue.net(), ForwardRule::all()).await?;
            let served = tcp::serve(forwarder, shared.clone());
            let (alive, ended) = oneshot::channel::<()>();
            // A service of the gateway that runs elsewhere.
            services.spawn(async move {
                let _alive = alive;
                pending().await
            });
            queue.start(async move {
                tokio::select! {
                    () = served => {}
                    _ = ended => {}
                }
            })?;
        }
        self.serve(net, shared, services, None).await
    }

    /// The network. Hosts of a link know their router by its link-local address.
    fn network(&self, hardware: Option<(HardwareAddress, u16)>) -> NetBuilder {
        let mut builder = Net::builder().config(self.config.clone());
        let subnet = &self.subnet;
        for address in subnet.gateway().chain(subnet.dns()).chain(subnet.localhost()) {
            builder = builder.address(address, Subnet::prefix_len(address));
        }
        match hardware.filter(|_| subnet.v6.is_some()) {
            Some((hardware, _)) => builder.address(hardware.link_local(), Subnet::V6_LEN),
            None => builder,
        }
    }

    fn shared(&self) -> Arc<Shared> {
        let mut rules = Rules::new(self.rules.clone());
        rules.close_subnet(&self.subnet);
        Arc::new(Shared {
            subnet: self.subnet,
            rules,
            relay: self.relay.clone(),
            counts: Counts::default(),
            dns: self.dns.clone(),
            names: Mutex::new(Names::default()),
            proxy: self.proxy.clone(),
            uploads: Arc::default(),
            limit: Arc::new(Semaphore::new(self.connections)),
            fixed_guest: self.fixed_guest,
        })
    }

    /// Starts all services but that of TCP.
    async fn serve(
        self,
        net: Net,
        shared: Arc<Shared>,
        mut services: JoinSet<()>,
        hardware: Option<(HardwareAddress, u16)>,
    ) -> io::Result<Gateway> {
        let datagrams = UdpForwarder::bind(&net, ForwardRule::all())?;
        let table = udp::Table::new(datagrams, shared.clone());
        services.spawn(table.clone().serve());
        let echoes = EchoForwarder::bind(&net, ForwardRule::all())?;
        services.spawn(echo::Pings::new(echoes, shared.clone()).serve());
        if let Some((hardware, mtu)) = hardware {
            guests::serve(&net, hardware, mtu, &shared, &mut services)?;
        }
        if !matches!(shared.dns, Dns::None) {
            for address in self.subnet.dns() {
                dns::serve(&net, address, &shared, &mut services).await?;
            }
        }
        let mut serving = Forwards::default();
        let parts = Parts { net: net.clone(), shared: shared.clone() };
        self.forwards.iter().try_for_each(|bound| serving.serve(bound, &table, &parts))?;
        Ok(Gateway { net, shared, table, forwards: Mutex::new(serving), _services: services })
    }
}
