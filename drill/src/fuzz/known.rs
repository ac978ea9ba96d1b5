//! Differences that are meant to stay, each with its reason and a script that shows it.

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
    /// The steps of the smallest script that shows it, after a passive open.
    steps: fn() -> Vec<Step>,
    is: fn(&Difference<'_>) -> bool,
}

/// The first step at which two subjects differ.
struct Difference<'a> {
    /// The steps before it, which are the same.
    before: &'a [Done],
    step: &'a Step,
    ours: &'a [String],
    theirs: &'a [String],
}

impl Known {
    /// The smallest script that shows it.
    pub fn script(&self) -> Script {
        let steps = (self.steps)().into_iter().map(|step| (step, 20)).collect();
        Script { opening: Opening::default(), steps }
    }

    /// The row that the first difference of two runs belongs to.
    pub fn of(ours: &Record, theirs: &Record) -> Option<&'static Known> {
        let index = ours.first_difference(theirs).filter(|_| ours.opening.1 == theirs.opening.1)?;
        let (done, other) = (ours.steps.get(index)?, theirs.steps.get(index)?);
        let before = ours.steps.get(..index)?;
        let difference = Difference { before, step: &done.step, ours: &done.did, theirs: &other.did };
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
        let ([ours], theirs) = (self.ours, self.theirs) else { return false };
        let Some((head, _)) = ours.strip_suffix(":edge+0>").and_then(|ours| ours.rsplit_once(' ')) else {
            return false;
        };
        beyond
            && match theirs {
                [] => self.segment().is_some_and(|segment| segment.flags.fin()),
                [theirs] => theirs.starts_with(head) && theirs.contains(":edge+"),
                _ => false,
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

    /// Ours acknowledges a FIN with its own, and the kernel just before.
    fn is_fin_acknowledged_first(&self) -> bool {
        let fin = self.segment().is_some_and(|segment| segment.flags.fin());
        let ([ours], [ack, theirs]) = (self.ours, self.theirs) else { return false };
        let numbers = |line: &str, flags: &str| line.strip_prefix(flags).map(str::to_owned);
        fin && ours == theirs && numbers(ack, "> . ").is_some_and(|n| Some(n) == numbers(ours, "> F. "))
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
            (ours, theirs) => ours.len() == theirs.len() && pairs().all(same),
        }
    }

    /// A FIN lies below data that came before: ours acknowledges the data, and the kernel only the FIN, later.
    fn is_fin_below_data(&self) -> bool {
        let below = |s: &SegmentStep| s.flags.fin() && matches!(s.seq, Edge::Left | Edge::Below);
        let fin = self.segment().is_some_and(below);
        let last = self.before.iter().flat_map(|done| &done.did).rfind(|line| line.starts_with("> "));
        let gap = last.is_some_and(|line| line.contains("<sack"));
        fin && gap && self.ours.len() == 1 && self.theirs.len() < 2
    }
}

/// The differences that are meant to stay.
pub const KNOWN: &[Known] = &[
    Known {
        name: "Data beyond the window",
        reason: "Data that begins in the window and ends beyond it is taken whole while nothing is unread, and dropped \
                 without an answer if it ends in a FIN. Ours takes what the window offers: a receive buffer is a limit",
        steps: || vec![segment(Flags::ACK, Edge::Right, 1000)],
        is: |difference| difference.is_beyond_window(),
    },
    Known {
        name: "RST with SACK blocks",
        reason: "The RST of a close without lingering carries SACK blocks. Nobody reads them, and ours has none",
        steps: || vec![Step::LingerOff, segment(Flags::ACK, Edge::Within, 1), Step::Close],
        is: |difference| difference.is_rst_with_blocks(),
    },
    Known {
        name: "FIN while ours waits",
        reason: "A FIN that comes while its own waits for the congestion window is acknowledged at once, before the ACK \
                 lets its own out. Ours acknowledges with the FIN, which saves a segment",
        steps: || {
            let write = Step::Write { len: 10_000, more: false, end_of_record: false };
            vec![write, Step::Close, segment(Flags::ACK | Flags::FIN, Edge::Left, 0)]
        },
        is: |difference| difference.is_fin_acknowledged_first(),
    },
    Known {
        name: "FIN below data",
        reason: "A FIN below data that came before ends the stream, and the data is dropped. Ours ignores such a FIN: the \
                 peer contradicts itself, and data that SACK reported is kept",
        steps: || {
            vec![segment(Flags::ACK, Edge::Within, 1000), segment(Flags::ACK | Flags::FIN, Edge::Left, 1000)]
        },
        is: |difference| difference.is_fin_below_data(),
    },
    Known {
        name: "Data with an old ACK",
        reason: "Data in order is taken although its ACK is too old, and its timestamp is kept, where the socket has memory \
                 for it at hand. Ours drops it always, as RFC 5961 §5.2 has it",
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
    SegmentStep { flags, seq, ack: Edge::Right, len, window: 300, old_timestamp: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    /// The row of a difference at `step`.
    fn row(before: &[Done], step: &Step, ours: &[&str], theirs: &[&str]) -> Option<&'static str> {
        let (ours, theirs) = (lines(ours), lines(theirs));
        let difference = Difference { before, step, ours: &ours, theirs: &theirs };
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
        assert_eq!(row(&[], &segment(Flags::ACK, Edge::Left, 1), &[other], &[kept]), None);
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
