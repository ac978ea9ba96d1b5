//! A network of one's own: the stack, and how it is started and closed.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use steadfast_core::counters::Counters;
use steadfast_core::info::{Diagnosis, SocketEntry, Usage};
use steadfast_core::steer::Steering;
use steadfast_core::{Config, Error, Instant, Interface, Stack};
use steadfast_device::Device;

use crate::driver::Driver;
use crate::queue::Exchange;
use crate::shared::{Handle, Phase, Shared, State, Waiting, into_io};

/// A TCP/IP stack on a device, with the task that drives it. Clones are handles of the same network.
///
/// On a device with several queues there is a stack behind each, and connections are spread over them: see
/// [`Builder::start_queues`].
///
/// When all handles, listeners and streams are dropped, the driver ends as soon as the last connection has
/// ended in good order, if the runtime lives so long; [`close`](Net::close) waits for that.
#[derive(Clone, Debug)]
pub struct Net {
    /// One for each queue of the device.
    stacks: Arc<[Arc<Handle>]>,
    /// Counts connects, so that they are spread over the stacks.
    turn: Arc<AtomicUsize>,
}

impl Net {
    /// Begins to describe a network.
    pub fn builder() -> Builder {
        Builder { config: Config::default(), addresses: Vec::new(), secret: None }
    }

    /// Ends the network: listeners close, nothing new begins, and what was written is delivered. Returns when no
    /// stream is held any more and every peer has acknowledged all that was written, and the end of it. A peer that
    /// then holds its own half open is not waited for, nor is TIME-WAIT; it is not reset either, for it may not have
    /// read everything yet.
    ///
    /// Streams that the application still holds go on until it drops them. What is left after `limit` is reset,
    /// orphans too, and the error is then `TimedOut`; with [`Duration::MAX`], TCP's own limits decide when a peer is
    /// lost. A stream that is held beyond that gives the bytes that had arrived, then the error `NetworkDown`. If the
    /// device failed, the error says how.
    pub async fn close(&self, limit: Duration) -> io::Result<()> {
        self.stacks.iter().for_each(|stack| Net::begin_to_close(stack, limit));
        self.closed().await
    }

    /// Waits until the network has ended, and says how: with an error if the device failed, if the driver panicked or
    /// was dropped, and `TimedOut` if [`close`](Net::close) had to cut something off.
    pub async fn closed(&self) -> io::Result<()> {
        let mut result = Ok(());
        for stack in self.stacks.iter() {
            result = result.and(Net::ended(stack).await);
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
                // It can only fail because the listener is gone, which is what is wanted.
                let _ = state.stack.close(now, id);
                if let Some(Waiting::Listener(arrivals)) = state.sockets.remove(id) {
                    waiting.push(arrivals);
                }
            }
            state.work = true;
            waiting
        });
        waiting.iter().for_each(|arrivals| arrivals.notify_waiters());
    }

    async fn ended(stack: &Handle) -> io::Result<()> {
        loop {
            let mut ended = pin!(stack.ended.notified());
            ended.as_mut().enable();
            if let Some(end) = stack.lock().end() {
                return end;
            }
            ended.await;
        }
    }

    /// What the stack counted.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        self.stacks.iter().for_each(|stack| counters.add(stack.lock().stack.counters()));
        counters
    }

    /// How full its tables are.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.stacks.iter().for_each(|stack| usage.add(&stack.lock().stack.usage()));
        usage
    }

    /// All that `ss -a` would show: listeners, half-open, connections, orphans, TIME-WAIT.
    pub fn sockets(&self) -> Vec<SocketEntry> {
        self.stacks.iter().flat_map(|stack| stack.call(|state, now| state.stack.sockets(now))).collect()
    }

    /// Connections that the application seems to have forgotten: in CLOSE-WAIT for longer than `older_than`.
    pub fn diagnose(&self, older_than: Duration) -> Vec<Diagnosis> {
        let stacks = self.stacks.iter();
        stacks.flat_map(|stack| stack.call(|state, now| state.stack.diagnose(now, older_than))).collect()
    }

    /// Adds an address; what listens on all addresses answers there too.
    pub fn add_address(&self, address: impl Into<IpAddr>, prefix_len: u8) {
        let address = address.into();
        self.stacks
            .iter()
            .for_each(|stack| stack.call(|state, _| state.stack.add_address(address, prefix_len)));
    }

    /// All stacks, in their order.
    pub(crate) fn all_stacks(&self) -> &[Arc<Handle>] {
        &self.stacks
    }

    /// All stacks, beginning with another one each time.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = &Arc<Handle>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.stacks.len();
        self.stacks[turn..].iter().chain(&self.stacks[..turn])
    }
}

/// A call that begins something new.
pub(crate) fn begin<R>(
    stack: &Handle,
    call: impl FnOnce(&mut State, Instant) -> Result<R, Error>,
) -> io::Result<R> {
    stack.call(|state, now| {
        state.check_open()?;
        state.work = true;
        call(state, now).map_err(into_io)
    })
}

/// What a [`Net`] is to be like.
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
    addresses: Vec<(IpAddr, u8)>,
    secret: Option<[u8; 32]>,
}

impl Builder {
    /// Timers and limits. The secret in it does not count: it is drawn anew, see [`secret`](Builder::secret).
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// An address of the stack, with the length of its prefix. At least one is needed.
    pub fn address(mut self, address: impl Into<IpAddr>, prefix_len: u8) -> Builder {
        self.addresses.push((address.into(), prefix_len));
        self
    }

    /// Fixes what all chance comes from, so that a test can be repeated. Never share it between stacks on a
    /// real network: sequence numbers and cookies could be guessed.
    pub fn secret(mut self, secret: [u8; 32]) -> Builder {
        self.secret = Some(secret);
        self
    }

    /// Starts the network on `device`; its driver runs as a task of the current Tokio runtime.
    ///
    /// Errors: no address was given, the MTU of the device is too small for the addresses, or the system has no
    /// entropy to draw the secret from.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    pub fn start(self, device: impl Device) -> io::Result<Net> {
        let (net, driver) = self.build(device)?;
        tokio::spawn(driver);
        Ok(net)
    }

    /// As [`start`](Builder::start), but leaves it to the caller where the driver runs. Nothing moves before it
    /// is polled.
    pub fn build<D: Device>(self, device: D) -> io::Result<(Net, Driver<D>)> {
        let (net, mut drivers) = self.build_queues(vec![device])?;
        Ok((net, drivers.swap_remove(0)))
    }

    /// Starts the network on all queues of one device, with a stack and a task for each. Listeners take connections
    /// from all of them, and what a stack connects comes back to it. On a runtime with several threads the queues
    /// work at the same time. Limits, as that of half-open connections, are those of one stack.
    ///
    /// # Panics
    ///
    /// As [`start`](Builder::start), and where there is no queue at all.
    pub fn start_queues<D: Device>(self, queues: Vec<D>) -> io::Result<Net> {
        let (net, drivers) = self.build_queues(queues)?;
        for driver in drivers {
            tokio::spawn(driver);
        }
        Ok(net)
    }

    fn build_queues<D: Device>(self, queues: Vec<D>) -> io::Result<(Net, Vec<Driver<D>>)> {
        let capabilities = queues.first().expect("a device has a queue").capabilities();
        self.check(capabilities.mtu)?;
        let mut config = self.config;
        config.secret = self.secret.map_or_else(draw_secret, Ok)?;
        let mut interface = Interface::new(capabilities.mtu, self.addresses);
        interface.segmentation_offload = capabilities.segmentation_offload;
        interface.checksum_offload = capabilities.checksum_offload;
        let count = u16::try_from(queues.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let steering = Steering::new(&config.secret, count);
        let mut exchanges = if count > 1 { Exchange::all(steering, count) } else { Vec::new() }.into_iter();
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
        Ok((Net { stacks: stacks.into(), turn: Arc::default() }, drivers))
    }

    fn check(&self, mtu: u16) -> io::Result<()> {
        let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.addresses.is_empty() {
            return invalid("a network needs at least one address".to_owned());
        }
        for &(address, prefix_len) in &self.addresses {
            let (longest, smallest_mtu) = if address.is_ipv4() { (32, 68) } else { (128, 1280) };
            if prefix_len > longest {
                return invalid(format!("{address}/{prefix_len}: expected a prefix of at most {longest}"));
            }
            if mtu < smallest_mtu {
                return invalid(format!(
                    "{address} needs an MTU of at least {smallest_mtu}, the device has {mtu}"
                ));
            }
        }
        Ok(())
    }
}

/// Without entropy there is no safe initial sequence number, so the stack does not start.
fn draw_secret() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| io::Error::other(format!("the system has no entropy: {e}")))?;
    Ok(secret)
}
