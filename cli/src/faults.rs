//! `--fault` and its company: faults between a program and its network, and what they did.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use steadfast::device::Device;
use steadfast_lab::wire::{Wire, WireOptions, faults_of};
use steadfast_lab::{Fault, catalogue};
use steadfast_timeline::{capture, ladder};

use crate::capture::{Capture, Captured};
use crate::failure::Failure;
use crate::faulty::{Faulty, Line};

/// Rows of a ladder.
const ROWS: usize = 200;

/// Named faults: see the file.
const PRESETS: &str = include_str!("presets.txt");

/// Faults, and records of what happened.
#[derive(Args)]
pub(crate) struct FaultOptions {
    /// A fault between the program, C, and its network, S, as in `lose C>S [S] 1`; the faults of a scenario, as H3b; or
    /// of a preset: 3g, satellite, flaky-wifi, unplugged, slow-accept, half-open. May be repeated. Times count from the
    /// start of the program.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<String>,
    /// Seed of the faults' randomness: the same seed hits the same packets.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Fail with status 125 if no fault has hit a packet.
    #[arg(long, requires = "faults")]
    must_bite: bool,
    /// Write the packets to a pcapng file. With faults it has two interfaces, before and after them.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Draw what happened at the end, on standard error.
    #[arg(long)]
    ladder: bool,
}

impl FaultOptions {
    /// Checks the options, and returns how the device is to be wrapped. `addresses` are those of the program.
    pub(crate) fn plan(&self, addresses: impl Iterator<Item = IpAddr>) -> Result<Plan<'_>, Failure> {
        let mut faults = Vec::new();
        for text in &self.faults {
            faults.extend(self::faults(text).map_err(|e| Failure::usage(format!("--fault {e}")))?);
        }
        if faults.is_empty() && !self.ladder {
            let capture = self.pcap.as_deref().map(Capture::create).transpose()?;
            return Ok(Plan { options: self, line: None, capture, file: None });
        }
        // It is written at the end, from within the cage.
        let file = self.pcap.as_deref().map(File::create).transpose().map_err(|e| self.cannot_write(e))?;
        let mut options = WireOptions::new(addresses);
        options.seed = self.seed;
        options.record = self.ladder || self.pcap.is_some();
        options.capture = self.pcap.is_some();
        let wire = Wire::new(faults, options).map_err(|e| Failure::usage(format!("--fault {e}")))?;
        Ok(Plan { options: self, line: Some(Line::new(wire)), capture: None, file })
    }

    fn cannot_write(&self, error: io::Error) -> Failure {
        let path = self.pcap.as_deref().unwrap_or(std::path::Path::new(""));
        Failure::system(format_args!("--pcap {}", path.display()), error)
    }
}

/// The wrapping of a device that the options ask for.
pub(crate) struct Plan<'a> {
    options: &'a FaultOptions,
    line: Option<Line>,
    capture: Option<Capture>,
    /// For the capture of a wire with faults.
    file: Option<File>,
}

impl Plan<'_> {
    /// Faults and ladders are about packets of the wire, which the kernel must not coalesce.
    pub(crate) fn offload(&self) -> bool {
        self.line.is_none()
    }

    /// Puts faults and records around a device.
    pub(crate) fn wrap(&self, device: impl Device) -> Box<dyn Device> {
        match (&self.line, &self.capture) {
            (Some(line), _) => Box::new(Faulty::new(device, line.clone())),
            (None, Some(capture)) => Box::new(Captured::new(device, capture.clone())),
            (None, None) => Box::new(device),
        }
    }

    /// The program starts: from here on the times of faults count.
    pub(crate) fn start(&self) {
        self.line.iter().for_each(Line::start);
    }

    /// The hits of each fault, in words.
    pub(crate) fn hits(&self) -> Vec<String> {
        let text = |(fault, hits): (&Fault, u64)| {
            let times = if hits == 1 { "time" } else { "times" };
            format!("`{fault}` hit {hits} {times}")
        };
        self.line.as_ref().map_or(Vec::new(), |line| line.look(|wire| wire.hits().map(text).collect()))
    }

    /// Writes the records.
    ///
    /// # Errors
    ///
    /// The capture cannot be written, or no fault has hit although one must.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let Some(line) = &self.line else { return Ok(()) };
        if self.options.ladder {
            eprint!("{}", line.look(|wire| ladder::draw(wire.timeline(), ROWS)));
        }
        if let Some(mut file) = self.file.as_ref() {
            let title = format!("steadfast, faults between C and S, seed {}", self.options.seed);
            let section = line.look(|wire| capture::section(wire.timeline(), &title));
            file.write_all(&section).map_err(|e| self.options.cannot_write(e))?;
        }
        let bit = line.look(|wire| wire.hits().any(|(_, hits)| hits > 0));
        if self.options.must_bite && !bit {
            return Err(Failure::System(format!(
                "--must-bite: no fault has hit a packet: {}",
                self.hits().join(", ")
            )));
        }
        Ok(())
    }
}

/// The faults that an argument means.
fn faults(text: &str) -> Result<Vec<Fault>, String> {
    if let Some(line) = preset(text) {
        return line.split(';').map(|fault| one(fault.trim())).collect();
    }
    if !text.contains(' ') {
        // The catalogue is part of the program, and tested.
        let scenarios = catalogue().map_err(|e| e.to_string())?;
        if let Some(scenario) = scenarios.iter().find(|s| s.id.eq_ignore_ascii_case(text) || s.name == text) {
            return faults_of(scenario);
        }
        let presets: Vec<&str> = presets().map(|(name, _)| name).collect();
        return Err(format!(
            "`{text}`: expected a fault as `lose C>S [S] 1`, a scenario as H3b, or a preset: {}",
            presets.join(", ")
        ));
    }
    one(text).map(|fault| vec![fault])
}

fn one(text: &str) -> Result<Fault, String> {
    text.parse::<Fault>().map_err(|error| format!("`{text}`: {}", error.message))
}

fn presets() -> impl Iterator<Item = (&'static str, &'static str)> {
    PRESETS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "))
}

fn preset(name: &str) -> Option<&'static str> {
    presets().find(|(known, _)| *known == name).map(|(_, faults)| faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_can_act_on_a_wire() {
        assert!(presets().count() >= 6);
        for (name, _) in presets() {
            let options = WireOptions::new(["10.0.2.15".parse().unwrap()]);
            Wire::new(faults(name).unwrap(), options).map(drop).unwrap();
        }
    }

    #[test]
    fn a_fault_is_a_line_a_scenario_or_a_preset() {
        let texts = |text| faults(text).unwrap().iter().map(Fault::to_string).collect::<Vec<_>>();
        assert_eq!(texts("lose C>S [S] 1"), ["lose C>S [S] 1"]);
        assert_eq!(texts("H1"), texts("syn-lost-first"));
        assert_eq!(texts("unplugged"), ["partition C|S"]);
    }

    #[test]
    fn a_bad_fault_says_what_was_expected() {
        for (text, expected) in [
            ("lose C>S [S] twice", "`lose C>S [S] twice`: expected the end of the line, found `twice`"),
            (
                "4g",
                "`4g`: expected a fault as `lose C>S [S] 1`, a scenario as H3b, or a preset: 3g, satellite",
            ),
            ("N1", "scenario N1: expected one with faults, and it has none"),
        ] {
            let error = faults(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
