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

    /// Fast Open: [`tcp_fastopen`](super::Config::tcp_fastopen) (RFC 7413).
    FastOpenMode {
        /// Neither as client nor as server.
        Off = 0, "off";
        /// For connections that we open.
        Client = 1, "client";
        /// For listeners.
        Server = 2, "server";
        /// For both.
        Both = 3, "both";
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

impl FastOpenMode {
    /// Returns the mode for a client, a server, both or none.
    pub const fn new(client: bool, server: bool) -> FastOpenMode {
        match (client, server) {
            (false, false) => FastOpenMode::Off,
            (true, false) => FastOpenMode::Client,
            (false, true) => FastOpenMode::Server,
            (true, true) => FastOpenMode::Both,
        }
    }

    /// Returns whether connections that we open use it.
    pub const fn client(self) -> bool {
        matches!(self, FastOpenMode::Client | FastOpenMode::Both)
    }

    /// Returns whether listeners use it.
    pub const fn server(self) -> bool {
        matches!(self, FastOpenMode::Server | FastOpenMode::Both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_from_its_number_and_its_name_and_shown_as_its_number() {
        for (number, mode) in FastOpenMode::ALL.iter().enumerate() {
            assert_eq!(mode.to_string(), number.to_string());
            assert_eq!(mode.to_string().parse(), Ok(*mode));
            assert_eq!(mode.name().parse(), Ok(*mode));
            assert_eq!(FastOpenMode::new(mode.client(), mode.server()), *mode);
            assert_eq!(number & 1 != 0, mode.client(), "bit 0 is the client's in Linux");
            assert_eq!(number & 2 != 0, mode.server(), "bit 1 is the server's in Linux");
        }
        assert_eq!(
            "3".parse::<EcnMode>().unwrap_err(),
            "`3`: expected a number from 0 to 2 (off, on, passive)"
        );
        assert!("".parse::<SynCookies>().is_err() && "00".parse::<TwReuse>().is_err());
    }
}
