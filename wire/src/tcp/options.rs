//! TCP options: RFC 9293 §3.2 (MSS), RFC 7323 §2, §3 (window scale, timestamps), RFC 2018 §2, §3 (SACK) and
//! RFC 7413 §4.1.1 (Fast Open), with its experimental form (RFC 6994).

use super::{Error, MAX_OPTIONS_LEN};
use crate::seq::SeqNum;
use crate::u32_at;
use std::fmt;

const KIND_END: u8 = 0;
const KIND_NOP: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_WINDOW_SCALE: u8 = 3;
const KIND_SACK_PERMITTED: u8 = 4;
const KIND_SACK: u8 = 5;
const KIND_TIMESTAMPS: u8 = 8;
const KIND_FAST_OPEN: u8 = 34;
const KIND_EXPERIMENT: u8 = 254;
/// The identifier of Fast Open among the experiments.
const FAST_OPEN_EXPERIMENT: [u8; 2] = [0xf9, 0x89];

/// The start of the usual options of a segment: NOP, NOP, timestamps (RFC 7323 appendix A).
const TIMESTAMPS_ALONE: [u8; 4] = [KIND_NOP, KIND_NOP, KIND_TIMESTAMPS, 10];
const TIMESTAMPS_ALONE_LEN: usize = 12;

/// The options of a SYN from Linux or from this stack, as words with all values 0: MSS; SACK permitted and timestamps,
/// whose two values follow; NOP and window scale.
const USUAL_MSS: u32 = 0x0204_0000;
const USUAL_SACK_AND_TIMESTAMPS: u32 = 0x0402_080a;
const USUAL_WINDOW_SCALE: u32 = 0x0103_0300;
const USUAL_SYN_LEN: usize = 20;

/// The timestamps option (RFC 7323 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock, in its own unit.
    pub val: u32,
    /// The echo of the receiver's clock; only meaningful with ACK.
    pub ecr: u32,
}

/// The blocks of a SACK option, up to four: the first sequence number and the one after the last (RFC 2018 §3).
#[derive(Clone, Copy, Debug, Default)]
pub struct SackBlocks {
    blocks: [(SeqNum, SeqNum); SackBlocks::MAX],
    len: u8,
}

impl SackBlocks {
    /// The most blocks that fit into a header.
    pub const MAX: usize = 4;

    /// Returns an empty list.
    #[inline]
    pub const fn new() -> SackBlocks {
        SackBlocks { blocks: [(SeqNum(0), SeqNum(0)); SackBlocks::MAX], len: 0 }
    }

    /// Appends `[left, right)`. Returns false and appends nothing if there are four already.
    pub fn push(&mut self, left: SeqNum, right: SeqNum) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *slot = (left, right);
        self.len += 1;
        true
    }

    /// Keeps the first `most` blocks.
    pub fn truncate(&mut self, most: usize) {
        self.len = self.len.min(most.min(SackBlocks::MAX) as u8);
    }

    /// Returns the blocks in the order of the option.
    #[inline]
    pub fn as_slice(&self) -> &[(SeqNum, SeqNum)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Iterates over the blocks in the order of the option.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SeqNum, SeqNum)> + '_ {
        self.as_slice().iter().copied()
    }

    /// Returns the number of blocks.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns whether there are no blocks.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &SackBlocks) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

/// A Fast Open cookie of 4 to 16 bytes, an even number. An empty cookie requests one (RFC 7413 §4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// Zero past `len`.
    bytes: [u8; Cookie::MAX_LEN],
    len: u8,
    /// See [`is_experiment`](Cookie::is_experiment).
    experiment: bool,
}

impl Cookie {
    /// The longest cookie, in bytes.
    pub const MAX_LEN: usize = 16;

    /// Returns `None` if the option does not allow a cookie of this length.
    pub fn new(cookie: &[u8]) -> Option<Cookie> {
        if !matches!(cookie.len(), 0 | 4 | 6 | 8 | 10 | 12 | 14 | 16) {
            return None;
        }
        let mut bytes = [0; Cookie::MAX_LEN];
        bytes[..cookie.len()].copy_from_slice(cookie);
        Some(Cookie { bytes, len: cookie.len() as u8, experiment: false })
    }

    /// Returns the cookie as one that is carried by the experimental option (kind 254, RFC 6994), or by that of RFC 7413.
    #[must_use]
    pub const fn carried_by_experiment(self, experiment: bool) -> Cookie {
        Cookie { experiment, ..self }
    }

    /// Returns whether the experimental option carries it.
    #[inline]
    pub const fn is_experiment(&self) -> bool {
        self.experiment
    }

    /// Returns the cookie; empty in a request.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Returns whether this is a request for a cookie.
    #[inline]
    pub const fn is_request(&self) -> bool {
        self.len == 0
    }
}

/// The options of a segment that this stack knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size that the sender of the option can receive, in bytes. On SYN only.
    pub mss: Option<u16>,
    /// The shift as received; above 14 it counts as 14 (RFC 7323 §2.3). On SYN only.
    pub window_scale: Option<u8>,
    /// The peer may send SACK. On SYN only.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks; empty if the option is absent.
    pub sack: SackBlocks,
    /// Fast Open cookie, or a request for one. On SYN only.
    pub fast_open: Option<Cookie>,
    /// Order and padding when the options are emitted.
    pub layout: OptionLayout,
}

/// The system whose order and padding a SYN imitates. Other segments do not differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OptionLayout {
    /// `mss,sackOK,TS,nop,wscale`; NOPs pad.
    #[default]
    Linux,
    /// `mss,nop,wscale,sackOK,TS`; end-of-list pads the rest.
    FreeBsd,
}

impl Options {
    /// Reads the bytes between the fixed header and the payload.
    ///
    /// Options may begin at any byte (RFC 9293 §3.2). An unknown option is skipped by its length (RFC 9293 §3.1), the
    /// first of a repeated option counts, and nothing is read past an end-of-list. Each turn takes at least one byte.
    ///
    /// # Errors
    ///
    /// [`Options`](Error::Options): an option of length 0 or 1 or past the end, or a known one of wrong length.
    // MUST-64, MUST-6
    pub fn parse(bytes: &[u8]) -> Result<Options, Error> {
        let mut options = Options::default();
        options.read(bytes)?;
        Ok(options)
    }

    /// Like [`parse`](Options::parse), into default options.
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match bytes.split_first_chunk() {
            Some((&TIMESTAMPS_ALONE, data)) if data.len() == 8 => {
                self.timestamps = Some(Timestamps { val: u32_at(data, 0), ecr: u32_at(data, 4) });
                Ok(())
            }
            _ if self.read_usual_syn(bytes).is_some() => Ok(()),
            _ => self.read_each(bytes),
        }
    }

    /// Returns `None` and reads nothing if these are other options.
    #[inline]
    fn read_usual_syn(&mut self, bytes: &[u8]) -> Option<()> {
        let [mss, sack_and_timestamps, val, ecr, scale] = words_of(bytes)?;
        let usual = mss >> 16 == USUAL_MSS >> 16
            && sack_and_timestamps == USUAL_SACK_AND_TIMESTAMPS
            && scale >> 8 == USUAL_WINDOW_SCALE >> 8;
        if !usual {
            return None;
        }
        (self.mss, self.sack_permitted) = (Some(mss as u16), true);
        self.timestamps = Some(Timestamps { val, ecr });
        self.window_scale = Some(scale as u8);
        Some(())
    }

    fn read_each(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        while let Some((&kind, after)) = rest.split_first() {
            match kind {
                KIND_END => break,
                KIND_NOP => rest = after,
                _ => {
                    let len = usize::from(*after.first().ok_or(Error::Options)?);
                    let (option, next) = rest.split_at_checked(len).ok_or(Error::Options)?;
                    let data = option.get(2..).ok_or(Error::Options)?;
                    self.read_one(kind, data)?;
                    rest = next;
                }
            }
        }
        Ok(())
    }

    /// Takes one option. The length is checked even in a repetition.
    fn read_one(&mut self, kind: u8, data: &[u8]) -> Result<(), Error> {
        match kind {
            KIND_MSS => {
                let mss = u16::from_be_bytes(exactly(data)?);
                self.mss.get_or_insert(mss);
            }
            KIND_WINDOW_SCALE => {
                let [shift] = exactly(data)?;
                self.window_scale.get_or_insert(shift);
            }
            KIND_SACK_PERMITTED => {
                let [] = exactly(data)?;
                self.sack_permitted = true;
            }
            KIND_TIMESTAMPS => {
                let _: [u8; 8] = exactly(data)?;
                self.timestamps.get_or_insert(Timestamps { val: u32_at(data, 0), ecr: u32_at(data, 4) });
            }
            KIND_SACK => {
                let sack = read_sack(data)?;
                if self.sack.is_empty() {
                    self.sack = sack;
                }
            }
            // A cookie of a length that RFC 7413 §4.1.1 does not allow is ignored, not an error.
            KIND_FAST_OPEN => self.fast_open = self.fast_open.or_else(|| Cookie::new(data)),
            KIND_EXPERIMENT => self.read_experiment(data),
            _ => {}
        }
        Ok(())
    }

    /// Takes an option of kind 254 if its identifier says Fast Open (RFC 6994).
    #[cold]
    fn read_experiment(&mut self, data: &[u8]) {
        if let Some(cookie) = data.strip_prefix(&FAST_OPEN_EXPERIMENT) {
            let read = || Cookie::new(cookie).map(|cookie| cookie.carried_by_experiment(true));
            self.fast_open = self.fast_open.or_else(read);
        }
    }

    /// Drops options until the rest fits `room` bytes: first the Fast Open cookie, then SACK blocks from the last on.
    pub fn fit_into(&mut self, room: usize) {
        if self.emitted_len() > room {
            self.fast_open = None;
        }
        while self.emitted_len() > room && !self.sack.is_empty() {
            self.sack.truncate(self.sack.len() - 1);
        }
    }

    /// Returns the number of bytes that [`emit`](Options::emit) writes: a multiple of 4, at most 40.
    #[inline]
    pub fn emitted_len(&self) -> usize {
        if self.timestamps_alone().is_some() { TIMESTAMPS_ALONE_LEN } else { self.len_of_others() }
    }

    fn len_of_others(&self) -> usize {
        if self.usual_syn().is_some() {
            return USUAL_SYN_LEN;
        }
        let mut len = 0;
        self.each_item(|item| len += item.len());
        len
    }

    /// Writes [`emitted_len`](Options::emitted_len) bytes, laid out and ordered as Linux does unless `layout` says
    /// otherwise. Middleboxes have seen this layout before, and the stack does not stand out. NOPs or zeros pad the
    /// options, so nothing else follows the end of the list (RFC 9293 §3.1).
    ///
    /// Options that do not fit into 40 bytes are left out: SACK blocks past the third with timestamps, and a cookie
    /// with SACK blocks. The buffer must hold the length; otherwise nothing is written (a debug build asserts).
    // MUST-69
    pub fn emit(&self, buffer: &mut [u8]) {
        let len = self.emitted_len();
        match buffer.get_mut(..len) {
            Some(buffer) => _ = self.emit_and_sum(buffer),
            None => debug_assert!(false, "no room for {len} bytes of TCP options"),
        }
    }

    /// Like [`emit`](Options::emit), into a buffer of exactly that length. Returns the sum of the written bytes.
    #[inline]
    pub(super) fn emit_and_sum(&self, out: &mut [u8]) -> u64 {
        match (self.timestamps, out.split_first_chunk_mut::<4>()) {
            // In twelve bytes, timestamps leave room only for SACK permitted.
            (Some(timestamps), Some((head, data))) if data.len() == 8 && !self.sack_permitted => {
                *head = TIMESTAMPS_ALONE;
                write_pair(data, timestamps.val, timestamps.ecr);
                // Sum the values, not the buffer. The buffer was written in small pieces, and a wide read of it would
                // stall.
                u64::from(u32::from_ne_bytes(TIMESTAMPS_ALONE))
                    + u64::from(timestamps.val.to_be())
                    + u64::from(timestamps.ecr.to_be())
            }
            _ => self.emit_others(out),
        }
    }

    fn emit_others(&self, out: &mut [u8]) -> u64 {
        let (words, rest) = out.as_chunks_mut::<4>();
        if let (Some(values), 5, []) = (self.usual_syn(), words.len(), rest) {
            words.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_be_bytes());
            return values.iter().map(|value| u64::from(value.to_be())).sum();
        }
        self.emit_each(out);
        steadfast_checksum::sum(out)
    }

    fn emit_each(&self, mut rest: &mut [u8]) {
        self.each_item(|item| {
            let (out, after) = std::mem::take(&mut rest).split_at_mut(item.len());
            item.emit(out);
            rest = after;
        });
    }

    /// Returns the timestamps if there is no other option: the usual case, which has a shortcut.
    #[inline]
    fn timestamps_alone(&self) -> Option<Timestamps> {
        let others = self.mss.is_some()
            || self.window_scale.is_some()
            || self.sack_permitted
            || !self.sack.is_empty()
            || self.fast_open.is_some();
        if others { None } else { self.timestamps }
    }

    /// Returns the words of the options of a usual SYN, if they are just that.
    #[inline]
    fn usual_syn(&self) -> Option<[u32; 5]> {
        let (mss, shift, timestamps) = (self.mss?, self.window_scale?, self.timestamps?);
        let alone = self.sack_permitted && self.sack.is_empty() && self.fast_open.is_none();
        let words = [
            USUAL_MSS | u32::from(mss),
            USUAL_SACK_AND_TIMESTAMPS,
            timestamps.val,
            timestamps.ecr,
            USUAL_WINDOW_SCALE | u32::from(shift),
        ];
        (alone && self.layout == OptionLayout::Linux).then_some(words)
    }

    /// Visits every option in its place, with its padding.
    fn each_item<'a>(&'a self, visit: impl FnMut(Item<'a>)) {
        match self.layout {
            OptionLayout::FreeBsd if self.sack.is_empty() => self.each_item_of_freebsd(visit),
            _ => self.each_item_of_linux(visit),
        }
    }

    /// A NOP precedes the window scale, so that it ends on an even byte. Timestamps begin two bytes past a multiple of
    /// four.
    fn each_item_of_freebsd<'a>(&'a self, mut visit: impl FnMut(Item<'a>)) {
        let mut len = 0;
        let mut place = |items: &[Item<'a>]| {
            items.iter().for_each(|item| {
                len += item.len();
                visit(*item);
            });
            len
        };
        if let Some(mss) = self.mss {
            place(&[Item::Mss(mss)]);
        }
        if let Some(shift) = self.window_scale {
            place(&[Item::Nop, Item::WindowScale(shift)]);
        }
        if self.sack_permitted {
            place(&[Item::SackPermitted]);
        }
        if let Some(timestamps) = self.timestamps {
            while place(&[]) % 4 != 2 {
                place(&[Item::Nop]);
            }
            place(&[Item::Timestamps(timestamps)]);
        }
        if let Some(cookie) = &self.fast_open {
            place(&[Item::FastOpen(cookie.as_bytes())]);
        }
        while place(&[]) % 4 != 0 {
            place(&[Item::End]);
        }
    }

    /// NOPs align options to 4 bytes.
    fn each_item_of_linux<'a>(&'a self, mut visit: impl FnMut(Item<'a>)) {
        let mut room = MAX_OPTIONS_LEN;
        let mut place = |items: &[Item<'a>]| {
            let len = items.iter().map(Item::len).sum();
            if let Some(left) = room.checked_sub(len) {
                room = left;
                items.iter().for_each(|item| visit(*item));
            }
            room
        };
        if let Some(mss) = self.mss {
            place(&[Item::Mss(mss)]);
        }
        match (self.sack_permitted, self.timestamps) {
            (true, Some(timestamps)) => place(&[Item::SackPermitted, Item::Timestamps(timestamps)]),
            (false, Some(timestamps)) => place(&[Item::Nop, Item::Nop, Item::Timestamps(timestamps)]),
            (true, None) => place(&[Item::Nop, Item::Nop, Item::SackPermitted]),
            (false, None) => 0,
        };
        if let Some(shift) = self.window_scale {
            place(&[Item::Nop, Item::WindowScale(shift)]);
        }
        if !self.sack.is_empty() {
            // The two NOPs, kind and length take four bytes. At most 20 bytes are in use, so one block always fits.
            let fitting = place(&[]).saturating_sub(4) / 8;
            let blocks = self.sack.as_slice();
            place(&[Item::Nop, Item::Nop, Item::Sack(&blocks[..blocks.len().min(fitting)])]);
        }
        if let Some(cookie) = &self.fast_open {
            let bytes = cookie.as_bytes();
            let item = if cookie.experiment { Item::Experiment(bytes) } else { Item::FastOpen(bytes) };
            match item.len() % 4 {
                0 => place(&[item]),
                _ => place(&[item, Item::Nop, Item::Nop]),
            };
        }
    }
}

/// Returns the bytes as words if there are as many as a usual SYN's options have.
#[inline]
fn words_of(bytes: &[u8]) -> Option<[u32; 5]> {
    let bytes: &[u8; USUAL_SYN_LEN] = bytes.try_into().ok()?;
    let (words, _) = bytes.as_chunks::<4>();
    let &[a, b, c, d, e] = <&[[u8; 4]; 5]>::try_from(words).ok()?;
    Some([a, b, c, d, e].map(u32::from_be_bytes))
}

/// Returns the data of a known option, which must have its one valid length.
fn exactly<const N: usize>(data: &[u8]) -> Result<[u8; N], Error> {
    data.try_into().map_err(|_| Error::Options)
}

fn read_sack(data: &[u8]) -> Result<SackBlocks, Error> {
    let (blocks, odd) = data.as_chunks::<8>();
    if blocks.is_empty() || !odd.is_empty() {
        return Err(Error::Options);
    }
    let mut sack = SackBlocks::new();
    for block in blocks {
        if !sack.push(SeqNum(u32_at(block, 0)), SeqNum(u32_at(block, 4))) {
            return Err(Error::Options);
        }
    }
    Ok(sack)
}

/// One option in its layout, or padding.
#[derive(Clone, Copy)]
enum Item<'a> {
    End,
    Nop,
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Timestamps(Timestamps),
    Sack(&'a [(SeqNum, SeqNum)]),
    FastOpen(&'a [u8]),
    /// The same, in an option of kind 254.
    Experiment(&'a [u8]),
}

impl Item<'_> {
    #[inline]
    fn len(&self) -> usize {
        match self {
            Item::End | Item::Nop => 1,
            Item::Mss(_) => 4,
            Item::WindowScale(_) => 3,
            Item::SackPermitted => 2,
            Item::Timestamps(_) => 10,
            Item::Sack(blocks) => 2 + 8 * blocks.len(),
            Item::FastOpen(cookie) => 2 + cookie.len(),
            Item::Experiment(cookie) => 2 + FAST_OPEN_EXPERIMENT.len() + cookie.len(),
        }
    }

    /// Fills `out`, which is [`len`](Item::len) bytes long.
    fn emit(&self, out: &mut [u8]) {
        let kind = match self {
            Item::End => return out.fill(KIND_END),
            Item::Nop => return out.fill(KIND_NOP),
            Item::Mss(_) => KIND_MSS,
            Item::WindowScale(_) => KIND_WINDOW_SCALE,
            Item::SackPermitted => KIND_SACK_PERMITTED,
            Item::Timestamps(_) => KIND_TIMESTAMPS,
            Item::Sack(_) => KIND_SACK,
            Item::FastOpen(_) => KIND_FAST_OPEN,
            Item::Experiment(_) => KIND_EXPERIMENT,
        };
        let Some((head, data)) = out.split_first_chunk_mut::<2>() else { return };
        *head = [kind, self.len() as u8];
        match self {
            Item::End | Item::Nop | Item::SackPermitted => {}
            Item::Mss(mss) => data.copy_from_slice(&mss.to_be_bytes()),
            Item::WindowScale(shift) => data.fill(*shift),
            Item::Timestamps(timestamps) => write_pair(data, timestamps.val, timestamps.ecr),
            Item::Sack(blocks) => {
                for (out, (left, right)) in data.chunks_exact_mut(8).zip(*blocks) {
                    write_pair(out, left.0, right.0);
                }
            }
            Item::FastOpen(cookie) => data.copy_from_slice(cookie),
            Item::Experiment(cookie) => {
                if let Some((identifier, data)) = data.split_first_chunk_mut() {
                    *identifier = FAST_OPEN_EXPERIMENT;
                    data.copy_from_slice(cookie);
                }
            }
        }
    }
}

#[inline]
fn write_pair(out: &mut [u8], first: u32, second: u32) {
    let pair = u64::from(first) << 32 | u64::from(second);
    out.copy_from_slice(&pair.to_be_bytes());
}

impl fmt::Display for Options {
    /// Formats the output of [`emit`](Options::emit) as tcpdump does: `mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut result = Ok(());
        self.each_item(|item| {
            result = result.and_then(|()| write!(f, "{separator}{item}"));
            separator = ",";
        });
        result
    }
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::End => f.write_str("eol"),
            Item::Nop => f.write_str("nop"),
            Item::Mss(mss) => write!(f, "mss {mss}"),
            Item::WindowScale(shift) => write!(f, "wscale {shift}"),
            Item::SackPermitted => f.write_str("sackOK"),
            Item::Timestamps(timestamps) => write!(f, "TS val {} ecr {}", timestamps.val, timestamps.ecr),
            Item::Sack(blocks) => {
                write!(f, "sack {} ", blocks.len())?;
                blocks.iter().try_for_each(|(left, right)| write!(f, "{{{left}:{right}}}"))
            }
            Item::FastOpen([]) => f.write_str("tfo  cookiereq"),
            Item::Experiment([]) => f.write_str("exp-tfo cookiereq"),
            Item::FastOpen(cookie) | Item::Experiment(cookie) => {
                let experiment = matches!(self, Item::Experiment(_));
                f.write_str(if experiment { "exp-tfo cookie " } else { "tfo  cookie " })?;
                cookie.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
