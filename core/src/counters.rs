//! Counters of a stack: every drop, reply, retry and limit.
//!
//! A counter has Linux's SNMP name if it has the same meaning (`ListenOverflows`), and a name of its own otherwise.
//! Drops and replies are also counted by reason.

use std::fmt;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident $name:literal;)+) => {
        /// The counters of a stack. All start at zero and only increase.
        #[derive(Clone, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $field: u64,)+
            drops: [u64; DropReason::ALL.len()],
            replies: [u64; ReplyReason::ALL.len()],
        }

        impl Default for Counters {
            fn default() -> Counters {
                Counters {
                    $($field: 0,)+
                    drops: [0; DropReason::ALL.len()],
                    replies: [0; ReplyReason::ALL.len()],
                }
            }
        }

        impl Counters {
            /// Iterates over all counters with their names: the SNMP ones, then `drop.…` and `reply.…`.
            pub fn iter(&self) -> impl Iterator<Item = (String, u64)> {
                let named = [$(($name.to_owned(), self.$field),)+];
                let drops = DropReason::ALL.iter().map(|r| (format!("drop.{r}"), self.drops[*r as usize]));
                let replies = ReplyReason::ALL.iter().map(|r| (format!("reply.{r}"), self.replies[*r as usize]));
                named.into_iter().chain(drops).chain(replies)
            }

            /// Adds the counters of another stack.
            pub fn add(&mut self, other: &Counters) {
                $(self.$field += other.$field;)+
                self.drops.iter_mut().zip(other.drops).for_each(|(ours, theirs)| *ours += theirs);
                self.replies.iter_mut().zip(other.replies).for_each(|(ours, theirs)| *ours += theirs);
            }
        }
    };
}

macro_rules! reasons {
    ($(#[doc = $what:literal])+ $ty:ident { $($(#[doc = $doc:literal])+ $variant:ident $name:literal,)+ }) => {
        $(#[doc = $what])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $ty { $($(#[doc = $doc])+ $variant,)+ }

        impl $ty {
            /// All variants.
            pub const ALL: &'static [$ty] = &[$($ty::$variant,)+];

            /// Returns the name in counters, traces and scenario files.
            pub const fn name(self) -> &'static str {
                match self { $($ty::$variant => $name,)+ }
            }

            /// Returns the description.
            pub const fn doc(self) -> &'static str {
                match self { $($ty::$variant => concat!($($doc),+),)+ }
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

counters! {
    /// Packets passed to the stack.
    in_receives "InReceives";
    /// Packets with an invalid IP header.
    in_hdr_errors "InHdrErrors";
    /// Packets with an unacceptable source or destination address.
    in_addr_errors "InAddrErrors";
    /// Packets sent, to the device or to the stack itself.
    out_requests "OutRequests";
    /// Packets dropped because no route led to their destination. Linux counts only some of them.
    out_no_routes "OutNoRoutes";
    /// Times that sending paused because `loop_queue` packets to the stack itself waited.
    loop_queue_full "LoopQueueFull";
    /// Packets that a driver dropped because `netdev_max_backlog` of them waited for a stack. Linux has it in the
    /// column
    /// `dropped` of `/proc/net/softnet_stat`.
    softnet_dropped "softnet_dropped";
    /// Packets that a driver dropped because `txqueuelen` of them waited for a device among several.
    tx_dropped "tx_dropped";
    /// Neighbours removed to make room for others (`gc_thresh3`).
    neigh_forced_gc_runs "neigh_forced_gc_runs";
    /// Neighbours that did not answer.
    neigh_res_failed "neigh_res_failed";
    /// Packets dropped because too many waited for a hardware address (`unres_qlen_bytes`, `neigh_mem`).
    neigh_unresolved_discards "neigh_unresolved_discards";
    /// Packets dropped because no neighbour could give way (`gc_thresh3`).
    neigh_table_fulls "neigh_table_fulls";
    /// Fragments received.
    reasm_reqds "ReasmReqds";
    /// Datagrams reassembled.
    reasm_oks "ReasmOKs";
    /// Datagrams whose reassembly failed.
    reasm_fails "ReasmFails";
    /// Datagrams whose fragments did not all arrive in time.
    reasm_timeout "ReasmTimeout";
    /// ICMP messages received.
    icmp_in_msgs "IcmpInMsgs";
    /// ICMP messages sent.
    icmp_out_msgs "IcmpOutMsgs";
    /// Queries of IGMP received: a router asks who is a member of which group.
    igmp_in_queries "IgmpInQueries";
    /// Reports of IGMP sent.
    igmp_out_reports "IgmpOutReports";
    /// Queries of MLD received.
    mld_in_queries "Icmp6InGroupMembQueries";
    /// Reports of MLD sent.
    mld_out_reports "Icmp6OutMLDv2Reports";
    /// Datagrams of UDP delivered to sockets.
    udp_in_datagrams "UdpInDatagrams";
    /// Datagrams of UDP for ports without a socket.
    udp_no_ports "UdpNoPorts";
    /// Datagrams of UDP that were not delivered for another reason.
    udp_in_errors "UdpInErrors";
    /// Datagrams of UDP sent.
    udp_out_datagrams "UdpOutDatagrams";
    /// Datagrams of UDP dropped because the receive buffer was full.
    udp_rcvbuf_errors "UdpRcvbufErrors";
    /// Datagrams of UDP refused because the send buffer was full.
    udp_sndbuf_errors "UdpSndbufErrors";
    /// Datagrams of UDP with a wrong checksum.
    udp_in_csum_errors "UdpInCsumErrors";
    /// Datagrams of UDP dropped or refused because `udp_mem` was used up.
    udp_mem_errors "UdpMemErrors";
    /// TCP segments received, including invalid ones.
    in_segs "InSegs";
    /// TCP segments sent, excluding retransmissions.
    out_segs "OutSegs";
    /// Segments retransmitted.
    retrans_segs "RetransSegs";
    /// Invalid segments received.
    in_errs "InErrs";
    /// Segments with a wrong checksum.
    in_csum_errors "InCsumErrors";
    /// RSTs sent.
    out_rsts "OutRsts";
    /// Connections opened actively.
    active_opens "ActiveOpens";
    /// Connections opened passively.
    passive_opens "PassiveOpens";
    /// Connections that failed before they were established.
    attempt_fails "AttemptFails";
    /// Established connections that a RST from either side ended.
    estab_resets "EstabResets";
    /// SYN cookies sent.
    syncookies_sent "SyncookiesSent";
    /// Valid SYN cookies received.
    syncookies_recv "SyncookiesRecv";
    /// SYN cookies received that were forged, expired or already used.
    syncookies_failed "SyncookiesFailed";
    /// SYN cookies that became connections but did not fit into the memory of used cookies (`tcp_max_spent_cookies`).
    syncookies_not_kept "SyncookiesNotKept";
    /// Half-open connections ended by a RST.
    embryonic_rsts "EmbryonicRsts";
    /// Connections that entered TIME-WAIT.
    tw "TW";
    /// TIME-WAIT entries replaced by a new connection.
    tw_recycled "TWRecycled";
    /// Connections that skipped TIME-WAIT because it was full (`tcp_max_tw_buckets`, `tcp_tw_mem`).
    tcp_time_wait_overflow "TCPTimeWaitOverflow";
    /// SYNs refused because their timestamp is older than the last one of the peer (`tcp_tw_recycle`).
    paws_passive "PAWSPassive";
    /// SYN-ACKs that echo a timestamp which was never sent.
    paws_active "PAWSActive";
    /// Segments rejected by PAWS.
    paws_estab "PAWSEstab";
    /// Times that the accept queue was full.
    listen_overflows "ListenOverflows";
    /// SYNs and final ACKs that a listener dropped.
    listen_drops "ListenDrops";
    /// SYNs answered with a cookie because a half-open table counted as full.
    tcp_req_q_full_do_cookies "TCPReqQFullDoCookies";
    /// SYNs dropped because a half-open table was full.
    tcp_req_q_full_drop "TCPReqQFullDrop";
    /// SYNs that became requests of a forwarder.
    forward_requests "ForwardRequests";
    /// Requests that a forwarder accepted.
    forward_accepted "ForwardAccepted";
    /// Requests that a forwarder refused.
    forward_rejected "ForwardRejected";
    /// Requests that ended before the decision: their peer reset them, began anew, or stopped asking.
    forward_gone "ForwardGone";
    /// SYNs dropped because of `forward_max_pending`.
    forward_pending_full "ForwardPendingFull";
    /// SYNs dropped because of `forward_max_pending_per_source`.
    forward_source_full "ForwardSourceFull";
    /// SYNs dropped because of `forward_max_pending_per_destination`.
    forward_destination_full "ForwardDestinationFull";
    /// Datagrams of UDP that forwarders took.
    forward_datagrams "ForwardDatagrams";
    /// Echo requests that forwarders took.
    forward_echoes "ForwardEchoes";
    /// Datagrams and echo requests dropped because of `forward_queue` or `forward_queue_bytes`.
    forward_queue_full "ForwardQueueFull";
    /// SYNs and SYN-ACKs retransmitted.
    tcp_syn_retrans "TCPSynRetrans";
    /// SYN-ACK retransmissions suppressed by `tcp_synack_ratelimit`.
    synack_repeats_saved "SynAckRepeatsSaved";
    /// Half-open connections that ended because no SYN-ACK was answered.
    synack_retries_exhausted "synack_retries_exhausted";
    /// Retransmission timeouts.
    tcp_timeouts "TCPTimeouts";
    /// Segments retransmitted by fast retransmit.
    tcp_fast_retrans "TCPFastRetrans";
    /// Segments retransmitted in slow start after a timeout.
    tcp_slow_start_retrans "TCPSlowStartRetrans";
    /// Timeouts that F-RTO found spurious (RFC 5682).
    tcp_spurious_rtos "TCPSpuriousRTOs";
    /// Loss probes sent (RFC 8985 §7).
    tcp_loss_probes "TCPLossProbes";
    /// Losses that a loss probe repaired.
    tcp_loss_probe_recovery "TCPLossProbeRecovery";
    /// Retransmissions that were lost.
    tcp_lost_retransmit "TCPLostRetransmit";
    /// Recoveries that use SACK.
    tcp_sack_recovery "TCPSackRecovery";
    /// Recoveries that do not use SACK.
    tcp_reno_recovery "TCPRenoRecovery";
    /// Recoveries that proved spurious, and whose reduction was undone.
    tcp_full_undo "TCPFullUndo";
    /// Times that the peer dropped data that it had selectively acknowledged.
    tcp_sack_reneging "TCPSACKReneging";
    /// SACK blocks outside of the data sent.
    tcp_sack_discard "TCPSACKDiscard";
    /// Duplicate SACK blocks sent.
    tcp_dsack_sent "TCPDSACKOldSent";
    /// Duplicate SACK blocks received.
    tcp_dsack_recv "TCPDSACKRecv";
    /// Segments queued out of order.
    tcp_ofo_queue "TCPOFOQueue";
    /// Out-of-order segments dropped because the out-of-order queue was full.
    tcp_ofo_drop "TCPOFODrop";
    /// Times that a full out-of-order queue dropped data that it held.
    ofo_pruned "OfoPruned";
    /// In-order segments dropped for lack of room in the receive buffer or in `tcp_mem`.
    tcp_rcv_q_drop "TCPRcvQDrop";
    /// Connections reset because data arrived after the application had closed.
    tcp_abort_on_data "TCPAbortOnData";
    /// Connections reset because the application closed with data unread.
    tcp_abort_on_close "TCPAbortOnClose";
    /// Orphans reset because of `tcp_max_orphans` or `tcp_mem`.
    tcp_abort_on_memory "TCPAbortOnMemory";
    /// Connections reset because `tcp_mem` was short and their peer acknowledged none of the data held for it.
    stalled_aborted "StalledAborted";
    /// Times that `tcp_mem` came under pressure.
    tcp_memory_pressures "TCPMemoryPressures";
    /// Total time under memory pressure, in milliseconds.
    tcp_memory_pressures_chrono "TCPMemoryPressuresChrono";
    /// Times that a connection was asked to prune its out-of-order queue.
    prune_called "PruneCalled";
    /// Connections that timed out for lack of an answer.
    tcp_abort_on_timeout "TCPAbortOnTimeout";
    /// Orphans ended by the FIN-WAIT-2 timer or by `TCP_LINGER2`.
    tcp_abort_on_linger "TCPAbortOnLinger";
    /// Orphans that did not deliver their data in time (`tcp_orphan_timeout`).
    orphan_timeouts "orphan_timeouts";
    /// Keepalive probes sent.
    tcp_keep_alive "TCPKeepAlive";
    /// Zero-window probes sent.
    tcp_win_probe "TCPWinProbe";
    /// Challenge ACKs sent.
    tcp_challenge_ack "TCPChallengeACK";
    /// Challenge ACKs sent in response to a SYN.
    tcp_syn_challenge "TCPSYNChallenge";
    /// Fast Open SYNs whose data the server acknowledged.
    tcp_fast_open_active "TCPFastOpenActive";
    /// Fast Open SYNs whose data the server did not acknowledge.
    tcp_fast_open_active_fail "TCPFastOpenActiveFail";
    /// Connections accepted by Fast Open.
    tcp_fast_open_passive "TCPFastOpenPassive";
    /// Fast Open SYNs with an invalid cookie.
    tcp_fast_open_passive_fail "TCPFastOpenPassiveFail";
    /// Fast Open SYNs that exceeded `tcp_fastopen_pending`.
    tcp_fast_open_listen_overflow "TCPFastOpenListenOverflow";
    /// Fast Open cookies issued.
    tcp_fast_open_cookie_reqd "TCPFastOpenCookieReqd";
    /// Times that the advertised receive window closed.
    tcp_to_zero_window_adv "TCPToZeroWindowAdv";
    /// Times that the advertised receive window reopened.
    tcp_from_zero_window_adv "TCPFromZeroWindowAdv";
    /// Path MTU probes lost.
    tcp_mtup_fail "TCPMTUPFail";
    /// Path MTU probes acknowledged.
    tcp_mtup_success "TCPMTUPSuccess";
    /// Path MTU black holes detected.
    mtu_black_holes "MtuBlackHoles";
    /// Times that retransmissions reached R1 and the application was notified.
    r1_reached "R1Reached";
    /// Connections that entered CLOSE-WAIT.
    close_wait_entered "CloseWaitEntered";
    /// Connections that left CLOSE-WAIT; `CloseWaitEntered` minus this is the number now in it.
    close_wait_left "CloseWaitLeft";
    /// Trace events lost because they were not collected in time.
    trace_lost "TraceLost";
}

reasons! {
    /// The reason why an arriving packet, segment or message was dropped.
    DropReason {
        /// Invalid Ethernet header: too short, of a VLAN, or the source is not the address of another single host.
        FrameHeader "frame_header",
        /// Frame for the hardware address of another host.
        FrameNotOurs "frame_not_ours",
        /// Frame of a protocol that is neither IP nor ARP.
        FrameType "frame_type",
        /// Packet for a single host in a frame for many (RFC 1122 §3.3.6).
        // THREAT-88
        LinkBroadcast "link_broadcast",
        /// Invalid ARP packet: its fields, or a sender that cannot be on the link.
        // THREAT-86
        ArpInvalid "arp_invalid",
        /// Invalid message of neighbour discovery (RFC 4861 §6.1, §7.1), or a sender that cannot be on the link.
        // THREAT-86
        NdpInvalid "ndp_invalid",
        /// Message of neighbour discovery that means nothing to a host that its user configures.
        NdpIgnored "ndp_ignored",
        /// Claim of an unknown neighbour that nobody asked for.
        // THREAT-84
        NeighUnsolicited "neigh_unsolicited",
        /// Another hardware address for a neighbour whose address has just changed (`locktime`).
        // THREAT-86
        NeighLocked "neigh_locked",
        /// Another host uses an address of this stack (RFC 5227 §2.4).
        // THREAT-87
        AddressConflict "address_conflict",
        /// Invalid IP header: version, lengths, options, extension headers.
        // P0, THREAT-58, THREAT-66
        IpHeader "ip_header",
        /// Wrong IPv4 header checksum.
        // P0
        IpChecksum "ip_checksum",
        /// Source-routed packet (RFC 9293 §3.9.2.1).
        // MUST-51..53, THREAT-64
        SourceRoute "source_route",
        /// The source is not a unicast host address (RFC 9293 §3.9.2.3).
        // MUST-63, THREAT-63
        BadSource "bad_source",
        /// The destination is broadcast, multicast or unspecified (RFC 9293 §3.9.2.3).
        // MUST-57, THREAT-63
        BadDestination "bad_destination",
        /// The destination is not an address of this stack.
        NotOurs "not_ours",
        /// Unsupported protocol.
        UnknownProtocol "unknown_protocol",
        /// Fragments that overlap, are inconsistent or hide a header.
        // THREAT-65, THREAT-66
        BadFragment "bad_fragment",
        /// Fragments that exceed a limit.
        // THREAT-18
        FragmentLimit "fragment_limit",
        /// Fragments of a datagram that timed out.
        FragmentTimeout "fragment_timeout",
        /// Invalid or unsupported ICMP message, or one about a path MTU that is locked.
        IcmpInvalid "icmp_invalid",
        /// ICMP error that matches no connection.
        IcmpUnmatched "icmp_unmatched",
        /// ICMP error that quotes a sequence number not in flight (RFC 5927 §4.1).
        // 5927-1
        IcmpNotInFlight "icmp_not_in_flight",
        /// Message of IGMP or MLD that is no query of a router of the link (RFC 9776 §4, RFC 9777 §6.2).
        // 9776-3
        GroupQuery "group_query",
        /// Datagram of UDP for a port without a socket, or not of the socket's peer.
        UdpNoPort "udp_no_port",
        /// Invalid UDP header: lengths.
        UdpHeader "udp_header",
        /// Wrong UDP checksum, or none over IPv6.
        UdpChecksum "udp_checksum",
        /// Invalid TCP header: lengths, ports.
        // P1, THREAT-58, THREAT-62
        TcpHeader "tcp_header",
        /// Wrong TCP checksum (RFC 9293 §3.1).
        // MUST-3
        TcpChecksum "tcp_checksum",
        /// Invalid combination of flags.
        // P2, THREAT-60
        TcpFlags "tcp_flags",
        /// Malformed TCP options.
        // P3, THREAT-57
        TcpOptions "tcp_options",
        /// Source and destination are equal.
        // P5, THREAT-39
        Land "land",
        /// RST that matches no connection (RFC 9293 §3.10.7.1), or for a listener (RFC 9293 §3.10.7.2).
        // SA-CLOSED-01, SA-LISTEN-01
        RstUnmatched "rst_unmatched",
        /// Segment for a listener without SYN, ACK or RST (RFC 9293 §3.10.7.2).
        // SA-LISTEN-11
        ListenNoFlags "listen_no_flags",
        /// SYN while the half-open table is full and cookies are off.
        // SA-LISTEN-07, H4a
        SynBacklogFull "syn_backlog_full",
        /// SYN or final ACK while the accept queue is full.
        // SA-LISTEN-08, SA-SYN_RCVD-07
        AcceptQueueFull "accept_queue_full",
        /// `tcp_max_connections` is reached, or data exceeds `tcp_mem`.
        // SA-SYN_RCVD-08
        NoMemory "no_memory",
        /// Silently refused by `tcp_refuse`.
        Refused "refused",
        /// SYN with a timestamp that `tcp_tw_recycle` considers old (T9c).
        RecycledTimestamp "recycled_timestamp",
        /// RST with an unacceptable ACK, or RST without ACK, in SYN-SENT (RFC 9293 §3.10.7.3).
        // SA-SYN_SENT-02, SA-SYN_SENT-04
        SynSentRst "syn_sent_rst",
        /// Segment without SYN or RST in SYN-SENT (RFC 9293 §3.10.7.3).
        // SA-SYN_SENT-10..12
        SynSentNoSyn "syn_sent_no_syn",
        /// In-window SYN that ended a half-open connection (RFC 9293 §3.10.7.4).
        // SA-SYN_RCVD-02
        HalfOpenSyn "half_open_syn",
        /// RST that ended a half-open connection (RFC 9293 §3.10.7.4), or a request of a forwarder.
        // SA-SYN_RCVD-13
        HalfOpenRst "half_open_rst",
        /// SYN above a limit of pending requests of forwarders.
        // FWD-6
        ForwardLimit "forward_limit",
        /// Segment, other than a SYN or RST, for a request that waits for the decision of a forwarder.
        // FWD-1
        Undecided "undecided",
        /// Datagram or echo request for which a forwarder has no room, or `udp_mem`.
        // FWD-18
        ForwardQueueFull "forward_queue_full",
        /// Timestamp older than the last one (PAWS, RFC 7323 §5.3).
        // 7323-10
        Paws "paws",
        /// No timestamp on a connection that negotiated timestamps (RFC 7323 §3.2).
        // 7323-6
        MissingTimestamp "missing_timestamp",
        /// Entirely outside the receive window.
        OutOfWindow "out_of_window",
        /// Entirely received before.
        Duplicate "duplicate",
        /// RST outside the receive window (RFC 5961 §3.2).
        // 5961-1
        RstOutOfWindow "rst_out_of_window",
        /// RST inside the receive window, but not at RCV.NXT: challenged (RFC 5961 §3.2).
        // 5961-3
        RstChallenged "rst_challenged",
        /// SYN in a synchronized state: challenged (RFC 5961 §4.2).
        // 5961-5
        SynChallenged "syn_challenged",
        /// Segment without ACK, RST or SYN.
        NoAck "no_ack",
        /// ACK of data never sent.
        AckOfUnsent "ack_of_unsent",
        /// ACK older than the acceptable range (RFC 5961 §5.2).
        // 5961-7
        AckTooOld "ack_too_old",
        /// Data after the peer's FIN (RFC 9293 §3.10.7.4).
        // SA-EST-24, THREAT-51
        DataAfterFin "data_after_fin",
        /// Data after the application shut down reading.
        DataAfterShutdown "data_after_shutdown",
        /// The out-of-order queue is full.
        // THREAT-13
        OutOfOrderFull "out_of_order_full",
        /// The receive buffer is full, or `udp_mem`.
        ReceiveBufferFull "receive_buffer_full",
        /// RST in TIME-WAIT (RFC 1337, RFC 9293 §3.10.7.4).
        // SA-TIME_WAIT-05, SA-TIME_WAIT-06
        TimeWaitRst "time_wait_rst",
        /// Any other segment in TIME-WAIT (RFC 9293 §3.10.7.4).
        // SA-TIME_WAIT-08..11
        TimeWaitSegment "time_wait_segment",
        /// The rate limit suppressed the reply (RFC 9293 §3.10.7.1).
        // SA-CLOSED-05, THREAT-34
        ReplyThrottled "reply_throttled",
        /// The queue of stateless replies is full.
        ReplyQueueFull "reply_queue_full",
    }
}

reasons! {
    /// The reason for a reply that the stack sent outside of, or despite, a connection.
    ReplyReason {
        /// RST: no connection and no listener (RFC 9293 §3.10.7.1).
        // SA-CLOSED-02, SA-CLOSED-03
        RstClosed "rst_closed",
        /// RST: ACK for a listener without a valid cookie (RFC 9293 §3.10.7.2).
        // SA-LISTEN-02
        RstListen "rst_listen",
        /// RST: unacceptable ACK before the connection was established (RFC 9293 §3.10.7.3, §3.10.7.4).
        // SA-SYN_SENT-01, SA-SYN_RCVD-10
        RstUnacceptableAck "rst_unacceptable_ack",
        /// RST: the accept queue is full and `tcp_abort_on_overflow` is on.
        // SA-SYN_RCVD-07
        RstOverflow "rst_overflow",
        /// RST: refused by `tcp_refuse`.
        RstRefused "rst_refused",
        /// RST: a forwarder refused the request.
        // FWD-5
        RstForward "rst_forward",
        /// RST: the connection was aborted, or closed with data unread.
        RstAbort "rst_abort",
        /// RST: a half-open connection timed out (`synack_timeout_rst`).
        RstSynAckTimeout "rst_synack_timeout",
        /// First SYN-ACK of a half-open connection.
        SynAck "syn_ack",
        /// Retransmitted SYN-ACK of a half-open connection.
        SynAckRetransmit "syn_ack_retransmit",
        /// SYN-ACK with a cookie.
        SynAckCookie "syn_ack_cookie",
        /// ACK for an unacceptable segment of a half-open connection (RFC 9293 §3.10.7.4).
        // SA-SYN_RCVD-03, SA-SYN_RCVD-11
        HalfOpenAck "half_open_ack",
        /// Challenge ACK (RFC 5961).
        ChallengeAck "challenge_ack",
        /// ACK for an unacceptable segment (Table 6, PAWS).
        UnacceptableAck "unacceptable_ack",
        /// ACK for a retransmitted FIN in TIME-WAIT (RFC 9293 §3.10.7.4).
        // SA-TIME_WAIT-07
        TimeWaitFinAck "time_wait_fin_ack",
        /// ACK for another segment in TIME-WAIT.
        TimeWaitAck "time_wait_ack",
        /// ARP reply (RFC 826).
        ArpReply "arp_reply",
        /// Neighbor advertisement for a solicitation (RFC 4861 §7.2.4).
        NeighborAdvertisement "neighbor_advertisement",
        /// Router advertisement for a solicitation (RFC 4861 §6.2.6).
        RouterAdvertisement "router_advertisement",
        /// ICMP echo reply.
        EchoReply "echo_reply",
        /// ICMP unreachable: protocol or port.
        Unreachable "unreachable",
        /// ICMP communication administratively prohibited (`tcp_refuse`).
        AdminProhibited "admin_prohibited",
        /// ICMP error: a forwarder refused a request, a datagram or an echo request.
        // FWD-5, FWD-20
        IcmpForward "icmp_forward",
        /// ICMP time exceeded: reassembly timed out.
        ReassemblyTimeExceeded "reassembly_time_exceeded",
    }
}

impl Counters {
    /// Returns the number of drops for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Returns the number of replies for a reason.
    pub fn replied(&self, reason: ReplyReason) -> u64 {
        self.replies[reason as usize]
    }

    /// Returns the counter of this name, as in [`iter`](Counters::iter).
    pub fn value(&self, name: &str) -> Option<u64> {
        self.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(crate) fn count_reply(&mut self, reason: ReplyReason) {
        self.replies[reason as usize] += 1;
    }
}

impl fmt::Debug for Counters {
    /// Shows only counters that are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, value)| *value > 0)).finish()
    }
}
