//! The page around the lab.

use serde_json::{Value as Json, json};
use steadfast_core::{Config, Profile};
use steadfast_lab::{RunOptions, Scenario, catalogue, page as page_of, run, text_of};
use steadfast_timeline::page::{Addition, encoded};

const BODY: &str = include_str!("page/lab.html");
const STYLE: &str = include_str!("page/lab.css");
const SCRIPT: &str = include_str!("page/lab.js");
const WORKER: &str = include_str!("page/worker.js");

/// The page with this WebAssembly module. It opens with the first scenario of the catalogue, played by this program.
pub(crate) fn page(module: &[u8]) -> Result<String, String> {
    if !module.starts_with(b"\0asm") {
        return Err("the module: expected WebAssembly, which begins with `\\0asm`".to_owned());
    }
    let scenarios = catalogue().map_err(|error| error.to_string())?;
    let first = scenarios.first().ok_or_else(|| "the catalogue is empty".to_owned())?;
    let profile = first.profiles.first().copied().unwrap_or_default();
    let options = RunOptions { profile, page: true, ..RunOptions::default() };
    let report = run(first, &options).map_err(|error| error.to_string())?;
    let parts = format!(
        "{BODY}<script type=\"text/plain\" id=\"worker\">\n{WORKER}</script>\n\
         <script type=\"application/octet-stream\" id=\"module\">{}</script>",
        encoded(module)
    );
    let addition = Addition {
        policy: " 'wasm-unsafe-eval'; worker-src blob:",
        style: STYLE,
        body: parts,
        script: SCRIPT,
        data: json!({
            "scenarios": scenarios.iter().map(told).collect::<Vec<_>>(),
            "profiles": Profile::ALL.map(Profile::name),
            "settings": Config::settings().iter().map(|setting| setting.name).collect::<Vec<_>>(),
            "report": report.to_json(),
        }),
    };
    page_of(std::slice::from_ref(&report)).html_with(&addition).map_err(|error| error.to_string())
}

fn told(scenario: &Scenario) -> Json {
    json!({
        "id": scenario.id,
        "title": scenario.title,
        "profiles": scenario.profiles.iter().map(|profile| profile.name()).collect::<Vec<_>>(),
        "file": &*scenario.file,
        "text": text_of(scenario),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_none_is_refused() {
        assert!(page(b"ELF").unwrap_err().contains("expected WebAssembly"));
    }

    #[test]
    fn the_page_has_the_module_and_loads_nothing() {
        let html = page(b"\0asm....").unwrap();
        assert!(html.contains(&encoded(b"\0asm....")));
        assert!(html.contains("script-src 'unsafe-inline' 'wasm-unsafe-eval'; worker-src blob:\">"));
        for outside in ["http://", "https://", "src=", "<link"] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
