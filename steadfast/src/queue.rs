//! Several queues of one device, each with a stack of its own.
//!
//! Whose a packet is, a hash of its connection says. The device's own steering learns from what is written: after the
//! first packet of a connection, what arrives for it comes through the queue of its stack. What comes through another
//! one, as every first packet may, is handed over.

use std::sync::Arc;
use std::task::{Context, Poll};

use steadfast_core::Bytes;
use steadfast_core::steer::{Steer, Steering};
use tokio::sync::mpsc;

/// Packets that wait to be taken over by a queue; above it they are lost, as in a device that is full.
const WAITING: usize = 1024;

/// A packet that came through another queue.
pub(crate) struct Handed {
    pub(crate) bytes: Bytes,
    pub(crate) checksum_trusted: bool,
}

/// What a queue has of the others.
pub(crate) struct Exchange {
    steering: Steering,
    index: u16,
    incoming: mpsc::Receiver<Handed>,
    outgoing: Arc<[mpsc::Sender<Handed>]>,
}

impl Exchange {
    /// For as many queues as `steering` knows stacks.
    pub(crate) fn all(steering: Steering, queues: u16) -> Vec<Exchange> {
        let (outgoing, incoming): (Vec<_>, Vec<_>) = (0..queues).map(|_| mpsc::channel(WAITING)).unzip();
        let outgoing: Arc<[_]> = outgoing.into();
        let exchange = |(index, incoming)| Exchange { steering, index, incoming, outgoing: outgoing.clone() };
        (0..).zip(incoming).map(exchange).collect()
    }

    /// The next packet that another queue handed over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Handed> {
        match self.incoming.poll_recv(cx) {
            Poll::Ready(handed) => handed,
            Poll::Pending => None,
        }
    }

    /// Hands a packet over to whom it is for. Says whether it is for this queue as well.
    pub(crate) fn keeps(&self, packet: &[u8], checksum_trusted: bool) -> bool {
        let hand_to = |index: u16| {
            let handed = Handed { bytes: Bytes::copy_from_slice(packet), checksum_trusted };
            // One that is full loses it; one that has ended does not need it.
            self.outgoing[usize::from(index)].try_send(handed).ok();
        };
        match self.steering.steer(packet) {
            Steer::Any => true,
            Steer::To(index) if index == self.index => true,
            Steer::To(index) => {
                hand_to(index);
                false
            }
            Steer::All => {
                (0..self.outgoing.len() as u16).filter(|index| *index != self.index).for_each(hand_to);
                true
            }
        }
    }
}
