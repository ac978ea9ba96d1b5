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
    /// Segments that had not, where they are counted.
    pub(crate) segments_left: Option<u32>,
    pub(crate) phase: CaState,
}

impl Before {
    #[inline]
    pub(crate) fn of(connection: &Connection) -> Before {
        let (una, flight) = (connection.tcb.snd.una, connection.flight());
        let (left, phase) =
            connection.flight.as_ref().map_or((0, CaState::Open), |flight| (flight.left(), flight.phase));
        let segments_left = connection.rare.as_ref().and_then(|_| connection.segments_left());
        Before { una, flight, left, segments_left, phase }
    }
}
