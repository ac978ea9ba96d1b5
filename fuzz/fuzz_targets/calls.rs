//! Two stacks, their applications and an unreliable wire.
#![no_main]

#[path = "../harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::calls::run(data));
