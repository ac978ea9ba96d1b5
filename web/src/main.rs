//! The lab in a page.
//!
//! `web/build` compiles this program twice. As a WASI command it plays scenarios in the browser: it reads a request
//! from its standard input, and writes the answer to its standard output. On the machine that builds,
//! `steadfast-web page LAB.wasm` writes the page around that command.
#![forbid(unsafe_code)]

mod page;
mod play;

use std::io::{self, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("steadfast-web: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let out = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let mut request = String::new();
            io::stdin().read_to_string(&mut request).map_err(|error| format!("the request: {error}"))?;
            play::answer(&request).to_string()
        }
        ["page", file] => page::page(&std::fs::read(file).map_err(|error| format!("{file}: {error}"))?)?,
        _ => return Err("expected `page FILE`, or a request on the standard input".to_owned()),
    };
    io::stdout().write_all(out.as_bytes()).map_err(|error| format!("the answer: {error}"))
}
