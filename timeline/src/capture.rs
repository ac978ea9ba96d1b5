//! The packets of a timeline as a capture: one interface for each host, comments for state changes and faults.
//!
//! A capture of all hosts has each packet twice, where it left and where it arrived. That of one host has it once.

use crate::event::{Captured, Event, Fate};
use crate::{Timeline, pcapng};

/// Writes one section of a capture file. A file may hold several in sequence.
pub fn section(timeline: &Timeline, title: &str) -> Vec<u8> {
    section_of(timeline, title, None)
}

/// Like [`section`], with all hosts or only the one of this name.
pub fn section_of(timeline: &Timeline, title: &str, only: Option<&str>) -> Vec<u8> {
    let mut out = pcapng::section(title);
    let wanted = |host: usize| only.is_none_or(|only| timeline.hosts[host].name == only);
    // Interfaces are numbered within the section.
    let hosts: Vec<usize> = (0..timeline.hosts.len()).filter(|host| wanted(*host)).collect();
    for host in &hosts {
        out.extend(pcapng::interface(&timeline.hosts[*host].name));
    }
    let mut changes = Changes { timeline, next: 0 };
    for captured in &timeline.captured {
        let Some(interface) = hosts.iter().position(|host| *host == captured.host) else { continue };
        let mut comments = changes.before(captured);
        comments.extend(remarks(timeline, captured));
        out.extend(block(captured, interface as u32, &comments));
    }
    out
}

/// State changes; each is a comment on the next packet of its host.
struct Changes<'a> {
    timeline: &'a Timeline,
    next: usize,
}

impl Changes<'_> {
    fn before(&mut self, captured: &Captured) -> Vec<String> {
        let events = &self.timeline.events;
        // A sent packet follows the changes that caused it; a received one precedes the changes that it causes.
        let end = captured.event.filter(|_| captured.outbound);
        let mut comments = Vec::new();
        while let Some(event) = events.get(self.next) {
            let due = end.map_or(event.at() < captured.at, |end| self.next < end);
            if !due {
                break;
            }
            match event {
                Event::State { at, host, from, to, .. } => {
                    comments.push(format!("{at} {}: {from} > {to}", self.timeline.hosts[*host].name));
                }
                Event::Call { at, host, text } => {
                    comments.push(format!("{at} {}: {text}", self.timeline.hosts[*host].name));
                }
                Event::Note { at, host, text, .. } => {
                    let who = host.map_or("network", |host| self.timeline.hosts[host].name.as_str());
                    comments.push(format!("{at} {who}: {text}"));
                }
                Event::Packet(_) | Event::Info { .. } | Event::Listening { .. } => {}
            }
            self.next += 1;
        }
        comments
    }
}

fn remarks(timeline: &Timeline, captured: &Captured) -> Vec<String> {
    if !captured.outbound {
        return if captured.note.is_empty() { Vec::new() } else { vec![captured.note.clone()] };
    }
    let Some(Event::Packet(packet)) = captured.event.and_then(|event| timeline.events.get(event)) else {
        return Vec::new();
    };
    let remark = |fate: &Fate| match fate {
        Fate::Lost(why) => Some(format!("lost: {why}")),
        Fate::Arrived { note, .. } => Some(note.clone()).filter(|note| !note.is_empty()),
    };
    packet.fates.iter().filter_map(remark).collect()
}

fn block(captured: &Captured, interface: u32, comments: &[String]) -> Vec<u8> {
    pcapng::packet(&pcapng::Packet {
        nanos: captured.at.as_nanos(),
        interface,
        outbound: captured.outbound,
        bytes: &captured.bytes,
        len: captured.bytes.len() as u32,
        comments,
    })
}
