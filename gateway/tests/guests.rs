//! Guests with the clients of DHCP that people have, behind a veth pair in a network namespace of the test; and one that
//! sends what the client of Windows sends.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use steadfast::device::memory::{self, MemoryDevice};
use steadfast::device::{Device, Frame, HardwareAddress, PacketSocket};
use steadfast::stack::wire::{PROTOCOL_UDP, build, ethernet, ipv4, udp};
use steadfast_gateway::{Dns, Gateway, Subnet};
use steadfast_witness::enter_namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Runs `test` beside a gateway at the far end of `eth0`, which has no address.
fn behind_a_gateway<T: Future<Output = ()>>(tools: &[&str], test: impl FnOnce(Gateway, u16) -> T) {
    if !enter_namespace(&[tools, &["ip"]].concat()) {
        return;
    }
    run("ip link set lo up");
    run("ip link add eth0 type veth peer name sf0");
    run("ip link set sf0 addrgenmode none up");
    // Without the wait for another host with the same address. It fails where /proc is read-only, and costs seconds then.
    let _ = fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0");
    run("ip link set eth0 up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = async {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                stream.write_all(b"hold fast").await.unwrap();
            }
        });
        let rule = format!("allow 127.0.0.1:{port}").parse().unwrap();
        let servers = vec!["127.0.0.1:53".parse().unwrap()];
        let builder = Gateway::builder().subnet(Subnet::with_v6()).rule(rule).dns(Dns::Servers(servers));
        let gateway = builder.start(PacketSocket::open("sf0").unwrap()).await.unwrap();
        test(gateway, port).await;
    };
    runtime.block_on(async { timeout(Duration::from_secs(30), all).await.unwrap() });
}

/// Runs a command to its end, and returns its output.
#[track_caller]
fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// As [`run`], while the gateway works.
async fn run_beside(command: String) -> String {
    // The thread is in the namespace of this one.
    let running = std::thread::spawn(move || run(&command));
    while !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.join().unwrap()
}

/// A folder for the files of a client.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("steadfast-guests-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn script(&self, text: &str) -> String {
        let path = self.path("script");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads what the server of the machine says, through the gateway.
async fn fetch(address: &str, port: u16) -> String {
    let mut text = String::new();
    let mut stream = tokio::net::TcpStream::connect((address, port)).await.unwrap();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn f21_udhcpc_gets_an_address_and_the_guest_reaches_the_machine() {
    behind_a_gateway(&["udhcpc"], |gateway, port| async move {
        let folder = Folder::new("udhcpc");
        let said = folder.path("said");
        let script = folder.script(&format!(
            "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
             ip address add $ip/$mask dev $interface\nip route add default via $router\n\
             echo $ip/$mask $router $dns $mtu $lease > {said}\n"
        ));
        run_beside(format!("udhcpc -i eth0 -n -q -f -t 5 -T 1 -s {script}")).await;
        assert_eq!(fs::read_to_string(&said).unwrap(), "10.0.2.15/24 10.0.2.2 10.0.2.3 1500 86400\n");
        // Through the link layer both ways, and by the gateway to the machine.
        assert_eq!(fetch("10.0.2.4", port).await, "hold fast");
        // A client that starts anew gets the same address.
        run_beside(format!("udhcpc -i eth0 -n -q -f -t 5 -T 1 -r 10.0.2.99 -s {script}")).await;
        assert!(fs::read_to_string(&said).unwrap().starts_with("10.0.2.15/24 "));
        assert_eq!(gateway.counters().dhcp_answers, 4);
        assert_eq!(gateway.counters().dhcp_invalid, 0);
    });
}

#[test]
fn f21_dhclient_gets_an_address_of_each_family_and_the_router_is_known() {
    behind_a_gateway(&["dhclient"], |gateway, _| async move {
        let folder = Folder::new("dhclient");
        let config = folder.path("config");
        fs::write(&config, "timeout 10;\n").unwrap();
        // `printenv` shows what the client was told.
        let script = folder.script(&format!(
            "#!/bin/sh\necho $reason $new_ip_address $new_routers $new_domain_name_servers \
             $new_ip6_address $new_dhcp6_name_servers >> {}\n",
            folder.path("said")
        ));
        for family in ["-4", "-6"] {
            let (leases, pid) = (folder.path("leases"), folder.path("pid"));
            fs::write(&leases, "").unwrap();
            let client =
                format!("dhclient {family} -1 -cf {config} -sf {script} -lf {leases} -pf {pid} eth0");
            run_beside(client).await;
            // It stays in the background to renew the lease.
            let pid = fs::read_to_string(&pid).unwrap();
            run(&format!("kill {}", pid.trim()));
        }
        let said = fs::read_to_string(folder.path("said")).unwrap();
        assert!(said.contains("BOUND 10.0.2.15 10.0.2.2 10.0.2.3"), "{said}");
        let v6 = said.lines().find(|line| line.starts_with("BOUND6 fd73:7465:6164:")).unwrap_or_default();
        assert!(v6.ends_with(" fd73:7465:6164::3"), "{said}");
        assert!(gateway.counters().dhcp_answers >= 4, "{:?}", gateway.counters());
        // The kernel of the guest has heard of the router, and made an address of the prefix.
        while !run("ip -6 route show default").contains("via fe80::") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let addresses = run("ip -6 address show dev eth0 dynamic");
        assert!(addresses.contains("inet6 fd73:7465:6164:0:"), "{addresses}");
    });
}

/// Where Debian has it: it is no program for users.
const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// Starts systemd-networkd with the folder `$0` as its `/run`. Where `/sys` can be written, it waits for udev.
const START_NETWORKD: &str = "\
set -e
mount -t sysfs -o ro sysfs /sys
mount --bind \"$0\" /run
cd /run
mkdir -p systemd/network systemd/netif/links systemd/netif/leases systemd/netif/lldp
chown -R systemd-network:systemd-network systemd/netif
printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=yes\\n' >systemd/network/eth0.network
exec \"$1\"";

/// A service that ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn f21_systemd_networkd_configures_an_interface_of_both_families() {
    behind_a_gateway(&["networkctl", "unshare"], |gateway, port| async move {
        let folder = Folder::new("networkd");
        // Its user must find the way.
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", START_NETWORKD]).arg(&folder.0).arg(NETWORKD);
        let _service = Service(command.spawn().unwrap());
        // It tells the kernel, by DHCP and as a host that hears of a router.
        for (question, expected) in [
            ("ip -4 -o address show dev eth0 dynamic", "inet 10.0.2.15/24 "),
            ("ip -4 route show default", "default via 10.0.2.2 dev eth0 proto dhcp src 10.0.2.15 "),
            ("ip -6 route show default", "default via fe80::"),
            // By DHCPv6, and of the prefix.
            ("ip -6 -o address show dev eth0 scope global", "/128 scope global "),
            ("ip -6 -o address show dev eth0 scope global", "/64 scope global "),
        ] {
            while !run(question).contains(expected) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(fetch("10.0.2.4", port).await, "hold fast");
        // It tells other programs.
        let link = run("ip -o link show dev eth0");
        let index = link.split(':').next().unwrap().to_owned();
        let lease = fs::read_to_string(folder.path(&format!("systemd/netif/leases/{index}"))).unwrap();
        for expected in
            ["ADDRESS=10.0.2.15", "NETMASK=255.255.255.0", "ROUTER=10.0.2.2", "DNS=10.0.2.3", "MTU=1500"]
        {
            assert!(lease.lines().any(|line| line == expected), "{expected}: {lease}");
        }
        let servers = || fs::read_to_string(folder.path(&format!("systemd/netif/links/{index}")));
        let is_told = |line: &str| line.starts_with("DNS=10.0.2.3 ") && line.ends_with(" fd73:7465:6164::3");
        while !servers().unwrap().lines().any(is_told) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(gateway.counters().dhcp_invalid, 0);
    });
}

const GUEST: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 9]);
const ROUTER: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 2]);

/// Options of a DHCP message by their numbers.
type Options = BTreeMap<u8, Vec<u8>>;

/// Broadcasts a message of a client without an address, with these options.
async fn ask(device: &mut MemoryDevice, options: &[(u8, &[u8])]) {
    let mut message = vec![0; 240];
    // A request over Ethernet, with a transaction id and an address of hardware.
    message[..8].copy_from_slice(&[1, 1, 6, 0, 0x5f, 0x11, 0xee, 0x07]);
    message[28..34].copy_from_slice(&GUEST.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    for (number, value) in options {
        message.extend([*number, value.len() as u8]);
        message.extend(*value);
    }
    message.push(255);
    let mut datagram = vec![0; udp::HEADER_LEN];
    udp::Header { source_port: 68, destination_port: 67, checksum: 0 }.emit(message.len(), &mut datagram);
    datagram.extend(message);
    let header = ipv4::Header::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, PROTOCOL_UDP);
    let [from, all] = [ethernet::Address(GUEST.0), ethernet::Address([255; 6])];
    let frame = ethernet::Header::new(from, all, ethernet::TYPE_IPV4);
    let frame = build::ethernet(&frame, &build::ipv4(&header, &datagram));
    poll_fn(|cx| device.poll_send(cx, Frame::new(&frame))).await.unwrap();
}

/// The address and the options of the answer, which goes to all.
async fn answered(device: &mut MemoryDevice) -> (Ipv4Addr, Options) {
    let mut buffer = [0; 1600];
    loop {
        let received = poll_fn(|cx| device.poll_recv(cx, &mut buffer)).await.unwrap();
        let (frame, packet) = ethernet::parse(&buffer[..received.len]).unwrap();
        // Beside it there are advertisements of a router.
        if frame.ethertype != ethernet::TYPE_IPV4 {
            continue;
        }
        let (header, datagram) = ipv4::parse(packet).unwrap();
        let (ports, message) = udp::parse(datagram).unwrap();
        assert_eq!((frame.source.0, frame.destination.0), (ROUTER.0, [255; 6]));
        assert_eq!((header.source.to_string(), header.destination), ("10.0.2.2".into(), Ipv4Addr::BROADCAST));
        assert_eq!((ports.source_port, ports.destination_port), (67, 68));
        assert_eq!(
            (&message[..8], &message[28..34]),
            (&[2, 1, 6, 0, 0x5f, 0x11, 0xee, 0x07][..], &GUEST.0[..])
        );
        let (mut options, mut rest) = (Options::new(), &message[240..]);
        while rest[0] != 255 {
            let len = usize::from(rest[1]);
            let twice = options.insert(rest[0], rest[2..2 + len].to_vec());
            assert_eq!(twice, None);
            rest = &rest[2 + len..];
        }
        return (Ipv4Addr::from(*message[16..].first_chunk::<4>().unwrap()), options);
    }
}

#[test]
fn f21_a_client_as_that_of_windows_gets_the_options_that_it_needs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = async {
        let (outside, mut guest) = memory::frames(1400, [ROUTER, GUEST]);
        let servers = Dns::Servers(vec!["127.0.0.1:53".parse().unwrap()]);
        let gateway = Gateway::builder().dns(servers).start(outside).await.unwrap();
        let (id, name, class) = ([&[1][..], &GUEST.0].concat(), b"DESKTOP-1", b"MSFT 5.0");
        let wanted = [1, 3, 6, 15, 31, 33, 43, 44, 46, 47, 119, 121, 249, 252];
        let expected = |kind: u8| {
            let lease = 86_400_u32.to_be_bytes().to_vec();
            let (mask, router, names) = (vec![255, 255, 255, 0], vec![10, 0, 2, 2], vec![10, 0, 2, 3]);
            let server = router.clone();
            let mtu = 1400_u16.to_be_bytes().to_vec();
            let all =
                [(1, mask), (3, router), (6, names), (26, mtu), (51, lease), (53, vec![kind]), (54, server)];
            Options::from(all)
        };
        let discover = [(53, &[1][..]), (61, &id), (12, name), (60, class), (55, &wanted)];
        ask(&mut guest, &discover).await;
        let (address, offer) = answered(&mut guest).await;
        assert_eq!((address, offer), (Ipv4Addr::new(10, 0, 2, 15), expected(2)));
        // The name of the host, for a server that would register it.
        let register = [&[0, 0, 0][..], name].concat();
        let request = [
            (53, &[3][..]),
            (61, &id),
            (50, &address.octets()),
            (54, &[10, 0, 2, 2]),
            (12, name),
            (81, &register),
            (60, class),
            (55, &wanted),
        ];
        ask(&mut guest, &request).await;
        assert_eq!(answered(&mut guest).await, (address, expected(5)));
        assert_eq!((gateway.counters().dhcp_answers, gateway.counters().dhcp_invalid), (2, 0));
    };
    runtime.block_on(async { timeout(Duration::from_secs(10), all).await.unwrap() });
}
