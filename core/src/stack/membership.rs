//! Membership of multicast groups, as routers ask for it and hear it: IGMPv3 (RFC 9776), MLDv2 (RFC 9777).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use super::Stack;
use super::inbound::Datagram;
use super::replies::Queued;
use crate::counters::DropReason;
use crate::ip::membership::{LinkKey, reported};
use crate::ip::routes::InterfaceId;
use crate::time::Duration;
use crate::udp::Fields;
use crate::wire::groups::{self, ALL_NODES, ALL_SYSTEMS, Query, RecordKind};

/// Reports that one call of `advance` makes.
const REPORTS: usize = 16;

impl Stack {
    /// A group got its first member on an interface, or lost its last one.
    pub(super) fn membership_changed(&mut self, group: IpAddr, interface: InterfaceId, kind: RecordKind) {
        if let Some(link) = reported(group, interface) {
            self.udp.reports.changed(self.now, link, group, kind);
        }
    }

    /// Returns whether a router's query to this address is heard. Without a group there is nothing to tell.
    pub(super) fn hears_queries(&self, destination: IpAddr, interface: InterfaceId) -> bool {
        let to_all = destination == IpAddr::V4(ALL_SYSTEMS) || destination == IpAddr::V6(ALL_NODES);
        !self.udp.groups.is_empty() && (to_all || self.udp.groups.contains_key(&(destination, interface)))
    }

    /// RFC 9776 §5.2. A router sends it to its neighbours alone; a switch that asks may have no address (RFC 4541 §2.1.1).
    pub(super) fn igmp_arrives(&mut self, datagram: &Datagram<'_>) {
        let query = groups::parse_igmp(datagram.payload);
        self.query_arrives(query.filter(|_| Fields::of(datagram.quote).ttl == 1), datagram.interface, true);
    }

    /// RFC 9777 §6.2: from a link-local address, with hop limit 1 and a router alert.
    pub(super) fn mld_query_arrives(&mut self, datagram: &Datagram<'_>) {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (datagram.source(), datagram.destination())
        else {
            return;
        };
        let of_the_link = source.is_unicast_link_local()
            && Fields::of(datagram.quote).ttl == 1
            && groups::has_router_alert(datagram.quote);
        let query = groups::parse_mld(source, destination, datagram.payload);
        self.query_arrives(query.filter(|_| of_the_link), datagram.interface, false);
    }

    fn query_arrives(&mut self, query: Option<Query>, interface: InterfaceId, ipv4: bool) {
        let Some(Query { group, max_response }) = query else {
            return self.counters.count_drop(DropReason::GroupQuery);
        };
        let counters = &mut self.counters;
        *(if ipv4 { &mut counters.igmp_in_queries } else { &mut counters.mld_in_queries }) += 1;
        let link = match group {
            None => Some((interface, ipv4)),
            Some(group) if self.udp.groups.contains_key(&(group, interface)) => reported(group, interface),
            Some(_) => None,
        };
        if let Some(link) = link {
            let millis = (u64::from(self.keys.random()) * u64::from(max_response)) >> 32;
            self.udp.reports.asked(self.now, link, group, Duration::from_millis(millis));
        }
    }

    /// Sends the reports that are due, if they are not too many. Returns whether none is left.
    pub(super) fn report_members(&mut self) -> bool {
        for _ in 0..REPORTS {
            let Some(link) = self.udp.reports.due(self.now) else { return true };
            self.report_to(link);
        }
        false
    }

    fn report_to(&mut self, link: LinkKey) {
        let (id, ipv4) = link;
        let Some(mtu) = self.routing.get(id).map(|link| link.mtu) else { return self.udp.reports.forget(id) };
        let (joined, keys) = (&self.udp.groups, &mut self.keys);
        let behind = |told: Option<IpAddr>| {
            let begin = told.map_or(Bound::Unbounded, |told| Bound::Excluded((told, id)));
            let rest = joined.range((begin, Bound::Unbounded)).map(|(group, _)| *group);
            rest.filter(move |(group, there)| reported(*group, *there) == Some(link)).map(|(group, _)| group)
        };
        let random =
            |span: Duration| Duration::from_nanos((u64::from(keys.random()) * span.as_nanos() as u64) >> 32);
        let most = groups::most_records(ipv4, mtu.into()).max(1);
        let records = self.udp.reports.take(self.now, link, most, behind, random);
        if records.is_empty() {
            return;
        }
        let packet = if ipv4 {
            self.counters.igmp_out_reports += 1;
            groups::igmp_report(self.reporting_v4(id), &records)
        } else {
            self.counters.mld_out_reports += 1;
            groups::mld_report(self.reporting_v6(id), &records)
        };
        self.push_reply(Queued::Report(id, packet));
    }

    /// The source of reports over IPv4: none where the interface has no address (RFC 9776 §4.2.14).
    fn reporting_v4(&self, id: InterfaceId) -> Ipv4Addr {
        let mut ours = self.addresses.of(id).filter_map(|(address, _)| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        ours.next().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The source of reports over IPv6: a link-local address, or none (RFC 9777 §5.2.14).
    fn reporting_v6(&self, id: InterfaceId) -> Ipv6Addr {
        let mut ours = self.addresses.of(id).filter_map(|(address, _)| match address {
            IpAddr::V6(address) => Some(address).filter(Ipv6Addr::is_unicast_link_local),
            IpAddr::V4(_) => None,
        });
        ours.next().unwrap_or(Ipv6Addr::UNSPECIFIED)
    }
}
