//! The `steadfast` tool.

fn main() {}
