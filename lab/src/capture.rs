//! The capture of a run: one interface for each host, comments for state changes and faults.

use steadfast_timeline::pcapng;

use crate::network::Network;
use crate::record::{Captured, Entry, Fate};

/// Writes one section of a capture file. A file may hold several in sequence.
pub(crate) fn section(network: &Network, title: &str) -> Vec<u8> {
    let mut out = pcapng::section(title);
    for name in &network.names {
        out.extend(pcapng::interface(name));
    }
    let mut changes = Changes { network, next: 0 };
    for captured in network.record.captures.iter().flatten() {
        let mut comments = changes.before(captured);
        comments.extend(remarks(network, captured));
        out.extend(block(captured, &comments));
    }
    out
}

/// State changes; each is a comment on the next packet of its host.
struct Changes<'a> {
    network: &'a Network,
    next: usize,
}

impl Changes<'_> {
    fn before(&mut self, captured: &Captured) -> Vec<String> {
        let entries = &self.network.record.entries;
        // A sent packet follows the changes that caused it; a received one precedes the changes that it causes.
        let end = captured.entry.filter(|_| captured.outbound);
        let mut comments = Vec::new();
        while let Some(entry) = entries.get(self.next) {
            let due = end.map_or(entry.at() < captured.at, |end| self.next < end);
            if !due {
                break;
            }
            match entry {
                Entry::State { at, host, from, to, .. } => {
                    comments.push(format!("{at} {}: {from} > {to}", self.network.names[*host]));
                }
                Entry::Note { at, host, text, .. } => {
                    let who = host.map_or("network", |host| self.network.names[host].as_str());
                    comments.push(format!("{at} {who}: {text}"));
                }
                Entry::Segment(_) | Entry::Listening { .. } => {}
            }
            self.next += 1;
        }
        comments
    }
}

fn remarks(network: &Network, captured: &Captured) -> Vec<String> {
    if !captured.outbound {
        return if captured.note.is_empty() { Vec::new() } else { vec![captured.note.clone()] };
    }
    let Some(Entry::Segment(segment)) = captured.entry.and_then(|entry| network.record.entries.get(entry))
    else {
        return Vec::new();
    };
    let remark = |fate: &Fate| match fate {
        Fate::Lost(why) => Some(format!("lost: {why}")),
        Fate::Arrived { note, .. } => Some(note.clone()).filter(|note| !note.is_empty()),
    };
    segment.fates.iter().filter_map(remark).collect()
}

fn block(captured: &Captured, comments: &[String]) -> Vec<u8> {
    pcapng::packet(&pcapng::Packet {
        nanos: captured.at.as_nanos(),
        interface: captured.host as u32,
        outbound: captured.outbound,
        bytes: &captured.bytes,
        comments,
    })
}
