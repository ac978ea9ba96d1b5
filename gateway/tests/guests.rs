//! Guests with the clients of DHCP that people have, behind a veth pair in a network namespace of the test.
#![cfg(target_os = "linux")]

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use steadfast::device::PacketSocket;
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
fn udhcpc_gets_an_address_and_the_guest_reaches_the_machine() {
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
fn dhclient_gets_an_address_of_each_family_and_the_router_is_known() {
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
