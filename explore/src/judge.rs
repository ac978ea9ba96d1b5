//! The judgement of a run that has come to rest.

use steadfast_core::trace::State;

use crate::ends::END_NAMES;
use crate::world::{Scratch, World};

/// Returns the first rule that a run has broken. It ends the run: the applications close what they hold, and everything
/// must come to an end.
pub(crate) fn judge(world: &mut World, scratch: &mut Scratch) -> Option<String> {
    if world.wrong.is_some() {
        return world.wrong.take();
    }
    if world.mended && world.program.orderly {
        if !world.is_at_rest() {
            return Some("not at rest after an hour".to_owned());
        }
        if let Some(text) = stuck(world) {
            return Some(text);
        }
        if world.is_late() {
            return Some("the applications took longer than the faults explain".to_owned());
        }
        if world.in_order && world.resets > 0 {
            return Some("a RST, and nothing arrived out of its time".to_owned());
        }
        if world.accepts > world.connects {
            return Some(format!("{} accepted of {} connections", world.accepts, world.connects));
        }
    }
    consistent(world).or_else(|| wind_up(world, scratch))
}

/// An application that waits for ever.
fn stuck(world: &World) -> Option<String> {
    world.ends.iter().zip(&world.program.hosts).zip(END_NAMES).find_map(|((end, host), name)| {
        let op = end.apps.iter().find_map(|app| app.stuck(&host.apps))?;
        Some(format!("{name} waits in `{}` for ever", op.text))
    })
}

fn consistent(world: &World) -> Option<String> {
    world
        .ends
        .iter()
        .zip(END_NAMES)
        .find_map(|(end, name)| end.stack.check_consistent().err().map(|text| format!("{name}: {text}")))
}

/// Closes everything. Nothing may be left of any connection, within the time that a run has.
fn wind_up(world: &mut World, scratch: &mut Scratch) -> Option<String> {
    world.close_all();
    world.play(scratch, |_| None);
    if world.wrong.is_some() {
        return world.wrong.take();
    }
    consistent(world).or_else(|| if world.mended { left(world) } else { None })
}

/// Returns what is left at the end, or what no exchange of segments ended. A peer that crashed or is cut off may
/// take longer to be given up than a run lasts.
fn left(world: &World) -> Option<String> {
    world.ends.iter().zip(&world.program.hosts).zip(END_NAMES).find_map(|((end, host), name)| {
        let usage = end.stack.usage();
        let left: Vec<_> = usage.iter().filter(|(field, n)| *n > 0 && *field != "path_mtus").collect();
        if !left.is_empty() {
            let states: Vec<State> = end.stack.sockets(world.now).iter().map(|socket| socket.state).collect();
            let waits = |state: &State| *state == State::FinWait2 && !host.ends_fin_wait_2();
            if states.iter().all(waits) {
                return None;
            }
            return Some(format!("{name} keeps {left:?} {states:?}"));
        }
        let counters = end.stack.counters();
        let given_up =
            counters.tcp_abort_on_timeout + counters.tcp_abort_on_memory + counters.orphan_timeouts;
        (world.program.orderly && given_up > 0).then(|| format!("{name} gave a connection up"))
    })
}
