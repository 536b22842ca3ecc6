//! A body that is one small JSON object: each member read by the rule of its own, everything that is wrong told at once.

use super::envelope::{self, Members};
use super::problem::MemberError;
use super::{Problem, ProblemCode};
use axum::http::{HeaderMap, header};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The object of a body, and what was wrong with it so far.
pub(super) struct Object<'a> {
    members: Vec<(Cow<'a, str>, Value)>,
    /// The members that were asked for.
    known: Vec<&'static str>,
    errors: Vec<MemberError>,
}

impl<'a> Object<'a> {
    /// Reads a body. As everywhere, what begins with `{` is JSON whatever the content type says, since `curl -d` sends a
    /// form type. `None` for an empty body.
    ///
    /// *Errors*: it is no JSON object.
    pub(super) fn read(headers: &HeaderMap, body: &'a [u8]) -> Result<Option<Self>, Problem> {
        let text = envelope::utf8(body)?;
        let trimmed = text.trim_start();
        if trimmed.is_empty() {
            return Ok(None);
        }
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !trimmed.starts_with('{') && !essence.eq_ignore_ascii_case("application/json") {
            let detail = "this route reads a JSON object only; send one as application/json";
            return Err(Problem::new(ProblemCode::ContentTypeUnsupported, detail));
        }
        let invalid = |error: serde_json::Error| {
            let errors = [MemberError { pointer: String::new(), detail: error.to_string() }];
            Problem::new(ProblemCode::JsonInvalid, format!("{error}; mend the JSON")).with_errors(&errors)
        };
        serde_json::from_str::<&RawValue>(text).map_err(invalid)?;
        if !trimmed.starts_with('{') {
            return Err(refused(&[MemberError {
                pointer: String::new(),
                detail: "must be an object".into(),
            }]));
        }
        let Members(members) = serde_json::from_str(text).map_err(invalid)?;
        // A number or a depth beyond what is read is as wrong as null for every member there is.
        let members = members
            .into_iter()
            .map(|(name, value)| (name, serde_json::from_str(value.get()).unwrap_or(Value::Null)));
        Ok(Some(Self { members: members.collect(), known: Vec::new(), errors: Vec::new() }))
    }

    /// A member, if it is there and passes its rule.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        rule: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(name);
        let mut given = self.members.iter().filter(|(member, _)| member == name);
        let (_, value) = given.next()?;
        let read = if given.next().is_some() { Err("is there twice".to_owned()) } else { rule(value) };
        read.map_err(|detail| self.refuse(name, detail)).ok()
    }

    /// A member that must be a string of this kind.
    pub(super) fn take_text<T, E: ToString>(
        &mut self,
        name: &'static str,
        rule: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(name, |value| match value {
            Value::String(text) => rule(text).map_err(|error| error.to_string()),
            _ => Err("must be a string".into()),
        })
    }

    /// Whether the member is there, right or wrong.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(member, _)| member == name)
    }

    /// Something is wrong with a member; with the whole object, if the name is empty.
    pub(super) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = if name.is_empty() { String::new() } else { envelope::pointer(None, name) };
        self.errors.push(MemberError { pointer, detail: detail.into() });
    }

    /// *Errors*: everything that was wrong with it, and every member that was not asked for.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in &self.members {
            if !self.known.contains(&name.as_ref()) {
                let detail = format!("is not known; known are {}", self.known.join(", "));
                self.errors.push(MemberError { pointer: envelope::pointer(None, name), detail });
            }
        }
        if self.errors.is_empty() { Ok(()) } else { Err(refused(&self.errors)) }
    }
}

/// A whole number, also one that is written with a fraction of zero: JSON has only one kind of numbers.
pub(super) fn whole(value: &Value) -> Option<u64> {
    // Beyond 2^53 a double may be another number than the one that was written.
    let of_double = |number: &f64| number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(of_double).map(|number| number as u64))
}

fn refused(errors: &[MemberError]) -> Problem {
    let first = errors.first().map_or_else(String::new, |error| {
        let name = if error.pointer.is_empty() { "the body" } else { error.pointer.as_str() };
        format!("{name} {}", error.detail)
    });
    Problem::new(ProblemCode::BodyInvalid, first).with_errors(errors)
}
