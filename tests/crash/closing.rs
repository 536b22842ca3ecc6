//! kill -9 around the end of a stream: the final event and the mark of the stream are there together or not at all.

use crate::server::{Launch, Place, complain, lasting_port};
use crate::table::assert_sound;
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
use std::collections::BTreeMap;
use std::time::Duration;

const CYCLES: usize = 12;
const PRODUCERS: usize = 4;

/// Opens streams of this producer one after the other, each with two events and a close, until the server is gone.
/// Returns which close was acked with which seq.
async fn produce(base: String, name: String) -> BTreeMap<String, i64> {
    let client = crate::load::http_client();
    let mut acked = BTreeMap::new();
    for number in 0.. {
        let stream = format!("{name}.{number}");
        for path in [stream.clone(), stream.clone(), format!("{stream}/close")] {
            let body = if path.ends_with("/close") { "" } else { "{\"data\":1}" };
            let sent = client.post(format!("{base}/api/v1/{path}")).body(body).send().await;
            let Ok(answer) = sent else { return acked };
            let is_acked = answer.status() == 201;
            let Ok(body) = answer.bytes().await else { return acked };
            let receipt: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(is_acked, "{receipt}");
            if path.ends_with("/close") {
                acked.insert(stream.clone(), receipt["seq"].as_i64().unwrap());
            }
        }
    }
    acked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_leaves_of_each_close_both_or_neither() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let mut acked = BTreeMap::new();
    for cycle in 0..CYCLES {
        let mut server = launch.start().await;
        let producers = (0..PRODUCERS)
            .map(|producer| tokio::spawn(produce(server.base.clone(), format!("c{cycle}.p{producer}"))))
            .collect::<Vec<_>>();
        // A random moment, not a wait for something.
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..150))).await;
        server.kill();
        for producer in producers {
            acked.extend(producer.await.unwrap());
        }
        assert_sound(&place.file()).await;
        let mut file = SqliteConnectOptions::new().filename(place.file()).connect().await.unwrap();
        let half: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM streams WHERE closed_seq IS NOT (
                 SELECT max(seq) FROM log WHERE stream = name AND type = 'evertail.closed')
             OR closed_seq <> last_seq",
        )
        .fetch_all(&mut file)
        .await
        .unwrap();
        assert_eq!(half, Vec::<String>::new());
        let closed: BTreeMap<String, i64> =
            sqlx::query_as("SELECT name, closed_seq FROM streams WHERE closed_seq IS NOT NULL")
                .fetch_all(&mut file)
                .await
                .unwrap()
                .into_iter()
                .collect();
        for (stream, seq) in &acked {
            assert_eq!(closed.get(stream), Some(seq), "the close of {stream} was acked");
        }
    }
    complain(&format!("{} closes acked over {CYCLES} kills", acked.len()));
    assert!(acked.len() > CYCLES, "the test has hardly closed anything");
}
