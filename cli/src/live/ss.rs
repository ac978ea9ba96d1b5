//! `steadfast ss`: sockets, with iproute2's columns and words.

use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};
use steadfast::SocketFilter;

use super::{Whom, alarms, millis};
use crate::failure::Failure;
use crate::output::say;

/// List the sockets of a running network, as `ss` lists those of the kernel.
///
/// The filter is that of `ss`: `state established and ( sport = :80 or dst 10.0.0.0/8 )`. It also compares numbers:
/// `age > 60`, `rto > 1s`, `retrans > 0`, `timer persist`.
#[derive(Args)]
pub(crate) struct Ss {
    /// All sockets, listeners included.
    #[arg(short, long)]
    all: bool,
    /// Only listeners.
    #[arg(short, long, conflicts_with = "all")]
    listening: bool,
    /// Numbers instead of names: always so.
    #[arg(short, long)]
    numeric: bool,
    /// TCP: always so.
    #[arg(short, long)]
    tcp: bool,
    /// The numbers of each connection.
    #[arg(short, long)]
    info: bool,
    /// Its queues.
    #[arg(short, long)]
    memory: bool,
    /// Its timers.
    #[arg(short, long)]
    options: bool,
    /// Age in the state, listener, and whether the application has let go of it.
    #[arg(short, long)]
    extended: bool,
    /// No heading.
    #[arg(short = 'H', long)]
    no_header: bool,
    /// One line for each socket.
    #[arg(short = 'O', long)]
    oneline: bool,
    /// Only how many there are of each state, and what is wrong.
    #[arg(short, long)]
    summary: bool,
    /// Reset the connections that fit. Needs a network with --control-write, and a filter.
    #[arg(short = 'K', long)]
    kill: bool,
    /// One JSON object for each socket.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
    /// The filter.
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// The widths of `State`, `Recv-Q`, `Send-Q`, the local and the remote end.
type Widths = [usize; 5];

impl Ss {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let words = self.filter.join(" ");
        words.parse::<SocketFilter>().map_err(|error| Failure::usage(format!("filter: {error}")))?;
        if self.kill && words.is_empty() {
            return Err(Failure::usage("-K: expected a filter, since all connections would be reset"));
        }
        let mut network = self.whom.connect()?;
        if self.summary {
            let summary = network.one("summary")?;
            return say(&if self.json { format!("{summary}\n") } else { overview(&summary) });
        }
        let congestion = network.one("hello")?["congestion"].as_str().unwrap_or_default().to_owned();
        let info = self.info || self.memory || self.json;
        let mut rows = Vec::new();
        network.each(&json!({"do": "sockets", "info": info, "filter": self.filter(&words)}), |row| {
            rows.push(row);
            Ok(())
        })?;
        if self.kill {
            for row in rows.iter().filter(|row| row["state"] != "LISTEN") {
                let request = json!({"do": "kill", "local": row["local"], "remote": row["remote"]});
                network.each(&request, |_| Ok(()))?;
            }
        }
        if self.json {
            return say(&rows.iter().map(|row| format!("{row}\n")).collect::<String>());
        }
        let widths = widths(&rows);
        let mut out = if self.no_header { String::new() } else { heading(widths) };
        for row in &rows {
            self.row(&mut out, row, widths, &congestion);
        }
        say(&out)
    }

    /// The filter, with the states that the options ask for.
    fn filter(&self, words: &str) -> String {
        let states = match (self.all, self.listening) {
            (true, _) => "state all",
            (_, true) => "state listening",
            // A filter without a state has a default.
            _ => return words.to_owned(),
        };
        if words.is_empty() { states.to_owned() } else { format!("{states} and ( {words} )") }
    }

    fn row(&self, out: &mut String, row: &Value, widths: Widths, congestion: &str) {
        columns(out, cells(row).each_ref().map(|cell| cell.as_str()), widths);
        if self.options
            && let Some(timer) = timer(row)
        {
            let _ = write!(out, " {timer}");
        }
        if self.extended {
            let _ = write!(out, " age:{:.3}s", row["age"].as_f64().unwrap_or(0.0));
            if let Some(listener) = row["listener"].as_str() {
                let _ = write!(out, " listener:{listener}");
            }
            if row["orphan"] == true {
                out.push_str(" orphan");
            }
        }
        let mut more = Vec::new();
        let numbers = &row["info"];
        if self.memory && numbers.is_object() {
            let number = |name: &str| numbers[name].as_u64().unwrap_or(0);
            more.push(format!(
                "skmem:(r{},w{})",
                number("recv_q") + number("out_of_order"),
                number("wmem_queued")
            ));
        }
        if self.info && numbers.is_object() {
            more.push(details(numbers, congestion));
        }
        if !more.is_empty() {
            out.push_str(if self.oneline { " " } else { "\n\t " });
            out.push_str(&more.join(" "));
        }
        out.push('\n');
    }
}

fn cells(row: &Value) -> [String; 5] {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| row[name].as_u64().unwrap_or(0).to_string();
    let remote = if row["state"] == "LISTEN" {
        if text("local").starts_with('[') { "[::]:*" } else { "0.0.0.0:*" }.to_owned()
    } else {
        text("remote")
    };
    [text("state"), number("recv_q"), number("send_q"), text("local"), remote]
}

const HEADS: [&str; 5] = ["State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"];

fn widths(rows: &[Value]) -> Widths {
    let mut widths = HEADS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = (*width).max(cell.len());
        }
    }
    widths
}

fn heading(widths: Widths) -> String {
    let mut out = String::new();
    columns(&mut out, HEADS, widths);
    out.push('\n');
    out
}

fn columns(out: &mut String, [state, recv, send, local, remote]: [&str; 5], widths: Widths) {
    let [a, b, c, d, e] = widths;
    let _ = write!(out, "{state:<a$} {recv:<b$} {send:<c$} {local:>d$} {remote:>e$}");
}

/// The timer that fires next, as `ss -o` writes it.
fn timer(row: &Value) -> Option<String> {
    let timer = row.get("timer")?;
    let left = (timer["left"].as_f64()? / 1000.0) as u64;
    Some(format!("timer:({},{},{})", timer["name"].as_str()?, time_left(left), timer["retries"].as_u64()?))
}

/// Milliseconds, as precise as iproute2 writes them: `119min`, `2min5sec`, `59sec`, `5.012ms`, `180ms`.
fn time_left(millis: u64) -> String {
    let (minutes, seconds, millis) = (millis / 60_000, millis / 1000 % 60, millis % 1000);
    match (minutes, seconds) {
        (10.., _) | (1.., 0) => format!("{minutes}min"),
        (1.., _) => format!("{minutes}min{seconds}sec"),
        (0, 10..) => format!("{seconds}sec"),
        (0, 1..) if millis == 0 => format!("{seconds}sec"),
        (0, 1..) => format!("{seconds}.{millis:03}ms"),
        (0, 0) if millis == 0 => String::new(),
        (0, 0) => format!("{millis:03}ms"),
    }
}

/// The line of `ss -i`.
fn details(numbers: &Value, congestion: &str) -> String {
    let number = |name: &str| numbers[name].as_u64().unwrap_or(0);
    let time = |name: &str| millis(numbers[name].as_f64().unwrap_or(0.0));
    let mut out: Vec<String> = Vec::new();
    for (field, word) in [("timestamps", "ts"), ("sack", "sack"), ("ecn", "ecn")] {
        if numbers[field] == true {
            out.push(word.to_owned());
        }
    }
    out.push(congestion.to_owned());
    if let (Some(send), Some(receive)) = (numbers["snd_wscale"].as_u64(), numbers["rcv_wscale"].as_u64()) {
        out.push(format!("wscale:{send},{receive}"));
    }
    out.push(format!("rto:{}", time("rto")));
    if number("backoff") > 0 {
        out.push(format!("backoff:{}", number("backoff")));
    }
    if numbers["rtt"].as_f64().is_some_and(|rtt| rtt > 0.0) {
        out.push(format!("rtt:{}/{}", time("rtt"), time("rttvar")));
    }
    let mss = number("snd_mss").max(1);
    out.push(format!(
        "mss:{} pmtu:{} rcvmss:{} advmss:{}",
        mss,
        number("pmtu"),
        number("rcv_mss"),
        number("advmss")
    ));
    out.push(format!("cwnd:{}", number("snd_cwnd") / mss));
    if number("snd_ssthresh") < u64::from(u32::MAX) {
        out.push(format!("ssthresh:{}", number("snd_ssthresh") / mss));
    }
    for (field, word) in [("bytes_acked", "bytes_acked"), ("bytes_received", "bytes_received")] {
        if number(field) > 0 {
            out.push(format!("{word}:{}", number(field)));
        }
    }
    if number("delivery_rate") > 0 {
        out.push(format!("delivery_rate {}bps", number("delivery_rate") * 8));
    }
    if numbers["delivery_rate_app_limited"] == true {
        out.push("app_limited".to_owned());
    }
    if number("unacked") > 0 {
        out.push(format!("unacked:{}", number("unacked").div_ceil(mss)));
    }
    if number("total_retrans") > 0 {
        out.push(format!("retrans:{}/{}", number("retransmits"), number("total_retrans")));
    }
    if number("sacked") > 0 {
        out.push(format!("sacked:{}", number("sacked").div_ceil(mss)));
    }
    if number("notsent_bytes") > 0 {
        out.push(format!("notsent:{}", number("notsent_bytes")));
    }
    if numbers["min_rtt"].as_f64().is_some_and(|rtt| rtt > 0.0) {
        out.push(format!("minrtt:{}", time("min_rtt")));
    }
    out.push(format!("snd_wnd:{} rcv_wnd:{}", number("snd_wnd"), number("rcv_wnd")));
    out.retain(|word| !word.is_empty());
    out.join(" ")
}

/// How many there are of each state, and what is wrong.
fn overview(summary: &Value) -> String {
    let mut out = String::new();
    for (state, count) in summary["states"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "{state:<12} {count:>8}");
    }
    for alarm in alarms(summary) {
        let _ = writeln!(out, "{alarm}");
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn row() -> Value {
        json!({"state": "ESTAB", "recv_q": 0, "send_q": 10, "local": "10.0.0.2:80", "remote": "10.1.2.3:4000", "age": 1.5,
            "info": {"snd_wscale": 7, "rcv_wscale": 10, "rto": 220_000.0, "rtt": 20_400.0, "rttvar": 1_200.0, "snd_mss": 1448,
                "pmtu": 1500, "rcv_mss": 536, "advmss": 1448, "snd_cwnd": 14480, "snd_ssthresh": u32::MAX, "unacked": 10,
                "total_retrans": 2, "retransmits": 0, "sack": true, "timestamps": true, "snd_wnd": 65536, "rcv_wnd": 64240,
                "retransmit_timer": 180_000.0, "keepalive_timer": 7_200_000_000.0},
            "timer": {"name": "on", "left": 180_000.0, "retries": 2}})
    }

    #[test]
    fn numbers_have_the_words_of_iproute2() {
        assert_eq!(
            details(&row()["info"], "reno"),
            "ts sack reno wscale:7,10 rto:220 rtt:20.4/1.2 mss:1448 pmtu:1500 rcvmss:536 advmss:1448 cwnd:10 unacked:1 \
             retrans:0/2 snd_wnd:65536 rcv_wnd:64240"
        );
    }

    #[test]
    fn a_timer_is_written_as_iproute2_writes_it() {
        assert_eq!(timer(&row()).as_deref(), Some("timer:(on,180ms,2)"));
        assert_eq!(timer(&json!({"state": "LISTEN"})), None);
        let with = |name: &str, left: f64| {
            timer(&json!({"timer": {"name": name, "left": left, "retries": 0}})).unwrap()
        };
        for (name, millis, written) in [
            ("timewait", 59_750, "timer:(timewait,59sec,0)"),
            ("keepalive", 7_199_000, "timer:(keepalive,119min,0)"),
            ("keepalive", 125_300, "timer:(keepalive,2min5sec,0)"),
            ("keepalive", 60_300, "timer:(keepalive,1min,0)"),
            ("on", 5_012, "timer:(on,5.012ms,0)"),
            ("on", 5_000, "timer:(on,5sec,0)"),
            ("on", 7, "timer:(on,007ms,0)"),
            ("on", 0, "timer:(on,,0)"),
        ] {
            assert_eq!(with(name, f64::from(millis) * 1000.0), written);
        }
    }

    #[test]
    fn the_options_choose_states_and_the_network_filters() {
        let filter = |all, listening, words: &str| {
            let arguments = ["ss"].into_iter().chain(all).chain(listening);
            Command::parse_from(arguments).ss.filter(words)
        };
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            ss: Ss,
        }
        assert_eq!(filter(None, None, "sport = :80"), "sport = :80");
        assert_eq!(filter(Some("-a"), None, ""), "state all");
        assert_eq!(
            filter(None, Some("-l"), "sport = :80 or sport = :81"),
            "state listening and ( sport = :80 or sport = :81 )"
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            row(),
            json!({"state": "LISTEN", "recv_q": 0, "send_q": 4096, "local": "[fd00::1]:80", "remote": "[::]:0"}),
        ];
        let widths = widths(&rows);
        let mut out = heading(widths);
        rows.iter().for_each(|row| {
            columns(&mut out, cells(row).each_ref().map(|cell| cell.as_str()), widths);
            out.push('\n');
        });
        assert_eq!(
            out,
            "State  Recv-Q Send-Q Local Address:Port Peer Address:Port\n\
             ESTAB  0      10            10.0.0.2:80     10.1.2.3:4000\n\
             LISTEN 0      4096         [fd00::1]:80            [::]:*\n"
        );
    }
}
