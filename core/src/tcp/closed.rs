//! CLOSED: a segment for no connection and no listener (RFC 9293 §3.10.7.1).

use super::segment::{Answer, Segment};
use crate::counters::{DropReason, ReplyReason};

/// SA-CLOSED-01 to -03: everything but a RST is answered by a RST.
pub(crate) fn segment_arrives(segment: &Segment<'_>) -> Result<Answer, DropReason> {
    if segment.flags().rst() {
        return Err(DropReason::RstUnmatched);
    }
    Ok(Answer::rst_to(segment, ReplyReason::RstClosed))
}
