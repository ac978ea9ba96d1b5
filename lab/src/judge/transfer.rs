//! Judges how fast and how fairly data arrives, and the queues before it.

use steadfast_core::{Duration, Instant};

use crate::fault::{Direction, Window};
use crate::network::Network;
use crate::path::Sample;
use crate::scenario::expect::{Part, QueueUnit};
use crate::stream::Stream;
use crate::text::Quantity;

/// The streams of a direction that carry data.
fn streams<'a>(network: &'a Network, direction: &Direction) -> Result<Vec<&'a Stream>, String> {
    let fits = |stream: &&Stream| {
        let name = |host: usize| network.names[host].as_str();
        stream.began.is_some()
            && direction.fits(Some(name(stream.host)), network.host_at(stream.to).map(name))
    };
    let found: Vec<_> = network.streams.all().iter().filter(fits).collect();
    if found.is_empty() { Err("nothing was sent".to_owned()) } else { Ok(found) }
}

/// Fails unless `value`, which `text` shows, is what is wanted.
fn compare(value: u64, text: impl FnOnce() -> String, wanted: &Quantity) -> Result<(), String> {
    if wanted.contains(value) { Ok(()) } else { Err(format!("{}, expected {wanted}", text())) }
}

pub(super) fn goodput(
    network: &Network,
    direction: &Direction,
    wanted: &Quantity,
    window: Window,
) -> Result<(), String> {
    let streams = streams(network, direction)?;
    let began = streams.iter().filter_map(|stream| stream.began).min();
    let ended = streams.iter().filter_map(|stream| stream.last_read()).max();
    let from = window.from.or(began).unwrap_or(Instant::ZERO);
    let until = window.until.or(ended).unwrap_or(network.now);
    let took = until.saturating_since(from);
    if took.is_zero() {
        return Err(format!("there is no time from {from} until {until}"));
    }
    let read = |stream: &&Stream| in_window(stream, window);
    let bytes: u64 = streams.iter().map(read).sum();
    let rate = (u128::from(bytes) * 8_000_000_000 / took.as_nanos()) as u64;
    compare(rate, || format!("{:.3} Mbit/s from {from} until {until}", rate as f64 / 1e6), wanted)
}

/// The bytes that were read in a window.
fn in_window(stream: &Stream, window: Window) -> u64 {
    stream.read_before(window.until) - window.from.map_or(0, |from| stream.read_before(Some(from)))
}

pub(super) fn completion(
    network: &Network,
    direction: &Direction,
    part: Part,
    wanted: &Quantity,
) -> Result<(), String> {
    let streams = streams(network, direction)?;
    let open = streams.iter().filter(|stream| stream.read < stream.written).count();
    if open > 0 {
        return Err(format!("{open} of {} did not arrive completely", streams.len()));
    }
    let took = |stream: &&Stream| Some(stream.last_read()?.saturating_since(stream.began?));
    let mut all: Vec<Duration> = streams.iter().filter_map(took).collect();
    all.sort_unstable();
    let rank = (all.len() * part.0).div_ceil(1000).max(1) - 1;
    let value = all.get(rank).ok_or("nothing was read")?;
    compare(value.as_nanos() as u64, || format!("{value:?} of {} transfers", all.len()), wanted)
}

pub(super) fn share(
    network: &Network,
    direction: &Direction,
    wanted: &Quantity,
    window: Window,
) -> Result<(), String> {
    let streams = streams(network, direction)?;
    if streams.len() < 2 {
        return Err("one stream shares with nobody".to_owned());
    }
    let bytes: Vec<u64> = streams.iter().map(|stream| in_window(stream, window)).collect();
    let index = jain(&bytes);
    compare((index * 1e6).round() as u64, || format!("{index:.3} of {bytes:?} bytes"), wanted)
}

/// Jain's index: 1 if all have the same, 1/n if one has everything.
fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| *share as f64 * *share as f64).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

pub(super) fn path_queue(
    network: &Network,
    direction: &Direction,
    part: Part,
    unit: QueueUnit,
    wanted: &Quantity,
) -> Result<(), String> {
    let value = |sample: &Sample| match unit {
        QueueUnit::Time => sample.wait.as_nanos() as u64,
        QueueUnit::Packets => sample.packets as u64,
        QueueUnit::Bytes => sample.bytes as u64,
    };
    let hosts = 0..network.names.len();
    let pairs = hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to)));
    let fitting = pairs.filter(|(from, to)| {
        let name = |host: usize| Some(network.names[host].as_str());
        direction.fits(name(*from), name(*to))
    });
    let found = fitting.filter_map(|(from, to)| network.paths.stats(from, to).quantile(part.0, value)).max();
    let found = found.ok_or("no packet was queued")?;
    let text = || match unit {
        QueueUnit::Time => format!("{:?}", Duration::from_nanos(found)),
        QueueUnit::Packets => format!("{found} packets"),
        QueueUnit::Bytes => format!("{found} bytes"),
    };
    compare(found, text, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_one_for_equals_and_falls_to_the_share_of_one() {
        assert_eq!(jain(&[5, 5, 5, 5]), 1.0);
        assert_eq!(jain(&[8, 0, 0, 0]), 0.25);
        assert_eq!(jain(&[0, 0]), 1.0);
        assert!((jain(&[3, 1]) - 0.8).abs() < 1e-9);
    }
}
