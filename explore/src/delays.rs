//! How long a run may take.

use steadfast_core::Duration;

use crate::fault::Fault;

/// How long a packet waits at most to be overtaken.
pub(crate) const OVERTAKING: Duration = Duration::from_millis(500);

/// The time that the faults of a run may cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delays {
    /// Packets for whose loss or absence a timer makes up.
    losses: u32,
    /// The timer has no round trip to go by: one was among the first, or a window was closed.
    pub(crate) slow: bool,
    /// Rounds that may wait for a delayed ACK.
    rounds: u32,
    /// Other costs.
    more: Duration,
}

impl Delays {
    /// Returns whether there was no fault.
    pub(crate) fn is_none(&self) -> bool {
        self.more.is_zero()
    }

    /// A fault befalls a packet.
    pub(crate) fn add(&mut self, fault: Fault, first: bool) {
        let more = match fault {
            Fault::Reorder => OVERTAKING,
            // A copy may draw an ACK, and that delay the next one.
            _ => Duration::from_millis(50),
        };
        self.more += more;
        // It stops a whole flight, which leaves again in slow start: one segment, two, four.
        self.rounds += if fault == Fault::Narrow { 3 } else { 0 };
        let forged = matches!(fault, Fault::Forge(_));
        let copies = matches!(fault, Fault::Duplicate | Fault::DuplicateLate | Fault::Mark | Fault::Fragment);
        self.losses += u32::from(!copies);
        self.slow |= first || forged;
    }

    /// A timer waits twice as long each time. `initial` and `min` are those of the RTO; half as much again and more are
    /// for the round trips and their variance. `delayed` is how long an ACK may be delayed.
    pub(crate) fn all(&self, initial: Duration, min: Duration, delayed: Duration) -> Duration {
        let first = if self.slow { initial.saturating_mul(3) / 2 } else { min.saturating_mul(7) / 4 };
        let doubled = 2u32.saturating_pow(self.losses).saturating_sub(1);
        self.more + delayed.saturating_mul(self.rounds) + first.saturating_mul(doubled)
    }
}
