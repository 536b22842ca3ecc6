//! Conditions on what an event says beyond its stream and type: source, subject, and members of its payload.
//!
//! Layer L0. The only evaluator there is: rows of the table and frames in memory go through it alike, so that history,
//! live streams and exports cannot differ. Conditions never become SQL.

use super::{EventText, EventType};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// Longest name and longest value of a condition. *Units*: bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// Most steps from a payload to the member that a condition is about.
const STEPS_MAX: usize = super::DEPTH_MAX;

/// What an event must say. Empty lists want all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Sources, any of which.
    pub sources: Vec<String>,
    /// Subjects, any of which.
    pub subjects: Vec<String>,
    /// Conditions on the payload, all of which.
    pub conditions: Vec<Condition>,
    /// The final event of a stream passes, whatever it says: for the reader whose end it is.
    pub with_ends: bool,
}

impl Filter {
    /// Wants every event.
    pub fn is_all(&self) -> bool {
        self.sources.is_empty() && self.subjects.is_empty() && self.conditions.is_empty()
    }

    /// Asks nothing but of the payload.
    pub fn is_about_payload(&self) -> bool {
        self.sources.is_empty() && self.subjects.is_empty()
    }

    /// Whether an event is wanted.
    pub fn matches(&self, event: &EventText<'_>) -> bool {
        let is_any = |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
        if self.with_ends && event.r#type == EventType::CLOSED {
            return true;
        }
        is_any(&self.sources, event.source)
            && (self.subjects.is_empty()
                || event.subject.is_some_and(|subject| is_any(&self.subjects, subject)))
            && self.conditions.iter().all(|condition| condition.holds(event.data))
    }
}

/// How a member of the payload is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
}

/// One condition on the payload: `data.amount>=100`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// From the payload to the member, by name, or by index in an array.
    path: Vec<String>,
    operator: Operator,
    value: String,
    /// The value, if it is a number.
    number: Option<Number>,
}

impl Condition {
    /// Reads a condition from a parameter that was split at its first `=`, as parameters are: `data.a>` and `5` is
    /// `data.a>=5`, while `data.a>5` has no `=` and thus no value. `None` if it is not about `data`.
    ///
    /// *Errors*: what the condition must be, as a sentence fragment.
    pub fn parse(name: &str, value: &str) -> Option<Result<Self, &'static str>> {
        let operator_at = name.find(['<', '>', '!', '~']).unwrap_or(name.len());
        let (path, rest) = name.split_at(operator_at);
        let path = match path.strip_prefix("data")? {
            "" => Vec::new(),
            members => members.strip_prefix('.')?.split('.').map(str::to_owned).collect(),
        };
        Some(Self::with(path, rest, value))
    }

    fn with(path: Vec<String>, rest: &str, value: &str) -> Result<Self, &'static str> {
        if path.iter().any(String::is_empty) || path.len() > STEPS_MAX {
            return Err("must name a member of the payload, such as data.user.name");
        }
        let behind = |operator, bound: &str| match value {
            "" => (operator, bound.to_owned()),
            // The value had a `=` of its own.
            _ => (operator, format!("{bound}={value}")),
        };
        let (operator, value) = match (rest.get(..1), rest.get(1..)) {
            (None, _) => (Operator::Equal, value.to_owned()),
            (Some("!"), Some("")) => (Operator::NotEqual, value.to_owned()),
            (Some("~"), Some("")) => (Operator::Contains, value.to_owned()),
            (Some("<"), Some("")) => (Operator::LessOrEqual, value.to_owned()),
            (Some(">"), Some("")) => (Operator::GreaterOrEqual, value.to_owned()),
            (Some("<"), Some(bound)) => behind(Operator::Less, bound),
            (Some(">"), Some(bound)) => behind(Operator::Greater, bound),
            _ => return Err("must compare with =, !=, <, <=, >, >= or ~="),
        };
        if value.len() > TEXT_BYTES_MAX {
            return Err("must compare with at most 1,024 bytes");
        }
        if value.is_empty() && !matches!(operator, Operator::Equal | Operator::NotEqual) {
            return Err("must compare with something");
        }
        let number = serde_json::from_str(&value).ok();
        Ok(Self { path, operator, value, number })
    }

    /// Whether it holds for this payload. An absent member, like a payload that is no JSON, equals nothing.
    fn holds(&self, data: Option<&str>) -> bool {
        let found = data.is_some_and(|data| {
            let mut reader = serde_json::Deserializer::from_str(data);
            Find { path: &self.path, condition: self, is_element: false }
                .deserialize(&mut reader)
                .is_ok_and(|is_found| is_found)
        });
        // "Not equal" is exactly the contrary of "equal": it holds for events without the member too.
        found != (self.operator == Operator::NotEqual)
    }

    fn text_holds(&self, text: &str, is_element: bool) -> bool {
        match self.operator {
            Operator::Contains if !is_element => text.contains(&self.value),
            operator => operator.is_met(text.cmp(&self.value)),
        }
    }

    fn number_holds(&self, number: Number) -> bool {
        let order = self.number.and_then(|bound| number.partial_cmp(&bound));
        order.is_some_and(|order| self.operator.is_met(order))
    }

    /// `true`, `false` and `null` have no order.
    fn word_holds(&self, word: &str) -> bool {
        self.value == word
            && self.operator.is_met(Ordering::Equal)
            && !matches!(self.operator, Operator::LessOrEqual | Operator::GreaterOrEqual)
    }
}

impl Operator {
    /// Whether a member that compares so with the value is wanted. `NotEqual` looks for what is equal, and is then
    /// turned round; an element of an array is contained when it is equal.
    fn is_met(self, order: Ordering) -> bool {
        match self {
            Self::Equal | Self::NotEqual | Self::Contains => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A JSON number. Whole numbers compare exactly, others as doubles.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Whole(i128),
    Double(f64),
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (*self, *other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => a.double().partial_cmp(&b.double()),
        }
    }
}

impl Number {
    fn double(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Double(number) => number,
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number::Whole(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number::Whole(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number::Double(number))
            }
        }
        reader.deserialize_any(Read)
    }
}

/// Goes down to the member and tells whether the condition holds there.
#[derive(Clone, Copy)]
struct Find<'c> {
    path: &'c [String],
    condition: &'c Condition,
    /// At an element of an array that may contain the value.
    is_element: bool,
}

impl Find<'_> {
    /// At the member, which is no text: a number, `true`, `false` or `null` contains nothing.
    fn is_there(&self) -> bool {
        self.path.is_empty() && (self.is_element || self.condition.operator != Operator::Contains)
    }
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(self.is_there() && self.condition.word_holds("null"))
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<bool, E> {
        Ok(self.is_there() && self.condition.word_holds(if is_true { "true" } else { "false" }))
    }

    fn visit_i64<E>(self, number: i64) -> Result<bool, E> {
        Ok(self.is_there() && self.condition.number_holds(Number::Whole(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<bool, E> {
        Ok(self.is_there() && self.condition.number_holds(Number::Whole(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<bool, E> {
        Ok(self.is_there() && self.condition.number_holds(Number::Double(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.path.is_empty() && self.condition.text_holds(text, self.is_element))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut is_found = false;
        let is_searched =
            self.path.is_empty() && !self.is_element && self.condition.operator == Operator::Contains;
        let wanted = self.path.first().and_then(|step| step.parse::<usize>().ok());
        for index in 0.. {
            let is_item = if is_searched {
                let find = Find { path: &[], condition: self.condition, is_element: true };
                items.next_element_seed(find)?.map(|holds| is_found |= holds)
            } else if wanted == Some(index) {
                let find = Find { path: &self.path[1..], ..self };
                items.next_element_seed(find)?.map(|holds| is_found = holds)
            } else {
                items.next_element::<IgnoredAny>()?.map(|_| ())
            };
            if is_item.is_none() {
                break;
            }
        }
        Ok(is_found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut is_found = false;
        while let Some(Name(name)) = members.next_key()? {
            match self.path.split_first() {
                Some((step, path)) if *step == name => {
                    let find = Find { path, condition: self.condition, is_element: false };
                    is_found = members.next_value_seed(find)?;
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(is_found)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(parameter: &str, data: &str) -> bool {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        Condition::parse(name, value).unwrap().unwrap().holds(Some(data))
    }

    #[test]
    fn members_are_compared_as_what_they_are() {
        let data = r#"{"actor":"alice","amount":100,"rate":0.5,"big":9007199254740993,"is_new":true,"none":null,
            "user":{"name":"Alice Liddell","tags":["red","5",5]},"items":[{"sku":"a1"},{"sku":"b2"}],"day":"2026-11-21",
            "a=b":"c"}"#;
        for good in [
            "data.actor=alice",
            "data.actor!=bob",
            "data.amount=100",
            "data.amount=1e2",
            "data.amount=100.0",
            "data.amount>=100",
            "data.amount<=100",
            "data.amount>99.5",
            "data.amount<101",
            "data.rate<1",
            "data.big=9007199254740993",
            "data.big>9007199254740992",
            "data.is_new=true",
            "data.none=null",
            "data.user.name~=Lidd",
            "data.user.tags~=red",
            "data.user.tags~=5",
            "data.user.tags.0=red",
            "data.items.1.sku=b2",
            "data.day>=2026-11-01",
            "data.day<2026-12",
            "data.missing!=x",
            "data.missing.deeper!=x",
            "data.user!=x",
        ] {
            assert!(holds(good, data), "{good}");
        }
        for bad in [
            "data.actor=Alice",
            "data.actor=ali",
            "data.actor!=alice",
            "data.actor<5x",
            "data.amount=1000",
            "data.amount~=10",
            "data.amount>100",
            "data.amount<ten",
            "data.big=9007199254740992",
            "data.is_new>=true",
            "data.missing=x",
            "data.missing=",
            "data.missing>0",
            "data.user=x",
            "data.user.name.x=1",
            "data.user.tags~=re",
            "data.user.tags=red",
            "data.items.7.sku=b2",
            "data.items.sku=b2",
        ] {
            assert!(!holds(bad, data), "{bad}");
        }
    }

    #[test]
    fn a_payload_that_is_a_text_is_compared_itself() {
        assert!(holds("data~=rror", "\"an error\""));
        assert!(holds("data=3", "3"));
        assert!(holds("data>a=b", "\"b=\""));
        assert!(!holds("data.x=3", "3"));
        assert!(!holds("data=3", "not json"));
        let condition = Condition::parse("data!", "3").unwrap().unwrap();
        assert!(condition.holds(None) && condition.holds(Some("not json")));
    }

    #[test]
    fn what_is_no_condition_is_told() {
        for other in ["dat", "datum", "type", "data_x", ""] {
            assert!(Condition::parse(other, "1").is_none(), "{other}");
        }
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let deep = format!("data{}", ".a".repeat(STEPS_MAX + 1));
        for (name, value) in [
            ("data.", "1"),
            ("data..a", "1"),
            ("data.a!x", ""),
            ("data.a~x", ""),
            ("data.a~", ""),
            ("data.a>", ""),
            ("data.a", &long),
            (&deep, "1"),
        ] {
            assert!(Condition::parse(name, value).unwrap().is_err(), "{name}");
        }
    }
}
