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
    /// The stack's initial sequence number: in the script, and on the wire.
    iss: Option<(u32, u32)>,
    /// The script's own, which goes out as it stands.
    irs: Option<u32>,
    /// Number and data of the last SYN of the script.
    last_syn: (u32, u32),
    /// The stack's timestamps: the script's value, and the value on the wire.
    timestamps: BTreeMap<u32, u32>,
    pub(crate) first_timestamp: Option<FirstTimestamp>,
    /// A SYN reached no connection, or one in TIME-WAIT. If the stack answers with a SYN, a new connection begins.
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
            iss: None,
            irs: None,
            last_syn: (0, 0),
            timestamps: BTreeMap::new(),
            first_timestamp: None,
            may_begin_again: false,
            window: 0,
            cookie: Vec::new(),
        }
    }

    /// Learns the stack's ISS: `script` in the script is `live` on the wire.
    pub(crate) fn learn_local(&mut self, script: u32, live: u32) {
        self.iss = Some((script, live));
    }

    /// Returns whether the stack's sequence numbers are known.
    pub(crate) fn knows_local(&self) -> bool {
        self.iss.is_some()
    }

    /// Records a SYN of the script. The first one sets the initial number, and so does one that `opens` a connection.
    pub(crate) fn note_syn(&mut self, seq: u32, len: u32, opens: bool) {
        self.last_syn = (seq, len);
        if opens || self.irs.is_none() {
            self.irs = Some(seq);
        }
    }

    /// Records that a SYN of the stack acknowledges this number on the wire.
    pub(crate) fn note_acknowledged(&mut self, ack: u32) {
        let (seq, len) = self.last_syn;
        if (1..=len.saturating_add(1)).contains(&ack.wrapping_sub(seq)) {
            self.irs = Some(seq);
        }
    }

    /// Forgets all that was learned of the stack: a new connection replaces the old one.
    pub(crate) fn begin_again(&mut self) {
        self.may_begin_again = false;
        self.iss = None;
        self.timestamps.clear();
        self.first_timestamp = None;
    }

    /// Converts a sequence number of the stack from the script to the wire. `syn`: it stands in a SYN.
    pub(crate) fn local_to_live(&self, script: u32, syn: bool) -> u32 {
        script.wrapping_add(self.local_offset(syn))
    }

    /// Converts a sequence number of the stack from the wire to the script. `syn`: it stands in a SYN.
    pub(crate) fn local_to_script(&self, live: u32, syn: bool) -> u32 {
        live.wrapping_sub(self.local_offset(syn))
    }

    fn local_offset(&self, syn: bool) -> u32 {
        self.iss.map_or(0, |(script, live)| if syn { live.wrapping_sub(script) } else { live })
    }

    /// Converts a sequence number of the script's direction from the script to the wire. `syn`: it stands in a SYN.
    pub(crate) fn remote_to_live(&self, script: u32, syn: bool) -> u32 {
        script.wrapping_add(self.remote_offset(syn))
    }

    /// Converts a sequence number of the script's direction from the wire to the script. `syn`: it stands in a SYN.
    pub(crate) fn remote_to_script(&self, live: u32, syn: bool) -> u32 {
        live.wrapping_sub(self.remote_offset(syn))
    }

    fn remote_offset(&self, syn: bool) -> u32 {
        self.irs.filter(|_| !syn).unwrap_or(0)
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

    // DRILL-L01
    #[test]
    fn only_a_syn_has_initial_numbers_and_all_others_count_from_them() {
        let mut flow = flow();
        assert_eq!((flow.local_to_live(7, false), flow.remote_to_live(7, false)), (7, 7));
        flow.learn_local(70, u32::MAX);
        flow.note_syn(500, 0, false);
        assert_eq!((flow.local_to_script(9, true), flow.local_to_live(71, true)), (80, 0));
        assert_eq!((flow.local_to_script(9, false), flow.local_to_live(10, false)), (10, 9));
        assert_eq!((flow.remote_to_live(501, true), flow.remote_to_script(501, true)), (501, 501));
        assert_eq!((flow.remote_to_live(1, false), flow.remote_to_script(501, false)), (501, 1));
    }

    // DRILL-L01
    #[test]
    fn a_later_syn_counts_once_it_opens_a_connection_or_is_acknowledged() {
        let mut flow = flow();
        let from = |flow: &Flow| flow.remote_to_live(0, false);
        flow.note_syn(500, 0, false);
        flow.note_syn(900, 3, false);
        assert_eq!(from(&flow), 500);
        [900, 905].into_iter().for_each(|ack| flow.note_acknowledged(ack));
        assert_eq!(from(&flow), 500);
        flow.note_acknowledged(904);
        assert_eq!(from(&flow), 900);
        flow.note_syn(40, 0, true);
        assert_eq!(from(&flow), 40);
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
