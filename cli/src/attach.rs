//! The options of the device and of the stack's addresses, shared by all commands that carry traffic.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use steadfast::device::{Device, Tun, TunOptions};
use steadfast::stack::prefix_covers;
use steadfast::{Config, Net};

use crate::capture::{Capture, Captured};
use crate::control::ControlOptions;
use crate::failure::Failure;
use crate::settings::SettingOptions;
use crate::status;

/// How long a server waits for connections to close in good order after it is told to stop.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Device and stack.
#[derive(Args)]
pub(crate) struct Attach {
    /// TUN device; created, and removed at the end, unless it exists.
    #[arg(long, value_name = "NAME", default_value = "steadfast0")]
    tun: String,
    /// Address of the kernel's end with its prefix, such as 10.9.0.1/24. May be repeated.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    host: Vec<Cidr>,
    /// Address of the stack's end, such as 10.9.0.2. May be repeated.
    #[arg(long, value_name = "ADDRESS[/PREFIX]", required = true)]
    address: Vec<Cidr>,
    /// MTU in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(68..))]
    mtu: u16,
    /// Queues of the device, each with its own stack and task.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    queues: u16,
    /// Let the kernel split segments and fill in checksums: `auto` if it can, `off` never.
    #[arg(long, value_enum, default_value_t = Offload::Auto)]
    offload: Offload,
    #[command(flatten)]
    settings: SettingOptions,
    #[command(flatten)]
    control: ControlOptions,
    /// Write all packets of the device to a pcapng file.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// Who splits segments and fills in checksums.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Offload {
    /// The kernel if it can, otherwise the stack.
    Auto,
    /// The stack.
    Off,
}

/// A stack that is attached to a device.
pub(crate) struct Attached {
    pub(crate) net: Net,
    /// The device's name.
    pub(crate) tun: String,
    /// The stack's addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its settings.
    pub(crate) config: Config,
}

impl Attach {
    /// Checks all options, and only then opens the device.
    pub(crate) async fn open(&self) -> Result<Attached, Failure> {
        let config = self.settings.config()?;
        let addresses = self.addresses()?;
        let capture = self.pcap.as_deref().map(Capture::create).transpose()?;
        let control = self.control.bind()?;

        let mut options = TunOptions::new(&self.tun);
        options.mtu = Some(self.mtu);
        options.queue_len = Some(QUEUE_LEN);
        options.offload = self.offload == Offload::Auto;
        options.host = self.host.iter().map(|h| (h.address, h.prefix_len.unwrap_or(h.longest()))).collect();
        let unreached = addresses.iter().filter(|(a, _)| !self.host.iter().any(|h| h.contains(*a)));
        options.routes = unreached.map(|(a, _)| (*a, if a.is_ipv4() { 32 } else { 128 })).collect();
        let queues = Tun::open_queues(&options, self.queues.into()).await;
        let queues = queues.map_err(|e| Failure::System(e.to_string()))?;
        let tun = queues[0].name().to_owned();
        if options.offload && !queues[0].capabilities().segmentation_offload {
            eprintln!("steadfast: {tun} has no segmentation offload: every segment is cut and summed here");
        }
        let captured = |queue| match &capture {
            Some(file) => Box::new(Captured::new(queue, file.clone())) as Box<dyn Device>,
            None => Box::new(queue),
        };
        let queues: Vec<_> = queues.into_iter().map(captured).collect();

        let mut builder = Net::builder().config(config.clone());
        for &(address, prefix_len) in &addresses {
            builder = builder.address(address, prefix_len);
        }
        let net = builder.start_queues(queues).map_err(|e| Failure::system("cannot start the stack", e))?;
        if let Some(control) = control {
            net.serve_control(control).map_err(|e| Failure::system("--control", e))?;
        }
        status::print_on_signal(net.clone())?;
        Ok(Attached { net, tun, addresses: addresses.into_iter().map(|(a, _)| a).collect(), config })
    }

    /// The stack's addresses. A missing prefix length is that of the kernel's end.
    pub(crate) fn addresses(&self) -> Result<Vec<(IpAddr, u8)>, Failure> {
        let mut seen: HashSet<IpAddr> = HashSet::new();
        for host in &self.host {
            if host.prefix_len.is_none() {
                let text = format!("--host {0}: expected a prefix, as in {0}/24", host.address);
                return Err(Failure::usage(text));
            }
            seen.insert(host.address);
        }
        let mut addresses = Vec::new();
        for cidr in &self.address {
            let address = cidr.address;
            if !seen.insert(address) {
                return Err(Failure::usage(format!("--address {address}: this address was given before")));
            }
            if address.is_ipv6() && self.mtu < 1280 {
                let text = format!("--mtu {}: expected at least 1280, for {address} is IPv6", self.mtu);
                return Err(Failure::usage(text));
            }
            let host = self.host.iter().find(|h| h.contains(address)).and_then(|h| h.prefix_len);
            addresses.push((address, cidr.prefix_len.or(host).unwrap_or(cidr.longest())));
        }
        Ok(addresses)
    }
}

/// Limit of packets that the kernel queues towards the stack: the full receive windows of two connections.
const QUEUE_LEN: u32 = 2000;

/// An address and an optional prefix length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cidr {
    address: IpAddr,
    prefix_len: Option<u8>,
}

impl Cidr {
    fn longest(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Returns whether `other` is in its network.
    fn contains(&self, other: IpAddr) -> bool {
        prefix_covers(self.address, self.prefix_len.unwrap_or(self.longest()), other)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(s: &str) -> Result<Cidr, String> {
        let (address, prefix) = s.split_once('/').map_or((s, None), |(a, p)| (a, Some(p)));
        let address: IpAddr =
            address.parse().map_err(|_| "expected an address, as 10.9.0.1/24 or fd09::1/64".to_owned())?;
        let mut cidr = Cidr { address, prefix_len: None };
        if let Some(prefix) = prefix {
            let sound = prefix.parse().ok().filter(|&len| len <= cidr.longest());
            cidr.prefix_len =
                Some(sound.ok_or_else(|| format!("expected a prefix from 0 to {}", cidr.longest()))?);
        }
        Ok(cidr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_prefix_or_none() {
        assert_eq!(cidr("10.9.0.1/24").prefix_len, Some(24));
        assert_eq!(cidr("fd09::1").prefix_len, None);
        for (text, expected) in [
            ("10.9.0/24", "expected an address"),
            ("10.9.0.1/33", "expected a prefix from 0 to 32"),
            ("10.9.0.1/", "expected a prefix"),
            ("fd09::1/129", "expected a prefix from 0 to 128"),
            ("", "expected an address"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_network_contains_what_shares_its_prefix() {
        assert!(cidr("10.9.0.1/24").contains([10, 9, 0, 255].into()));
        assert!(!cidr("10.9.0.1/24").contains([10, 9, 1, 1].into()));
        assert!(cidr("0.0.0.0/0").contains([1, 2, 3, 4].into()));
        assert!(cidr("10.9.0.1").contains([10, 9, 0, 1].into()));
        assert!(!cidr("::/0").contains([1, 2, 3, 4].into()));
        assert!(cidr("fd09::1/64").contains("fd09::2".parse().unwrap()));
    }
}
