//! Plays one scenario for the page.

use serde_json::{Value as Json, json};
use steadfast_core::{Config, Profile};
use steadfast_lab::{Fault, RunOptions, Scenario, page, run};

/// Why a request was not played.
struct Refused {
    text: String,
    /// The line of the scenario that is wrong.
    line: Option<usize>,
}

impl From<String> for Refused {
    fn from(text: String) -> Refused {
        Refused { text, line: None }
    }
}

/// The answer to a request, which has `file`, `text`, `profile`, `seed`, `random`, `sysctls` and `faults`.
///
/// It has `report` and `page`, or `error`, with the `line` of the text if that is wrong.
pub(crate) fn answer(request: &str) -> Json {
    match played(request) {
        Ok(answer) => answer,
        Err(Refused { text, line }) => json!({ "error": text, "line": line }),
    }
}

fn played(request: &str) -> Result<Json, Refused> {
    let request: Json = serde_json::from_str(request).map_err(|error| format!("the request: {error}"))?;
    let text =
        |name: &str| request[name].as_str().ok_or_else(|| format!("the request: `{name}`: expected a text"));
    let texts = |name: &str| {
        let all = request[name].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(Json::as_str).map(str::trim).filter(|text| !text.is_empty())
    };
    let scenario = Scenario::parse(text("file")?, text("text")?)
        .map_err(|error| Refused { line: Some(error.line), text: error.to_string() })?;
    let mut options = RunOptions {
        profile: text("profile")?.parse::<Profile>()?,
        seed: request["seed"].as_u64().ok_or_else(|| "the seed: expected a whole number".to_owned())?,
        swarm: request["random"] == true,
        page: true,
        ..RunOptions::default()
    };
    for setting in texts("sysctls") {
        let applied = Config::default().apply(setting);
        applied.map_err(|error| format!("the setting `{setting}`: {}", error.message()))?;
        options.sysctls.push(setting.to_owned());
    }
    for fault in texts("faults") {
        let fault: Fault = fault
            .parse()
            .map_err(|error: steadfast_lab::ParseError| format!("the fault `{fault}`: {}", error.message))?;
        options.faults.push(fault);
    }
    let report = run(&scenario, &options).map_err(|error| error.to_string())?;
    let mut page = page(std::slice::from_ref(&report));
    page.shorten();
    Ok(json!({ "report": report.to_json(), "page": page.json() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer for a scenario of the catalogue, with changes of the request.
    fn ask(id: &str, change: impl Fn(&mut Json)) -> Json {
        let all = steadfast_lab::catalogue().unwrap();
        let scenario = all.iter().find(|scenario| scenario.id == id).unwrap();
        let mut request = json!({
            "file": &*scenario.file, "text": steadfast_lab::text_of(scenario), "profile": "linux", "seed": 0,
            "random": false, "sysctls": [], "faults": [],
        });
        change(&mut request);
        answer(&request.to_string())
    }

    #[test]
    fn a_scenario_is_played_and_its_connections_come_back() {
        let answer = ask("H1", |_| {});
        assert_eq!(answer["report"]["result"], "pass");
        assert_eq!(answer["page"]["connections"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_expectation_that_fails_is_told_with_its_line() {
        let answer = ask("H1", |request| {
            let text = request["text"].as_str().unwrap().replace("TCPSynRetrans 1", "TCPSynRetrans 2");
            request["text"] = json!(text);
        });
        assert_eq!(answer["report"]["result"], "fail");
        assert!(answer["report"]["reason"].as_str().unwrap().contains("TCPSynRetrans 2"), "{answer}");
    }

    #[test]
    fn a_text_that_cannot_be_read_is_told_with_its_line() {
        let answer = ask("H1", |request| {
            let text = request["text"].as_str().unwrap();
            let line = text.lines().position(|line| line.starts_with("fault")).unwrap();
            request["text"] = json!(text.replacen("fault lose", "fault loose", 1));
            request["wrong"] = json!(line + 1);
        });
        let text = steadfast_lab::catalogue().unwrap();
        let text = steadfast_lab::text_of(text.iter().find(|scenario| scenario.id == "H1").unwrap()).unwrap();
        let line = 1 + text.lines().position(|line| line.starts_with("fault")).unwrap();
        assert_eq!(answer["line"], line);
        assert!(answer["error"].as_str().unwrap().contains("loose"), "{answer}");
    }

    #[test]
    fn what_is_wrong_beside_the_text_is_named() {
        for (field, value, expected) in [
            ("sysctls", json!(["tcp_syn_retries=many"]), "the setting `tcp_syn_retries=many`: "),
            ("faults", json!(["loose C>S"]), "the fault `loose C>S`: "),
            ("faults", json!(["lose C>X [S] 1"]), "not `X`"),
            ("profile", json!("solaris"), "expected a profile"),
            ("seed", json!(-1), "the seed: expected a whole number"),
            ("text", json!(null), "`text`: expected a text"),
        ] {
            let answer = ask("H1", |request| request[field] = value.clone());
            let error = answer["error"].as_str().unwrap();
            assert!(error.contains(expected), "{field}: {error}");
            assert_eq!(answer["line"], json!(null), "{field}");
        }
        assert!(answer("{").to_string().contains("the request: "));
    }

    #[test]
    fn settings_faults_and_chance_come_on_top_of_the_scenario() {
        let plain = ask("N1", |_| {});
        for (field, value) in [
            ("sysctls", json!(["tcp_timestamps=0"])),
            ("faults", json!(["lose S>C [S.] 1"])),
            ("random", json!(true)),
        ] {
            let changed = ask("N1", |request| request[field] = value.clone());
            assert_eq!(changed["report"]["result"], "pass", "{field}: {}", changed["report"]);
            assert_ne!(changed["report"]["trace_hash"], plain["report"]["trace_hash"], "{field}");
        }
    }
}
