//! The forms of addresses, and names.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use steadfast::{ConnectOptions, Net, TcpListener, TcpStream, device, lookup_host};

use crate::{CLIENT, CLIENT_6, Pair, SERVER, SERVER_6, at};

/// A client whose resolver knows one name, and records what it is asked.
fn start_with_names(device: device::memory::MemoryDevice) -> (Net, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let questions = asked.clone();
    let resolver = move |host: String| {
        questions.lock().unwrap().push(host.clone());
        async move {
            match &*host {
                "server.test" => Ok(vec![[10, 9, 0, 77].into(), SERVER.into()]),
                "both.test" => Ok(vec![SERVER_6.into(), SERVER.into()]),
                "empty.test" => Ok(Vec::new()),
                _ => Err(Error::new(ErrorKind::NotFound, "no such host")),
            }
        }
    };
    let builder = Net::builder().secret([1; 32]).address(CLIENT, 24).resolver(resolver);
    (builder.start(device).unwrap(), asked)
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_by_the_resolver_of_the_network_and_each_address_is_tried() {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().secret([2; 32]).address(SERVER, 24).start(left).unwrap();
    let (client, asked) = start_with_names(right);
    let _listener = TcpListener::bind(&server, (SERVER, 80)).await.unwrap();
    // Nobody answers at 10.9.0.77.
    let stream = TcpStream::connect(&client, "server.test:80").await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), at(SERVER, 80));
    let found: Vec<_> = lookup_host(&client, ("server.test", 443)).await.unwrap().collect();
    assert_eq!(found, [at([10, 9, 0, 77], 443), at(SERVER, 443)]);
    assert_eq!(*asked.lock().unwrap(), ["server.test", "server.test"]);

    let error = TcpStream::connect(&client, "nobody.test:80").await.unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::NotFound, "no such host"));
    for nowhere in [TcpStream::connect(&client, "empty.test:80").await.map(drop), {
        TcpListener::bind(&client, &[][..]).await.map(drop)
    }] {
        assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// The client has no IPv6 address at first.
#[tokio::test(start_paused = true)]
async fn the_addresses_of_a_name_are_tried_in_the_order_of_rfc_6724_6724_4() {
    let (left, _right) = device::memory::pair(1500);
    let (client, _asked) = start_with_names(left);
    let found = async || lookup_host(&client, "both.test:80").await.unwrap().collect::<Vec<_>>();
    assert_eq!(found().await, [at(SERVER, 80), at(SERVER_6, 80)]);
    // An address of the label of fd09::2 makes it reachable, yet IPv4 has the higher precedence.
    client.add_address(CLIENT_6, 64);
    assert_eq!(found().await, [at(SERVER, 80), at(SERVER_6, 80)]);
    client.remove_address(CLIENT);
    assert_eq!(found().await, [at(SERVER_6, 80), at(SERVER, 80)]);
    // A list of the caller stays as it is.
    let listed = [at(SERVER, 80), at(SERVER_6, 80)];
    assert_eq!(lookup_host(&client, &listed[..]).await.unwrap().collect::<Vec<_>>(), listed);
}

#[tokio::test(start_paused = true)]
async fn addresses_in_text_ask_no_resolver() {
    let (left, _right) = device::memory::pair(1500);
    let (net, asked) = start_with_names(left);
    for text in ["10.9.0.1:80", "[fd09::2]:80"] {
        let found: Vec<SocketAddr> = lookup_host(&net, text).await.unwrap().collect();
        assert_eq!(found, [text.parse().unwrap()]);
    }
    let found: Vec<_> = lookup_host(&net, (SERVER_6.to_string(), 80)).await.unwrap().collect();
    assert_eq!(found, [at(SERVER_6, 80)]);
    for text in ["10.9.0.1", "", "10.9.0.1:", "10.9.0.1:65536", "server.test:http"] {
        assert_eq!(
            lookup_host(&net, text).await.map(drop).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{text}"
        );
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_fails_everywhere_tells_the_last_error() {
    let pair = Pair::new();
    let ends = [at(SERVER, 1), at(Ipv4Addr::UNSPECIFIED, 1)];
    let error = TcpStream::connect(&pair.client, &ends[..]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // From an address of one family, those of the other fail at once.
    let _listener = TcpListener::bind(&pair.server, at(SERVER_6, 80)).await.unwrap();
    let _other = pair.listen(80).await;
    let options = ConnectOptions { local_address: Some(CLIENT.into()), ..ConnectOptions::default() };
    let ends = [at(SERVER_6, 80), at(SERVER, 80)];
    let stream = TcpStream::connect_with(&pair.client, &ends[..], options).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), at(SERVER, 80));
}

#[tokio::test(start_paused = true)]
async fn the_futures_own_what_they_need() {
    let pair = Pair::new();
    let (bound, connected) = {
        // Neither the text nor the reference to the network lives as long as the futures.
        let (text, server, client) = (format!("{SERVER}:80"), pair.server.clone(), pair.client.clone());
        (TcpListener::bind(&server, &*text), TcpStream::connect(&client, &*text))
    };
    let _listener = tokio::spawn(bound).await.unwrap().unwrap();
    tokio::spawn(connected).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_system_resolves_names_by_default() {
    let pair = Pair::new();
    let found: Vec<_> = lookup_host(&pair.client, "localhost:80").await.unwrap().collect();
    assert!(
        !found.is_empty() && found.iter().all(|end| end.ip().is_loopback() && end.port() == 80),
        "{found:?}"
    );
}
