//! Shared parts of both fuzz targets: the input, packets, and the checks of a stack's invariants.
//!
//! The core's tests run the same functions on a fixed set of inputs (`core/tests/fuzz_smoke.rs`).

#![allow(dead_code, unreachable_pub, reason = "each target uses a part of it")]

pub mod calls;
pub mod receive;
pub mod watch;

use steadfast_core::config::PortRange;
use steadfast_core::config::{EcnMode, FastOpenMode, MtuProbing, SynCookies, TwReuse};
use steadfast_core::{Config, Duration, Profile};
use steadfast_testkit::packets;

/// Bytes that decide what happens. Beyond the end they are zeros, which select the ordinary case.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.u8()) % from.len()]
    }

    /// Returns a span of time, mostly a short one.
    pub fn span(&mut self) -> Duration {
        let (kind, n) = (self.u8(), u64::from(self.u8()));
        match kind % 6 {
            0 => Duration::from_millis(n),
            1 => Duration::from_micros(n * 7),
            2 => Duration::from_millis(n * 40),
            3 => Duration::from_secs(n),
            4 => Duration::from_secs(n * 60),
            _ => Duration::from_nanos(n),
        }
    }
}

/// Returns the byte of a stream at `position`. Neighbours differ, and so do bytes that are 256 or 64 Ki apart.
pub fn pattern(position: u32) -> u8 {
    if position.is_multiple_of(2) {
        (position >> 1) as u8
    } else {
        (position >> 9) as u8 ^ (position >> 17) as u8
    }
}

/// Returns a configuration with limits so small that inputs reach them.
pub fn config(input: &mut Input<'_>, secret: u8) -> Config {
    let mut config = Config::profile(input.pick(&Profile::ALL));
    let (a, b, c, d) = (input.u8(), input.u8(), input.u8(), input.u8());
    let bit = |byte: u8, n: u8| byte >> n & 1 == 1;
    if config.tcp_fin_timeout.is_zero() {
        // Zero means no limit: such a record would never end.
        config.tcp_fin_timeout = Duration::from_secs(60);
    }
    config.tcp_window_scaling ^= bit(a, 0);
    config.tcp_timestamps ^= bit(a, 1);
    config.tcp_sack ^= bit(a, 2);
    config.tcp_abort_on_overflow = bit(a, 3);
    config.synack_timeout_rst = bit(a, 4);
    config.tcp_rfc1337 ^= bit(a, 5);
    config.tcp_tw_recycle = bit(a, 6) && bit(a, 7);
    config.tcp_tolerate_missing_ts = bit(a, 7);
    config.tcp_syncookies = SynCookies::ALL[usize::from(b % 3)];
    config.tcp_fastopen = FastOpenMode::new(bit(b, 2), bit(b, 3));
    config.tcp_ecn = EcnMode::ALL[usize::from(b >> 4 & 3).min(2)];
    config.tcp_mtu_probing = MtuProbing::ALL[usize::from(b >> 6 & 3).min(2)];
    config.tcp_rcvbuf = [1 << 16, 1024, 3000, 1 << 18, 1 << 20, 20_000, 70_000, 4096][usize::from(c & 7)];
    config.tcp_sndbuf = [1 << 15, 1024, 5000, 1 << 17][usize::from(c >> 3 & 3)];
    config.tcp_mem = [1 << 17, 1 << 16, 8000, 1 << 21][usize::from(c >> 5 & 3)];
    config.tcp_tw_reuse = if bit(c, 7) { TwReuse::Always } else { TwReuse::Never };
    config.tcp_max_syn_backlog = 1 + u32::from(d & 3);
    config.tcp_max_half_open = 2 + u32::from(d >> 2 & 3);
    config.somaxconn = 1 + u32::from(d >> 4 & 3);
    config.tcp_max_orphans = u32::from(d >> 6);
    config.tcp_max_connections = 6;
    config.tcp_max_tw_buckets = 3;
    config.tcp_max_sack_ranges = 4;
    config.reply_queue = 6;
    config.forward_max_pending = 3;
    config.forward_max_pending_per_destination = 2;
    config.tcp_fastopen_pending = 1;
    config.tcp_fastopen_cache = 1;
    config.tcp_tw_recycle_peers = 1;
    config.pmtu_cache = 1;
    config.ipfrag_high_thresh = 6000;
    config.ipfrag_max_datagrams = 2;
    config.ipfrag_max_fragments = 4;
    config.ip_local_port_range = PortRange::new(40_000, 40_004).expect("ports in order");
    config.secret = [secret; 32];
    config
}
