use super::*;

#[test]
fn the_text_form_reads_back_what_it_wrote_in_every_profile() {
    for profile in Profile::ALL {
        let written = Config::profile(profile);
        let mut read = Config::profile(Profile::Bsd);
        read.apply(&written.to_string()).unwrap();
        assert_eq!(read, written, "{profile}");
    }
}

#[test]
fn every_setting_refuses_what_is_no_value_and_names_what_it_expects() {
    for setting in Config::settings() {
        let mut config = Config::default();
        let text = format!("{} = @", setting.name);
        let error = config.apply(&text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("line 1: {}: `@`: expected ", setting.name)), "{error}");
        assert_eq!(config, Config::default());
    }
}

#[test]
fn nothing_takes_effect_when_one_line_is_wrong() {
    let mut config = Config::default();
    let error = config.apply("tcp_syn_retries = 3\n\ntcp_sync_retries = 3").unwrap_err();
    assert_eq!(error.to_string(), "line 3: `tcp_sync_retries`: no such setting (near it: tcp_syncookies)");
    assert_eq!(config, Config::default());
    assert!(config.apply("tcp_syn_retries 3").unwrap_err().to_string().contains("expected `name = value`"));
}

#[test]
fn names_are_unique_in_full_and_in_short() {
    let mut names: Vec<_> = Config::settings().iter().map(Setting::short_name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn bytes_may_be_given_in_powers_of_1024() {
    let mut config = Config::default();
    config.apply("tcp_mem = 4M\ntcp_rcvbuf = 64K\nipfrag_high_thresh = 1G").unwrap();
    assert_eq!((config.tcp_mem, config.tcp_rcvbuf, config.ipfrag_high_thresh), (4 << 20, 64 << 10, 1 << 30));
    for text in
        ["tcp_rcvbuf = 2G", "tcp_mem = 4m", "tcp_mem = M", "tcp_mem = 17179869184G", "tcp_syn_retries = 1K"]
    {
        assert!(config.apply(text).is_err(), "{text}");
    }
}

#[test]
fn tcp_tw_recycle_has_the_name_that_it_had_in_linux_and_its_older_one_here() {
    for name in ["net.ipv4.tcp_tw_recycle", "steadfast.tcp_tw_recycle", "tcp_tw_recycle"] {
        let mut config = Config::default();
        config.apply(&format!("{name} = 1")).unwrap();
        assert!(config.tcp_tw_recycle, "{name}");
    }
}

#[test]
fn each_bound_of_a_number_holds_on_both_sides() {
    let mut config = Config::default();
    for (text, ok) in [("0", false), ("1", true), ("127", true), ("128", false), ("-1", false)] {
        assert_eq!(config.apply(&format!("tcp_syn_retries={text}")).is_ok(), ok, "{text}");
    }
    for (text, ok) in [("0", true), ("499", true), ("500", false)] {
        assert_eq!(config.apply(&format!("tcp_delack_ms={text}")).is_ok(), ok, "{text} (MUST-40)");
    }
}
