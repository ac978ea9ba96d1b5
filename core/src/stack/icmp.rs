//! ICMP and ICMPv6: echo, incoming errors about sent segments, outgoing errors.

use std::net::IpAddr;

use super::inbound::Datagram;
use super::replies::Queued;
use super::sockets::{Place, SocketKind};
use super::{Stack, env_of};
use crate::counters::{DropReason, ReplyReason};
use crate::error::Error;
use crate::flow::FlowRef;
use crate::ip::pmtu;
use crate::seq::SeqNum;
use crate::socket::{IcmpReport, SocketId};
use crate::tcp::bsd;
use crate::tcp::room::room_in;
use crate::tcp::tcb::Origin;
use crate::tuple::{FourTuple, Quoted, quoted_packet};
use crate::wire::groups::MLD_QUERY;
use crate::wire::icmp::{self, ErrorKind, Message};
use crate::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, ipv4, ipv6};

/// The most bytes of a packet that an error quotes: the error fits the minimum MTU (RFC 1812 §4.3.2.3, RFC 4443 §2.4).
const QUOTE_V4: usize = 576 - ipv4::HEADER_LEN - icmp::HEADER_LEN;
const QUOTE_V6: usize = 1280 - ipv6::HEADER_LEN - icmp::HEADER_LEN;

impl Stack {
    pub(super) fn icmp_arrives(&mut self, datagram: &Datagram<'_>) {
        self.counters.icmp_in_msgs += 1;
        let is_query = !datagram.ends.is_ipv4() && datagram.payload.first() == Some(&MLD_QUERY);
        if is_query && !self.udp.groups.is_empty() {
            return self.mld_query_arrives(datagram);
        }
        // Other messages are for a single host (MUST-57).
        if datagram.destination().is_multicast() {
            self.counters.in_addr_errors += 1;
            return self.counters.count_drop(DropReason::BadDestination);
        }
        let message = match (datagram.source(), datagram.destination()) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                icmp::parse_v6(source, destination, datagram.payload)
            }
            _ => icmp::parse_v4(datagram.payload),
        };
        match message {
            // With a forwarder, errors to any address are taken in, but the stack does not answer for other hosts.
            Some(Message::EchoRequest { ident, sequence, data })
                if !self.addresses.is_local(datagram.destination()) =>
            {
                self.forward_echo_request(datagram, ident, sequence, data);
            }
            Some(Message::EchoRequest { ident, sequence, data }) if !self.config.icmp_echo_ignore_all => {
                let reply = Message::EchoReply { ident, sequence, data };
                self.send_icmp(datagram.destination(), datagram.source(), &reply, ReplyReason::EchoReply);
            }
            // MUST-55, 6633-1.
            Some(Message::Error { kind: ErrorKind::SourceQuench, .. }) | Some(Message::Other) | None => {
                self.counters.count_drop(DropReason::IcmpInvalid);
            }
            Some(Message::Error { kind, quoted }) => {
                let codes = datagram.payload.first_chunk().copied().unwrap_or_default();
                self.icmp_error(datagram.destination(), (kind, codes), quoted);
            }
            Some(Message::EchoRequest { .. } | Message::EchoReply { .. }) => {
                self.counters.count_drop(DropReason::IcmpInvalid);
            }
        }
    }

    /// Handles an error about a packet that this stack allegedly sent (MUST-54).
    fn icmp_error(&mut self, arrived_at: IpAddr, (kind, codes): (ErrorKind, [u8; 2]), quoted: &[u8]) {
        let Some(about) = quoted_packet(arrived_at, quoted) else {
            return self.counters.count_drop(DropReason::IcmpInvalid);
        };
        let (Quoted::Segment(tuple, _) | Quoted::Udp(tuple, _)) = about;
        if self.addresses.is_local(tuple.remote().ip()) {
            // A packet to the stack itself passes no router that could report an error.
            return self.counters.count_drop(DropReason::IcmpInvalid);
        }
        match (kind, about) {
            (ErrorKind::PacketTooBig { .. }, _) if self.routing.path(&tuple).mtu_lock => {
                self.dropped(&tuple, DropReason::IcmpInvalid);
            }
            (ErrorKind::PacketTooBig { mtu }, Quoted::Segment(_, seq)) => {
                self.packet_too_big(&tuple, seq, mtu)
            }
            (ErrorKind::PacketTooBig { mtu }, Quoted::Udp(_, len)) => self.udp_too_big(&tuple, len, mtu),
            (_, Quoted::Segment(_, seq)) => self.segment_error(&tuple, seq, (kind, codes)),
            (_, Quoted::Udp(..)) => {
                let (error, hard) = meaning(kind, tuple.is_ipv4());
                self.udp_error(&tuple, error, hard);
            }
        }
    }

    /// Handles an error about a segment, with the type and the code of the message.
    fn segment_error(&mut self, tuple: &FourTuple, seq: SeqNum, (kind, codes): (ErrorKind, [u8; 2])) {
        let Some(flow) = self.find(tuple) else {
            return self.dropped(tuple, DropReason::IcmpUnmatched);
        };
        let (error, hard) = meaning(kind, tuple.is_ipv4());
        let hard = hard && self.config.tcp_icmp_may_rst;
        let linux = self.config.follows_linux();
        match flow {
            FlowRef::Connection(index) => {
                // Linux: any error ends a handshake, unless an application has the connection already. DRILL-X34
                let hard = if linux { !self.is_held(index) } else { hard };
                let socket = self.connections[index].socket;
                let unreachable = matches!(
                    (kind, tuple.is_ipv4()),
                    (ErrorKind::NetworkUnreachable, _) | (ErrorKind::HostUnreachable, true)
                );
                let outcome = self.with_connection(index, |connection, env| {
                    if linux && unreachable {
                        connection.revert_back_off(seq, env);
                    }
                    connection.icmp_error(seq, error, hard, env)
                });
                self.apply(index, outcome, None);
                socket.into_iter().for_each(|id| self.report_icmp(id, error, codes));
            }
            FlowRef::Opening(index) if self.config.tcp_bsd_rules => {
                let sent = seq == self.openings[index].iss && self.openings[index].first_sent.is_some();
                match bsd::connect_error(kind, &self.config).filter(|_| sent) {
                    Some(error) => {
                        self.counters.attempt_fails += 1;
                        self.fail_opening(index, error);
                    }
                    None => self.dropped(tuple, DropReason::IcmpUnmatched),
                }
            }
            FlowRef::Opening(index) => match self.openings[index].icmp_error(seq, error, hard || linux) {
                Ok(Some(error)) => {
                    self.counters.attempt_fails += 1;
                    let socket = self.openings[index].socket;
                    self.fail_opening(index, error);
                    self.report_icmp(socket, error, codes);
                }
                Ok(None) => {
                    let opening = &mut self.openings[index];
                    let (socket, events) = (opening.socket, std::mem::take(&mut opening.events));
                    self.notify(socket, events);
                }
                Err(reason) => self.dropped(tuple, reason),
            },
            FlowRef::HalfOpen(index) => {
                // SA-SYN_RCVD-20: an unreachable peer will not complete the handshake.
                // It is soft where a TIME-WAIT would return (RFC 5927 §5.2): the SYN-ACK may have arrived all the
                // same, and TIME-WAIT and the ESTABLISHED peer would answer each other's ACKs.
                if seq != self.half_open[index].iss {
                    self.dropped(tuple, DropReason::IcmpNotInFlight);
                } else if self.ends_half_open(kind, hard, tuple.is_ipv4())
                    && !self.gave_way.contains_key(&index)
                {
                    self.forget_half_open(index);
                }
            }
            // SA-TIME_WAIT-12; nothing was sent for a request.
            FlowRef::TimeWait(_) | FlowRef::Pending(_) => self.dropped(tuple, DropReason::IcmpUnmatched),
            // All sent data is acknowledged.
            FlowRef::Dormant(_) => self.dropped(tuple, DropReason::IcmpNotInFlight),
        }
    }

    /// Keeps the message for the application, if it ended the handshake.
    // DRILL-L18
    fn report_icmp(&mut self, id: SocketId, error: Error, [kind, code]: [u8; 2]) {
        let Some(SocketKind::Finished(index)) = self.sockets.get(id).map(|socket| &socket.kind) else {
            return;
        };
        self.finished[*index].icmp = Some(Box::new(IcmpReport { error, kind, code }));
    }

    /// Returns and clears the ICMP error that ended a handshake, as a read of the error queue does with `IP_RECVERR`.
    /// Clears what [`take_error`](Stack::take_error) would return as well.
    ///
    /// # Errors
    ///
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn take_icmp_error(&mut self, id: SocketId) -> Result<Option<IcmpReport>, Error> {
        let SocketKind::Finished(index) = self.socket(id)?.kind else { return Ok(None) };
        let finished = &mut self.finished[index];
        let report = finished.icmp.take();
        if report.is_some() {
            finished.error = None;
        }
        Ok(report.map(|report| *report))
    }

    /// Whether a connection was accepted before its third segment.
    fn is_held(&self, index: u32) -> bool {
        let connection = &self.connections[index];
        let socket = connection.socket.and_then(|id| self.sockets.get(id));
        let passive = connection.tcb.origin != Origin::Active;
        passive && socket.is_none_or(|socket| socket.place != Place::AcceptQueue)
    }

    /// Whether an error about our SYN-ACK ends a half-open connection. Over IPv4 Linux believes that the peer is not to be
    /// reached, and not that its port is closed; over IPv6 the reverse.
    // DRILL-X34
    fn ends_half_open(&self, kind: ErrorKind, hard: bool, ipv4: bool) -> bool {
        if !self.config.follows_linux() {
            return hard && !self.config.tcp_bsd_rules;
        }
        let refuses = matches!(
            kind,
            ErrorKind::PortUnreachable | ErrorKind::ProtocolUnreachable | ErrorKind::AdminProhibited
        );
        refuses != ipv4
    }

    /// Handles a router's report that a packet of this flow exceeds the MTU (RFC 1191, 8201; checked as in RFC 5927
    /// §7).
    fn packet_too_big(&mut self, tuple: &FourTuple, seq: SeqNum, mtu: u32) {
        let Some(flow) = self.find(tuple) else {
            return self.dropped(tuple, DropReason::IcmpUnmatched);
        };
        let destination = tuple.remote().ip();
        match flow {
            FlowRef::Connection(index) => {
                let connection = &self.connections[index];
                let snd = &connection.tcb.snd;
                if !(seq.ge(snd.una) && seq.lt(snd.nxt)) {
                    return self.dropped(tuple, DropReason::IcmpNotInFlight);
                }
                let interface_mtu = self.interface_mtu(tuple);
                let Some(mtu) = pmtu::lowered(&self.config, destination, mtu, snd.path.mtu, interface_mtu)
                else {
                    return self.dropped(tuple, DropReason::IcmpInvalid);
                };
                if self.with_connection(index, |connection, env| connection.packet_too_big(seq, mtu, env)) {
                    self.pmtu.remember(self.now, &self.config, destination, mtu);
                }
            }
            FlowRef::Opening(index) => {
                let interface_mtu = self.interface_mtu(tuple);
                let opening = &mut self.openings[index];
                if seq != opening.iss {
                    return self.dropped(tuple, DropReason::IcmpNotInFlight);
                }
                if let Some(mtu) = pmtu::lowered(&self.config, destination, mtu, opening.pmtu, interface_mtu)
                {
                    if self.config.tcp_bsd_rules {
                        // The MSS in force is still 536, and the SYN waits for its timer. DRILL-F28
                        if !tuple.is_ipv4() || mtu < 576 {
                            opening.pmtu = mtu;
                            opening.adv_mss = opening.adv_mss.min(room_in(mtu, tuple.is_ipv4()));
                        }
                        return;
                    }
                    self.pmtu.remember(self.now, &self.config, destination, mtu);
                    opening.pmtu = mtu;
                    if self.config.follows_linux() {
                        // DRILL-X41
                        opening.adv_mss = opening.adv_mss.min(room_in(mtu, tuple.is_ipv4()));
                        if opening.syn_data == 0 {
                            return;
                        }
                    }
                    opening.syn_pending = true;
                    self.queue_opening(index);
                }
            }
            FlowRef::HalfOpen(_) | FlowRef::TimeWait(_) | FlowRef::Pending(_) => {
                self.dropped(tuple, DropReason::IcmpUnmatched);
            }
            FlowRef::Dormant(_) => self.dropped(tuple, DropReason::IcmpNotInFlight),
        }
    }

    /// Returns the known path MTU of a flow, or that of the interface by which it leaves.
    pub(super) fn path_mtu(&self, tuple: &FourTuple) -> u16 {
        let interface_mtu = self.interface_mtu(tuple);
        self.pmtu.get(self.now, tuple.remote().ip()).map_or(interface_mtu, |mtu| mtu.min(interface_mtu))
    }

    /// Answers a datagram for an unsupported protocol or a closed port (RFC 1122 §3.2.2.1).
    pub(super) fn unreachable(&mut self, datagram: &Datagram<'_>, kind: ErrorKind) {
        // Do not answer a datagram without upper-layer header (RFC 8200 §4.7), nor an ICMP message.
        let none = !datagram.ends.is_ipv4() && datagram.protocol == ipv6::NO_NEXT_HEADER;
        if !none && !matches!(datagram.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) {
            self.send_error(
                datagram.destination(),
                datagram.source(),
                kind,
                datagram.quote,
                ReplyReason::Unreachable,
            );
        }
    }

    /// Answers a SYN that `tcp_refuse` rejects with ICMP (H10b).
    pub(super) fn prohibited(&mut self, datagram: &Datagram<'_>) {
        let (kind, reason) = (ErrorKind::AdminProhibited, ReplyReason::AdminProhibited);
        self.send_error(datagram.destination(), datagram.source(), kind, datagram.quote, reason);
    }

    pub(super) fn reassembly_time_exceeded(&mut self, local: IpAddr, remote: IpAddr, quote: &[u8]) {
        let (kind, reason) = (ErrorKind::ReassemblyTimeExceeded, ReplyReason::ReassemblyTimeExceeded);
        self.send_error(local, remote, kind, quote, reason);
    }

    pub(super) fn send_error(
        &mut self,
        local: IpAddr,
        remote: IpAddr,
        kind: ErrorKind,
        quote: &[u8],
        reason: ReplyReason,
    ) {
        let headers = icmp::HEADER_LEN + if remote.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let tuple = FourTuple::new((local, 0).into(), (remote, 0).into());
        let room = usize::from(self.interface_mtu(&tuple)).saturating_sub(headers);
        let quoted = &quote[..quote.len().min(quote_len(remote.is_ipv4(), quote)).min(room)];
        self.send_icmp(local, remote, &Message::Error { kind, quoted }, reason);
    }

    /// Sends a message, subject to the rate limit of the destination's network.
    fn send_icmp(&mut self, local: IpAddr, remote: IpAddr, message: &Message<'_>, reason: ReplyReason) {
        let slot = self.network_slot(remote);
        let jitter = self.keys.random();
        let tuple = FourTuple::new((local, 0).into(), (remote, 0).into());
        if !self.icmp_limit.allow(self.now, slot, self.config.icmp_ratelimit, jitter) {
            return self.dropped(&tuple, DropReason::ReplyThrottled);
        }
        let Some(packet) = self.icmp_packet(&tuple, message) else { return };
        self.counters.icmp_out_msgs += 1;
        env_of!(self).note_reply(&tuple, reason);
        self.push_reply(Queued::Packet(packet));
    }

    fn icmp_packet(&self, tuple: &FourTuple, message: &Message<'_>) -> Option<Vec<u8>> {
        let (local, remote) = (tuple.local().ip(), tuple.remote().ip());
        let header_len = if remote.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let len = header_len + message.emitted_len();
        if len > usize::from(self.interface_mtu(tuple)) {
            return None;
        }
        // Exactly the size of the message: it may wait for the device.
        let mut packet = vec![0; len];
        let ttl = self.config.ip_default_ttl;
        match (local, remote) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (head, body) = packet.split_at_mut_checked(ipv4::HEADER_LEN)?;
                let len = icmp::emit_v4(message, body)?;
                let header = ipv4::Header::new(source, destination, PROTOCOL_ICMP);
                ipv4::Header { ttl, ..header }.emit(len, head);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (head, body) = packet.split_at_mut_checked(ipv6::HEADER_LEN)?;
                let len = icmp::emit_v6(source, destination, message, body)?;
                let header = ipv6::Header::new(source, destination, PROTOCOL_ICMPV6);
                ipv6::Header { hop_limit: ttl, ..header }.emit(len, head);
            }
            _ => return None,
        }
        Some(packet)
    }
}

/// Returns what an ICMP error means for the application, and whether it is a hard error.
fn meaning(kind: ErrorKind, ipv4: bool) -> (Error, bool) {
    match kind {
        ErrorKind::NetworkUnreachable => (Error::NetworkUnreachable, false),
        ErrorKind::ProtocolUnreachable => (Error::ProtocolUnavailable, true),
        ErrorKind::PortUnreachable => (Error::ConnectionRefused, true),
        // As in Linux: EHOSTUNREACH for IPv4, EACCES for IPv6.
        ErrorKind::AdminProhibited => (if ipv4 { Error::HostUnreachable } else { Error::Prohibited }, true),
        // All others are soft errors (MUST-56).
        _ => (Error::HostUnreachable, false),
    }
}

/// Returns how much of a packet an error quotes. The error is no longer than the packet, so that it amplifies nothing.
/// But it always quotes the headers and eight more bytes, by which the sender identifies the flow (RFC 792).
fn quote_len(ipv4: bool, packet: &[u8]) -> usize {
    let (header_len, most, payload) = if ipv4 {
        (ipv4::HEADER_LEN, QUOTE_V4, ipv4::parse_quoted(packet).map(|(_, payload)| payload))
    } else {
        (ipv6::HEADER_LEN, QUOTE_V6, ipv6::parse_quoted(packet).map(|(_, payload)| payload))
    };
    let headers = payload.map_or(header_len, |payload| packet.len() - payload.len());
    packet.len().saturating_sub(header_len + icmp::HEADER_LEN).max(headers + 8).min(most)
}
