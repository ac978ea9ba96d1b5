//! Proxies: connections of guests that leave by a server of SOCKS5 (RFC 1928) or of HTTP's CONNECT (RFC 9110 §9.3.6).

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::str::FromStr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::associate;
use crate::malformed::Malformed;

/// The longest answer of HTTP to a CONNECT.
const LONGEST: usize = 8192;

/// A proxy for the connections of guests: `socks5://[USER:PASSWORD@]ADDRESS:PORT`, or the same with `http`.
///
/// Its reply decides how the guest is answered. A proxy that cannot be reached makes all destinations unreachable.
///
/// ```
/// use steadfast_gateway::Proxy;
///
/// let proxy: Proxy = "socks5://192.0.2.1:1080".parse().unwrap();
/// assert_eq!(proxy.to_string(), "socks5://192.0.2.1:1080");
/// let wrong = "ftp://192.0.2.1:21".parse::<Proxy>().unwrap_err();
/// assert_eq!(wrong.to_string(), "`ftp://192.0.2.1:21`: expected socks5:// or http://");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    address: SocketAddr,
    user: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Socks5,
    Http,
}

/// Requests to a server of SOCKS5.
#[derive(Clone, Copy)]
enum Command {
    Connect = 1,
    Associate = 3,
}

impl FromStr for Proxy {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Proxy, Malformed> {
        // A password must not be repeated.
        let shown = text.rsplit_once('@').map_or(text, |(_, shown)| shown);
        let wrong = |expected: &str| Malformed::new(shown, expected);
        let kinds = [("socks5://", Kind::Socks5), ("http://", Kind::Http)];
        let found = kinds.iter().find_map(|(prefix, kind)| Some((*kind, text.strip_prefix(prefix)?)));
        let (kind, rest) = found.ok_or_else(|| wrong("socks5:// or http://"))?;
        let rest = rest.trim_end_matches('/');
        let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let user = user.map(|user| user.split_once(':').ok_or_else(|| wrong("USER:PASSWORD before the `@`")));
        let user = user.transpose()?.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let fits = |text: &String| (1..=255).contains(&text.len());
        if user.as_ref().is_some_and(|(user, password)| !fits(user) || !fits(password)) {
            return Err(wrong("a user and a password of 1 to 255 bytes"));
        }
        let address =
            address.parse().map_err(|_| wrong("an address and a port, as socks5://192.0.2.1:1080"))?;
        Ok(Proxy { kind, address, user })
    }
}

impl fmt::Display for Proxy {
    /// It does not show the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::Socks5 { "socks5" } else { "http" };
        match &self.user {
            Some((user, _)) => write!(f, "{kind}://{user}:…@{}", self.address),
            None => write!(f, "{kind}://{}", self.address),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Proxy {
    /// Connects to a destination by the proxy. The kind of an error is what a direct connection would have met.
    pub(crate) async fn connect(&self, destination: SocketAddr) -> io::Result<TcpStream> {
        // Whatever is wrong with the proxy, nobody has refused the connection.
        let broken = |_| io::Error::from(ErrorKind::HostUnreachable);
        let mut stream = TcpStream::connect(self.address).await.map_err(broken)?;
        stream.set_nodelay(true)?;
        let answered = match self.kind {
            Kind::Socks5 => {
                let asked = self.ask_socks(&mut stream, Command::Connect, destination).await;
                asked.map(Result::err)
            }
            Kind::Http => self.ask_http(&mut stream, destination).await,
        };
        match answered.map_err(broken)? {
            None => Ok(stream),
            Some(refused) => Err(refused.into()),
        }
    }

    /// Returns whether datagrams can leave by the proxy.
    pub(crate) fn carries_datagrams(&self) -> bool {
        self.kind == Kind::Socks5
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Asks for an association of UDP, which lives as long as the returned connection. Returns the address that takes its
    /// datagrams, too.
    pub(crate) async fn associate(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let unreachable = || io::Error::from(ErrorKind::HostUnreachable);
        let mut stream = TcpStream::connect(self.address).await.map_err(|_| unreachable())?;
        let any: SocketAddr = match self.address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let answered = self.ask_socks(&mut stream, Command::Associate, any).await;
        // Whichever code refuses it is about the association, and not about the end of a datagram.
        let refused = |_| io::Error::from(ErrorKind::PermissionDenied);
        let mut relay = answered.map_err(|_| unreachable())?.map_err(refused)?;
        if relay.ip().is_unspecified() {
            relay.set_ip(self.address.ip());
        }
        if relay.is_ipv4() == self.address.is_ipv4() { Ok((stream, relay)) } else { Err(unreachable()) }
    }

    /// Asks a server of SOCKS5. Returns the address that it has bound, or why it refuses. Other errors are those of the
    /// connection to the proxy.
    async fn ask_socks(
        &self,
        stream: &mut TcpStream,
        command: Command,
        to: SocketAddr,
    ) -> io::Result<Result<SocketAddr, ErrorKind>> {
        const VERSION: u8 = 5;
        const NO_METHOD: u8 = 0;
        const PASSWORD: u8 = 2;
        let method = if self.user.is_some() { PASSWORD } else { NO_METHOD };
        stream.write_all(&[VERSION, 1, method]).await?;
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).await?;
        if chosen != [VERSION, method] {
            return Ok(Err(ErrorKind::PermissionDenied));
        }
        if let Some((user, password)) = &self.user {
            // RFC 1929
            let [user, password] = [user.as_bytes(), password.as_bytes()];
            let lens = [user, password].map(|part| part.len() as u8);
            stream.write_all(&[&[1, lens[0]], user, &[lens[1]], password].concat()).await?;
            let mut status = [0; 2];
            stream.read_exact(&mut status).await?;
            if status[1] != 0 {
                return Ok(Err(ErrorKind::PermissionDenied));
            }
        }
        stream.write_all(&[&[VERSION, command as u8, 0], &associate::address(to)[..]].concat()).await?;
        let mut reply = [0; 4];
        stream.read_exact(&mut reply).await?;
        let rest = match reply[3] {
            associate::V4 => 4,
            associate::V6 => 16,
            associate::NAME => stream.read_u8().await?.into(),
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        let mut bound = vec![0; rest + 2];
        stream.read_exact(&mut bound).await?;
        if let Some(refused) = refusal_of_socks(reply[1]) {
            return Ok(Err(refused));
        }
        // A name is of no use, and a connection needs none.
        let bound = associate::parse_address(reply[3], &bound);
        Ok(Ok(bound.map_or(([0, 0, 0, 0], 0).into(), |(bound, _)| bound)))
    }

    async fn ask_http(&self, stream: &mut TcpStream, to: SocketAddr) -> io::Result<Option<ErrorKind>> {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some((user, password)) = &self.user {
            let credentials = base64(format!("{user}:{password}").as_bytes());
            request += &format!("Proxy-Authorization: Basic {credentials}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        // The bytes behind the answer belong to the guest.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == LONGEST {
                return Err(ErrorKind::InvalidData.into());
            }
            answer.push(stream.read_u8().await?);
        }
        let status =
            answer.split(|byte| *byte == b' ').nth(1).and_then(|code| std::str::from_utf8(code).ok());
        let status = status.and_then(|code| code.trim().parse::<u16>().ok()).ok_or(ErrorKind::InvalidData)?;
        Ok(refusal_of_http(status))
    }
}

/// The error that a reply code of SOCKS5 stands for (RFC 1928 §6). `None`: success.
fn refusal_of_socks(code: u8) -> Option<ErrorKind> {
    Some(match code {
        0 => return None,
        2 => ErrorKind::PermissionDenied,
        3 => ErrorKind::NetworkUnreachable,
        // Also one whose TTL has expired, which ends a connect with the same error.
        4 | 6 => ErrorKind::HostUnreachable,
        _ => ErrorKind::ConnectionRefused,
    })
}

/// The error that a status of HTTP stands for. `None`: success.
fn refusal_of_http(status: u16) -> Option<ErrorKind> {
    Some(match status {
        200..=299 => return None,
        403 | 407 => ErrorKind::PermissionDenied,
        504 => ErrorKind::TimedOut,
        _ => ErrorKind::ConnectionRefused,
    })
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit = move |at: usize| match at <= group.len() {
            true => char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        };
        [digit(0), digit(1), digit(2), digit(3)]
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_proxy_reads_as_it_is_written_without_its_password() {
        for (text, shown) in [
            ("socks5://192.0.2.1:1080", "socks5://192.0.2.1:1080"),
            ("http://[2001:db8::1]:3128/", "http://[2001:db8::1]:3128"),
            ("http://me:s3:cret@192.0.2.1:3128", "http://me:…@192.0.2.1:3128"),
        ] {
            let proxy = text.parse::<Proxy>().unwrap();
            assert_eq!((proxy.to_string(), format!("{proxy:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for (text, expected) in [
            ("192.0.2.1:1080", "`192.0.2.1:1080`: expected socks5:// or http://"),
            ("socks5://proxy:1080", "`socks5://proxy:1080`: expected an address and a port"),
            ("http://me@192.0.2.1:1", "`192.0.2.1:1`: expected USER:PASSWORD before the `@`"),
            ("http://:x@192.0.2.1:1", "`192.0.2.1:1`: expected a user and a password of 1 to 255 bytes"),
        ] {
            let error = text.parse::<Proxy>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648_section_10() {
        for (text, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }

    /// Dials by a proxy that answers with these messages. Returns its requests and the result.
    async fn dial(url: &str, answers: &[&[u8]]) -> (Vec<Vec<u8>>, io::Result<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url.replace("PROXY", &listener.local_addr().unwrap().to_string());
        let serve = async {
            let mut stream = listener.accept().await.unwrap().0;
            let mut told = Vec::new();
            for answer in answers {
                let mut buffer = [0; 1024];
                let len = stream.read(&mut buffer).await.unwrap();
                told.push(buffer[..len].to_vec());
                stream.write_all(answer).await.unwrap();
            }
            told
        };
        let proxy: Proxy = url.parse().unwrap();
        tokio::join!(serve, proxy.connect("203.0.113.1:80".parse().unwrap()))
    }

    #[tokio::test]
    async fn socks_is_asked_for_the_destination_and_its_reply_is_the_result() {
        let granted = b"\x05\0\0\x01\0\0\0\0\0\0rest";
        let (told, stream) = dial("socks5://me:pass@PROXY", &[b"\x05\x02", b"\x01\0", granted]).await;
        assert_eq!(
            told,
            [&b"\x05\x01\x02"[..], b"\x01\x02me\x04pass", b"\x05\x01\0\x01\xcb\0\x71\x01\0\x50"]
        );
        let mut rest = [0; 4];
        stream.unwrap().read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"rest");
        for (code, kind) in [
            (1, ErrorKind::ConnectionRefused),
            (2, ErrorKind::PermissionDenied),
            (3, ErrorKind::NetworkUnreachable),
            (4, ErrorKind::HostUnreachable),
            (5, ErrorKind::ConnectionRefused),
            (6, ErrorKind::HostUnreachable),
        ] {
            let reply = [5, code, 0, 3, 1, b'x', 0, 0];
            let (_, refused) = dial("socks5://PROXY", &[b"\x05\0", &reply]).await;
            assert_eq!(refused.unwrap_err().kind(), kind, "{code}");
        }
        // It wants a method that we lack, or speaks nonsense.
        let (_, refused) = dial("socks5://PROXY", &[b"\x05\xff"]).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let (_, refused) = dial("socks5://PROXY", &[b"\x05\0", b"\x05\0\0\x07"]).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::HostUnreachable);
    }

    #[tokio::test]
    async fn http_is_asked_for_the_destination_and_its_status_is_the_result() {
        let granted = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nrest";
        let (told, stream) = dial("http://me:pass@PROXY", &[granted]).await;
        let expected = "CONNECT 203.0.113.1:80 HTTP/1.1\r\nHost: 203.0.113.1:80\r\n\
                        Proxy-Authorization: Basic bWU6cGFzcw==\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&told[0]), expected);
        let mut rest = [0; 4];
        stream.unwrap().read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"rest");
        for (status, kind) in [
            (403, ErrorKind::PermissionDenied),
            (407, ErrorKind::PermissionDenied),
            (502, ErrorKind::ConnectionRefused),
            (504, ErrorKind::TimedOut),
            (500, ErrorKind::ConnectionRefused),
        ] {
            let answer = format!("HTTP/1.1 {status} No\r\n\r\n");
            let (_, refused) = dial("http://PROXY", &[answer.as_bytes()]).await;
            assert_eq!(refused.unwrap_err().kind(), kind, "{status}");
        }
        let (_, refused) = dial("http://PROXY", &[&[b'x'; 9000]]).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::HostUnreachable);
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_makes_all_unreachable() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let proxy: Proxy = format!("socks5://{closed}").parse().unwrap();
        let error = proxy.connect("203.0.113.1:80".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    }
}
