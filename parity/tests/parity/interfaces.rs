//! A network on two TUN devices, with the kernel at the other end of both.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use steadfast::device::{Tun, TunOptions};
use steadfast::{InterfaceId, Net, TcpListener, TcpStream, UdpSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::tools::in_real_time;

const NEAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 8, 0, 2)];
const FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 8, 0, 1)];

/// Runs a case with our network and the name of its second interface.
fn run(case: impl AsyncFn(Net, InterfaceId)) {
    if !steadfast_witness::enter_namespace(&["ip"]) {
        return;
    }
    in_real_time(async {
        let open = async |name: &str, host: Ipv4Addr| {
            let mut options = TunOptions::new(name);
            options.host = vec![(host.into(), 24)];
            Tun::open(&options).await.unwrap()
        };
        let net = Net::builder().address(NEAR[0], 24).start(open("sf0", FAR[0]).await).unwrap();
        let second = net.add_interface(open("sf1", FAR[1]).await, [(NEAR[1].into(), 24)]).unwrap();
        case(net.clone(), second).await;
        net.check_consistent().unwrap();
    });
}

/// Configures the kernel.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Exchanges a message each way.
async fn speak(mut a: impl AsyncRead + AsyncWrite + Unpin, mut b: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = [0; 5];
    a.write_all(b"there").await.unwrap();
    b.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"there");
    b.write_all(b"again").await.unwrap();
    a.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"again");
}

async fn connected(net: &Net, far: Ipv4Addr) -> (TcpStream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind((far, 0)).await.unwrap();
    let remote = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(net, remote), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

#[test]
fn both_sides_connect_through_either_device() {
    run(async |net, _| {
        for side in 0..2 {
            let (ours, theirs) = connected(&net, FAR[side]).await;
            let local = SocketAddr::new(NEAR[side].into(), ours.local_addr().unwrap().port());
            assert_eq!((ours.local_addr().unwrap(), theirs.peer_addr().unwrap()), (local, local));
            speak(ours, theirs).await;
            let listener = TcpListener::bind(&net, "0.0.0.0:80").await.unwrap();
            let (theirs, ours) =
                tokio::join!(tokio::net::TcpStream::connect((NEAR[side], 80)), listener.accept());
            speak(ours.unwrap().0, theirs.unwrap()).await;
            let (ours, theirs) = tokio::join!(
                UdpSocket::bind(&net, "0.0.0.0:53"),
                tokio::net::UdpSocket::bind((FAR[side], 0))
            );
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
            theirs.send_to(b"?", (NEAR[side], 53)).await.unwrap();
            let received = ours.recv_msg(&mut [0; 10]).await.unwrap();
            assert_eq!(received.to, IpAddr::from(NEAR[side]));
            ours.send_to(b"!", received.from).await.unwrap();
            assert_eq!(
                theirs.recv_from(&mut [0; 10]).await.unwrap().1,
                SocketAddr::new(NEAR[side].into(), 53)
            );
        }
    });
}

/// The kernel sends to an address of one interface by the other one. The answers leave by the route to the kernel's
/// address.
#[test]
fn a_packet_is_taken_whatever_interface_it_came_by_1122_6() {
    run(async |net, second| {
        let address = Ipv4Addr::new(10, 7, 0, 2);
        net.add_address_to(second, address, 32).unwrap();
        ip("route add 10.7.0.2/32 dev sf0");
        let listener = TcpListener::bind(&net, (address, 80)).await.unwrap();
        let (theirs, ours) = tokio::join!(tokio::net::TcpStream::connect((address, 80)), listener.accept());
        let theirs = theirs.unwrap();
        assert_eq!(theirs.local_addr().unwrap().ip(), IpAddr::from(FAR[0]));
        speak(ours.unwrap().0, theirs).await;
    });
}

#[test]
fn an_interface_goes_and_the_connections_of_the_other_live_on_1122_7() {
    run(async |net, second| {
        let (first, second_stream) = (connected(&net, FAR[0]).await, connected(&net, FAR[1]).await);
        net.remove_interface(second).unwrap();
        let (mut ours, theirs) = second_stream;
        ours.write_all(b"lost").await.unwrap();
        speak(first.0, first.1).await;
        let silence = timeout(Duration::from_millis(50), ours.read(&mut [0; 1])).await;
        assert!(silence.is_err(), "it neither ends nor fails");
        // The driver has closed the device, so that the kernel has no such interface any more.
        let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(devices.contains("sf0") && !devices.contains("sf1"), "{devices}");
        drop((ours, theirs));
    });
}
