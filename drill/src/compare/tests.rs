//! Packets with a flipped bit, which our own stack never sends and scripts cannot produce.

use steadfast_core::wire::checksum::{Sum, pseudo_header};

use super::*;

const LOCAL: [&str; 2] = ["192.168.0.1:8080", "[fd3d::1]:8080"];
const REMOTE: [&str; 2] = ["192.0.2.1:40000", "[2001:db8::1]:40000"];

/// `P. 1:11(10) ack 1 win 1000` as the stack would send it, its specification and its flow.
fn sound(version: usize) -> (Vec<u8>, Tcp, Flow) {
    let spec = Tcp {
        ports: None,
        flags: ACK | 1 << 3,
        scale: Scale::Initial,
        seq: 1,
        len: 10,
        ack: Some(1),
        window: Some(1000),
        urgent: None,
        options: Some(Vec::new()),
    };
    let (local, remote) = (LOCAL[version].parse().unwrap(), REMOTE[version].parse().unwrap());
    let reversed = Flow::new(remote, local, None);
    let bytes = build::segment(&spec, &IpInfo::default(), &reversed);
    (bytes, spec, Flow::new(local, remote, None))
}

/// Changes a packet, and returns the names of the fields that differ. With `repair`, fixes the checksums first.
fn wrong(version: usize, repair: bool, change: impl Fn(&mut Vec<u8>, usize)) -> Vec<&'static str> {
    let (mut bytes, spec, flow) = sound(version);
    let tcp_at = [20, 40][version];
    change(&mut bytes, tcp_at);
    if repair {
        fix_checksums(&mut bytes, tcp_at, &flow);
    }
    let live = ParsedPacket::parse(&bytes).unwrap();
    let fields = segment(&spec, &IpInfo::default(), &live, &flow, Rules::default());
    fields.iter().filter(|field| !field.right).map(|field| field.name).collect()
}

fn fix_checksums(bytes: &mut [u8], tcp_at: usize, flow: &Flow) {
    let (header, tcp) = bytes.split_at_mut(tcp_at);
    if tcp_at == 20 {
        header[10..12].fill(0);
        let mut sum = Sum::new();
        sum.add_bytes(header);
        header[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    }
    tcp[16..18].fill(0);
    let mut sum = pseudo_header(flow.local.ip(), flow.remote.ip(), 6, tcp.len() as u32);
    sum.add_bytes(tcp);
    let checksum = sum.finish();
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn a_sound_segment_is_right_in_every_field() {
    for version in [0, 1] {
        assert!(wrong(version, false, |_, _| ()).is_empty());
        assert!(wrong(version, true, |_, _| ()).is_empty());
    }
}

#[test]
fn each_field_of_tcp_is_compared() {
    for version in [0, 1] {
        let flip = |at: usize, bit: u8| wrong(version, true, move |bytes, tcp| bytes[tcp + at] ^= bit);
        assert_eq!(flip(0, 1), ["source port"]);
        assert_eq!(flip(2, 1), ["destination port"]);
        assert_eq!(flip(7, 1), ["sequence number"]);
        assert_eq!(flip(11, 1), ["acknowledgment number"]);
        for reserved in [2, 4, 8] {
            assert_eq!(flip(12, reserved), ["flags"], "a reserved bit");
        }
        for flag in 0..8 {
            let names = flip(13, 1 << flag);
            assert!(names.contains(&"flags"), "flag {flag}: {names:?}");
        }
        assert_eq!(flip(15, 1), ["window"]);
        assert_eq!(flip(19, 1), ["urgent pointer"]);
        assert_eq!(flip(29, 1), ["payload"]);
        // Six words of header: the first four bytes of the payload become padding.
        let longer = wrong(version, true, |bytes, tcp| bytes[tcp + 12] = 6 << 4);
        assert_eq!(longer, ["length of data", "order of options", "data offset"]);
        let checksum = wrong(version, false, |bytes, tcp| bytes[tcp + 16] ^= 1);
        assert_eq!(checksum, ["TCP checksum"]);
    }
}

#[test]
fn each_field_of_ip_is_compared() {
    assert_eq!(wrong(0, false, |bytes, _| bytes[10] ^= 1), ["IP checksum"]);
    assert_eq!(wrong(0, true, |bytes, _| bytes[3] += 1), ["total length"]);
    assert_eq!(wrong(1, true, |bytes, _| bytes[5] += 1), ["total length"]);
    assert_eq!(wrong(0, true, |bytes, _| bytes.truncate(49)), ["length of data", "total length"]);
    assert_eq!(wrong(0, true, |bytes, _| bytes[9] = 17), ["protocol"]);
    let source = wrong(1, false, |bytes, _| bytes[23] ^= 2);
    assert_eq!(source, ["source address", "TCP checksum"]);
    let destination = wrong(1, false, |bytes, _| bytes[39] ^= 2);
    assert_eq!(destination, ["destination address", "TCP checksum"]);
    let options = wrong(0, false, |bytes, tcp| {
        bytes.splice(tcp..tcp, [1, 1, 1, 0]);
        bytes[0] = 0x46;
        bytes[3] += 4;
        let mut sum = Sum::new();
        bytes[10..12].fill(0);
        sum.add_bytes(&bytes[..24]);
        let checksum = sum.finish();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    });
    assert_eq!(options, ["IP header length"]);
    let (other, _, _) = sound(1);
    assert!(
        wrong(0, false, |bytes, _| *bytes = other.clone()).starts_with(&["IP version", "IP header length"])
    );
}
