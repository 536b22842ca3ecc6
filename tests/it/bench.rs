//! `evertail bench`, small, against the server; and against one that is wrong, which it must find out.

use crate::server::{Server, within};
use evertail::bench::append::AppendRun;
use evertail::bench::mixed::MixedRun;
use evertail::bench::process::Watched;
use evertail::bench::replay::{Form, ReplayRun};
use evertail::bench::report::Report;
use evertail::bench::request::Shape;
use evertail::bench::tail::TailRun;
use evertail::bench::target::Target;
use evertail::bench::{BenchError, append, herd, mixed, replay, tail};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

fn target(server: &Server, path: &str) -> Target {
    Target::parse(&server.url(path)).unwrap()
}

fn figure(report: &Report, name: &str) -> f64 {
    report.figure(name).unwrap_or_else(|| panic!("no {name} in {}", report.json()))
}

fn tail_run(append: Target, tail: Target) -> TailRun {
    TailRun {
        append,
        tail,
        shape: Shape::default(),
        readers: 3,
        connections: 1,
        rate: Some(500.0),
        seconds: 0.1,
        settle_seconds: 0.0,
        grace_seconds: 0.3,
        ahead: 10,
        allows_loss: false,
        server: Watched::this(),
    }
}

#[tokio::test]
async fn append_counts_every_ack_and_tells_latencies() {
    let server = Server::start().await;
    for shape in [
        Shape::default(),
        Shape { has_ids: true, ..Shape::default() },
        Shape { batch: 10, has_ids: true, ..Shape::default() },
        Shape { batch: 10, is_array: true, ..Shape::default() },
    ] {
        let before = server.log.bounds().last_seq;
        let run = AppendRun {
            target: target(&server, "/api/v1/bench"),
            shape,
            connections: 2,
            rate: Some(400.0),
            seconds: 0.2,
            warmup_seconds: 0.05,
            server: Watched::this(),
        };
        let report = within("the run", append::run(&run)).await.unwrap();
        assert!(report.failures.is_empty(), "{}", report.json());
        assert!(server.log.bounds().last_seq - before >= 80, "{}", report.json());
        assert!(figure(&report, "ack_p50_us") <= figure(&report, "ack_p99_us"));
    }
}

#[tokio::test]
async fn a_refusal_that_will_not_pass_ends_the_run_and_says_why() {
    let server = Server::start().await;
    let run = AppendRun {
        target: target(&server, "/api/v1/bench"),
        shape: Shape { is_bare: true, ..Shape::default() },
        connections: 1,
        rate: None,
        seconds: 5.0,
        warmup_seconds: 0.0,
        server: Watched::default(),
    };
    let error = within("the run", append::run(&run)).await.unwrap_err();
    let BenchError::Refused { status: 422, body } = error else { panic!("{error}") };
    assert!(body.contains("event_invalid"), "{body}");
}

#[tokio::test]
async fn tail_verifies_each_event_at_a_rate_and_as_fast_as_it_goes() {
    let server = Server::start().await;
    let at = target(&server, "/api/v1/bench");
    let at_rate = tail_run(at.clone(), at.clone());
    let saturating = TailRun {
        rate: None,
        connections: 3,
        shape: Shape { batch: 10, ..Shape::default() },
        ..at_rate.clone()
    };
    for run in [at_rate, saturating] {
        let report = within("the run", tail::run(&run)).await.unwrap();
        assert!(report.failures.is_empty(), "{}", report.json());
        let appended = figure(&report, "appended");
        assert!(appended >= 40.0, "{}", report.json());
        assert_eq!(figure(&report, "delivered"), appended * 3.0);
        assert!(figure(&report, "end_to_end_max_us") > 0.0);
    }
}

#[tokio::test]
async fn a_herd_that_comes_back_is_given_everything_after_its_cursors() {
    let server = Server::start().await;
    let at = target(&server, "/api/v1/bench");
    let run = TailRun { readers: 5, rate: Some(100.0), grace_seconds: 5.0, ..tail_run(at.clone(), at) };
    let report = within("the run", herd::run(&run)).await.unwrap();
    assert!(report.failures.is_empty(), "{}", report.json());
    assert!(figure(&report, "all_live_after_seconds") > 0.0);
    let without_rate = TailRun { rate: None, ..run };
    assert!(matches!(herd::run(&without_rate).await, Err(BenchError::Options(_))));
}

#[tokio::test]
async fn replay_reads_everything_in_each_form_and_only_what_is_selected() {
    let server = Server::start().await;
    let fill = Shape { batch: 10, rare_every: Some(10), ..Shape::default() };
    for (form, path, is_part, expected) in [
        (Form::Sse, "/api/v1/events?after=0", false, 100.0),
        (Form::Lines, "/api/v1/events?after=0", false, 100.0),
        (Form::Sse, "/api/v1/events?after=0&stream=rare", true, 10.0),
        (Form::Lines, "/api/v1/events?after=0&stream=bench&limit=7", true, 7.0),
    ] {
        let run = ReplayRun {
            append: target(&server, "/api/v1/events"),
            read: target(&server, path),
            form,
            is_part,
            shape: fill.clone(),
            connections: 1,
            readers: 2,
            events: 100,
            server: Watched::this(),
        };
        let report = within("the run", replay::run(&run)).await.unwrap();
        assert!(report.failures.is_empty(), "{}", report.json());
        assert_eq!(figure(&report, "events"), expected * 2.0, "{path}");
    }
}

#[tokio::test]
async fn mixed_runs_appends_live_readers_and_history_beside_each_other() {
    let server = Server::start().await;
    let run = MixedRun {
        target: target(&server, "/api/v1/bench"),
        shape: Shape::default(),
        connections: 2,
        rate: 200.0,
        seconds: 0.3,
        readers: 3,
        catch_up: 2,
        grace_seconds: 5.0,
        file: Some(server.file().to_owned()),
        server: Watched::this(),
    };
    let report = within("the run", mixed::run(&run)).await.unwrap();
    assert!(report.failures.is_empty(), "{}", report.json());
    assert!(figure(&report, "catch_up_events_per_second") > 0.0, "{}", report.json());
    assert!(figure(&report, "wal_max_mib") > 0.0);
}

/// What a wrong server does with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Skip,
    Repeat,
    Late,
}

/// A server of event streams that does something wrong with its eleventh event.
async fn wrong_server(fault: Fault) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let readers = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, Arc::clone(&readers), fault));
        }
    });
    target
}

async fn serve(socket: TcpStream, readers: Arc<Mutex<Vec<TcpStream>>>, fault: Fault) -> Option<()> {
    let mut socket = BufReader::new(socket);
    let mut held = None;
    for place in 0.. {
        let (mut line, mut length, mut is_get) = (String::new(), 0, false);
        while line != "\r\n" {
            line.clear();
            socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            is_get |= line.starts_with("GET");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        if is_get {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
            socket.write_all(head.as_bytes()).await.ok()?;
            readers.lock().await.push(socket.into_inner());
            return Some(());
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.ok()?;
        let frame = [b"data: ", body.as_slice(), b"\n\n"].concat();
        let frames = match fault {
            Fault::Skip if place == 10 => vec![],
            Fault::Repeat if place == 10 => vec![frame.clone(), frame],
            Fault::Late if place == 10 => {
                held = Some(frame);
                vec![]
            }
            _ => [frame].into_iter().chain(held.take()).collect(),
        };
        for reader in readers.lock().await.iter_mut() {
            // Those of an earlier run are gone.
            let _ = reader.write_all(&frames.concat()).await;
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
    Some(())
}

#[tokio::test]
async fn what_a_server_loses_repeats_or_reorders_is_found() {
    for (fault, found) in [
        (Fault::None, [0.0, 0.0, 0.0]),
        (Fault::Skip, [3.0, 0.0, 0.0]),
        (Fault::Repeat, [0.0, 3.0, 0.0]),
        (Fault::Late, [0.0, 0.0, 3.0]),
    ] {
        let target = wrong_server(fault).await;
        for allows_loss in [false, true] {
            let shape = Shape { is_bare: true, ..Shape::default() };
            let run = TailRun { shape, allows_loss, ..tail_run(target.clone(), target.clone()) };
            let report = within("the run", tail::run(&run)).await.unwrap();
            let counts = ["missing", "repeated", "out_of_order"].map(|name| figure(&report, name));
            assert_eq!(counts, found, "{fault:?}: {}", report.json());
            assert_eq!(report.failures.is_empty(), fault == Fault::None || allows_loss, "{fault:?}");
        }
    }
}

#[test]
fn help_says_what_can_be_run() {
    let mut command = evertail::cli::command().term_width(110);
    command.build();
    let bench = command.find_subcommand_mut("bench").unwrap();
    let mut shown = bench.render_long_help().to_string();
    for name in ["append", "tail", "replay", "mixed"] {
        let run = bench.find_subcommand_mut(name).unwrap();
        shown.push_str(&format!("\n---- {name}\n{}", run.render_help()));
    }
    insta::assert_snapshot!(shown);
}
