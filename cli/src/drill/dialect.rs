//! The options of packetdrill, by its names: those that scripts may have at their top, and those of its wire and its
//! programs, which mean nothing in virtual time.

use clap::Args;

macro_rules! options {
    ($($field:ident $name:literal $value:literal $doc:literal;)+) => {
        /// Options of packetdrill. A script's own rule over them.
        #[derive(Args, Default)]
        #[command(next_help_heading = "Options of packetdrill")]
        pub(super) struct Dialect {
            $(
                #[doc = $doc]
                #[arg(long = $name, value_name = $value, num_args = 0..=1, default_missing_value = "")]
                $field: Option<String>,
            )+
        }

        impl Dialect {
            /// Those that are given, by name and value.
            pub(super) fn given(&self) -> Vec<(String, String)> {
                let all = [$(($name, &self.$field)),+];
                let given = all.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                given.map(|(name, value)| (name.to_owned(), value.clone())).collect()
            }
        }
    };
}

options! {
    bind_port "bind_port" "PORT" "Port of a bind to `...`.";
    connect_port "connect_port" "PORT" "Port of a connect to `...`.";
    local_ip "local_ip" "ADDRESS" "Address of the stack.";
    remote_ip "remote_ip" "ADDRESS" "Address of the script.";
    tolerance_percent "tolerance_percent" "PERCENT" "Tolerance of a time, as a part of the time since the previous event.";
    tcp_ts_tick_usecs "tcp_ts_tick_usecs" "MICROSECONDS" "Check the stack's timestamps: the length of a tick.";
    non_fatal "non_fatal" "packet,syscall" "Note wrong packets or calls instead of failing.";
    strict_segments "strict_segments" "BOOL" "One line is one segment.";
    init_scripts "init_scripts" "FILES" "Set-up scripts, with commas between.";
    mss "mss" "BYTES" "A line to the stack arrives as segments of so many bytes.";
    speed "speed" "MBPS" "Accepted and ignored.";
    gateway_ip "gateway_ip" "ADDRESS" "Accepted and ignored.";
    netmask_ip "netmask_ip" "ADDRESS" "Accepted and ignored.";
    prefix_len "prefix_len" "BITS" "Accepted and ignored.";
    bind_address "bind_address" "ADDRESS" "Accepted and ignored.";
    tcp_ts_ecr_scaled "tcp_ts_ecr_scaled" "BOOL" "Accepted and ignored: echoes are in the stack's ticks.";
    is_anyip "is_anyip" "BOOL" "Accepted and ignored.";
    send_omit_free "send_omit_free" "BOOL" "Accepted and ignored.";
    persistent_tun_dev "persistent_tun_dev" "BOOL" "Accepted and ignored.";
    tun_dev_name "tun_dev_name" "NAME" "Accepted and ignored.";
    no_cleanup "no_cleanup" "BOOL" "Accepted and ignored.";
    wire_client "wire_client" "BOOL" "Accepted and ignored.";
    wire_server "wire_server" "BOOL" "Accepted and ignored.";
    wire_client_dev "wire_client_dev" "NAME" "Accepted and ignored.";
    wire_server_dev "wire_server_dev" "NAME" "Accepted and ignored.";
    wire_server_ip "wire_server_ip" "ADDRESS" "Accepted and ignored.";
    wire_server_port "wire_server_port" "PORT" "Accepted and ignored.";
    so_filename "so_filename" "FILE" "Accepted and ignored.";
    so_flags "so_flags" "FLAGS" "Accepted and ignored.";
    code_command "code_command" "COMMAND" "Accepted and ignored: code is interpreted.";
    code_format "code_format" "FORMAT" "Accepted and ignored: code is interpreted.";
    code_sockopt "code_sockopt" "OPTION" "Accepted and ignored: code is interpreted.";
    udp_encaps "udp_encaps" "MODE" "Skips the scripts: TCP in UDP is not interpreted.";
    debug "debug" "BOOL" "Accepted and ignored.";
}
