//! What holds the house together and no compiler sees: the layers, the documented settings, codes and dependencies.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use evertail::config::{CLIENT_SETTINGS, SETTINGS};
use evertail::event::RetentionRules;
use evertail::http::{ProblemCode, all_metrics};
use evertail::log::{Log, LogSettings};
use evertail::store::StoreSettings;
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What each module at the root of `src` may import of the others.
const LAYERS: [(&str, &[&str]); 15] = [
    ("event", &[]),
    ("sse", &[]),
    ("config", &["event"]),
    ("metrics", &[]),
    ("traces", &[]),
    ("wire", &["event"]),
    ("frames", &["event", "sse", "wire"]),
    ("store", &["event"]),
    ("log", &["event", "frames", "metrics", "store", "wire"]),
    ("auth", &["event", "log", "wire"]),
    ("http", &["auth", "config", "event", "frames", "log", "metrics", "sse", "traces", "wire"]),
    ("client", &["sse", "wire"]),
    ("bench", &[]),
    (
        "cli",
        &["auth", "bench", "client", "config", "event", "http", "log", "metrics", "store", "traces", "wire"],
    ),
    ("lib", &[]),
];

/// Crates that only these modules may name.
const KEPT_APART: [(&str, &[&str]); 32] = [
    ("sqlx", &["store"]),
    ("libsqlite3_sys", &["store"]),
    ("axum", &["http"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("http_body_util", &["http"]),
    ("tower", &["http"]),
    ("tower_http", &["http"]),
    ("socket2", &["http"]),
    ("reqwest", &["auth", "client", "traces"]),
    ("rustls", &["auth", "client", "http", "traces"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_http", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("schemars", &["http", "wire"]),
    ("tokio_rustls", &["http"]),
    ("jsonwebtoken", &["auth"]),
    ("ring", &["auth", "http"]),
    ("subtle", &["auth"]),
    ("base64", &["auth"]),
    ("hdrhistogram", &["bench"]),
    ("httparse", &["bench"]),
    ("memchr", &["auth", "bench", "event", "sse", "store"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("listenfd", &["cli"]),
    ("sd_notify", &["cli"]),
    ("dotenvy", &["cli"]),
    ("tracing_subscriber", &["cli"]),
    ("tokio", &["auth", "bench", "cli", "client", "http", "log", "store", "traces"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file of `src`.
struct Source {
    path: PathBuf,
    /// The module at the root that it belongs to.
    module: String,
    /// Without comments.
    code: String,
    /// Without comments and without the tests at the end of the file.
    shipped: String,
}

fn sources() -> Vec<Source> {
    let mut folders = vec![root().join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(source(path));
            }
        }
    }
    assert!(sources.len() > 30, "the tests look in the wrong place");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn source(path: PathBuf) -> Source {
    let path = path.strip_prefix(root()).unwrap().to_owned();
    let text = read(path.to_str().unwrap());
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let shipped: Vec<&str> = code.iter().copied().take_while(|line| !line.contains("#[cfg(test)]")).collect();
    let module = path.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
    Source { module, code: code.join("\n"), shipped: shipped.join("\n"), path }
}

/// Where a path begins with this word, and what follows `::`.
fn uses<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part_of_a_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$';
    code.match_indices(word).filter_map(move |(at, _)| {
        let after = code[at + word.len()..].strip_prefix("::")?;
        (!code[..at].ends_with(is_part_of_a_name)).then_some(after)
    })
}

/// The first names of what is imported: one, or those of a group in braces.
fn first_names(after: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = after.strip_prefix('{') else { return vec![name(after)] };
    let mut names = vec![name(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn groups_of_imports_are_read() {
    let code = "use crate::{\n    event::{Seq, time::Timestamp},\n    log,\n};\nuse crate::wire::X; my_crate::no; crate::sse::Y";
    let names: Vec<_> = uses(code, "crate").flat_map(first_names).collect();
    assert_eq!(names, ["event", "log", "wire", "sse"]);
}

#[test]
fn modules_look_only_down() {
    for source in sources().iter().filter(|source| source.module != "main") {
        let layer = LAYERS.iter().find(|(module, _)| *module == source.module);
        let (_, allowed) = layer.unwrap_or_else(|| panic!("{} has no layer", source.path.display()));
        for name in uses(&source.code, "crate").flat_map(first_names) {
            // A name in capitals is one of lib.rs itself, which has none.
            let is_allowed = name == source.module || allowed.contains(&name.as_str());
            assert!(is_allowed, "{} must not know crate::{name}", source.path.display());
        }
        assert!(!source.code.contains("super::super"), "{}: write crate::", source.path.display());
    }
}

#[test]
fn every_layer_is_there() {
    let modules: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    for (module, allowed) in LAYERS {
        assert!(modules.contains(module), "{module} is gone; take it out of the table");
        assert!(allowed.iter().all(|name| modules.contains(*name)), "{allowed:?}");
    }
}

#[test]
fn crates_stay_where_they_belong() {
    for source in sources() {
        for (name, modules) in KEPT_APART {
            let is_named = uses(&source.code, name).next().is_some()
                || source.code.contains(&format!("use {name};"))
                || source.code.contains(&format!("extern crate {name}"));
            let is_allowed = modules.contains(&source.module.as_str());
            assert!(is_allowed || !is_named, "{} must not know {name}", source.path.display());
        }
    }
}

#[test]
fn nothing_shipped_unwraps() {
    for source in sources() {
        for call in [".unwrap()", "panic!(", "todo!(", "unimplemented!(", "dbg!("] {
            assert!(!source.shipped.contains(call), "{call} in {}", source.path.display());
        }
    }
}

#[test]
fn every_file_says_in_its_first_line_what_it_is() {
    for source in sources() {
        let text = read(source.path.to_str().unwrap());
        assert!(text.starts_with("//! "), "{}", source.path.display());
    }
}

/// A text without its line breaks, and lower-case.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[test]
fn env_example_is_the_table_of_settings_in_its_order() {
    let text = read(".env.example");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "a copy must change nothing");
    let mut entries = Vec::new();
    for block in text.split("\n\n") {
        let (assignments, comment): (Vec<_>, Vec<_>) = block
            .lines()
            .map(|line| line.trim_start_matches('#').trim())
            .partition(|line| line.starts_with("EVERTAIL_") && line.contains('='));
        match assignments[..] {
            [] => {}
            [assignment] => {
                assert_eq!(
                    block.lines().last().map(|line| line[2..].to_owned()).as_deref(),
                    Some(assignment)
                );
                entries.push((assignment.to_owned(), flat(&comment.join(" "))));
            }
            _ => panic!("two settings in one block:\n{block}"),
        }
    }
    let documented: Vec<&str> = entries.iter().map(|(assignment, _)| assignment.as_str()).collect();
    let settings = || SETTINGS.iter().chain(CLIENT_SETTINGS);
    let expected: Vec<String> =
        settings().map(|setting| format!("{}={}", setting.variable, setting.default)).collect();
    assert_eq!(documented, expected);
    for ((_, comment), setting) in entries.iter().zip(settings()) {
        for part in [setting.meaning, setting.range, setting.change] {
            assert!(comment.contains(&flat(part)), "{}: {part:?} is not in {comment:?}", setting.variable);
        }
    }
}

#[test]
fn every_setting_is_documented_once() {
    let variables: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.variable).collect();
    assert_eq!(variables.len(), SETTINGS.len());
    for setting in SETTINGS.iter().chain(CLIENT_SETTINGS) {
        assert!(setting.variable.starts_with("EVERTAIL_"), "{}", setting.variable);
        for text in [setting.meaning, setting.range, setting.change] {
            assert!(!text.is_empty(), "{}", setting.variable);
        }
    }
}

#[test]
fn documents_name_no_setting_that_is_not_there() {
    let known: BTreeSet<&str> =
        SETTINGS.iter().chain(CLIENT_SETTINGS).map(|setting| setting.variable).collect();
    let mut texts: Vec<(String, String)> = sources()
        .into_iter()
        .map(|source| (source.path.display().to_string(), read(source.path.to_str().unwrap())))
        .collect();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            texts.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    texts.push(("README.md".into(), read("README.md")));
    for (path, text) in texts {
        for (at, _) in text.match_indices("EVERTAIL_") {
            let is_name = |c: &char| c.is_ascii_uppercase() || *c == '_';
            let name: String = text[at..].chars().take_while(is_name).collect();
            // `EVERTAIL_*` and the prefix itself; and what `build.rs` asks, which is no setting of a server.
            let is_other = ["EVERTAIL_", "EVERTAIL_COMMIT"].contains(&name.as_str());
            assert!(is_other || known.contains(name.as_str()), "{path} names {name}");
        }
    }
}

#[test]
fn readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!((20..200).contains(&lines), "{lines} lines");
}

#[tokio::test]
async fn every_migration_file_is_in_the_binary() {
    let files: Vec<String> = fs::read_dir(root().join("migrations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sql"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evertail.db");
    let (log, mut task) = Log::open(LogSettings {
        store: StoreSettings {
            file: file.clone(),
            read_connections: 1,
            busy_timeout: Duration::from_secs(5),
            is_checkpointing: true,
        },
        queue_requests_max: 1,
        queue_bytes_max: 1 << 20,
        window_bytes_max: 0,
        disk_free_bytes_min: 0,
        retention: RetentionRules::default(),
        catch_up_pages_max: 1,
        notice_interval: Duration::from_secs(1),
    })
    .await
    .unwrap();
    log.close().await;
    task.wait().await.unwrap();
    let mut connection = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    let run: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut versions: Vec<i64> =
        files.iter().map(|name| name.split('_').next().unwrap().parse().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(run, versions, "a new file is seen only after a build; build.rs must watch the folder");
    for name in files {
        let text = read(&format!("migrations/{name}"));
        assert!(text.starts_with("-- "), "{name} opens with what it promises");
    }
}

/// The rows of the tables of a document: their cells.
fn rows(document: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    text.lines().filter(|line| line.starts_with("| ")).map(cells).collect()
}

/// The macros of `tracing` in a piece of code: level and message.
fn log_lines(code: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for after in uses(code, "tracing") {
        let Some((level, call)) = after.split_once("!(") else { continue };
        if !["error", "warn", "info", "debug"].contains(&level) {
            continue;
        }
        // The message is the last text before the call ends.
        let (mut depth, mut message, mut rest) = (1, "", call);
        while depth > 0 {
            let at = rest.find(['(', ')', '"']).expect("the call has an end");
            let (mark, behind) = rest[at..].split_at(1);
            rest = behind;
            match mark {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => (message, rest) = rest.split_once('"').expect("the text has an end"),
            }
        }
        lines.push((level.to_owned(), message.to_owned()));
    }
    lines
}

#[test]
fn every_line_of_the_servers_log_is_documented() {
    let code: Vec<_> = sources().into_iter().map(|source| source.shipped).collect();
    let said: BTreeSet<_> = code.iter().flat_map(|code| log_lines(code)).collect();
    assert!(said.len() > 30, "the test looks in the wrong place");
    let documented: BTreeSet<_> = rows("docs/logs.md")
        .into_iter()
        .filter(|cells| cells.len() == 3)
        .map(|cells| (cells[0].trim_matches('`').to_owned(), cells[1].clone()))
        .filter(|(level, _)| ["error", "warn", "info", "debug"].contains(&level.as_str()))
        .collect();
    assert_eq!(said, documented);
}

#[test]
fn every_route_is_named_in_log_lines() {
    let asked = read("src/http/asked.rs");
    let service = read("src/http/service.rs");
    let routes: Vec<&str> = service
        .split(".route(\"")
        .skip(1)
        .map(|rest| rest.split('"').next().expect("a text has an end"))
        .collect();
    assert!(routes.len() >= 9, "the test looks in the wrong place");
    for route in routes {
        assert!(
            asked.contains(&format!("    \"{route}\",\n")),
            "{route} is not among the routes of asked.rs"
        );
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut dependencies = BTreeSet::new();
    for line in manifest.lines() {
        match line.split_once('=') {
            _ if line.starts_with('[') => section = line,
            Some((name, _)) if section.ends_with("dependencies]") && !line.starts_with('#') => {
                dependencies.insert(name.trim().to_owned());
            }
            _ => {}
        }
    }
    let documented: BTreeSet<String> = rows("docs/dependencies.md")
        .into_iter()
        .filter(|row| row[0] != "crate")
        .map(|row| {
            assert!(row.len() == 2 && !row[1].is_empty(), "{row:?}");
            row[0].trim_matches('`').to_owned()
        })
        .collect();
    assert_eq!(documented, dependencies);
}

#[test]
fn every_metric_is_documented_as_it_is_declared() {
    let mut documented: Vec<Vec<String>> = rows("docs/metrics.md");
    documented.retain(|row| row[0] != "metric");
    let mut declared: Vec<Vec<String>> = all_metrics()
        .into_iter()
        .map(|metric| {
            let label = match metric.label {
                None if metric.name == "evertail_build_info" => "`version`".to_owned(),
                None => String::new(),
                // There are too many; docs/api.md has a table of them.
                Some(("code", _)) => "`code`".to_owned(),
                Some((name, values)) => format!("`{name}`: {}", values.join(", ")),
            };
            vec![format!("`{}`", metric.name), metric.kind.as_str().to_owned(), label, metric.help.to_owned()]
        })
        .collect();
    documented.sort();
    declared.sort();
    assert_eq!(documented, declared);
}

#[test]
fn every_problem_code_is_documented_with_its_status() {
    let rows = rows("docs/api.md");
    for code in ProblemCode::ALL.iter() {
        let name = format!("`{}`", code.as_str());
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name} has no row"));
        assert_eq!(row[1], code.status().as_u16().to_string(), "{name}");
        assert!(!row[2].is_empty(), "{name}: what to do");
    }
    let codes: BTreeSet<String> =
        ProblemCode::ALL.iter().map(|code| format!("`{}`", code.as_str())).collect();
    let is_code = |row: &&Vec<String>| {
        row.get(1).is_some_and(|status| status.len() == 3 && status.parse::<u16>().is_ok())
    };
    for row in rows.iter().filter(is_code) {
        assert!(codes.contains(&row[0]), "{} is no code", row[0]);
    }
}

/// The table of docs/security.md says of each attack which test shows the defence: `file` `function`, `function`.
#[test]
fn every_defence_names_a_test_that_is_there() {
    let rows = rows("docs/security.md");
    let attacks: Vec<_> = rows.iter().filter(|row| row.len() == 3 && row[0] != "attack").collect();
    assert!(attacks.len() > 20);
    for row in attacks {
        let mut named = 0;
        let mut code = String::new();
        for name in row[2].split('`').skip(1).step_by(2) {
            if name.contains('/') {
                let paths = [format!("tests/{name}.rs"), format!("src/{name}.rs"), name.to_owned()];
                let path = paths.iter().find(|path| root().join(path).is_file());
                code = read(path.unwrap_or_else(|| panic!("{name}: there is no such file")));
            } else {
                assert!(code.contains(&format!("fn {name}(")), "{}: there is no {name}", row[0]);
                named += 1;
            }
        }
        assert!(named > 0 || row[2] == "`scripts/check`", "{} names no test", row[0]);
    }
}
