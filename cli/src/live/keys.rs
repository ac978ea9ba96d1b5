//! The keys of a terminal, as they are pressed.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Text(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    /// Ctrl-C, or the end of the terminal.
    Interrupt,
}

/// A terminal that gives each key at once, and does not show it. It gets its settings back in the end.
pub(super) struct Keys {
    before: Termios,
}

impl Keys {
    /// `None` if the standard input is no terminal.
    pub(super) fn open() -> Option<Keys> {
        if !isatty(stdin()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut now = before.clone();
        // Without signals, Ctrl-C cannot leave the terminal like this.
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(stdin(), OptionalActions::Now, &now).ok()?;
        Some(Keys { before })
    }

    /// The keys that were pressed, or none when `limit` is over.
    pub(super) fn next(&mut self, limit: Duration) -> io::Result<Vec<Key>> {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mut waiting = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
        match poll(&mut waiting, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => other?,
        };
        let mut bytes = [0; 64];
        let len = rustix::io::read(stdin(), &mut bytes)?;
        Ok(if len == 0 { vec![Key::Interrupt] } else { keys(&bytes[..len]) })
    }
}

/// The lines and columns of the terminal; without a size, those of old terminals.
pub(super) fn size() -> (usize, usize) {
    let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()))
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

/// The keys in what a terminal sends. Unknown sequences are none.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        out.push(match first {
            3 | 4 => Key::Interrupt,
            b'\r' | b'\n' => Key::Enter,
            8 | 127 => Key::Backspace,
            27 => {
                // CSI or SS3: parameters, and a final byte.
                let Some((b'[' | b'O', sequence)) = more.split_first() else {
                    out.push(Key::Escape);
                    continue;
                };
                let len = sequence.iter().position(|byte| (0x40..=0x7e).contains(byte));
                rest = &sequence[len.map_or(sequence.len(), |len| len + 1)..];
                match len.map(|len| sequence[len]) {
                    Some(b'A') => Key::Up,
                    Some(b'B') => Key::Down,
                    _ => continue,
                }
            }
            32..=126 => Key::Text(char::from(*first)),
            _ => continue,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_sends_is_told_apart() {
        let all = keys(b"s\x1b[A\x1bOB\x1b[5~\r\x7f\x1b");
        let wanted = [Key::Text('s'), Key::Up, Key::Down, Key::Enter, Key::Backspace, Key::Escape];
        assert_eq!(all, wanted, "page up is none");
        assert_eq!(keys(b"\x03"), [Key::Interrupt]);
        assert!(keys(b"\x1b[").is_empty() && keys(&[0xff, 0]).is_empty());
    }
}
