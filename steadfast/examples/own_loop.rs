//! A stack in a loop of your own, without Tokio: one thread, one clock, and packets in the datagrams of a UDP socket.
//!
//! ```sh
//! cargo run --example own_loop
//! ```

use std::error::Error;
use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant as Clock};

use steadfast::stack::{ConnectOptions, Event, Instant, Interface, ListenOptions, Shutdown, SocketId, Stack};
use steadfast::{Config, stack};

const MTU: u16 = 1400;
const SERVER: &str = "10.9.0.2:7";
/// The longest time without a look at the clock.
const NAP: Duration = Duration::from_millis(100);

/// A stack, its wire and its clock.
struct Host {
    stack: Stack,
    wire: UdpSocket,
    started: Clock,
}

impl Host {
    fn new(address: [u8; 4], wire: UdpSocket) -> Host {
        // A real network needs a secret of the system's entropy.
        let config = Config { secret: [address[3]; 32], ..Config::default() };
        let interface = Interface::new(MTU, [(address.into(), 24)]);
        Host { stack: Stack::new(config, interface), wire, started: Clock::now() }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.started.elapsed()
    }

    /// Sends what is ready, then waits for a packet or a timer. Returns the socket that changed, if there is one.
    fn turn(&mut self) -> io::Result<Option<(SocketId, Event)>> {
        let mut frame = [0; MTU as usize];
        while let Some(sent) = self.stack.transmit(self.now(), &mut frame) {
            // A full or closed wire loses packets, as any wire does.
            let _ = self.wire.send(&frame[..sent.len]);
        }
        if let Some(event) = self.stack.poll_event() {
            return Ok(Some(event));
        }
        let now = self.now();
        let nap = self.stack.poll_at().map_or(NAP, |at| at.saturating_since(now).min(NAP));
        // A timeout of zero would mean to wait forever.
        self.wire.set_read_timeout(Some(nap.max(Duration::from_micros(1))))?;
        match self.wire.recv(&mut frame) {
            Ok(len) => {
                let now = self.now();
                self.stack.receive(now, &frame[..len]);
                // More packets may wait.
                self.stack.advance_busy(now);
                return Ok(self.stack.poll_event());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            // The other side is not there yet, or not any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        self.stack.advance(self.now());
        Ok(self.stack.poll_event())
    }
}

/// Serves one connection.
fn serve(mut host: Host) -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = host.stack.listen(SERVER.parse()?, ListenOptions::default())?;
    let mut closed = false;
    // A closed connection stays until the peer acknowledges its FIN.
    while !closed || host.stack.usage().connections > 0 {
        let Some((changed, _)) = host.turn()? else { continue };
        let id = if changed == listener { host.stack.accept(listener)?.0 } else { changed };
        closed = echo(&mut host, id)?;
    }
    Ok(())
}

/// Returns the bytes that have arrived. Closes the connection, and returns true, once the peer has closed it.
fn echo(host: &mut Host, id: SocketId) -> Result<bool, stack::Error> {
    let mut buffer = [0; 4096];
    loop {
        match host.stack.recv(id, &mut buffer) {
            Ok(0) => return host.stack.close(host.now(), id).map(|()| true),
            Ok(len) => _ = host.stack.send(id, &buffer[..len])?,
            Err(stack::Error::WouldBlock) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Sends a text, and returns what comes back.
fn ask(mut host: Host, text: &str) -> Result<String, Box<dyn Error>> {
    let id = host.stack.connect(host.now(), SERVER.parse()?, ConnectOptions::default())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let Some((_, event)) = host.turn()? else { continue };
        if event.contains(Event::ERROR) {
            return Err(host.stack.take_error(id)?.map_or("no error".into(), Into::into));
        }
        if event.contains(Event::CONNECTED) {
            host.stack.send(id, text.as_bytes())?;
            host.stack.shutdown(host.now(), id, Shutdown::Write)?;
        }
        loop {
            match host.stack.recv(id, &mut buffer) {
                Ok(0) => {
                    // The last ACK is still to be sent.
                    host.turn()?;
                    return Ok(String::from_utf8(answer)?);
                }
                Ok(len) => answer.extend_from_slice(&buffer[..len]),
                Err(stack::Error::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn run() -> Result<String, Box<dyn Error>> {
    let (left, right) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    left.connect(right.local_addr()?)?;
    right.connect(left.local_addr()?)?;
    let server = Host::new([10, 9, 0, 2], left);
    // It may outlive the program: it waits until the last ACK arrives.
    thread::spawn(|| serve(server));
    ask(Host::new([10, 9, 0, 1], right), "hold fast")
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}", run()?);
    Ok(())
}

#[test]
fn the_text_comes_back() {
    assert_eq!(run().unwrap(), "hold fast");
}
