//! What `check`, `doctor`, `backup` and `restore` say of a log file: lines for people, one JSON object for scripts.

use super::{Exit, Failure, output};
use crate::store::{Finding, InspectError, Inspection, LogSummary, Outcome};
use clap::Arg;
use serde::Serialize;
use std::path::Path;

/// A report as it is printed for scripts.
#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    file: String,
    #[serde(flatten)]
    log: LogJson<'a>,
    /// Whether a server has the file.
    server: bool,
    /// The worst of the findings.
    outcome: &'static str,
    findings: Vec<FindingJson<'a>>,
}

#[derive(Debug, Serialize)]
struct FindingJson<'a> {
    check: &'static str,
    outcome: &'static str,
    found: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_step: Option<&'a str>,
}

/// What a log file holds.
#[derive(Debug, Serialize)]
pub(super) struct LogJson<'a> {
    log: &'a str,
    format: i64,
    first_seq: u64,
    last_seq: u64,
    events: u64,
    streams: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_created_at: Option<&'a str>,
}

impl<'a> LogJson<'a> {
    pub(super) fn of(log: &'a LogSummary) -> Self {
        let LogSummary { log_id, format, first_seq, last_seq, events, streams, bytes, last_created_at } = log;
        Self {
            log: log_id,
            format: *format,
            first_seq: *first_seq,
            last_seq: *last_seq,
            events: *events,
            streams: *streams,
            bytes: *bytes,
            last_created_at: last_created_at.as_deref(),
        }
    }
}

/// Whether scripts read what is printed.
pub(super) fn json() -> Arg {
    super::trim::json().help("Print one JSON object [default where stdout is no terminal]")
}

/// Prints what was found; the exit code is that of the worst.
pub(super) fn report(
    file: &Path,
    inspection: &Inspection,
    log: &LogSummary,
    findings: &[Finding],
    is_raw: bool,
) -> Result<Exit, Failure> {
    let worst = findings.iter().map(|finding| finding.outcome).max().unwrap_or(Outcome::Ok);
    if is_raw {
        let report = ReportJson {
            file: file.display().to_string(),
            log: LogJson::of(log),
            server: inspection.server().is_some(),
            outcome: worst.as_str(),
            findings: findings.iter().map(FindingJson::of).collect(),
        };
        output::line(&serde_json::to_string(&report).expect("a report always serialises"))?;
    } else {
        let server = inspection.server().map_or(String::new(), |holder| format!("; a server has it{holder}"));
        output::line(&output::printable(&format!("{}: {}{server}", file.display(), in_words(log))))?;
        findings.iter().flat_map(lines).try_for_each(|line| output::line(&line))?;
    }
    Ok(if worst == Outcome::Problem { Exit::Failed } else { Exit::Ok })
}

impl<'a> FindingJson<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self {
            check: finding.check.as_str(),
            outcome: finding.outcome.as_str(),
            found: &finding.found,
            next_step: finding.next_step.as_deref(),
        }
    }
}

/// What a log holds, for people.
pub(super) fn in_words(log: &LogSummary) -> String {
    let LogSummary { log_id, first_seq, last_seq, events, streams, bytes, .. } = log;
    let seqs =
        if last_seq < first_seq { "no seqs".to_owned() } else { format!("seqs {first_seq} to {last_seq}") };
    let counted = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (events, streams) = (counted(*events, "event"), counted(*streams, "stream"));
    format!("log {log_id}, {seqs}, {events} of {streams}, {} of data", output::bytes(*bytes))
}

fn lines(finding: &Finding) -> Vec<String> {
    let (outcome, check) = (finding.outcome.as_str(), finding.check.as_str());
    let mut lines = vec![output::printable(&format!("{outcome:<8} {check:<12} {}", finding.found))];
    let next = finding.next_step.iter().map(|step| output::printable(&format!("{:21} next: {step}", "")));
    lines.extend(next);
    lines
}

/// What went wrong. A file that is not there was not asked rightly.
pub(super) fn failed(error: InspectError) -> Failure {
    match error {
        InspectError::Missing { .. } => Failure::usage(error.to_string()),
        _ => Failure::from_error(&error, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Check;

    #[test]
    fn findings_are_lines_with_what_to_do_below() {
        let finding = Finding {
            check: Check::Wal,
            outcome: Outcome::Warning,
            found: "it is large\u{1b}".to_owned(),
            next_step: Some("end it".to_owned()),
        };
        let expected = ["warning  wal          it is large\u{FFFD}", "                      next: end it"];
        assert_eq!(lines(&finding), expected);
    }
}
