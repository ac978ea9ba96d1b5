//! Socket options.

use steadfast_core::config::{CongestionControl, FastOpenKeys};
use steadfast_core::time::Duration;
use steadfast_core::{Error, SocketOptions};

use super::{Posix, Role, System, seconds};
use crate::subject::{Errno, Setting, SocketOption};

/// The level and the name of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Option {
    pub(crate) level: &'static str,
    pub(crate) name: &'static str,
}

/// Why an option was not set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Unset {
    Errno(Errno),
    /// The stack has no such option.
    NotKept,
}

impl From<Errno> for Unset {
    fn from(errno: Errno) -> Unset {
        Unset::Errno(errno)
    }
}

const SOCKET: &str = "SOL_SOCKET";
const TCP: &str = "IPPROTO_TCP";
const IP: &str = "IPPROTO_IP";
const IPV6: &str = "IPPROTO_IPV6";

/// Options that are accepted and stored to be read back. Nothing in a run depends on them.
const KEPT: [(&str, &str); 39] = [
    (SOCKET, "SO_REUSEADDR"),
    (SOCKET, "SO_REUSEPORT"),
    (SOCKET, "SO_REUSEPORT_LB"),
    (SOCKET, "SO_DEBUG"),
    (SOCKET, "SO_PRIORITY"),
    (SOCKET, "SO_MARK"),
    (SOCKET, "SO_BROADCAST"),
    (SOCKET, "SO_NOSIGPIPE"),
    (SOCKET, "SO_OOBINLINE"),
    (SOCKET, "SO_DONTROUTE"),
    (IP, "IP_BIND_ADDRESS_NO_PORT"),
    (IP, "IP_FREEBIND"),
    (IP, "IP_TRANSPARENT"),
    (IPV6, "IPV6_V6ONLY"),
    (IPV6, "IPV6_BINDV6ONLY"),
    (IPV6, "IPV6_FREEBIND"),
    (TCP, "TCP_LOG"),
    (TCP, "TCP_LOGID"),
    (SOCKET, "SO_SNDLOWAT"),
    (SOCKET, "SO_BUSY_POLL"),
    (SOCKET, "SO_INCOMING_CPU"),
    (SOCKET, "SO_NO_CHECK"),
    (SOCKET, "SO_TIMESTAMP"),
    (SOCKET, "SO_TIMESTAMPNS"),
    (SOCKET, "SO_TXREHASH"),
    (IP, "IP_MTU_DISCOVER"),
    (IP, "IP_PMTUDISC"),
    (IP, "IP_RECVERR"),
    (IP, "IP_RECVTOS"),
    (IP, "IP_RECVTTL"),
    (IPV6, "IPV6_MTU_DISCOVER"),
    (IPV6, "IPV6_RECVERR"),
    (IPV6, "IPV6_RECVTCLASS"),
    (IPV6, "IPV6_RECVHOPLIMIT"),
    (TCP, "TCP_INQ"),
    (TCP, "TCP_SAVE_SYN"),
    (TCP, "TCP_THIN_DUPACK"),
    (TCP, "TCP_THIN_LINEAR_TIMEOUTS"),
    (TCP, "TCP_TX_DELAY"),
];

/// Options with an effect or a value of their own.
const KNOWN: [(&str, &str); 43] = [
    (SOCKET, "SO_RCVTIMEO"),
    (SOCKET, "SO_SNDTIMEO"),
    (SOCKET, "SO_KEEPALIVE"),
    (SOCKET, "SO_LINGER"),
    (SOCKET, "SO_RCVBUF"),
    (SOCKET, "SO_SNDBUF"),
    (SOCKET, "SO_RCVBUFFORCE"),
    (SOCKET, "SO_SNDBUFFORCE"),
    (SOCKET, "SO_RCVLOWAT"),
    (SOCKET, "SO_ERROR"),
    (SOCKET, "SO_TYPE"),
    (SOCKET, "SO_ACCEPTCONN"),
    (SOCKET, "SO_PROTOCOL"),
    (TCP, "TCP_NODELAY"),
    (TCP, "TCP_CORK"),
    (TCP, "TCP_NOPUSH"),
    (TCP, "TCP_MAXSEG"),
    (TCP, "TCP_KEEPIDLE"),
    (TCP, "TCP_KEEPINTVL"),
    (TCP, "TCP_KEEPCNT"),
    (TCP, "TCP_KEEPINIT"),
    (TCP, "TCP_NOOPT"),
    (TCP, "TCP_FUNCTION_BLK"),
    (TCP, "TCP_USER_TIMEOUT"),
    (TCP, "TCP_LINGER2"),
    (TCP, "TCP_NOTSENT_LOWAT"),
    (TCP, "TCP_FASTOPEN"),
    (TCP, "TCP_FASTOPEN_CONNECT"),
    (TCP, "TCP_FASTOPEN_NO_COOKIE"),
    (TCP, "TCP_FASTOPEN_KEY"),
    (TCP, "TCP_CONGESTION"),
    (TCP, "TCP_INFO"),
    (IP, "IP_TOS"),
    (IP, "IP_TTL"),
    (IP, "IP_MTU"),
    (IPV6, "IPV6_TCLASS"),
    (IPV6, "IPV6_UNICAST_HOPS"),
    (IPV6, "IPV6_MTU"),
    (SOCKET, "SO_DOMAIN"),
    (SOCKET, "SO_MAX_PACING_RATE"),
    (TCP, "TCP_SYNCNT"),
    (TCP, "TCP_QUICKACK"),
    (TCP, "TCP_CC_INFO"),
];

impl Option {
    /// Returns the option if it is known.
    pub(crate) fn find(option: &SocketOption) -> std::option::Option<Option> {
        let all = KEPT.iter().chain(&KNOWN);
        let found = all.into_iter().find(|known| (option.level.as_str(), option.name.as_str()) == **known);
        found.map(|(level, name)| Option { level, name })
    }

    fn is_kept(self) -> bool {
        KEPT.contains(&(self.level, self.name))
    }
}

impl Posix {
    pub(crate) fn set_option(&mut self, fd: i32, option: Option, setting: &Setting) -> Result<(), Unset> {
        self.socket_of(fd)?;
        let number = match setting {
            Setting::Number(number) => *number,
            Setting::Linger(on, time) => {
                if option.name != "SO_LINGER" {
                    return Err(Unset::Errno("EINVAL"));
                }
                let linger = on.then(|| seconds(*time));
                return self.change(fd, |options| options.linger = linger);
            }
            Setting::Text(text) if option.name == "TCP_CONGESTION" => {
                let control = match text.as_str() {
                    "cubic" => CongestionControl::Cubic,
                    "reno" | "newreno" => CongestionControl::Reno,
                    _ => return Err(Unset::NotKept),
                };
                return self.change(fd, |options| options.congestion = control);
            }
            Setting::Text(text) if option.name == "TCP_FASTOPEN_KEY" => {
                return self.set_fast_open_key(fd, text);
            }
            // The stack of the system is the only one. DRILL-L15
            Setting::Text(name) if option.name == "TCP_FUNCTION_BLK" => {
                return if name == "freebsd" { Ok(()) } else { Err(Unset::NotKept) };
            }
            _ => return Err(Unset::Errno("EINVAL")),
        };
        if option.is_kept() {
            if option.name == "TCP_INQ" && !(0..=1).contains(&number) {
                return Err(Unset::Errno("EINVAL"));
            }
            self.socket_mut(fd)?.kept.insert((option.level, option.name), number);
            return Ok(());
        }
        match option.level {
            SOCKET => self.set_socket_option(fd, option, number),
            TCP => self.set_tcp_option(fd, option, number),
            _ => self.set_ip_option(fd, option, number),
        }
    }

    fn set_socket_option(&mut self, fd: i32, option: Option, number: i64) -> Result<(), Unset> {
        let size = u32::try_from(number.max(0)).unwrap_or(u32::MAX);
        match option.name {
            "SO_KEEPALIVE" => self.change(fd, |options| options.keepalive = number != 0),
            // Linux doubles the value, and reserves half of it for overhead. The window is the requested size.
            "SO_RCVBUF" | "SO_RCVBUFFORCE" => {
                let least = if self.system == System::Linux { 1152 } else { 1 };
                // Linux derives the window scale from the requested size, FreeBSD from the system's limit.
                let linux = self.system == System::Linux;
                self.change(fd, |options| {
                    options.rcvbuf = size.max(least);
                    options.rcvbuf_max = if linux { 0 } else { options.rcvbuf_max };
                })
            }
            "SO_SNDBUF" | "SO_SNDBUFFORCE" => {
                // Linux doubles the value: what counts is memory.
                let linux = self.system == System::Linux;
                let size = if linux { size.saturating_mul(2).max(4608) } else { size.max(1) };
                self.change(fd, |options| options.sndbuf = size)
            }
            "SO_RCVLOWAT" => {
                self.socket_mut(fd)?.receive_lowat = usize::try_from(number).unwrap_or(1).max(1);
                Ok(())
            }
            "SO_RCVTIMEO" | "SO_SNDTIMEO" => {
                // Zero: without a limit.
                let limit = u64::try_from(number).ok().filter(|micros| *micros > 0);
                let limit = limit.map(Duration::from_micros);
                let timeouts = &mut self.socket_mut(fd)?.timeouts;
                *(if option.name == "SO_RCVTIMEO" { &mut timeouts.0 } else { &mut timeouts.1 }) = limit;
                Ok(())
            }
            "SO_MAX_PACING_RATE" => {
                let rate = u64::try_from(number & 0xffff_ffff).unwrap_or(u64::MAX);
                let rate = if rate == 0xffff_ffff { u64::MAX } else { rate };
                self.change(fd, |options| options.max_pacing_rate = rate)
            }
            _ => Err(Unset::Errno("ENOPROTOOPT")),
        }
    }

    fn set_tcp_option(&mut self, fd: i32, option: Option, number: i64) -> Result<(), Unset> {
        if option.name.starts_with("TCP_KEEP") {
            self.socket_mut(fd)?.own.insert(option.name);
        }
        let within = |least: i64, most: i64| {
            if (least..=most).contains(&number) { Ok(()) } else { Err(Unset::Errno("EINVAL")) }
        };
        match option.name {
            "TCP_NODELAY" => self.change(fd, |options| options.nodelay = number != 0),
            "TCP_CORK" | "TCP_NOPUSH" => {
                if number == 0 {
                    // What MSG_MORE holds back is let go as well: the cork is drawn, whoever put it in.
                    self.change(fd, |options| options.cork = true)?;
                }
                self.change(fd, |options| options.cork = number != 0)
            }
            "TCP_MAXSEG" => {
                within(if self.system == System::Linux { 88 } else { 64 }, 32_767)?;
                self.change(fd, |options| options.max_segment = Some(number as u16))
            }
            "TCP_KEEPIDLE" => {
                within(1, 32_767)?;
                self.change(fd, |options| options.keepalive_time = seconds(number))
            }
            "TCP_KEEPINTVL" => {
                within(1, 32_767)?;
                self.change(fd, |options| options.keepalive_intvl = seconds(number))
            }
            "TCP_KEEPCNT" => {
                within(1, 127)?;
                self.change(fd, |options| options.keepalive_probes = number as u8)
            }
            "TCP_KEEPINIT" => {
                within(1, i64::from(i32::MAX) / 1000)?;
                self.change(fd, |options| options.syn_timeout = seconds(number))
            }
            "TCP_SYNCNT" => {
                within(1, 127)?;
                self.change(fd, |options| options.syn_retries = Some(number as u8))
            }
            "TCP_QUICKACK" => match self.stream(fd) {
                Some(id) => {
                    let set = self.stack.set_quickack(self.now, id, number & 1 != 0);
                    set.map_err(|error| Unset::Errno(error.name()))
                }
                None => Ok(()),
            },
            "TCP_NOOPT" => self.change(fd, |options| options.no_options = number != 0),
            "TCP_USER_TIMEOUT" => {
                within(0, i64::from(i32::MAX))?;
                self.change(fd, |options| options.user_timeout = Duration::from_millis(number as u64))
            }
            "TCP_LINGER2" => {
                within(0, 120)?;
                self.change(fd, |options| options.fin_timeout = seconds(number))
            }
            "TCP_NOTSENT_LOWAT" => {
                let set = u32::try_from(number & 0xffff_ffff).unwrap_or(u32::MAX);
                self.socket_mut(fd)?.notsent_lowat = Some(set.into());
                let default = self.stack.config().tcp_notsent_lowat;
                let limit = if set > 0 { set } else { default };
                self.change(fd, |options| options.notsent_lowat = limit)
            }
            "TCP_FASTOPEN" => self.set_fast_open(fd, number),
            "TCP_FASTOPEN_NO_COOKIE" => {
                within(0, 1)?;
                if matches!(self.socket_of(fd)?.role, Role::Stream(_)) {
                    return Err(Unset::Errno("EINVAL"));
                }
                self.change(fd, |options| options.fast_open_no_cookie = number != 0)
            }
            "TCP_FASTOPEN_CONNECT" => {
                let offered = self.stack.config().tcp_fastopen.client();
                let socket = self.socket_mut(fd)?;
                if !offered {
                    return Err(Unset::Errno("EOPNOTSUPP"));
                }
                if socket.role != Role::Fresh {
                    return Err(Unset::Errno("EINVAL"));
                }
                socket.fast_open_connect = number != 0;
                Ok(())
            }
            _ => Err(Unset::Errno("ENOPROTOOPT")),
        }
    }

    fn set_fast_open(&mut self, fd: i32, number: i64) -> Result<(), Unset> {
        let queue = u32::try_from(number).map_err(|_| Unset::Errno("EINVAL"))?;
        let socket = self.socket_mut(fd)?;
        let role = socket.role;
        if matches!(role, Role::Stream(_)) {
            return Err(Unset::Errno("EINVAL"));
        }
        socket.fast_open_queue = queue;
        match role {
            Role::Listener(id) => {
                self.stack.set_fast_open(id, queue).map_err(|error| Unset::Errno(error.name()))
            }
            _ => Ok(()),
        }
    }

    /// `TCP_FASTOPEN_KEY`: one or two keys of 16 bytes, each byte a character.
    // DRILL-X31
    fn set_fast_open_key(&mut self, fd: i32, text: &str) -> Result<(), Unset> {
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
        let (keys, []) = bytes.as_chunks::<16>() else { return Err(Unset::Errno("EINVAL")) };
        let key = |key: &[u8; 16]| FastOpenKeys::key_of(key);
        let keys = match keys {
            [primary] => FastOpenKeys::new(key(primary), None),
            [primary, backup] => FastOpenKeys::new(key(primary), Some(key(backup))),
            _ => return Err(Unset::Errno("EINVAL")),
        };
        if matches!(self.socket_of(fd)?.role, Role::Stream(_)) {
            return Err(Unset::Errno("EINVAL"));
        }
        self.change(fd, |options| options.fast_open_key = Some(keys))
    }

    fn set_ip_option(&mut self, fd: i32, option: Option, number: i64) -> Result<(), Unset> {
        match option.name {
            "IP_TOS" | "IPV6_TCLASS" if (0..=255).contains(&number) => {
                self.socket_mut(fd)?.kept.insert((option.level, option.name), number);
                self.change(fd, |options| options.dscp = (number >> 2) as u8)
            }
            "IP_TTL" | "IPV6_UNICAST_HOPS" if (1..=255).contains(&number) => {
                self.change(fd, |options| options.ttl = number as u8)
            }
            "IP_TOS" | "IPV6_TCLASS" | "IP_TTL" | "IPV6_UNICAST_HOPS" => Err(Unset::Errno("EINVAL")),
            _ => Err(Unset::Errno("ENOPROTOOPT")),
        }
    }

    /// Changes the options here and in the stack.
    pub(super) fn change(&mut self, fd: i32, change: impl FnOnce(&mut SocketOptions)) -> Result<(), Unset> {
        let now = self.now;
        let socket = self.socket_mut(fd)?;
        let before = socket.options.clone();
        change(&mut socket.options);
        let (role, after) = (socket.role, socket.options.clone());
        match role {
            Role::Fresh => {
                if before.ttl != after.ttl || before.dscp != after.dscp {
                    self.reserve(fd);
                }
                Ok(())
            }
            Role::Stream(id) | Role::Listener(id) => {
                // The stack may have changed some itself.
                let mut options = self.stack.options(id).map_err(Error::name)?.clone();
                options.apply_changes(&before, after);
                self.stack.set_options(now, id, options).map_err(|error| Unset::Errno(Error::name(error)))
            }
        }
    }

    pub(crate) fn option(&mut self, fd: i32, option: Option) -> Result<Setting, Unset> {
        if option.name == "SO_ERROR" {
            return Ok(Setting::Error(self.take_error(fd)?.map(Error::name)));
        }
        let (now, linux) = (self.now, self.system == System::Linux);
        let socket = self.socket_of(fd)?;
        let of_stream = match socket.role {
            Role::Stream(id) => self.stack.options(id).ok(),
            _ => None,
        };
        let options = &socket.options;
        let (rcvbuf, sndbuf) =
            of_stream.map_or((options.rcvbuf, options.sndbuf), |options| (options.rcvbuf, options.sndbuf));
        let doubled = |size: u32| i64::from(size) * if linux { 2 } else { 1 };
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let micros = |time: std::option::Option<Duration>| {
            i64::try_from(time.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
        };
        let info = match socket.role {
            Role::Stream(id) => self.stack.info(now, id).ok(),
            _ => None,
        };
        let number = match option.name {
            "TCP_INFO" | "TCP_CC_INFO" | "TCP_FUNCTION_BLK" => return Ok(Setting::Opaque),
            "SO_LINGER" => {
                let time = options.linger.unwrap_or_default().as_secs() as i64;
                return Ok(Setting::Linger(options.linger.is_some(), time));
            }
            "TCP_CONGESTION" => {
                return Ok(Setting::Text(options.congestion.to_string()));
            }
            "SO_KEEPALIVE" => i64::from(options.keepalive),
            "SO_RCVBUF" => doubled(rcvbuf),
            "SO_SNDBUF" => sndbuf.into(),
            "SO_RCVLOWAT" => socket.receive_lowat as i64,
            "SO_RCVTIMEO" => micros(socket.timeouts.0),
            "SO_SNDTIMEO" => micros(socket.timeouts.1),
            "SO_TYPE" => 1,
            "SO_PROTOCOL" => 6,
            "SO_DOMAIN" => {
                if socket.ipv6 {
                    10
                } else {
                    2
                }
            }
            "SO_ACCEPTCONN" => i64::from(matches!(socket.role, Role::Listener(_))),
            "TCP_NODELAY" => i64::from(options.nodelay),
            "TCP_CORK" | "TCP_NOPUSH" => i64::from(options.cork),
            "TCP_MAXSEG" => match info {
                Some(info) => i64::from(info.snd_mss),
                None => i64::from(options.max_segment.unwrap_or(536)),
            },
            "TCP_KEEPIDLE" => options.keepalive_time.as_secs() as i64,
            "TCP_KEEPINTVL" => options.keepalive_intvl.as_secs() as i64,
            "TCP_KEEPCNT" => i64::from(options.keepalive_probes),
            "TCP_KEEPINIT" => options.syn_timeout.as_secs() as i64,
            "TCP_SYNCNT" => i64::from(options.syn_retries.unwrap_or(self.stack.config().tcp_syn_retries)),
            "TCP_QUICKACK" => {
                let quick = self.stream(fd).map(|id| self.stack.quickack(id).unwrap_or(true));
                i64::from(quick.unwrap_or(true))
            }
            "SO_MAX_PACING_RATE" => i64::from(options.max_pacing_rate.min(0xffff_ffff) as u32),
            "TCP_NOOPT" => i64::from(options.no_options),
            "TCP_USER_TIMEOUT" => millis(options.user_timeout),
            "TCP_LINGER2" => options.fin_timeout.as_secs() as i64,
            // The default of the system has an effect without showing (DRILL-X09).
            "TCP_NOTSENT_LOWAT" => i64::from(socket.notsent_lowat.unwrap_or(0) as u32 as i32),
            "TCP_FASTOPEN" => i64::from(socket.fast_open_queue),
            "TCP_FASTOPEN_CONNECT" => i64::from(socket.fast_open_connect),
            "TCP_FASTOPEN_NO_COOKIE" => i64::from(options.fast_open_no_cookie),
            "IP_TTL" | "IPV6_UNICAST_HOPS" => i64::from(options.ttl),
            "IP_MTU" | "IPV6_MTU" => match info {
                Some(info) => i64::from(info.pmtu),
                None => return Err(Unset::Errno("ENOTCONN")),
            },
            name => {
                // `IP_PMTUDISC_WANT`
                let default = i64::from(name.ends_with("MTU_DISCOVER"));
                socket.kept.get(&(option.level, option.name)).copied().unwrap_or(default)
            }
        };
        Ok(Setting::Number(number))
    }
}
