//! The link between the kernel and its peer.

use std::net::IpAddr;

use steadfast_device::{Tun, TunOptions};
use tokio::runtime::{Builder, Runtime};

use crate::Error;

/// A TUN device in the network namespace of this thread, and the runtime that it is registered with.
pub struct Link {
    /// The device. Its far end is the peer.
    pub tun: Tun,
    /// The runtime; it must outlive the device.
    pub runtime: Runtime,
}

impl Link {
    /// Creates the device. The kernel has these addresses, and sends everything of the versions of `everything`
    /// through it.
    pub fn open(
        name: &str,
        mtu: u16,
        addresses: Vec<(IpAddr, u8)>,
        everything: IpAddr,
    ) -> Result<Link, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::system("cannot start the runtime"))?;
        let mut options = TunOptions::new(name);
        options.mtu = Some(mtu);
        options.host = addresses;
        // Faults and scripts apply to packets as on a wire.
        options.offload = false;
        options.routes = vec![(everything, 0)];
        let tun = runtime.block_on(Tun::open(&options))?;
        Ok(Link { tun, runtime })
    }
}
