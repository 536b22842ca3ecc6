//! Follows the stream at a URL with the crate sse-stream, over reqwest.

use futures_util::StreamExt;
use serde_json::json;
use sse_stream::SseByteStream;
use std::{error::Error, time::Duration};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("which URL?")?;
    // Keep-alives come every 15 seconds: a connection that is silent for longer than that is dead.
    let http = reqwest::Client::builder().read_timeout(Duration::from_secs(60)).build()?;
    let mut last = None;
    let mut wait = Duration::from_secs(1);
    loop {
        eprintln!("connecting");
        let mut request = http.get(&url).header("accept", "text/event-stream");
        if let Some(last) = &last {
            request = request.header("last-event-id", last);
        }
        if let Ok(response) = request.send().await {
            let mut events = SseByteStream::new(response.error_for_status()?.bytes_stream());
            while let Some(Ok(event)) = events.next().await {
                let event_type = event.event.unwrap_or_else(|| "message".to_owned());
                println!("{}", json!({ "type": event_type, "data": event.data }));
                last = event.id.or(last);
                wait = event.retry.map_or(wait, Duration::from_millis);
                if event_type == "evertail.closed" {
                    return Ok(());
                }
            }
        }
        tokio::time::sleep(wait).await;
    }
}
