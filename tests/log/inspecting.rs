//! What a check and a diagnosis find in a file that is sound, and in one that is not.

use crate::fixture::{Place, append, assert_sound, close, content, in_time, inspect, stream, trim};
use evertail::event::Seq;
use evertail::log::TrimRequest;
use evertail::store::{Check, Finding, InspectError, Inspection, Outcome};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A log with everything that a check looks at: ids, two blocks of the index, a trim of the log and holes of a stream.
async fn rich() -> Place {
    let place = Place::new();
    let (log, task) = place.open().await;
    for batch in 0..9_u64 {
        let contents = (1..=1_000).map(|n| {
            let seq = batch * 1_000 + n;
            let name = if seq.is_multiple_of(3) { "debug" } else { "audits" };
            let id = seq.is_multiple_of(5).then(|| format!("id-{seq}"));
            content(name, id.as_deref(), &format!("{{\"n\":{seq}}}"))
        });
        append(&log, contents.collect::<Vec<_>>()).await.expect("it can be done");
    }
    trim(&log, 100).await;
    let debug = TrimRequest { stream: Some(stream("debug")), before: Some(4_600), ..TrimRequest::default() };
    in_time(log.trim(&debug)).await.expect("it can be done");
    let mut other = place.other_process().await;
    in_time(async {
        let indexed = "SELECT indexed_seq FROM meta";
        while sqlx::query_scalar::<_, i64>(indexed).fetch_one(&mut other).await.expect("it can be done")
            < 8_192
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    other.close().await.expect("it can be done");
    close(log, task).await;
    place
}

/// Changes what the triggers keep from changing, and puts them back.
async fn damage(connection: &mut SqliteConnection, sql: &str) {
    let triggers: Vec<(String, String)> =
        sqlx::query_as("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
            .fetch_all(&mut *connection)
            .await
            .expect("it can be done");
    let drop: String = triggers.iter().map(|(name, _)| format!("DROP TRIGGER {name};")).collect();
    let make: String = triggers.iter().map(|(_, sql)| format!("{sql};")).collect();
    let sql = format!("PRAGMA ignore_check_constraints = ON; {drop} {sql}; {make}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.expect("it can be done");
}

/// The one promise that does not hold, in words.
fn only_problem(findings: &[Finding]) -> (Check, &str) {
    let problems: Vec<_> = findings.iter().filter(|finding| finding.outcome == Outcome::Problem).collect();
    let [problem] = problems[..] else { panic!("one problem in {findings:#?}") };
    assert!(problem.next_step.as_deref().is_some_and(|step| step.len() > 10), "{problem:?}");
    (problem.check, problem.found.as_str())
}

#[tokio::test]
async fn sound_file_is_found_sound_and_left_as_it_is() {
    let place = rich().await;
    let before = fs::read(place.file()).unwrap();
    let folder = || fs::read_dir(place.file().parent().unwrap()).unwrap().count();
    let files = folder();
    let (checked, diagnosed) = inspect(&place.file()).await;
    let all_well = |findings: &[Finding]| findings.iter().all(|finding| finding.outcome == Outcome::Ok);
    assert!(all_well(&checked), "{checked:#?}");
    assert_eq!(checked.len(), 8);
    let not_about_the_machine: Vec<_> = diagnosed
        .into_iter()
        .filter(|finding| !matches!(finding.check, Check::FileSystem | Check::FreeSpace))
        .collect();
    assert!(all_well(&not_about_the_machine), "{not_about_the_machine:#?}");
    assert!(fs::read(place.file()).unwrap() == before);
    assert_eq!(folder(), files);
}

#[tokio::test]
async fn new_file_and_one_of_which_everything_is_trimmed_are_sound() {
    let place = Place::new();
    let (log, task) = place.open().await;
    close(log, task).await;
    assert_sound(&place.file()).await;
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("1"), "1")]).await.unwrap();
    trim(&log, 1).await;
    trim(&log, 2).await;
    close(log, task).await;
    assert_sound(&place.file()).await;
}

#[tokio::test]
async fn every_broken_promise_is_found_and_nothing_else() {
    let place = rich().await;
    let sound = fs::read(place.file()).unwrap();
    let cases = [
        (Check::Schema, "DROP VIEW stream_summary", "the view stream_summary is missing"),
        (
            Check::Schema,
            "DROP VIEW largest_events; CREATE VIEW largest_events AS SELECT 1",
            "the view largest_events is not ours",
        ),
        (
            Check::Contiguity,
            "DELETE FROM log WHERE seq = 8500; UPDATE streams SET events = events - 1, bytes = bytes - 10 WHERE name = 'audits';
             DELETE FROM ids WHERE seq = 8500",
            "event 8500 is missing, and no trim explains it",
        ),
        (
            Check::Contiguity,
            "INSERT INTO log (seq, stream, created_at) SELECT 7, 'audits', trimmed_created_at FROM meta;
             UPDATE streams SET first_seq = 7, events = events + 1 WHERE name = 'audits'",
            "event 7 is there, and the log says that it is trimmed",
        ),
        (
            Check::Time,
            "UPDATE log SET created_at = '2020-01-01T00:00:00.000000Z' WHERE seq = 5000",
            "event 5000 was received before the one before it",
        ),
        (
            Check::Time,
            "UPDATE log SET created_at = 'yesterday, in the afternoon' WHERE seq = 9000",
            "created_at of event 9000 is no time of the log: \"yesterday, in the afternoon\"",
        ),
        (
            Check::Data,
            "UPDATE log SET data = replace(data, '{', 'x') WHERE seq IN (5000, 5002)",
            "the data of event 5000 is not JSON, and 1 more like it",
        ),
        (
            Check::Data,
            "UPDATE log SET data = '{\"n\": ' || char(10) || '1}' WHERE seq = 5000;
             UPDATE streams SET bytes = bytes - 1 WHERE name = 'audits'",
            "the data of event 5000 is on more than one line",
        ),
        (
            Check::Data,
            "UPDATE log SET traceparent = '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' WHERE seq = 5000",
            "the traceparent of event 5000 is none",
        ),
        (
            Check::Totals,
            "UPDATE streams SET events = 1 WHERE name = 'debug'",
            "the totals of the stream debug are wrong: 1 events of ",
        ),
        (
            Check::Totals,
            "UPDATE streams SET last_seq = 20000 WHERE name = 'audits'",
            "the totals of the stream audits are wrong: seq 101 to 20000, and there is 101 to 8999",
        ),
        (
            Check::Totals,
            "DELETE FROM streams WHERE name = 'evertail'",
            "event 9001 is of evertail, which is not among the streams, and 1 more like it",
        ),
        (
            Check::Ids,
            "DELETE FROM ids WHERE seq = 8000",
            "event 8000 is not known by its id, and would be stored again",
        ),
        (
            Check::Ids,
            "INSERT INTO ids (id, stream, source, seq) VALUES ('x', 'audits', '', 8001)",
            "an id is kept for event 8001, which is not there or has another id",
        ),
        (
            Check::Ids,
            "INSERT INTO ids (id, stream, source, seq) VALUES ('x', 'audits', '', 10001)",
            "an id is kept for event 10001, which is not there or has another id",
        ),
        (
            Check::Index,
            "UPDATE blocks SET seqs = replace(seqs, ',2000,', ',2001,') WHERE block = 0 AND stream = 'audits'",
            "block 0 of the index does not agree with the log about audits, message",
        ),
        (
            Check::Index,
            "DELETE FROM blocks WHERE block = 1 AND stream = 'debug'",
            "block 1 of the index leaves out debug, message",
        ),
        (
            Check::Index,
            "UPDATE meta SET indexed_seq = 4096",
            "the index has block 1, which is behind its end",
        ),
        (
            Check::Index,
            "UPDATE meta SET indexed_seq = 12288",
            "the index is said to reach to seq 12288, where no block of the log ends",
        ),
    ];
    for (check, sql, found) in cases {
        fs::write(place.file(), &sound).unwrap();
        let mut other = place.other_process().await;
        damage(&mut other, sql).await;
        other.close().await.unwrap();
        let (checked, _) = inspect(&place.file()).await;
        let problem = only_problem(&checked);
        assert!(problem.0 == check && problem.1.starts_with(found), "{sql}: {problem:?}");
    }
}

#[tokio::test]
async fn diagnosis_finds_what_the_newest_events_and_the_totals_show() {
    let place = rich().await;
    let sound = fs::read(place.file()).unwrap();
    let cases = [
        (Check::Schema, "DROP TABLE holds", "the table holds is missing"),
        (
            Check::Contiguity,
            "DELETE FROM log WHERE seq = 8500",
            "event 8500 is missing, and no trim explains it",
        ),
        (Check::Data, "UPDATE log SET data = 'x' WHERE seq = 8999", "the data of event 8999 is not JSON"),
        (
            Check::Totals,
            "UPDATE streams SET last_seq = 20000 WHERE name = 'audits'",
            "the stream audits does not begin and end where its totals say",
        ),
        (
            Check::Totals,
            "UPDATE streams SET events = events + 9000 WHERE name = 'audits'",
            "the totals count 16402 events where there are 8902 seqs",
        ),
        (
            Check::Clock,
            "UPDATE log SET created_at = '2999-01-01T00:00:00.000000Z' WHERE seq = 9002",
            "the newest event was received at 2999-01-01T00:00:00.000000Z, ",
        ),
    ];
    for (check, sql, found) in cases {
        fs::write(place.file(), &sound).unwrap();
        let mut other = place.other_process().await;
        damage(&mut other, sql).await;
        other.close().await.unwrap();
        let (_, mut diagnosed) = inspect(&place.file()).await;
        diagnosed.retain(|finding| !matches!(finding.check, Check::FileSystem | Check::FreeSpace));
        let problem = only_problem(&diagnosed);
        assert!(problem.0 == check && problem.1.starts_with(found), "{sql}: {problem:?}");
    }
}

#[tokio::test]
async fn damaged_page_is_told_and_not_read_over() {
    let place = rich().await;
    let mut bytes = fs::read(place.file()).unwrap();
    // The second half of the file, but for its end, is zero: tables' pages, whatever they are of.
    let half = bytes.len() / 2;
    let end = bytes.len() - 8_192;
    bytes[half..end].fill(0);
    fs::write(place.file(), &bytes).unwrap();
    let mut inspection = Inspection::open(&place.file()).await.unwrap();
    match inspection.check(&mut |_| ()).await {
        Ok(findings) => {
            let integrity = findings.iter().find(|finding| finding.check == Check::Integrity).unwrap();
            assert_eq!(integrity.outcome, Outcome::Problem);
        }
        Err(error) => assert!(matches!(error, InspectError::Sqlite { .. }), "{error:?}"),
    }
}

#[tokio::test]
async fn what_is_put_on_our_tables_is_told_of_and_tables_beside_them_are_not() {
    let place = rich().await;
    let mut other = place.other_process().await;
    let theirs = "CREATE TABLE orders (id INTEGER PRIMARY KEY); CREATE INDEX by_id ON orders (id)";
    sqlx::raw_sql(theirs).execute(&mut other).await.unwrap();
    assert_sound(&place.file()).await;
    sqlx::raw_sql("CREATE INDEX by_type ON log (type)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let (checked, _) = inspect(&place.file()).await;
    let warned = checked.iter().find(|finding| finding.outcome == Outcome::Warning).unwrap();
    assert_eq!(warned.found, "the index by_type on the table log is not Evertail's");
}

#[tokio::test]
async fn open_doors_and_a_copy_of_another_user_are_told_of() {
    let place = rich().await;
    let folder = place.file().parent().unwrap().to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let permissions = async || {
        let (_, diagnosed) = inspect(&place.file()).await;
        let found = diagnosed.into_iter().find(|finding| finding.check == Check::Permissions).unwrap();
        (found.outcome, found.found)
    };
    let (outcome, found) = permissions().await;
    assert_eq!(
        (outcome, found.as_str()),
        (Outcome::Problem, "everyone on this machine may open the file, mode 0644")
    );
    // Nobody gets as far as the file.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(permissions().await.0, Outcome::Ok);
}

#[tokio::test]
async fn file_of_a_running_server_is_read_as_it_is_now() {
    let place = rich().await;
    let (log, task) = place.open().await;
    let last: Seq = append(&log, [content("a", None, "1")]).await.unwrap()[0].seq;
    let mut inspection = Inspection::open(&place.file()).await.unwrap();
    assert_eq!(inspection.server(), Some(format!(" (process {})", std::process::id()).as_str()));
    assert_eq!(inspection.summary().await.unwrap().last_seq, last);
    assert_sound(&place.file()).await;
    inspection.close().await.unwrap();
    close(log, task).await;
}

#[tokio::test]
async fn what_is_no_log_of_this_version_is_refused_with_the_next_step() {
    let place = rich().await;
    let open = async || Inspection::open(&place.file()).await.unwrap_err();
    let mut other = place.other_process().await;
    damage(&mut other, "UPDATE meta SET format = 7").await;
    assert!(matches!(open().await, InspectError::Format { format: 7, known: 6, .. }));
    sqlx::query("PRAGMA application_id = 7").execute(&mut other).await.unwrap();
    assert!(matches!(open().await, InspectError::NotALog { .. }));
    other.close().await.unwrap();
    fs::write(place.file(), "notes ".repeat(1_000)).unwrap();
    assert!(matches!(open().await, InspectError::NotALog { .. } | InspectError::Sqlite { .. }));
    fs::remove_file(place.file()).unwrap();
    assert!(matches!(open().await, InspectError::Missing { .. }));
}
