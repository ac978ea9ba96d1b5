//! The devices of a network with several interfaces.
//!
//! A turn reads each device for its share of the batch. A packet goes to the device that the stack names. One that is full
//! keeps the others from nothing: its packets wait in a line of their own, at most `txqueuelen`.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

use steadfast_core::{Instant, InterfaceId, Stack, Transmit};
use steadfast_device::{Device, Frame};

use crate::batch::{Flow, Inbox, LATE, Outbox, frame};
use crate::shared::State;

/// A device beside the first.
pub(crate) struct Port {
    id: InterfaceId,
    device: Box<dyn Device>,
    inbox: Inbox,
    line: Line,
    /// It has failed: the interface goes.
    failed: bool,
}

/// The devices beside the first, and what waits for each of them.
#[derive(Default)]
pub(crate) struct Ports {
    ports: Vec<Port>,
    /// Packets that wait for the first device.
    first: Line,
    /// Packets dropped since the stack counted them.
    dropped: u64,
    limit: usize,
    /// When the packets that wait were last told to the stack.
    sent: Instant,
}

/// Packets that wait for a device.
#[derive(Default)]
struct Line(VecDeque<(Box<[u8]>, Transmit)>);

impl Line {
    /// Offers the device what waits. Fails with its error.
    fn flush(&mut self, cx: &mut Context<'_>, device: &mut impl Device) -> io::Result<()> {
        while let Some((bytes, packet)) = self.0.front() {
            match device.poll_send(cx, frame(bytes, packet)) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => return Ok(()),
            }
            self.0.pop_front();
        }
        Ok(())
    }

    /// Sends a packet behind those that wait. Returns false if it was dropped.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        device: &mut impl Device,
        (frame, packet): (Frame<'_>, Transmit),
        limit: usize,
    ) -> io::Result<bool> {
        if self.0.is_empty()
            && let Poll::Ready(sent) = device.poll_send(cx, frame)
        {
            return sent.map(|()| true);
        }
        let room = self.0.len() < limit;
        if room {
            let mut whole = Vec::new();
            frame.copy_to(&mut whole);
            self.0.push_back((whole.into(), packet));
        }
        Ok(room)
    }
}

impl Ports {
    /// Returns whether packets must be told apart by their interfaces.
    pub(crate) fn are_many(&self) -> bool {
        !self.ports.is_empty() || !self.first.0.is_empty()
    }

    fn add(&mut self, id: InterfaceId, device: Box<dyn Device>, max_backlog: usize) {
        let inbox = Inbox::new(device.capabilities().frame_len(), max_backlog, None);
        self.ports.push(Port { id, device, inbox, line: Line::default(), failed: false });
    }

    /// As [`Outbox::delay`], for the frames that wait in lines.
    pub(crate) fn delay(&mut self, now: Instant, stack: &mut Stack) {
        if self.are_many() && now.saturating_since(self.sent) >= LATE {
            self.sent = now;
            let lines = self.ports.iter().map(|port| &port.line).chain([&self.first]);
            for (bytes, packet) in lines.flat_map(|line| &line.0) {
                stack.delay(now, bytes, packet);
            }
        }
    }

    /// Delivers what the devices have read. Takes over new devices, and returns those whose interfaces are gone, if any
    /// came or went. The caller drops them with the lock released.
    pub(crate) fn mind(
        &mut self,
        now: Instant,
        state: &mut State,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) -> Option<Vec<Port>> {
        let mut gone = if self.are_many() { self.deliver(now, &mut state.stack) } else { Vec::new() };
        if !state.devices_changed && gone.is_empty() {
            return None;
        }
        state.devices_changed = false;
        let config = state.stack.config();
        let max_backlog = config.netdev_max_backlog as usize;
        self.limit = config.txqueuelen as usize;
        for (id, device) in state.new_devices.drain(..) {
            self.add(id, device, max_backlog);
        }
        gone.extend(self.take_removed(&state.stack));
        self.share(inbox, max_backlog);
        outbox.grow(state.stack.frame_len());
        Some(gone)
    }

    /// Takes away the devices whose interfaces the stack has no more.
    fn take_removed(&mut self, stack: &Stack) -> Vec<Port> {
        let there: Vec<_> = stack.interfaces().into_iter().map(|(id, _)| id).collect();
        self.ports.extract_if(.., |port| !there.contains(&port.id)).collect()
    }

    /// Lets all devices, the first included, share the packets of a turn.
    fn share(&mut self, first: &mut Inbox, max_backlog: usize) {
        let devices = self.ports.len() + 1;
        first.share(devices, max_backlog);
        self.ports.iter_mut().for_each(|port| port.inbox.share(devices, max_backlog));
    }

    /// Reads the devices. Returns `Limited` if one of them has more.
    pub(crate) fn fill(&mut self, cx: &mut Context<'_>, pressed: bool) -> Flow {
        let mut flow = Flow::Dry;
        for port in self.ports.iter_mut().filter(|port| !port.failed) {
            match port.inbox.fill(cx, &mut port.device, pressed) {
                Ok(Flow::Dry) => {}
                Ok(more) => flow = more,
                Err(_) => port.failed = true,
            }
        }
        flow
    }

    /// Delivers what was read, and removes the interfaces of failed devices. Returns those devices.
    fn deliver(&mut self, now: Instant, stack: &mut Stack) -> Vec<Port> {
        for port in &mut self.ports {
            port.inbox.deliver(now, stack, port.id);
        }
        stack.count_tx_drops(std::mem::take(&mut self.dropped));
        let failed: Vec<_> = self.ports.extract_if(.., |port| port.failed).collect();
        failed.iter().for_each(|port| _ = stack.remove_interface(port.id));
        failed
    }

    /// Sends all packets of the outbox, or lets them wait for their devices. Fails with the error of the first device.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut impl Device,
        outbox: &mut Outbox,
    ) -> io::Result<()> {
        self.first.flush(cx, first)?;
        for port in &mut self.ports {
            port.failed |= port.line.flush(cx, &mut port.device).is_err();
        }
        outbox.drain(|frame, packet| {
            let sent = if packet.interface == InterfaceId::FIRST {
                self.first.send(cx, first, (frame, packet), self.limit)?
            } else if let Some(port) = self.ports.iter_mut().find(|port| port.id == packet.interface) {
                let sent = port.line.send(cx, &mut port.device, (frame, packet), self.limit);
                port.failed |= sent.is_err();
                sent.unwrap_or(false)
            } else {
                // The interface has just been removed.
                false
            };
            self.dropped += u64::from(!sent);
            Ok(())
        })
    }

    /// Returns whether a device has failed, which the next turn must tell the stack.
    pub(crate) fn has_failed(&self) -> bool {
        self.ports.iter().any(|port| port.failed)
    }

    /// Each interface beside the first, with what its device has read, and whether that is Ethernet.
    #[cfg(all(feature = "control", unix))]
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = (InterfaceId, &Inbox, bool)> {
        let ethernet = |port: &Port| port.device.capabilities().ethernet.is_some();
        self.ports.iter().map(move |port| (port.id, &port.inbox, ethernet(port)))
    }

    /// Returns whether nothing waits for a device.
    pub(crate) fn all_sent(&self) -> bool {
        self.first.0.is_empty() && self.ports.iter().all(|port| port.line.0.is_empty())
    }
}
