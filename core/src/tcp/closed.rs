//! CLOSED: a segment for no connection and no listener (RFC 9293 §3.10.7.1).

use super::segment::Segment;
use crate::counters::{DropReason, ReplyReason};

/// SA-CLOSED-01 to -03: everything but a RST is answered by a RST.
pub(crate) fn segment_arrives(segment: &Segment<'_>) -> Result<ReplyReason, DropReason> {
    if segment.flags().rst() {
        return Err(DropReason::RstUnmatched);
    }
    Ok(ReplyReason::RstClosed)
}
