//! Starts that are turned away, each with one sentence that ends in the next step, and without harm to whoever serves.

use crate::ledger::Ledger;
use crate::load::{Load, Manner};
use crate::reader::{self, Reader, Wanted};
use crate::server::{Launch, Place, until};
use crate::table::rows;
use rustix::process::Signal;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

const READER: Wanted = Wanted { path: "/events?after=0", matches: |_| true, manner: reader::Manner::Native };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_file_is_turned_away_and_the_first_goes_on() {
    let place = Place::new();
    let mut first = Launch::new(&place.file()).start().await;
    let ledger = Ledger::default();
    let reader = Reader::start(&first.base, READER, &ledger);
    let load = Load::start(&first.base, &ledger, &[Manner::Single, Manner::Batch]);
    for _ in 0..3 {
        let acks = ledger.acks();
        let mut second = Launch::new(&place.file()).spawn();
        assert_eq!(second.ended().await.code(), Some(1));
        let complaint = second.complaint().await;
        let in_use = format!("evertail: {} is in use by another evertail (process ", place.file().display());
        assert!(complaint.starts_with(&in_use), "{complaint}");
        assert!(complaint.ends_with("; stop that one, or choose another file with --file"), "{complaint}");
        until("the first acks on", async || ledger.acks() > acks + 10).await;
    }
    load.finish().await;
    let all = rows(&place.file(), 0).await;
    reader.got_exactly(&all).await;
    ledger.assert_agrees(&all);
    assert_eq!(ledger.refusals(), []);
    assert!(first.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_address_is_turned_away() {
    let place = Place::new();
    let first = Launch::new(&place.file()).start().await;
    let address = first.base.trim_start_matches("http://");
    let other = Place::new();
    let mut second = Launch::new(&other.file()).listen(address).spawn();
    assert_eq!(second.ended().await.code(), Some(1));
    let complaint = second.complaint().await;
    assert!(
        complaint.contains(address) && complaint.ends_with("choose another address with --listen"),
        "{complaint}"
    );
    assert!(!other.file().exists(), "what does not serve makes no file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_newer_server_is_refused_and_left_alone() {
    let place = Place::new();
    let mut server = Launch::new(&place.file()).start().await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    let mut newer = SqliteConnectOptions::new().filename(place.file()).connect().await.unwrap();
    sqlx::query("UPDATE meta SET format = 99").execute(&mut newer).await.unwrap();
    newer.close().await.unwrap();
    let left = std::fs::read(place.file()).unwrap();
    let mut older = Launch::new(&place.file()).spawn();
    assert_eq!(older.ended().await.code(), Some(1));
    let complaint = older.complaint().await;
    assert!(complaint.contains("has log format 99, this server knows up to "), "{complaint}");
    assert!(complaint.ends_with("; start a newer evertail"), "{complaint}");
    assert!(std::fs::read(place.file()).unwrap() == left, "the file was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_others_can_reach_needs_a_word_of_consent() {
    let place = Place::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let mut server = Launch::new(&place.file()).listen(address).spawn();
        assert_eq!(server.ended().await.code(), Some(2), "{address}");
        let complaint = server.complaint().await;
        assert!(complaint.contains(address), "{complaint}");
        assert!(complaint.contains("EVERTAIL_ALLOW_UNAUTHENTICATED=true"), "{complaint}");
    }
    assert!(!place.file().exists());
}
