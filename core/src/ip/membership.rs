//! Reports of group membership: what a host owes to the routers of its links, and when (RFC 9776 §5, RFC 9777 §6).
//!
//! Sockets hear all sources of a group, so each group has two states, and a report two kinds of change.
// 9776-1, 9776-2, 9776-3

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::ip::routes::InterfaceId;
use crate::time::{Duration, Instant};
use crate::wire::groups::{ALL_NODES, ALL_SYSTEMS, Record, RecordKind};

/// How often a change is told (RFC 9776 §8.1, RFC 9777 §9.1).
const ROBUSTNESS: u8 = 2;
/// The longest time between two reports of a change (RFC 9776 §8.11, RFC 9777 §9.11).
const UNSOLICITED_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two answers about all groups of a link: a stranger may ask as often as he likes.
// THREAT-89
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// Changes of a link that wait to be told. The router hears of more by its next query.
const CHANGES: usize = 256;

/// The groups of one family on one interface.
pub(crate) type LinkKey = (InterfaceId, bool);

/// Returns the link that a group is reported to; `None`: its members are no business of routers (RFC 9776 §5, RFC 9777
/// §6).
pub(crate) fn reported(group: IpAddr, interface: InterfaceId) -> Option<LinkKey> {
    match group {
        IpAddr::V4(group) => (group != ALL_SYSTEMS).then_some((interface, true)),
        IpAddr::V6(group) => {
            let beyond_the_host = group.segments()[0] & 0xf > 1;
            (group != ALL_NODES && beyond_the_host).then_some((interface, false))
        }
    }
}

/// A change of state that routers are to hear.
#[derive(Clone, Copy, Debug)]
struct Change {
    group: IpAddr,
    kind: RecordKind,
    left: u8,
    at: Instant,
}

/// An answer about all groups of a link.
#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Instant,
    /// The last group that was told.
    told: Option<IpAddr>,
}

/// The reports that are owed to the routers of a link.
#[derive(Clone, Debug, Default)]
struct Debts {
    changes: VecDeque<Change>,
    answer: Option<Answer>,
    /// When the last answer about all groups was complete.
    answered: Option<Instant>,
    /// Answers about one group.
    asked: BTreeMap<IpAddr, Instant>,
}

/// The reports that are owed to the routers of all links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    links: BTreeMap<LinkKey, Debts>,
}

impl Reports {
    /// A group got its first member on a link, or lost its last one.
    pub(crate) fn changed(&mut self, now: Instant, link: LinkKey, group: IpAddr, kind: RecordKind) {
        let debts = self.links.entry(link).or_default();
        if kind == RecordKind::Left {
            debts.asked.remove(&group);
        }
        debts.changes.retain(|change| change.group != group);
        if debts.changes.len() < CHANGES {
            debts.changes.push_back(Change { group, kind, left: ROBUSTNESS, at: now });
        }
    }

    /// A router asks about all groups, or about one that has members. The answer leaves after `delay`, or with an earlier
    /// one that covers it (RFC 9776 §5.2).
    pub(crate) fn asked(&mut self, now: Instant, link: LinkKey, group: Option<IpAddr>, delay: Duration) {
        let debts = self.links.entry(link).or_default();
        let at = now + delay;
        if debts.answer.is_some_and(|answer| answer.told.is_none() && answer.at <= at) {
            return;
        }
        match group {
            Some(group) => {
                let earliest = debts.asked.entry(group).or_insert(at);
                *earliest = (*earliest).min(at);
            }
            // One that is being told goes on.
            None if debts.answer.is_some_and(|answer| answer.told.is_some()) => {}
            None => {
                let at = debts.answered.map_or(at, |answered| at.max(answered + ANSWER_INTERVAL));
                debts.answer = Some(Answer { at, told: None });
            }
        }
    }

    /// Forgets an interface that is gone.
    pub(crate) fn forget(&mut self, interface: InterfaceId) {
        self.links.retain(|(id, _), _| *id != interface);
    }

    /// When the next report is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.links.values().filter_map(Debts::next_at).min()
    }

    /// No group was joined.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Returns a link to which a report is due.
    pub(crate) fn due(&self, now: Instant) -> Option<LinkKey> {
        let is_due = |debts: &Debts| debts.next_at().is_some_and(|at| at <= now);
        self.links.iter().find(|(_, debts)| is_due(debts)).map(|(link, _)| *link)
    }

    /// Takes the records of the next report that is due to a link, at most `most`. `groups` are the groups with members
    /// there behind a given one, in order; `random` gives the time until a change is told again.
    pub(crate) fn take<I: Iterator<Item = IpAddr>>(
        &mut self,
        now: Instant,
        link: LinkKey,
        most: usize,
        groups: impl Fn(Option<IpAddr>) -> I,
        mut random: impl FnMut(Duration) -> Duration,
    ) -> Vec<Record> {
        let Some(debts) = self.links.get_mut(&link) else { return Vec::new() };
        let mut records = Vec::new();
        for _ in 0..debts.changes.len() {
            let Some(mut change) = debts.changes.pop_front() else { break };
            if change.at <= now && records.len() < most {
                records.push((change.kind, change.group));
                (change.left, change.at) = (change.left - 1, now + random(UNSOLICITED_INTERVAL));
            }
            if change.left > 0 {
                debts.changes.push_back(change);
            }
        }
        if !records.is_empty() {
            return records;
        }
        if let Some(answer) = &mut debts.answer
            && answer.at <= now
        {
            records.extend(groups(answer.told).take(most).map(|group| (RecordKind::IsMember, group)));
            answer.told = records.last().map(|(_, group)| *group);
            if records.len() < most {
                (debts.answer, debts.answered) = (None, Some(now));
                debts.asked.clear();
            }
            return records;
        }
        let due = debts.asked.iter().filter(|(_, at)| **at <= now).take(most);
        records.extend(due.map(|(group, _)| (RecordKind::IsMember, *group)));
        records.iter().for_each(|(_, group)| _ = debts.asked.remove(group));
        records
    }
}

impl Debts {
    fn next_at(&self) -> Option<Instant> {
        let changes = self.changes.iter().map(|change| change.at);
        changes.chain(self.answer.map(|answer| answer.at)).chain(self.asked.values().copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordKind::{IsMember, Joined, Left};

    const LINK: LinkKey = (InterfaceId::FIRST, true);
    const HALF: Duration = Duration::from_millis(500);

    fn group(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xef00_0000 + number).into()
    }

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// All reports that are due, in a link whose groups have these numbers.
    fn reports(reports: &mut Reports, now: Instant, groups: std::ops::Range<u32>) -> Vec<Vec<Record>> {
        let behind = |told: Option<IpAddr>| {
            groups.clone().map(group).filter(move |group| told.is_none_or(|told| *group > told))
        };
        let mut all = Vec::new();
        while let Some(link) = reports.due(now) {
            all.push(reports.take(now, link, 4, behind, |_| HALF));
        }
        all
    }

    /// RFC 9776 §5.1
    #[test]
    fn a_change_is_told_at_once_and_again_within_a_second_9776_1() {
        let mut owed = Reports::default();
        owed.changed(at(0), LINK, group(1), Joined);
        assert_eq!(reports(&mut owed, at(0), 0..0), [[(Joined, group(1))]]);
        assert_eq!(owed.next_at(), Some(at(500)));
        // Another change waits for nothing, and ends the repetition of the first for its group.
        owed.changed(at(100), LINK, group(1), Left);
        assert_eq!(reports(&mut owed, at(100), 0..0), [[(Left, group(1))]]);
        assert_eq!(reports(&mut owed, at(599), 0..0).len(), 0);
        assert_eq!(reports(&mut owed, at(600), 0..0), [[(Left, group(1))]]);
        assert_eq!(owed.next_at(), None);
    }

    /// RFC 9776 §5.2
    #[test]
    fn an_answer_waits_for_its_time_and_covers_later_questions_9776_2() {
        let mut owed = Reports::default();
        owed.asked(at(0), LINK, None, HALF);
        owed.asked(at(0), LINK, None, Duration::from_secs(5));
        owed.asked(at(0), LINK, Some(group(2)), Duration::from_secs(1));
        assert_eq!(owed.next_at(), Some(at(500)));
        assert!(reports(&mut owed, at(499), 0..3).is_empty());
        let all = reports(&mut owed, at(500), 0..3);
        assert_eq!(all, [(0..3).map(|n| (IsMember, group(n))).collect::<Vec<_>>()]);
        assert_eq!(owed.next_at(), None);
        // A question about one group may come before the answer about all.
        owed.asked(at(2000), LINK, None, Duration::from_secs(5));
        owed.asked(at(2000), LINK, Some(group(2)), HALF);
        owed.asked(at(2100), LINK, Some(group(2)), HALF);
        assert_eq!(reports(&mut owed, at(2500), 0..3), [[(IsMember, group(2))]]);
        assert_eq!(owed.next_at(), Some(at(7000)));
    }

    #[test]
    fn many_groups_take_several_reports_and_each_is_in_one_9776_2() {
        let mut owed = Reports::default();
        owed.asked(at(0), LINK, None, Duration::ZERO);
        let all = reports(&mut owed, at(0), 0..10);
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let told: Vec<IpAddr> = all.concat().iter().map(|(_, group)| *group).collect();
        assert_eq!(told, (0..10).map(group).collect::<Vec<_>>());
    }

    #[test]
    fn a_neighbour_that_asks_without_end_gets_one_answer_a_second_threat_89() {
        let mut owed = Reports::default();
        let mut answers = 0;
        for millis in 0..10_000 {
            owed.asked(at(millis), LINK, None, Duration::ZERO);
            answers += reports(&mut owed, at(millis), 0..2).len();
        }
        assert_eq!(answers, 10);
    }

    #[test]
    fn changes_beyond_the_limit_are_left_to_the_next_query_9776_1() {
        let mut owed = Reports::default();
        (0..2 * CHANGES as u32).for_each(|number| owed.changed(at(0), LINK, group(number), Left));
        let told: usize = reports(&mut owed, at(0), 0..0).iter().map(Vec::len).sum();
        assert_eq!(told, CHANGES);
    }

    #[test]
    fn what_concerns_no_router_is_not_reported_9776_3() {
        let link = |group: &str| reported(group.parse().unwrap(), InterfaceId::FIRST);
        assert_eq!(
            (link("224.0.0.1"), link("ff02::1"), link("ff01::5"), link("ff00::5")),
            (None, None, None, None)
        );
        assert_eq!((link("224.0.0.251"), link("ff02::fb")), (Some(LINK), Some((InterfaceId::FIRST, false))));
    }
}
