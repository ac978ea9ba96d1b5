//! Servers of the kernel behind a long path.

use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use steadfast::device::Device;
use steadfast_kernel::namespace;
use steadfast_lab::path::Setup;
use tokio::runtime;
use tokio::sync::mpsc as async_mpsc;

use super::emulator::{Emulator, Order};
use super::rig::{KERNEL, RECEIVER, open, set_up_namespace};

/// A network behind a path without losses. It ends with this.
pub(crate) struct Distant {
    _orders: async_mpsc::UnboundedSender<Order>,
    /// The thread that keeps the namespace.
    _keeper: mpsc::Sender<()>,
}

impl Distant {
    /// The address of its servers.
    pub(crate) const ADDRESS: Ipv4Addr = KERNEL;

    /// Makes a namespace in which `serve` starts servers, and a device in that of this thread which leads there.
    pub(crate) fn new(
        one_way: Duration,
        serve: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Distant> {
        let devices = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let near = open(devices.handle(), "path0", RECEIVER)?;
        let (ready, started) = mpsc::channel();
        let (keeper, ended) = mpsc::channel::<()>();
        let handle = devices.handle().clone();
        thread::spawn(move || {
            let start = || {
                namespace::enter()?;
                set_up_namespace()?;
                let far = open(&handle, "path1", KERNEL)?;
                serve().map(|()| far)
            };
            ready.send(start()).ok();
            ended.recv().ok();
        });
        let far = started.recv().map_err(|_| io::Error::other("the thread of the servers has ended"))??;
        let (orders, taken) = async_mpsc::unbounded_channel();
        thread::spawn(move || {
            let far: Vec<(Ipv4Addr, Box<dyn Device>)> = vec![(KERNEL, Box::new(far))];
            let ended = devices.block_on(async { Emulator::new(Box::new(near), far, taken)?.run().await });
            if let Err(error) = ended {
                eprintln!("the emulator ended: {error}");
            }
        });
        let path = || Box::new(Setup { delay: one_way, ..Setup::default() });
        let begun = orders.send(Order::Begin { down: path(), up: path(), seed: 1 });
        begun.map_err(|_| io::Error::other("the emulator has ended"))?;
        Ok(Distant { _orders: orders, _keeper: keeper })
    }
}
