//! Round trips, the RTO, and how long it is until R1 and R2 (RFC 6298, RFC 9293 §3.8.3).
use crate::config::Config;
use crate::time::Duration;

/// The time that `retries` backed-off timeouts and one more take, starting at the smallest RTO: what Linux
/// calls the hypothetical timeout. With its defaults 15 retries are 924.6 s.
pub(crate) fn model_timeout(config: &Config, retries: u8) -> Duration {
    let (mut total, mut rto) = (Duration::ZERO, config.tcp_rto_min);
    for _ in 0..=retries {
        total += rto;
        rto = (rto * 2).min(config.tcp_rto_max);
    }
    total
}
