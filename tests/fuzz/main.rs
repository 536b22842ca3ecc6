//! The targets of `fuzz/` on stable Rust: the seeds of `fuzz/corpus/`, and mutations of them.
//!
//! `EVERTAIL_MUTATIONS` says how many for each target, 10,000 if it is not given; `EVERTAIL_SEED` which.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod mutate;
#[expect(unreachable_pub, reason = "the crate in fuzz/ has it as a module, too")]
mod targets;

use mutate::{Random, mutate};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(seeds.len() >= 4, "{name} has few seeds");
    for seed in &seeds {
        attempt(target, seed);
    }
    let mut random = Random(number("EVERTAIL_SEED", 0x5EED));
    for _ in 0..number("EVERTAIL_MUTATIONS", 10_000) {
        let mut input = seeds[random.below(seeds.len())].clone();
        if random.one_in(8) {
            input.extend_from_slice(&seeds[random.below(seeds.len())]);
        }
        attempt(target, &mutate(&mut random, &input));
    }
}

#[expect(clippy::print_stderr, reason = "the input of a failed run, to become a seed")]
fn attempt(target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("with the input b\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

/// A test for each target, and the names of all of them.
macro_rules! targets {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            run(stringify!($name), targets::$name);
        })*
    };
}

targets! { body cloud_events cloud_headers query selection sse }

#[test]
fn every_target_is_one_of_cargo_fuzz() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for name in NAMES {
        let text = fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("targets::{name}(")), "{text}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(fs::read_dir(root.join("fuzz_targets")).unwrap().count(), NAMES.len());
}
