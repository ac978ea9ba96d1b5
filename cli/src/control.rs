//! `--control`: the socket at which a running network is asked.

use std::path::PathBuf;

use clap::Args;
use steadfast::ControlSocket;

use crate::failure::Failure;
use crate::live;

/// Where the network listens for questions.
#[derive(Args)]
pub(crate) struct ControlOptions {
    /// Open a control socket for `ss`, `nstat`, `sysctl`, `metrics`, `top`, `trace` and `capture`: at this path,
    /// or in /run/steadfast (root) or $XDG_RUNTIME_DIR/steadfast.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    control: Option<Option<PathBuf>>,
    /// Let the control socket change settings and reset connections.
    #[arg(long, requires = "control")]
    control_write: bool,
}

impl ControlOptions {
    /// Binds the socket, if there is to be one.
    pub(crate) fn bind(&self) -> Result<Option<ControlSocket>, Failure> {
        let Some(path) = &self.control else { return Ok(None) };
        let path = path.clone().map_or_else(live::own_socket, Ok)?;
        let bound = ControlSocket::bind(&path);
        let socket = bound.map_err(|e| Failure::system(format_args!("--control={}", path.display()), e))?;
        Ok(Some(socket.write(self.control_write)))
    }
}
