//! A client in a browser: a page with its recipe, and where that page posts what it is given.

use crate::kind::{Kind, folder};
use crate::program::Written;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::Html;
use axum::routing::{get, post};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The recipe finds `url` and `show` there. What is shown is posted one after the other, so that it arrives in order, and
/// past the proxy, so that it arrives.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>A reader</title>
<script type="importmap">
{ "imports": { "@microsoft/fetch-event-source": "/modules/@microsoft/fetch-event-source/lib/esm/index.js" } }
</script>
<script>
const url = 'URL'
let posted = Promise.resolve()
const show = (event) => {
  const post = () => fetch('SITE/shown', { method: 'POST', mode: 'no-cors', body: JSON.stringify(event) })
  posted = posted.then(post)
}
</script>
<script type="module">
RECIPE
</script>"#;

/// Serves the page while it is there.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Site {
    pub(crate) async fn start(kind: Kind, url: &str, told: watch::Sender<Written>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = PAGE.replace("SITE", &format!("http://{address}")).replace("URL", url);
        let page: Arc<str> = page.replace("RECIPE", &kind.source()).into();
        let router = Router::new()
            .route(
                "/",
                get(|State(page): State<Arc<str>>| async move {
                    ([(header::CONNECTION, "close")], Html(page.to_string()))
                }),
            )
            .route("/modules/{*path}", get(module))
            .route(
                "/shown",
                post(move |body: String| async move {
                    let shown = serde_json::from_str(&body).unwrap();
                    told.send_modify(|written| written.shown.push(shown));
                }),
            )
            .with_state(page);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, task }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A file of an npm package. Its modules name each other without `.js`, which a bundler adds.
async fn module(
    Path(path): Path<String>,
) -> Result<([(header::HeaderName, &'static str); 1], String), StatusCode> {
    let path = path.strip_suffix(".js").unwrap_or(&path);
    let file = folder().join("node/node_modules").join(format!("{path}.js"));
    let text = std::fs::read_to_string(file).map_err(|_| StatusCode::NOT_FOUND)?;
    Ok(([(header::CONTENT_TYPE, "text/javascript")], text))
}
