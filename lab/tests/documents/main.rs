//! Documents that are written from the scenario files, and checked against them.
//!
//! `UPDATE_DOCS=1 cargo test -p steadfast-lab --test documents` rewrites them.

mod index;
mod linux_differences;

use std::path::Path;

/// Checks that a file of the repository has this text, or writes it.
#[track_caller]
fn check_document(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{file} is old: UPDATE_DOCS=1 rewrites it");
}
