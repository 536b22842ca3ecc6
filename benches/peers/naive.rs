//! What one would write first: an insert and a commit for each POST, as durable as Evertail.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// Serves until the process ends.
pub(crate) async fn serve(address: &str, file: &str) {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    // One connection, as one can write: more would wait for each other's locks.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let table = "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, stream TEXT, data TEXT)";
    sqlx::query(table).execute(&pool).await.unwrap();
    let router = Router::new().route("/{stream}", post(append)).with_state(pool);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let builder = hyper::server::conn::http1::Builder::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let connection = builder.clone();
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(socket);
            let _ = connection.serve_connection(io, service).await;
        });
    }
}

async fn append(State(pool): State<SqlitePool>, body: String) -> (StatusCode, String) {
    let insert = sqlx::query("INSERT INTO events (stream, data) VALUES ('bench', ?)").bind(body);
    match insert.execute(&pool).await {
        Ok(done) => (StatusCode::CREATED, format!("{{\"seq\":{}}}", done.last_insert_rowid())),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
