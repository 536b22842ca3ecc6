//! Follows the stream at a URL with the crate eventsource-client, which resumes by itself.

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::json;
use std::{error::Error, time::Duration};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("which URL?")?;
    // Keep-alives come every 15 seconds: a connection that is silent for longer than that is dead.
    let transport = HyperTransport::builder().read_timeout(Duration::from_secs(60)).build_http()?;
    let reconnect = ReconnectOptions::reconnect(true).retry_initial(true).build();
    let client = ClientBuilder::for_url(&url)?.reconnect(reconnect).build_with_transport(transport);
    let mut events = client.stream();
    // An error is not the end: it has yet to reconnect.
    while let Some(item) = events.next().await {
        let Ok(SSE::Event(event)) = item else { continue };
        println!("{}", json!({ "type": event.event_type, "data": event.data }));
        if event.event_type == "evertail.closed" {
            break;
        }
    }
    Ok(())
}
