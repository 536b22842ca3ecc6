//! `docs/clients.md`: the table made from the run, and the recipes, word for word.

use crate::kind::Kind;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What a client was seen to do.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) reconnects: &'static str,
    pub(crate) sends_last_event_id: &'static str,
    pub(crate) cursor_moves: &'static str,
    pub(crate) honours_retry: &'static str,
}

/// A client that shortens the delay by chance.
pub(crate) const HALF: &str = "half of it or more";

/// Tests run side by side.
static WRITING: Mutex<()> = Mutex::new(());

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md")
}

fn is_updating() -> bool {
    std::env::var_os("UPDATE_DOCUMENTS").is_some()
}

/// The cells of the client's line of the table. The first is its name, the last is written by hand.
fn cells(text: &str, kind: Kind) -> Option<Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let mut rows = lines.map(|line| line.split(" | ").collect::<Vec<_>>());
    rows.find(|cells| cells[0] == kind.name())
}

/// Holds the client's line of the table against what was seen, or writes it.
pub(crate) fn hold(kind: Kind, row: Row) {
    let _writing = WRITING.lock().unwrap();
    let text = fs::read_to_string(file()).unwrap();
    let stands = cells(&text, kind).unwrap_or_else(|| panic!("the table has no {}", kind.name()));
    assert_eq!(stands.len(), 7, "{stands:?}");
    let (version, is_pinned) = kind.version();
    // Debian's versions move by themselves: the table has that of the last run that wrote it.
    let version = if is_pinned || is_updating() { &version } else { stands[1] };
    let Row { reconnects, sends_last_event_id, cursor_moves, mut honours_retry } = row;
    if stands[5] == HALF && honours_retry == "yes" {
        honours_retry = HALF;
    }
    let seen =
        [kind.name(), version, reconnects, sends_last_event_id, cursor_moves, honours_retry, stands[6]];
    if is_updating() {
        let line = |cells: &[&str]| format!("| {} |", cells.join(" | "));
        fs::write(file(), text.replacen(&line(&stands), &line(&seen), 1)).unwrap();
    } else {
        assert_eq!(stands, seen, "docs/clients.md; UPDATE_DOCUMENTS=1 writes what was seen");
    }
}

/// The first block of code behind the recipe's name: where it begins and ends.
fn block(text: &str, recipe: &str) -> (usize, usize) {
    let name = format!("`tests/clients/{recipe}`");
    let at = text.find(&name).unwrap_or_else(|| panic!("docs/clients.md does not name {name}"));
    let fence = at + text[at..].find("\n```").unwrap() + 1;
    let from = fence + text[fence..].find('\n').unwrap() + 1;
    (from, from + text[from..].find("```\n").unwrap())
}

#[test]
fn recipes_of_the_document_are_the_programs() {
    let _writing = WRITING.lock().unwrap();
    let mut text = fs::read_to_string(file()).unwrap();
    for kind in Kind::ALL {
        let (from, to) = block(&text, kind.recipe());
        if is_updating() {
            text.replace_range(from..to, &kind.source());
        } else {
            assert_eq!(text[from..to], kind.source(), "docs/clients.md; UPDATE_DOCUMENTS=1 writes {kind:?}");
        }
    }
    if is_updating() {
        fs::write(file(), text).unwrap();
    }
}

#[test]
fn the_table_has_each_client_once() {
    let text = fs::read_to_string(file()).unwrap();
    for kind in Kind::ALL {
        let lines = text.lines().filter(|line| line.starts_with(&format!("| {} |", kind.name())));
        assert_eq!(lines.count(), 1, "{}", kind.name());
    }
}
