//! Two stacks, their applications and a wire that misbehaves.
#![no_main]

#[path = "../harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::calls::run(data));
