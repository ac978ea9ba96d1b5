//! Formats flags, options and ECN marks as scripts write them.

use super::ast::{EcnSpec, TcpOption};

/// The names of the codepoints, indexed by their bits.
pub(crate) const ECN: [&str; 4] = ["noecn", "ect1", "ect0", "ce"];

pub(crate) fn ecn(ecn: EcnSpec) -> &'static str {
    match ecn {
        EcnSpec::None => "noecn",
        EcnSpec::Ect0 => "ect0",
        EcnSpec::Ect1 => "ect1",
        EcnSpec::Ect01 => "ect01",
        EcnSpec::Ce => "ce",
    }
}

/// Formats flags in the usual order. Bits without a letter are shown as a number.
pub(crate) fn flags(flags: u16) -> String {
    const LETTERS: [(u16, char); 9] = [
        (1 << 1, 'S'),
        (1, 'F'),
        (1 << 2, 'R'),
        (1 << 3, 'P'),
        (1 << 5, 'U'),
        (1 << 6, 'E'),
        (1 << 7, 'W'),
        (1 << 8, 'A'),
        (1 << 4, '.'),
    ];
    let mut text: String =
        LETTERS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| *letter).collect();
    if text.is_empty() {
        text.push('-');
    }
    if flags & 0xe00 != 0 {
        text.push_str(&format!(" and reserved bits {:#x}", flags & 0xe00));
    }
    text
}

pub(crate) fn options(options: &[TcpOption]) -> String {
    let all: Vec<_> = options.iter().map(option).collect();
    if all.is_empty() { "none".to_owned() } else { format!("<{}>", all.join(",")) }
}

pub(crate) fn option(option: &TcpOption) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let open = |number: &Option<u32>| number.map_or("...".to_owned(), |number| number.to_string());
    match option {
        TcpOption::End => "eol".to_owned(),
        TcpOption::Nop => "nop".to_owned(),
        TcpOption::Mss(mss) => format!("mss {mss}"),
        TcpOption::WindowScale(shift) => format!("wscale {shift}"),
        TcpOption::SackPermitted => "sackOK".to_owned(),
        TcpOption::Sack(blocks) => {
            let blocks: Vec<_> = blocks.iter().map(|(left, right)| format!("{left}:{right}")).collect();
            format!("sack {}", blocks.join(" "))
        }
        TcpOption::Timestamps { val, ecr } => format!("TS val {} ecr {}", open(val), open(ecr)),
        TcpOption::FastOpen(cookie) => format!("FO {}", hex(cookie)).trim_end().to_owned(),
        TcpOption::GivenCookie => "FO ...".to_owned(),
        TcpOption::Experiment(id, data) => format!("exp-{id:04x} {}", hex(data)).trim_end().to_owned(),
        TcpOption::Md5(digest) => format!("md5 {}", hex(digest)),
        TcpOption::AccEcn(kind, counters) => {
            let names = if *kind == 172 { ["e0b", "ceb", "e1b"] } else { ["e1b", "ceb", "e0b"] };
            let shown: Vec<_> =
                names.iter().zip(counters).map(|(name, count)| format!("{name} {count}")).collect();
            format!("ECN {}", shown.join(" "))
        }
        TcpOption::Other(kind, data) => format!("gen {kind} {}", hex(data)).trim_end().to_owned(),
    }
}
