//! The life of the command: identity, exit code, signals, output, and what is left of it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::Scene;

/// Runs a shell command, and returns its exit code, its output and its errors.
fn shell(scene: &Scene, options: &[&str], script: &str) -> (Option<i32>, String, String) {
    // Who runs the tests in the background of a shell has them ignore SIGINT.
    let command = ["env", "--default-signal=INT", "sh", "-c", script];
    let output = scene.run(options, &command).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn f23_the_exit_code_is_that_of_the_command() {
    let Some(scene) = Scene::new() else { return };
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -INT $$", 130)] {
        let (status, output, errors) = shell(&scene, &[], script);
        assert_eq!((status, &*output, &*errors), (Some(code), "", ""), "{script}");
    }
    for (command, code, text) in [
        ("no-such-command", 127, "steadfast: no-such-command: no such file or directory\n"),
        ("/etc/passwd", 126, "steadfast: /etc/passwd: permission denied\n"),
    ] {
        let output = scene.run(&[], &[command]).output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(code), text.as_bytes()));
    }
}

#[test]
fn f23_the_command_is_who_it_was_and_has_no_rights() {
    let Some(scene) = Scene::new() else { return };
    let (_, output, errors) = shell(&scene, &[], "id -u; id -g; grep CapEff /proc/self/status; pwd; cat");
    assert_eq!((&*output, &*errors), ("1001\n1001\nCapEff:\t0000000000000000\n/\n", ""));
    assert_eq!(shell(&scene, &["--root"], "id -u").1, "0\n");
}

#[test]
fn f23_who_carries_the_traffic_is_in_a_cage() {
    let Some(scene) = Scene::new() else { return };
    let script = "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/$PPID/status | tr '\\n' ' '";
    let (_, output, _) = shell(&scene, &[], script);
    assert_eq!(output, "CapEff:\t0000000000000000 NoNewPrivs:\t1 Seccomp:\t2 ");
    // The command itself is free.
    let (_, output, _) = shell(&scene, &[], "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status | tr '\\n' ' '");
    assert_eq!(output, "NoNewPrivs:\t0 Seccomp:\t0 ");
}

#[test]
fn f23_a_signal_reaches_the_command_and_its_answer_comes_back() {
    let Some(scene) = Scene::new() else { return };
    let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let mut run = scene.run(&[], &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    // `unshare`, `sh` and `setpriv` have replaced each other.
    kill(Pid::from_raw(run.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(run.wait().unwrap().code(), Some(3));
}

#[test]
fn f23_a_run_that_is_killed_takes_the_command_with_it() {
    let Some(scene) = Scene::new() else { return };
    let script = "echo ready; while :; do sleep 0.01; done";
    let mut run = scene.run(&[], &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(run.stdout.take().unwrap());
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    run.kill().unwrap();
    assert_eq!(run.wait().unwrap().signal(), Some(9));
    // Its output ends with the command, and so the test.
    let mut rest = String::new();
    assert_eq!(output.read_line(&mut rest).unwrap(), 0);
}

/// The processes that have this text in their environment.
fn processes_with(mark: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_marked = |folder: &std::path::Path| {
        let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let marked = entries.map(|entry| entry.path()).filter(|folder| is_marked(folder));
    marked.map(|folder| std::fs::read_to_string(folder.join("cmdline")).unwrap_or_default()).collect()
}

/// With `STEADFAST_FULL=1` there are a thousand runs.
#[test]
fn f23_nothing_is_left_of_many_runs_of_which_a_tenth_is_killed() {
    let Some(mut scene) = Scene::new() else { return };
    let full = std::env::var_os("STEADFAST_FULL").is_some_and(|value| value != "0");
    let folder = scene.file("temporary");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mark = format!("STEADFAST_MARK={}", folder.display());
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (before, mut random) = (mounts(), fastrand::Rng::with_seed(7));
    for number in 0..if full { 1000 } else { 40 } {
        // The namespaces and devices of each kind of run.
        scene.device(if number % 4 == 0 { "absent" } else { "tun" });
        let mut run = scene.run(&[], &["sleep", "0.01"]);
        let mut run = run.env("STEADFAST_MARK", &folder).env("TMPDIR", &folder).spawn().unwrap();
        if number % 10 == 0 {
            // Before the namespaces are made, between, or while the command runs.
            std::thread::sleep(std::time::Duration::from_millis(random.u64(..80)));
            run.kill().unwrap();
            run.wait().unwrap();
        } else {
            assert_eq!(run.wait().unwrap().code(), Some(0), "{number}");
        }
    }
    // The command of a killed run ends by a signal, which takes a moment.
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !processes_with(&mark).is_empty() && std::time::Instant::now() < limit {
        std::thread::yield_now();
    }
    // Namespaces and devices end with the last of their processes, since no mount holds them.
    assert_eq!(processes_with(&mark), [""; 0]);
    assert_eq!(mounts(), before);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn f23_the_keys_of_a_terminal_stop_continue_and_interrupt() {
    let Some(scene) = Scene::new() else { return };
    let script = "set -m; \"$0\" run -- sh -c 'echo ready; read -r line; echo got $line; exec sleep 60'; \
                  echo stopped $?; fg; echo ended $?";
    let mut command = scene.user("python3");
    command.args(["-c", include_str!("client.py"), "terminal", "bash", "-c", script]).arg(scene.program());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.stdout, b"done\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn f23_a_run_is_asked_at_its_control_socket() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(crate::scene::echo);
    let socket = std::env::temp_dir().join(format!("steadfast-run-{port}.sock"));
    let control = format!("--control={}", socket.display());
    let script = format!(
        "exec 3<>/dev/tcp/{}/{port}; $0 ss -tnH --socket {} </dev/null",
        crate::scene::SERVER,
        socket.display()
    );
    let program = scene.program();
    let output = scene.run(&[&control], &["bash", "-c", &script, program.to_str().unwrap()]);
    let output = { output }.stdin(Stdio::null()).output().unwrap();
    // The cage removes no file.
    std::fs::remove_file(&socket).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("ESTAB") && text.contains(&format!("{}:{port}", crate::scene::SERVER)),
        "{output:?}"
    );
}

#[test]
fn f24_run_works_inside_itself_and_as_root() {
    let Some(scene) = Scene::new() else { return };
    let program = scene.program();
    let inner = scene.run(&[], &[program.to_str().unwrap(), "run", "--", "cat", "/etc/resolv.conf"]);
    let output = { inner }.output().unwrap();
    assert!(output.stdout.starts_with(b"nameserver 10.0.2.3\n"), "{output:?}");
    let mut root = std::process::Command::new(&program);
    let output = root.args(["run", "--", "sh", "-c", "id -u; ip -o -4 address show sf0"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("0\n") && text.contains("inet 10.0.2.15/24"), "{output:?}");
}

#[test]
fn f24_run_works_where_the_tun_device_is_absent() {
    let Some(mut scene) = Scene::new() else { return };
    scene.device("absent");
    let port = scene.serve(crate::scene::echo).to_string();
    let output = scene.compare(&["-v"], &["crowd", crate::scene::SERVER, &port, "3"]);
    assert_eq!(output.stdout, b"3\n");
    assert_eq!(output.stderr, b"steadfast: the command is connected by a Packet device\n");
}

/// `steadfast run -- echo started` by `start`, a shell script with the program as `$0`, as an ordinary user. It must be
/// refused in one line, which is returned.
fn refusal(scene: &Scene, start: &str) -> String {
    let mut command = scene.user("sh");
    command.args(["-c", start]).arg(scene.program()).args(["run", "--", "echo", "started"]);
    one_line(command)
}

fn one_line(mut command: std::process::Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), errors.lines().count()), (Some(125), 1), "{errors}");
    assert_eq!(output.stdout, b"", "{errors}");
    errors
}

#[test]
fn f24_a_filter_of_system_calls_is_named() {
    let Some(scene) = Scene::new() else { return };
    let errors = refusal(&scene, &format!("exec python3 -c '{FILTER}' \"$0\" \"$@\""));
    assert!(errors.contains("; a seccomp filter forbids it: in a container, start it with "), "{errors}");
}

/// Forbids user namespaces as a container does: `unshare` and `clone3` fail with EPERM, and the rest is allowed.
const FILTER: &str = "\
import ctypes, os, struct, sys
call = {\"x86_64\": 272, \"aarch64\": 97}[os.uname().machine]
code = struct.pack(\"=\" + \"HBBI\" * 4, 32, 0, 0, 0, 21, 0, 1, call, 6, 0, 0, 0x50001, 6, 0, 0, 0x7fff0000)
program = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
libc.prctl(22, 2, struct.pack(\"@HP\", 4, ctypes.addressof(program)))
os.execv(sys.argv[1], sys.argv[1:])";

/// The folders that a program needs, in a folder that is no mount point, and `$@` in it.
const CHROOT: &str = "\
mkdir -p $ROOT && cp $PROGRAM $ROOT/steadfast && for part in usr bin lib lib64 etc dev proc; do
    test -d /$part || continue; mkdir -p $ROOT/$part && mount --rbind /$part $ROOT/$part || exit 1
done && exec chroot $AS $ROOT /steadfast run -- echo started";

#[test]
fn f24_a_chroot_is_named_to_a_user_and_to_root() {
    let Some(scene) = Scene::new() else { return };
    let root = scene.file("root");
    let refusal = |user: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", CHROOT]).env("AS", user);
        command.env("ROOT", &root).env("PROGRAM", scene.program());
        one_line(command)
    };
    let errors = refusal("--userspec=1001:1001");
    assert!(errors.contains("; the kernel allows none in a chroot: use `unshare --root`"), "{errors}");
    let errors = refusal("--userspec=0:0");
    assert!(errors.contains("; the root directory is no mount point, as in a chroot: "), "{errors}");
}

#[test]
fn f24_run_works_where_the_tun_device_is_closed() {
    let Some(mut scene) = Scene::new() else { return };
    let url = format!("http://{}:{}/", crate::scene::SERVER, scene.serve(crate::faults::answer));
    scene.device("closed");
    let (output, seconds) = crate::faults::curl(&scene, &[], &url);
    assert!(output.stdout.starts_with(b"hold\n") && output.stderr.is_empty(), "{output:?}");
    assert!(seconds < 0.5, "{seconds}");
    let (output, seconds) = crate::faults::curl(&scene, &["--fault=lose C>S [S] 1", "--ladder"], &url);
    assert!((1.0..1.5).contains(&seconds), "{seconds}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("lost: lose C>S [S] 1"), "{errors}");
    // Packets do not tell the states of their ends.
    assert!(!errors.contains("CLOSED"), "{errors}");
}

#[test]
fn f24_without_namespaces_one_line_names_the_cause() {
    let Some(scene) = Scene::new() else { return };
    // In a user namespace of its own, whose limit is its own too, and without the rights that root has there.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all \"$@\"";
    let mut limited = std::process::Command::new("unshare");
    limited.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(scene.program());
    let output = limited.args(["run", "--", "true"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.lines().count()), (Some(125), 1), "{errors}");
    assert!(errors.contains("sysctl user.max_user_namespaces=10000 (it is 0)"), "{errors}");
}

#[test]
fn what_is_wrong_is_told_before_anything_starts() {
    let Some(scene) = Scene::new() else { return };
    for (option, expected) in [
        ("--allow=10.0.0.0/33", "--allow `10.0.0.0/33`: expected a prefix from 0 to 32, found `33`"),
        ("--fault=lose C>S [S] x", "--fault `lose C>S [S] x`: expected the end of the line, found `x`"),
        ("--fault=lose C>X", "--fault `lose C>X`: expected C, the program, or S, the network, found `X`"),
        ("--fault=crash C at 1", "--fault `crash C at 1`: expected a fault of packets or paths"),
        (
            "--upstream=socks4://192.0.2.1:1",
            "--upstream `socks4://192.0.2.1:1`: expected socks5:// or http://",
        ),
        ("--publish=8080:80/sctp", "--publish `8080:80/sctp`: expected `tcp` or `udp`, found `sctp`"),
        ("-p8080:80/sctp", "--publish `8080:80/sctp`: expected `tcp` or `udp`, found `sctp`"),
        ("--no-such-option", "error: unexpected argument '--no-such-option' found"),
        ("--dns=nowhere", "error: invalid value 'nowhere' for '--dns"),
        ("--pcap=/no/such/folder/x", "--pcap /no/such/folder/x: "),
    ] {
        let output = scene.run(&[option], &["echo", "started"]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(125), &b""[..]), "{errors}");
        let told = errors.trim_start_matches("steadfast: ");
        assert!(told.starts_with(expected), "{errors}");
    }
}

#[test]
fn the_doctor_finds_what_a_run_would_find() {
    let Some(scene) = Scene::new() else { return };
    let sound = scene.user(scene.program().to_str().unwrap()).arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&sound.stdout);
    assert!(
        sound.status.success() && text.starts_with("ok       run: a command gets a TUN device\n"),
        "{text}"
    );
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(text.contains(&format!("\nok       kernel: Linux {release}")), "{text}");
    // As in `f24_without_namespaces_one_line_names_the_cause`.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all \"$@\"";
    let mut limited = std::process::Command::new("unshare");
    limited.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(scene.program());
    let output = limited.arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let expected =
        "lacking  run: cannot make a user namespace: no space left on device; the limit is reached";
    assert!(output.status.code() == Some(1) && text.starts_with(expected), "{text}");
}
