//! What operators ask: trims, holds, tokens and metrics. Bodies and answers are those of the routes.

use super::{Client, ClientError};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

impl Client {
    /// Has the server trim, or say what it would trim. A trim may take minutes.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: the server trims all the same.
    pub async fn trim(&self, body: Vec<u8>) -> Result<String, ClientError> {
        self.ask(Method::POST, "/admin/trim", Some(body)).await
    }

    /// All holds.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: safe.
    pub async fn holds(&self) -> Result<String, ClientError> {
        self.ask(Method::GET, "/admin/holds", None).await
    }

    /// Holds a stream, and returns the hold.
    ///
    /// *Errors*: the server refuses, or does not answer; repeating it is no error. *Cancel safety*: the server commits all
    /// the same.
    pub async fn hold(&self, stream: &str, name: &str, body: Vec<u8>) -> Result<String, ClientError> {
        self.ask(Method::PUT, &hold_path(stream, name), Some(body)).await
    }

    /// Releases a hold, and returns what it was.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: the server commits all the same.
    pub async fn release(&self, stream: &str, name: &str, body: Vec<u8>) -> Result<String, ClientError> {
        self.ask(Method::DELETE, &hold_path(stream, name), Some(body)).await
    }

    /// All tokens.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: safe.
    pub async fn tokens(&self) -> Result<String, ClientError> {
        self.ask(Method::GET, "/admin/tokens", None).await
    }

    /// Has the server make a token, and returns it: the one time that it is shown.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: the server makes it all the same.
    pub async fn create_token(&self, body: Vec<u8>) -> Result<String, ClientError> {
        self.ask(Method::POST, "/admin/tokens", Some(body)).await
    }

    /// Has the server revoke a token.
    ///
    /// *Errors*: the server refuses, or does not answer; repeating it is no error. *Cancel safety*: the server revokes it
    /// all the same.
    pub async fn revoke_token(&self, id: &str) -> Result<String, ClientError> {
        self.ask(Method::DELETE, &format!("/admin/tokens/{}", part(id)), None).await
    }

    /// Where the metrics are.
    pub fn metrics_url(&self) -> String {
        format!("{}/metrics", self.base)
    }

    /// The metrics, as text for Prometheus.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: safe.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.ask(Method::GET, "/metrics", None).await
    }
}

fn hold_path(stream: &str, name: &str) -> String {
    format!("/admin/holds/{}/{}", part(stream), part(name))
}

/// A text as one part of a path.
fn part(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
