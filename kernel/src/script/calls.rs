//! The system calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno as Error, IoSliceMut};
use rustix::net::{self, AddressFamily, RecvAncillaryBuffer, RecvFlags, SocketFlags, SocketType};
use rustix::pipe::SpliceFlags;
use steadfast_core::Shutdown;
use steadfast_drill::subject::{Errno, ReceiveFlags, Refused, Reply, Request, SendFlags};

use super::files::{File, Files, address, name};
use super::options;
use crate::sock_diag;

/// The largest read or write of one call.
const LARGEST: usize = 1 << 26;
/// `MSG_FASTOPEN`, which `rustix` does not define.
const FAST_OPEN: net::SendFlags = net::SendFlags::from_bits_retain(0x2000_0000);

/// Performs a call, which may block in the kernel.
pub(super) fn perform(files: &Files, request: Request) -> Result<Result<Reply, Errno>, Refused> {
    let option = match request {
        Request::SetOption { fd, option, setting } => match files.get(fd) {
            Ok(file) => options::set(&file, &option, &setting)?.map(|()| Reply::Number(0)),
            Err(error) => Err(name(error)),
        },
        Request::Option { fd, option } => match files.get(fd) {
            Ok(file) => options::get(&file, &option)?.map(Reply::Setting),
            Err(error) => Err(name(error)),
        },
        Request::Outstanding { fd, unsent } => match files.get(fd) {
            Ok(file) => {
                let queued = if unsent { options::unsent(&file) } else { send_queue(&file) };
                queued.map(Reply::Number).ok_or("EINVAL")
            }
            Err(error) => Err(name(error)),
        },
        request => call(files, request).map_err(name),
    };
    Ok(option)
}

fn call(files: &Files, request: Request) -> Result<Reply, Error> {
    let done = |()| Reply::Number(0);
    let counted = |count: usize| Reply::Number(count as i64);
    Ok(match request {
        Request::Socket { ipv6, nonblocking } => {
            let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
            let flags = socket_flags(nonblocking);
            let socket = net::socket_with(family, SocketType::STREAM, flags, Some(net::ipproto::TCP))?;
            Reply::Descriptor(files.insert(socket, Some(ipv6)))
        }
        Request::Bind { fd, address } => with(files, fd, |file| net::bind(file, &file.takes(address)))?,
        Request::Listen { fd, backlog } => {
            let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
            done(net::listen(files.get(fd)?, backlog)?)
        }
        Request::Accept { fd, nonblocking } => {
            let listener = files.get(fd)?;
            let (socket, peer) = net::acceptfrom_with(&listener, socket_flags(nonblocking))?;
            let peer = peer.and_then(address).ok_or(Error::CONNABORTED)?;
            Reply::Accepted(files.insert(socket, listener.socket), peer)
        }
        Request::Connect { fd, address } => with(files, fd, |file| net::connect(file, &file.takes(address)))?,
        Request::Receive { fd, len, flags } => receive(&*files.get(fd)?, len, flags)?,
        Request::Send { fd, len, flags, fast_open, to: _ } => {
            counted(send(&*files.get(fd)?, len, flags, fast_open)?)
        }
        Request::Splice { from, to, len, nonblocking } => {
            let flags = if nonblocking { SpliceFlags::NONBLOCK } else { SpliceFlags::empty() };
            counted(rustix::pipe::splice(files.get(from)?, None, files.get(to)?, None, len, flags)?)
        }
        Request::Sendfile { to, from, len } => {
            counted(rustix::fs::sendfile(files.get(to)?, files.get(from)?, None, len)?)
        }
        Request::Shutdown { fd, how } => {
            let how = match how {
                Shutdown::Read => net::Shutdown::Read,
                Shutdown::Write => net::Shutdown::Write,
                Shutdown::Both => net::Shutdown::Both,
            };
            done(net::shutdown(files.get(fd)?, how)?)
        }
        Request::Close { fd } => {
            let closed = files.remove(fd)?;
            // This may linger.
            drop(closed);
            Reply::Number(0)
        }
        Request::Pipe => {
            let (out, into) = rustix::pipe::pipe()?;
            Reply::Pipe(files.insert(out, None), files.insert(into, None))
        }
        Request::Open => {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            Reply::Descriptor(files.insert(rustix::fs::open("/dev/zero", flags, Mode::empty())?, None))
        }
        request => ask(files, request)?,
    })
}

/// Calls that query descriptors or wait for them.
fn ask(files: &Files, request: Request) -> Result<Reply, Error> {
    let done = |()| Reply::Number(0);
    Ok(match request {
        Request::Flags { fd } => Reply::Number(i64::from(rustix::fs::fcntl_getfl(files.get(fd)?)?.bits())),
        Request::SetNonblocking { fd, on } => done(rustix::io::ioctl_fionbio(files.get(fd)?, on)?),
        Request::Exists { fd } => done(files.get(fd).map(drop)?),
        Request::Unread { fd } => {
            Reply::Number(i64::try_from(rustix::io::ioctl_fionread(files.get(fd)?)?).unwrap_or(i64::MAX))
        }
        Request::LocalAddress { fd } => {
            Reply::Address(address(net::getsockname(files.get(fd)?)?).ok_or(Error::OPNOTSUPP)?)
        }
        Request::PeerAddress { fd } => {
            let peer = net::getpeername(files.get(fd)?)?;
            Reply::Address(peer.and_then(address).ok_or(Error::NOTCONN)?)
        }
        Request::Poll { all, timeout } => Reply::Readiness(ready(files, &all, timeout)?),
        Request::Epoll => Reply::Descriptor(files.insert(epoll::create(epoll::CreateFlags::CLOEXEC)?, None)),
        Request::EpollSet { epoll, fd, events, data, add } => {
            let (epoll, file) = (files.get(epoll)?, files.get(fd)?);
            let events = EventFlags::from_bits_retain(events as u32);
            let data = EventData::new_u64(data as u64);
            if add {
                epoll::add(&epoll, &file, data, events)?;
            } else {
                epoll::modify(&epoll, &file, data, events)?;
            }
            Reply::Number(0)
        }
        Request::EpollRemove { epoll, fd } => done(epoll::delete(files.get(epoll)?, files.get(fd)?)?),
        Request::EpollWait { epoll, limit, timeout } => {
            let mut events = Vec::with_capacity(limit.min(1024));
            let timeout = timeout.map(timespec);
            epoll::wait(files.get(epoll)?, rustix::buffer::spare_capacity(&mut events), timeout.as_ref())?;
            let told = |event: &epoll::Event| {
                let (flags, data) = (event.flags, event.data);
                (i64::from(flags.bits()), data.u64() as i64)
            };
            Reply::Events(events.iter().map(told).collect())
        }
        // `call` and `perform` handle the other requests.
        _ => return Err(Error::NOSYS),
    })
}

fn with(files: &Files, fd: i32, call: impl FnOnce(&File) -> Result<(), Error>) -> Result<Reply, Error> {
    call(&*files.get(fd)?).map(|()| Reply::Number(0))
}

fn socket_flags(nonblocking: bool) -> SocketFlags {
    let flags = SocketFlags::CLOEXEC;
    if nonblocking { flags | SocketFlags::NONBLOCK } else { flags }
}

fn receive(file: &File, len: usize, flags: ReceiveFlags) -> Result<Reply, Error> {
    let mut buffer = vec![0; len.min(LARGEST)];
    if file.socket.is_none() {
        let read = rustix::io::read(file, &mut buffer)?;
        buffer.truncate(read);
        return Ok(Reply::Received(buffer, 0, Vec::new()));
    }
    let mut all = RecvFlags::empty();
    all.set(RecvFlags::PEEK, flags.peek);
    all.set(RecvFlags::OOB, flags.urgent);
    all.set(RecvFlags::DONTWAIT, flags.dont_wait);
    all.set(RecvFlags::WAITALL, flags.wait_all);
    all.set(RecvFlags::ERRQUEUE, flags.error_queue);
    let mut nothing = RecvAncillaryBuffer::default();
    let received = net::recvmsg(file, &mut [IoSliceMut::new(&mut buffer)], &mut nothing, all)?;
    buffer.truncate(received.bytes);
    Ok(Reply::Received(buffer, i64::from(received.flags.bits()), Vec::new()))
}

fn send(file: &File, len: usize, flags: SendFlags, fast_open: Option<SocketAddr>) -> Result<usize, Error> {
    let zeros = vec![0; len.min(LARGEST)];
    if file.socket.is_none() {
        return rustix::io::write(file, &zeros);
    }
    let mut all = net::SendFlags::NOSIGNAL;
    all.set(net::SendFlags::DONTWAIT, flags.dont_wait);
    all.set(net::SendFlags::MORE, flags.more);
    all.set(net::SendFlags::EOR, flags.end_of_record);
    all.set(net::SendFlags::OOB, flags.urgent);
    match fast_open {
        Some(to) => net::sendto(file, &zeros, all | FAST_OPEN, &file.takes(to)),
        None => net::send(file, &zeros, all),
    }
}

/// `SIOCOUTQ`, read from the listing of all sockets.
fn send_queue(file: &File) -> Option<i64> {
    let local = address(net::getsockname(file).ok()?)?;
    let remote = address(net::getpeername(file).ok()??)?;
    sock_diag::send_queue(local, remote)
}

fn ready(files: &Files, all: &[(i32, i64)], timeout: Option<Duration>) -> Result<Vec<i64>, Error> {
    let open: Vec<Option<Arc<File>>> = all.iter().map(|(fd, _)| files.get(*fd).ok()).collect();
    let asked = open.iter().zip(all);
    let mut asked: Vec<PollFd<'_>> = asked
        .filter_map(|(file, (_, events))| {
            Some(PollFd::new(&**file.as_ref()?, PollFlags::from_bits_retain(*events as u16)))
        })
        .collect();
    // A descriptor that is not open is reported at once.
    let timeout = if asked.len() < all.len() { Some(Duration::ZERO) } else { timeout };
    poll(&mut asked, timeout.map(timespec).as_ref())?;
    let mut came = asked.iter().map(|file| i64::from(file.revents().bits()));
    let invalid = i64::from(PollFlags::NVAL.bits());
    Ok(open.iter().map(|file| if file.is_some() { came.next().unwrap_or(0) } else { invalid }).collect())
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}
