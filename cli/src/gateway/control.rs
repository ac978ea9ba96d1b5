//! The commands of a gateway's control socket: a line is a command, and its answer ends with the line `ok` or `error: …`.

use steadfast_gateway::{Forward, Gateway};

use super::place::Lost;

const HELP: &str = "\
add [ADDRESS:]PORT[:[GUEST:]PORT][/udp]     lead clients of a port of the machine to a guest
remove [ADDRESS:]PORT[:[GUEST:]PORT][/udp]  lead no more of them there
forwards                                    list these
flows                                       list connections and flows of UDP: protocol, state, guest, other end, age
counters                                    list what the gateway has done
";

/// The answer to a command.
pub(super) fn answer(line: &str, gateway: &Gateway, lost: &Lost) -> String {
    match lines(line, gateway, lost) {
        Ok(lines) => lines + "ok\n",
        Err(text) => format!("error: {text}\n"),
    }
}

/// The lines of an answer, or what is wrong.
fn lines(line: &str, gateway: &Gateway, lost: &Lost) -> Result<String, String> {
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
