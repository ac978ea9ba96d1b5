//! The syntax tree of a script.

use super::code::Block;
use super::lex::Position;

/// A whole script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// The `--name=value` lines at the top.
    pub(crate) options: Vec<ScriptOption>,
    /// Commands before the first event, and the clean-up commands after the last.
    pub(crate) init: Vec<(Position, String)>,
    pub(crate) events: Vec<Event>,
    pub(crate) cleanup: Vec<(Position, String)>,
}

/// One option at the top of a script.
#[derive(Clone, Debug)]
pub(crate) struct ScriptOption {
    pub(crate) at: Position,
    pub(crate) name: String,
    pub(crate) value: String,
}

/// An event: its time and its action.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Position,
    pub(crate) when: When,
    pub(crate) action: Action,
    /// The text of the event in the script.
    pub(crate) text: String,
}

/// The time of an event, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Relative to the first event.
    Absolute(i64),
    AbsoluteRange(i64, i64),
    /// Relative to the end of the previous event.
    Relative(i64),
    RelativeRange(i64, i64),
    Any,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Packet(Packet),
    Call(Call),
    Command(String),
    Code(Block),
}

/// A system call and its expected result.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: Vec<Expression>,
    /// When a blocking call returns. Counted as the event's own time is: from the start, or from the previous event.
    pub(crate) until: Option<i64>,
    pub(crate) result: Expression,
    pub(crate) errno: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    /// `...`
    Any,
    Integer(i64),
    Text(String),
    Symbol(String),
    /// `A|B`
    Or(Vec<Expression>),
    List(Vec<Expression>),
    Struct(Vec<Field>),
    /// `htons(80)`
    Function(String, Vec<Expression>),
}

/// `name=value` in a struct, or a value alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: Option<String>,
    pub(crate) value: Expression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// `<`: to the stack.
    In,
    /// `>`: from the stack.
    Out,
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) direction: Direction,
    /// An unsupported header before TCP's: `gre`, `mpls`, `udp`.
    pub(crate) encapsulation: Option<String>,
    pub(crate) ip: IpInfo,
    pub(crate) body: Body,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IpInfo {
    pub(crate) ecn: Option<EcnSpec>,
    /// The whole octet: TOS or traffic class.
    pub(crate) tos: Option<u8>,
    pub(crate) ttl: Option<u8>,
    pub(crate) flow_label: Option<u32>,
    /// For inbound packets: special addresses in place of the flow's.
    pub(crate) from: Option<Cast>,
    pub(crate) to: Option<Cast>,
    /// For inbound segments: send a wrong TCP checksum.
    pub(crate) bad_checksum: bool,
}

/// An address that does not belong to the script or the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    Multicast,
    /// In IPv6, the group of all nodes.
    Broadcast,
    /// A neighbour of the stack that does not exist.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EcnSpec {
    None,
    Ect0,
    Ect1,
    /// Either ECT(0) or ECT(1).
    Ect01,
    Ce,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Tcp(Tcp),
    Icmp(Icmp),
    Udp(u16),
}

#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    /// Source and destination, where given.
    pub(crate) ports: Option<(u16, u16)>,
    /// The twelve bits after the data offset.
    pub(crate) flags: u16,
    pub(crate) scale: Scale,
    pub(crate) seq: u32,
    pub(crate) len: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) window: Option<u16>,
    pub(crate) urgent: Option<u16>,
    /// `None`: not checked.
    pub(crate) options: Option<Vec<TcpOption>>,
}

/// How a sequence number of the script is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scale {
    /// It counts from the initial sequence number. In a SYN it is that number.
    #[default]
    Initial,
    /// `1:1(0)!`: it is the number on the wire.
    Wire,
    /// `...(0)`: it is not compared.
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TcpOption {
    End,
    Nop,
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    /// `None`: not checked.
    Timestamps {
        val: Option<u32>,
        ecr: Option<u32>,
    },
    FastOpen(Vec<u8>),
    /// Any cookie that the stack has sent.
    GivenCookie,
    /// An option of kind 254: its identifier and data.
    Experiment(u16, Vec<u8>),
    Md5(Vec<u8>),
    /// The kind, and the counters in order.
    AccEcn(u8, Vec<u32>),
    /// Any other option: kind and data.
    Other(u8, Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Icmp {
    pub(crate) kind: IcmpName,
    pub(crate) code: Option<IcmpName>,
    pub(crate) mtu: Option<u32>,
    pub(crate) id: Option<u16>,
    pub(crate) quoted: Quoted,
    pub(crate) at: Position,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IcmpName {
    Name(String),
    Number(u8),
}

/// The packet that an ICMP message quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Quoted {
    Nothing,
    /// A segment of the stack, or, in an expected message, of the script: first sequence number and length.
    Tcp(u32, u32),
    Udp(u16),
    Raw(u16),
}
