//! Network namespaces that somebody else has made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::refusal::{Failed, OURS};

/// Moves this process, which has one thread, into the network namespace of a process, or into one with a name as `ip netns`
/// gives it, or with a path. A namespace of another user namespace is entered through that.
pub(super) fn join(place: &str) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new(format_args!("--netns {place}"), error);
    let (net, user) = files_of(place);
    // They are opened first: from within, their names may mean something else.
    let net = File::open(net).map_err(failed)?;
    let user = user.map(File::open).transpose().map_err(failed)?;
    if is_ours(&net, "net").map_err(failed)? {
        let text = format!("--netns {place}: expected another network namespace than that of this program");
        return Err(Failed { code: OURS, text });
    }
    if let Some(user) = user
        && !is_ours(&user, "user").map_err(failed)?
    {
        setns(&user, CloneFlags::CLONE_NEWUSER).map_err(|e| refused(place, e))?;
    }
    setns(&net, CloneFlags::CLONE_NEWNET).map_err(|e| refused(place, e))?;
    match default_route() {
        Some(device) => {
            let text = format!("--netns {place}: expected no default route there, found one by `{device}`");
            Err(Failed { code: OURS, text })
        }
        None => Ok(()),
    }
}

/// The files of a network namespace, and of the user namespace around it where that is known.
fn files_of(place: &str) -> (PathBuf, Option<PathBuf>) {
    if place.parse::<u32>().is_ok() {
        let folder = Path::new("/proc").join(place).join("ns");
        return (folder.join("net"), Some(folder.join("user")));
    }
    // An absolute path stays as it is.
    (Path::new("/run/netns").join(place), None)
}

fn is_ours(file: &File, kind: &str) -> io::Result<bool> {
    let (one, own) = (file.metadata()?, fs::metadata(Path::new("/proc/self/ns").join(kind))?);
    Ok((one.dev(), one.ino()) == (own.dev(), own.ino()))
}

fn refused(place: &str, error: Errno) -> Failed {
    let mut failed = Failed::new(format_args!("--netns {place}"), error);
    if error == Errno::EPERM {
        failed.text += ": expected a namespace that this user has made, or root";
    } else if error == Errno::EINVAL {
        failed.text += ": expected the file of a network namespace";
    }
    failed
}

/// The device of an IPv4 default route in the namespace of this process.
fn default_route() -> Option<String> {
    let routes = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    routes.lines().find_map(|route| {
        let fields: Vec<&str> = route.split_whitespace().collect();
        match fields[..] {
            [device, "00000000", _, _, _, _, _, "00000000", ..] => Some(device.to_owned()),
            _ => None,
        }
    })
}
