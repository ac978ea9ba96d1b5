//! A thread with a runtime for each queue of a device.

use std::future::Future;
use std::io;
use std::thread;

use steadfast_device::Device;
use tokio::runtime::{Builder, Runtime};

use super::{Net, NetBuilder};
use crate::driver::Driver;

/// The part of a network behind one queue of its device, with a runtime of its own that does not work yet. See
/// [`NetBuilder::build_threads`].
#[must_use = "a queue carries nothing until it is started"]
pub struct QueueThread<D: Device> {
    net: Net,
    driver: Driver<D>,
    runtime: Waiting,
}

/// A runtime that nothing runs on yet. Unlike others, it may be dropped within another one.
struct Waiting(Option<Runtime>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl<D: Device> QueueThread<D> {
    /// Returns this part of the network. Listeners and forwarders that are bound to it take the connections of this queue
    /// alone. Those that are bound to the whole network take them, too, wherever they run.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Starts a thread, whose runtime drives the queue and runs `task`. It ends with both of them, and ends what the task
    /// has spawned.
    ///
    /// # Errors
    ///
    /// The system has no thread.
    pub fn start(self, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let QueueThread { net, driver, mut runtime } = self;
        // It ends with its last handle.
        drop(net);
        let run = move || {
            if let Some(runtime) = runtime.0.take() {
                // The network tells its handles how it ended.
                let _ended = runtime.block_on(async { tokio::join!(driver, task) });
            }
        };
        thread::Builder::new().name("queue".to_owned()).spawn(run).map(drop)
    }
}

impl NetBuilder {
    /// Makes the network on several queues of one device, with a stack and a current-thread runtime for each of them, and
    /// starts none. A connection then lives on one thread, from its packets to the tasks that serve it, and nothing of it
    /// crosses threads:
    ///
    /// ```
    /// use steadfast::{Net, TcpListener, device};
    ///
    /// # async fn serve(listener: TcpListener) {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let ((left, _guest), (right, _other)) = (device::memory::pair(1500), device::memory::pair(1500));
    /// # let mut devices = vec![left, right];
    /// # let open = || Ok(devices.pop().unwrap());
    /// // `open` opens the next queue of the device.
    /// let (net, queues) = Net::builder().address([10, 9, 0, 1], 24).build_threads(2, open)?;
    /// for queue in queues {
    ///     let listener = TcpListener::bind(queue.net(), "10.9.0.1:80").await?;
    ///     queue.start(async move { serve(listener).await })?;
    /// }
    /// # net.close(std::time::Duration::ZERO).await
    /// # }
    /// ```
    ///
    /// `open` is called for each queue, within its runtime.
    ///
    /// # Errors
    ///
    /// As [`start_queues`](NetBuilder::start_queues), those of `open`, and that of the system if it has no runtime.
    ///
    /// # Panics
    ///
    /// Panics if `queues` is 0.
    pub fn build_threads<D: Device>(
        self,
        queues: usize,
        mut open: impl FnMut() -> io::Result<D>,
    ) -> io::Result<(Net, Vec<QueueThread<D>>)> {
        let mut runtimes = Vec::with_capacity(queues);
        let mut devices = Vec::with_capacity(queues);
        for _ in 0..queues {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            runtimes.push(Waiting(Some(runtime)));
            let entered = handle.enter();
            let device = open()?;
            drop(entered);
            devices.push((device, Some(handle)));
        }
        let (net, drivers) = self.build_queues(devices)?;
        let parts = net.parts().zip(drivers).zip(runtimes);
        let queues = parts.map(|((net, driver), runtime)| QueueThread { net, driver, runtime }).collect();
        Ok((net, queues))
    }
}
