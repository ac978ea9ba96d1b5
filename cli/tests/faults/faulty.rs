//! A device that applies the lab's faults to packets between the kernel, `K`, and our stack, `S`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::stack::trace::State;
use steadfast::stack::wire::icmp::{self, ErrorKind, Message};
use steadfast::stack::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, ipv4, ipv6, tcp};
use steadfast_lab::fault::{Count, Effect, Fault, FaultKind, Observed, Pattern, When};
use steadfast_timeline::{Segment, pcapng};
use tokio::time::{Instant, Sleep};

/// Limit of queued packets per direction. At the limit, the stack waits.
const WAITING: usize = 4000;

/// The copies of a packet, each with its delay.
type Copies = Vec<(Duration, Vec<u8>)>;

/// A device with faults. Faults apply to packets as on a wire, so the device must have no offloads.
pub(crate) struct Faulty<D> {
    device: D,
    faults: Faults,
    rng: fastrand::Rng,
    started: Instant,
    /// Queues to the stack and to the kernel, ordered by due time and arrival.
    incoming: BTreeMap<(Instant, u64), Vec<u8>>,
    outgoing: BTreeMap<(Instant, u64), Vec<u8>>,
    count: u64,
    alarm: Pin<Box<Sleep>>,
    tape: Option<Tape>,
}

/// The active faults, which can change while packets pass.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<Vec<(Fault, u64)>>>);

impl Faults {
    /// Replaces the faults, and resets their counts.
    pub(crate) fn set(&self, faults: &[&str]) {
        let faults = faults.iter().map(|text| (text.parse().unwrap(), 0));
        *self.0.lock().unwrap() = faults.collect();
    }
}

impl<D: Device> Faulty<D> {
    pub(crate) fn new(device: D, faults: Faults, seed: u64, tape: Option<Tape>) -> Faulty<D> {
        let Capabilities { segmentation_offload, checksum_offload, .. } = device.capabilities();
        assert!(!segmentation_offload && !checksum_offload, "a device without offload");
        let started = Instant::now();
        Faulty {
            device,
            faults,
            rng: fastrand::Rng::with_seed(seed),
            started,
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            count: 0,
            alarm: Box::pin(tokio::time::sleep_until(started)),
            tape,
        }
    }

    /// Applies the faults to a packet. Returns its copies, and the ICMP error of a router, if any.
    fn suffer(&mut self, packet: &[u8], from: &str, to: &str) -> (Copies, Option<Vec<u8>>) {
        let at = steadfast::stack::Instant::from_nanos(self.started.elapsed().as_nanos() as u64);
        let (tcp, size) = (tcp_of(packet), packet.len());
        let seen = Observed { at, from: Some(from), to: Some(to), tcp, udp: None, icmp: false, size };
        let (mut flying, mut error) = (vec![(Duration::ZERO, packet.to_vec())], None);
        for (fault, met) in self.faults.0.lock().unwrap().iter_mut() {
            match &fault.kind {
                FaultKind::Packets { pattern, effect } => {
                    if pattern.fits(&seen) && counts(pattern, met, &mut self.rng) {
                        strike(effect, &mut flying, &mut self.rng);
                    }
                }
                FaultKind::Mtu { direction, mtu, icmp, .. } => {
                    if direction.fits(seen.from, seen.to) && size > *mtu {
                        flying.clear();
                        error = icmp.then(|| too_big(packet, *mtu));
                    }
                }
                _ => panic!("`{fault}` cannot be had here"),
            }
        }
        (flying, error)
    }

    /// Puts a packet into the queue of its direction.
    fn fly(&mut self, packet: &[u8], from: &str, to: &str) {
        record(&mut self.tape, packet);
        let (flying, error) = self.suffer(packet, from, to);
        for (after, packet) in flying {
            self.enqueue(to, after, packet);
        }
        if let Some(error) = error {
            record(&mut self.tape, &error);
            self.enqueue(from, Duration::ZERO, error);
        }
    }

    fn enqueue(&mut self, to: &str, after: Duration, packet: Vec<u8>) {
        let queue = if to == "S" { &mut self.incoming } else { &mut self.outgoing };
        self.count += 1;
        queue.insert((Instant::now() + after, self.count), packet);
    }

    /// Writes due packets to the kernel.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Some(first) = self.outgoing.first_entry().filter(|first| first.key().0 <= Instant::now()) {
            match self.device.poll_send(cx, Frame::new(first.get())) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => break,
            }
            first.remove();
        }
        Ok(())
    }

    /// Wakes the task when the next packet is due. Returns true if it is due already.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let next = [&self.incoming, &self.outgoing].into_iter().filter_map(|queue| queue.first_key_value());
        let Some(((at, _), _)) = next.min_by_key(|(key, _)| *key) else { return false };
        if self.alarm.deadline() != *at {
            self.alarm.as_mut().reset(*at);
        }
        self.alarm.as_mut().poll(cx).is_ready()
    }
}

impl<D: Device> Device for Faulty<D> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        loop {
            self.flush(cx)?;
            if let Some(first) = self.incoming.first_entry().filter(|first| first.key().0 <= Instant::now()) {
                let packet = first.remove();
                buffer[..packet.len()].copy_from_slice(&packet);
                return Poll::Ready(Ok(Received::new(packet.len())));
            }
            match self.device.poll_recv(cx, buffer) {
                Poll::Ready(received) => {
                    let packet = buffer[..received?.len].to_vec();
                    self.fly(&packet, "K", "S");
                }
                Poll::Pending if self.arm(cx) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        self.flush(cx)?;
        if self.outgoing.len() >= WAITING {
            self.arm(cx);
            return Poll::Pending;
        }
        self.fly(frame.bytes, "S", "K");
        self.flush(cx)?;
        self.arm(cx);
        Poll::Ready(Ok(()))
    }
}

/// Counts a packet that matches the pattern, and returns whether its [`Count`] selects it.
fn counts(pattern: &Pattern, met: &mut u64, rng: &mut fastrand::Rng) -> bool {
    *met += 1;
    match pattern.count {
        Count::Every => true,
        Count::Nth(from, to) => (from..=to).contains(met),
        Count::Chance(chance) => rng.u32(..1_000_000) < chance,
    }
}

fn strike(effect: &Effect, flying: &mut Copies, rng: &mut fastrand::Rng) {
    match effect {
        Effect::Lose => flying.clear(),
        Effect::Duplicate { when: When::After(after), times } => {
            let copies = flying.first().map(|(delay, packet)| (*delay + *after, packet.clone()));
            flying.extend(copies.into_iter().flat_map(|copy| vec![copy; *times as usize]));
        }
        Effect::Delay { low, high } => {
            let extra = rng.u64(low.as_nanos() as u64..=high.as_nanos() as u64);
            flying.iter_mut().for_each(|(delay, _)| *delay += Duration::from_nanos(extra));
        }
        Effect::Corrupt(_) => flying.iter_mut().for_each(|(_, packet)| {
            let bit = rng.usize(..packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }),
        other => panic!("{other:?} cannot be had here"),
    }
}

/// The ICMP error of a router whose next link has a smaller MTU.
fn too_big(packet: &[u8], mtu: usize) -> Vec<u8> {
    let error = |quoted| Message::Error { kind: ErrorKind::PacketTooBig { mtu: mtu as u32 }, quoted };
    let mut body = vec![0; 1280];
    let mut out;
    if let Ok((header, _)) = ipv4::parse(packet) {
        let len = icmp::emit_v4(&error(&packet[..548]), &mut body).unwrap();
        body.truncate(len);
        let (source, destination) = (header.destination, header.source);
        out = vec![0; ipv4::HEADER_LEN];
        ipv4::Header { source, destination, protocol: PROTOCOL_ICMP, ..header }.emit(body.len(), &mut out);
    } else {
        let (header, _) = ipv6::parse(packet).unwrap();
        let (source, destination) = (header.destination, header.source);
        let len = icmp::emit_v6(source, destination, &error(&packet[..1232]), &mut body).unwrap();
        body.truncate(len);
        out = vec![0; ipv6::HEADER_LEN];
        ipv6::Header { source, destination, protocol: PROTOCOL_ICMPV6, ..header }.emit(body.len(), &mut out);
    }
    out.extend(body);
    out
}

/// The TCP part of a packet. The device tracks no connections, so numbers are absolute.
fn tcp_of(packet: &[u8]) -> Option<Segment> {
    let (protocol, segment) = match packet.first()? >> 4 {
        4 => ipv4::parse(packet).ok().map(|(header, payload)| (header.protocol, payload))?,
        _ => ipv6::parse(packet).ok().map(|(header, payload)| (header.protocol, payload))?,
    };
    let (header, payload) = tcp::Header::parse(segment).ok().filter(|_| protocol == PROTOCOL_TCP)?;
    Some(Segment::new(&header, payload.len(), State::Established))
}

/// A capture: the packets of each end, before any fault.
pub(crate) struct Tape(BufWriter<File>);

impl Tape {
    pub(crate) fn new(path: &Path) -> io::Result<Tape> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&pcapng::section("before any fault"))?;
        file.write_all(&pcapng::interface("wire"))?;
        Ok(Tape(file))
    }
}

fn record(tape: &mut Option<Tape>, bytes: &[u8]) {
    let Some(Tape(file)) = tape else { return };
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let packet =
        pcapng::Packet { nanos, interface: 0, outbound: true, bytes, len: bytes.len() as u32, comments: &[] };
    file.write_all(&pcapng::packet(&packet)).unwrap();
}
