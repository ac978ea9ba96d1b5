//! Runs the fuzz targets on a fixed set of inputs, so that the ordinary tests exercise them. `cargo fuzz` looks for new
//! defects.

#[path = "../../fuzz/harness/mod.rs"]
mod harness;

/// Runs a target on `count` pseudo-random inputs, the same every time.
fn inputs(seed: u64, count: usize, target: fn(&[u8])) {
    let mut state = seed;
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    for n in 0..count {
        let len = 50 + next() as usize % 1500;
        let data: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        if std::panic::catch_unwind(|| target(&data)).is_err() {
            if let Some(path) = std::env::var_os("FUZZ_KEEP") {
                std::fs::write(path, &data).unwrap();
            }
            panic!("input {n} of seed {seed}; FUZZ_KEEP=FILE keeps it for `cargo fuzz run`");
        }
    }
}

#[test]
fn any_packet_leaves_every_invariant_in_place() {
    inputs(1, 1000, harness::receive::run);
}

#[test]
fn any_order_of_calls_and_faults_leaves_every_invariant_in_place() {
    inputs(2, 300, harness::calls::run);
}

/// A connection with a receive buffer of one byte drains, though slowly.
#[test]
fn a_receive_buffer_of_one_byte_drains() {
    harness::calls::run(&[
        0x0e, 0x36, 0x00, 0x00, 0xff, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0x80, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0x0e,
        0x36, 0x00, 0x00, 0xff, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xff, 0xc0,
        0xc0, 0xc0, 0x43, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    ]);
}
