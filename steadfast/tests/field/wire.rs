//! A TUN device whose packets a test can lose or hold back, and a world around it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, Received, Tun, TunOptions};
use steadfast::stack::wire::ipv4;
use steadfast::stack::wire::tcp::Header;
use steadfast::{Config, Net};
use tokio::time::{sleep, timeout};

/// Ours, the kernel's, and one of no host.
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const FOREIGN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the kernel to us.
    In,
    /// From us to the kernel.
    Out,
}

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passes,
    IsLost,
    /// It comes behind the next one; only for those to us.
    ComesLate,
}

pub type Rule = Box<dyn FnMut(Way, &Header, usize) -> Fate + Send>;

/// The rule of a wire, and the headers of all segments that we sent.
#[derive(Clone, Default)]
pub struct Wire(Arc<Mutex<(Option<Rule>, Vec<Header>)>>);

impl Wire {
    pub fn set(&self, rule: impl FnMut(Way, &Header, usize) -> Fate + Send + 'static) {
        self.0.lock().unwrap().0 = Some(Box::new(rule));
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().0 = None;
    }

    /// The number of segments that we sent of which this holds.
    pub fn sent(&self, is: impl Fn(&Header) -> bool) -> usize {
        self.0.lock().unwrap().1.iter().filter(|header| is(header)).count()
    }

    fn fate(&self, way: Way, packet: &[u8]) -> Fate {
        let Ok((_, segment)) = ipv4::parse(packet) else { return Fate::Passes };
        let Ok((header, payload)) = Header::parse(segment) else { return Fate::Passes };
        let (rule, sent) = &mut *self.0.lock().unwrap();
        if way == Way::Out {
            sent.push(header);
        }
        rule.as_mut().map_or(Fate::Passes, |rule| rule(way, &header, payload.len()))
    }
}

struct Faulty {
    tun: Tun,
    wire: Wire,
    /// A packet that comes late, and whether its time is now.
    late: Option<(Vec<u8>, bool)>,
    /// The device was full: the packet passes when it is offered again.
    passes: bool,
}

impl Device for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.tun.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        if let Some((packet, _)) = self.late.take_if(|(_, now)| *now) {
            buffer[..packet.len()].copy_from_slice(&packet);
            return Poll::Ready(Ok(Received::new(packet.len())));
        }
        loop {
            let Poll::Ready(received) = self.tun.poll_recv(cx, buffer) else { return Poll::Pending };
            let received = received?;
            match self.wire.fate(Way::In, &buffer[..received.len]) {
                Fate::IsLost => {}
                Fate::ComesLate => self.late = Some((buffer[..received.len].to_vec(), false)),
                Fate::Passes => {
                    if let Some((_, now)) = &mut self.late {
                        *now = true;
                    }
                    return Poll::Ready(Ok(received));
                }
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        if !self.passes && self.wire.fate(Way::Out, frame.bytes) != Fate::Passes {
            return Poll::Ready(Ok(()));
        }
        let sent = self.tun.poll_send(cx, frame);
        self.passes = sent.is_pending();
        sent
    }
}

pub struct World {
    pub net: Net,
    pub wire: Wire,
}

/// Runs a case in a network namespace of its own, with the kernel as the peer.
pub fn run(config: Config, case: impl AsyncFn(World)) {
    run_beside(&[], config, case);
}

/// Runs a case that needs programs.
pub fn run_beside(programs: &[&'static str], config: Config, case: impl AsyncFn(World)) {
    if !steadfast_witness::enter_namespace(&[&["ip"], programs].concat()) {
        return;
    }
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = TunOptions::new("sf0");
        options.host = vec![(KERNEL.into(), 24)];
        options.routes = vec![(IpAddr::from([198, 51, 100, 0]), 24)];
        options.offload = false;
        let wire = Wire::default();
        let tun = Tun::open(&options).await.unwrap();
        let device = Faulty { tun, wire: wire.clone(), late: None, passes: false };
        let net = Net::builder().config(config).address(OURS, 24).start(device).unwrap();
        let world = World { net: net.clone(), wire };
        timeout(Duration::from_secs(30), case(world)).await.expect("the case ends");
        net.check_consistent().unwrap();
    });
}

/// Waits until something is true.
pub async fn until(mut is: impl FnMut() -> bool) {
    while !is() {
        sleep(Duration::from_millis(2)).await;
    }
}

impl World {
    /// A connection that the kernel opened: its stream and ours.
    pub async fn streams(&self) -> (tokio::net::TcpStream, steadfast::TcpStream) {
        let listener = steadfast::TcpListener::bind(&self.net, (OURS, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (kernel, ours) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        (kernel.unwrap(), ours.unwrap().0)
    }

    /// Relays what the kernel opens to [`FOREIGN`] to a listener of the kernel. Returns that listener.
    pub async fn gateway(&self, config: steadfast::RelayConfig) -> tokio::net::TcpListener {
        let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        self.forward_to(address, config).await;
        upstream
    }

    pub async fn forward_to(&self, address: SocketAddr, config: steadfast::RelayConfig) {
        let forwarder =
            steadfast::TcpForwarder::bind(&self.net, steadfast::ForwardRule::all()).await.unwrap();
        tokio::spawn(async move {
            while let Ok(request) = forwarder.accept().await {
                let config = config.clone();
                tokio::spawn(async move {
                    // Its outcome is what the test sees at both ends.
                    let dial = tokio::net::TcpStream::connect(address);
                    drop(request.splice_with(dial, &config).await);
                });
            }
        });
    }
}

/// Returns `len` bytes in which shifted data is noticed.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
