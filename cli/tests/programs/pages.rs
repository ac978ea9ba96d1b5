//! Pages in Chromium: each judges itself, with `#selftest`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::namespace::{enter_namespace, run};

/// Opens a page, and returns what its test of itself says.
fn selftest(page: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]);
    chromium.args(["--virtual-time-budget=8000", "--window-size=1280,800"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display()));
    chromium.arg(format!("file://{}#selftest", page.display()));
    let (_, dom, errors) = run(&mut chromium, b"");
    let dom = String::from_utf8_lossy(&dom);
    let Some((_, rest)) = dom.split_once("data-selftest=\"") else { return format!("no result: {errors}") };
    rest.split('"').next().unwrap_or_default().to_owned()
}

#[test]
fn pages_of_the_lab_of_captures_and_of_scripts_pass_their_own_test() {
    if !enter_namespace(&["chromium"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let names = ["lab.html", "both.pcapng", "capture.html", "drill.html"];
    let [lab, file, capture, drill] = names.map(|name| dir.path().join(name));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let writes = |args: &[&str]| {
        let (status, _, errors) = run(Command::new(env!("CARGO_BIN_EXE_steadfast")).args(args), b"");
        assert!(status.success(), "{errors}");
    };
    writes(&["lab", "run", "T4a", "--profile", "linux", "--html", &path(&lab), "--pcap", &path(&file)]);
    writes(&["pcap", "html", &path(&file), "--output", &path(&capture)]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drill/tests/interpreter/pass/retransmit.pkt");
    writes(&["drill", "run", &path(&script), "--html", &path(&drill)]);
    for page in [&lab, &capture, &drill] {
        assert_eq!(selftest(page), "ok", "{}", page.display());
    }
    // Cut data: the page says so instead of showing half of it.
    let cut = dir.path().join("cut.html");
    let text = fs::read_to_string(&lab).unwrap();
    let data = text.find("id=\"data\">").unwrap() + 10;
    let end = data + text[data..].find('<').unwrap();
    fs::write(&cut, [&text[..data + (end - data) / 2 / 4 * 4], &text[end..]].concat()).unwrap();
    let said = selftest(&cut);
    assert!(said != "ok" && !said.starts_with("no result"), "{said}");
}
