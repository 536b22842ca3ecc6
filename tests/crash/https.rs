//! https from the command line: the server with its files, and the client commands with their authority.

use crate::cli::{json, run};
use crate::server::{Launch, Place};
use crate::table::rows;
use rcgen::CertifiedKey;
use std::fs;

/// A launch with a certificate that signed itself, in the place's folder.
fn launch(place: &Place) -> (Launch, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let path = |name| place.folder().join(name).display().to_string();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    fs::write(&certificate, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    let launch = Launch::new(&place.file())
        .with("EVERTAIL_TLS_CERTIFICATE", &certificate)
        .with("EVERTAIL_TLS_KEY", key);
    (launch, certificate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_command_speaks_https() {
    let place = Place::new();
    let (launch, authority) = launch(&place);
    let server = launch.start().await;
    assert!(server.base.starts_with("https://"), "{}", server.base);
    let ask = async |arguments: &[&str]| {
        let trusting = [arguments, &["--ca-file", &authority]].concat();
        json(&run(&place, &server.base, &trusting, "").await)
    };
    assert_eq!(ask(&["append", "audits", "1"]).await[0]["seq"], 1);
    assert_eq!(ask(&["tail", "audits", "--after", "0", "--limit", "1"]).await[0]["data"], 1);
    let file = place.folder().join("out.ndjson").display().to_string();
    ask(&["export", "--output", &file]).await;
    ask(&["import", &file]).await;
    assert_eq!(rows(&place.file(), 0).await.len(), 2);
    assert_eq!(ask(&["trim", "--before", "2", "--dry-run"]).await[0]["events"], 1);
    assert_eq!(ask(&["hold", "list"]).await[0]["holds"].as_array().map(Vec::len), Some(0));
    // Without its authority no command takes it for the server, and each says so.
    let trim = ["trim", "--before", "2"];
    let hold = ["hold", "add", "audits", "--name", "case", "--reason", "why"];
    for arguments in [
        &["append", "audits", "1"][..],
        &["tail"],
        &["export"],
        &["import", &file],
        &trim,
        &hold,
        &["hold", "list"],
    ] {
        let refused = run(&place, &server.base, arguments, "").await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("certificate") && said.contains("--ca-file"), "{said}");
    }
    assert_eq!(rows(&place.file(), 0).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_served_end_the_start() {
    let place = Place::new();
    let (launch, certificate) = launch(&place);
    for (launch, code, parts) in [
        (
            launch.clone().with("EVERTAIL_TLS_KEY", ""),
            2,
            ["EVERTAIL_TLS_KEY", "since EVERTAIL_TLS_CERTIFICATE has one"],
        ),
        (
            launch.clone().with("EVERTAIL_TLS_KEY", "/no/such/file"),
            1,
            ["/no/such/file cannot be read", "EVERTAIL_TLS_KEY"],
        ),
        (launch.with("EVERTAIL_TLS_KEY", &certificate), 1, ["holds no private key", "EVERTAIL_TLS_KEY"]),
    ] {
        let mut server = launch.spawn();
        assert_eq!(server.ended().await.code(), Some(code));
        let complaint = server.complaint().await;
        assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint}");
    }
    assert!(!place.file().exists(), "nothing was made");
}
