//! The text format of Prometheus, version 0.0.4, which every scraper takes: written by the server, and as far as it writes it,
//! read by `evertail top`.

use super::value::Metric;
use super::{Declaration, Kind};
use std::fmt::Write as _;

/// Metrics as text.
#[derive(Debug, Default)]
pub struct Text(String);

/// A number as it is shown.
pub(super) trait Write {
    fn write(&self, out: &mut String);
}

impl Write for u64 {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl Write for f64 {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl Text {
    /// The content type of it.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// One metric: what it is, then its samples. One without samples is left out.
    pub(super) fn metric(&mut self, declaration: &Declaration, metric: &impl Metric) {
        let Declaration { name, help, kind, .. } = declaration;
        let before = self.0.len();
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        let told = self.0.len();
        metric.write(declaration, self);
        if self.0.len() == told {
            self.0.truncate(before);
        }
    }

    /// One sample.
    pub(super) fn put(&mut self, name: &str, suffix: &str, label: Option<(&str, &str)>, value: &impl Write) {
        let out = &mut self.0;
        let _ = write!(out, "{name}{suffix}");
        if let Some((label, text)) = label {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(out, "{{{label}=\"{text}\"}}");
        }
        out.push(' ');
        value.write(out);
        out.push('\n');
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// What a metric had been when it was scraped.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'t> {
    /// Its name, `_bucket`, `_sum` and `_count` of a histogram included.
    pub name: &'t str,
    /// The value of its label, if it has one; no metric of ours has two.
    pub label: Option<&'t str>,
    /// What it was.
    pub value: f64,
}

/// The samples of a text that [`Text`] has written. What is none is passed over.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, label)) = series.split_once('{') else {
            return Some(Sample { name: series, label: None, value });
        };
        let (_, label) = label.split_once("=\"")?;
        Some(Sample { name, label: Some(label.strip_suffix("\"}")?), value })
    })
}

/// The kind of a metric of this type, for its declaration.
pub(super) const fn kind_of<M: Metric>() -> Kind {
    M::KIND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Counter, Sizes};

    #[test]
    fn what_is_written_is_read() {
        let counter = Counter::default();
        counter.add(1 << 60);
        let sizes = Sizes::default();
        sizes.observe(3);
        let mut text = Text::default();
        let declaration = |name, kind| Declaration { name, help: "A \\ and\na line.", kind, label: None };
        text.metric(&declaration("a_total", Kind::Counter), &counter);
        text.metric(&declaration("b", Kind::Histogram), &sizes);
        text.metric(&declaration("c", Kind::Gauge), &None::<u64>);
        text.put("d", "", Some(("label", "1.5")), &1e-3);
        let text = text.into_string();
        assert!(text.starts_with(
            "# HELP a_total A \\\\ and\\na line.\n# TYPE a_total counter\na_total 1152921504606846976\n"
        ));
        assert!(
            text.contains("b_bucket{le=\"2\"} 0\nb_bucket{le=\"4\"} 1\n") && !text.contains(" c "),
            "{text}"
        );
        let all: Vec<Sample<'_>> = samples(&text).collect();
        assert_eq!(all.len(), 1 + 12 + 3 + 1);
        assert_eq!(all[0], Sample { name: "a_total", label: None, value: (1_u64 << 60) as f64 });
        assert_eq!(all[13], Sample { name: "b_bucket", label: Some("+Inf"), value: 1.0 });
        assert_eq!(all[16], Sample { name: "d", label: Some("1.5"), value: 0.001 });
    }
}
