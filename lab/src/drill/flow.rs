//! What a script's numbers mean on the wire: ports, sequence numbers, timestamps.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One connection between the script and the stack.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The stack's end.
    pub(crate) local: SocketAddr,
    /// The script's end.
    pub(crate) remote: SocketAddr,
    /// The ports that the script gave: the script's, the stack's.
    pub(crate) script_ports: Option<(u16, u16)>,
    /// From the script's numbers to those on the wire, of what the stack sends.
    local_offset: Option<u32>,
    /// Of what the script sends.
    remote_offset: u32,
    /// The stack's clock: what the script calls it, and what it is.
    timestamps: BTreeMap<u32, u32>,
    pub(crate) first_timestamp: Option<FirstTimestamp>,
    /// A SYN reached a connection in TIME-WAIT: the stack's SYN, if it answers with one, begins anew.
    pub(crate) may_begin_again: bool,
    /// The script gave this window last.
    pub(crate) window: u16,
    /// The Fast Open cookie that the stack gave.
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

    /// The stack's SYN: what the script calls `script` is `live`.
    pub(crate) fn learn_local(&mut self, script: u32, live: u32) {
        self.local_offset = Some(live.wrapping_sub(script));
    }

    /// Whether a segment of the stack told its sequence numbers.
    pub(crate) fn knows_local(&self) -> bool {
        self.local_offset.is_some()
    }

    /// Forgets what was learnt: a new connection takes the place of the old one.
    pub(crate) fn begin_again(&mut self) {
        self.may_begin_again = false;
        self.local_offset = None;
        self.timestamps.clear();
        self.first_timestamp = None;
    }

    /// On the wire, a number of the stack's.
    pub(crate) fn local_to_live(&self, script: u32) -> u32 {
        script.wrapping_add(self.local_offset.unwrap_or(0))
    }

    /// In the script, a number of the stack's.
    pub(crate) fn local_to_script(&self, live: u32) -> u32 {
        live.wrapping_sub(self.local_offset.unwrap_or(0))
    }

    /// On the wire, a number of the script's own.
    pub(crate) fn remote_to_live(&self, script: u32) -> u32 {
        script.wrapping_add(self.remote_offset)
    }

    /// In the script, a number of the script's own.
    pub(crate) fn remote_to_script(&self, live: u32) -> u32 {
        live.wrapping_sub(self.remote_offset)
    }

    /// The stack sent a timestamp that the script calls `script`.
    pub(crate) fn learn_timestamp(&mut self, script: u32, live: u32) {
        self.timestamps.insert(script, live);
        self.first_timestamp.get_or_insert(FirstTimestamp { script, live });
    }

    /// What the stack is told of its own clock where the script says `script`.
    pub(crate) fn echo_to_live(&self, script: u32) -> u32 {
        if let Some(live) = self.timestamps.get(&script) {
            return *live;
        }
        let nearest = self.timestamps.range(..script).next_back().or(self.timestamps.iter().next());
        nearest.map_or(script, |(known, live)| script.wrapping_sub(*known).wrapping_add(*live))
    }

    /// What the script would call a timestamp of the stack that it has not named.
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
