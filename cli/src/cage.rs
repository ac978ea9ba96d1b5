//! The cage of a process that carries the traffic of others: what it does not need, it cannot do.
//!
//! Whoever takes the process over through a packet finds no right, no program to start, no file to write and none to read
//! but the list of name servers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr,
};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::failure::Failure;

/// The version of Landlock that the rules are written for: that of Linux 6.7. Older kernels enforce what they know.
const LANDLOCK: ABI = ABI::V4;

/// Calls that this program never makes. A list of those that it makes would break with each update of a library.
const FORBIDDEN: [i64; 45] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_personality,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// Shuts the cage around this thread and those that it starts from now on. Files that are open stay so.
pub(crate) fn shut() -> Result<(), Failure> {
    let failed = |what: &'static str| move |e: io::Error| Failure::system(format_args!("cannot {what}"), e);
    nix::sys::prctl::set_no_new_privs().map_err(|e| failed("give up new privileges")(e.into()))?;
    drop_capabilities().map_err(failed("drop capabilities"))?;
    close_files().map_err(failed("restrict the file system with Landlock"))?;
    forbid_calls().map_err(failed("filter system calls"))
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    Ok(())
}

/// The directories that are read later on: of the list of name servers, which may be replaced as a whole, and of the
/// numbers of interfaces.
fn readable() -> Vec<PathBuf> {
    let list = fs::canonicalize("/etc/resolv.conf").ok();
    let folder = list.and_then(|path| Some(path.parent()?.to_owned()));
    [Some(PathBuf::from("/etc")), folder, Some(PathBuf::from("/sys/class/net"))]
        .into_iter()
        .flatten()
        .collect()
}

fn close_files() -> io::Result<()> {
    let restrict = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let all = AccessFs::from_all(LANDLOCK);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?;
        let mut ruleset = ruleset.create()?;
        for path in readable() {
            if let Ok(folder) = PathFd::new(&path) {
                ruleset = ruleset.add_rule(PathBeneath::new(folder, read))?;
            }
        }
        ruleset.restrict_self()?;
        Ok(())
    };
    restrict().map_err(io::Error::other)
}

fn forbid_calls() -> io::Result<()> {
    let rules: BTreeMap<i64, Vec<_>> = FORBIDDEN.into_iter().map(|call| (call, Vec::new())).collect();
    let Ok(arch) = std::env::consts::ARCH.try_into() else {
        // The filter's compiler does not know this processor.
        return Ok(());
    };
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::PermissionDenied;
    use std::process::Command;

    /// All parts of the cage are those of a thread, so that a test has one of its own.
    fn caged(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            shut().unwrap();
            test();
        });
        thread.join().unwrap();
    }

    #[test]
    fn in_the_cage_no_file_is_written_and_only_the_name_servers_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        caged(move || {
            assert_eq!(fs::write(file.path(), "x").unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::read(file.path()).unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::read_dir("/proc").unwrap_err().kind(), PermissionDenied);
            fs::read("/etc/resolv.conf").unwrap();
        });
    }

    #[test]
    fn in_the_cage_no_program_and_no_namespace_is_made() {
        caged(|| {
            assert_eq!(Command::new("/bin/true").spawn().unwrap_err().kind(), PermissionDenied);
            let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
            assert_eq!(made, Err(nix::errno::Errno::EPERM));
        });
    }

    #[test]
    fn in_the_cage_there_are_no_privileges_and_none_to_gain() {
        caged(|| {
            assert!(rustix::thread::no_new_privs().unwrap());
            let sets = rustix::thread::capabilities(None).unwrap();
            assert!(sets.effective.is_empty() && sets.permitted.is_empty());
        });
    }

    #[test]
    fn in_the_cage_connections_are_still_made() {
        caged(|| {
            let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
        });
    }
}
