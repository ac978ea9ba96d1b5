//! Differences that are meant to stay, each with its reason and a script that shows it.

use steadfast_core::Shutdown;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::wire::tcp::Flags;

#[cfg(test)]
use super::Class;
use super::steps::{Edge, Opening, SegmentStep, Step};
use super::{Done, Record, Script};

/// A difference that is meant to stay.
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The kernel's behaviour, and why the stack's is another.
    pub reason: &'static str,
    /// The opening of the smallest script that shows it, the pauses behind its steps in milliseconds, and the steps.
    opening: Opening,
    pause: u64,
    steps: fn() -> Vec<Step>,
    is: fn(&Difference<'_>) -> bool,
}

/// The first step at which two subjects differ.
struct Difference<'a> {
    /// The steps before it, which are the same.
    before: &'a [Done],
    step: &'a Step,
    /// The state in which it comes.
    state: &'a str,
    ours: &'a [String],
    theirs: &'a [String],
}

/// A segment that a subject sent, as its line tells it.
struct Sent<'a> {
    flags: &'a str,
    seq: u32,
    end: u32,
    ack: &'a str,
    options: &'a str,
}

impl Sent<'_> {
    fn of(line: &str) -> Option<Sent<'_>> {
        let (flags, rest) = line.strip_prefix("> ")?.split_once(' ')?;
        let (numbers, rest) = rest.split_once(") ack ")?;
        let (seq, end) = numbers.split_once('(')?.0.split_once(':')?;
        let (ack, options) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        Some(Sent { flags, seq: seq.parse().ok()?, end: end.parse().ok()?, ack, options })
    }

    fn is_rst(&self) -> bool {
        self.flags.contains('R')
    }

    fn is_pure_ack(&self) -> bool {
        self.flags == "." && self.seq == self.end
    }

    /// Whether it has data, or a FIN.
    fn has_text(&self) -> bool {
        !self.is_rst() && (self.seq < self.end || self.flags.contains('F'))
    }
}

impl Known {
    /// The smallest script that shows it.
    pub fn script(&self) -> Script {
        let steps = (self.steps)().into_iter().map(|step| (step, self.pause)).collect();
        Script { opening: self.opening, steps }
    }

    /// The row that the first difference of two runs belongs to.
    pub fn of(ours: &Record, theirs: &Record) -> Option<&'static Known> {
        let index = ours.first_difference(theirs).filter(|_| ours.opening.1 == theirs.opening.1)?;
        let (done, other) = (ours.steps.get(index)?, theirs.steps.get(index)?);
        let before = ours.steps.get(..index)?;
        let state = &done.class.0;
        let difference = Difference { before, step: &done.step, state, ours: &done.did, theirs: &other.did };
        KNOWN.iter().find(|known| (known.is)(&difference))
    }
}

impl Difference<'_> {
    fn segment(&self) -> Option<&SegmentStep> {
        match self.step {
            Step::Segment(segment) => Some(segment),
            _ => None,
        }
    }

    /// A segment beginning in the window ends beyond it: what each side reports as received begins at the same place, and
    /// ours ends at the edge. The kernel takes it whole, or drops it for its FIN.
    fn is_beyond_window(&self) -> bool {
        let beyond = self.segment().is_some_and(|segment| segment.seq == Edge::Right && segment.len > 0);
        let fin = self.segment().is_some_and(|segment| segment.flags.fin());
        let head = |line: &String| {
            let head = line.strip_suffix(":edge+0>").and_then(|line| line.rsplit_once(' '));
            head.map(|(head, _)| head.to_owned())
        };
        let further = |(ours, theirs): (&String, &String)| match head(ours) {
            Some(head) => theirs.starts_with(&head) && theirs.contains(":edge+"),
            None => ours == theirs,
        };
        beyond
            && match (self.ours, self.theirs) {
                ([ours], []) => fin && head(ours).is_some(),
                (ours, theirs) => ours.len() == theirs.len() && ours.iter().zip(theirs).all(further),
            }
    }

    /// All is the same but the SACK blocks of a RST.
    fn is_rst_with_blocks(&self) -> bool {
        let (Some((ours, first)), Some((theirs, same))) = (self.ours.split_last(), self.theirs.split_last())
        else {
            return false;
        };
        let bare = theirs.split_once(" <sack").map(|(bare, _)| bare);
        ours.starts_with("> R. ") && bare == Some(ours) && first == same
    }

    /// Ours acknowledges a FIN with what its ACK lets out, and the kernel just before.
    fn is_fin_acknowledged_first(&self) -> bool {
        let fin = self.segment().is_some_and(|segment| segment.flags.fin());
        let ([first, ..], [ack, theirs @ ..]) = (self.ours, self.theirs) else { return false };
        // The number where a line begins, and what follows its length.
        let ends = |line: &str| {
            let (_, line) = line.strip_prefix("> ")?.split_once(' ')?;
            let (seq, rest) = line.split_once(':')?;
            Some((seq.to_owned(), rest.split_once(") ")?.1.to_owned()))
        };
        let pure = ack.starts_with("> . ") && ack.contains("(0) ack ");
        fin && self.ours == theirs && pure && ends(ack).is_some_and(|ack| Some(ack) == ends(first))
    }

    /// Data in order has an old ACK: ours answers and drops it. The kernel has taken it, or kept another timestamp.
    fn is_data_with_old_ack(&self) -> bool {
        let old = |ack| matches!(ack, Edge::Below | Edge::FarBelow);
        let is = |s: &SegmentStep| s.len > 0 && s.seq == Edge::Left && old(s.ack) && s.flags.ack();
        let Some(segment) = self.segment().filter(|segment| is(segment)) else { return false };
        // The number after "ack", and the line without it and without the echoed timestamp.
        let parts = |line: &String| {
            let (line, _) = line.split_once(" <TS").unwrap_or((line, ""));
            let (head, ack) = line.split_once(") ack ")?;
            Some((head.to_owned(), ack.parse::<u32>().ok()?))
        };
        let pairs = || self.ours.iter().zip(self.theirs);
        let same = |(ours, theirs): (&String, &String)| match (parts(ours), parts(theirs)) {
            (Some(ours), Some(theirs)) => {
                ours.0 == theirs.0 && (theirs.1 == ours.1 || theirs.1 == ours.1 + u32::from(segment.len))
            }
            _ => false,
        };
        match (self.ours, self.theirs) {
            // Ours has just answered another invalid segment.
            ([], [theirs]) => theirs.starts_with("> . "),
            (ours, [ack, theirs @ ..]) if ours.len() == theirs.len() => {
                ack.starts_with("> . ") && ack.contains("(0) ack ") && ours.iter().zip(theirs).all(same)
            }
            (ours, theirs) => ours.len() == theirs.len() && pairs().all(same),
        }
    }

    /// A FIN lies below data, or another FIN, that came before: ours acknowledges the data, and the kernel only the FIN,
    /// later.
    fn is_fin_below_data(&self) -> bool {
        let below = |s: &SegmentStep| s.flags.fin() && matches!(s.seq, Edge::Left | Edge::Below);
        let gap = |s: &SegmentStep| matches!(s.seq, Edge::Within | Edge::Right);
        let above = |s: &SegmentStep| gap(s) && (s.len > 0 || s.flags.fin());
        let fin = self.segment().is_some_and(below);
        let last = self.before.iter().flat_map(|done| &done.did).rfind(|line| line.starts_with("> "));
        let gap = last.is_some_and(|line| line.contains("<sack"))
            || self.before.iter().any(|done| matches!(&done.step, Step::Segment(s) if above(s)));
        let answers = self.ours.len() == 1 && self.theirs.len() < 2 || self.is_other_ack(1..=1);
        fin && gap && answers
    }

    /// All is the same but SACK blocks and the number that is acknowledged: theirs is larger, by one of `more`.
    fn is_other_ack(&self, more: std::ops::RangeInclusive<u32>) -> bool {
        let parts = |line: &String| {
            let (head, rest) = line.split_once(") ack ")?;
            let ack = rest.split(' ').next()?;
            Some((head.to_owned(), ack.parse::<u32>().ok()?))
        };
        let same = |(ours, theirs): (&String, &String)| match (parts(ours), parts(theirs)) {
            (Some(ours), Some(theirs)) => ours.0 == theirs.0 && more.contains(&theirs.1.wrapping_sub(ours.1)),
            _ => ours == theirs,
        };
        self.ours.len() == self.theirs.len() && self.ours.iter().zip(self.theirs).all(same)
    }

    /// Theirs repairs before it looks at what the segment carries. Ours does so later, with the new ACK, or not at all if
    /// the segment ends the connection.
    fn is_repair_before_ack(&self) -> bool {
        let Some(segment) = self.segment().filter(|segment| segment.flags.ack()) else { return false };
        let Some(told) = self.sent_before().filter(|sent| !sent.is_rst()).last().map(|sent| sent.ack) else {
            return false;
        };
        let early = |line: &&String| Sent::of(line).is_some_and(|sent| sent.has_text() && sent.ack == told);
        let count = self.theirs.iter().take_while(early).count();
        let (repairs, rest) = self.theirs.split_at(count);
        if count == 0 || !self.has_repaired(repairs) {
            return false;
        }
        if rest == self.ours {
            return rest.first().and_then(|line| Sent::of(line)).is_some_and(|sent| sent.is_rst());
        }
        let (Some((same, later)), [ack, rest @ ..]) = (self.ours.split_at_checked(count), rest) else {
            return false;
        };
        let Some(pure) = Sent::of(ack).filter(Sent::is_pure_ack) else { return false };
        let most = u32::from(segment.len) + u32::from(segment.flags.fin());
        let moves = match (pure.ack.parse::<u32>(), told.parse::<u32>()) {
            (Ok(new), Ok(old)) => new.wrapping_sub(old) <= most,
            _ => false,
        };
        // SACK blocks take room, and theirs ends several segments at once with PSH.
        let begins = |(ours, theirs): (&String, &String)| match (Sent::of(ours), Sent::of(theirs)) {
            (Some(ours), Some(theirs)) => {
                (ours.flags.replace('P', ""), ours.seq) == (theirs.flags.replace('P', ""), theirs.seq)
                    && ours.end <= theirs.end
                    && (ours.ack, ours.options) == (pure.ack, pure.options)
            }
            _ => false,
        };
        moves && later == rest && same.iter().zip(repairs).all(begins)
    }

    /// The segments that both have sent before, in order.
    fn sent_before(&self) -> impl Iterator<Item = Sent<'_>> {
        self.before.iter().flat_map(|done| &done.did).filter_map(|line| Sent::of(line))
    }

    /// Whether something was sent a second time, before or now.
    fn has_repaired(&self, now: &[String]) -> bool {
        let mut highest = 0;
        let now = now.iter().filter_map(|line| Sent::of(line));
        self.sent_before().chain(now).filter(Sent::has_text).any(|sent| {
            let again = sent.seq < highest;
            highest = highest.max(sent.end);
            again
        })
    }

    /// A FIN waits beyond a gap, and the blocks that report it and the data are others.
    fn is_data_beyond_fin(&self) -> bool {
        let beyond = |s: &SegmentStep| matches!(s.seq, Edge::Within | Edge::Right);
        let told = |done: &Done| done.did.iter().any(|line| line.contains(" <sack "));
        let waits = self
            .before
            .iter()
            .any(|done| matches!(&done.step, Step::Segment(s) if s.flags.fin() && beyond(s)) && told(done));
        let data = self.segment().is_some_and(|segment| segment.len > 0 && beyond(segment));
        let bare = |line: &String| line.split_once(" <sack ").map(|(bare, _)| bare.to_owned());
        let same = |(ours, theirs): (&String, &String)| bare(ours).is_some() && bare(ours) == bare(theirs);
        let pairs = || self.ours.iter().zip(self.theirs);
        waits && data && self.ours.len() == self.theirs.len() && pairs().all(same)
    }

    /// All is the same but SACK blocks below the number that is acknowledged.
    fn is_ack_with_stale_blocks(&self) -> bool {
        let closed = matches!(self.state, "FIN-WAIT-1" | "FIN-WAIT-2");
        let ([ours], [theirs]) = (self.ours, self.theirs) else { return false };
        let blocks = theirs.strip_prefix(ours.as_str()).and_then(|rest| rest.strip_prefix(" <sack "));
        let ack = Sent::of(ours).filter(Sent::is_pure_ack).and_then(|sent| sent.ack.parse::<u32>().ok());
        let (Some(blocks), Some(ack)) = (blocks.and_then(|rest| rest.strip_suffix('>')), ack) else {
            return false;
        };
        let end = |block: &str| block.split_once(':').and_then(|(_, end)| end.parse::<u32>().ok());
        closed && self.segment().is_some() && blocks.split(' ').all(|block| end(block) == Some(ack))
    }

    /// Data beyond the edge that each side has shown last: ours reports it, and theirs drops it.
    fn is_before_older_edge(&self) -> bool {
        let beyond = |s: &SegmentStep| matches!(s.seq, Edge::Right | Edge::Above) && s.len > 0;
        let ([ours], [theirs]) = (self.ours, self.theirs) else { return false };
        let block = ours.strip_prefix(theirs.as_str()).is_some_and(|rest| rest.starts_with(" <sack edge+"));
        self.segment().is_some_and(beyond) && block
    }

    /// A half-open connection has sent an ACK since its SYN-ACK, with another timestamp. Theirs does not take its echo.
    fn is_echo_of_another_answer(&self) -> bool {
        let plain = |s: &SegmentStep| s.flags.ack() && !s.flags.rst() && !s.flags.syn();
        let answer = |line: &str| {
            Sent::of(line).is_some_and(|sent| sent.is_pure_ack() && sent.options.contains("<TS "))
        };
        let last = self.before.iter().flat_map(|done| &done.did).rfind(|line| line.starts_with("> "));
        let silent = match self.theirs {
            [] => true,
            [theirs] => answer(theirs) && Some(theirs) == last,
            _ => false,
        };
        self.state == "SYN-RECEIVED"
            && self.segment().is_some_and(plain)
            && last.is_some_and(|l| answer(l))
            && silent
    }

    /// An orphan whose FIN was acknowledged by a segment with a FIN: one side resets, or says nothing.
    fn is_of_whole_orphan(&self) -> bool {
        let last = self.before.iter().rev().find(|done| done.class.0 == "FIN-WAIT-1");
        let by_fin = last.is_some_and(|done| matches!(&done.step, Step::Segment(s) if s.flags.fin()));
        let closed = self.before.iter().any(|done| done.step == Step::Close);
        let answers = |lines: &[String]| {
            let answer =
                |line: &String| Sent::of(line).is_some_and(|sent| sent.is_rst() || sent.is_pure_ack());
            lines.len() < 2 && lines.iter().all(answer)
        };
        let state = self.state == "FIN-WAIT-2" && self.segment().is_some();
        state && by_fin && closed && answers(self.ours) && answers(self.theirs)
    }

    /// Both tell an error that ICMP has reported, and another one each.
    fn is_other_error(&self, ours: &[&str], theirs: &[&str], after_reset: bool) -> bool {
        let icmp = |done: &Done| matches!(done.step, Step::Icmp { .. });
        let rst = |done: &Done| matches!(&done.step, Step::Segment(s) if s.flags.rst());
        let told =
            |lines: &[String], of: &[&str]| lines.first().is_some_and(|line| of.contains(&line.as_str()));
        *self.step == Step::Error
            && self.before.iter().any(icmp)
            && (!after_reset || self.before.iter().any(rst))
            && told(self.ours, ours)
            && told(self.theirs, theirs)
            && self.ours[1..] == self.theirs[1..]
    }

    /// A second FIN lies just above the first: ours ignores it, and the kernel moves on.
    fn is_fin_after_fin(&self) -> bool {
        let beyond = |s: &SegmentStep| s.flags.fin() && s.seq == Edge::Below && s.len > 0;
        let closed = matches!(self.state, "CLOSE-WAIT" | "CLOSING" | "LAST-ACK");
        let len = self.segment().filter(|segment| beyond(segment)).map(|segment| u32::from(segment.len));
        closed && len.is_some_and(|len| self.is_other_ack(len..=len))
    }
}

/// The differences that are meant to stay.
pub const KNOWN: &[Known] = &[
    Known {
        name: "Data beyond the window",
        reason: "Data that begins in the window and ends beyond it is taken whole while nothing is unread, and dropped \
                 without an answer if it ends in a FIN. Ours takes what the window offers: a receive buffer is a limit",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || vec![segment(Flags::ACK, Edge::Right, 1000)],
        is: |difference| difference.is_beyond_window(),
    },
    Known {
        name: "RST with SACK blocks",
        reason: "The RST of a close without lingering carries SACK blocks. Nobody reads them, and ours has none",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || vec![Step::LingerOff, segment(Flags::ACK, Edge::Within, 1), Step::Close],
        is: |difference| difference.is_rst_with_blocks(),
    },
    Known {
        name: "FIN while ours waits",
        reason: "A FIN that comes while its own waits for the congestion window is acknowledged at once, before the ACK \
                 lets anything out. Ours acknowledges with what leaves, which saves a segment",
        opening: Opening { sack: false, ..Opening::PLAIN },
        pause: 20,
        steps: || {
            let write = Step::Write { len: 10_000, more: false, end_of_record: false };
            vec![write, Step::Close, segment(Flags::ACK | Flags::FIN, Edge::Left, 0)]
        },
        is: |difference| difference.is_fin_acknowledged_first(),
    },
    Known {
        name: "Error behind a reset",
        reason: "What ICMP has reported is told behind the error of a reset. For ours the connection is over, and has \
                 one error",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || {
            vec![
                Step::Icmp { kind: ErrorKind::HostUnreachable, seq: Edge::Left },
                segment(Flags::RST, Edge::Left, 0),
                Step::Read(1),
                Step::Error,
            ]
        },
        is: |difference| {
            let errors = ["= ENETUNREACH", "= EHOSTUNREACH", "= ECONNREFUSED", "= EPROTO", "= EACCES"];
            difference.is_other_error(&["= 0"], &[&errors[..], &["= ENOPROTOOPT"]].concat(), true)
        },
    },
    Known {
        name: "Error of a protocol over IPv6",
        reason: "A peer without the protocol is EPROTO over IPv6, and ENOPROTOOPT over IPv4. Ours has one error for it",
        opening: Opening { ipv6: true, ..Opening::PLAIN },
        pause: 20,
        steps: || vec![Step::Icmp { kind: ErrorKind::ProtocolUnreachable, seq: Edge::Left }, Step::Error],
        is: |difference| difference.is_other_error(&["= ENOPROTOOPT"], &["= EPROTO"], false),
    },
    Known {
        name: "Repair before the ACK",
        reason: "An ACK that lets repairs out does so before its data or FIN is looked at: a segment more acknowledges these, \
                 and a RST follows. Ours acknowledges with what leaves, which saves a segment",
        opening: Opening::PLAIN,
        pause: 320,
        steps: || {
            let write = Step::Write { len: 25_000, more: false, end_of_record: false };
            let ack = SegmentStep { ack: Edge::Within, ..data(Flags::ACK, Edge::Left, 1000) };
            vec![write, Step::Segment(ack)]
        },
        is: |difference| difference.is_repair_before_ack(),
    },
    Known {
        name: "FIN below data",
        reason: "A FIN below data that came before ends the stream, and the data is dropped. Ours ignores such a FIN: the \
                 peer contradicts itself, and data that SACK reported is kept",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || {
            vec![segment(Flags::ACK, Edge::Within, 1000), segment(Flags::ACK | Flags::FIN, Edge::Left, 1000)]
        },
        is: |difference| difference.is_fin_below_data(),
    },
    Known {
        name: "FIN after the FIN",
        reason: "A FIN that begins below the FIN and ends above it moves the end of the stream. Ours ignores it: the peer \
                 has said where its stream ends",
        opening: Opening::PLAIN,
        pause: 90,
        steps: || {
            vec![
                segment(Flags::ACK | Flags::FIN, Edge::Left, 0),
                segment(Flags::ACK | Flags::FIN, Edge::Below, 1),
            ]
        },
        is: |difference| difference.is_fin_after_fin(),
    },
    Known {
        name: "Data beyond a FIN",
        reason: "Data that covers the number of a FIN that came before, or lies beyond it, takes its place beyond the gap. Ours \
                 ignores it: the peer has said where its stream ends",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || {
            let fin = segment(Flags::ACK | Flags::FIN, Edge::Within, 0);
            vec![fin, segment(Flags::ACK, Edge::Within, 1000)]
        },
        is: |difference| difference.is_data_beyond_fin(),
    },
    Known {
        name: "SACK blocks in the ACK of a FIN",
        reason: "The ACK of a FIN that waited beyond a gap still reports it, once this end has closed. Ours reports what lies \
                 beyond the ACK, as RFC 2018 §3 has it",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || {
            let fin = segment(Flags::ACK | Flags::FIN, Edge::Within, 0);
            vec![Step::Shutdown(Shutdown::Write), fin, segment(Flags::ACK, Edge::Left, 1000)]
        },
        is: |difference| difference.is_ack_with_stale_blocks(),
    },
    Known {
        name: "Edge that was shown before",
        reason: "A window that shrinks below one unit of its scale is rounded up, beyond the buffer. Ours is rounded down, and \
                 takes data up to the edge that was shown before, as RFC 7323 §2.4 has it",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || {
            let data = segment(Flags::ACK, Edge::Left, 1000);
            vec![data.clone(), data, segment(Flags::ACK, Edge::Above, 1)]
        },
        is: |difference| difference.is_before_older_edge(),
    },
    Known {
        name: "Timestamp of another answer",
        reason: "A half-open connection is completed by the echo of a SYN-ACK alone, and not by that of an ACK that it has \
                 sent since. Ours takes any ACK of its SYN that PAWS lets pass",
        opening: Opening { timestamps: true, ..Opening::PLAIN },
        pause: 20,
        steps: || {
            let old = SegmentStep { old_timestamp: true, ..data(Flags::ACK | Flags::FIN, Edge::Left, 0) };
            let (reset, syn) = (segment(Flags::RST, Edge::Left, 0), segment(Flags::SYN, Edge::Left, 0));
            vec![reset, syn, Step::Segment(old), segment(Flags::ACK, Edge::Left, 1)]
        },
        is: |difference| difference.is_echo_of_another_answer(),
    },
    Known {
        name: "Orphan whose FIN a FIN acknowledged",
        reason: "An orphan whose FIN is acknowledged by a segment with a FIN, which is not taken, stays what it was, and \
                 challenges a SYN. Ours keeps as little of it as of any other half-closed orphan",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || {
            let fin = segment(Flags::ACK | Flags::FIN, Edge::Below, 0);
            vec![Step::Close, fin, segment(Flags::SYN, Edge::Left, 0)]
        },
        is: |difference| difference.is_of_whole_orphan(),
    },
    Known {
        name: "Data with an old ACK",
        reason: "Data in order is taken although its ACK is too old, and its timestamp is kept, where the socket has memory \
                 for it at hand. Ours drops it always, as RFC 5961 §5.2 has it",
        opening: Opening::PLAIN,
        pause: 20,
        steps: || {
            let old = SegmentStep { ack: Edge::FarBelow, ..data(Flags::ACK, Edge::Left, 1) };
            vec![segment(Flags::ACK, Edge::Left, 1), Step::Segment(old)]
        },
        is: |difference| difference.is_data_with_old_ack(),
    },
];

fn segment(flags: Flags, seq: Edge, len: u16) -> Step {
    Step::Segment(data(flags, seq, len))
}

fn data(flags: Flags, seq: Edge, len: u16) -> SegmentStep {
    SegmentStep { flags, seq, ack: Edge::Right, len, window: 300, old_timestamp: false, sack: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    /// The row of a difference at `step`.
    fn row(before: &[Done], step: &Step, ours: &[&str], theirs: &[&str]) -> Option<&'static str> {
        row_in("CLOSE-WAIT", before, step, ours, theirs)
    }

    fn row_in(
        state: &str,
        before: &[Done],
        step: &Step,
        ours: &[&str],
        theirs: &[&str],
    ) -> Option<&'static str> {
        let (ours, theirs) = (lines(ours), lines(theirs));
        let difference = Difference { before, step, state, ours: &ours, theirs: &theirs };
        KNOWN.iter().find(|known| (known.is)(&difference)).map(|known| known.name)
    }

    #[test]
    fn a_row_has_its_difference_and_no_other() {
        let data = segment(Flags::ACK, Edge::Right, 1000);
        let inside = segment(Flags::ACK, Edge::Within, 1000);
        let fin = segment(Flags::ACK | Flags::FIN, Edge::Left, 1000);
        let ours = ["> . 1:1(0) ack 1 <sack edge-1:edge+0>"];
        let whole = ["> . 1:1(0) ack 1 <sack edge-1:edge+999>"];
        assert_eq!(row(&[], &data, &ours, &whole), Some("Data beyond the window"));
        assert_eq!(row(&[], &inside, &ours, &whole), None);
        assert_eq!(row(&[], &data, &ours, &[]), None, "without a FIN the kernel takes it");
        assert_eq!(row(&[], &data, &ours, &["> . 1:1(0) ack 2 <sack edge-1:edge+999>"]), None);
        let (bare, blocks) = ("> R. 1:1(0) ack 1", "> R. 1:1(0) ack 1 <sack 1001:1002>");
        assert_eq!(row(&[], &Step::Close, &["= 0", bare], &["= 0", blocks]), Some("RST with SACK blocks"));
        assert_eq!(row(&[], &Step::Close, &["= 0", blocks], &["= 0", bare]), None);
        assert_eq!(row(&[], &Step::Close, &["= 1", bare], &["= 0", blocks]), None);
        let both = ["> . 9:9(0) ack 2", "> F. 9:9(0) ack 2"];
        assert_eq!(row(&[], &fin, &both[1..], &both), Some("FIN while ours waits"));
        assert_eq!(row(&[], &Step::Close, &both[1..], &both), None);
        assert_eq!(row(&[], &fin, &both[1..], &["> . 8:8(0) ack 2", both[1]]), None);
        let did = lines(&["> . 1:1(0) ack 1 <sack 1001:2001>"]);
        let before = [Done { step: inside, class: Class::default(), did }];
        assert_eq!(row(&before, &fin, &["> . 1:1(0) ack 2001"], &[]), Some("FIN below data"));
        assert_eq!(row(&[], &fin, &["> . 1:1(0) ack 2001"], &[]), None);
        let more = ["> P. 9:10(1) ack 1 <sack edge-1:edge+0>", "> P. 9:10(1) ack 1 <sack edge-1:edge+999>"];
        assert_eq!(
            row(&[], &data, &[ours[0], more[0]], &[whole[0], more[1]]),
            Some("Data beyond the window")
        );
        assert_eq!(row(&[], &data, &[ours[0], more[0]], &[whole[0], "> P. 9:11(2) ack 1"]), None);
        let (one, two) = ("> . 1:1(0) ack 1 <sack 1001:2001>", "> . 1:1(0) ack 2");
        assert_eq!(row(&before, &fin, &[one, one], &[two, two]), Some("FIN below data"));
        assert_eq!(row(&before, &fin, &[one, one], &["> . 1:1(0) ack 3", two]), None);
        assert_eq!(row(&before, &fin, &[one, one], &[two]), None);
        let below = segment(Flags::ACK | Flags::FIN, Edge::Below, 1);
        let (ours, theirs) = (["> . 1:1(0) ack 2 <sack 1:2>"], ["> . 1:1(0) ack 3"]);
        assert_eq!(row(&[], &below, &ours, &theirs), Some("FIN after the FIN"));
        assert_eq!(row_in("ESTABLISHED", &[], &below, &ours, &theirs), None);
        assert_eq!(row(&[], &below, &ours, &["> . 1:1(0) ack 4"]), None);
        assert_eq!(row(&[], &segment(Flags::ACK, Edge::Below, 1), &ours, &theirs), None);
        let icmp = Step::Icmp { kind: ErrorKind::HostUnreachable, seq: Edge::Left };
        let done = |step: &Step| Done { step: step.clone(), class: Class::default(), did: Vec::new() };
        let (soft, reset) = ([done(&icmp)], [done(&icmp), done(&segment(Flags::RST, Edge::Left, 0))]);
        let other = |before: &[Done], ours, theirs| row(before, &Step::Error, &[ours], &[theirs]);
        assert_eq!(other(&reset, "= 0", "= EHOSTUNREACH"), Some("Error behind a reset"));
        assert_eq!(other(&soft, "= 0", "= EHOSTUNREACH"), None);
        assert_eq!(other(&reset, "= EHOSTUNREACH", "= 0"), None);
        assert_eq!(other(&soft, "= ENOPROTOOPT", "= EPROTO"), Some("Error of a protocol over IPv6"));
        assert_eq!(other(&[], "= ENOPROTOOPT", "= EPROTO"), None);
        assert_eq!(other(&soft, "= ENOPROTOOPT", "= EHOSTUNREACH"), None);
        let old = Step::Segment(SegmentStep { ack: Edge::FarBelow, ..self::data(Flags::ACK, Edge::Left, 1) });
        let [kept, other] = ["> . 1:1(0) ack 2 <TS ecr 1020>", "> . 1:1(0) ack 2 <TS ecr 1030>"];
        assert_eq!(
            row(&[], &old, &["> . 1:1(0) ack 2"], &["> . 1:1(0) ack 3"]),
            Some("Data with an old ACK")
        );
        assert_eq!(row(&[], &old, &[other], &[kept]), Some("Data with an old ACK"));
        assert_eq!(row(&[], &old, &[], &["> . 1:1(0) ack 3"]), Some("Data with an old ACK"));
        assert_eq!(row(&[], &old, &[], &["> R. 1:1(0) ack 3"]), None);
        assert_eq!(row(&[], &old, &["> . 1:1(0) ack 2"], &["> . 1:1(0) ack 4"]), None);
        assert_eq!(row(&[], &old, &["> . 1:1(0) ack 2"], &["> . 2:2(0) ack 3"]), None);
        assert_eq!(row(&[], &old, &["> . 1:1(0) ack 2"], &[]), None);
        let again = "> P. 5:6(1) ack 2";
        assert_eq!(row(&[], &old, &[again], &["> . 6:6(0) ack 3", again]), Some("Data with an old ACK"));
        assert_eq!(row(&[], &old, &[again], &["> R. 6:6(0) ack 3", again]), None);
        assert_eq!(row(&[], &segment(Flags::ACK, Edge::Left, 1), &[other], &[kept]), None);
    }

    /// A step that was played before, in a state, and what both did.
    fn done(state: &str, step: Step, did: &[&str]) -> Done {
        let class = (state.to_owned(), String::new(), String::new());
        Done { step, class, did: lines(did) }
    }

    #[test]
    fn repairs_come_before_the_ack_only_behind_a_repair() {
        let name = Some("Repair before the ACK");
        let resent = ["> . 1:3001(3000) ack 1", "> . 1:1001(1000) ack 1"];
        let before = [done("ESTABLISHED", Step::write(3000), &resent)];
        let once = [done("ESTABLISHED", Step::write(3000), &resent[..1])];
        let (full, empty) = (segment(Flags::ACK, Edge::Left, 1000), segment(Flags::ACK, Edge::Left, 0));
        let fin = segment(Flags::ACK | Flags::FIN, Edge::Left, 0);
        let (new, bare) = ("> . 1001:2001(1000) ack 1001", "> . 3001:3001(0) ack 1001");
        let early = "> . 1001:2001(1000) ack 1";
        assert_eq!(row(&before, &full, &[new], &[early, bare]), name);
        let [fresh, sooner] = ["> . 3001:4001(1000) ack 1001", "> . 3001:4001(1000) ack 1"];
        assert_eq!(row(&once, &full, &[fresh], &[sooner, bare]), None, "nothing was repaired");
        let (again, first) = ("> . 1:1001(1000) ack 1001", "> . 1:1001(1000) ack 1");
        assert_eq!(row(&once, &full, &[again], &[first, bare]), name, "it is the first repair");
        assert_eq!(row(&before, &full, &[new, new], &[early, bare, new]), name);
        assert_eq!(row(&before, &full, &[new, new], &[early, bare, early]), None);
        assert_eq!(row(&before, &full, &[new], &[bare, new]), None);
        assert_eq!(row(&before, &full, &[new], &["> . 1001:2001(1000) ack 2", bare]), None);
        assert_eq!(row(&before, &empty, &[new], &[early, bare]), None, "it has nothing to acknowledge");
        assert_eq!(row(&before, &Step::Close, &[new], &[early, bare]), None);
        let [taken, refused] = ["> . 1001:2001(1000) ack 2", "> . 3001:3001(0) ack 2"];
        assert_eq!(row(&before, &fin, &[taken], &[early, refused]), name);
        assert_eq!(row(&before, &fin, &[early], &[early, "> . 3001:3001(0) ack 1"]), name);
        let rst = "> R 1001:1001(0) ack 0";
        assert_eq!(row(&before, &full, &[rst], &[early, rst]), name);
        assert_eq!(row(&before, &full, &[rst], &[early]), None);
        assert_eq!(row(&before, &full, &[bare], &[early, bare]), None, "ours repairs nothing");
        let cut = "> . 1001:1989(988) ack 1 <sack 5:6>";
        let block = "> . 3001:3001(0) ack 1 <sack 5:6>";
        assert_eq!(row(&before, &full, &[cut], &[early, block]), name);
        assert_eq!(row(&before, &full, &[cut], &[early, bare]), None);
    }

    #[test]
    fn rows_of_fins_and_edges() {
        let fin = segment(Flags::ACK | Flags::FIN, Edge::Within, 0);
        let told = "> . 1:1(0) ack 1 <sack 1001:1002>";
        let before = [done("ESTABLISHED", fin, &[told])];
        let beyond = segment(Flags::ACK, Edge::Within, 1000);
        let more = ["> . 1:1(0) ack 1 <sack 1001:1002 1001:2001>"];
        assert_eq!(row(&before, &beyond, &[told], &more), Some("Data beyond a FIN"));
        assert_eq!(row(&[], &beyond, &[told], &more), None);
        assert_eq!(row(&before, &segment(Flags::ACK, Edge::Left, 1000), &[told], &more), None);
        assert_eq!(row(&before, &beyond, &[told], &["> . 1:1(0) ack 2 <sack 1001:1002>"]), None);

        let data = segment(Flags::ACK, Edge::Left, 1000);
        let (ours, theirs) = ("> . 2:2(0) ack 1002", "> . 2:2(0) ack 1002 <sack 1001:1002>");
        let stale = |state: &str, step: &Step, ours: &str, theirs: &str| {
            row_in(state, &before, step, &[ours], &[theirs])
        };
        let name = Some("SACK blocks in the ACK of a FIN");
        assert_eq!(stale("FIN-WAIT-2", &data, ours, theirs), name);
        assert_eq!(stale("ESTABLISHED", &data, ours, theirs), None);
        assert_eq!(stale("FIN-WAIT-2", &data, ours, "> . 2:2(0) ack 1002 <sack 2001:2002>"), None);
        assert_eq!(stale("FIN-WAIT-2", &data, theirs, ours), None);
        assert_eq!(stale("FIN-WAIT-2", &Step::Close, ours, theirs), None);

        let above = segment(Flags::ACK, Edge::Above, 1);
        let (kept, dropped) = ("> . 1:1(0) ack 9 <sack edge+0:edge+1>", "> . 1:1(0) ack 9");
        assert_eq!(row(&[], &above, &[kept], &[dropped]), Some("Edge that was shown before"));
        assert_eq!(row(&[], &above, &[dropped], &[kept]), None);
        assert_eq!(row(&[], &data, &[kept], &[dropped]), None);
        assert_eq!(row(&[], &above, &["> . 1:1(0) ack 9 <sack edge-1:edge+1>"], &[dropped]), None);
    }

    #[test]
    fn rows_of_half_open_and_half_closed_connections() {
        let (syn_ack, answer) = ("> S. 0:0(0) ack 2 <TS ecr 9>", "> . 1:1(0) ack 2 <TS ecr 9>");
        let syn = || done("CLOSED", segment(Flags::SYN, Edge::Left, 0), &[syn_ack]);
        let challenged = [syn(), done("SYN-RECEIVED", segment(Flags::ACK, Edge::Left, 0), &[answer])];
        let data = segment(Flags::ACK, Edge::Left, 1);
        let taken = "> . 1:1(0) ack 3 <TS ecr 10>";
        let half_open = |before: &[Done], step: &Step, theirs: &[&str]| {
            row_in("SYN-RECEIVED", before, step, &[taken], theirs)
        };
        let name = Some("Timestamp of another answer");
        assert_eq!(half_open(&challenged, &data, &[answer]), name);
        assert_eq!(half_open(&challenged, &data, &[]), name);
        assert_eq!(half_open(&[syn()], &data, &[answer]), None);
        assert_eq!(half_open(&challenged, &data, &["> R 1:1(0) ack 0"]), None);
        assert_eq!(half_open(&challenged, &segment(Flags::SYN, Edge::Left, 0), &[answer]), None);
        assert_eq!(row_in("ESTABLISHED", &challenged, &data, &[taken], &[answer]), None);

        let fin = |state| done(state, segment(Flags::ACK | Flags::FIN, Edge::Below, 0), &[]);
        let close = || done("ESTABLISHED", Step::Close, &["= 0"]);
        let syn = segment(Flags::SYN, Edge::Left, 0);
        let (rst, ack) = ("> R. 0:0(0) ack 2", "> . 2:2(0) ack 1");
        let orphan = |before: &[Done], step: &Step, theirs: &str| {
            row_in("FIN-WAIT-2", before, step, &[rst], &[theirs])
        };
        let name = Some("Orphan whose FIN a FIN acknowledged");
        assert_eq!(orphan(&[close(), fin("FIN-WAIT-1")], &syn, ack), name);
        assert_eq!(orphan(&[close(), fin("ESTABLISHED")], &syn, ack), None);
        assert_eq!(orphan(&[fin("FIN-WAIT-1")], &syn, ack), None);
        assert_eq!(orphan(&[close(), fin("FIN-WAIT-1")], &Step::Error, ack), None);
        assert_eq!(orphan(&[close(), fin("FIN-WAIT-1")], &syn, "> . 2:3(1) ack 1"), None);
        let by_ack = done("FIN-WAIT-1", segment(Flags::ACK, Edge::Left, 0), &[]);
        assert_eq!(orphan(&[close(), by_ack], &syn, ack), None);
    }

    /// The names are in the document, and the scripts play.
    #[test]
    fn the_rows_have_names_reasons_and_scripts() {
        for known in KNOWN {
            assert!(!known.name.is_empty() && !known.reason.ends_with('.'), "{}", known.name);
            let (script, record) = known.script().with_clear_pauses();
            assert_eq!(record.classes().count(), script.steps.len());
            assert!(KNOWN.iter().filter(|other| other.name == known.name).count() == 1);
        }
    }
}
