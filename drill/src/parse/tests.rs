use super::*;
use crate::ast::{Body, Direction, Quoted, TcpOption};

fn read(text: &str) -> Script {
    script(text, &BTreeMap::new(), IpVersion::V4).unwrap()
}

fn packet(text: &str) -> crate::ast::Packet {
    match read(&format!("0 {text}")).events.remove(0).action {
        Action::Packet(packet) => packet,
        other => panic!("{other:?}"),
    }
}

#[test]
fn times_of_all_kinds_are_read() {
    let script = read(
        "0.5 close(1)=0\n+.1 close(1)=0\n* close(1)=0\n1~2 close(1)=0\n+1~+2 close(1)=0\n+0...0.2 close(1)=0",
    );
    let times: Vec<_> = script.events.iter().map(|event| event.when).collect();
    let second = 1_000_000_000;
    let expected = [
        When::Absolute(second / 2),
        When::Relative(second / 10),
        When::Any,
        When::AbsoluteRange(second, 2 * second),
        When::RelativeRange(second, 2 * second),
        When::Relative(0),
    ];
    assert_eq!(times, expected);
    assert!(matches!(&script.events[5].action, Action::Call(call) if call.until == Some(second / 5)));
}

#[test]
fn a_segment_is_read_whole() {
    let packet = packet(
        "> [ect0, ttl 3] 1 > 2 SWE 5:6(1) ack 7 win 8 urg 9 <mss 1,sackOK,TS val 2 ecr 3,nop,wscale 4>",
    );
    assert_eq!((packet.direction, packet.ip.ttl), (Direction::Out, Some(3)));
    let Body::Tcp(tcp) = packet.body else { panic!() };
    assert_eq!((tcp.ports, tcp.flags, tcp.seq, tcp.len), (Some((1, 2)), 0xc2, 5, 1));
    assert_eq!((tcp.ack, tcp.window, tcp.urgent), (Some(7), Some(8), Some(9)));
    assert_eq!(tcp.options.unwrap().len(), 5);
}

#[test]
fn options_of_all_kinds_are_read() {
    let options = |text: &str| match packet(&format!("> . 1:1(0) <{text}>")).body {
        Body::Tcp(tcp) => tcp.options.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(options("nop,nop,sack 1:2 3:4")[2], TcpOption::Sack(vec![(1, 2), (3, 4)]));
    assert_eq!(options("FO aabb")[0], TcpOption::FastOpen(vec![0xaa, 0xbb]));
    assert_eq!(options("FO,nop,nop")[0], TcpOption::FastOpen(vec![]));
    assert_eq!(options("FOEXP")[0], TcpOption::Experiment(0xf989, vec![]));
    assert_eq!(options("exp-acce 01020304")[0], TcpOption::Experiment(0xacce, vec![1, 2, 3, 4]));
    assert_eq!(options("ECN e0b 1 ceb 0 e1b 2,nop")[0], TcpOption::AccEcn(172, vec![1, 0, 2]));
    assert_eq!(options("ECN e1b 1 ceb 0,eol,eol,eol,nop")[0], TcpOption::AccEcn(174, vec![1, 0]));
    assert_eq!(options("nop,nop,TS val ... ecr 3")[2], TcpOption::Timestamps { val: None, ecr: Some(3) });
}

#[test]
fn icmp_is_read_in_both_orders() {
    for text in [
        "< icmp unreachable frag_needed mtu 1200 [1:1461(1460)]",
        "< [1:1461(1460)] icmp unreachable frag_needed mtu 1200",
    ] {
        let Body::Icmp(icmp) = packet(text).body else { panic!() };
        assert_eq!((icmp.mtu, icmp.quoted), (Some(1200), Quoted::Tcp(1, 1460)));
    }
}

#[test]
fn an_icmp_line_ends_where_the_next_begins() {
    let script = read("0 < icmp source_quench\n+0 close(3) = 0");
    assert_eq!(script.events.len(), 2);
}

#[test]
fn names_that_are_defined_stand_for_their_values() {
    let script = read(
        "--define COOKIE=aabbccdd\n--define=N=7\n0 < S 0:0(0) win N <FO COOKIE,nop,nop>\n+0 close(N) = 0",
    );
    let Action::Call(call) = &script.events[1].action else { panic!() };
    assert_eq!(call.arguments, [Expression::Integer(7)]);
    assert!(
        matches!(&script.events[0].action, Action::Packet(packet) if matches!(&packet.body, Body::Tcp(tcp) if tcp.window == Some(7)))
    );
}

#[test]
fn commands_before_and_after_are_told_from_events() {
    let script = read("`a`\n`b`\n0 close(3) = 0\n+0 `c`\n`d`");
    assert_eq!((script.init.len(), script.events.len(), script.cleanup.len()), (2, 2, 1));
}
