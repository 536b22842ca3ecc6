//! What a run has found: figures by name, whose unit is the end of the name, and what was wrong.

use serde_json::{Map, Value};

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    figures: Vec<(String, Value)>,
    /// What did not hold; empty when the run is good.
    pub failures: Vec<String>,
}

impl Report {
    /// A report of this run.
    pub fn new(run: &str) -> Self {
        let mut report = Self::default();
        report.set("run", run);
        report
    }

    /// Adds a figure.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.push((name.to_owned(), value.into()));
    }

    /// Adds a measured figure, to three decimals; nothing when it could not be measured.
    pub fn set_measured(&mut self, name: &str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into().filter(|value| value.is_finite()) {
            self.set(name, (value * 1e3).round() / 1e3);
        }
    }

    /// Adds percentiles.
    pub fn set_latencies(&mut self, prefix: &str, latencies: &super::figures::Latencies) {
        if latencies.count() > 0 {
            for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)] {
                self.set_measured(&format!("{prefix}_{name}_us"), latencies.quantile_us(share));
            }
            self.set_measured(&format!("{prefix}_max_us"), latencies.max_us());
        }
    }

    /// A figure by its name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| known == name)?.1.as_f64()
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let mut members: Map<String, Value> = self.figures.iter().cloned().collect();
        members.insert("failures".into(), self.failures.clone().into());
        Value::from(members).to_string()
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let width = self.figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => grouped(&number.to_string()),
            other => other.to_string(),
        };
        let figures = self.figures.iter();
        let lines: Vec<String> = figures
            .map(|(name, value)| format!("{:<width$}  {:>14}", name.replace('_', " "), text(value)))
            .collect();
        lines.join("\n")
    }
}

/// Digits in groups of three.
fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 && digit.is_ascii_digit() && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_alike_for_people_and_programs() {
        let mut report = Report::new("append");
        report.set_measured("acks_per_second", 81234.56789);
        report.set_measured("server_cpu_us", None);
        assert_eq!(report.json(), r#"{"acks_per_second":81234.568,"failures":[],"run":"append"}"#);
        assert_eq!(report.table(), "run                      append\nacks per second      81,234.568");
        assert_eq!((grouped("999").as_str(), grouped("-1000.5").as_str()), ("999", "-1,000.5"));
    }
}
