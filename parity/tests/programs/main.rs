//! Three programs that use `tokio::net`, and the same programs on this stack. Each moves over by its imports and a
//! `Net` as the first argument of the calls that open a socket; a test compares the sources.

use std::io::ErrorKind;
use std::net::SocketAddr;

use steadfast::{Net, device};

mod tokio_net {
    pub(crate) mod chat;
    pub(crate) mod port_forward;
    pub(crate) mod quotes;
}

mod moved {
    pub(crate) mod chat;
    pub(crate) mod port_forward;
    pub(crate) mod quotes;
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Two networks with a wire in memory, and the addresses of sockets on them with any port.
fn networks() -> (Net, Net, SocketAddr, SocketAddr) {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left).unwrap();
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right).unwrap();
    (server, client, ([10, 9, 0, 2], 0).into(), ([10, 9, 0, 1], 0).into())
}

#[test]
fn only_imports_and_the_network_differ() {
    let sources = [
        ("chat", include_str!("tokio_net/chat.rs"), include_str!("moved/chat.rs")),
        ("port_forward", include_str!("tokio_net/port_forward.rs"), include_str!("moved/port_forward.rs")),
        ("quotes", include_str!("tokio_net/quotes.rs"), include_str!("moved/quotes.rs")),
    ];
    let import = |line: &&str| line.starts_with("use tokio::net::") || line.starts_with("use steadfast::");
    for (name, before, after) in sources {
        let without = [("net: &Net, ", ""), ("(&net, ", "("), ("(net, ", "("), ("(net)", "()")]
            .into_iter()
            .fold(after.to_owned(), |text, (from, to)| text.replace(from, to));
        let clone = |line: &&str| line.trim() == "let net = net.clone();";
        let before: Vec<&str> = before.lines().filter(|line| !import(line)).collect();
        let after: Vec<&str> = without.lines().filter(|line| !import(line) && !clone(line)).collect();
        assert_eq!(before, after, "{name}");
    }
}

#[tokio::test]
async fn the_chat_works_on_both() {
    use tokio_net::chat;
    let address = chat::open(LOOPBACK).await.unwrap();
    let mut one = chat::Member::join(address).await.unwrap();
    let mut two = chat::Member::join(address).await.unwrap();
    one.say("hold fast").await.unwrap();
    assert_eq!(two.hear().await.unwrap(), "hold fast\n");
    assert_eq!(one.leave().await.unwrap(), "");

    let (server, client, at, _) = networks();
    let address = moved::chat::open(&server, at).await.unwrap();
    let mut one = moved::chat::Member::join(&client, address).await.unwrap();
    let mut two = moved::chat::Member::join(&client, address).await.unwrap();
    one.say("hold fast").await.unwrap();
    assert_eq!(two.hear().await.unwrap(), "hold fast\n");
    assert_eq!(one.leave().await.unwrap(), "");
}

#[tokio::test]
async fn the_port_leads_elsewhere_on_both() {
    use tokio_net::port_forward;
    let target = port_forward::count(LOOPBACK).await.unwrap();
    let address = port_forward::open(LOOPBACK, target).await.unwrap();
    assert_eq!(port_forward::ask(address, 300_000).await.unwrap(), "300000");
    let nobody = ([127, 0, 0, 1], 1).into();
    let address = port_forward::open(LOOPBACK, nobody).await.unwrap();
    assert_eq!(port_forward::ask(address, 0).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (server, client, at, there) = networks();
    let target = moved::port_forward::count(&client, there).await.unwrap();
    let address = moved::port_forward::open(&server, at, target).await.unwrap();
    assert_eq!(moved::port_forward::ask(&client, address, 300_000).await.unwrap(), "300000");
    let nobody = ([10, 9, 0, 1], 1).into();
    let address = moved::port_forward::open(&server, at, nobody).await.unwrap();
    let error = moved::port_forward::ask(&client, address, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn quotes_are_given_on_both() {
    use tokio_net::quotes;
    let address = quotes::open(LOOPBACK).await.unwrap();
    assert_eq!(quotes::by_udp(LOOPBACK, address).await.unwrap(), "hold fast");
    assert_eq!(quotes::by_tcp(address).await.unwrap(), "stand firm");

    let (server, client, at, there) = networks();
    let address = moved::quotes::open(&server, at).await.unwrap();
    assert_eq!(moved::quotes::by_udp(&client, there, address).await.unwrap(), "hold fast");
    assert_eq!(moved::quotes::by_tcp(&client, address).await.unwrap(), "stand firm");
}
