//! Counters of the gateway.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The events of a gateway since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counts {
            pub(crate) fn now(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counters {
            /// Each counter's name and value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// TCP connections that guests asked for.
    tcp_requests,
    /// Those that a rule refused.
    tcp_denied,
    /// Those whose dial failed.
    tcp_failed,
    /// Those that the guest gave up before the dial was done.
    tcp_abandoned,
    /// Those that were connected.
    tcp_connected,
    /// Connections that a reset or an error ended, on either side.
    tcp_broken,
    /// Bytes from guests over TCP.
    tcp_bytes_out,
    /// Bytes to guests over TCP.
    tcp_bytes_in,
    /// Connections of clients to forwarded ports.
    forward_connections,
    /// Those that the guest refused, or did not answer.
    forward_failed,
    /// Pauses of a forwarded port, since there was no file descriptor for the next client.
    forward_pauses,
    /// Datagrams of UDP from guests, beside queries of names.
    udp_out,
    /// Datagrams to guests.
    udp_in,
    /// Datagrams to guests that were lost, since too many waited.
    udp_dropped,
    /// Errors about their datagrams that guests were told.
    udp_errors,
    /// Sockets of guests that got one of the kernel.
    udp_mappings,
    /// Those that lost it to a newer one, at the limit of them.
    udp_evicted,
    /// Echo requests from guests.
    echo_out,
    /// Echo replies to guests.
    echo_in,
    /// Echo requests that the machine forbids (`net.ipv4.ping_group_range`).
    echo_forbidden,
    /// Answers of DHCP for IPv4 and IPv6.
    dhcp_answers,
    /// Datagrams to the servers of DHCP that are no messages of clients.
    dhcp_invalid,
    /// Queries of names over UDP.
    dns_queries,
    /// Queries that no server answered.
    dns_failed,
    /// Queries beyond the limit of those in flight, which were dropped.
    dns_dropped,
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
