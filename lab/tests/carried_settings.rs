//! The settings that operators are told to set against a pile of connections in TIME-WAIT: each has a scenario that
//! shows its effect.

use steadfast_lab::catalogue;

/// The settings with their values, and the scenario that sets them so.
const CARRIED: [(&str, &str, &str); 11] = [
    ("tcp_syn_retries", "2", "H14"),
    ("tcp_synack_retries", "2", "H14"),
    ("tcp_keepalive_time", "1200", "L9"),
    ("tcp_orphan_retries", "3", "T14"),
    ("tcp_fin_timeout", "30", "T14"),
    ("tcp_max_syn_backlog", "4096", "H4e"),
    ("tcp_syncookies", "1", "H4e"),
    ("tcp_tw_reuse", "1", "T9b"),
    ("tcp_tw_recycle", "1", "T9c"),
    ("tcp_keepalive_probes", "5", "L9"),
    ("netdev_max_backlog", "3000", "L10"),
];

#[test]
fn for_each_setting_that_is_carried_about_a_scenario_shows_what_it_does() {
    let catalogue = catalogue().unwrap();
    for (name, value, id) in CARRIED {
        let scenario = catalogue.iter().find(|scenario| scenario.id == id).unwrap();
        let explained = scenario.settings.iter().any(|setting| setting == name);
        assert!(explained, "{id}: `settings` does not name {name}");
        // Its phases say what it does: with it and without.
        assert!(scenario.phases.len() > 1, "{id} has one phase");
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let text = std::fs::read_to_string(folder.join(format!("{id}.scenario"))).unwrap();
        let sets =
            text.lines().any(|line| line.contains("sysctl") && line.ends_with(&format!("{name} = {value}")));
        assert!(sets, "{id} does not set {name} to {value}");
    }
}
