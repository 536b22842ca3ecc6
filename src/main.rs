//! The `evertail` binary.

fn main() {}
