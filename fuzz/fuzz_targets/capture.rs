//! The reader of captures, the link layers and the rules against arbitrary files.
#![no_main]

use steadfast_capture::Reader;
use steadfast_diagnose::{Check, Options, json};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(mut reader) = Reader::new(data) else { return };
    let mut check = Check::new(Options { connections: 64, all: true, ..Options::default() });
    while let Ok(Some(record)) = reader.next() {
        check.record(&record);
        let _ = record.comments().count();
    }
    let report = check.finish(reader.format(), reader.position(), reader.interfaces(), reader.damage());
    let _ = json("fuzz", &report).to_string();
});
