//! UDP and ping through the gateway.

use std::fs;
use std::net::UdpSocket;
use std::thread;

use crate::scene::{Namespace, SERVER, Scene, become_router, ip};

/// Returns each datagram.
pub(crate) fn serve_echo(scene: &Scene) -> u16 {
    let socket = scene.there(|| UdpSocket::bind((SERVER, 0)).unwrap());
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..len], from).unwrap();
        }
    });
    port
}

#[test]
fn f14_datagrams_of_any_size_return() {
    let Some(scene) = Scene::new() else { return };
    let port = serve_echo(&scene).to_string();
    let output = scene.compare(&[], &["datagrams", SERVER, &port, "1", "1472", "1473", "9000", "65507"]);
    assert_eq!(output.stdout, b"1\n1472\n1473\n9000\n65507\n");
}

#[test]
fn f14_each_datagram_of_a_super_segment_returns() {
    let Some(mut scene) = Scene::new() else { return };
    let port = serve_echo(&scene).to_string();
    for device in ["tun", "closed"] {
        scene.device(device);
        let output = scene.compare(&[], &["burst", SERVER, &port, "3100", "1000"]);
        assert_eq!(output.stdout, b"1000 0\n1000 247\n1000 243\n100 239\n", "{device}");
    }
}

#[test]
fn f14_a_closed_port_is_told() {
    let Some(scene) = Scene::new() else { return };
    let closed = scene.there(|| UdpSocket::bind((SERVER, 0)).unwrap().local_addr().unwrap().port());
    let output = scene.compare(&[], &["datagrams", SERVER, &closed.to_string(), "1"]);
    assert_eq!(output.stdout, b"ECONNREFUSED\n");
}

#[test]
fn f14_a_datagram_that_no_router_may_fragment_is_too_big_as_directly() {
    let Some(scene) = Scene::new() else { return };
    // A router behind the machine says so.
    scene.there(|| {
        ip("link add narrow mtu 1400 type veth peer name end
            link set end up
            link set narrow up
            route add 203.0.113.9 dev narrow");
    });
    let port = serve_echo(&scene).to_string();
    let output = scene.compare(&[], &["too_big", "1472", &format!("{SERVER}:{port}"), "203.0.113.9:9"]);
    assert_eq!(output.stdout, b"1472\nEMSGSIZE 1400\n");
}

/// Three routers in a row beyond the machine, and a host at `198.18.3.2`. The first is that of the servers.
fn routers(scene: &Scene) -> [Namespace; 3] {
    let all = [Namespace::new(), Namespace::new(), Namespace::new()];
    let mut before = scene.network();
    for (number, namespace) in (1..).zip(&all) {
        let name = namespace.name();
        before.act(move || {
            ip(&format!(
                "link add far type veth peer name near netns {name}
                 address add 198.18.{number}.1/30 dev far
                 link set far up"
            ));
            let beyond = (number + 1..=3).map(|n| format!("route add 198.18.{n}.0/30 via 198.18.{number}.2"));
            ip(&beyond.collect::<Vec<_>>().join("\n"));
        });
        namespace.act(move || {
            ip(&format!(
                "link set lo up
                 address add 198.18.{number}.2/30 dev near
                 link set near up
                 route add default via 198.18.{number}.1"
            ));
            become_router();
        });
        before = namespace;
    }
    all
}

#[test]
fn f16_a_trace_of_the_route_lists_all_routers_as_directly_and_the_gateway() {
    let Some(scene) = Scene::new() else { return };
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let _routers = routers(&scene);
    for kind in ["udp", "icmp"] {
        let client = ["trace", kind, "198.18.3.2"];
        let direct = scene.direct(&client);
        assert_eq!(direct, "192.0.2.2\n198.18.1.2\n198.18.2.2\n198.18.3.2 reached\n", "{kind}");
        assert_eq!(scene.client(&[], &client), format!("10.0.2.2\n{direct}"), "{kind}");
    }
}

#[test]
fn f15_two_destinations_see_the_same_port_of_a_socket() {
    let Some(scene) = Scene::new() else { return };
    let other = "192.0.2.2";
    let sockets = scene.there(move || [SERVER, other].map(|host| UdpSocket::bind((host, 0)).unwrap()));
    let ends: Vec<String> = sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    let seen = thread::spawn(move || {
        sockets.map(|socket| {
            let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
            socket.send_to(b"seen", from).unwrap();
            from
        })
    });
    assert_eq!(scene.client(&[], &["one_socket", &ends[0], &ends[1]]), format!("{}\n{}\n", ends[0], ends[1]));
    let [first, second] = seen.join().unwrap();
    assert_eq!(first, second);
}

#[test]
fn f16_pings_are_answered_and_refused_as_directly() {
    let Some(scene) = Scene::new() else { return };
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let output = scene.compare(&[], &["ping", SERVER, "8", "56", "8000", "60000"]);
    assert_eq!(output.stdout, b"16\n64\n8008\n60008\n");
    let output = scene.compare(&[], &["ping", "203.0.113.2", "8"]);
    assert_eq!(output.stdout, b"EHOSTUNREACH\n");
    // The machine may forbid pings. Its user is told once.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "1 0").unwrap();
    let client = ["python3", "-c", include_str!("client.py"), "ping", SERVER, "8"];
    let output = scene.run(&[], &client).output().unwrap();
    assert_eq!(output.stdout, b"EHOSTUNREACH\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("the machine forbids pings: sysctl net.ipv4.ping_group_range="), "{errors}");
}

#[test]
fn f16_an_answer_has_the_ttl_that_it_has_directly_but_for_the_hop_of_the_gateway() {
    let Some(scene) = Scene::new() else { return };
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let port = serve_echo(&scene).to_string();
    for kind in ["udp", "icmp"] {
        let client = ["hops", kind, SERVER, &port];
        assert_eq!((&*scene.direct(&client), &*scene.client(&[], &client)), ("64\n", "63\n"), "{kind}");
    }
}
