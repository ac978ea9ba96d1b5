//! Differences that are meant to stay, each with its reason and a script that shows it.

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
    /// The steps of the smallest script that shows it, after a passive open.
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

    /// An ACK with data lets something out after a timeout. Theirs does not acknowledge the data, and a pure ACK follows.
    fn is_repair_before_ack(&self) -> bool {
        let Some(len) = self.segment().map(|segment| u32::from(segment.len)).filter(|len| *len > 0) else {
            return false;
        };
        let ack = |line: &String| {
            let (_, ack) = line.split_once(") ack ")?;
            ack.split(' ').next()?.parse::<u32>().ok()
        };
        let Some(first) = self.ours.first().and_then(ack) else { return false };
        let pure = |line: &String| line.starts_with("> . ") && line.contains("(0) ack ");
        let Some(at) = self.theirs.iter().position(|line| pure(line) && ack(line) == Some(first)) else {
            return false;
        };
        let old = |line: &str| line.replacen(&format!(") ack {first}"), &format!(") ack {}", first - len), 1);
        let (before, after) = (&self.theirs[..at], &self.theirs[at + 1..]);
        at > 0
            && self.ours.len() + 1 == self.theirs.len()
            && self.ours.iter().zip(before).all(|(ours, theirs)| old(ours) == *theirs)
            && self.ours[at..] == *after
    }

    /// Both tell an error that ICMP has reported, and another one each.
    fn is_other_error(&self, ours: &[&str], theirs: &[&str], after_reset: bool) -> bool {
        let icmp = |done: &Done| matches!(done.step, Step::Icmp { .. });
        let rst = |done: &Done| matches!(&done.step, Step::Segment(s) if s.flags.rst());
        let told = |lines: &[String], of: &[&str]| matches!(lines, [line] if of.contains(&line.as_str()));
        *self.step == Step::Error
            && self.before.iter().any(icmp)
            && (!after_reset || self.before.iter().any(rst))
            && told(self.ours, ours)
            && told(self.theirs, theirs)
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
                 lets anything out. Ours acknowledges with what leaves, which saves a segment",
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
        steps: || vec![Step::Icmp { kind: ErrorKind::ProtocolUnreachable, seq: Edge::Left }, Step::Error],
        is: |difference| difference.is_other_error(&["= ENOPROTOOPT"], &["= EPROTO"], false),
    },
    Known {
        name: "Repair before the ACK",
        reason: "After a timeout an ACK that has data lets segments out before the data is taken, and a segment more \
                 acknowledges it. Ours acknowledges with what leaves, which saves a segment",
        steps: || {
            let write = Step::Write { len: 25_000, more: false, end_of_record: false };
            let ack = SegmentStep { ack: Edge::Within, ..data(Flags::ACK, Edge::Left, 1000) };
            vec![write, Step::Error, Step::Error, Step::Segment(ack)]
        },
        is: |difference| difference.is_repair_before_ack(),
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
        name: "FIN after the FIN",
        reason: "A FIN that begins below the FIN and ends above it moves the end of the stream. Ours ignores it: the peer \
                 has said where its stream ends",
        steps: || {
            vec![
                segment(Flags::ACK | Flags::FIN, Edge::Left, 0),
                segment(Flags::ACK | Flags::FIN, Edge::Below, 1),
            ]
        },
        is: |difference| difference.is_fin_after_fin(),
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
        let (new, bare) = ("> . 9:1009(1000) ack 1001", "> . 1009:1009(0) ack 1001");
        let early = "> . 9:1009(1000) ack 1";
        let full = segment(Flags::ACK, Edge::Left, 1000);
        assert_eq!(row(&[], &full, &[new], &[early, bare]), Some("Repair before the ACK"));
        assert_eq!(row(&[], &full, &[new, new], &[early, bare, new]), Some("Repair before the ACK"));
        assert_eq!(row(&[], &full, &[new, new], &[early, bare, early]), None);
        assert_eq!(row(&[], &full, &[new], &[bare, new]), None);
        assert_eq!(row(&[], &full, &[new], &["> . 9:1009(1000) ack 2", bare]), None);
        assert_eq!(row(&[], &segment(Flags::ACK, Edge::Left, 0), &[new], &[early, bare]), None);
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
