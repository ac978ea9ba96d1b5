//! What the stack counted: every drop, reply, retry and limit.
//!
//! A counter bears Linux's SNMP name where it means the same (`ListenOverflows`), and another name where it does
//! not exist there. Drops and replies are also counted by reason.

use std::fmt;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident $name:literal;)+) => {
        /// The counters of a stack. All count from zero and only upwards.
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
            /// Every counter with its name: the SNMP ones, then `drop.…` and `reply.…`.
            pub fn iter(&self) -> impl Iterator<Item = (String, u64)> {
                let named = [$(($name.to_owned(), self.$field),)+];
                let drops = DropReason::ALL.iter().map(|r| (format!("drop.{r}"), self.drops[*r as usize]));
                let replies = ReplyReason::ALL.iter().map(|r| (format!("reply.{r}"), self.replies[*r as usize]));
                named.into_iter().chain(drops).chain(replies)
            }

            /// Adds what another stack counted.
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
        pub enum $ty { $($(#[doc = $doc])+ $variant,)+ }

        impl $ty {
            /// All of them.
            pub const ALL: &'static [$ty] = &[$($ty::$variant,)+];

            /// The name in counters, traces and scenario files.
            pub const fn name(self) -> &'static str {
                match self { $($ty::$variant => $name,)+ }
            }

            /// What it means.
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
    /// Packets handed to the stack.
    in_receives "InReceives";
    /// Packets with a broken IP header.
    in_hdr_errors "InHdrErrors";
    /// Packets whose addresses are not acceptable.
    in_addr_errors "InAddrErrors";
    /// Packets sent: to the device, or to ourselves.
    out_requests "OutRequests";
    /// Times that sending stopped until packets to ourselves were taken in (`loop_queue`).
    loop_queue_full "LoopQueueFull";
    /// Fragments received.
    reasm_reqds "ReasmReqds";
    /// Datagrams put together.
    reasm_oks "ReasmOKs";
    /// Datagrams given up.
    reasm_fails "ReasmFails";
    /// Datagrams given up because their fragments did not all come in time.
    reasm_timeout "ReasmTimeout";
    /// ICMP messages received.
    icmp_in_msgs "IcmpInMsgs";
    /// ICMP messages sent.
    icmp_out_msgs "IcmpOutMsgs";
    /// TCP segments received, broken ones included.
    in_segs "InSegs";
    /// TCP segments sent, retransmissions excluded.
    out_segs "OutSegs";
    /// Segments retransmitted.
    retrans_segs "RetransSegs";
    /// Broken segments received.
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
    /// Established connections that ended by a RST of either side.
    estab_resets "EstabResets";
    /// SYN cookies sent.
    syncookies_sent "SyncookiesSent";
    /// Valid SYN cookies that came back.
    syncookies_recv "SyncookiesRecv";
    /// SYN cookies that came back and were forged, too old or spent.
    syncookies_failed "SyncookiesFailed";
    /// SYN cookies that became connections and found no room among the spent ones (`tcp_max_spent_cookies`).
    syncookies_not_kept "SyncookiesNotKept";
    /// Half-open connections that a RST ended.
    embryonic_rsts "EmbryonicRsts";
    /// Connections that went to TIME-WAIT.
    tw "TW";
    /// TIME-WAIT entries that gave way to a new connection.
    tw_recycled "TWRecycled";
    /// Connections that found no room in TIME-WAIT (`tcp_max_tw_buckets`, `tcp_tw_mem`).
    tcp_time_wait_overflow "TCPTimeWaitOverflow";
    /// SYNs refused because their timestamp is older than the peer's last (`tcp_tw_recycle`).
    paws_passive "PAWSPassive";
    /// SYN-ACKs whose timestamp echo we never sent.
    paws_active "PAWSActive";
    /// Segments that PAWS rejected.
    paws_estab "PAWSEstab";
    /// Times that the accept queue was full.
    listen_overflows "ListenOverflows";
    /// SYNs and final ACKs that a listener dropped.
    listen_drops "ListenDrops";
    /// SYNs that a half-open table answered with cookies because it passed for full.
    tcp_req_q_full_do_cookies "TCPReqQFullDoCookies";
    /// Times that a full half-open table dropped a SYN.
    tcp_req_q_full_drop "TCPReqQFullDrop";
    /// SYNs and SYN-ACKs retransmitted.
    tcp_syn_retrans "TCPSynRetrans";
    /// SYN-ACKs that were due again and not sent (`tcp_synack_ratelimit`).
    synack_repeats_saved "SynAckRepeatsSaved";
    /// Half-open entries whose SYN-ACK was never answered.
    synack_retries_exhausted "synack_retries_exhausted";
    /// Retransmission timeouts.
    tcp_timeouts "TCPTimeouts";
    /// Segments retransmitted by fast retransmit.
    tcp_fast_retrans "TCPFastRetrans";
    /// Segments retransmitted in slow start after a timeout.
    tcp_slow_start_retrans "TCPSlowStartRetrans";
    /// Recoveries with SACK.
    tcp_sack_recovery "TCPSackRecovery";
    /// Recoveries without SACK.
    tcp_reno_recovery "TCPRenoRecovery";
    /// Selectively acknowledged data that the peer dropped again.
    tcp_sack_reneging "TCPSACKReneging";
    /// SACK blocks outside of what was sent.
    tcp_sack_discard "TCPSACKDiscard";
    /// Duplicate SACK blocks sent.
    tcp_dsack_sent "TCPDSACKOldSent";
    /// Duplicate SACK blocks received.
    tcp_dsack_recv "TCPDSACKRecv";
    /// Segments queued out of order.
    tcp_ofo_queue "TCPOFOQueue";
    /// Segments that the out-of-order queue had no room for.
    tcp_ofo_drop "TCPOFODrop";
    /// Times that the out-of-order queue dropped text which it held, for want of room.
    ofo_pruned "OfoPruned";
    /// In-order segments that the receive buffer or `tcp_mem` had no room for.
    tcp_rcv_q_drop "TCPRcvQDrop";
    /// Connections reset because data came after the application was gone.
    tcp_abort_on_data "TCPAbortOnData";
    /// Connections reset because the application closed with data unread.
    tcp_abort_on_close "TCPAbortOnClose";
    /// Orphans reset because of `tcp_max_orphans` or `tcp_mem`.
    tcp_abort_on_memory "TCPAbortOnMemory";
    /// Connections reset because `tcp_mem` is short and their peer takes nothing of what is held for it.
    stalled_aborted "StalledAborted";
    /// Times that `tcp_mem` came under pressure.
    tcp_memory_pressures "TCPMemoryPressures";
    /// How long it was under pressure, in milliseconds.
    tcp_memory_pressures_chrono "TCPMemoryPressuresChrono";
    /// Times that a connection was asked to give up what it holds out of order.
    prune_called "PruneCalled";
    /// Connections given up for lack of an answer.
    tcp_abort_on_timeout "TCPAbortOnTimeout";
    /// Orphans that FIN-WAIT-2 or `TCP_LINGER2` ended.
    tcp_abort_on_linger "TCPAbortOnLinger";
    /// Orphans that did not get their data through in time (`tcp_orphan_timeout`).
    orphan_timeouts "orphan_timeouts";
    /// Keepalive probes sent.
    tcp_keep_alive "TCPKeepAlive";
    /// Zero-window probes sent.
    tcp_win_probe "TCPWinProbe";
    /// Challenge ACKs sent.
    tcp_challenge_ack "TCPChallengeACK";
    /// Challenge ACKs sent because of a SYN.
    tcp_syn_challenge "TCPSYNChallenge";
    /// Fast Open SYNs with data that the server acknowledged.
    tcp_fast_open_active "TCPFastOpenActive";
    /// Fast Open SYNs whose data the server did not acknowledge.
    tcp_fast_open_active_fail "TCPFastOpenActiveFail";
    /// Connections accepted by Fast Open.
    tcp_fast_open_passive "TCPFastOpenPassive";
    /// Fast Open SYNs with a cookie that is not ours.
    tcp_fast_open_passive_fail "TCPFastOpenPassiveFail";
    /// Fast Open SYNs above `tcp_fastopen_pending`.
    tcp_fast_open_listen_overflow "TCPFastOpenListenOverflow";
    /// Fast Open cookies handed out.
    tcp_fast_open_cookie_reqd "TCPFastOpenCookieReqd";
    /// Receive windows that closed.
    tcp_to_zero_window_adv "TCPToZeroWindowAdv";
    /// Receive windows that opened again.
    tcp_from_zero_window_adv "TCPFromZeroWindowAdv";
    /// Path MTU probes lost.
    tcp_mtup_fail "TCPMTUPFail";
    /// Path MTU probes that arrived.
    tcp_mtup_success "TCPMTUPSuccess";
    /// Path MTU black holes found.
    mtu_black_holes "MtuBlackHoles";
    /// Readings of R1: retransmissions that the application was told of.
    r1_reached "R1Reached";
    /// Connections in CLOSE-WAIT, ever.
    close_wait_entered "CloseWaitEntered";
    /// Connections that left CLOSE-WAIT again; the difference is what is held now.
    close_wait_left "CloseWaitLeft";
    /// Trace events lost because nobody collected them.
    trace_lost "TraceLost";
}

reasons! {
    /// Why an arriving packet, segment or message was dropped.
    DropReason {
        /// IP header broken: version, lengths, options, extension headers (P0, T-58, T-66).
        IpHeader "ip_header",
        /// IPv4 header checksum wrong (P0).
        IpChecksum "ip_checksum",
        /// Source-routed (MUST-51..53, T-64).
        SourceRoute "source_route",
        /// Source is no unicast host address (MUST-63, T-63).
        BadSource "bad_source",
        /// Destination is broadcast, multicast or unspecified (MUST-57, T-63).
        BadDestination "bad_destination",
        /// Destination is not an address of this stack.
        NotOurs "not_ours",
        /// No protocol of this stack.
        UnknownProtocol "unknown_protocol",
        /// Fragments that overlap, do not fit together or hide a header (T-65, T-66).
        BadFragment "bad_fragment",
        /// Fragments above a limit (T-18).
        FragmentLimit "fragment_limit",
        /// Fragments of a datagram that stayed incomplete.
        FragmentTimeout "fragment_timeout",
        /// ICMP message broken or of no use here.
        IcmpInvalid "icmp_invalid",
        /// ICMP error about no connection of ours.
        IcmpUnmatched "icmp_unmatched",
        /// ICMP error that quotes a sequence number not in flight (5927-1).
        IcmpNotInFlight "icmp_not_in_flight",
        /// TCP header broken: lengths, ports (P1, T-58, T-62).
        TcpHeader "tcp_header",
        /// TCP checksum wrong (MUST-3).
        TcpChecksum "tcp_checksum",
        /// Flags that no sender uses (P2, T-60).
        TcpFlags "tcp_flags",
        /// TCP options broken (P3, T-57).
        TcpOptions "tcp_options",
        /// Source and destination are the same (P5, T-39).
        Land "land",
        /// RST for no connection (SA-CLOSED-01), for a listener (SA-LISTEN-01).
        RstUnmatched "rst_unmatched",
        /// A listener got neither SYN nor ACK nor RST (SA-LISTEN-11).
        ListenNoFlags "listen_no_flags",
        /// SYN, half-open table full and cookies off (SA-LISTEN-07, H4a).
        SynBacklogFull "syn_backlog_full",
        /// SYN or final ACK, accept queue full (SA-LISTEN-08, SA-SYN_RCVD-07).
        AcceptQueueFull "accept_queue_full",
        /// `tcp_max_connections` reached (SA-SYN_RCVD-08), or text above `tcp_mem`.
        NoMemory "no_memory",
        /// Refused by `tcp_refuse` without an answer.
        Refused "refused",
        /// SYN whose timestamp `tcp_tw_recycle` holds for old (T9c).
        RecycledTimestamp "recycled_timestamp",
        /// Unacceptable ACK with RST, or RST without ACK, in SYN-SENT (SA-SYN_SENT-02, -04).
        SynSentRst "syn_sent_rst",
        /// Neither SYN nor RST in SYN-SENT (SA-SYN_SENT-10..12).
        SynSentNoSyn "syn_sent_no_syn",
        /// In-window SYN ended a half-open connection (SA-SYN_RCVD-02).
        HalfOpenSyn "half_open_syn",
        /// RST ended a half-open connection (SA-SYN_RCVD-13).
        HalfOpenRst "half_open_rst",
        /// Timestamp older than the last one (PAWS, 7323-10).
        Paws "paws",
        /// No timestamp on a connection that negotiated them (7323-6).
        MissingTimestamp "missing_timestamp",
        /// Wholly outside of the receive window.
        OutOfWindow "out_of_window",
        /// Wholly received before.
        Duplicate "duplicate",
        /// RST outside of the receive window (5961-1).
        RstOutOfWindow "rst_out_of_window",
        /// RST inside of the receive window, but not at its left edge: challenged (5961-3).
        RstChallenged "rst_challenged",
        /// SYN in a synchronized state: challenged (5961-5).
        SynChallenged "syn_challenged",
        /// Neither ACK nor RST nor SYN.
        NoAck "no_ack",
        /// ACK of what was never sent.
        AckOfUnsent "ack_of_unsent",
        /// ACK too old to be of this connection (5961-7).
        AckTooOld "ack_too_old",
        /// Data after the peer's FIN (SA-EST-24, T-51).
        DataAfterFin "data_after_fin",
        /// Data after the application stopped reading.
        DataAfterShutdown "data_after_shutdown",
        /// No room in the out-of-order queue (T-13).
        OutOfOrderFull "out_of_order_full",
        /// No room in the receive buffer.
        ReceiveBufferFull "receive_buffer_full",
        /// RST in TIME-WAIT (RFC 1337, SA-TIME_WAIT-05, -06).
        TimeWaitRst "time_wait_rst",
        /// Any other segment in TIME-WAIT (SA-TIME_WAIT-08..11).
        TimeWaitSegment "time_wait_segment",
        /// Not even the rate-limited answer was due any more (SA-CLOSED-05, T-34).
        ReplyThrottled "reply_throttled",
        /// The queue of stateless answers was full.
        ReplyQueueFull "reply_queue_full",
    }
}

reasons! {
    /// Why the stack answered without, or in spite of, a connection.
    ReplyReason {
        /// RST: no connection and no listener (SA-CLOSED-02, -03).
        RstClosed "rst_closed",
        /// RST: a listener got an ACK that is no valid cookie (SA-LISTEN-02).
        RstListen "rst_listen",
        /// RST: unacceptable ACK before the connection was established (SA-SYN_SENT-01, SA-SYN_RCVD-10).
        RstUnacceptableAck "rst_unacceptable_ack",
        /// RST: accept queue full and `tcp_abort_on_overflow` (SA-SYN_RCVD-07).
        RstOverflow "rst_overflow",
        /// RST: refused by `tcp_refuse`.
        RstRefused "rst_refused",
        /// RST: the connection was aborted, or closed with data unread.
        RstAbort "rst_abort",
        /// RST: a half-open connection was given up (`synack_timeout_rst`).
        RstSynAckTimeout "rst_synack_timeout",
        /// SYN-ACK of a half-open connection, the first.
        SynAck "syn_ack",
        /// SYN-ACK of a half-open connection, sent again.
        SynAckAgain "syn_ack_again",
        /// SYN-ACK with a cookie.
        SynAckCookie "syn_ack_cookie",
        /// ACK for an unacceptable segment of a half-open connection (SA-SYN_RCVD-03, -11).
        HalfOpenAck "half_open_ack",
        /// Challenge ACK (RFC 5961).
        ChallengeAck "challenge_ack",
        /// ACK for an unacceptable segment (Table 6, PAWS).
        UnacceptableAck "unacceptable_ack",
        /// ACK of a FIN that came again in TIME-WAIT (SA-TIME_WAIT-07).
        TimeWaitFinAck "time_wait_fin_ack",
        /// ACK for another segment in TIME-WAIT.
        TimeWaitAck "time_wait_ack",
        /// ICMP echo reply.
        EchoReply "echo_reply",
        /// ICMP unreachable: no such protocol or port here.
        Unreachable "unreachable",
        /// ICMP communication administratively prohibited (`tcp_refuse`).
        AdminProhibited "admin_prohibited",
        /// ICMP time exceeded: a datagram stayed incomplete.
        ReassemblyTimeExceeded "reassembly_time_exceeded",
    }
}

impl Counters {
    /// How often something was dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// How often something was answered for this reason.
    pub fn replied(&self, reason: ReplyReason) -> u64 {
        self.replies[reason as usize]
    }

    /// The counter of this name, as [`iter`](Counters::iter) gives it.
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
    /// Those that are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, value)| *value > 0)).finish()
    }
}
