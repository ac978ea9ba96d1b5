//! The options that `run` and `gateway` share: which destinations are open, who answers queries of names,
//! and which ports lead inside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use clap::Args;
use steadfast_gateway::{Action, Dns, Forward, Gateway, GatewayBuilder, Rule};

use crate::failure::Failure;

/// Rules, names and published ports.
#[derive(Args)]
pub(crate) struct Policy {
    /// Open destinations: a network and ports, as 10.0.0.0/8:5432, [2001:db8::/32]:80-443 or `*`, or a name, as
    /// example.com or *.example.com:443. May be repeated; of all rules, the most specific one decides. The machine's loopback and link-local addresses are closed otherwise.
    #[arg(long, value_name = "NETWORK[:PORTS]")]
    allow: Vec<String>,
    /// Refuse destinations, with the ICMP error that says so. May be repeated.
    #[arg(long, value_name = "NETWORK[:PORTS]")]
    deny: Vec<String>,
    /// Drop what goes to destinations, without an answer. May be repeated.
    #[arg(long, value_name = "NETWORK[:PORTS]")]
    drop: Vec<String>,
    /// Who answers queries of names: `host`, the servers of this machine; `none`; or a server. May be repeated.
    #[arg(long, value_name = "host|none|ADDRESS[:PORT]", default_value = "host")]
    dns: Vec<Server>,
    /// Let connections leave by a proxy: socks5://ADDRESS:PORT, or http://ADDRESS:PORT with CONNECT.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Lead clients of a port of this machine inside: 8080:80, 0.0.0.0:8080:80 for those of other machines, too, or
    /// 5353:53/udp. The address of the client is kept. May be repeated.
    #[arg(short, long, value_name = "[ADDRESS:]PORT[:PORT][/udp]")]
    publish: Vec<String>,
}

/// An argument of `--dns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Host,
    None,
    At(SocketAddr),
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Server, String> {
        match text {
            "host" => return Ok(Server::Host),
            "none" => return Ok(Server::None),
            _ => {}
        }
        let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        let address = address.or_else(|_| text.parse::<SocketAddr>());
        address
            .map(Server::At)
            .map_err(|_| "expected `host`, `none` or an address, as 9.9.9.9 or 9.9.9.9:53".to_owned())
    }
}

impl Policy {
    /// A gateway with these options. `localhost` are the ports of 127.0.0.1 that lead to this machine. The published ports
    /// are taken at once.
    pub(crate) fn builder(&self, localhost: &[u16]) -> Result<GatewayBuilder, Failure> {
        let mut builder = Gateway::builder().dns(self.servers()?).localhost(!localhost.is_empty());
        let options = [
            ("--deny", Action::Deny, &self.deny),
            ("--drop", Action::Drop, &self.drop),
            ("--allow", Action::Allow, &self.allow),
        ];
        for (option, action, networks) in options {
            for network in networks {
                let rule = Rule::new(action, network);
                builder = builder.rule(rule.map_err(|e| Failure::usage(format!("{option} {e}")))?);
            }
        }
        for port in localhost {
            let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *port);
            builder = builder.rule(Rule::allow(loopback));
        }
        if let Some(text) = &self.upstream {
            let proxy = text.parse().map_err(|e| Failure::usage(format!("--upstream {e}")))?;
            builder = builder.proxy(proxy);
        }
        let forwards = self.publish.iter().map(|text| text.parse::<Forward>());
        let forwards = forwards.collect::<Result<Vec<_>, _>>();
        for forward in forwards.map_err(|e| Failure::usage(format!("--publish {e}")))? {
            let text = format!("--publish {forward}");
            builder = builder.forward(forward).map_err(|e| Failure::system(text, e))?;
        }
        Ok(builder)
    }

    fn servers(&self) -> Result<Dns, Failure> {
        match self.dns[..] {
            [Server::Host] => Ok(Dns::Host),
            [Server::None] => Ok(Dns::None),
            _ => {
                let address = |server: &Server| match server {
                    Server::At(address) => Ok(*address),
                    _ => Err(Failure::usage("--dns: expected `host` or `none` alone, or addresses")),
                };
                self.dns.iter().map(address).collect::<Result<_, _>>().map(Dns::Servers)
            }
        }
    }

    /// Returns whether queries of names are answered.
    pub(crate) fn has_dns(&self) -> bool {
        self.dns != [Server::None]
    }
}
