//! Which evertail this is: its version, the commit it is made from, and the SQLite within it.

use crate::store::sqlite_version;

/// `0.1.0 (commit 0123456789ab, SQLite 3.51.3)`; without the commit where it is not known.
pub(super) fn version() -> String {
    let (version, sqlite) = (env!("CARGO_PKG_VERSION"), sqlite_version());
    match env!("BUILT_FROM") {
        "" => format!("{version} (SQLite {sqlite})"),
        commit => format!("{version} (commit {commit}, SQLite {sqlite})"),
    }
}
