//! The state before an ACK, with which the state after it is compared.

use crate::seq::SeqNum;
use crate::state::CaState;
use crate::tcp::tcb::Connection;

/// It is taken before an ACK, or before a timer detects losses.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    pub(crate) una: SeqNum,
    pub(crate) flight: u32,
    /// Bytes above SND.UNA that had left the network.
    pub(crate) left: u32,
    pub(crate) phase: CaState,
}

impl Before {
    #[inline]
    pub(crate) fn of(connection: &Connection) -> Before {
        let (una, flight) = (connection.tcb.snd.una, connection.flight());
        let (left, phase) =
            connection.flight.as_ref().map_or((0, CaState::Open), |flight| (flight.left(), flight.phase));
        Before { una, flight, left, phase }
    }

    /// Nothing showed loss or reordering.
    pub(crate) fn is_calm(&self) -> bool {
        self.left == 0 && self.phase == CaState::Open
    }
}
