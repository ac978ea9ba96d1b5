//! The matrix: paths, what crosses them, and the bars against the kernel.

/// The traffic of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// So many endless transfers at once.
    Bulk(usize),
    /// One of ours beside one of the kernel's.
    Versus,
    /// Responses of this size, each over a connection of its own, by so many clients at once.
    Short { bytes: u64, clients: usize },
    /// Responses of this size over one connection, one in so many milliseconds.
    Chunks { bytes: u64, period: u64 },
}

/// A figure of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// Mbit/s that the receiver's applications get.
    Goodput,
    /// Mean time in the queue, in milliseconds.
    MeanQueue,
    /// The 99th percentile of it.
    QueueP99,
    /// Lost packets in a thousand.
    Loss,
    /// Packets that the AQM dropped, in a thousand.
    AqmDrops,
    /// Retransmissions in a thousand segments.
    Again,
    /// Retransmissions whose earlier copy was not lost, in a thousand segments.
    Spurious,
    /// Quantiles of the time to the last byte, in milliseconds.
    P50,
    P95,
    P99,
    /// Retransmission timeouts in a thousand responses, or in the round.
    Timeouts,
    /// Jain's index without the first third of the time.
    Jain,
    /// The part of our transfer in what both get, without the first third of the time.
    Share,
}

impl Metric {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Metric::Goodput => "goodput, Mbit/s",
            Metric::MeanQueue => "queue mean, ms",
            Metric::QueueP99 => "queue p99, ms",
            Metric::Loss => "lost, per mille",
            Metric::AqmDrops => "dropped by AQM, per mille",
            Metric::Again => "sent again, per mille",
            Metric::Spurious => "spurious, per mille",
            Metric::P50 => "p50, ms",
            Metric::P95 => "p95, ms",
            Metric::P99 => "p99, ms",
            Metric::Timeouts => "timeouts",
            Metric::Jain => "Jain",
            Metric::Share => "share of ours",
        }
    }
}

/// The bar for a figure of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bar {
    /// At least this multiple of the kernel's.
    AtLeast(f64),
    /// At most this multiple of the kernel's.
    AtMost(f64),
    /// Between these figures, whatever the kernel's.
    Within(f64, f64),
    /// No bar.
    Open,
}

/// A row of the matrix, which has a line for each figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// From the sender to the receiver.
    pub(super) down: &'static str,
    /// Back.
    pub(super) up: &'static str,
    pub(super) load: Load,
    /// A round takes at least so many seconds.
    pub(super) least: f64,
    /// Both ends use ECN.
    pub(super) ecn: bool,
    pub(super) figures: &'static [(Metric, Bar)],
}

const BACK: &str = "delay 20ms";
const AT_LEAST_AS_FAST: &[(Metric, Bar)] =
    &[(Metric::Goodput, Bar::AtLeast(1.0)), (Metric::Again, Bar::Open), (Metric::Timeouts, Bar::Open)];
const IN_SPITE_OF_REORDERING: &[(Metric, Bar)] = &[
    (Metric::Goodput, Bar::AtLeast(1.0)),
    (Metric::Spurious, Bar::AtMost(1.0)),
    (Metric::Timeouts, Bar::Open),
];
const SHORT: &[(Metric, Bar)] = &[
    (Metric::P50, Bar::AtMost(1.0)),
    (Metric::P95, Bar::Open),
    (Metric::P99, Bar::AtMost(0.7)),
    (Metric::Timeouts, Bar::AtMost(0.5)),
];

/// A transfer over a path of 40 ms.
const fn bulk(name: &'static str, down: &'static str, figures: &'static [(Metric, Bar)]) -> Row {
    Row { name, down, up: BACK, load: Load::Bulk(1), least: 0.0, ecn: false, figures }
}

/// Responses over a path of 20 ms.
const fn short(name: &'static str, down: &'static str, bytes: u64, clients: usize) -> Row {
    let load = Load::Short { bytes, clients };
    Row { name, down, up: "delay 10ms", load, least: 0.0, ecn: false, figures: SHORT }
}

const SHORT_HALF: &str = "delay 10ms rate 50mbit queue 250000 bytes loss 0.5%";
const SHORT_TWO: &str = "delay 10ms rate 50mbit queue 250000 bytes loss 2%";
const SHORT_FIVE: &str = "delay 10ms rate 50mbit queue 250000 bytes loss 5%";

pub(super) const ROWS: &[Row] = &[
    bulk(
        "M1 clean",
        "delay 20ms rate 50mbit queue 250000 bytes",
        &[
            (Metric::Goodput, Bar::AtLeast(0.98)),
            (Metric::MeanQueue, Bar::AtMost(1.1)),
            (Metric::Loss, Bar::Open),
        ],
    ),
    bulk("M2 loss 0.01%", "delay 20ms rate 50mbit queue 250000 bytes loss 0.01%", AT_LEAST_AS_FAST),
    bulk("M2 loss 0.1%", "delay 20ms rate 50mbit queue 250000 bytes loss 0.1%", AT_LEAST_AS_FAST),
    bulk("M2 loss 1%", "delay 20ms rate 50mbit queue 250000 bytes loss 1%", AT_LEAST_AS_FAST),
    bulk("M2 loss 3%", "delay 20ms rate 50mbit queue 250000 bytes loss 3%", AT_LEAST_AS_FAST),
    bulk(
        "M3 queue 0.1 BDP",
        "delay 20ms rate 50mbit queue 25000 bytes",
        &[(Metric::Goodput, Bar::AtLeast(1.0)), (Metric::Loss, Bar::AtMost(1.0))],
    ),
    bulk(
        "M4 queue 10 BDP",
        "delay 20ms rate 50mbit queue 2500000 bytes",
        &[(Metric::Goodput, Bar::AtLeast(0.98)), (Metric::MeanQueue, Bar::AtMost(1.05))],
    ),
    bulk(
        "M5 reorder 2% by 8ms",
        "delay 20ms rate 50mbit queue 250000 bytes late 2% by 8ms",
        IN_SPITE_OF_REORDERING,
    ),
    bulk(
        "M5 reorder 10% by 2ms",
        "delay 20ms rate 50mbit queue 250000 bytes late 10% by 2ms",
        IN_SPITE_OF_REORDERING,
    ),
    bulk(
        "M5 jitter 0..4ms",
        "delay 20ms rate 50mbit queue 250000 bytes jitter 0ms..4ms reorder",
        IN_SPITE_OF_REORDERING,
    ),
    bulk(
        "M5 jitter 0..15ms",
        "delay 20ms rate 50mbit queue 250000 bytes jitter 0ms..15ms reorder",
        IN_SPITE_OF_REORDERING,
    ),
    bulk(
        "M6 police 10M 32K",
        "delay 20ms rate 50mbit queue 250000 bytes police 10mbit 32K",
        &[(Metric::Goodput, Bar::Within(8.6, 10.0)), (Metric::Loss, Bar::AtMost(1.0))],
    ),
    bulk(
        "M6 police 10M 256K",
        "delay 20ms rate 50mbit queue 250000 bytes police 10mbit 256K",
        &[(Metric::Goodput, Bar::Within(8.6, 12.0)), (Metric::Loss, Bar::AtMost(1.0))],
    ),
    short("M7 1 kB, loss 0.5%", SHORT_HALF, 1_000, 4),
    short("M7 1 kB, loss 2%", SHORT_TWO, 1_000, 4),
    short("M7 1 kB, loss 5%", SHORT_FIVE, 1_000, 4),
    short("M7 14 kB, loss 0.5%", SHORT_HALF, 14_000, 4),
    short("M7 14 kB, loss 2%", SHORT_TWO, 14_000, 4),
    short("M7 14 kB, loss 5%", SHORT_FIVE, 14_000, 4),
    short("M7 100 kB, loss 0.5%", SHORT_HALF, 100_000, 2),
    short("M7 100 kB, loss 2%", SHORT_TWO, 100_000, 2),
    short("M7 100 kB, loss 5%", SHORT_FIVE, 100_000, 2),
    short("M7 1 MB, loss 0.5%", SHORT_HALF, 1_000_000, 1),
    short("M7 1 MB, loss 2%", SHORT_TWO, 1_000_000, 1),
    short("M7 1 MB, loss 5%", SHORT_FIVE, 1_000_000, 1),
    Row {
        least: 11.0,
        ..bulk(
            "M9 pauses 300..800ms",
            "delay 20ms rate 50mbit queue 2500000 bytes handover 5s 300ms..800ms 0%",
            &[
                (Metric::Goodput, Bar::AtLeast(1.0)),
                (Metric::Again, Bar::Within(0.0, 10.0)),
                (Metric::Timeouts, Bar::Open),
            ],
        )
    },
    bulk(
        "M10 Wi-Fi",
        "delay 20ms rate 20mbit 500ms 150mbit 500ms 60mbit 500ms queue 500 burst-loss 0.05% 30% aggregate 4ms",
        AT_LEAST_AS_FAST,
    ),
    Row {
        least: 16.0,
        up: "delay 17ms",
        ..bulk(
            "M11 Starlink",
            "delay 18ms rate 100mbit queue 437500 bytes loss 0.1% handover 15s 80ms..120ms 1.5%",
            AT_LEAST_AS_FAST,
        )
    },
    Row {
        up: "delay 20ms thin 8",
        ..bulk("M12 ACKs 1:8", "delay 20ms rate 50mbit queue 250000 bytes", AT_LEAST_AS_FAST)
    },
    Row {
        up: "delay 20ms thin 32",
        ..bulk("M12 ACKs 1:32", "delay 20ms rate 50mbit queue 250000 bytes", AT_LEAST_AS_FAST)
    },
    Row {
        up: "delay 20ms loss 30%",
        ..bulk("M12 ACK loss 30%", "delay 20ms rate 50mbit queue 250000 bytes", AT_LEAST_AS_FAST)
    },
    Row {
        up: "delay 20ms rate 500kbit queue 20",
        ..bulk("M12 back 1:100", "delay 20ms rate 50mbit queue 250000 bytes", AT_LEAST_AS_FAST)
    },
    Row {
        least: 20.0,
        up: "delay 500ms",
        ..bulk("M13 64k, 1 s", "delay 500ms rate 64kbit queue 20", AT_LEAST_AS_FAST)
    },
    Row {
        least: 30.0,
        load: Load::Bulk(2),
        ..bulk(
            "M14 2 flows",
            "delay 20ms rate 50mbit queue 250000 bytes",
            &[(Metric::Jain, Bar::Within(0.95, 1.0))],
        )
    },
    Row {
        least: 30.0,
        load: Load::Bulk(8),
        ..bulk(
            "M14 8 flows",
            "delay 20ms rate 50mbit queue 250000 bytes",
            &[(Metric::Jain, Bar::Within(0.95, 1.0))],
        )
    },
    Row {
        least: 10.0,
        load: Load::Versus,
        ..bulk(
            "M15 beside the kernel",
            "delay 20ms rate 50mbit queue 250000 bytes",
            &[(Metric::Share, Bar::Within(0.4, 0.6))],
        )
    },
    bulk(
        "M16 CoDel",
        "delay 20ms rate 50mbit queue 1000 aqm codel",
        &[
            (Metric::Goodput, Bar::AtLeast(0.98)),
            (Metric::QueueP99, Bar::Open),
            (Metric::AqmDrops, Bar::Open),
        ],
    ),
    bulk(
        "M16 PIE",
        "delay 20ms rate 50mbit queue 1000 aqm pie",
        &[
            (Metric::Goodput, Bar::AtLeast(0.98)),
            (Metric::QueueP99, Bar::Open),
            (Metric::AqmDrops, Bar::Open),
        ],
    ),
    Row {
        ecn: true,
        ..bulk(
            "M16 CoDel, ECN",
            "delay 20ms rate 50mbit queue 1000 aqm codel ecn",
            &[
                (Metric::Goodput, Bar::AtLeast(0.98)),
                (Metric::QueueP99, Bar::Open),
                (Metric::AqmDrops, Bar::Within(0.0, 0.0)),
            ],
        )
    },
    Row {
        least: 10.0,
        ..bulk(
            "M17 rate times and by 10",
            "delay 20ms rate 5mbit 2500ms 50mbit 2500ms queue 250000 bytes",
            AT_LEAST_AS_FAST,
        )
    },
    Row {
        load: Load::Chunks { bytes: 500_000, period: 250 },
        ..bulk(
            "M18 chunks",
            "delay 20ms rate 50mbit queue 250000 bytes loss 0.5%",
            &[(Metric::P50, Bar::Open), (Metric::P95, Bar::AtMost(1.0))],
        )
    },
];
