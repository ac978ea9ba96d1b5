//! The pages of scripts.

use serde_json::{Value, json};
use steadfast_drill::{DrillOptions, Verdict, page, run_script};

const SCRIPT: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 1000 <mss 1000>
+0 > S. 0:0(0) ack 1 <mss 1460>
+.02 < . 1:1(0) ack 1 win 1000
+0 accept(3, ..., ...) = 4
+0 write(4, ..., 500) = 500
+0 > P. 1:501(500) ack 1
+.02 < . 1:1(0) ack 501 win 1000
";

fn paged(text: &str) -> (Verdict, Value) {
    let outcome = run_script(text, &DrillOptions { page: true, ..DrillOptions::default() });
    let verdict = outcome.verdict;
    (verdict, page(&[("a.pkt".to_owned(), outcome)]).json())
}

#[test]
fn a_page_has_the_packets_the_calls_and_what_the_stack_says() {
    let (verdict, page) = paged(SCRIPT);
    assert_eq!(
        (verdict, &page["about"], &page["findings"]),
        (Verdict::Pass, &json!("ipv4, pass"), &json!([]))
    );
    let one = &page["connections"][0];
    assert_eq!((&one["hosts"], &one["bytes"]), (&json!(["script", "stack"]), &json!([0, 500])));
    let rows = one["rows"].as_array().unwrap();
    let of = |kind: &str| rows.iter().filter(|row| row[0] == kind).collect::<Vec<_>>();
    let flags: Vec<_> = of("p").iter().map(|row| row[4].as_str().unwrap()).collect();
    assert_eq!(flags, ["S", "S.", ".", "P.", "."]);
    let states: Vec<_> =
        of("s").iter().map(|row| (row[1].as_u64().unwrap() / 1_000_000, row[4].as_str().unwrap())).collect();
    assert_eq!(states, [(0, "SYN-RECEIVED"), (20, "ESTABLISHED")]);
    assert!(of("c").iter().any(|row| row[3].as_str().unwrap().starts_with("write(4")), "{rows:?}");
    let unacked: Vec<_> = of("k").iter().filter_map(|row| row[3]["unacked"].as_u64()).collect();
    assert_eq!(unacked, [0, 500, 0]);
}

#[test]
fn a_page_says_where_a_script_failed() {
    let (verdict, page) = paged(&SCRIPT.replace("ack 1 <mss 1460>", "ack 2 <mss 1460>"));
    assert_eq!((verdict, &page["about"]), (Verdict::Fail, &json!("ipv4, fail")));
    assert_eq!(page["findings"][0]["text"], "a.pkt:5: acknowledgment number: expected 2, came 1");
    assert_eq!(page["connections"].as_array().unwrap().len(), 1);
}
