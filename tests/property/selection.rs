//! A selection means the same wherever it is asked: in memory, in the table, backward, and over a plain vector.

use crate::cases;
use crate::fixture::{Place, append, close, in_time, open, options};
use evertail::event::{Condition, Content, EventType, Filter, Pattern, Selection, Seq, StreamName};
use evertail::log::{Log, ReaderOptions, Step};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::Arc;

const STREAMS: [&str; 3] = ["a", "a.b", "b"];
const TYPES: [&str; 3] = ["x", "x.y", "message"];
const SOURCES: [&str; 3] = ["", "/s", "/t\"u"];
const SUBJECTS: [Option<&str>; 3] = [None, Some("1"), Some("two\\")];
const DATA: [Option<&str>; 14] = [
    None,
    Some("null"),
    Some("2"),
    Some("\"a text\""),
    Some("[1,\"2\",3]"),
    Some(r#"{"n":1}"#),
    Some(r#"{"n":1.5,"u":{"name":"alice"}}"#),
    Some(r#"{"n":"1","u":{"name":"al"}}"#),
    Some(r#"{"n":-2e0,"u":"alice"}"#),
    Some(r#"{"n":null,"list":["red","blue",1]}"#),
    Some(r#"{"n":true,"list":[{"k":1},{"k":2}]}"#),
    Some(r#"{"n":18446744073709551615}"#),
    Some(r#"{"n":9007199254740993,"u":{"name":""}}"#),
    Some(r#"{"n":[1],"u":{"name":null}}"#),
];
const PATHS: [&str; 6] = ["", ".n", ".u.name", ".u", ".list", ".list.1.k"];
const OPERATORS: [&str; 7] = ["=", "!=", "<", "<=", ">", ">=", "~="];
const VALUES: [&str; 11] =
    ["1", "1.5", "-2", "alice", "al", "null", "true", "9007199254740992", "18446744073709551615", "red", "2"];

/// A condition as it stands in a URL.
#[derive(Debug, Clone)]
struct Asked {
    path: &'static str,
    operator: &'static str,
    value: &'static str,
}

impl Asked {
    fn parsed(&self) -> Condition {
        let text = format!("data{}{}{}", self.path, self.operator, self.value);
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        Condition::parse(name, value).expect("it is about data").expect("it is a condition")
    }

    /// Written down from the documentation, over a parsed value.
    fn holds(&self, data: Option<&Value>) -> bool {
        let mut at = data;
        for step in self.path.split('.').skip(1) {
            at = at.and_then(|value| match value {
                Value::Object(members) => members.get(step),
                Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            });
        }
        let Some(at) = at else { return self.operator == "!=" };
        match self.operator {
            "=" => self.is_equal(at),
            "!=" => !self.is_equal(at),
            "~=" => match at {
                Value::String(text) => text.contains(self.value),
                Value::Array(items) => items.iter().any(|item| self.is_equal(item)),
                _ => false,
            },
            operator => self.order(at).is_some_and(|order| match operator {
                "<" => order.is_lt(),
                "<=" => order.is_le(),
                ">" => order.is_gt(),
                _ => order.is_ge(),
            }),
        }
    }

    fn is_equal(&self, value: &Value) -> bool {
        match value {
            Value::Null => self.value == "null",
            Value::Bool(is_true) => self.value == is_true.to_string(),
            _ => self.order(value).is_some_and(std::cmp::Ordering::is_eq),
        }
    }

    fn order(&self, value: &Value) -> Option<std::cmp::Ordering> {
        match value {
            Value::String(text) => Some(text.as_str().cmp(self.value)),
            Value::Number(number) => {
                let bound: serde_json::Number = serde_json::from_str(self.value).ok()?;
                match (number.as_i128(), bound.as_i128()) {
                    (Some(number), Some(bound)) => Some(number.cmp(&bound)),
                    _ => number.as_f64()?.partial_cmp(&bound.as_f64()?),
                }
            }
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
struct Wish {
    streams: Vec<&'static str>,
    types: Vec<&'static str>,
    sources: Vec<&'static str>,
    subjects: Vec<&'static str>,
    conditions: Vec<Asked>,
    /// What may be read; `None` is all.
    granted: Option<Vec<&'static str>>,
}

impl Wish {
    fn selection(&self) -> Selection {
        let patterns = |names: &[&str]| {
            names.iter().map(|name| Pattern::parse(name).expect("a pattern")).collect::<Vec<_>>()
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Selection {
            streams: patterns(&self.streams),
            types: patterns(&self.types),
            filter: Filter {
                sources: names(&self.sources),
                subjects: names(&self.subjects),
                conditions: self.conditions.iter().map(Asked::parsed).collect(),
                with_ends: false,
            },
            granted: self.granted.as_deref().map(|granted| patterns(granted).into()),
        }
    }

    fn wants(&self, content: &Content) -> bool {
        let any = |patterns: &[&str], name: &str| {
            patterns.is_empty()
                || patterns
                    .iter()
                    .any(|p| p.strip_suffix('*').map_or(*p == name, |prefix| name.starts_with(prefix)))
        };
        let data: Option<Value> =
            content.data.as_deref().map(|data| serde_json::from_str(data).expect("it is JSON"));
        // What is not granted is not there, whatever is asked for. An empty list grants nothing.
        let is_granted = |granted: &Vec<&str>| !granted.is_empty() && any(granted, content.stream.as_str());
        self.granted.as_ref().is_none_or(is_granted)
            && any(&self.streams, content.stream.as_str())
            && any(&self.types, content.r#type.as_str())
            && (self.sources.is_empty() || self.sources.contains(&&*content.source))
            && (self.subjects.is_empty()
                || content.subject.as_deref().is_some_and(|s| self.subjects.contains(&s)))
            && self.conditions.iter().all(|condition| condition.holds(data.as_ref()))
    }
}

fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::sample::subsequence(names, 1..=2)]
}

fn wish() -> impl Strategy<Value = Wish> {
    use proptest::sample::select;
    let asked = (select(&PATHS[..]), select(&OPERATORS[..]), select(&VALUES[..]))
        .prop_map(|(path, operator, value)| Asked { path, operator, value });
    (
        some_of(&["a", "a.*", "b", "*"]),
        some_of(&["x", "x.*", "message"]),
        some_of(&["/s", "/t\"u"]),
        some_of(&["1", "two\\", "3"]),
        proptest::collection::vec(asked, 0..3),
        proptest::option::of(proptest::sample::subsequence(&["a", "a.*", "b", "c"][..], 0..=3)),
    )
        .prop_map(|(streams, types, sources, subjects, conditions, granted)| Wish {
            granted,
            streams,
            types,
            sources,
            subjects,
            conditions,
        })
}

fn content() -> impl Strategy<Value = Content> {
    use proptest::sample::select;
    (select(&STREAMS[..]), select(&TYPES[..]), select(&SOURCES[..]), select(&SUBJECTS[..]), select(&DATA[..]))
        .prop_map(|(stream, r#type, source, subject, data)| Content {
            source: Arc::from(source),
            r#type: EventType::parse(r#type).expect("a type"),
            subject: subject.map(Arc::from),
            data: data.map(Arc::from),
            ..Content::new(StreamName::parse(stream).expect("a stream"))
        })
}

fn options_of(selection: Selection, page_bytes_max: usize, limit: Option<u64>) -> ReaderOptions {
    ReaderOptions { selection, page_bytes_max, limit, ..options() }
}

async fn read(log: &Log, cursor: Seq, options: ReaderOptions) -> Vec<Seq> {
    let mut reader = log.reader(cursor, options);
    let mut seqs = Vec::new();
    while let Step::Page(page) = in_time(reader.next()).await.expect("the table is readable") {
        let text = std::str::from_utf8(&page.bytes).expect("JSON is text");
        seqs.extend(text.lines().map(|line| {
            let value: Value = serde_json::from_str(line).expect("a line is JSON");
            value["seq"].as_u64().expect("an event has a seq")
        }));
        in_time(reader.read_ahead()).await;
    }
    seqs
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn memory_table_and_plain_filter_agree(
        contents in proptest::collection::vec(content(), 1..120),
        wishes in proptest::collection::vec((wish(), 0u64..8), 1..12),
        page_bytes_max in 200usize..4_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for window_bytes_max in [0, 1 << 20] {
                let place = Place::new();
                let mut settings = place.settings();
                settings.window_bytes_max = window_bytes_max;
                let (log, task) = open(settings).await;
                for batch in contents.chunks(50) {
                    append(&log, batch).await.expect("the events are stored");
                }
                let last = contents.len() as Seq;
                for (wish, count) in &wishes {
                    let selection = wish.selection();
                    let expected: Vec<Seq> =
                        (1..=last).filter(|seq| wish.wants(&contents[*seq as usize - 1])).collect();
                    let all = read(&log, 0, options_of(selection.clone(), page_bytes_max, None)).await;
                    assert_eq!(all, expected, "{wish:?}");
                    let some = read(&log, 0, options_of(selection.clone(), page_bytes_max, Some(*count))).await;
                    assert_eq!(some, expected[..expected.len().min(*count as usize)], "{wish:?} limit {count}");
                    let through = last - last / 4;
                    let cursor = in_time(log.before_last(*count, &selection, through)).await.expect("it is searched");
                    let before: Vec<Seq> = expected.iter().copied().filter(|seq| *seq <= through).collect();
                    let newest = &before[before.len().saturating_sub(*count as usize)..];
                    let rest: Vec<Seq> = before.iter().copied().filter(|seq| *seq > cursor).collect();
                    assert_eq!(rest, newest, "{wish:?} last {count} through {through}");
                }
                close(log, task).await;
            }
        });
    }
}
