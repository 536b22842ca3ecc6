//! Makes cargo rebuild when a migration is added, since `sqlx::migrate!` alone misses a new file, and tells the binary from
//! which commit it is made.
//!
//! The commit is that of `EVERTAIL_COMMIT`, for who packages it, else that of the git repository these files are in. From
//! files without one it is not known, and that is no error.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the binary is made of, which cargo looks at before it runs this again.
const MADE_OF: [&str; 5] = ["migrations", "src", "build.rs", "Cargo.lock", "Cargo.toml"];

fn main() {
    for path in MADE_OF {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=EVERTAIL_COMMIT");
    let given = env::var("EVERTAIL_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(commit).unwrap_or_default();
    println!("cargo:rustc-env=BUILT_FROM={commit}");
}

/// The commit of this folder, with `-modified` behind it where the files are not those of the commit.
fn commit() -> Option<String> {
    // A repository that this folder only lies in, as an unpacked archive may, is another one.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != Path::new(".").canonicalize().ok()? {
        return None;
    }
    // A commit or a checkout adds a line to the one; where git keeps none, the other tells at least of a checkout. Looked at
    // for releases alone: all tests would be built anew for each commit.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    for path in ["logs/HEAD", "HEAD"].into_iter().filter(|_| is_release) {
        let path = git(&["rev-parse", "--git-path", path])?;
        if Path::new(&path).is_file() {
            println!("cargo:rerun-if-changed={path}");
            break;
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&[&["status", "--porcelain", "--"], &MADE_OF[..]].concat())?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-modified") })
}

/// What git says, if it has something to say.
fn git(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // Set by git for its hooks, of whichever repository.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
