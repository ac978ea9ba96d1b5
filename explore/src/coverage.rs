//! Which segments met which states: RFC 9293 §3.10.7 has a paragraph for each pair.

use std::fmt;

use serde::{Deserialize, Serialize};
use steadfast_core::trace::State;
use steadfast_wire::seq::SeqNum;
use steadfast_wire::tcp::{Flags, Header};

use crate::arrival::Arrived;

/// A class of segments. A segment belongs to the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// RST without ACK.
    Rst,
    /// RST with ACK.
    RstAck,
    /// SYN without ACK.
    Syn,
    /// SYN with ACK.
    SynAck,
    /// It ends at or below RCV.NXT, and takes place in the sequence space: a duplicate.
    Behind,
    /// It begins above RCV.NXT: something before it is missing.
    Ahead,
    /// FIN without data.
    Fin,
    /// FIN with data.
    DataFin,
    /// Data.
    Data,
    /// An ACK that closes the window.
    ZeroWindow,
    /// Any other ACK.
    Ack,
}

impl Segment {
    /// All of them.
    pub const ALL: [Segment; 11] = [
        Segment::Rst,
        Segment::RstAck,
        Segment::Syn,
        Segment::SynAck,
        Segment::Behind,
        Segment::Ahead,
        Segment::Fin,
        Segment::DataFin,
        Segment::Data,
        Segment::ZeroWindow,
        Segment::Ack,
    ];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Segment::Rst => "RST",
            Segment::RstAck => "RST,ACK",
            Segment::Syn => "SYN",
            Segment::SynAck => "SYN,ACK",
            Segment::Behind => "behind",
            Segment::Ahead => "ahead",
            Segment::Fin => "FIN",
            Segment::DataFin => "data,FIN",
            Segment::Data => "data",
            Segment::ZeroWindow => "zero window",
            Segment::Ack => "ACK",
        }
    }

    fn of(header: &Header, payload: u32, rcv_nxt: Option<SeqNum>) -> Segment {
        let has = |flag: Flags| header.flags.contains(flag);
        let len = payload + u32::from(has(Flags::FIN));
        match (has(Flags::RST), has(Flags::SYN), has(Flags::ACK)) {
            (true, _, false) => return Segment::Rst,
            (true, _, true) => return Segment::RstAck,
            (_, true, false) => return Segment::Syn,
            (_, true, true) => return Segment::SynAck,
            _ => {}
        }
        match rcv_nxt {
            Some(nxt) if len > 0 && (header.seq + len).le(nxt) => Segment::Behind,
            Some(nxt) if nxt.lt(header.seq) => Segment::Ahead,
            _ if has(Flags::FIN) && payload == 0 => Segment::Fin,
            _ if has(Flags::FIN) => Segment::DataFin,
            _ if payload > 0 => Segment::Data,
            _ if header.window == 0 => Segment::ZeroWindow,
            _ => Segment::Ack,
        }
    }
}

/// How often a segment of each class met each state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    hits: [[u64; Segment::ALL.len()]; State::ALL.len()],
}

impl Coverage {
    /// Returns how often a segment met a state.
    pub fn hits(&self, state: State, segment: Segment) -> u64 {
        self.hits[state as usize][segment as usize]
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Coverage) {
        let own = self.hits.iter_mut().flatten();
        own.zip(other.hits.iter().flatten()).for_each(|(own, other)| *own += other);
    }

    /// Returns why no sequence of events makes a segment of this class meet this state; `None`: some does.
    pub fn why_not(state: State, segment: Segment) -> Option<&'static str> {
        use Segment::{Ahead, Behind, Data, DataFin, Fin};
        use State::{CloseWait, Closed, Closing, LastAck, Listen, SynSent, TimeWait};
        match (state, segment) {
            (Closed | Listen | SynSent, Behind | Ahead) => Some("before the peer's SYN there is no RCV.NXT"),
            (CloseWait | Closing | LastAck | TimeWait, Fin | DataFin | Data) => {
                Some("after its FIN a peer sends nothing that begins at RCV.NXT")
            }
            (CloseWait | Closing | LastAck, Ahead) => {
                Some("after its FIN a peer sends nothing above RCV.NXT, and one that crashed is reset first")
            }
            _ => None,
        }
    }

    /// The table of the documentation: a dot for each pair that is met, or a letter for the reason why it cannot be.
    pub fn table() -> String {
        let mut reasons: Vec<&str> = Vec::new();
        let mut table = "| state |".to_owned();
        Segment::ALL.iter().for_each(|segment| table += &format!(" {} |", segment.name()));
        table += &format!("\n|---{}|\n", "|---".repeat(Segment::ALL.len()));
        for state in State::ALL {
            table += &format!("| {} |", state.name());
            for segment in Segment::ALL {
                let Some(reason) = Coverage::why_not(state, segment) else {
                    table += " · |";
                    continue;
                };
                let known = reasons.iter().position(|known| *known == reason);
                let place = known.unwrap_or_else(|| {
                    reasons.push(reason);
                    reasons.len() - 1
                });
                table += &format!(" {} |", char::from(b'a' + place as u8));
            }
            table += "\n";
        }
        let mut letters = b'a'..;
        reasons
            .iter()
            .zip(&mut letters)
            .for_each(|(reason, letter)| table += &format!("\n- {}: {reason}.", char::from(letter)));
        table
    }

    /// Counts a segment that arrives.
    pub(crate) fn note(&mut self, arrived: &Arrived) {
        let Arrived { header, payload, before, .. } = arrived;
        let segment = Segment::of(header, *payload, before.rcv.map(|(nxt, _)| nxt));
        self.hits[before.state as usize][segment as usize] += 1;
    }
}

impl fmt::Display for Coverage {
    /// Writes a table: a row for each state, and a column for each class.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<14}", "")?;
        Segment::ALL.iter().try_for_each(|segment| write!(f, "{:>12}", segment.name()))?;
        for state in State::ALL {
            write!(f, "\n{:<14}", state.name())?;
            Segment::ALL.iter().try_for_each(|segment| write!(f, "{:>12}", self.hits(state, *segment)))?;
        }
        writeln!(f)
    }
}
