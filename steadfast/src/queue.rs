//! Several queues of one device, each with a stack of its own.
//!
//! A keyed hash of the 4-tuple selects the stack that owns a packet. A device steers a connection by the queue that
//! transmitted its last packet. So only the first packets of a connection may arrive at another queue, which hands them
//! over.

use std::sync::Arc;
use std::task::{Context, Poll};

use steadfast_core::Bytes;
use steadfast_core::steer::{Steer, Steering};
use tokio::sync::mpsc::{self, error::TrySendError};

/// A packet that arrived at another queue.
pub(crate) struct Handed {
    pub(crate) bytes: Bytes,
    pub(crate) checksum_trusted: bool,
}

/// A queue's channels to and from the other queues.
pub(crate) struct Exchange {
    steering: Steering,
    index: u16,
    incoming: mpsc::Receiver<Handed>,
    outgoing: Arc<[mpsc::Sender<Handed>]>,
}

impl Exchange {
    /// One exchange per queue. `queues` must be the number of stacks that `steering` was made for. At most
    /// `max_backlog` packets of other queues wait for each queue; beyond that they are dropped.
    pub(crate) fn all(steering: Steering, queues: u16, max_backlog: usize) -> Vec<Exchange> {
        let (outgoing, incoming): (Vec<_>, Vec<_>) = (0..queues).map(|_| mpsc::channel(max_backlog)).unzip();
        let outgoing: Arc<[_]> = outgoing.into();
        let exchange = |(index, incoming)| Exchange { steering, index, incoming, outgoing: outgoing.clone() };
        (0..).zip(incoming).map(exchange).collect()
    }

    /// Takes the next packet that another queue handed over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Handed> {
        match self.incoming.poll_recv(cx) {
            Poll::Ready(handed) => handed,
            Poll::Pending => None,
        }
    }

    /// Hands a packet over to the queues that own it. Returns true if this queue is one of them. Adds to `dropped` for
    /// each other owner that is full.
    pub(crate) fn keeps(&self, packet: &[u8], checksum_trusted: bool, dropped: &mut u64) -> bool {
        let mut hand_to = |index: u16| {
            let queue = &self.outgoing[usize::from(index)];
            match queue.try_reserve() {
                Ok(place) => place.send(Handed { bytes: Bytes::copy_from_slice(packet), checksum_trusted }),
                Err(TrySendError::Full(())) => *dropped += 1,
                // Its stack has ended.
                Err(TrySendError::Closed(())) => {}
            }
        };
        match self.steering.steer(packet) {
            Steer::Any => true,
            Steer::To(index) if index == self.index => true,
            Steer::To(index) => {
                hand_to(index);
                false
            }
            Steer::All => {
                (0..self.outgoing.len() as u16).filter(|index| *index != self.index).for_each(&mut hand_to);
                true
            }
        }
    }
}
