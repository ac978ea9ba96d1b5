//! The calls on UDP sockets.

use std::net::IpAddr;

use steadfast_core::{Config, Duration, UdpOptions};

use super::{Call, Endpoint, endpoint, local, name};
use crate::text::{Understood, Words};

/// A UDP socket to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Bind {
    pub on: (Option<IpAddr>, u16),
    /// The peer that it is connected to.
    pub to: Option<Endpoint>,
    pub name: Option<String>,
    pub options: Vec<DatagramSetting>,
}

/// One option of a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DatagramSetting {
    ReceiveBuffer(u32),
    SendBuffer(u32),
    Ttl(u8),
    DontFragment,
}

impl DatagramSetting {
    /// Returns the options of a socket with these settings.
    pub fn all(settings: &[DatagramSetting], config: &Config) -> UdpOptions {
        let mut options = UdpOptions::new(config);
        for setting in settings {
            match *setting {
                DatagramSetting::ReceiveBuffer(bytes) => options.rcvbuf = bytes,
                DatagramSetting::SendBuffer(bytes) => options.sndbuf = bytes,
                DatagramSetting::Ttl(hops) => options.ttl = hops,
                DatagramSetting::DontFragment => options.dont_fragment = true,
            }
        }
        options
    }
}

/// Parses the words after `udp`.
pub(super) fn udp(words: &mut Words<'_>) -> Understood<Call> {
    let on = words.parse("a port, or ADDR:PORT", local)?;
    let mut bind = Bind { on, to: None, name: None, options: Vec::new() };
    let size = |words: &mut Words<'_>| words.parse("bytes", |w| u32::try_from(crate::text::size(w)?).ok());
    while let Some(word) = words.peek() {
        if word == "as" {
            bind.name = name(words)?;
            continue;
        }
        words.next();
        bind.options.push(match word {
            "to" => {
                bind.to = Some(words.parse("whom to connect to, such as `S:53`", endpoint)?);
                continue;
            }
            "rcvbuf" => DatagramSetting::ReceiveBuffer(size(words)?),
            "sndbuf" => DatagramSetting::SendBuffer(size(words)?),
            "ttl" => DatagramSetting::Ttl(words.number("hops")?),
            "df" => DatagramSetting::DontFragment,
            _ => return Err(format!("expected to, as, rcvbuf, sndbuf, ttl or df, found `{word}`")),
        });
    }
    Ok(Call::Udp(bind))
}

/// Parses the words after `receive`.
pub(super) fn receive(words: &mut Words<'_>) -> Understood<Call> {
    let within: Option<Duration> =
        if words.take("within") { Some(words.duration("a duration after `within`")?) } else { None };
    Ok(Call::Receive { within })
}
