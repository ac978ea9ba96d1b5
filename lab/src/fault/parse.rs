//! The parser of faults.

use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::wire::tcp::{Flags, Timestamps};
use steadfast_core::{Duration, Instant};

use super::pattern::is_name;
use super::{
    Direction, Effect, FaultKind, Flood, IcmpInjection, Injection, OptionName, Part, PathChange, Pattern,
    Rejection, Rewrite, SeqSpec, TimestampSpec, When, Window,
};
use crate::path::change::FAULTS;
use crate::text::{Understood, Words, duration, instant, prefix};

const VERBS: &str = "a fault: lose, duplicate, delay, hold, reorder, corrupt, truncate, rewrite, strip, split, fragment, \
                     reject, partition, mtu, rate, latency, burst-loss, jitter, police, aqm, aggregate, thin, gro, handover, \
                     crash, reboot, stall, lose-address, clock, inject, icmp or \
                     flood";

pub(super) fn fault(words: &mut Words<'_>) -> Understood<FaultKind> {
    let verb = words.word(VERBS)?;
    Ok(match verb {
        "partition" => {
            let direction = direction(words)?;
            FaultKind::Partition { direction, window: window(words)? }
        }
        "mtu" => mtu(words)?,
        "latency" => path(verb, words)?,
        verb if FAULTS.contains(&verb) => path(verb, words)?,
        "crash" => FaultKind::Crash { host: host(words)?, at: at(words)? },
        "reboot" => {
            let (host, at) = (host(words)?, at(words)?);
            let same_secret = words.take("same-secret");
            FaultKind::Reboot { host, at, same_secret, same_clock: words.take("same-clock") }
        }
        "stall" | "lose-address" => {
            let host = host(words)?;
            keyword(words, "from")?;
            let from = words.time("a time after `from`")?;
            keyword(words, "until")?;
            let later = |time: &str| instant(time).filter(|until| *until > from);
            let until = words.parse("a later time after `until`", later)?;
            if verb == "stall" {
                FaultKind::Stall { host, from, until }
            } else {
                FaultKind::LoseAddress { host, from, until }
            }
        }
        "clock" => {
            let host = host(words)?;
            let nanos = words.parse("a jump such as `+1h` or `-5s`", jump)?;
            FaultKind::Clock { host, nanos, at: at(words)? }
        }
        "inject" => FaultKind::Inject(injection(words)?),
        "icmp" => FaultKind::InjectIcmp(icmp_injection(words)?),
        "flood" => FaultKind::Flood(flood(words)?),
        verb => {
            if !EFFECTS.contains(&verb) {
                return Err(format!("expected {VERBS}, found `{verb}`"));
            }
            let pattern = Pattern::parse(words)?;
            FaultKind::Packets { pattern, effect: effect(verb, words)? }
        }
    })
}

const EFFECTS: [&str; 12] = [
    "lose",
    "duplicate",
    "delay",
    "hold",
    "reorder",
    "corrupt",
    "truncate",
    "rewrite",
    "strip",
    "split",
    "fragment",
    "reject",
];

fn effect(verb: &str, words: &mut Words<'_>) -> Understood<Effect> {
    Ok(match verb {
        "duplicate" => duplicate(words)?,
        "delay" => {
            keyword(words, "by")?;
            let (low, high) =
                words.parse("a duration such as `30ms` or `10ms..50ms`", |w| match w.split_once("..") {
                    Some((low, high)) => {
                        Some((duration(low)?, duration(high)?)).filter(|(low, high)| low <= high)
                    }
                    None => duration(w).map(|d| (d, d)),
                })?;
            Effect::Delay { low, high }
        }
        "hold" => {
            keyword(words, "release")?;
            Effect::Hold { release: words.time("a time after `release`")? }
        }
        "reorder" => {
            let past = if words.take("past") { words.number("how many packets overtake it")? } else { 1 };
            Effect::Reorder { past }
        }
        "corrupt" => Effect::Corrupt(
            words
                .maybe(|w| match w {
                    "ip" => Some(Part::Ip),
                    "tcp" => Some(Part::Header),
                    "payload" => Some(Part::Data),
                    _ => None,
                })
                .unwrap_or(Part::Segment),
        ),
        "truncate" => {
            keyword(words, "to")?;
            Effect::Truncate { len: words.number("bytes that are left")? }
        }
        "rewrite" => Effect::Rewrite(some(words, "a field such as `mss=536` or `win=0`", rewrite)?),
        "strip" => {
            Effect::Strip(some(words, "an option: mss, ws, sack, ts, fastopen or options", option_name)?)
        }
        "split" => {
            keyword(words, "into")?;
            Effect::Split(some(words, "flags such as `[.]`", bracketed_flags)?)
        }
        "fragment" => fragment(words)?,
        "reject" => {
            keyword(words, "with")?;
            Effect::Reject(rejection(words)?)
        }
        _ => Effect::Lose,
    })
}

/// Parses one or more items, up to the end of the line.
fn some<T>(words: &mut Words<'_>, what: &str, read: impl Fn(&str) -> Option<T>) -> Understood<Vec<T>> {
    let mut all = vec![words.parse(what, &read)?];
    while !words.is_empty() {
        all.push(words.parse(what, &read)?);
    }
    Ok(all)
}

fn keyword(words: &mut Words<'_>, keyword: &str) -> Understood<()> {
    words.parse(&format!("`{keyword}`"), |w| (w == keyword).then_some(()))
}

fn direction(words: &mut Words<'_>) -> Understood<Direction> {
    words.parse("a direction such as `C>S` or `C|S`", Direction::parse)
}

fn host(words: &mut Words<'_>) -> Understood<String> {
    words.parse("the name of a host", |w| is_name(w).then(|| w.to_owned()))
}

fn at(words: &mut Words<'_>) -> Understood<Instant> {
    keyword(words, "at")?;
    words.time("a time after `at`")
}

fn window(words: &mut Words<'_>) -> Understood<Window> {
    let mut window = Window::default();
    while window.take(words)? {}
    Ok(window)
}

fn duplicate(words: &mut Words<'_>) -> Understood<Effect> {
    let (mut when, mut times) = (When::After(Duration::ZERO), 1);
    loop {
        if words.take("after") {
            when = When::After(words.duration("a duration after `after`")?);
        } else if words.take("at") {
            when = When::At(words.time("a time after `at`")?);
        } else if words.take("times") {
            times = words.number("how many copies")?;
        } else {
            return Ok(Effect::Duplicate { when, times });
        }
    }
}

fn fragment(words: &mut Words<'_>) -> Understood<Effect> {
    keyword(words, "to")?;
    let size = words.number("bytes of the largest fragment")?;
    let (mut lose, mut overlap) = (None, false);
    loop {
        if words.take("lose") {
            lose = Some(words.number("which fragment is lost, from 1")?);
        } else if words.take("overlap") {
            overlap = true;
        } else {
            return Ok(Effect::Fragment { size, lose, overlap });
        }
    }
}

fn mtu(words: &mut Words<'_>) -> Understood<FaultKind> {
    let direction = direction(words)?;
    let mtu = words.parse("an MTU of 28 bytes or more", |w| w.parse().ok().filter(|mtu| *mtu >= 28))?;
    let icmp = words.parse("`icmp` (the router says so) or `silent`", |w| match w {
        "icmp" => Some(true),
        "silent" => Some(false),
        _ => None,
    })?;
    Ok(FaultKind::Mtu { direction, mtu, icmp, window: window(words)? })
}

fn path(verb: &str, words: &mut Words<'_>) -> Understood<FaultKind> {
    let direction = direction(words)?;
    let change = PathChange::parse(if verb == "latency" { "delay" } else { verb }, words)?;
    Ok(FaultKind::Path { direction, change, window: window(words)? })
}

fn jump(text: &str) -> Option<i64> {
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).ok();
    match text.strip_prefix('-') {
        Some(back) => duration(back).and_then(nanos).map(|n| -n),
        None => duration(text.strip_prefix('+')?).and_then(nanos),
    }
}

fn bracketed_flags(text: &str) -> Option<Flags> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn rewrite(text: &str) -> Option<Rewrite> {
    for (name, make) in [("seq", Rewrite::SeqAdd as fn(u32) -> Rewrite), ("ack", Rewrite::AckAdd)] {
        if let Some(offset) = text.strip_prefix(name).and_then(|rest| rest.parse::<i64>().ok()) {
            return Some(make(offset as u32));
        }
    }
    let (field, value) = text.split_once('=')?;
    Some(match field {
        "mss" => Rewrite::Mss(value.parse().ok()?),
        "ws" => Rewrite::WindowScale(value.parse().ok()?),
        "win" => Rewrite::Window(value.parse().ok()?),
        "flags" => Rewrite::Flags(bracketed_flags(value)?),
        "ttl" => Rewrite::Ttl(value.parse().ok()?),
        "ecn" => Rewrite::Ecn(value.parse().ok().filter(|ecn| *ecn < 4)?),
        "cookie" => Rewrite::Cookie(hex(value)?),
        "ts" => Rewrite::TsVal(value.parse().ok()?),
        "ecr" => Rewrite::TsEcr(value.parse().ok()?),
        "urg" => Rewrite::Urgent(value.parse().ok()?),
        "data" => Rewrite::Data(value.parse().ok()?),
        "route" => Rewrite::Route(value.parse().ok()?),
        "source" => Rewrite::Source(value.parse().ok()?),
        "length" => Rewrite::Length(value.parse().ok()?),
        "sum" => Rewrite::Checksum(value.parse().ok()?),
        _ => return None,
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let (pairs, odd) = digits.as_deref()?.as_chunks::<2>();
    odd.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn option_name(text: &str) -> Option<OptionName> {
    Some(match text {
        "mss" => OptionName::Mss,
        "ws" => OptionName::WindowScale,
        "sack" => OptionName::Sack,
        "ts" => OptionName::Timestamps,
        "fastopen" => OptionName::FastOpen,
        "options" => OptionName::All,
        _ => return None,
    })
}

fn rejection(words: &mut Words<'_>) -> Understood<Rejection> {
    if words.take("rst") {
        return Ok(Rejection::Rst);
    }
    icmp_kind(words).map(Rejection::Icmp)
}

fn icmp_kind(words: &mut Words<'_>) -> Understood<ErrorKind> {
    let what = "net-unreachable, host-unreachable, port-unreachable, protocol-unreachable, admin-prohibited, \
                time-exceeded, source-quench or `too-big N`";
    let kind = words.parse(what, |w| {
        Some(match w {
            "net-unreachable" => ErrorKind::NetworkUnreachable,
            "host-unreachable" => ErrorKind::HostUnreachable,
            "port-unreachable" => ErrorKind::PortUnreachable,
            "protocol-unreachable" => ErrorKind::ProtocolUnreachable,
            "admin-prohibited" => ErrorKind::AdminProhibited,
            "time-exceeded" => ErrorKind::TimeExceeded,
            "source-quench" => ErrorKind::SourceQuench,
            "too-big" => ErrorKind::PacketTooBig { mtu: 0 },
            _ => return None,
        })
    })?;
    match kind {
        ErrorKind::PacketTooBig { .. } => {
            Ok(ErrorKind::PacketTooBig { mtu: words.number("the MTU that it names")? })
        }
        kind => Ok(kind),
    }
}

fn one_way(words: &mut Words<'_>) -> Understood<(String, String)> {
    words.parse("from whom to whom, such as `C>S`", |w| {
        let (from, to) = w.split_once('>')?;
        (is_name(from) && is_name(to)).then(|| (from.to_owned(), to.to_owned()))
    })
}

fn injection(words: &mut Words<'_>) -> Understood<Injection> {
    let (from, to) = one_way(words)?;
    let flags = words.parse("flags such as `[R]`", bracketed_flags)?;
    let mut injection = Injection {
        from,
        to,
        at: Instant::ZERO,
        flags,
        seq: SeqSpec::RcvNxt(0),
        ack: SeqSpec::RcvNxt(0),
        window: 65_535,
        len: 0,
        source_port: None,
        destination_port: None,
        mss: None,
        window_scale: None,
        sack: false,
        timestamps: TimestampSpec::Last,
        urgent: 0,
        times: 1,
        every: Duration::ZERO,
    };
    let mut timed = false;
    while let Some(word) = words.next() {
        match word {
            "at" => {
                injection.at = words.time("a time after `at`")?;
                timed = true;
            }
            "seq" => injection.seq = seq_spec(words)?,
            "ack" => injection.ack = seq_spec(words)?,
            "win" => injection.window = words.number("a window field")?,
            "len" => injection.len = words.number("bytes of payload")?,
            "sport" => injection.source_port = Some(words.number("a port")?),
            "dport" => injection.destination_port = Some(words.number("a port")?),
            "mss" => injection.mss = Some(words.number("an MSS")?),
            "ws" => injection.window_scale = Some(words.number("a shift")?),
            "sack" => injection.sack = true,
            "nots" => injection.timestamps = TimestampSpec::Absent,
            "ts" => {
                let val = words.number("a timestamp value")?;
                let ecr = words.number("a timestamp echo")?;
                injection.timestamps = TimestampSpec::Given(Timestamps { val, ecr });
            }
            "urg" => injection.urgent = words.number("an urgent pointer")?,
            "times" => injection.times = words.number("how many")?,
            "every" => injection.every = words.duration("the time between them")?,
            other => {
                return Err(format!(
                    "expected seq, ack, win, len, sport, dport, mss, ws, sack, ts, nots, urg, times, every or at, \
                     found `{other}`"
                ));
            }
        }
    }
    if timed { Ok(injection) } else { Err("expected `at T`, found the end of the line".to_owned()) }
}

fn seq_spec(words: &mut Words<'_>) -> Understood<SeqSpec> {
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i64>().ok() };
    words.parse("a sequence number: `7`, `rcv.nxt+5`, `rcv.end`, `snd.nxt-1` or `=123456`", |w| {
        if let Some(rest) = w.strip_prefix("rcv.nxt") {
            offset(rest).map(SeqSpec::RcvNxt)
        } else if let Some(rest) = w.strip_prefix("rcv.end") {
            offset(rest).map(SeqSpec::RcvEnd)
        } else if let Some(rest) = w.strip_prefix("snd.nxt") {
            offset(rest).map(SeqSpec::SndNxt)
        } else if let Some(number) = w.strip_prefix('=') {
            number.parse().ok().map(SeqSpec::Absolute)
        } else {
            w.parse().ok().map(SeqSpec::Relative)
        }
    })
}

fn icmp_injection(words: &mut Words<'_>) -> Understood<IcmpInjection> {
    let (from, to) = one_way(words)?;
    let kind = icmp_kind(words)?;
    let at = at(words)?;
    let port = |word: &str, words: &mut Words<'_>| {
        if words.take(word) { words.number("a port").map(Some) } else { Ok(None) }
    };
    let seq = if words.take("seq") { Some(seq_spec(words)?) } else { None };
    let ports = (port("sport", words)?, port("dport", words)?);
    Ok(IcmpInjection { from, to, at, kind, seq, ports })
}

fn flood(words: &mut Words<'_>) -> Understood<Flood> {
    let (host, port) = words.parse("a victim such as `S:80`", |w| {
        let (host, port) = w.split_once(':')?;
        is_name(host).then_some(())?;
        Some((host.to_owned(), port.parse().ok()?))
    })?;
    let count = words.number("how many SYNs")?;
    keyword(words, "from")?;
    let prefix = words.parse("a prefix such as `198.18.0.0/15`", prefix)?;
    keyword(words, "over")?;
    let over = words.duration("a duration after `over`")?;
    Ok(Flood { host, port, count, prefix, over, at: at(words)? })
}

#[cfg(test)]
mod tests {
    use crate::Fault;

    #[test]
    fn every_fault_of_the_reference_is_understood_and_written_back() {
        for text in [
            "lose S>C [S.] 1",
            "lose C>S [.] 1",
            "lose C>S data 2..4",
            "lose C>S all from 5s",
            "lose C>S udp sport 5000 len >=100 2",
            "rewrite C>S udp 1 source=224.0.0.1 length=20 sum=0",
            "icmp C>S port-unreachable at 5 sport 5001 dport 53",
            "lose * 10%",
            "duplicate C>S [S] 1 after 30ms",
            "duplicate C>S data seq 1..1000 again at 40 times 3",
            "delay S>C [F.] state LAST-ACK by 10ms..50ms",
            "hold C>S data 1 release 5",
            "reorder C>S data 3 past 2",
            "corrupt C>S [S] 1",
            "corrupt C>S data 1 payload",
            "truncate C>S [S] 1 to 30",
            "rewrite S>C [S.] mss=536 win=0 flags=[SE] seq+5 ack-1 ttl=1 ecn=3 cookie=00ff ts=1 ecr=2 urg=3 data=4",
            "strip C>S [S*] sack ts ws mss fastopen options",
            "split S>C [S.] 1 into [.] [S]",
            "rewrite C>S [S] route=10.0.0.9",
            "fragment C>S data 1 to 300",
            "fragment S>C data 2.. to 600 lose 2 overlap",
            "reject C>S [S] with host-unreachable",
            "reject C>S data 1 with too-big 1200",
            "reject C>S [S] with rst",
            "partition C|S from 5s until 40s",
            "partition C>S",
            "partition C",
            "mtu C>S 1200 icmp",
            "mtu C>S 1200 silent from 1 until 9",
            "rate C>S 1mbit queue 20",
            "rate C>S 20mbit 1s 150mbit 500ms queue 64K bytes from 1 until 9",
            "latency C>S 50ms from 10",
            "burst-loss C>S 0.5% 30% until 10",
            "jitter C|S 1ms..4ms reorder",
            "police C>S 10mbit 32K",
            "aqm S>C codel ecn",
            "aqm S>C pie from 2",
            "aggregate C>S 4ms",
            "thin S>C 8",
            "gro C>S 1ms",
            "handover C|S 15s 80ms..120ms 1%",
            "crash C at 5",
            "reboot C at 6 same-secret same-clock",
            "stall C from 1 until 2",
            "lose-address C from 1 until 2",
            "clock C +1h at 5",
            "clock C -2s at 5",
            "inject C>S [R] seq rcv.nxt+1 at 5",
            "inject C>S [S] seq =1000 sport 4000 dport 80 mss 1460 ws 7 sack ts 1 0 at 0 times 3 every 1ms",
            "inject C>S [P.] seq snd.nxt-1 ack 5 win 0 len 10 nots urg 3 at 1",
            "icmp C>S too-big 1200 at 5 seq rcv.nxt",
            "icmp C>S host-unreachable at 5",
            "flood S:80 20000 from 198.18.0.0/15 over 10s at 1",
        ] {
            let fault: Fault = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(fault.to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (text, message) in [
            ("", "expected a fault: lose"),
            ("loose C>S", "found `loose`"),
            ("lose", "expected a direction such as `C>S`, `C|S`, `C>*` or `*`, found the end of the line"),
            ("lose C>S [X]", "expected flags as tcpdump writes them, such as `[S.]` or `[F*]`, found `[X]`"),
            ("lose C>S [S] 0", "expected the end of the line, found `0`"),
            ("lose C>S state OPEN", "expected a state such as `ESTABLISHED`, found `OPEN`"),
            ("delay C>S [S] 30ms", "expected `by`, found `30ms`"),
            ("delay C>S by 3..2", "expected a duration such as"),
            ("mtu C>S 1200", "expected `icmp` (the router says so) or `silent`, found the end of the line"),
            ("mtu C>S 20 icmp", "expected an MTU of 28 bytes or more, found `20`"),
            ("jitter C>S", "expected a duration such as `8ms`, or `0ms..15ms`, found the end of the line"),
            ("aqm C>S red", "expected `codel` or `pie`, found `red`"),
            ("loss C>S 1%", "found `loss`"),
            ("crash C 5", "expected `at`, found `5`"),
            ("inject C>S [R] seq 5", "expected `at T`, found the end of the line"),
            ("inject C>S [R] at 5 foo", "found `foo`"),
            ("rewrite C>S mss", "expected a field such as `mss=536` or `win=0`, found `mss`"),
            ("flood S 5", "expected a victim such as `S:80`, found `S`"),
            ("partition C>S from", "expected a time after `from`, found the end of the line"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.starts_with("--fault:1: ") && error.contains(message), "{text}: {error}");
        }
    }
}
