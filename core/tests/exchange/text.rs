//! Segments as the tests write them.

use std::fmt::Write;

use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Cookie, Flags, Options, Timestamps};

use crate::harness::pattern;

/// A segment as the tests write it.
#[derive(Debug, Default)]
pub struct Text {
    pub flags: Flags,
    pub seq: u32,
    pub len: u32,
    pub ack: Option<u32>,
    pub win: Option<u16>,
    pub urg: u16,
    pub bytes: Option<Vec<u8>>,
    pub options: Options,
    sack: Vec<(u32, u32)>,
    /// `seq =0`: not relative.
    absolute: bool,
    pub no_ts: bool,
    pub no_options: bool,
}

impl Text {
    #[track_caller]
    pub fn parse(text: &str) -> Text {
        let (head, options) = text.split_once('<').unwrap_or((text, ">"));
        let mut words = head.split_whitespace();
        let mut parsed = Text { flags: flags(words.next().expect("flags")), ..Text::default() };
        while let Some(word) = words.next() {
            if word == "[ce]" {
                continue;
            }
            let value = words.next().unwrap_or_else(|| panic!("{word} has no value: {text}"));
            match word {
                "seq" if value.starts_with('=') => {
                    parsed.absolute = true;
                    parsed.seq = number(&value[1..]);
                }
                "seq" => match value.split_once(':') {
                    None => parsed.seq = number(value),
                    Some((from, to)) => {
                        parsed.seq = number(from);
                        parsed.len = number(to).wrapping_sub(parsed.seq);
                    }
                },
                "ack" => parsed.ack = Some(number(value)),
                "win" => parsed.win = Some(number(value) as u16),
                "urg" => parsed.urg = number(value) as u16,
                "data" => {
                    parsed.bytes = Some(value.as_bytes().to_vec());
                    parsed.len = value.len() as u32;
                }
                _ => panic!("what is {word}? {text}"),
            }
        }
        for option in options.trim_end_matches('>').split(',').map(str::trim).filter(|o| !o.is_empty()) {
            parsed.option(option);
        }
        parsed
    }

    pub fn seq_from(&self, iss: SeqNum) -> SeqNum {
        if self.absolute { SeqNum(self.seq) } else { iss + self.seq }
    }

    /// Where in the stream its payload begins.
    pub fn first_byte(&self) -> u32 {
        if self.flags.syn() { self.seq } else { self.seq.wrapping_sub(1) }
    }

    pub fn payload(&self) -> Vec<u8> {
        self.bytes.clone().unwrap_or_else(|| pattern(self.first_byte(), self.len))
    }

    #[track_caller]
    fn option(&mut self, option: &str) {
        let words: Vec<&str> = option.split_whitespace().collect();
        match words[..] {
            ["mss", n] => self.options.mss = Some(number(n) as u16),
            ["wscale", n] => self.options.window_scale = Some(number(n) as u8),
            ["sackOK"] => self.options.sack_permitted = true,
            ["ts", val, "ecr", ecr] => {
                self.options.timestamps = Some(Timestamps { val: number(val), ecr: number(ecr) });
            }
            ["nots"] => self.no_ts = true,
            ["nomss"] => self.no_options = true,
            ["tfo"] => self.options.fast_open = Cookie::new(&[]),
            ["tfo", cookie] => self.options.fast_open = Cookie::new(&hex(cookie)),
            ["sack", ref blocks @ ..] => {
                self.sack = blocks
                    .iter()
                    .map(|block| block.split_once(':').map(|(l, r)| (number(l), number(r))).unwrap())
                    .collect();
            }
            _ => panic!("what is the option {option}?"),
        }
    }

    /// The options of a segment to the stack: SACK blocks count from its ISS.
    pub fn sack_from(&self, mut options: Options, irs: Option<SeqNum>) -> Options {
        let base = irs.unwrap_or(SeqNum(0));
        for (left, right) in &self.sack {
            options.sack.push(base + *left, base + *right);
        }
        options
    }

    /// The options expected from the stack: SACK blocks count from the peer's ISS.
    pub fn options_to(&self, iss: SeqNum) -> Options {
        let mut options = self.options;
        for (left, right) in &self.sack {
            options.sack.push(iss + *left, iss + *right);
        }
        options
    }
}

/// A relative number; a negative one lies before the SYN.
#[track_caller]
fn number(text: &str) -> u32 {
    let n: i64 = text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
    n as u32
}

#[track_caller]
fn flags(letters: &str) -> Flags {
    letters.parse().unwrap_or_else(|error| panic!("{letters}: {error}"))
}

pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
