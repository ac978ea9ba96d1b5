//! The profiles: sets of values for every setting.

use std::fmt;
use std::str::FromStr;

/// A named set of values for every setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Profile {
    /// Linux's values with some differences. A connect sends one more SYN to meet R2 (RFC 9293 §3.8.3), and its duration
    /// is limited. RST is ignored in TIME-WAIT (RFC 1337), `tcp_tw_reuse` is on with timestamps, and black-hole probing is
    /// on.
    #[default]
    Default,
    /// Linux 6.12 to 6.18.
    Linux,
    /// 4.4BSD, as Stevens describes it.
    Bsd,
    /// RFC 9293, 6298 and 1122 to the letter.
    Rfc,
    /// FreeBSD 14 and 15.
    FreeBsd,
}

impl Profile {
    /// All profiles, in the order of the tables.
    pub const ALL: [Profile; 5] =
        [Profile::Default, Profile::Linux, Profile::Bsd, Profile::Rfc, Profile::FreeBsd];

    /// Returns `default`, `linux`, `bsd`, `rfc` or `freebsd`.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Default => "default",
            Profile::Linux => "linux",
            Profile::Bsd => "bsd",
            Profile::Rfc => "rfc",
            Profile::FreeBsd => "freebsd",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;
    fn from_str(s: &str) -> Result<Profile, String> {
        let named = Profile::ALL.into_iter().find(|p| p.name() == s);
        named.ok_or_else(|| format!("`{s}`: expected a profile: default, linux, bsd, rfc or freebsd"))
    }
}
