//! What a package is made of: the version, completions, manual pages, the unit of systemd, the files of a container.

use crate::server::{Place, complain, evertail};
use evertail::config::SETTINGS;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end, and takes its stdout for granted.
fn text(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success() && stderr.is_empty(), "{command:?}: {status}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

/// Whether a program is there; a test without it says so.
fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there {
        complain(&format!("SKIPPED packaging: {program} is not there; install it"));
    }
    is_there
}

#[tokio::test]
async fn version_says_commit_and_sqlite() {
    let place = Place::new();
    let version = text(evertail(&[], place.folder()).arg("--version"));
    let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
    let sqlite: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await.unwrap();
    let (name, made_of) = version.trim_end().split_once(" (").unwrap();
    assert_eq!(name, concat!("evertail ", env!("CARGO_PKG_VERSION")));
    let made_of = made_of.strip_suffix(&format!("SQLite {sqlite})")).unwrap();
    if root().join(".git").exists() {
        let commit = made_of.strip_prefix("commit ").unwrap().strip_suffix(", ").unwrap();
        assert!(commit.len() >= 7 && !commit.contains(char::is_whitespace), "{version}");
    } else {
        assert_eq!(made_of, "");
    }
    assert_eq!(text(evertail(&[], place.folder()).arg("-V")), version);
}

/// The build script by itself, in folders of every kind.
#[test]
fn the_commit_is_that_of_the_files_and_of_no_repository_around_them() {
    let place = Place::new();
    let script = place.folder().join("build");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    text(Command::new(rustc).args(["--edition", "2024", "-o"]).arg(&script).arg(root().join("build.rs")));
    let files = place.folder().join("files");
    for folder in ["src", "migrations"] {
        fs::create_dir_all(files.join(folder)).unwrap();
    }
    for file in ["build.rs", "Cargo.lock", "Cargo.toml", "src/lib.rs", "migrations/1.sql"] {
        fs::write(files.join(file), "").unwrap();
    }
    let built_from = |given: &str| {
        let told = text(
            Command::new(&script).current_dir(&files).env("PROFILE", "release").env("EVERTAIL_COMMIT", given),
        );
        assert!(!told.contains("=/"), "a path of this machine: {told}");
        told.lines().find_map(|line| line.strip_prefix("cargo:rustc-env=BUILT_FROM=")).unwrap().to_owned()
    };
    let git = |folder: &Path, arguments: &[&str]| {
        let identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"];
        text(Command::new("git").current_dir(folder).args(identity).args(arguments)).trim().to_owned()
    };
    assert_eq!(built_from(""), "", "there is no repository");
    assert_eq!(built_from("abc1234"), "abc1234", "who packages it knows");
    git(place.folder(), &["init", "--quiet"]);
    git(place.folder(), &["add", "files"]);
    git(place.folder(), &["commit", "--quiet", "--message", "around"]);
    assert_eq!(built_from(""), "", "the repository is another one");
    git(&files, &["init", "--quiet"]);
    git(&files, &["add", "."]);
    git(&files, &["commit", "--quiet", "--message", "own"]);
    let commit = git(&files, &["rev-parse", "--short=12", "HEAD"]);
    assert_eq!(built_from(""), commit);
    fs::write(files.join("notes"), "no part of the binary").unwrap();
    assert_eq!(built_from(""), commit);
    fs::write(files.join("src/lib.rs"), "changed").unwrap();
    assert_eq!(built_from(""), format!("{commit}-modified"));
}

#[test]
fn completions_are_taken_by_their_shells() {
    let place = Place::new();
    let asks = [
        (
            "bash",
            "source \"$0\"; COMP_WORDS=(evertail tok) COMP_CWORD=1; _evertail evertail tok evertail; printf '%s\\n' \"${COMPREPLY[@]}\"",
        ),
        (
            "zsh",
            "autoload -U compinit; compinit -D -u; source \"$0\"; [[ -n ${functions[_evertail]} ]] && echo token",
        ),
        ("fish", "source $argv[1]; complete --do-complete 'evertail tok' | string split --fields 1 \\t"),
    ];
    for (shell, ask) in asks {
        let completions = text(evertail(&[], place.folder()).args(["completions", shell]));
        if !is_there(shell) {
            continue;
        }
        let file = place.folder().join(shell);
        fs::write(&file, completions).unwrap();
        let quiet: &[&str] = if shell == "zsh" { &["-f"] } else { &[] };
        let offered =
            text(Command::new(shell).env("HOME", place.folder()).args(quiet).args(["-c", ask]).arg(&file));
        assert_eq!(offered.trim(), "token", "{shell}");
    }
    let other = evertail(&[], place.folder()).args(["completions", "csh"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page_and_every_setting_is_in_one() {
    let place = Place::new();
    let names = text(evertail(&[], place.folder()).args(["man", "--folder", "."]));
    insta::assert_snapshot!(names);
    let own = fs::read_to_string(place.folder().join("evertail.1")).unwrap();
    assert_eq!(text(evertail(&[], place.folder()).arg("man")), own);
    let of_a_command = fs::read_to_string(place.folder().join("evertail-token-create.1")).unwrap();
    assert_eq!(text(evertail(&[], place.folder()).args(["man", "token", "create"])), of_a_command);
    let unknown = evertail(&[], place.folder()).args(["man", "nothing"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    if !is_there("man") {
        return;
    }
    for name in names.lines() {
        let page = text(
            Command::new("man")
                .env("LC_ALL", "C.UTF-8")
                .env("MANWIDTH", "1000")
                .args(["--warnings=w", "--local-file"])
                .arg(place.folder().join(name)),
        );
        assert!(page.contains("SYNOPSIS"), "{name}");
        if name == "evertail.1" || name == "evertail-serve.1" {
            // What is bold is struck twice, where man writes to no terminal.
            let page: String = page.split("\u{8}").collect();
            for setting in SETTINGS {
                assert!(
                    page.contains(&format!("[env: {}]", setting.variable)),
                    "{} is not in {name}",
                    setting.variable
                );
            }
        }
    }
}

/// The files of a unit with this binary in it.
fn units(place: &Place) -> [PathBuf; 2] {
    ["evertail.service", "evertail.socket"].map(|name| {
        let unit = fs::read_to_string(root().join("docs/systemd").join(name)).unwrap();
        let path = place.folder().join(name);
        fs::write(&path, unit.replace("/usr/bin/evertail", env!("CARGO_BIN_EXE_evertail"))).unwrap();
        path
    })
}

#[test]
fn the_unit_of_systemd_is_valid_and_lets_the_server_do_little() {
    if !is_there("systemd-analyze") {
        return;
    }
    let place = Place::new();
    let [service, socket] = units(&place);
    text(Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&service, &socket]));
    // Of 100, from nothing at all to everything. What it may is listen, connect, and write its file.
    let least = ["security", "--offline=true", "--no-pager", "--threshold=13"];
    text(Command::new("systemd-analyze").args(least).arg(&service));
}

/// What the image is built from is all there: cargo finds every target that the manifest names.
#[test]
fn the_files_that_a_container_is_built_from_are_complete() {
    let place = Place::new();
    let ignored = fs::read_to_string(root().join("docs/container/Dockerfile.dockerignore")).unwrap();
    let copied: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(copied.contains(&"src"));
    let folder = place.folder().display().to_string();
    text(Command::new("cp").current_dir(root()).arg("-r").args(&copied).arg(&folder));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = text(Command::new(cargo).current_dir(&folder).args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version=1",
        "--quiet",
    ]));
    assert!(metadata.contains("\"evertail\""));
    let dockerfile = fs::read_to_string(root().join("docs/container/Dockerfile")).unwrap();
    let settings =
        dockerfile.split_whitespace().filter_map(|word| word.split_once('=')).map(|(name, _)| name);
    for name in settings.filter(|name| name.starts_with("EVERTAIL_") && *name != "EVERTAIL_COMMIT") {
        assert!(SETTINGS.iter().any(|setting| setting.variable == name), "{name} is no setting");
    }
}
