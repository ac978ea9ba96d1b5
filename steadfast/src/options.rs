//! Options of sockets, in the units of `setsockopt`.

use std::io;
use std::time::Duration;

use steadfast_core::SocketOptions;

/// Parameters of keepalive probes (RFC 9293 §3.8.4). Parameters that are not set keep their values.
///
/// ```
/// use std::time::Duration;
///
/// use steadfast::TcpKeepalive;
///
/// let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_retries(3);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct TcpKeepalive {
    time: Option<Duration>,
    interval: Option<Duration>,
    retries: Option<u8>,
}

impl TcpKeepalive {
    /// Returns parameters that change nothing.
    pub fn new() -> TcpKeepalive {
        TcpKeepalive::default()
    }

    /// Sets the idle time before the first probe (`TCP_KEEPIDLE`).
    pub fn with_time(self, time: Duration) -> TcpKeepalive {
        TcpKeepalive { time: Some(time), ..self }
    }

    /// Sets the time between probes (`TCP_KEEPINTVL`).
    pub fn with_interval(self, interval: Duration) -> TcpKeepalive {
        TcpKeepalive { interval: Some(interval), ..self }
    }

    /// Sets the number of unanswered probes after which the connection ends (`TCP_KEEPCNT`).
    pub fn with_retries(self, retries: u8) -> TcpKeepalive {
        TcpKeepalive { retries: Some(retries), ..self }
    }

    /// Checks that nothing is zero.
    pub(crate) fn check(&self) -> io::Result<()> {
        let TcpKeepalive { time, interval, retries } = self;
        if [time, interval].contains(&&Some(Duration::ZERO)) || *retries == Some(0) {
            return Err(invalid("a keepalive of zero: expected at least one probe, after some time"));
        }
        Ok(())
    }

    /// As the kernel's sockets take it.
    pub(crate) fn of_kernel(&self) -> socket2::TcpKeepalive {
        let mut keepalive = socket2::TcpKeepalive::new();
        if let Some(time) = self.time {
            keepalive = keepalive.with_time(time);
        }
        if let Some(interval) = self.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = self.retries {
            keepalive = keepalive.with_retries(retries.into());
        }
        keepalive
    }

    /// Turns probes on, with these parameters.
    pub(crate) fn apply(&self, options: &mut SocketOptions) {
        options.keepalive = true;
        options.keepalive_time = self.time.unwrap_or(options.keepalive_time);
        options.keepalive_intvl = self.interval.unwrap_or(options.keepalive_intvl);
        options.keepalive_probes = self.retries.unwrap_or(options.keepalive_probes);
    }
}

/// Checks a TTL as Linux does.
pub(crate) fn ttl_of(ttl: u32) -> io::Result<u8> {
    match u8::try_from(ttl) {
        Ok(ttl @ 1..) => Ok(ttl),
        _ => Err(invalid(format!("TTL {ttl}: expected 1 to 255"))),
    }
}

/// Returns the code point of a TOS or traffic class. TCP itself sets the two bits of ECN, so these are ignored.
pub(crate) fn dscp_of(tos: u32) -> io::Result<u8> {
    match u8::try_from(tos) {
        Ok(tos) => Ok(tos >> 2),
        Err(_) => Err(invalid(format!("TOS {tos}: expected 0 to 255"))),
    }
}

/// Returns the TOS or traffic class of a code point.
pub(crate) fn tos_of(dscp: u8) -> u32 {
    u32::from(dscp) << 2
}

pub(crate) fn invalid(text: impl Into<String>) -> io::Error {
    let text: String = text.into();
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
