//! The control socket of a gateway: a line is a command, and its answer ends with the line `ok` or `error: …`.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::process::umask;
use steadfast_gateway::{Forward, Gateway};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::place::{Lost, take_path};
use crate::failure::Failure;

/// Clients at a time. More wait.
const CLIENTS: usize = 16;

/// The longest command.
const LONGEST: u64 = 4096;

const HELP: &str = "\
add [ADDRESS:]PORT[:[GUEST:]PORT][/udp]     lead clients of a port of the machine to a guest
remove [ADDRESS:]PORT[:[GUEST:]PORT][/udp]  lead no more of them there
forwards                                    list these
flows                                       list connections and flows of UDP: protocol, state, guest, other end, age
counters                                    list what the gateway has done
";

/// The socket, which only its user may connect to.
pub(super) struct Control(UnixListener);

impl Control {
    pub(super) fn bind(path: &Path) -> Result<Control, Failure> {
        let bind = || {
            take_path(path)?;
            // There is only one thread yet.
            let before = umask(Mode::RWXG | Mode::RWXO);
            let listener = UnixListener::bind(path);
            umask(before);
            let listener = listener?;
            listener.set_nonblocking(true)?;
            Ok(Control(listener))
        };
        bind().map_err(|e| Failure::system(format_args!("--control {}", path.display()), e))
    }

    /// Serves clients until the socket fails.
    pub(super) async fn serve(self, gateway: &Arc<Gateway>, lost: &Lost) -> Failure {
        match self.serve_all(gateway, lost).await {
            Err(error) => Failure::system("--control", error),
        }
    }

    async fn serve_all(self, gateway: &Arc<Gateway>, lost: &Lost) -> io::Result<Infallible> {
        let listener = tokio::net::UnixListener::from_std(self.0)?;
        let mut clients = JoinSet::new();
        loop {
            while clients.len() >= CLIENTS {
                clients.join_next().await;
            }
            let (client, _) = listener.accept().await?;
            let (gateway, lost) = (gateway.clone(), lost.clone());
            clients.spawn(async move {
                // A client that fails has gone.
                let _ = serve_client(client, &gateway, &lost).await;
            });
            while clients.try_join_next().is_some() {}
        }
    }
}

async fn serve_client(mut client: UnixStream, gateway: &Gateway, lost: &Lost) -> io::Result<()> {
    let (reader, mut writer) = client.split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        (&mut reader).take(LONGEST).read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Ok(());
        }
        let answer = match answer(line.trim(), gateway, lost) {
            Ok(lines) => lines + "ok\n",
            Err(text) => format!("error: {text}\n"),
        };
        writer.write_all(answer.as_bytes()).await?;
    }
}

/// The lines of an answer, or what is wrong.
fn answer(line: &str, gateway: &Gateway, lost: &Lost) -> Result<String, String> {
    let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
    let forward = || argument.trim().parse::<Forward>().map_err(|e| e.to_string());
    match command {
        "add" => {
            let forward = forward()?;
            gateway.add_forward(forward.clone()).map_err(|e| format!("{forward}: {e}"))?;
            Ok(String::new())
        }
        "remove" => {
            let forward = forward()?;
            match gateway.remove_forward(&forward) {
                true => Ok(String::new()),
                false => Err(format!("{forward}: there is no such forward")),
            }
        }
        "forwards" => Ok(gateway.forwards().iter().map(|forward| format!("{forward}\n")).collect()),
        "flows" => Ok(gateway.flows().iter().map(|flow| format!("{flow}\n")).collect()),
        "counters" => {
            let counters = gateway.counters();
            let lines = counters.iter().map(|(name, value)| format!("{name} {value}"));
            Ok(lines.chain(lost.told()).map(|line| line + "\n").collect())
        }
        "help" => Ok(HELP.to_owned()),
        _ => Err(format!("`{command}`: expected add, remove, forwards, flows, counters or help")),
    }
}
