//! No configuration makes a stack panic or hang later: unusable ones are refused at construction.

mod common;

use common::{Pair, SERVER, Side};
use proptest::collection::vec;
use proptest::prelude::*;
use steadfast_core::config::{PortRange, Profile};
use steadfast_core::{
    Config, ConnectOptions, Duration, Error, Interface, ListenOptions, SocketId, SocketOptions, Stack,
};

/// Returns the smallest and the largest value of a numeric setting, as its error message names them.
fn bounds(name: &str) -> Option<(u64, u64)> {
    let error = Config::default().apply(&format!("{name} = @")).unwrap_err().to_string();
    let (_, range) = error.split_once("a number from ")?;
    let mut words = range.split_whitespace();
    let low = words.next()?.parse().ok()?;
    let high = words.nth(1)?.trim_end_matches(':').parse().ok()?;
    Some((low, high))
}

#[test]
fn each_number_is_refused_one_below_and_one_above_its_bounds() {
    let mut numbers = 0;
    for setting in Config::settings() {
        let Some((low, high)) = bounds(setting.name) else { continue };
        numbers += 1;
        for (value, ok) in
            [(Some(low), true), (Some(high), true), (low.checked_sub(1), false), (Some(high + 1), false)]
        {
            let Some(value) = value else { continue };
            let mut config = Config::default();
            assert_eq!(
                config.apply(&format!("{} = {value}", setting.name)).is_ok(),
                ok,
                "{} {value}",
                setting.name
            );
            assert_eq!(config.validate(), Ok(()));
        }
    }
    assert!(numbers > 50, "{numbers}");
}

#[test]
fn a_field_out_of_its_bounds_is_refused_by_name_when_a_stack_is_made() {
    /// The name of a setting, and a change that puts it out of its bounds.
    type Broken = (&'static str, fn(&mut Config));
    let broken: [Broken; 9] = [
        ("tcp_reordering", |c| c.tcp_reordering = 0),
        ("tcp_init_cwnd", |c| c.tcp_init_cwnd = 0),
        ("somaxconn", |c| c.somaxconn = 0),
        ("tcp_base_mss", |c| c.tcp_base_mss = u16::MAX),
        ("tcp_rto_min_us", |c| c.tcp_rto_min = Duration::MAX),
        ("tcp_rto_max_ms", |c| c.tcp_rto_max = Duration::ZERO),
        ("tcp_keepalive_intvl", |c| c.tcp_keepalive_intvl = Duration::ZERO),
        ("tcp_syn_intervals", |c| c.tcp_syn_intervals = vec![Duration::ZERO]),
        ("tcp_min_snd_mss", |c| c.tcp_min_snd_mss = 0),
    ];
    let interface = Interface::new(1500, [("10.0.0.1".parse().unwrap(), 24)]);
    for (name, spoil) in broken {
        let mut config = Config::default();
        spoil(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
        let made = std::panic::catch_unwind(|| Stack::new(config.clone(), interface.clone()));
        assert!(made.is_err(), "{name}");
        let mut stack = Stack::new(Config::default(), interface.clone());
        let set = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stack.set_config(config)));
        assert!(set.is_err(), "{name}");
        assert_eq!(stack.config().validate(), Ok(()), "{name}");
    }
    for profile in Profile::ALL {
        assert_eq!(Config::profile(profile).validate(), Ok(()), "{profile}");
    }
}

/// 68 bytes by RFC 791, 1280 by RFC 8200 §5.
#[test]
fn an_interface_has_the_least_mtu_of_its_families() {
    for (address, least) in [("10.0.0.1", 68), ("fd00::1", 1280)] {
        for (mtu, ok) in [(0, false), (least - 1, false), (least, true), (u16::MAX, true)] {
            let interface = Interface::new(mtu, [(address.parse().unwrap(), 8)]);
            assert_eq!(interface.validate().is_ok(), ok, "{address} {mtu}");
            let made = std::panic::catch_unwind(|| Stack::new(Config::default(), interface));
            assert_eq!(made.is_ok(), ok, "{address} {mtu}");
        }
    }
    for (mtu, count) in [(1279, 1), (1280, 2)] {
        let interface = Interface::new(mtu, [("10.0.0.1".parse().unwrap(), 24)]);
        let mut stack = Stack::new(Config::default(), interface);
        stack.add_address("fd00::1".parse().unwrap(), 64);
        assert_eq!(stack.interface().addresses.len(), count, "MTU {mtu}");
    }
}

#[test]
fn a_range_of_ports_has_one_at_least() {
    for (first, last, ok) in
        [(1, 1, true), (1, u16::MAX, true), (0, 80, false), (2, 1, false), (80, 80, true)]
    {
        assert_eq!(PortRange::new(first, last).is_some(), ok, "{first} {last}");
    }
    let range = PortRange::new(80, 81).unwrap();
    assert_eq!([79, 80, 81, 82].map(|port| range.contains(port)), [false, true, true, false]);
}

/// A configuration in which each number is at one of its bounds or has its usual value.
fn any_config() -> impl Strategy<Value = Config> {
    let count = Config::settings().len();
    (0..Profile::ALL.len(), vec(0u8..6, count)).prop_map(|(profile, choices)| {
        let mut config = Config::profile(Profile::ALL[profile]);
        for (setting, choice) in Config::settings().iter().zip(choices) {
            let value = match (bounds(setting.name), choice) {
                (Some((low, _)), 0) => low,
                (Some((_, high)), 1) => high,
                _ => continue,
            };
            config.apply(&format!("{} = {value}", setting.name)).unwrap();
        }
        config
    })
}

/// Options are not refused: whatever they are, the connection ends.
fn any_options() -> impl Strategy<Value = SocketOptions> {
    let span = || {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::from_nanos(1)),
            Just(Duration::from_secs(3)),
            Just(Duration::MAX)
        ]
    };
    let size = || prop_oneof![0u32..3, Just(70_000), Just(u32::MAX)];
    let byte = || prop_oneof![0u8..3, Just(u8::MAX)];
    let segment = proptest::option::of(prop_oneof![0u16..100, Just(u16::MAX)]);
    ((span(), span(), span(), span(), span()), (size(), size()), (byte(), byte(), byte()), segment).prop_map(
        |((time, intvl, user, r2, fin), (rcvbuf, sndbuf), (probes, ttl, dscp), max_segment)| {
            SocketOptions::new(&Config::default()).with(|o| {
                (o.keepalive, o.keepalive_time, o.keepalive_intvl, o.keepalive_probes) =
                    (true, time, intvl, probes);
                (o.user_timeout, o.r2, o.fin_timeout) = (user, Some(r2), fin);
                (o.rcvbuf, o.sndbuf) = (rcvbuf, sndbuf);
                (o.ttl, o.dscp, o.max_segment) = (ttl, dscp, max_segment);
            })
        },
    )
}

/// Lets time pass, within a bound of steps: a keepalive interval of zero sends a probe each millisecond.
fn pass(pair: &mut Pair, span: Duration) {
    let until = pair.now + span;
    for _ in 0..1000 {
        if !pair.step(until) {
            break;
        }
    }
}

/// Runs a connection that carries a little over a lossy path, is idle, and closes.
fn live(config: Config, options: SocketOptions, seed: u64) {
    let mut pair = Pair::new(config);
    let mut state = seed | 1;
    pair.wire = Box::new(move |_, _, _| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 61 != 0
    });
    let server = SERVER.parse().unwrap();
    let socket = Some(options);
    let listen = ListenOptions { fast_open: true, socket: socket.clone(), ..ListenOptions::default() };
    let listener = pair.server.listen(server, listen).unwrap();
    let mut ends: Vec<(Side, SocketId)> = Vec::new();
    for _ in 0..2 {
        let options = ConnectOptions { fast_open: true, socket: socket.clone(), ..ConnectOptions::default() };
        match pair.client.connect(pair.now, server, options) {
            Ok(id) => ends.push((Side::Client, id)),
            Err(error) => assert!(matches!(error, Error::NoBufferSpace | Error::AddrNotAvailable), "{error}"),
        }
        pass(&mut pair, Duration::from_secs(5));
    }
    while let Ok((id, _)) = pair.server.accept(listener) {
        ends.push((Side::Server, id));
    }
    for round in 0..20 {
        for (side, id) in ends.clone() {
            let stack = pair.stack(side);
            let _ = if round == 3 { stack.send_urgent(id, &[1; 100]) } else { stack.send(id, &[1; 3000]) };
            if round % 4 == 3 {
                let _ = stack.recv(id, &mut [0; 10_000]);
            }
        }
        pass(&mut pair, Duration::from_millis(300));
    }
    pass(&mut pair, Duration::from_secs(1000));
    for (side, id) in ends {
        let now = pair.now;
        let _ = pair.stack(side).close(now, id);
    }
    pass(&mut pair, Duration::from_secs(1000));
}

/// Both are within their bounds.
#[test]
fn a_minimum_of_the_rto_above_its_maximum_gives_way() {
    let config = Config {
        tcp_rto_min: Duration::from_secs(60),
        tcp_rto_max: Duration::from_secs(1),
        ..Config::default()
    };
    let options = SocketOptions::new(&config);
    live(config, options, 1);
}

/// No probe is ever late enough to end the connection, and none is scheduled in the future.
#[test]
fn a_keepalive_interval_of_nothing_lets_time_pass() {
    let mut options = SocketOptions::new(&Config::default());
    (options.keepalive, options.keepalive_time) = (true, Duration::ZERO);
    (options.keepalive_intvl, options.user_timeout) = (Duration::ZERO, Duration::MAX);
    live(Config::default(), options, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_allowed_neither_panics_nor_hangs(config in any_config(), options in any_options(), seed: u64) {
        live(config, options, seed);
    }
}

/// Each setting in which the profile `linux` differs from `default` has its row in the table of what Linux does
/// otherwise, with the value of the profile; and no row names a value that the profile has not.
#[test]
fn the_table_of_linux_names_what_its_profile_copies() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deviations.md")).unwrap();
    let (_, table) = text.split_once("## Linux, and what the profile `linux` copies").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let columns = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let mut copied = Vec::new();
    for columns in columns.filter(|columns| !columns[1].starts_with("**")) {
        let &[_, behaviour, linux, profile, why, _] = &columns[..] else { panic!("five bars: {columns:?}") };
        assert!(!behaviour.is_empty() && !linux.is_empty() && !why.is_empty(), "{columns:?}");
        if profile == "not copied" {
            continue;
        }
        let settings = profile.split('`').filter(|part| part.contains(" = "));
        let before = copied.len();
        copied.extend(settings.map(|setting| setting.split_once(" = ").unwrap()));
        assert!(copied.len() > before, "neither `not copied` nor a setting: {profile}");
    }
    let (default, linux) = (Config::default(), Config::profile(Profile::Linux));
    for &(name, value) in &copied {
        assert_eq!(linux.value(name).as_deref(), Some(value), "{name}");
        assert_ne!(default.value(name), linux.value(name), "{name} differs");
    }
    for setting in Config::settings() {
        let named = copied.iter().any(|(name, _)| *name == setting.short_name());
        assert_eq!(named, setting.value(&default) != setting.value(&linux), "{}", setting.name);
    }
}
