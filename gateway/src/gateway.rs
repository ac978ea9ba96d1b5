//! The gateway: how it is configured, started and closed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use steadfast::device::Device;
use steadfast::{Config, EchoForwarder, ForwardRule, Net, RelayConfig, TcpForwarder, UdpForwarder};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::counters::{Counters, Counts};
use crate::dns;
use crate::guests;
use crate::localhost::Localhost;
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
    /// The services. They end with the gateway.
    _services: JoinSet<()>,
}

/// Milliseconds without an upload after which nothing more is expected of a guest that has ended.
const QUIET: u32 = 3;

impl Gateway {
    /// Returns a builder with the defaults.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder {
            subnet: Subnet::default(),
            config: Config::default(),
            relay: RelayConfig::default(),
            dns: Dns::Host,
            rules: Vec::new(),
            connections: 65_536,
            localhost: false,
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
}

impl GatewayBuilder {
    /// Sets the network of the guests.
    pub fn subnet(mut self, subnet: Subnet) -> GatewayBuilder {
        self.subnet = subnet;
        self
    }

    /// Sets timers and limits of the stack on the guests' side.
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
        let GatewayBuilder { subnet, config, relay, dns, rules, connections, localhost } = self;
        let mut rules = Rules::new(rules);
        rules.close_subnet(&subnet);
        let mut builder = Net::builder().config(config);
        for address in subnet.gateway().chain(subnet.dns()).chain(subnet.localhost()) {
            builder = builder.address(address, Subnet::prefix_len(address));
        }
        let capabilities = device.capabilities();
        // Hosts of a link know their router by its link-local address.
        let hardware = capabilities.ethernet;
        if let Some(hardware) = hardware.filter(|_| subnet.v6.is_some()) {
            builder = builder.address(hardware.link_local(), Subnet::V6_LEN);
        }
        let net = if localhost {
            builder.start(Localhost::new(device, &subnet))?
        } else {
            builder.start(device)?
        };
        let shared = Arc::new(Shared {
            subnet,
            rules,
            relay,
            counts: Counts::default(),
            dns,
            uploads: Arc::default(),
        });
        let mut services = JoinSet::new();
        let forwarder = TcpForwarder::bind(&net, ForwardRule::all()).await?;
        services.spawn(tcp::serve(forwarder, shared.clone(), Arc::new(Semaphore::new(connections))));
        let datagrams = UdpForwarder::bind(&net, ForwardRule::all())?;
        services.spawn(udp::Table::new(datagrams, shared.clone()).serve());
        let echoes = EchoForwarder::bind(&net, ForwardRule::all())?;
        services.spawn(echo::Pings::new(echoes, shared.clone()).serve());
        if let Some(hardware) = hardware {
            guests::serve(&net, hardware, capabilities.mtu, &shared, &mut services)?;
        }
        if !matches!(shared.dns, Dns::None) {
            for address in subnet.dns() {
                dns::serve(&net, address, &shared, &mut services).await?;
            }
        }
        Ok(Gateway { net, shared, _services: services })
    }
}
