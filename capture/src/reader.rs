//! The reader: finds the format, and returns records.

use std::collections::BTreeMap;
use std::io::{self, Chain, Cursor, Read};
use std::net::IpAddr;

use flate2::read::MultiGzDecoder;

use crate::bytes::Order;
use crate::damage::{Damage, Error};
use crate::pcap::Pcap;
use crate::pcapng::{Pcapng, SECTION_HEADER};
use crate::record::{Format, Interface, Record};
use crate::window::Window;

/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads the packets of a capture.
pub struct Reader<R> {
    window: Window<Source<R>>,
    inner: Inner,
    interfaces: Vec<Interface>,
    damage: Damage,
    number: u64,
    gzip: bool,
}

enum Inner {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

impl<R: Read> Reader<R> {
    /// Begins to read: a pcap or pcapng file, or either under gzip.
    pub fn new(mut input: R) -> Result<Reader<R>, Error> {
        let mut first = Vec::new();
        input.by_ref().take(2).read_to_end(&mut first)?;
        let gzip = first == GZIP;
        let input = Cursor::new(first).chain(input);
        let source = if gzip {
            Source::Gzip(Box::new(MultiGzDecoder::new(input)), None)
        } else {
            Source::Plain(input)
        };
        let mut window = Window::new(source);
        window.need(4)?;
        let magic = window.bytes();
        let mut interfaces = Vec::new();
        let inner = if magic.is_empty() {
            return Err(Error::Empty);
        } else if let Some(order) = Pcap::order(magic) {
            let (pcap, interface) = Pcap::open(order, &mut window)?;
            interfaces.push(interface);
            Inner::Pcap(pcap)
        } else if Order::Little.u32(magic, 0) == SECTION_HEADER {
            let mut pcapng = Pcapng::new();
            pcapng.open(&mut window)?;
            Inner::Pcapng(pcapng)
        } else {
            return Err(Error::NotACapture { first: magic[..magic.len().min(4)].to_vec() });
        };
        Ok(Reader { window, inner, interfaces, damage: Damage::default(), number: 0, gzip })
    }

    /// Returns the next packet, or `None` at the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        let (window, damage) = (&mut self.window, &mut self.damage);
        let found = match &mut self.inner {
            Inner::Pcap(pcap) => pcap.next(window, damage)?,
            Inner::Pcapng(pcapng) => pcapng.next(window, &mut self.interfaces, damage)?,
        };
        let offset = window.offset();
        let Some(found) = found else {
            if let Some(text) = window.source().failure() {
                damage.add(offset, 0, || format!("gzip: {text}"));
            }
            return Ok(None);
        };
        self.number += 1;
        let order = match &self.inner {
            Inner::Pcap(_) => Order::Little,
            Inner::Pcapng(pcapng) => pcapng.order(),
        };
        let interface = &self.interfaces[found.interface];
        let bytes = self.window.take(found.whole);
        Ok(Some(Record {
            number: self.number,
            offset,
            section: interface.section,
            interface: found.interface,
            link: interface.link,
            nanos: found.nanos,
            len: found.len,
            data: &bytes[found.data],
            direction: found.options.direction,
            checksum_not_ready: found.options.checksum_not_ready,
            segmented_later: found.options.segmented_later,
            options: &bytes[found.options.raw],
            order,
        }))
    }

    /// The format.
    pub fn format(&self) -> Format {
        match self.inner {
            Inner::Pcap(_) => Format::Pcap,
            Inner::Pcapng(_) => Format::Pcapng,
        }
    }

    /// Whether the file is packed by gzip.
    pub fn is_gzip(&self) -> bool {
        self.gzip
    }

    /// The interfaces that were declared so far, over all sections. A pcap file has one.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The names of addresses that the file has told so far.
    pub fn names(&self) -> BTreeMap<IpAddr, String> {
        match &self.inner {
            Inner::Pcap(_) => BTreeMap::new(),
            Inner::Pcapng(pcapng) => pcapng.names.clone(),
        }
    }

    /// The parts that could not be read so far.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Bytes read so far, of the unpacked file.
    pub fn position(&self) -> u64 {
        self.window.offset()
    }
}

/// The bytes of the file, unpacked.
enum Source<R> {
    Plain(Chain<Cursor<Vec<u8>>, R>),
    /// The unpacker, and its failure. The bytes before the failure are good.
    Gzip(Box<MultiGzDecoder<Chain<Cursor<Vec<u8>>, R>>>, Option<String>),
}

impl<R> Source<R> {
    fn failure(&mut self) -> Option<String> {
        match self {
            Source::Plain(_) => None,
            Source::Gzip(_, failure) => failure.take(),
        }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(source) => source.read(buffer),
            Source::Gzip(source, failure) => match source.read(buffer) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    *failure = Some(error.to_string());
                    Ok(0)
                }
                result => result,
            },
        }
    }
}
