//! Settings with a few values, each with Linux's number.

use std::fmt;
use std::str::FromStr;

use super::kinds::{Kind, Mode};

macro_rules! modes {
    ($( $(#[$meta:meta])+ $name:ident { $( $(#[$of_variant:meta])+ $variant:ident = $number:literal, $text:literal; )+ } )+) => { $(
        $(#[$meta])+
        ///
        /// It displays as Linux's number, and is read from the number or the name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$of_variant])+ #[doc = concat!("\n\n`", $number, "` or `", $text, "`.")] $variant = $number, )+
        }

        impl $name {
            /// All values, in the order of their numbers, which count from 0.
            pub const ALL: &'static [$name] = &[$( $name::$variant, )+];

            /// Returns Linux's number.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// Returns the name.
            pub const fn name(self) -> &'static str {
                match self {
                    $( $name::$variant => $text, )+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.number().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(s: &str) -> Result<$name, String> {
                Mode.parse(s).map_err(|expected| format!("`{s}`: expected {expected}"))
            }
        }

        impl Kind<$name> for Mode {
            fn parse(&self, text: &str) -> Result<$name, String> {
                match text {
                    $( concat!($number) | $text => Ok($name::$variant), )+
                    _ => {
                        let names = [$( $text, )+];
                        Err(format!("a number from 0 to {} ({})", names.len() - 1, names.join(", ")))
                    }
                }
            }
            fn show(&self, value: &$name) -> String {
                value.to_string()
            }
        }
    )+ };
}

modes! {
    /// Explicit congestion notification: [`tcp_ecn`](super::Config::tcp_ecn) (RFC 3168).
    EcnMode {
        /// Neither request nor accept it.
        Off = 0, "off";
        /// Request it, and accept it.
        On = 1, "on";
        /// Accept it from a peer that requests it.
        Passive = 2, "passive";
    }

    /// SYN cookies: [`tcp_syncookies`](super::Config::tcp_syncookies) (RFC 4987 §3.6).
    SynCookies {
        /// A SYN that finds the half-open table full is dropped.
        Never = 0, "never";
        /// When the half-open table is full.
        WhenFull = 1, "when-full";
        /// For each SYN.
        Always = 2, "always";
    }

    /// Search for a path MTU without ICMP: [`tcp_mtu_probing`](super::Config::tcp_mtu_probing) (RFC 4821).
    MtuProbing {
        /// Path MTUs come from ICMP alone.
        Never = 0, "never";
        /// After a black hole is detected.
        BlackHole = 1, "black-hole";
        /// From the start of each connection.
        Always = 2, "always";
    }

    /// Reuse of TIME-WAIT entries by timestamps: [`tcp_tw_reuse`](super::Config::tcp_tw_reuse) (RFC 6191).
    TwReuse {
        /// A connect waits out 2MSL.
        Never = 0, "never";
        /// For all peers.
        Always = 1, "always";
        /// For loopback addresses.
        Loopback = 2, "loopback";
    }
}

/// Fast Open: the bits of [`tcp_fastopen`](super::Config::tcp_fastopen) (RFC 7413). Bits without a meaning are kept.
///
/// It displays as Linux's number.
///
/// ```
/// use steadfast_core::config::FastOpenMode;
///
/// assert_eq!(FastOpenMode::new(true, true), FastOpenMode::BOTH);
/// assert!(FastOpenMode::from_number(0x200).server_without_cookie());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FastOpenMode(u32);

impl FastOpenMode {
    /// Neither as client nor as server.
    pub const OFF: FastOpenMode = FastOpenMode(0);
    /// For connections that we open.
    pub const CLIENT: FastOpenMode = FastOpenMode(1);
    /// For listeners that ask for it.
    pub const SERVER: FastOpenMode = FastOpenMode(2);
    /// For both.
    pub const BOTH: FastOpenMode = FastOpenMode(3);

    /// Returns the mode for a client, a server, both or none.
    pub const fn new(client: bool, server: bool) -> FastOpenMode {
        FastOpenMode(client as u32 | (server as u32) << 1)
    }

    /// Returns the mode with these bits.
    pub const fn from_number(bits: u32) -> FastOpenMode {
        FastOpenMode(bits)
    }

    /// Returns Linux's number.
    pub const fn number(self) -> u32 {
        self.0
    }

    const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Returns whether connections that we open use it.
    pub const fn client(self) -> bool {
        self.has(1)
    }

    /// Returns whether listeners use it.
    pub const fn server(self) -> bool {
        self.has(2)
    }

    /// Returns whether a client sends data on its SYN without a cookie (bit 0x4).
    pub const fn client_without_cookie(self) -> bool {
        self.has(4)
    }

    /// Returns whether a listener takes the data of a SYN without a cookie (bit 0x200).
    pub const fn server_without_cookie(self) -> bool {
        self.has(0x200)
    }

    /// Returns whether all listeners use it, asked for or not (bit 0x400).
    pub const fn all_listeners(self) -> bool {
        self.has(0x402)
    }
}

impl fmt::Display for FastOpenMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The bits of Fast Open, in decimal or, after `0x`, in hexadecimal.
#[derive(Clone, Copy)]
pub(super) struct Bits;

impl Bits {
    pub(super) const fn unit(&self) -> &'static str {
        ""
    }
}

impl Kind<FastOpenMode> for Bits {
    fn parse(&self, text: &str) -> Result<FastOpenMode, String> {
        let number = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        let number = number.filter(|number| *number <= i32::MAX as u32);
        let expected = "bits: 1 client, 2 server, 0x4 and 0x200 without a cookie, 0x400 all listeners";
        number.map(FastOpenMode::from_number).ok_or_else(|| expected.to_owned())
    }
    fn show(&self, value: &FastOpenMode) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_from_its_number_and_its_name_and_shown_as_its_number() {
        for (number, mode) in MtuProbing::ALL.iter().enumerate() {
            assert_eq!(mode.to_string(), number.to_string());
            assert_eq!(mode.to_string().parse(), Ok(*mode));
            assert_eq!(mode.name().parse(), Ok(*mode));
        }
        assert_eq!(
            "3".parse::<EcnMode>().unwrap_err(),
            "`3`: expected a number from 0 to 2 (off, on, passive)"
        );
        assert!("".parse::<SynCookies>().is_err() && "00".parse::<TwReuse>().is_err());
    }

    // DRILL-X33
    #[test]
    fn the_bits_of_fast_open_are_those_of_linux_and_others_are_kept() {
        for number in 0..4 {
            let mode = FastOpenMode::from_number(number);
            assert_eq!(FastOpenMode::new(mode.client(), mode.server()), mode);
            assert_eq!((number & 1 != 0, number & 2 != 0), (mode.client(), mode.server()));
        }
        let mode = FastOpenMode::from_number(0x7_0603);
        assert!(mode.server_without_cookie() && mode.all_listeners() && !mode.client_without_cookie());
        assert!(!FastOpenMode::from_number(0x400).all_listeners(), "without the server's bit");
        let mut config = super::super::Config::default();
        config.apply("tcp_fastopen = 0x70603").unwrap();
        assert_eq!(config.tcp_fastopen, mode);
        assert_eq!(config.value("tcp_fastopen").unwrap(), "460291");
    }
}
