//! The arrival of a segment, judged by RFC 9293 §3.10.7: how the state may change, and what has to be answered.

use std::fmt;
use std::net::SocketAddr;

use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::{Stack, Variables};
use steadfast_wire::seq::SeqNum;
use steadfast_wire::tcp::{Flags, Header, SackBlocks};
use steadfast_wire::{PROTOCOL_TCP, ipv4, ipv6};

/// A segment that arrives, and how it finds its receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) header: Header,
    pub(crate) payload: u32,
    pub(crate) before: Variables,
}

/// The answer that the receiver owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// No answer is judged.
    Any,
    Nothing,
    /// An ACK of all that was received, by itself or with data.
    Ack,
    SynAck,
    /// A RST with this sequence number, or else with this acknowledgment number.
    Rst {
        seq: SeqNum,
        ack: Option<SeqNum>,
    },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answer::Any | Answer::Nothing => "nothing",
            Answer::Ack => "an ACK",
            Answer::SynAck => "a SYN-ACK",
            Answer::Rst { ack: None, .. } => "a RST with its ACK",
            Answer::Rst { .. } => "a RST that acknowledges it",
        })
    }
}

/// The SACK blocks that an answer has to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    Any,
    /// The first one reports this duplicate (RFC 2883 §4).
    Duplicate(SeqNum, SeqNum),
    /// One covers this text, which waits for what is missing before it (RFC 2018 §4).
    Waiting(SeqNum, SeqNum),
}

impl Blocks {
    pub(crate) fn are_in(self, blocks: &SackBlocks) -> bool {
        let mut all = blocks.iter();
        match self {
            Blocks::Any => true,
            Blocks::Duplicate(left, right) => all.next().is_some_and(|block| block == (left, right)),
            Blocks::Waiting(left, right) => all.any(|(from, to)| from.le(left) && to.ge(right)),
        }
    }
}

/// The answer, or how the arrival was wrong.
type Judged = Result<Answer, String>;

impl Arrived {
    /// A packet that is about to arrive; `None` if it is no segment.
    pub(crate) fn of(stack: &mut Stack, packet: &[u8]) -> Option<Arrived> {
        let (local, remote, header, payload) = parse(packet)?;
        let before = stack.variables(local, remote);
        Some(Arrived { local, remote, header, payload, before })
    }

    fn has(&self, flag: Flags) -> bool {
        self.header.flags.contains(flag)
    }

    /// After the opening handshake, and before TIME-WAIT.
    fn is_between_handshakes(&self) -> bool {
        use State::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};
        matches!(self.before.state, Established | FinWait1 | FinWait2 | CloseWait | Closing | LastAck)
    }

    /// Returns whether its answer, if there is one, counts towards a limit. Challenges of a connection have another one.
    pub(crate) fn is_limited(&self) -> bool {
        let entry = match self.before.state {
            State::SynReceived => self.before.agreed.is_none(),
            state => state == State::TimeWait,
        };
        entry || self.is_between_handshakes() && !self.has(Flags::SYN)
    }

    /// Returns whether a keepalive probe or a probe of a closed window looks like this. Their answers have a limit of
    /// their own.
    pub(crate) fn is_probe(&self) -> bool {
        let Some((nxt, window)) = self.before.rcv else { return false };
        let behind = self.header.seq == nxt - 1 && self.payload <= 1;
        self.is_between_handshakes() && (behind || window == 0 && self.header.seq == nxt)
    }

    /// The reason to drop it: none if it is acceptable (RFC 9293 §3.10.7.4, table 6). Without a value no rule says.
    pub(crate) fn unacceptable(&self, after: &Variables) -> Option<Option<DropReason>> {
        let other = self.has(Flags::SYN) || self.is_rst();
        let gone = matches!(after.state, State::Closed | State::Listen | State::TimeWait);
        let (nxt, window) = self.before.rcv?;
        // Without ACK or FIN it is no segment of anybody.
        let some = self.has(Flags::ACK) || self.has(Flags::FIN);
        if !self.is_between_handshakes() || other || gone || !some {
            return None;
        }
        let (seq, len) = (self.header.seq, self.len());
        if self.is_acceptable(nxt, window) {
            return Some(None);
        }
        Some(Some(match len > 0 && (seq + len).le(nxt) {
            true => DropReason::Duplicate,
            false if window == 0 && seq == nxt => DropReason::ReceiveBufferFull,
            false => DropReason::OutOfWindow,
        }))
    }

    /// The SACK blocks that its answer has to carry. `duplicates`: as RFC 2883 has it.
    pub(crate) fn blocks(&self, after: &Variables, duplicates: bool) -> Blocks {
        let (Some((nxt, _)), Some((now, _))) = (self.before.rcv, after.rcv) else { return Blocks::Any };
        let (seq, end) = (self.header.seq, self.header.seq + self.payload);
        let (una, snd_nxt) = self.before.snd;
        // The answer to what may be forged is no longer than that.
        let known = self.header.ack.ge(una - self.before.max_window) && self.header.ack.le(snd_nxt);
        let stays = after.state == self.before.state && self.is_between_handshakes();
        if self.payload == 0 || !known || !self.has(Flags::ACK) || !stays {
            return Blocks::Any;
        }
        if seq.lt(nxt) {
            let right = if end.lt(nxt) { end } else { nxt };
            return if duplicates { Blocks::Duplicate(seq, right) } else { Blocks::Any };
        }
        let open = matches!(self.before.state, State::Established | State::FinWait1 | State::FinWait2);
        let fits = self.before.rcv.is_some_and(|(nxt, window)| end.le(nxt + window));
        let taken = open && fits && self.header.ack.ge(una);
        if taken && seq.gt(nxt) && now == nxt { Blocks::Waiting(seq, end) } else { Blocks::Any }
    }

    /// Table 6 of RFC 9293.
    fn is_acceptable(&self, nxt: SeqNum, window: u32) -> bool {
        let (seq, len) = (self.header.seq, self.len());
        match (len, window) {
            (0, 0) => seq == nxt,
            (0, _) => seq.within(nxt, window),
            (_, 0) => false,
            _ => seq.within(nxt, window) || (seq + (len - 1)).within(nxt, window),
        }
    }

    /// SEG.LEN.
    fn len(&self) -> u32 {
        self.payload + u32::from(self.has(Flags::SYN)) + u32::from(self.has(Flags::FIN))
    }

    /// Returns what has to be answered, or how the state after the arrival is wrong.
    pub(crate) fn judge(&self, after: &Variables) -> Judged {
        let none = !(self.has(Flags::SYN) || self.has(Flags::ACK) || self.is_rst() || self.has(Flags::FIN));
        if none || self.has(Flags::SYN | Flags::RST) || self.remote.port() == 0 {
            // Nobody sends such a segment, except to find out what a host is.
            return self.unchanged(after, Answer::Nothing);
        }
        match (self.before.state, self.before.rcv) {
            (State::Closed, _) => {
                self.unchanged(after, if self.is_rst() { Answer::Nothing } else { self.rst() })
            }
            (State::Listen, _) => self.in_listen(after),
            (State::SynSent, _) => self.in_syn_sent(after),
            (State::TimeWait, Some((nxt, _))) => self.in_time_wait(nxt, after),
            (_, Some((nxt, window))) => self.synchronized(nxt, window, after),
            _ => Ok(Answer::Any),
        }
    }

    fn is_rst(&self) -> bool {
        self.has(Flags::RST)
    }

    /// The segment changes nothing.
    fn unchanged(&self, after: &Variables, answer: Answer) -> Judged {
        let numbers = |variables: &Variables| (variables.snd, variables.rcv.map(|(nxt, _)| nxt));
        let same = after.state == self.before.state && numbers(after) == numbers(&self.before);
        if same { Ok(answer) } else { self.wrong(after, "should change nothing") }
    }

    fn becomes(&self, after: &Variables, allowed: &[State], answer: Answer) -> Judged {
        if allowed.contains(&after.state) {
            return Ok(answer);
        }
        self.wrong(after, &format!("should lead to {}", allowed[0]))
    }

    fn wrong(&self, after: &Variables, rule: &str) -> Judged {
        let (before, flags) = (self.before.state, self.header.flags);
        let change = if before == after.state {
            format!("changed {before}")
        } else {
            format!("led from {before} to {}", after.state)
        };
        Err(format!("{flags} {change}, and {rule}"))
    }

    /// The RST that answers it (RFC 9293 §3.5.2).
    fn rst(&self) -> Answer {
        if self.has(Flags::ACK) {
            return Answer::Rst { seq: self.header.ack, ack: None };
        }
        Answer::Rst { seq: SeqNum(0), ack: Some(self.header.seq + self.len()) }
    }

    fn in_listen(&self, after: &Variables) -> Judged {
        if self.is_rst() {
            return self.unchanged(after, Answer::Nothing);
        }
        if self.has(Flags::ACK) {
            // An ACK may return a SYN cookie: then it makes a connection.
            let kept = self.has(Flags::SYN) || after.state == State::Listen;
            return if kept { self.unchanged(after, self.rst()) } else { Ok(Answer::Any) };
        }
        if !self.has(Flags::SYN) {
            return self.unchanged(after, Answer::Nothing);
        }
        match after.state {
            State::SynReceived => Ok(Answer::SynAck),
            // There is no room for it, or a cookie is all that is sent. With Fast Open it may bring all its data.
            State::Listen | State::CloseWait => Ok(Answer::Any),
            _ => self.wrong(after, "should lead to SYN-RECEIVED"),
        }
    }

    fn in_syn_sent(&self, after: &Variables) -> Judged {
        let (una, nxt) = self.before.snd;
        let ack = self.has(Flags::ACK);
        let fits = ack && self.header.ack.gt(una) && self.header.ack.le(nxt);
        if ack && !fits {
            return self.unchanged(after, if self.is_rst() { Answer::Nothing } else { self.rst() });
        }
        if self.is_rst() {
            return if fits {
                self.becomes(after, &[State::Closed, State::Listen], Answer::Nothing)
            } else {
                self.unchanged(after, Answer::Nothing)
            };
        }
        match (self.has(Flags::SYN), ack) {
            (false, _) => self.unchanged(after, Answer::Nothing),
            // The echo of a timestamp may be of another time (RFC 7323 §5.4).
            (true, true) if self.header.options.timestamps.is_some() && after.state == State::SynSent => {
                self.unchanged(after, self.rst())
            }
            (true, true) => self.becomes(after, &[State::Established, State::CloseWait], Answer::Ack),
            (true, false) => self.becomes(after, &[State::SynReceived], Answer::SynAck),
        }
    }

    fn in_time_wait(&self, nxt: SeqNum, after: &Variables) -> Judged {
        let (seq, ack) = (self.header.seq, self.header.ack);
        if self.is_rst() {
            // `tcp_rfc1337` says whether an exact one ends it.
            return if seq == nxt { Ok(Answer::Nothing) } else { self.unchanged(after, Answer::Nothing) };
        }
        if self.has(Flags::SYN) {
            let newer = self.header.options.timestamps.is_some() || seq.ge(nxt);
            return if newer && !self.has(Flags::ACK) {
                self.becomes(after, &[State::SynReceived, State::TimeWait], Answer::Any)
            } else {
                self.unchanged(after, Answer::Ack)
            };
        }
        let nothing_new = seq == nxt && self.len() == 0 && ack.le(self.before.snd.1);
        let silent = !self.has(Flags::ACK) || nothing_new;
        self.unchanged(after, if silent { Answer::Nothing } else { Answer::Ack })
    }

    fn synchronized(&self, nxt: SeqNum, window: u32, after: &Variables) -> Judged {
        if self.is_rst() {
            return self.rst_arrives(nxt, window, after);
        }
        if self.before.state == State::SynReceived && self.has(Flags::SYN) {
            return self.syn_in_syn_received(nxt, window, after);
        }
        if self.has(Flags::SYN) {
            return self.unchanged(after, Answer::Ack);
        }
        let (una, snd_nxt) = self.before.snd;
        let ack = self.header.ack;
        let acceptable = self.is_acceptable(nxt, window);
        let new_ack = self.has(Flags::ACK) && ack.gt(una) && ack.le(snd_nxt);
        if self.before.state == State::SynReceived && self.has(Flags::ACK) && !new_ack {
            // With a listener that is gone, the entry goes with it. Half-open entries look at the ACK field first.
            let answer = if acceptable { self.rst() } else { Answer::Any };
            return if after.state == State::Closed { Ok(self.rst()) } else { self.unchanged(after, answer) };
        }
        if !acceptable && new_ack {
            // Its ACK may count: of a probe, of data into a closed window, of a FIN that came before.
            return self.ack_alone(nxt, window, after);
        }
        if !acceptable {
            return self.unchanged(after, Answer::Ack);
        }
        if !self.has(Flags::ACK) {
            return self.unchanged(after, Answer::Nothing);
        }
        if ack.gt(snd_nxt) || ack.lt(una - self.before.max_window) {
            return self.unchanged(after, Answer::Ack);
        }
        self.acceptable(nxt, new_ack, after)
    }

    fn rst_arrives(&self, nxt: SeqNum, window: u32, after: &Variables) -> Judged {
        let (before, seq) = (self.before.state, self.header.seq);
        let closed = matches!(before, State::CloseWait | State::Closing | State::LastAck);
        // macOS sends a FIN, and then a RST with its number.
        let exact = seq == nxt || closed && seq == nxt - 1;
        if exact {
            let gone = [State::Closed, State::Listen, State::TimeWait];
            return self.becomes(after, &gone, Answer::Nothing);
        }
        let answer = if seq.within(nxt, window) { Answer::Ack } else { Answer::Nothing };
        self.unchanged(after, answer)
    }

    fn syn_in_syn_received(&self, nxt: SeqNum, window: u32, after: &Variables) -> Judged {
        let (una, snd_nxt) = self.before.snd;
        let (seq, ack) = (self.header.seq, self.header.ack);
        if after.state == State::Closed {
            // The listener is gone.
            return Ok(self.rst());
        }
        if self.has(Flags::ACK) {
            if !(ack.gt(una) && ack.le(snd_nxt)) {
                return self.unchanged(after, self.rst());
            }
            // A simultaneous open.
            let crossing = seq == nxt - 1 && self.before.active;
            return if !crossing {
                self.unchanged(after, Answer::Ack)
            } else if after.state == State::SynReceived {
                self.wrong(after, "should lead to ESTABLISHED")
            } else {
                Ok(Answer::Ack)
            };
        }
        if seq == nxt - 1 {
            return self.unchanged(after, Answer::SynAck);
        }
        if seq.within(nxt, window) && after.state != State::SynReceived {
            // The half-open connection is given up, for a new SYN to come.
            return self.becomes(after, &[State::Listen, State::TimeWait], Answer::Nothing);
        }
        self.unchanged(after, Answer::Ack)
    }

    /// The ACK field of an unacceptable segment. It counts in probes, in data sent into a closed window, and in a FIN that
    /// comes again (RFC 9293 §3.10.7.4, appendix A.2).
    fn ack_alone(&self, nxt: SeqNum, window: u32, after: &Variables) -> Judged {
        let (seq, ack) = (self.header.seq, self.header.ack);
        let probe = seq == nxt - 1 && self.payload <= 1;
        let closed_window = window == 0 && seq == nxt;
        let fin_again = self.has(Flags::FIN) && seq + self.len() == nxt;
        let counts = (probe || closed_window || fin_again) && self.before.state != State::SynReceived;
        if after.snd.0 != if counts { ack } else { self.before.snd.0 } && after.state == self.before.state {
            let should = if counts { "count" } else { "not count" };
            return self.wrong(after, &format!("its ACK should {should}"));
        }
        let all = self.before.fin_sent && self.header.ack == self.before.snd.1;
        let next = match self.before.state {
            State::FinWait1 if all => State::FinWait2,
            State::Closing if all => State::TimeWait,
            State::LastAck if all => State::Closed,
            state => state,
        };
        let taken = after.rcv.is_none_or(|(now, _)| now == nxt);
        // After LAST-ACK a listener may be there again.
        let listens = next == State::Closed && after.state == State::Listen;
        if taken && (after.state == self.before.state || after.state == next || listens) {
            return Ok(if next == State::Closed { Answer::Any } else { Answer::Ack });
        }
        self.wrong(after, "is not acceptable")
    }

    /// An acceptable segment with an acceptable ACK: text and FIN.
    fn acceptable(&self, nxt: SeqNum, new_ack: bool, after: &Variables) -> Judged {
        use State::{CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, TimeWait};
        let before = self.before.state;
        let seq = self.header.seq;
        let gone = matches!(after.state, Closed | Listen);
        if gone && (self.payload > 0 || before == State::SynReceived) {
            // Data that nobody will read is answered with a RST. In SYN-RECEIVED the listener may be gone.
            return Ok(Answer::Any);
        }
        let fin_acked = self.before.fin_sent && self.header.ack == self.before.snd.1;
        let text_end = seq + self.payload;
        let window = self.before.rcv.map_or(0, |(_, window)| window);
        let fin = self.has(Flags::FIN) && seq.le(nxt) && text_end.within(nxt, window.max(1));
        let moved = after.rcv.is_some_and(|(now, _)| now != nxt);
        // An older ACK than SND.UNA may be taken for one that was never sent.
        let open =
            matches!(before, Established | FinWait1 | FinWait2) && self.header.ack.ge(self.before.snd.0);
        if !gone && !moved && open && (fin || self.payload > 0 && seq.le(nxt) && text_end.gt(nxt)) {
            return self.wrong(after, "should be taken");
        }
        if !gone && after.rcv.is_some_and(|(now, _)| now.gt(nxt + window)) {
            return self.wrong(after, "goes beyond the window");
        }
        if !gone && moved && matches!(before, CloseWait | Closing | LastAck) {
            return self.wrong(after, "comes after the FIN");
        }
        if !gone && new_ack && after.snd.0.lt(self.header.ack) {
            return self.wrong(after, "should be acknowledged by SND.UNA");
        }
        if !gone && !new_ack && after.snd.0 != self.before.snd.0 {
            return self.wrong(after, "should leave SND.UNA");
        }
        // A FIN may have come before the text that was missing.
        let allowed: &[State] = match (before, fin_acked, fin, moved) {
            (Established, _, true, _) if open => &[CloseWait],
            (Established, _, _, true) => &[Established, CloseWait],
            (FinWait1, true, true, _) => &[TimeWait],
            (FinWait1, true, _, true) => &[FinWait2, TimeWait],
            (FinWait1, true, ..) => &[FinWait2],
            (FinWait1, false, true, _) if open => &[Closing],
            (FinWait1, false, _, true) => &[FinWait1, Closing],
            (FinWait2, _, true, _) if open => &[TimeWait],
            (FinWait2, _, _, true) => &[FinWait2, TimeWait],
            (Closing, true, ..) => &[TimeWait],
            (LastAck, true, ..) => &[Closed, Listen],
            (State::SynReceived, ..) => return Ok(Answer::Any),
            _ => {
                return if after.state == before {
                    Ok(self.answer(fin && open))
                } else {
                    self.wrong(after, "should stay")
                };
            }
        };
        self.becomes(after, allowed, self.answer(fin && open))
    }

    /// A FIN is acknowledged at once, and so is what comes again or too early.
    fn answer(&self, fin: bool) -> Answer {
        let nxt = self.before.rcv.map_or(SeqNum(0), |(nxt, _)| nxt);
        let early = self.payload > 0 && self.header.seq.gt(nxt) && self.header.ack.ge(self.before.snd.0);
        // So is what comes again in part.
        let again = self.payload > 0 && self.header.seq.lt(nxt) && self.header.ack.ge(self.before.snd.0);
        if fin || early || again { Answer::Ack } else { Answer::Any }
    }
}

/// Returns the ends of a segment as its receiver sees them, its header, and the length of its data.
pub(crate) fn parse(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, Header, u32)> {
    let (source, destination, protocol, segment) = match packet.first()? >> 4 {
        4 => {
            let (header, segment) = ipv4::parse(packet).ok()?;
            (header.source.into(), header.destination.into(), header.protocol, segment)
        }
        _ => {
            let (header, segment) = ipv6::parse(packet).ok()?;
            (header.source.into(), header.destination.into(), header.protocol, segment)
        }
    };
    if protocol != PROTOCOL_TCP {
        return None;
    }
    let (header, payload) = Header::parse(segment).ok()?;
    let local = SocketAddr::new(destination, header.destination_port);
    Some((local, SocketAddr::new(source, header.source_port), header, payload.len() as u32))
}
