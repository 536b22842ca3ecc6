//! See `tests/fuzz/targets.rs`.
#![no_main]

#[allow(dead_code, reason = "each binary has one of the targets")]
#[path = "../../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::cloud_headers(input));
