//! A host that does not run for a while, as a stopped process or a virtual machine without CPU time.

use steadfast_core::Instant;
use steadfast_timeline::Fate;

use super::{Network, SimEvent};
use crate::fault::FaultKind;

/// A stall of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    host: usize,
    until: Instant,
    /// Packets that wait in its driver.
    waiting: u32,
}

impl Network {
    /// Begins a stall.
    pub(super) fn stall(&mut self, fault: &FaultKind) {
        let FaultKind::Stall { host, until, .. } = fault else { return };
        let Some(host) = self.names.iter().position(|name| name == host) else { return };
        // A TCP that is not ours cannot be stopped.
        if self.hosts[host].is_foreign() {
            return;
        }
        self.timeline.note(self.now, Some(host), || format!("stalls until {until}"));
        self.stalls.retain(|stall| stall.host != host);
        self.stalls.push(Stall { host, until: *until, waiting: 0 });
    }

    /// Returns `what` if its host runs. Otherwise postpones it to the end of the stall, or drops it.
    pub(super) fn unless_stalled(&mut self, what: SimEvent) -> Option<SimEvent> {
        let (SimEvent::Deliver { host, .. } | SimEvent::Timer { host } | SimEvent::Wake { host }) = what
        else {
            return Some(what);
        };
        let now = self.now;
        let stall = self.stalls.iter_mut().find(|stall| stall.host == host && now < stall.until);
        let Some(stall) = stall.filter(|_| self.hosts[host].is_up()) else { return Some(what) };
        let until = stall.until;
        match &what {
            SimEvent::Deliver { entry, .. }
                if stall.waiting >= self.hosts[host].config.netdev_max_backlog =>
            {
                self.timeline.fate(*entry, Fate::Lost("netdev_max_backlog".to_owned()));
                if let Some(stack) = &mut self.hosts[host].stack {
                    stack.count_backlog_drops(1);
                }
                return None;
            }
            SimEvent::Deliver { .. } => stall.waiting += 1,
            SimEvent::Timer { .. } => self.hosts[host].timer = Some(until),
            _ => self.hosts[host].wake = Some(until),
        }
        self.schedule(until, what);
        None
    }
}
