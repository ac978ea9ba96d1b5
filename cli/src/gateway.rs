//! `steadfast gateway`: carries the traffic of a namespace, a container or a virtual machine.

mod control;
mod place;

use std::sync::Arc;

use clap::Args;
use steadfast::ControlSocket;
use steadfast_gateway::GatewayBuilder;
use tokio::signal::unix::{SignalKind, signal};

use self::place::{Opened, Place};
use crate::attach::CLOSE_LIMIT;
use crate::cage;
use crate::control::ControlOptions;
use crate::failure::Failure;
use crate::faults::{FaultOptions, Plan};
use crate::policy::Policy;
use crate::run::{QueueOptions, offered_subnet, raise_file_limit, report, warn};

/// Device, rules and records of a gateway.
#[derive(Args)]
pub(crate) struct Gateway {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    policy: Policy,
    #[command(flatten)]
    faults: FaultOptions,
    #[command(flatten)]
    queues: QueueOptions,
    /// MTU of the guests' network, where the interface does not say it.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..))]
    mtu: u16,
    #[command(flatten)]
    control: ControlOptions,
    /// Say on standard error at the end what the gateway did, and how often each fault hit.
    #[arg(long)]
    report: bool,
    /// Say on standard error when the gateway is ready.
    #[arg(short, long)]
    verbose: bool,
}

impl Gateway {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        // Everything that the user gave is checked before anything is started.
        let subnet = offered_subnet();
        let builder = self.policy.builder(&[])?.subnet(subnet).fixed_guest(self.place.is_namespace());
        let plan = self.faults.plan(subnet.guest())?;
        let queues = self.queues.check(&plan)?;
        raise_file_limit();
        let control = self.control.bind()?;
        let opened = self.place.open(subnet, self.mtu, plan.offload(), queues)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::system("cannot start the runtime", e))?;
        let carried = runtime.block_on(self.carry(opened, control, builder, &plan));
        runtime.shutdown_background();
        carried
    }

    /// Carries traffic until it is told to stop or the device ends.
    async fn carry(
        &self,
        mut opened: Opened,
        control: Option<ControlSocket>,
        builder: GatewayBuilder,
        plan: &Plan<'_>,
    ) -> Result<(), Failure> {
        let failed = |e| Failure::system("cannot watch for signals", e);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let process = opened.take_process();
        cage::shut()?;
        // Its thread is in the cage, too.
        let process = process.map(place::end_of).transpose();
        let process = process.map_err(|e| Failure::system("cannot watch the process", e))?;
        let gone = async {
            match process {
                // Without a word it is gone, too.
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        let (gateway, lost) = opened.start(builder, self.mtu, plan).await?;
        let gateway = Arc::new(gateway);
        if let Some(socket) = control {
            let (carried, lost) = (gateway.clone(), lost.clone());
            let answer = move |line: &str| control::answer(line, &carried, &lost);
            let served = gateway.net().serve_control_with(socket, answer);
            served.map_err(|e| Failure::system("--control", e))?;
        }
        plan.start();
        if self.verbose {
            eprintln!("steadfast: the gateway is ready");
        }
        let ended = tokio::select! {
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            () = gone => None,
            ended = gateway.closed() => Some(ended),
        };
        if ended.is_none() {
            // Those that are left are reset, which is no failure.
            let _ = gateway.close(CLOSE_LIMIT).await;
        }
        if self.report {
            let lost = lost.told().into_iter().chain(plan.hits());
            eprintln!("steadfast: {}", report(&gateway.counters(), &lost.collect::<Vec<_>>()));
        }
        warn(&gateway.counters());
        plan.finish()?;
        match ended {
            Some(Err(error)) => Err(Failure::connection("the device has ended", error)),
            _ => Ok(()),
        }
    }
}
