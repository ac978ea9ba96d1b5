//! The answers of the control socket. They are made on a thread that may block.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock};

use serde_json::{Map, Value as Json, json};
use steadfast_core::counters::Counters;
use steadfast_core::histograms::{Histogram, Histograms};
use steadfast_core::info::{Info, SocketCursor, SocketEntry, Usage};
use steadfast_core::trace::{State as TcpState, TraceEvent};
use steadfast_core::{Config, Instant};

use super::Server;
use super::outlet::Outlet;
use super::rows::{INFO_STEP, Page, Query, STEP, captured, number, traced, traced_info};
use crate::shared::Shared;

/// Different sources of half-open connections that are counted.
const SOURCES: usize = 65_536;
/// How often a trace or a capture is collected.
const COLLECT_EVERY: Duration = Duration::from_millis(20);
/// The longest trace or capture.
const COLLECT_LIMIT: Duration = Duration::from_secs(3600);
/// The shortest time between the rounds of `watch`, in milliseconds.
const WATCH_LEAST: u64 = 100;
/// Packets of a capture that are written at once.
const PACKETS: usize = 64;

/// The rows of an answer, or what is wrong with the request.
pub(super) type Answer = Result<u64, String>;

/// The summary of a listing.
#[derive(Default)]
struct Summary {
    states: BTreeMap<&'static str, u64>,
    listeners: Vec<Json>,
    /// For each listener.
    half_open: BTreeMap<SocketAddr, (u64, HashSet<IpAddr>)>,
    sources: usize,
    /// In CLOSE-WAIT, and the age of the oldest.
    forgotten: BTreeMap<SocketAddr, (u64, Duration)>,
}

impl Summary {
    fn take(&mut self, row: &SocketEntry) {
        *self.states.entry(row.state.ss_name()).or_default() += 1;
        let owner = row.listener.unwrap_or(row.local);
        match row.state {
            TcpState::Listen => {
                self.listeners.push(json!({"local": row.local.to_string(), "waiting": row.recv_q,
                "backlog": row.send_q, "half_open": row.half_open}))
            }
            TcpState::SynReceived => {
                let (count, known) = self.half_open.entry(owner).or_default();
                *count += 1;
                if self.sources < SOURCES && known.insert(row.remote.ip()) {
                    self.sources += 1;
                }
            }
            TcpState::CloseWait => {
                let (count, oldest) = self.forgotten.entry(owner).or_default();
                *count += 1;
                *oldest = (*oldest).max(row.state_age);
            }
            _ => {}
        }
    }

    fn json(&self) -> Json {
        let half_open = self.half_open.iter().map(
            |(local, (count, known))| json!({"local": local.to_string(), "count": count, "sources": known.len()}),
        );
        let forgotten = self.forgotten.iter().map(|(local, (count, oldest))| {
            json!({"local": local.to_string(), "count": count, "oldest": oldest.as_secs_f64()})
        });
        json!({"states": self.states, "listeners": self.listeners, "half_open": half_open.collect::<Vec<_>>(),
            "close_wait": forgotten.collect::<Vec<_>>()})
    }
}

impl Server {
    /// Writes the rows of an answer. The outer error is that of the client's socket.
    pub(super) fn answer(&self, request: &Json, out: &mut Outlet) -> io::Result<Answer> {
        let one = |value: Json| format!("{value}\n");
        let text = match request["do"].as_str() {
            Some("hello") => one(self.hello()),
            Some("counters") => one(self.counters()),
            Some("summary") => one(self.summary()),
            Some("sockets") => return self.sockets(request, out),
            Some("config") => {
                let config = self.stacks[0].lock().stack.config().clone();
                let row = |s: &steadfast_core::config::Setting| {
                    one(json!({"name": s.name, "value": s.value(&config)}))
                };
                Config::settings().iter().map(row).collect()
            }
            Some("set") => return Ok(self.set(request)),
            Some("kill") => return Ok(self.kill(request)),
            Some("watch") => return self.watch(request, out),
            Some("trace") => return self.trace(request, out),
            Some("capture") => return self.capture(request, out),
            _ => {
                return Ok(Err(
                    "expected {\"do\": one of hello, sockets, summary, counters, config, watch, trace, capture, set, kill}"
                        .to_owned(),
                ));
            }
        };
        out.write(&text)?;
        Ok(Ok(text.lines().count() as u64))
    }

    fn hello(&self) -> Json {
        let state = self.stacks[0].lock();
        let addresses: Vec<String> = state
            .stack
            .interfaces()
            .iter()
            .flat_map(|(_, interface)| {
                interface.addresses.iter().map(|(address, len)| format!("{address}/{len}"))
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "queues": self.stacks.len(),
            "addresses": addresses,
            "congestion": state.stack.config().value("tcp_congestion_control"),
            "write": self.write,
        })
    }

    fn counters(&self) -> Json {
        let (mut counters, mut usage) = (Counters::default(), Usage::default());
        let mut histograms = Histograms::default();
        for stack in &self.stacks {
            let state = stack.lock();
            counters.add(state.stack.counters());
            histograms.add(state.stack.histograms());
            usage.add(&state.stack.usage());
        }
        let counters: Map<String, Json> = counters.iter().map(|(name, value)| (name, json!(value))).collect();
        let usage: Map<String, Json> =
            usage.iter().map(|(name, fill)| (name.to_owned(), json!(fill))).collect();
        let told = |histogram: &Histogram| {
            json!({"bounds": Histogram::bounds(), "counts": histogram.counts(),
                "sum": histogram.sum().as_nanos() as f64 / 1000.0})
        };
        let histograms: Map<String, Json> =
            histograms.iter().map(|(name, histogram)| (name.to_owned(), told(histogram))).collect();
        json!({"counters": counters, "usage": usage, "histograms": histograms})
    }

    /// How many there are of each state; listeners; half-open connections, and how many sources they have.
    fn summary(&self) -> Json {
        let (mut summary, mut rows) = (Summary::default(), Vec::new());
        for stack in &self.stacks {
            let mut next = Some(SocketCursor::default());
            while let Some(cursor) = next {
                let now = stack.now();
                next = stack.lock().stack.sockets_from(now, cursor, STEP, &mut rows);
                rows.drain(..).for_each(|row| summary.take(&row));
            }
        }
        summary.json()
    }

    fn sockets(&self, request: &Json, out: &mut Outlet) -> io::Result<Answer> {
        let mut query = match Query::of(request) {
            Ok(query) => query,
            Err(error) => return Ok(Err(error)),
        };
        let (mut all, mut page) = (0, Page::default());
        for stack in &self.stacks {
            let mut next = Some(SocketCursor::default());
            while let Some(cursor) = next.filter(|_| query.limit > 0) {
                let rows;
                (rows, next) = query.fill(&mut page, stack, cursor);
                (all, query.limit) = (all + rows, query.limit - rows);
                out.write(&page.text)?;
            }
        }
        Ok(Ok(all))
    }

    fn may_write(&self) -> Result<(), String> {
        if self.write {
            Ok(())
        } else {
            Err("the control socket is read-only; --control-write allows changes".to_owned())
        }
    }

    fn set(&self, request: &Json) -> Answer {
        self.may_write()?;
        let assignment = request["setting"].as_str().ok_or("expected \"setting\": \"name = value\"")?;
        for stack in &self.stacks {
            let mut config = stack.lock().stack.config().clone();
            config.apply(assignment).map_err(|error| error.to_string())?;
            config.validate().map_err(|error| error.to_string())?;
            stack.call_untimed(|state| state.stack.set_config(config));
        }
        Ok(0)
    }

    fn kill(&self, request: &Json) -> Answer {
        self.may_write()?;
        let end = |key: &str| {
            request[key]
                .as_str()
                .and_then(|text| text.parse::<SocketAddr>().ok())
                .ok_or_else(|| format!("expected \"{key}\": an address and a port"))
        };
        let (local, remote) = (end("local")?, end("remote")?);
        let killed =
            self.stacks.iter().filter(|stack| stack.call(|state, now| state.stack.kill(now, local, remote)));
        Ok(killed.count() as u64)
    }

    /// Gives the same answer again and again, until the client leaves or the network ends.
    fn watch(&self, request: &Json, out: &mut Outlet) -> io::Result<Answer> {
        let what = request["what"].as_str().unwrap_or_default();
        if !["counters", "summary", "sockets"].contains(&what) {
            return Ok(Err("expected \"what\": one of counters, summary, sockets".to_owned()));
        }
        let numbers =
            number(request, "every", 1000).and_then(|every| Ok((every, number(request, "count", u64::MAX)?)));
        let (every, count) = match numbers {
            Ok((every, _)) if every < WATCH_LEAST => {
                return Ok(Err(format!("every: {every}: expected at least {WATCH_LEAST} milliseconds")));
            }
            Ok(numbers) => numbers,
            Err(error) => return Ok(Err(error)),
        };
        let mut asked = request.clone();
        asked["do"] = what.into();
        let (start, mut all) = (Clock::now(), 0);
        for round in 1..=count {
            let rows = match self.answer(&asked, out)? {
                Ok(rows) => rows,
                wrong => return Ok(wrong),
            };
            all += rows;
            out.write(&format!("{}\n", json!({"id": request["id"], "round": round, "rows": rows})))?;
            if round == count || self.has_ended() {
                break;
            }
            let due = Duration::from_millis(every.saturating_mul(round));
            out.sleep(due.saturating_sub(start.elapsed()))?;
        }
        Ok(Ok(all))
    }

    fn has_ended(&self) -> bool {
        self.stacks.iter().all(|stack| stack.lock().is_closed())
    }

    /// Runs `some` every now and then for the time that the request wants, or until the network ends.
    fn collect(
        &self,
        wanted: Duration,
        out: &mut Outlet,
        mut some: impl FnMut(&mut Outlet) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = Clock::now();
        loop {
            let left = wanted.saturating_sub(start.elapsed());
            out.sleep(left.min(COLLECT_EVERY))?;
            some(out)?;
            if left <= COLLECT_EVERY || self.has_ended() {
                return Ok(());
            }
        }
    }

    fn trace(&self, request: &Json, out: &mut Outlet) -> io::Result<Answer> {
        let wanted = match wanted(request) {
            Ok(wanted) => wanted,
            Err(error) => return Ok(Err(error)),
        };
        let Some(_mine) = Only::user(&self.tracing) else {
            return Ok(Err("somebody else traces".to_owned()));
        };
        let switch = |on| {
            self.stacks.iter().for_each(|stack| stack.call_untimed(|state| state.stack.set_tracing(on)));
        };
        let lost = || self.stacks.iter().map(|stack| stack.lock().stack.counters().trace_lost).sum::<u64>();
        let info = request["info"].as_bool().unwrap_or(false);
        switch(true);
        let (before, mut rows) = (lost(), 0);
        let result = self.collect(wanted, out, |out| {
            for stack in &self.stacks {
                loop {
                    let (some, infos) = Server::events(stack, info);
                    if some.is_empty() {
                        break;
                    }
                    rows += (some.len() + infos.len()) as u64;
                    let mut text: String = some.iter().map(|event| format!("{}\n", traced(event))).collect();
                    infos.iter().for_each(|(at, info)| text += &traced_info(*at, info));
                    out.write(&text)?;
                }
            }
            Ok(())
        });
        switch(false);
        result?;
        write_lost(out, lost() - before, "events")?;
        Ok(Ok(rows))
    }

    /// Takes some events of a trace, and with `info` the numbers of their connections after them.
    fn events(stack: &Shared, info: bool) -> (Vec<TraceEvent>, Vec<(Instant, Info)>) {
        let (now, mut state) = (stack.now(), stack.lock());
        let most = if info { INFO_STEP } else { STEP };
        let events: Vec<_> = std::iter::from_fn(|| state.stack.poll_trace()).take(most).collect();
        let ends: BTreeSet<_> =
            events.iter().filter(|_| info).map(|event| (event.local, event.remote)).collect();
        let told = |(local, remote)| Some((now, state.stack.info_between(now, local, remote)?));
        let infos = ends.into_iter().filter_map(told).collect();
        (events, infos)
    }

    /// Gives the packets themselves. The client writes the file: this process may have no right to make one.
    fn capture(&self, request: &Json, out: &mut Outlet) -> io::Result<Answer> {
        let asked = wanted(request).and_then(|wanted| Ok((wanted, number(request, "snaplen", u64::MAX)?)));
        let (wanted, snaplen) = match asked {
            Ok(asked) => asked,
            Err(error) => return Ok(Err(error)),
        };
        let Some(_mine) = Only::user(&self.capturing) else {
            return Ok(Err("somebody else captures".to_owned()));
        };
        let snaplen = usize::try_from(snaplen).unwrap_or(usize::MAX);
        self.stacks.iter().for_each(|stack| stack.tap.start(snaplen));
        let (mut rows, mut all_lost) = (0, 0);
        let result = self.collect(wanted, out, |out| {
            let mut some = Vec::new();
            for stack in &self.stacks {
                let (packets, lost) = stack.tap.take();
                some.extend(packets);
                all_lost += lost;
            }
            // Each queue of a device has its own.
            some.sort_by_key(|packet| packet.nanos);
            rows += some.len() as u64;
            some.chunks(PACKETS)
                .try_for_each(|packets| out.write(&packets.iter().map(captured).collect::<String>()))
        });
        self.stacks.iter().for_each(|stack| stack.tap.stop());
        result?;
        write_lost(out, all_lost, "packets")?;
        Ok(Ok(rows))
    }
}

/// The time that a trace or a capture wants.
fn wanted(request: &Json) -> Result<Duration, String> {
    Ok(Duration::from_millis(number(request, "for", 1000)?).min(COLLECT_LIMIT))
}

/// Says how much did not fit into the queue.
fn write_lost(out: &mut Outlet, lost: u64, what: &str) -> io::Result<()> {
    if lost > 0 { out.write(&format!("{}\n", json!({"kind": "lost", what: lost}))) } else { Ok(()) }
}

/// The right to a queue that has one reader.
struct Only<'a>(&'a AtomicBool);

impl Only<'_> {
    /// `None`: somebody else has it.
    fn user(taken: &AtomicBool) -> Option<Only<'_>> {
        (!taken.swap(true, Ordering::AcqRel)).then_some(Only(taken))
    }
}

impl Drop for Only<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
