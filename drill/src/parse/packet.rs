//! Parses packets: addresses and ports, flags, numbers, options, ICMP.

use super::Parser;
use crate::ast::{
    Body, Cast, Direction, EcnSpec, Icmp, IcmpName, IpInfo, Packet, Quoted, Scale, Tcp, TcpOption,
};
use crate::lex::{Cursor, Parsed, SyntaxError};

/// The maximum length of all options, in bytes.
const OPTIONS: usize = 40;
/// The identifier of the experimental Fast Open option (RFC 7413, appendix A).
const FAST_OPEN_EXPERIMENT: u16 = 0xf989;

/// Length of a Fast Open cookie of the stack, in bytes.
const GIVEN_COOKIE: usize = 8;

const ACC_ECN_0: u8 = 172;
const ACC_ECN_1: u8 = 174;

impl Parser<'_> {
    pub(super) fn packet(&mut self) -> Parsed<Packet> {
        let direction = if self.cursor.eat("<") { Direction::In } else { Direction::Out };
        if direction == Direction::Out {
            self.cursor.expect(">")?;
        }
        let encapsulation = self.encapsulation()?;
        let (mut ip, mut quoted) = (IpInfo::default(), Quoted::Nothing);
        // The quoted packet may come before `icmp`.
        match self.cursor.peek() {
            Some('[') if self.quotes_ahead() => quoted = self.quoted()?,
            Some('[' | '(') => ip = self.ip_info(direction)?,
            _ => {}
        }
        let offset = self.cursor.offset();
        let body = match self.cursor.word() {
            Some("icmp") => Body::Icmp(self.icmp(quoted)?),
            Some("udp") => Body::Udp(self.udp()?),
            _ => {
                self.cursor.rewind(offset);
                Body::Tcp(self.tcp(direction)?)
            }
        };
        Ok(Packet { direction, encapsulation, ip, body })
    }

    /// Parses encapsulating headers, each followed by a colon: `gre:`, `ipv4 1.2.3.4 > 5.6.7.8:`, `udp(9899>9899):`.
    fn encapsulation(&mut self) -> Parsed<Option<String>> {
        let mut first = None;
        loop {
            let offset = self.cursor.offset();
            let name = self.cursor.word().unwrap_or_default();
            if !matches!(name, "gre" | "mpls" | "ipv4" | "ipv6" | "udp" | "udplite" | "ipip" | "sctp") {
                self.cursor.rewind(offset);
                return Ok(first);
            }
            let line = self.cursor.rest().lines().next().unwrap_or_default();
            let colon = match name {
                "ipv6" => line.rfind(": "),
                _ => line.find(':'),
            };
            let Some(colon) = colon.filter(|colon| !line[..*colon].contains('`')) else {
                self.cursor.rewind(offset);
                if name == "udp" {
                    return Ok(first);
                }
                return Err(self.cursor.error("the rest of the header, and `:`"));
            };
            first.get_or_insert_with(|| name.to_owned());
            let end = self.cursor.offset() + colon + 1;
            self.cursor.rewind(end);
            if name == "sctp" {
                // The rest of the line describes SCTP chunks, which are not supported.
                self.cursor.take_while(|c| c != '\n');
                return Err(self.cursor.error("TCP, UDP or ICMP: SCTP is another protocol; it ends"));
            }
        }
    }

    /// Returns whether `[` starts the quoted packet of an ICMP message: `[1:2(1)]`, `[udp(4)]`.
    fn quotes_ahead(&mut self) -> bool {
        let inside = self.cursor.rest()[1..].trim_start();
        inside.starts_with(|c: char| c.is_ascii_digit())
            || inside.starts_with("udp")
            || inside.starts_with("raw")
    }

    fn ip_info(&mut self, direction: Direction) -> Parsed<IpInfo> {
        let close = if self.cursor.eat("[") { "]" } else { ")" };
        if close == ")" {
            self.cursor.expect("(")?;
        }
        let mut info = IpInfo::default();
        loop {
            self.cursor.blank();
            let offset = self.cursor.offset();
            match self.cursor.word().unwrap_or_default() {
                "noecn" => info.ecn = Some(EcnSpec::None),
                "ect0" => info.ecn = Some(EcnSpec::Ect0),
                "ect1" => info.ecn = Some(EcnSpec::Ect1),
                "ect01" => info.ecn = Some(EcnSpec::Ect01),
                "ce" => info.ecn = Some(EcnSpec::Ce),
                "tos" => info.tos = Some(self.cursor.number("TOS", 0xff)? as u8),
                "class" => info.tos = Some(self.cursor.number("the traffic class", 0xff)? as u8),
                "ttl" => info.ttl = Some(self.cursor.number("TTL", 0xff)? as u8),
                "hlim" => info.ttl = Some(self.cursor.number("the hop limit", 0xff)? as u8),
                "flowlabel" => info.flow_label = Some(self.cursor.number("the flow label", 0xf_ffff)? as u32),
                "from" if direction == Direction::In => info.from = Some(self.cast()?),
                "to" if direction == Direction::In => info.to = Some(self.cast()?),
                "badsum" if direction == Direction::In => info.bad_checksum = true,
                _ => {
                    self.cursor.rewind(offset);
                    let expected = match direction {
                        Direction::In => {
                            "ect0, ect1, ect01, ce, noecn, tos, ttl, hlim, class, flowlabel, from, to or badsum"
                        }
                        Direction::Out => "ect0, ect1, ect01, ce, noecn, tos, ttl, hlim, class or flowlabel",
                    };
                    return Err(self.cursor.error(expected));
                }
            }
            if self.cursor.eat(close) {
                return Ok(info);
            }
            self.cursor.eat(",");
        }
    }

    fn cast(&mut self) -> Parsed<Cast> {
        self.cursor.blank();
        if self.cursor.eat_word("multicast") {
            return Ok(Cast::Multicast);
        }
        if self.cursor.eat_word("broadcast") {
            return Ok(Cast::Broadcast);
        }
        if self.cursor.eat_word("nobody") {
            return Ok(Cast::Nobody);
        }
        Err(self.cursor.error("multicast, broadcast or nobody"))
    }

    fn tcp(&mut self, direction: Direction) -> Parsed<Tcp> {
        let ports = self.ports()?;
        let flags = self.flags()?;
        let (scale, seq, len) = self.scaled_sequence(direction)?;
        let (mut ack, mut window, mut urgent) = (None, None, None);
        loop {
            if self.cursor.eat_word("ack") {
                ack = Some(self.defined_number("the acknowledgment number", u64::from(u32::MAX))? as u32);
            } else if self.cursor.eat_word("win") {
                window = Some(self.defined_number("the window", 0xffff)? as u16);
            } else if self.cursor.eat_word("urg") {
                urgent = Some(self.defined_number("the urgent pointer", 0xffff)? as u16);
            } else {
                break;
            }
        }
        // A `<` or `>` on the next line cannot start a packet: that starts with a time.
        let options = if self.cursor.next_is("<") { self.options(direction)? } else { Some(Vec::new()) };
        Ok(Tcp { ports, flags, scale, seq, len, ack, window, urgent, options })
    }

    fn ports(&mut self) -> Parsed<Option<(u16, u16)>> {
        let offset = self.cursor.offset();
        let digits = self.cursor.take_while(|c| c.is_ascii_digit());
        let given = !digits.is_empty() && self.cursor.next_is(">");
        self.cursor.rewind(offset);
        if !given {
            return Ok(None);
        }
        let source = self.cursor.number("the source port", 0xffff)? as u16;
        self.cursor.expect(">")?;
        Ok(Some((source, self.cursor.number("the destination port", 0xffff)? as u16)))
    }

    /// Parses flags: letters, `.` for ACK, a digit for the ACE field, `-` for none. Blanks may stand before the `.`.
    fn flags(&mut self) -> Parsed<u16> {
        self.cursor.blank();
        let offset = self.cursor.offset();
        let text = self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
        let mut flags = 0;
        for c in text.chars() {
            flags |= match c {
                'F' => 1,
                'S' => 1 << 1,
                'R' => 1 << 2,
                'P' => 1 << 3,
                '.' => 1 << 4,
                'U' => 1 << 5,
                'E' => 1 << 6,
                'W' => 1 << 7,
                'A' => 1 << 8,
                '0'..='7' => (c as u16 - '0' as u16) << 6,
                '-' if text == "-" => 0,
                _ => {
                    self.cursor.rewind(offset);
                    return Err(self.cursor.error("flags of `SFRP.UEWA`, a digit from 0 to 7, or `-`"));
                }
            };
        }
        if text.is_empty() {
            return Err(self.cursor.error("flags of `SFRP.UEWA`, a digit from 0 to 7, or `-`"));
        }
        if !text.contains(['.', '-']) && self.cursor.next_is(".") && !self.cursor.next_is("...") {
            self.cursor.expect(".")?;
            flags |= 1 << 4;
        }
        Ok(flags)
    }

    /// Parses `first:end(length)`, `first:end(length)!` or `...(length)`.
    fn scaled_sequence(&mut self, direction: Direction) -> Parsed<(Scale, u32, u32)> {
        if direction == Direction::Out && self.cursor.eat("...") {
            return Ok((Scale::Open, 0, self.length()?));
        }
        let (seq, len) = self.sequence()?;
        let on_wire = self.cursor.rest().starts_with('!') && self.cursor.eat("!");
        Ok((if on_wire { Scale::Wire } else { Scale::Initial }, seq, len))
    }

    /// Parses `(length)`.
    fn length(&mut self) -> Parsed<u32> {
        self.cursor.expect("(")?;
        let len = self.cursor.number("the length", 0xffff)? as u32;
        self.cursor.expect(")")?;
        Ok(len)
    }

    /// Parses `first:end(length)`.
    fn sequence(&mut self) -> Parsed<(u32, u32)> {
        let max = u64::from(u32::MAX);
        let start = self.cursor.number("the sequence number", max)? as u32;
        self.cursor.expect(":")?;
        let at = self.cursor.position();
        let end = self.cursor.number("the end of the sequence numbers", max)? as u32;
        let len = self.length()?;
        if start.wrapping_add(len) != end {
            let expected = format!("{}, which is {start} and {len} more", start.wrapping_add(len));
            return Err(SyntaxError { at, expected, found: format!("`{end}`") });
        }
        Ok((start, len))
    }

    /// Parses a number, or a name that is defined as one.
    fn defined_number(&mut self, what: &str, max: u64) -> Parsed<u64> {
        let offset = self.cursor.offset();
        let defined = self.cursor.word().and_then(|word| self.defines.get(word));
        match defined.and_then(|value| Cursor::new(value).number(what, max).ok()) {
            Some(number) => Ok(number),
            None => {
                self.cursor.rewind(offset);
                self.cursor.number(what, max)
            }
        }
    }

    fn options(&mut self, direction: Direction) -> Parsed<Option<Vec<TcpOption>>> {
        let at = self.cursor.position();
        self.cursor.expect("<")?;
        if self.cursor.eat("...") {
            self.cursor.expect(">")?;
            return match direction {
                Direction::Out => Ok(None),
                Direction::In => Err(SyntaxError {
                    at,
                    expected: "the options of a packet that is sent to the stack".to_owned(),
                    found: "`<...>`".to_owned(),
                }),
            };
        }
        let mut options = Vec::new();
        while !self.cursor.eat(">") {
            options.push(self.tcp_option()?);
            if !self.cursor.eat(",") && !self.cursor.next_is(">") {
                return Err(self.cursor.error("`,` or `>`"));
            }
        }
        let len: usize = options.iter().map(TcpOption::len).sum();
        if !len.is_multiple_of(4) || len > OPTIONS {
            let expected = format!("options that fill a multiple of 4 bytes, {OPTIONS} at most");
            return Err(SyntaxError { at, expected, found: format!("{len} bytes") });
        }
        Ok(Some(options))
    }

    fn tcp_option(&mut self) -> Parsed<TcpOption> {
        self.cursor.blank();
        let offset = self.cursor.offset();
        let name = self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        Ok(match name {
            "nop" => TcpOption::Nop,
            "eol" => TcpOption::End,
            "mss" => TcpOption::Mss(self.defined_number("the MSS", 0xffff)? as u16),
            "wscale" => TcpOption::WindowScale(self.defined_number("the window scale", 0xff)? as u8),
            "sackOK" => TcpOption::SackPermitted,
            "sack" => TcpOption::Sack(self.sack()?),
            "TS" => self.timestamps()?,
            "FO" if self.cursor.eat("...") => TcpOption::GivenCookie,
            "FO" => TcpOption::FastOpen(self.hex()?),
            "FOEXP" | "EXP-FO" => TcpOption::Experiment(FAST_OPEN_EXPERIMENT, self.hex()?),
            "md5" => TcpOption::Md5(self.hex()?),
            "ECN" => self.acc_ecn()?,
            "gen" => {
                let kind = self.cursor.number("the kind of the option", 0xff)? as u8;
                TcpOption::Other(kind, self.hex()?)
            }
            _ => match name.strip_prefix("exp-").map(|id| u16::from_str_radix(id, 16)) {
                Some(Ok(id)) => TcpOption::Experiment(id, self.hex()?),
                _ => {
                    self.cursor.rewind(offset);
                    let expected =
                        "an option: mss, wscale, sackOK, sack, TS, nop, eol, FO, FOEXP, exp-xxxx, md5, ECN";
                    return Err(self.cursor.error(expected));
                }
            },
        })
    }

    fn sack(&mut self) -> Parsed<Vec<(u32, u32)>> {
        let mut blocks = Vec::new();
        let max = u64::from(u32::MAX);
        while blocks.is_empty() || self.cursor.peek().is_some_and(|c| c.is_ascii_digit()) {
            let left = self.cursor.number("the left edge of a SACK block", max)? as u32;
            self.cursor.expect(":")?;
            blocks.push((left, self.cursor.number("the right edge of a SACK block", max)? as u32));
        }
        Ok(blocks)
    }

    fn timestamps(&mut self) -> Parsed<TcpOption> {
        let part = |parser: &mut Self, name: &str| -> Parsed<Option<u32>> {
            if !parser.cursor.eat_word(name) {
                return Err(parser.cursor.error(format!("`{name}`")));
            }
            if parser.cursor.eat("...") {
                return Ok(None);
            }
            Ok(Some(parser.defined_number("a timestamp", u64::from(u32::MAX))? as u32))
        };
        Ok(TcpOption::Timestamps { val: part(self, "val")?, ecr: part(self, "ecr")? })
    }

    /// Parses pairs of hexadecimal digits, or a name that is defined as such. May be empty.
    fn hex(&mut self) -> Parsed<Vec<u8>> {
        self.cursor.blank();
        let offset = self.cursor.offset();
        let word = self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let digits = self.defines.get(word).map_or(word, String::as_str);
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let pairs = digits.as_bytes().chunks(2);
        let bytes = pairs.map(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
            u8::from_str_radix(text, 16).ok()
        });
        match bytes.collect() {
            Some(bytes) => Ok(bytes),
            None => {
                self.cursor.rewind(offset);
                Err(self.cursor.error("hexadecimal digits in pairs"))
            }
        }
    }

    /// Parses `ECN e0b 1 ceb 0 e1b 1`, or the reverse order.
    fn acc_ecn(&mut self) -> Parsed<TcpOption> {
        let mut counters = Vec::new();
        let mut kind = ACC_ECN_0;
        while let Some(name) = ["e0b", "ceb", "e1b"].into_iter().find(|name| self.cursor.eat_word(name)) {
            if counters.is_empty() && name == "e1b" {
                kind = ACC_ECN_1;
            }
            let order = if kind == ACC_ECN_0 { ["e0b", "ceb", "e1b"] } else { ["e1b", "ceb", "e0b"] };
            if order.get(counters.len()) != Some(&name) {
                return Err(self.cursor.error("e0b, ceb, e1b in this order or the opposite; before this"));
            }
            counters.push(self.cursor.number("a counter", 0xff_ffff)? as u32);
        }
        Ok(TcpOption::AccEcn(kind, counters))
    }

    fn icmp(&mut self, quoted: Quoted) -> Parsed<Icmp> {
        let at = self.cursor.position();
        let kind = self.icmp_name()?.ok_or_else(|| self.cursor.error("the type of the ICMP message"))?;
        let mut icmp = Icmp { kind, code: None, mtu: None, id: None, quoted, at };
        loop {
            if self.cursor.eat_word("mtu") {
                icmp.mtu = Some(self.defined_number("the MTU", u64::from(u32::MAX))? as u32);
            } else if self.cursor.eat_word("id") {
                icmp.id = Some(self.cursor.number("the identifier", 0xffff)? as u16);
            } else if self.cursor.next_is("[") {
                icmp.quoted = self.quoted()?;
            } else if icmp.code.is_none() && !self.starts_line() {
                match self.icmp_name()? {
                    Some(code) => icmp.code = Some(code),
                    None => return Ok(icmp),
                }
            } else {
                return Ok(icmp);
            }
        }
    }

    /// Returns whether the next token is on another line.
    fn starts_line(&mut self) -> bool {
        let rest = self.cursor.rest();
        let blank = &rest[..rest.len() - rest.trim_start().len()];
        blank.contains('\n')
    }

    /// Parses a name, a number, or `type_3`, `code_4`.
    fn icmp_name(&mut self) -> Parsed<Option<IcmpName>> {
        if self.cursor.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Ok(Some(IcmpName::Number(self.cursor.number("a type or code", 0xff)? as u8)));
        }
        let Some(word) = self.cursor.word() else { return Ok(None) };
        let word = self.defines.get(word).map_or(word, String::as_str);
        let number = word.strip_prefix("type_").or(word.strip_prefix("code_")).and_then(|n| n.parse().ok());
        Ok(Some(number.map_or_else(|| IcmpName::Name(word.to_owned()), IcmpName::Number)))
    }

    fn quoted(&mut self) -> Parsed<Quoted> {
        self.cursor.expect("[")?;
        let quoted = if self.cursor.eat_word("udp") {
            Quoted::Udp(self.udp()?)
        } else if self.cursor.eat_word("raw") {
            Quoted::Raw(self.udp()?)
        } else {
            self.cursor.eat_word("tcp");
            let (seq, len) = self.sequence()?;
            Quoted::Tcp(seq, len)
        };
        self.cursor.expect("]")?;
        Ok(quoted)
    }

    fn udp(&mut self) -> Parsed<u16> {
        self.length().map(|len| len as u16)
    }
}

impl TcpOption {
    /// The length of the option in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            TcpOption::End | TcpOption::Nop => 1,
            TcpOption::Mss(_) => 4,
            TcpOption::WindowScale(_) => 3,
            TcpOption::SackPermitted => 2,
            TcpOption::Sack(blocks) => 2 + 8 * blocks.len(),
            TcpOption::Timestamps { .. } => 10,
            TcpOption::GivenCookie => 2 + GIVEN_COOKIE,
            TcpOption::Experiment(_, data) => 4 + data.len(),
            TcpOption::AccEcn(_, counters) => 2 + 3 * counters.len(),
            TcpOption::Md5(_) => 18,
            TcpOption::FastOpen(data) | TcpOption::Other(_, data) => 2 + data.len(),
        }
    }
}
