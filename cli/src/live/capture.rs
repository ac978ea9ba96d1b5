//! `steadfast capture`: the packets of a running network, in a file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use steadfast_timeline::pcapng;

use super::Whom;
use crate::capture::{ip_in, set_checksum};
use crate::failure::Failure;
use crate::output::say;

/// Record the packets of a running network as pcapng, for Wireshark or `steadfast pcap`.
///
/// This command writes the file, not the network. Packets on Ethernet are recorded without its header, and those that are
/// not IP are left out. With offload, a packet may be longer than the MTU.
#[derive(Args)]
pub(crate) struct Capture {
    /// How long.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Record at most so many bytes of each packet: 120 have its headers.
    #[arg(short, long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    snaplen: Option<u64>,
    #[command(flatten)]
    whom: Whom,
    /// The file. It is overwritten.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Capture {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut network = self.whom.connect()?;
        let failed = |error| Failure::system(self.file.display(), error);
        let mut recording = Recording::begin(File::create(&self.file).map_err(failed)?).map_err(failed)?;
        network.patience(self.seconds.saturating_add(10))?;
        let mut request = json!({"do": "capture", "for": self.seconds.saturating_mul(1000)});
        if let Some(snaplen) = self.snaplen {
            request["snaplen"] = snaplen.into();
        }
        network.each(&request, |row| recording.take(&row).map_err(failed))?;
        let Recording { packets, lost, .. } = recording;
        let lost =
            if lost > 0 { format!("; {lost} more were lost: the queue was full") } else { String::new() };
        say(&format!("{}: {packets} packets in {} s{lost}\n", self.file.display(), self.seconds))
    }
}

/// A file of packets. Each is written at once, so that a command that is interrupted leaves a whole file.
struct Recording<W> {
    file: W,
    /// The index of each interface in the file.
    interfaces: HashMap<u64, u32>,
    packets: u64,
    lost: u64,
}

impl<W: Write> Recording<W> {
    fn begin(mut file: W) -> std::io::Result<Recording<W>> {
        file.write_all(&pcapng::section(""))?;
        Ok(Recording { file, interfaces: HashMap::new(), packets: 0, lost: 0 })
    }

    /// Takes a row of the answer.
    fn take(&mut self, row: &Value) -> std::io::Result<()> {
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        self.lost += number("packets");
        let Some(mut bytes) = row["data"].as_str().and_then(decoded) else { return Ok(()) };
        let mut len = number("len");
        if row["ethernet"] == true {
            let Some(at) = ip_in(&bytes) else { return Ok(()) };
            bytes.drain(..at);
            len -= at as u64;
        }
        if row["partial"] == true && bytes.len() as u64 == len {
            set_checksum(&mut bytes);
        }
        let (next, number_of) = (self.interfaces.len() as u32, number("interface"));
        let mut block = Vec::new();
        let interface = *self.interfaces.entry(number_of).or_insert_with(|| {
            block = pcapng::interface(&format!("if{number_of}"));
            next
        });
        block.extend(pcapng::packet(&pcapng::Packet {
            nanos: number("at"),
            interface,
            outbound: row["out"] == true,
            bytes: &bytes,
            len: len as u32,
            comments: &[],
        }));
        self.packets += 1;
        self.file.write_all(&block)
    }
}

/// Bytes from their hexadecimal digits.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_header_is_left_out_and_a_packet_that_is_not_ip_too() {
        let mut recording = Recording::begin(Vec::new()).unwrap();
        let row = |kind: &str, number: u64| {
            let data = format!("{}{kind}4500", "00".repeat(12));
            json!({"at": 1, "interface": number, "out": true, "ethernet": true, "len": 74, "data": data})
        };
        for row in [
            row("0806", 3),
            row("0800", 3),
            row("0800", 5),
            row("86dd", 3),
            json!({"kind": "lost", "packets": 7}),
        ] {
            recording.take(&row).unwrap();
        }
        assert_eq!((recording.packets, recording.lost, recording.interfaces.len()), (3, 7, 2));
        let packet = |interface| {
            pcapng::packet(&pcapng::Packet {
                nanos: 1,
                interface,
                outbound: true,
                bytes: &[0x45, 0],
                len: 60,
                comments: &[],
            })
        };
        let parts = [
            pcapng::section(""),
            pcapng::interface("if3"),
            packet(0),
            pcapng::interface("if5"),
            packet(1),
            packet(0),
        ];
        assert_eq!(recording.file, parts.concat());
        assert_eq!(decoded("0aff"), Some(vec![10, 255]));
        assert!(decoded("0af").is_none() && decoded("0g").is_none());
    }
}
