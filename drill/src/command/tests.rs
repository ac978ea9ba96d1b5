use steadfast_core::Profile;
use steadfast_core::config::EcnMode;

use super::*;
use crate::simulated::Simulated;
use crate::subject::{Addresses, Reply, Request, Subject, SubjectEvent};

fn subject() -> Simulated {
    let [local, remote] = [[192, 168, 0, 1].into(), [192, 0, 2, 1].into()];
    Simulated::new(Profile::Default, &Addresses { local, prefix_len: 16, remote, mtu: 1500 })
}

fn run_on(subject: &mut Simulated, text: &str) -> Result<Done, Refused> {
    run(text, subject, &|path| (path == "../common/defaults.sh").then(|| SETUP.to_owned()))
}

const SETUP: &str =
    "#!/bin/sh\n# all\nsysctl -q net.ipv4.tcp_sack=0 \\\n  net.ipv4.tcp_wmem=\"4096 20000 30000\"\nexit 0\n";

#[test]
fn sysctls_of_both_systems_are_set() {
    let mut subject = subject();
    run_on(&mut subject, "sysctl -w net.ipv4.tcp_syn_retries=2 net.ipv4.tcp_timestamps=0").unwrap();
    run_on(&mut subject, "sysctl net.inet.tcp.delacktime=30; sysctl net.inet.tcp.rexmit_initial=500")
        .unwrap();
    run_on(&mut subject, "./set_sysctls.py /proc/sys/net/ipv4/tcp_ecn=1").unwrap();
    let config = subject.stack().config();
    assert_eq!((config.tcp_syn_retries, config.tcp_timestamps, config.tcp_ecn), (2, false, EcnMode::On));
    assert_eq!((config.tcp_delack.as_millis(), config.tcp_rto_initial.as_millis()), (30, 500));
}

#[test]
fn a_set_up_script_is_read_from_its_file() {
    let mut subject = subject();
    run_on(&mut subject, "../common/defaults.sh").unwrap();
    assert_eq!((subject.stack().config().tcp_sack, subject.stack().config().tcp_sndbuf), (false, 20_000));
    assert!(matches!(run_on(&mut subject, "../common/other.sh"), Err(Refused::Skip(_))));
}

#[test]
fn sums_and_products_are_worked_out() {
    let mut subject = subject();
    let text = "sysctl -q net.ipv4.tcp_rmem=\"4096 $((2*1024 + 1)) $((15*1024*1024))\" > /dev/null 2>&1";
    run_on(&mut subject, text).unwrap();
    let config = subject.stack().config();
    // Half of it is the window. DRILL-X35
    assert_eq!((config.tcp_rcvbuf, config.tcp_rcvbuf_max), (1024, 15 << 20));
    assert!(matches!(run_on(&mut subject, "sysctl net.ipv4.tcp_ecn=$((1/0))"), Err(Refused::Skip(_))));
}

#[test]
fn what_cannot_be_mapped_is_said() {
    let mut subject = subject();
    let skip = |text: &str| Err(Refused::Skip(text.to_owned()));
    assert_eq!(
        run_on(&mut subject, "sysctl -w net.ipv4.udp_x=1"),
        skip("sysctl net.ipv4.udp_x cannot be mapped")
    );
    assert_eq!(run_on(&mut subject, "rm -rf /"), skip("the command `rm -rf /` is not interpreted"));
    let notes = run_on(&mut subject, "sysctl net.ipv4.tcp_recovery=1").unwrap().notes;
    assert_eq!(notes, ["sysctl net.ipv4.tcp_recovery: nothing of the kind is set here"]);
    assert!(matches!(run_on(&mut subject, "sysctl net.ipv4.tcp_ecn=9"), Err(Refused::Skip(_))));
}

#[test]
fn sockets_are_looked_for_by_their_state() {
    let mut subject = subject();
    subject.call(Request::Socket { ipv6: false, nonblocking: false });
    let Some(SubjectEvent::Returned { result: Ok(Ok(Reply::Descriptor(fd))), .. }) = subject.next_event()
    else {
        panic!()
    };
    subject.call(Request::Listen { fd, backlog: 1 });
    assert!(run_on(&mut subject, "sockstat -4 -P tcp | grep -c LISTEN | grep 1").is_ok());
    assert!(matches!(run_on(&mut subject, "sockstat | grep -c LISTEN | grep 2"), Err(Refused::Failed(_))));
    assert!(matches!(run_on(&mut subject, "sockstat | grep ESTABLISHED"), Err(Refused::Failed(_))));
}
