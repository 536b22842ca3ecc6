//! The resume contract: every row of section 6, on the stream of a name and on the whole log, with events from memory
//! and from the table.

use crate::raw::Connection;
use crate::server::{Reply, Server};
use crate::stream::{Stream, blocks};
use evertail::client::TailItem;
use evertail::http::Closing;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// The two URLs under which the events of these tests are found.
const ROUTES: [&str; 2] = ["/api/v1/a", "/api/v1/events"];
/// Without a recent window every event comes from the table.
const WINDOWS: [usize; 2] = [0, 1 << 20];
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// A log of ten events, odd and even by type, in one stream.
async fn log_of_ten(window_bytes_max: usize) -> Server {
    let server = Server::start_with(|settings| settings.log.window_bytes_max = window_bytes_max).await;
    server.append_types("a", ["odd", "even"].into_iter().cycle().take(10)).await;
    server
}

/// Checks that the stream is at the end of the log: the very next frame is the event that is appended now.
async fn assert_live(server: &Server, stream: &mut Stream) {
    let next = server.log.bounds().last_seq + 1;
    server.append("a", r#"{"data":"live"}"#).await;
    assert_eq!(stream.seqs(1).await, [next]);
}

#[tokio::test]
async fn without_a_cursor_the_stream_is_live_and_its_first_frame_hands_out_the_cursor() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for route in ROUTES {
            let last_seq = server.log.bounds().last_seq;
            let mut stream = server.stream(route).await;
            let (data, id) = stream.control("evertail.cursor").await;
            assert_eq!(data, json!({"first_seq": 1, "last_seq": last_seq, "log": server.log.id()}));
            assert_eq!(id, last_seq.to_string());
            assert_live(&server, &mut stream).await;
        }
    }
}

#[tokio::test]
async fn stream_of_a_new_log_hands_out_cursor_zero() {
    let server = Server::start().await;
    let mut stream = server.stream("/api/v1/a").await;
    let (data, id) = stream.control("evertail.cursor").await;
    assert_eq!(data, json!({"first_seq": 1, "last_seq": 0, "log": server.log.id()}));
    assert_eq!(id, "0");
    assert_live(&server, &mut stream).await;
}

#[tokio::test]
async fn drop_before_the_first_event_loses_nothing() {
    let server = log_of_ten(1 << 20).await;
    let mut stream = server.stream("/api/v1/a").await;
    let cursor = stream.cursor().await;
    drop(stream);
    server.append_types("a", ["x", "y", "z"]).await;
    let mut stream = server.stream_after("/api/v1/a", cursor).await;
    assert_eq!(stream.cursor().await, cursor);
    assert_eq!(stream.seqs(3).await, [11, 12, 13]);
}

#[tokio::test]
async fn zero_begins_at_the_first_retained_event_and_tells_no_gap() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for route in ROUTES {
            let mut stream = server.stream_after(route, 0).await;
            assert_eq!(stream.cursor().await, 0);
            assert_eq!(stream.seqs(10).await, (1..=10).collect::<Vec<_>>());
        }
        server.trim(4).await;
        for route in ROUTES {
            let mut stream = server.stream_after(route, 0).await;
            let (data, id) = stream.control("evertail.cursor").await;
            assert_eq!((data["first_seq"].as_u64(), id.as_str()), (Some(5), "4"));
            assert_eq!(stream.seqs(6).await, (5..=10).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn cursor_within_the_log_begins_right_after_it() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for route in ROUTES {
            for cursor in [1, 2, 5, 9] {
                let mut stream = server.stream_after(route, cursor).await;
                assert_eq!(stream.cursor().await, cursor);
                assert_eq!(stream.seqs(10 - cursor as usize).await, (cursor + 1..=10).collect::<Vec<_>>());
            }
        }
    }
}

#[tokio::test]
async fn cursor_at_the_end_of_the_log_is_live() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for route in ROUTES {
            let last_seq = server.log.bounds().last_seq;
            let mut stream = server.stream_after(route, last_seq).await;
            assert_eq!(stream.cursor().await, last_seq);
            assert_live(&server, &mut stream).await;
        }
    }
}

#[tokio::test]
async fn cursor_in_the_trimmed_past_is_told_the_gap_and_goes_on_behind_it() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        server.trim(4).await;
        for route in ROUTES {
            for cursor in [1, 2, 3] {
                let mut stream = server.stream_after(route, cursor).await;
                assert_eq!(stream.cursor().await, cursor);
                let (gap, id) = stream.control("evertail.gap").await;
                assert_eq!(gap, json!({"from": cursor + 1, "to": 4, "reason": "trimmed"}));
                assert_eq!(id, cursor.to_string(), "a gap does not move the cursor");
                let last_seq = server.log.bounds().last_seq;
                assert_eq!(stream.seqs(6).await, (5..=10).collect::<Vec<_>>());
                if route == "/api/v1/events" {
                    let (_, id) = stream.control("evertail.trimmed").await;
                    assert_eq!(id, "11");
                }
                assert_eq!(stream.seqs(last_seq as usize - 11).await, (12..=last_seq).collect::<Vec<_>>());
                assert_live(&server, &mut stream).await;
            }
        }
    }
}

#[tokio::test]
async fn cursor_right_before_the_first_retained_event_has_missed_nothing() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        server.trim(4).await;
        for route in ROUTES {
            let mut stream = server.stream_after(route, 4).await;
            assert_eq!(stream.cursor().await, 4);
            assert_eq!(stream.seqs(6).await, (5..=10).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn log_that_is_trimmed_to_nothing_tells_the_gap_then_a_cursor_behind_it_and_is_live() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        server.trim(10).await;
        let mut stream = server.stream_after("/api/v1/a", 3).await;
        let (data, id) = stream.control("evertail.cursor").await;
        assert_eq!(
            (data["first_seq"].as_u64(), data["last_seq"].as_u64(), id.as_str()),
            (Some(11), Some(11), "3"),
            "what is left tells of the trim"
        );
        let (gap, _) = stream.control("evertail.gap").await;
        assert_eq!(gap, json!({"from": 4, "to": 10, "reason": "trimmed"}));
        assert_eq!(stream.cursor().await, 11, "without it a reconnect would be told the gap again");
        for cursor in [0, 10] {
            let mut other = server.stream_after("/api/v1/a", cursor).await;
            assert_eq!(other.cursor().await, 10);
        }
        assert_live(&server, &mut stream).await;
    }
}

#[tokio::test]
async fn reader_that_is_overtaken_by_trimming_is_told_where() {
    let server = Server::start_with(|settings| {
        settings.log.window_bytes_max = 0;
        settings.http.page_bytes_max = 4 << 10;
        settings.connections.send_buffer_bytes = 4 << 10;
    })
    .await;
    let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(2000));
    let batch = format!("[{}]", vec![event; 200].join(","));
    for _ in 0..10 {
        server.append("a", &batch).await;
    }
    // It reads its first frame and then nothing, so that the server waits for it.
    let mut connection = Connection::open_narrow(server.address).await;
    connection.send("GET /api/v1/a?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    connection.head().await.unwrap();
    let mut bytes = connection.chunk().await.unwrap();
    server.trim(1990).await;
    server.append("a", r#"{"type":"last"}"#).await;
    // seq 2001 tells of the trim, on a stream of its own.
    while !bytes.ends_with(b"id: 2002\n\n") {
        bytes.extend(connection.chunk().await.unwrap());
    }
    let blocks = blocks(&bytes, true);
    let gaps: Vec<_> =
        (0..blocks.len()).filter(|i| blocks[*i].event.as_deref() == Some("evertail.gap")).collect();
    let [gap] = gaps[..] else { panic!("{} gaps", gaps.len()) };
    let before = blocks[gap - 1].id.unwrap();
    let data: serde_json::Value = serde_json::from_str(&blocks[gap].data[0]).unwrap();
    assert_eq!(data, json!({"from": before + 1, "to": 1990, "reason": "trimmed"}));
    let before: Vec<_> = blocks[1..gap].iter().filter_map(|block| block.id).collect();
    assert_eq!(before, (1..=before.len() as u64).collect::<Vec<_>>());
    let after: Vec<_> = blocks[gap + 1..].iter().filter_map(|block| block.id).collect();
    assert_eq!(after, (1991..=2000).chain([2002]).collect::<Vec<_>>());
}

#[tokio::test]
async fn cursor_beyond_the_log_is_reset_and_live() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for route in ROUTES {
            for cursor in [99, i64::MAX as u64] {
                let last_seq = server.log.bounds().last_seq;
                let mut stream = server.stream_after(route, cursor).await;
                let (reset, id) = stream.control("evertail.reset").await;
                assert_eq!(reset, json!({"cursor": cursor, "last_seq": last_seq, "reason": "ahead"}));
                assert_eq!(id, "", "a reset gives no id");
                assert_eq!(stream.cursor().await, last_seq);
                assert!(stream.blocks()[0].retry.is_some() && stream.blocks()[1].retry.is_none());
                assert_live(&server, &mut stream).await;
            }
        }
    }
}

#[tokio::test]
async fn first_cursor_beyond_the_log_is_reset() {
    let server = log_of_ten(1 << 20).await;
    let mut stream = server.stream_after("/api/v1/a", 11).await;
    let (reset, _) = stream.control("evertail.reset").await;
    assert_eq!(reset["cursor"], 11);
}

#[tokio::test]
async fn cursor_of_another_log_is_reset_and_reads_from_the_beginning() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for route in ROUTES {
            for (query, cursor) in [
                ("", None),
                ("&after=7", Some(7)),
                ("&after=99", Some(99)),
                ("&after=0", Some(0)),
                ("&last=2", None),
            ] {
                let mut stream = server.stream(&format!("{route}?log=another{query}")).await;
                let (reset, _) = stream.control("evertail.reset").await;
                assert_eq!(reset, json!({"cursor": cursor, "last_seq": 10, "reason": "replaced"}), "{query}");
                assert_eq!(stream.cursor().await, 0);
                assert_eq!(stream.seqs(10).await, (1..=10).collect::<Vec<_>>());
            }
            let mut stream = server.stream_after(&format!("{route}?log=another"), 7).await;
            assert_eq!(stream.control("evertail.reset").await.0["cursor"], 7);
        }
        server.trim(8).await;
        let mut stream = server.stream("/api/v1/a?log=another&after=3").await;
        stream.control("evertail.reset").await;
        assert_eq!(stream.cursor().await, 8);
        assert_eq!(stream.seqs(2).await, [9, 10]);
        assert_live(&server, &mut stream).await;
    }
}

#[tokio::test]
async fn cursor_of_this_log_is_taken_as_it_is() {
    let server = log_of_ten(1 << 20).await;
    for route in ROUTES {
        let url = format!("{route}?log={}", server.log.id());
        let mut stream = server.stream_after(&url, 8).await;
        assert_eq!(stream.cursor().await, 8);
        assert_eq!(stream.seqs(2).await, [9, 10]);
        let mut stream = server.stream(&url).await;
        assert_eq!(stream.cursor().await, 10);
    }
}

#[tokio::test]
async fn cursor_that_is_no_seq_is_refused_by_its_name() {
    let server = log_of_ten(1 << 20).await;
    let too_large = ["9223372036854775808", "18446744073709551616", "99999999999999999999999999"];
    let malformed = ["x", "-1", "1.5", "1e3", "0x1", "+1", "1,2", "1 2", "NaN", "null", "\u{661}"];
    for accept in ["text/event-stream", JSON, LINES] {
        for bad in malformed.iter().chain(&too_large) {
            for route in ROUTES {
                let request = server.get(route).header("accept", accept).header("last-event-id", *bad);
                let problem = Reply::of(request).await.problem(400, "cursor_invalid");
                assert_eq!(problem["parameter"], "Last-Event-ID", "{bad}");
            }
            for name in ["last_event_id", "lastEventID", "lastEventId", "after"] {
                let value: String = form_urlencoded::byte_serialize(bad.as_bytes()).collect();
                let request = server.get(&format!("/api/v1/a?{name}={value}")).header("accept", accept);
                let problem = Reply::of(request).await.problem(400, "cursor_invalid");
                assert_eq!(problem["parameter"], name, "{bad}");
            }
        }
    }
    for name in ["last_event_id", "lastEventID", "lastEventId", "after"] {
        let reply = Reply::of(server.get(&format!("/api/v1/a?{name}="))).await;
        assert_eq!(reply.problem(400, "cursor_invalid")["parameter"], name);
    }
}

#[tokio::test]
async fn empty_last_event_id_header_is_no_cursor() {
    let server = log_of_ten(1 << 20).await;
    assert_eq!(server.stream_after("/api/v1/a", "").await.cursor().await, 10);
    assert_eq!(server.stream_after("/api/v1/a?after=7", "").await.cursor().await, 7);
}

#[tokio::test]
async fn cursor_in_the_query_has_every_spelling_that_clients_use() {
    let server = log_of_ten(1 << 20).await;
    for route in ROUTES {
        for name in ["last_event_id", "lastEventID", "lastEventId", "after"] {
            let mut stream = server.stream(&format!("{route}?{name}=8")).await;
            assert_eq!(stream.cursor().await, 8, "{name}");
            assert_eq!(stream.seqs(2).await, [9, 10]);
        }
    }
}

#[tokio::test]
async fn header_comes_before_the_query_and_last_event_id_before_the_other_parameters() {
    let server = log_of_ten(1 << 20).await;
    let starts = ["after=2", "last=1", "since=1h"];
    for name in ["last_event_id", "lastEventID", "lastEventId"] {
        for start in starts {
            for query in [format!("{name}=5&{start}"), format!("{start}&{name}=5")] {
                let mut stream = server.stream(&format!("/api/v1/a?{query}")).await;
                assert_eq!(stream.cursor().await, 5, "{query}");
                let mut stream = server.stream_after(&format!("/api/v1/a?{query}"), 8).await;
                assert_eq!(stream.cursor().await, 8, "{query}");
            }
        }
    }
    for start in starts {
        let mut stream = server.stream_after(&format!("/api/v1/a?{start}"), 8).await;
        assert_eq!(stream.cursor().await, 8, "{start}");
        assert_eq!(stream.seqs(2).await, [9, 10]);
    }
    // Zero is a cursor like any other.
    assert_eq!(server.stream_after("/api/v1/a?after=5", 0).await.cursor().await, 0);
    // The same on the other representations.
    for accept in [JSON, LINES] {
        let request = server.get("/api/v1/a?after=2&last_event_id=5").header("accept", accept);
        let reply = Reply::of(request.header("last-event-id", "8")).await;
        let text = reply.text();
        assert!(
            text.contains("\"seq\":9,") && text.contains("\"seq\":10,") && !text.contains("\"seq\":8,"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn two_cursors_of_one_rank_are_refused() {
    let server = log_of_ten(1 << 20).await;
    for query in [
        "after=1&after=1",
        "after=1&since=1h",
        "since=1h&last=1",
        "last=1&after=1",
        "last_event_id=1&lastEventId=1",
        "lastEventID=1&lastEventID=2",
        "log=a&log=b",
    ] {
        let problem =
            Reply::of(server.get(&format!("/api/v1/a?{query}"))).await.problem(400, "parameter_invalid");
        let name = problem["parameter"].as_str().unwrap();
        assert!(query.contains(&format!("&{name}=")), "{query}: {name}");
    }
}

#[tokio::test]
async fn since_begins_at_the_first_event_received_at_that_time_or_later() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        let table = server.table().await;
        for row in &table {
            let wanted: Vec<u64> = table
                .iter()
                .filter(|other| other.created_at >= row.created_at)
                .map(|other| other.seq)
                .collect();
            let mut stream = server.stream(&format!("/api/v1/a?since={}", row.created_at)).await;
            assert_eq!(stream.cursor().await, wanted[0] - 1);
            assert_eq!(stream.seqs(wanted.len()).await, wanted);
        }
        // Another zone, and less precision.
        for all in
            ["1h", "7d", "10m", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00%2B02:00", "1970-01-01T00:00:00Z"]
        {
            let mut stream = server.stream(&format!("/api/v1/a?since={all}")).await;
            assert_eq!(stream.cursor().await, 0, "{all}");
            assert_eq!(stream.seqs(10).await, (1..=10).collect::<Vec<_>>());
        }
        for none in ["2999-01-01T00:00:00Z", "0s"] {
            let mut stream = server.stream(&format!("/api/v1/a?since={none}")).await;
            assert_eq!(stream.cursor().await, 10, "{none}");
        }
        for bad in ["", "yesterday", "10", "-5m", "2020-01-01", "2020-13-01T00:00:00Z"] {
            let reply = Reply::of(server.get(&format!("/api/v1/a?since={bad}"))).await;
            assert_eq!(reply.problem(400, "parameter_invalid")["parameter"], "since", "{bad}");
        }
        server.trim(4).await;
        let mut stream = server.stream("/api/v1/a?since=1h").await;
        assert_eq!(stream.cursor().await, 4, "a time is no promise of what there was: no gap");
        assert_eq!(stream.seqs(6).await, (5..=10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn last_begins_so_many_wanted_events_before_the_end() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for (query, expected) in [
            ("last=1", vec![10]),
            ("last=3", vec![8, 9, 10]),
            ("last=10", (1..=10).collect()),
            ("last=11", (1..=10).collect()),
            ("last=2&type=odd", vec![7, 9]),
            ("last=100&type=even", vec![2, 4, 6, 8, 10]),
        ] {
            for route in ROUTES {
                let mut stream = server.stream(&format!("{route}?{query}")).await;
                assert!(stream.cursor().await < expected[0]);
                assert_eq!(stream.seqs(expected.len()).await, expected, "{query}");
            }
        }
        for bad in ["0", "-1", "x", ""] {
            let reply = Reply::of(server.get(&format!("/api/v1/a?last={bad}"))).await;
            assert_eq!(reply.problem(400, "parameter_invalid")["parameter"], "last", "{bad}");
        }
        server.trim(8).await;
        let mut stream = server.stream("/api/v1/a?last=5").await;
        assert_eq!(stream.cursor().await, 8);
        assert_eq!(stream.seqs(2).await, [9, 10]);
    }
}

#[tokio::test]
async fn last_with_a_filter_finds_its_events_however_far_back_they_are() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        for (query, expected) in [
            ("last=1&data=3", vec![4]),
            ("last=2&data%3C=4", vec![4, 5]),
            ("last=5&data%3C=1", vec![1, 2]),
            ("last=5&data=none", vec![]),
        ] {
            for route in ROUTES {
                let last_seq = server.log.bounds().last_seq;
                let mut stream = server.stream(&format!("{route}?{query}")).await;
                stream.keep_alive().await;
                let (data, id) = stream.control("evertail.cursor").await;
                assert_eq!(data, json!({"first_seq": 1, "last_seq": last_seq, "log": server.log.id()}));
                assert!(id.parse::<u64>().unwrap() < expected.first().copied().unwrap_or(1), "{query}: {id}");
                assert_eq!(stream.seqs(expected.len()).await, expected, "{query}");
            }
        }
        // What comes after the search belongs to the same stream.
        let mut stream = server.stream("/api/v1/a?last=1&data=3").await;
        stream.cursor().await;
        server.append("a", r#"{"data":0}"#).await;
        let next = server.append("a", r#"{"data":3}"#).await[0].seq;
        assert_eq!(stream.seqs(2).await, [4, next]);
        // Another log is read from its beginning, without a search.
        let mut stream = server.stream("/api/v1/a?last=1&data=3&log=other").await;
        assert_eq!(stream.control("evertail.reset").await.0["reason"], "replaced");
        assert_eq!((stream.cursor().await, stream.seqs(2).await), (0, vec![4, next]));
    }
}

#[tokio::test]
async fn search_for_the_newest_that_pass_a_filter_keeps_no_answer_waiting() {
    // Nobody may read the table: the search never ends.
    let server = Server::start_with(|settings| {
        settings.log.window_bytes_max = 0;
        settings.log.catch_up_pages_max = 0;
        settings.http.keep_alive = Duration::from_millis(50);
    })
    .await;
    server.append("a", r#"{"data":1}"#).await;
    let mut stream = server.stream("/api/v1/a?last=1&data=1").await;
    for _ in 0..3 {
        stream.keep_alive().await;
    }
    server.close(Closing::Drain);
    assert_eq!(stream.control("evertail.notice").await, (json!({"reason": "drain"}), String::new()));
    assert_eq!(stream.rest().await, []);
    assert!(stream.blocks()[0].retry.is_some(), "it says when to come back");
}

#[tokio::test]
async fn search_that_ends_at_an_end_hands_out_the_cursor_that_is_answered_204() {
    let server = log_of_ten(1 << 20).await;
    server.request("POST", "/api/v1/a/close").send().await.unwrap().error_for_status().unwrap();
    for query in ["last=1&data=3", "last=1&data=none"] {
        let mut stream = server.stream(&format!("/api/v1/a?{query}")).await;
        let ids: Vec<String> = stream.rest().await.into_iter().map(|event| event.last_event_id).collect();
        assert_eq!(ids.last().map(String::as_str), Some("11"), "{query}: {ids:?}");
        let again = Reply::of(server.get(&format!("/api/v1/a?{query}")).header("last-event-id", "11")).await;
        assert_eq!(again.status, 204);
    }
}

#[tokio::test]
async fn history_answers_a_cursor_that_does_not_hold_with_410() {
    for window in WINDOWS {
        let server = log_of_ten(window).await;
        server.trim(4).await;
        for accept in [JSON, LINES] {
            for route in ROUTES {
                let get = |query: &str| server.get(&format!("{route}?{query}")).header("accept", accept);
                let problem = Reply::of(get("after=2")).await.problem(410, "gone");
                assert_eq!(problem["first_seq"], 5);
                let problem = Reply::of(get("").header("last-event-id", "3")).await.problem(410, "gone");
                assert_eq!(problem["first_seq"], 5);
                let problem = Reply::of(get("after=12")).await.problem(410, "cursor_ahead");
                assert_eq!(problem["last_seq"], 11);
                for query in ["log=another", "log=another&after=6"] {
                    let problem = Reply::of(get(query)).await.problem(410, "log_replaced");
                    assert_eq!(problem["log"], server.log.id());
                }
                // These hold.
                for query in ["", "after=0", "after=4", "after=10", "last=9", "since=1h"] {
                    assert_eq!(Reply::of(get(query)).await.status, 200, "{query}");
                }
                assert_eq!(Reply::of(get(&format!("log={}", server.log.id()))).await.status, 200);
            }
        }
        server.trim(11).await;
        for accept in [JSON, LINES] {
            let get = |query: &str| server.get(&format!("/api/v1/a?{query}")).header("accept", accept);
            assert_eq!(Reply::of(get("after=9")).await.problem(410, "gone")["first_seq"], 12);
            assert_eq!(Reply::of(get("after=11")).await.status, 200);
            assert_eq!(Reply::of(get("after=0")).await.status, 200);
        }
    }
}

#[tokio::test]
async fn cursor_of_a_filtered_reader_moves_past_what_it_does_not_want() {
    for window in WINDOWS {
        let server = Server::start_with(|settings| {
            settings.log.window_bytes_max = window;
            settings.http.keep_alive = Duration::from_millis(50);
        })
        .await;
        for url in ["/api/v1/events?type=wanted", "/api/v1/events?stream=b", "/api/v1/b"] {
            let begin = server.log.bounds().last_seq;
            let mut stream = server.stream(url).await;
            assert_eq!(stream.cursor().await, begin);
            server.append_types("a", ["x", "y", "z"]).await;
            let mut cursor = begin;
            while cursor < begin + 3 {
                match stream.item().await.unwrap() {
                    evertail::sse::Item::Comment => {}
                    evertail::sse::Item::Event(event) => {
                        assert_eq!(event.event, "evertail.cursor");
                        cursor = event.last_event_id.parse().unwrap();
                        assert!(cursor > begin && cursor <= begin + 3);
                    }
                    item => panic!("{item:?}"),
                }
            }
            // Who comes back with it is where it was: nothing to look at again, nothing missed.
            let mut again = server.stream_after(url, cursor).await;
            assert_eq!(again.cursor().await, cursor);
            server.append("b", r#"{"type":"wanted"}"#).await;
            assert_eq!(again.event().await.last_event_id, (cursor + 1).to_string());
            assert_eq!(stream.event().await.last_event_id, (cursor + 1).to_string());
        }
    }
}

#[tokio::test]
async fn keep_alive_is_a_comment_line_without_a_blank_line() {
    let server = Server::start_with(|settings| settings.http.keep_alive = Duration::from_millis(20)).await;
    server.append("a", "{}").await;
    for url in ["/api/v1/a", "/api/v1/b", "/api/v1/events?type=none"] {
        let mut stream = server.stream(url).await;
        stream.cursor().await;
        let first_frame = stream.bytes.len();
        for _ in 0..4 {
            stream.keep_alive().await;
        }
        let silence = &stream.bytes[first_frame..];
        assert_eq!(silence, b":\n".repeat(silence.len() / 2));
        // A block after them is a block like any other.
        server.append("b", r#"{"type":"none"}"#).await;
    }
}

#[tokio::test]
async fn cursors_never_run_ahead_of_what_was_given() {
    for window in [0, 2 << 10, 1 << 20] {
        let server = Server::start_with(|settings| {
            settings.log.window_bytes_max = window;
            settings.http.keep_alive = Duration::from_millis(1);
        })
        .await;
        let mut stream = server.stream("/api/v1/events?type=wanted.*&after=0").await;
        // Long runs of what is not wanted, then one that is.
        let types = (1..=150).map(|n| if n % 25 == 0 { "wanted.yes" } else { "other" });
        let appending = async {
            server.append_types("a", types).await;
        };
        let reading = async {
            let mut ids: Vec<(String, u64)> = Vec::new();
            while ids.last().is_none_or(|(_, id)| *id < 150) {
                let event = stream.event().await;
                ids.push((event.event, event.last_event_id.parse().unwrap()));
            }
            ids
        };
        let ((), ids) = tokio::join!(appending, reading);
        let mut given = BTreeSet::new();
        let mut last = 0;
        for (event, id) in ids {
            assert!(id > last || (event == "evertail.cursor" && id == last), "ids step back: {last}, {id}");
            last = id;
            if event == "wanted.yes" {
                given.insert(id);
            }
            let wanted: BTreeSet<u64> = (25..=id).step_by(25).collect();
            assert_eq!(given, wanted, "a client that resumes after {id} would miss some");
        }
    }
}

#[tokio::test]
async fn retry_is_drawn_from_its_bounds_for_each_stream() {
    let bounds = (Duration::from_millis(1500), Duration::from_millis(9500));
    let server = Server::start_with(|settings| settings.http.retry = bounds).await;
    let mut hints = BTreeSet::new();
    for _ in 0..20 {
        let mut stream = server.stream("/api/v1/a").await;
        stream.cursor().await;
        let hint = stream.blocks()[0].retry.unwrap();
        assert!((1500..=9500).contains(&hint), "{hint}");
        hints.insert(hint);
    }
    assert!(hints.len() > 1, "a herd would come back as one");
    let fixed = Duration::from_millis(7);
    let server = Server::start_with(|settings| settings.http.retry = (fixed, fixed)).await;
    let mut stream = server.stream("/api/v1/a").await;
    stream.cursor().await;
    assert_eq!(stream.blocks()[0].retry, Some(7));
}

#[tokio::test]
async fn tail_reads_every_event_once_across_restarts() {
    let mut server = Server::start_with(|settings| {
        settings.http.retry = (Duration::from_millis(1), Duration::from_millis(20));
        settings.http.page_bytes_max = 1 << 10;
    })
    .await;
    let mut tail = server.client().tail(Some("a"), "after=0");
    let mut seen: Vec<u64> = Vec::new();
    for round in 1..=4 {
        server.append_types("a", ["x"; 25]).await;
        server.append_types("b", ["y"; 5]).await;
        // Stop in the middle of what it has to read.
        let target = round * 25 - 10;
        while seen.len() < target {
            if let TailItem::Event(event) = tail.next().await.unwrap()
                && event.event == "x"
            {
                seen.push(event.last_event_id.parse().unwrap());
            }
        }
        server = server.restart().await;
    }
    while seen.len() < 100 {
        if let TailItem::Event(event) = tail.next().await.unwrap()
            && event.event == "x"
        {
            seen.push(event.last_event_id.parse().unwrap());
        }
    }
    let table = server.table().await;
    let expected: Vec<u64> = table.iter().filter(|row| row.stream == "a").map(|row| row.seq).collect();
    assert_eq!(seen, expected);
}
