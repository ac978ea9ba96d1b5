//! The programs of the project, compiled into the library.

macro_rules! files {
    ($($name:literal)+) => {
        &[$( (concat!("programs/", $name, ".scenario"), include_str!(concat!("../programs/", $name, ".scenario"))), )+]
    };
}

include!("../programs/list.rs");

/// File name and text of every program of the project.
pub fn program_files() -> &'static [(&'static str, &'static str)] {
    FILES
}
