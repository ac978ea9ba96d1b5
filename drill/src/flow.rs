//! Maps a script's numbers to those on the wire: ports, sequence numbers, timestamps.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One connection between the script and the stack.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The stack's endpoint.
    pub(crate) local: SocketAddr,
    /// The script's endpoint.
    pub(crate) remote: SocketAddr,
    /// The ports in the script: its own, and the stack's.
    pub(crate) script_ports: Option<(u16, u16)>,
    /// Offset from the script's sequence numbers to those on the wire, for the stack's direction.
    local_offset: Option<u32>,
    /// The same for the script's direction.
    remote_offset: u32,
    /// The stack's timestamps: the script's value, and the value on the wire.
    timestamps: BTreeMap<u32, u32>,
    pub(crate) first_timestamp: Option<FirstTimestamp>,
    /// A SYN reached a connection in TIME-WAIT. If the stack answers with a SYN, a new connection begins.
    pub(crate) may_begin_again: bool,
    /// The last window field that the script sent.
    pub(crate) window: u16,
    /// The Fast Open cookie that the stack issued.
    pub(crate) cookie: Vec<u8>,
}

/// The first timestamp of the stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstTimestamp {
    pub(crate) script: u32,
    pub(crate) live: u32,
}

impl Flow {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr, script_ports: Option<(u16, u16)>) -> Flow {
        Flow {
            local,
            remote,
            script_ports,
            local_offset: None,
            remote_offset: 0,
            timestamps: BTreeMap::new(),
            first_timestamp: None,
            may_begin_again: false,
            window: 0,
            cookie: Vec::new(),
        }
    }

    /// Learns the stack's ISS: `script` in the script is `live` on the wire.
    pub(crate) fn learn_local(&mut self, script: u32, live: u32) {
        self.local_offset = Some(live.wrapping_sub(script));
    }

    /// Returns whether the stack's sequence numbers are known.
    pub(crate) fn knows_local(&self) -> bool {
        self.local_offset.is_some()
    }

    /// Forgets all that was learned: a new connection replaces the old one.
    pub(crate) fn begin_again(&mut self) {
        self.may_begin_again = false;
        self.local_offset = None;
        self.timestamps.clear();
        self.first_timestamp = None;
    }

    /// Converts a sequence number of the stack from the script to the wire.
    pub(crate) fn local_to_live(&self, script: u32) -> u32 {
        script.wrapping_add(self.local_offset.unwrap_or(0))
    }

    /// Converts a sequence number of the stack from the wire to the script.
    pub(crate) fn local_to_script(&self, live: u32) -> u32 {
        live.wrapping_sub(self.local_offset.unwrap_or(0))
    }

    /// Converts a sequence number of the script's direction from the script to the wire.
    pub(crate) fn remote_to_live(&self, script: u32) -> u32 {
        script.wrapping_add(self.remote_offset)
    }

    /// Converts a sequence number of the script's direction from the wire to the script.
    pub(crate) fn remote_to_script(&self, live: u32) -> u32 {
        live.wrapping_sub(self.remote_offset)
    }

    /// Learns a timestamp of the stack: `script` in the script is `live` on the wire.
    pub(crate) fn learn_timestamp(&mut self, script: u32, live: u32) {
        self.timestamps.insert(script, live);
        self.first_timestamp.get_or_insert(FirstTimestamp { script, live });
    }

    /// Returns the timestamp to echo to the stack where the script has `script`.
    pub(crate) fn echo_to_live(&self, script: u32) -> u32 {
        if let Some(live) = self.timestamps.get(&script) {
            return *live;
        }
        let nearest = self.timestamps.range(..script).next_back().or(self.timestamps.iter().next());
        nearest.map_or(script, |(known, live)| script.wrapping_sub(*known).wrapping_add(*live))
    }

    /// Returns the script's value for a timestamp of the stack. One that the script has not named is derived from the
    /// first.
    pub(crate) fn timestamp_to_script(&self, live: u32) -> u32 {
        let named = self.timestamps.iter().find(|(_, known)| **known == live).map(|(script, _)| *script);
        let first = self.first_timestamp.as_ref();
        named.or(first.map(|first| live.wrapping_sub(first.live).wrapping_add(first.script))).unwrap_or(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let end = |port| SocketAddr::from(([192, 0, 2, 1], port));
        Flow::new(end(1), end(2), None)
    }

    #[test]
    fn the_stacks_numbers_are_learnt_and_wrap() {
        let mut flow = flow();
        flow.learn_local(0, u32::MAX);
        assert_eq!((flow.local_to_script(9), flow.local_to_live(10)), (10, 9));
        assert_eq!((flow.remote_to_live(7), flow.remote_to_script(7)), (7, 7));
    }

    #[test]
    fn an_echo_of_a_named_timestamp_is_what_the_stack_sent() {
        let mut flow = flow();
        flow.learn_timestamp(100, 5000);
        flow.learn_timestamp(200, 5010);
        assert_eq!((flow.echo_to_live(100), flow.echo_to_live(200)), (5000, 5010));
        assert_eq!(flow.echo_to_live(203), 5013);
        assert_eq!(flow.timestamp_to_script(5010), 200);
    }
}
