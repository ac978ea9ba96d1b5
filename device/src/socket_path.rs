//! Paths for sockets: a program that was killed leaves its own behind.

use std::fs::{remove_file, symlink_metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

/// Makes room for a new UNIX socket at a path: removes the socket that an ended program has left there.
///
/// # Errors
///
/// `AddrInUse`, a program listens there, or something else than a socket is there, which stays as it is. Other errors are
/// those of asking and of removing.
pub fn free_socket_path(path: &Path) -> io::Result<()> {
    let taken = |what: &str| {
        let expected = "expected a path for a new socket, or the socket of a program that has ended";
        Err(io::Error::new(ErrorKind::AddrInUse, format!("{what}: {expected}")))
    };
    let there = match symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        there => there?.file_type(),
    };
    if !there.is_socket() {
        return taken(if there.is_dir() { "a folder is there" } else { "a file is there" });
    }
    let refused = |connected: &io::Result<()>| {
        connected.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    let stream = UnixStream::connect(path).map(drop);
    // A socket of datagrams takes no stream.
    let datagrams = || UnixDatagram::unbound()?.connect(path);
    if refused(&stream) || stream.is_err() && refused(&datagrams()) {
        return remove_file(path);
    }
    taken("a program listens there")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    /// A folder of this test, which it removes.
    fn folder(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("steadfast-path-{test}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_socket_goes_once_nobody_listens_there() {
        let folder = folder("ended");
        let (stream, datagrams) = (folder.join("stream"), folder.join("datagrams"));
        let listener = UnixListener::bind(&stream).unwrap();
        let receiver = UnixDatagram::bind(&datagrams).unwrap();
        for path in [&stream, &datagrams] {
            let error = free_socket_path(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().starts_with("a program listens there: expected"), "{error}");
        }
        drop((listener, receiver));
        for path in [&stream, &datagrams] {
            free_socket_path(path).unwrap();
            assert!(!path.exists());
            free_socket_path(path).unwrap();
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn something_else_than_a_socket_stays_and_is_named() {
        let folder = folder("other");
        let (file, link) = (folder.join("file"), folder.join("link"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for (path, what) in
            [(&folder, "a folder is there: "), (&file, "a file is there: "), (&link, "a file is")]
        {
            let error = free_socket_path(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().starts_with(what), "{error}");
        }
        assert_eq!(std::fs::read(&link).unwrap(), b"text");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
