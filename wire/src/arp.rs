//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use super::ethernet::{Address, TYPE_IPV4};
use super::u32_at;

/// Length of a packet, in bytes.
pub const LEN: usize = 28;

/// Hardware type 1, EtherType of IPv4, and the lengths of both kinds of addresses.
const KIND: u64 = 0x0001 << 32 | (TYPE_IPV4 as u64) << 16 | 0x0604;

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's hardware address.
    pub sender_hardware: Address,
    /// The sender's address. Unspecified in a probe, which claims no address yet (RFC 5227 §1.1).
    pub sender: Ipv4Addr,
    /// The target's hardware address. A request leaves it unspecified.
    pub target_hardware: Address,
    /// The target's address. An announcement has that of the sender (RFC 5227 §1.1).
    pub target: Ipv4Addr,
}

/// Returns the packet at the start of `payload`, which padding may follow. `None`: too short, another operation, or no
/// addresses of Ethernet and IPv4.
pub fn parse(payload: &[u8]) -> Option<Packet> {
    let fixed = payload.first_chunk::<LEN>()?;
    let kind = u64::from(u32_at(fixed, 0)) << 16 | u64::from(u32_at(fixed, 4) >> 16);
    if kind != KIND {
        return None;
    }
    let operation = match u32_at(fixed, 4) & 0xffff {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return None,
    };
    let hardware =
        |at: usize| fixed[at..].first_chunk().map_or(Address::UNSPECIFIED, |bytes| Address(*bytes));
    let address = |at: usize| Ipv4Addr::from_bits(u32_at(fixed, at));
    Some(Packet {
        operation,
        sender_hardware: hardware(8),
        sender: address(14),
        target_hardware: hardware(18),
        target: address(24),
    })
}

impl Packet {
    /// Returns the question of `sender` for the hardware address of `target`.
    pub const fn request(hardware: Address, sender: Ipv4Addr, target: Ipv4Addr) -> Packet {
        Packet {
            operation: Operation::Request,
            sender_hardware: hardware,
            sender,
            target_hardware: Address::UNSPECIFIED,
            target,
        }
    }

    /// Returns the answer of the host with this hardware address, which has the target address of the request.
    pub const fn answer(&self, hardware: Address) -> Packet {
        Packet {
            operation: Operation::Reply,
            sender_hardware: hardware,
            sender: self.target,
            target_hardware: self.sender_hardware,
            target: self.sender,
        }
    }

    /// Writes [`LEN`] bytes.
    ///
    /// The buffer must hold that many bytes. Otherwise nothing is written (a debug build asserts).
    pub fn emit(&self, buffer: &mut [u8]) {
        let Some(out) = buffer.first_chunk_mut::<LEN>() else {
            debug_assert!(false, "no room for an ARP packet");
            return;
        };
        let operation: u64 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        out[0..8].copy_from_slice(&(KIND << 16 | operation).to_be_bytes());
        out[8..14].copy_from_slice(&self.sender_hardware.0);
        out[14..18].copy_from_slice(&self.sender.octets());
        out[18..24].copy_from_slice(&self.target_hardware.0);
        out[24..28].copy_from_slice(&self.target.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacketSlice};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const HERE: Address = Address([2, 0, 0, 0, 0, 1]);
    const THERE: Address = Address([2, 0, 0, 0, 0, 2]);

    fn emitted(packet: &Packet) -> Vec<u8> {
        let mut bytes = vec![0xee; LEN];
        packet.emit(&mut bytes);
        bytes
    }

    #[test]
    fn an_answer_goes_to_who_asked_and_names_what_was_asked_for() {
        let (asker, asked) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let request = Packet::request(HERE, asker, asked);
        assert_eq!(parse(&emitted(&request)), Some(request));
        let answer = request.answer(THERE);
        assert_eq!(answer.operation, Operation::Reply);
        assert_eq!((answer.sender_hardware, answer.sender), (THERE, asked));
        assert_eq!((answer.target_hardware, answer.target), (HERE, asker));
        assert_eq!(parse(&emitted(&answer)), Some(answer));
    }

    #[test]
    fn other_networks_and_operations_are_nothing() {
        let request =
            emitted(&Packet::request(HERE, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)));
        for at in 0..8 {
            let mut other = request.clone();
            other[at] ^= 0x40;
            assert_eq!(parse(&other), None, "byte {at}");
        }
        assert_eq!(parse(&request[..LEN - 1]), None);
        for operation in [0, 3, 8] {
            let mut other = request.clone();
            other[7] = operation;
            assert_eq!(parse(&other), None, "operation {operation}");
        }
    }

    proptest! {
        #[test]
        fn packets_are_those_of_etherparse(
            (sender_hardware, target_hardware) in any::<([u8; 6], [u8; 6])>(),
            (sender, target) in any::<([u8; 4], [u8; 4])>(),
            request: bool,
            padding in vec(any::<u8>(), 0..20),
        ) {
            let packet = Packet {
                operation: if request { Operation::Request } else { Operation::Reply },
                sender_hardware: Address(sender_hardware),
                sender: sender.into(),
                target_hardware: Address(target_hardware),
                target: target.into(),
            };
            let theirs = ArpEthIpv4Packet {
                operation: if request { ArpOperation::REQUEST } else { ArpOperation::REPLY },
                sender_mac: sender_hardware,
                sender_ipv4: sender,
                target_mac: target_hardware,
                target_ipv4: target,
            };
            let mut bytes = emitted(&packet);
            prop_assert_eq!(&bytes[..], &theirs.to_bytes()[..]);
            prop_assert_eq!(ArpPacketSlice::from_slice(&bytes).unwrap().hw_addr_type(), ArpHardwareId::ETHERNET);
            bytes.extend(padding);
            prop_assert_eq!(parse(&bytes), Some(packet));
        }

        #[test]
        fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..40), valid: bool) {
            if valid && bytes.len() >= LEN {
                bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
                prop_assert!(parse(&bytes).is_some());
            }
            let _ = parse(&bytes);
        }
    }
}
