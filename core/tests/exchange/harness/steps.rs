//! The steps of tests: user calls, handshakes, ways to a state, ICMP messages.

use super::*;

impl Test {
    // The application.

    /// Returns the events of a socket since the last call.
    pub fn events(&mut self, id: SocketId) -> Event {
        self.pump();
        self.events.remove(&id).unwrap_or_default()
    }

    /// Writes the next `len` bytes of our stream; gives how many there was room for.
    #[track_caller]
    pub fn try_write(&mut self, len: u32) -> Result<usize, Error> {
        let count = self.queue(len)?;
        self.pump();
        Ok(count)
    }

    /// As [`try_write`](Test::try_write), but nothing leaves.
    pub fn queue(&mut self, len: u32) -> Result<usize, Error> {
        let data = pattern(self.written, len);
        let count = self.stack.send(self.sock, &data)?;
        self.written += count as u32;
        Ok(count)
    }

    #[track_caller]
    pub fn write(&mut self, len: u32) {
        assert_eq!(self.try_write(len), Ok(len as usize));
    }

    /// Exactly `len` bytes can be read, and they are right.
    #[track_caller]
    pub fn read(&mut self, len: u32) {
        let mut buffer = vec![0; len as usize];
        assert_eq!(self.stack.recv(self.sock, &mut buffer), Ok(len as usize));
        assert!(buffer == pattern(self.read, len), "the stream is not what the peer sent");
        self.read += len;
        self.pump();
    }

    /// Reads where no byte is expected.
    pub fn read_end(&mut self) -> Result<usize, Error> {
        let result = self.stack.recv(self.sock, &mut [0; 100]);
        self.pump();
        result
    }

    #[track_caller]
    pub fn shutdown(&mut self, how: Shutdown) {
        assert_eq!(self.stack.shutdown(self.now, self.sock, how), Ok(()));
        self.pump();
    }

    #[track_caller]
    pub fn close(&mut self) {
        assert_eq!(self.stack.close(self.now, self.sock), Ok(()));
        self.pump();
    }

    #[track_caller]
    pub fn abort(&mut self) {
        assert_eq!(self.stack.abort(self.now, self.sock), Ok(()));
        self.pump();
    }

    #[track_caller]
    pub fn set_options(&mut self, change: impl FnOnce(&mut SocketOptions)) {
        let mut options = self.stack.options(self.sock).unwrap().clone();
        change(&mut options);
        self.stack.set_options(self.now, self.sock, options).unwrap();
        self.pump();
    }

    #[track_caller]
    pub fn accept(&mut self) -> SocketId {
        let (id, peer) = self.stack.accept(self.listener.unwrap()).expect("a connection to accept");
        assert_eq!(peer.ip(), self.theirs());
        self.pump();
        self.sock = id;
        id
    }

    /// Accepts without making it the connection of the test.
    #[track_caller]
    pub fn accept_any(&mut self) -> SocketId {
        self.stack.accept(self.listener.unwrap()).expect("a connection to accept").0
    }

    #[track_caller]
    pub fn state(&self) -> State {
        self.stack.state(self.sock).unwrap()
    }

    /// The state of the current 4-tuple in the tables, whoever holds it.
    pub fn tuple_state(&self) -> State {
        let (local, remote) = (self.local(), self.remote());
        let all = self.stack.sockets(self.now);
        let entry = all.iter().find(|s| (s.local, s.remote) == (local, remote));
        entry.map_or(State::Closed, |s| s.state)
    }

    /// The connection is over, its 4-tuple is free, no timer is left, and the application is told `error`, once.
    #[track_caller]
    pub fn is_closed(&mut self, error: Option<Error>) {
        self.pump();
        assert_eq!(self.tuple_state(), State::Closed);
        let usage = self.stack.usage();
        assert_eq!((usage.connections, usage.timers, usage.orphans), (0, 0, 0), "{usage:?}");
        if self.stack.state(self.sock).is_ok() {
            assert_eq!(self.state(), State::Closed);
            let events = self.events(self.sock);
            assert!(events.contains(Event::CLOSED | Event::READABLE | Event::WRITABLE), "{events:?}");
            assert_eq!(events.contains(Event::ERROR), error.is_some(), "{events:?}");
            assert_eq!(self.stack.take_error(self.sock), Ok(error));
            assert_eq!(self.stack.take_error(self.sock), Ok(None), "an error is told once");
            assert_eq!(self.stack.send(self.sock, b"x"), Err(Error::BrokenPipe));
        }
    }

    /// The drop reasons since the last time, each with its number, in the order of their names.
    #[track_caller]
    pub fn dropped(&mut self, expected: &[DropReason]) {
        let mut seen = Vec::new();
        for reason in DropReason::ALL {
            let count = self.stack.counters().dropped(*reason);
            let before = self.drops.insert(*reason, count).unwrap_or(0);
            seen.extend((before..count).map(|_| *reason));
        }
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(seen, expected);
    }

    // Ways into the states.

    #[track_caller]
    pub fn listen(&mut self) -> SocketId {
        self.listen_with(ListenOptions::default())
    }

    #[track_caller]
    pub fn listen_with(&mut self, options: ListenOptions) -> SocketId {
        let id = self.stack.listen(self.local(), options).unwrap();
        self.listener = Some(id);
        id
    }

    /// A handshake that the peer begins, of a peer with SACK.
    #[track_caller]
    pub fn establish(&mut self) {
        self.establish_after(0);
    }

    /// As [`establish`](Test::establish); the peer takes so many milliseconds for the third segment.
    #[track_caller]
    pub fn establish_after(&mut self, millis: u64) {
        if self.listener.is_none() {
            self.listen();
        }
        self.send("S seq 0 <sackOK, wscale 0>");
        self.recv(&format!("S. seq 0 ack 1 win {BUFFER} <mss {OUR_MSS}, sackOK, wscale 0>"));
        self.wait(millis);
        self.send(". seq 1 ack 1");
        self.recv_nothing();
        self.accept();
        assert_eq!(self.state(), State::Established);
        (self.una, self.nxt, self.rcv) = (1, 1, 1);
    }

    /// As [`establish`](Test::establish), without any option but the MSS (and timestamps).
    #[track_caller]
    pub fn establish_plain(&mut self) {
        if self.listener.is_none() {
            self.listen();
        }
        self.send("S seq 0");
        self.recv(&format!("S. seq 0 ack 1 win {BUFFER} <mss {OUR_MSS}>"));
        self.send(". seq 1 ack 1");
        self.recv_nothing();
        self.accept();
        (self.una, self.nxt, self.rcv) = (1, 1, 1);
    }

    /// The stack begins a handshake: SYN-SENT, with the SYN received.
    #[track_caller]
    pub fn connect(&mut self) {
        self.connect_with(ConnectOptions::default());
    }

    #[track_caller]
    pub fn connect_with(&mut self, options: ConnectOptions) {
        self.start_connect(options);
        self.recv(&format!("S seq 0 win {BUFFER} <mss {OUR_MSS}, sackOK, wscale 0>"));
    }

    /// As [`connect_with`](Test::connect_with), with the SYN still to be received.
    #[track_caller]
    pub fn start_connect(&mut self, options: ConnectOptions) {
        let options = ConnectOptions { local_port: options.local_port.or(Some(PORT)), ..options };
        self.sock = self.stack.connect(self.now, self.remote(), options).unwrap();
    }

    /// A connection with a past in the given state: 100 bytes sent and acknowledged, 50 received and read.
    #[track_caller]
    pub fn reach(&mut self, state: State) {
        self.establish();
        self.write(100);
        self.recv("P. seq 1:101 ack 1");
        self.send("P. seq 1:51 ack 101");
        self.recv(". seq 101 ack 51");
        self.read(50);
        (self.una, self.nxt, self.rcv) = (101, 101, 51);
        match state {
            State::Established => {}
            State::FinWait1 => self.our_fin(),
            State::FinWait2 => {
                self.our_fin();
                self.send(". seq 51 ack 102");
                self.una = 102;
            }
            State::CloseWait => self.their_fin(101),
            State::Closing => {
                self.our_fin();
                self.their_fin(101);
            }
            State::LastAck => {
                self.their_fin(101);
                self.our_fin();
            }
            State::TimeWait => {
                self.our_fin();
                self.their_fin(102);
                self.una = 102;
                assert_eq!(self.tuple_state(), State::TimeWait);
                self.events(self.sock);
                return;
            }
            other => panic!("no way into {other}"),
        }
        self.recv_nothing();
        assert_eq!(self.state(), state);
        self.events(self.sock);
    }

    #[track_caller]
    fn our_fin(&mut self) {
        self.shutdown(Shutdown::Write);
        self.recv(&format!("F. seq 101 ack {}", self.rcv));
        self.nxt = 102;
    }

    #[track_caller]
    fn their_fin(&mut self, ack: u32) {
        self.send(&format!("F. seq 51 ack {ack}"));
        self.rcv = 52;
        self.recv(&format!(". seq {} ack 52", self.nxt));
    }

    /// ACK! of the tables: `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`.
    #[track_caller]
    pub fn recv_ack(&mut self) {
        self.recv(&format!(". seq {} ack {}", self.nxt, self.rcv));
    }

    /// As [`recv`](Test::recv); a blank among SACK blocks means nothing.
    #[track_caller]
    pub fn recv_sack(&mut self, text: &str) -> Got {
        self.recv(&text.replace(" >", ">"))
    }

    /// The timestamp that the stack would send now.
    pub fn stack_ts(&self) -> u32 {
        (self.now.as_millis() as u32).wrapping_add(self.cur().ts_offset.unwrap_or(0))
    }

    /// Returns the result of a read in this state if nothing was delivered.
    pub fn quiet_end(&self) -> Result<usize, Error> {
        match self.state() {
            State::CloseWait | State::Closing | State::LastAck => Ok(0),
            _ => Err(Error::WouldBlock),
        }
    }

    /// Bytes of ours that are not acknowledged.
    pub fn queued(&self) -> u32 {
        self.stack.info(self.now, self.sock).map_or(0, |info| info.send_q as u32)
    }

    /// RST of a connection: `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=RST,ACK>`.
    #[track_caller]
    pub fn recv_rst(&mut self) {
        self.recv(&format!("R. seq {} ack {}", self.nxt, self.rcv));
    }

    /// The last thing sent is the RST of the connection; what came before it is not looked at.
    #[track_caller]
    pub fn recv_rst_any(&mut self) {
        let mut last = None;
        while let Some(got) = self.recv_any() {
            last = Some(got);
        }
        let header = last.expect("a segment").header;
        let (irs, iss) = (self.cur().irs.unwrap(), self.cur().iss);
        assert_eq!(header.flags, Flags::RST | Flags::ACK);
        assert_eq!((header.seq, header.ack), (irs + self.nxt, iss + self.rcv));
    }

    // ICMP.

    /// An error about a segment of ours with this relative sequence number, from a router.
    pub fn icmp_error(&mut self, kind: ErrorKind, seq: u32) {
        let irs = self.cur().irs.unwrap_or(SeqNum(0));
        self.icmp_error_at(kind, irs + seq);
    }

    pub fn icmp_error_at(&mut self, kind: ErrorKind, seq: SeqNum) {
        let header = Header {
            source_port: self.port,
            destination_port: self.current,
            seq,
            flags: Flags::ACK,
            ..Header::default()
        };
        let quoted = self.ip_packet(self.ours(), self.theirs(), &header, &[], Ecn::NotEct);
        self.icmp_message(&Message::Error { kind, quoted: &quoted });
    }

    /// An ICMP message from the peer's address.
    pub fn icmp_message(&mut self, message: &Message<'_>) {
        let packet = self.icmp_packet(message);
        self.stack.receive(self.now, &packet[..]);
        self.pump();
    }

    pub fn icmp_packet(&self, message: &Message<'_>) -> Vec<u8> {
        packets::icmp(self.theirs(), self.ours(), message).unwrap()
    }
}
