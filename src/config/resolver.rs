//! How settings are read: each by its kind, with every problem noted rather than ending the reading.

use super::resolve::{AuthConfig, ConfigError, ConfigErrors, JwtKeys, Raw};
use super::table::{self, Setting};
use super::values;
use crate::event::StreamRetention;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Reads settings, and notes what is wrong with them.
pub(super) struct Resolver<'a> {
    raw: &'a Raw,
    errors: Vec<ConfigError>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(raw: &'a Raw) -> Self {
        Self { raw, errors: Vec::new() }
    }

    /// What was made of them, if nothing is wrong.
    pub(super) fn finish<T>(self, resolved: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(resolved) } else { Err(ConfigErrors(self.errors)) }
    }

    pub(super) fn text(&self, setting: &Setting) -> String {
        self.raw.get(setting.variable).map_or(setting.default, String::as_str).trim().to_owned()
    }

    pub(super) fn refuse(&mut self, setting: &Setting, accepted: &str) {
        let value = self.text(setting);
        self.errors.push(ConfigError { variable: setting.variable, value, accepted: accepted.to_owned() });
    }

    /// Authentication, if it is on. What belongs to it is refused where it is off: whoever has set it thinks that it is on.
    pub(super) fn auth(&mut self) -> Option<AuthConfig> {
        let is_on = self.choice(&table::AUTH, &[("on", true), ("off", false)]);
        let parts = [
            &table::JWT_KEY_FILE,
            &table::JWKS,
            &table::JWT_ISSUER,
            &table::JWT_AUDIENCE,
            &table::ANONYMOUS_READ,
        ];
        let anonymous_read = self.list(&table::ANONYMOUS_READ, values::streams);
        let (key_file, set) = (self.text(&table::JWT_KEY_FILE), self.text(&table::JWKS));
        if !is_on {
            for setting in parts {
                if self.text(setting) != setting.default {
                    self.refuse(setting, "nothing, or set EVERTAIL_AUTH=on");
                }
            }
            return None;
        }
        if !key_file.is_empty() && !set.is_empty() {
            self.refuse(&table::JWKS, "nothing, since EVERTAIL_JWT_KEY_FILE has the key, or empty that");
        }
        let is_url = set.starts_with("http://") || set.starts_with("https://");
        let jwt_keys = match (key_file.is_empty(), set.is_empty()) {
            (true, true) => None,
            (false, _) => Some(JwtKeys::KeyFile(key_file.into())),
            (true, false) if is_url => Some(JwtKeys::SetUrl(set)),
            (true, false) => Some(JwtKeys::SetFile(set.into())),
        };
        let jwt_audience = self.text(&table::JWT_AUDIENCE);
        if jwt_audience.is_empty() {
            self.refuse(&table::JWT_AUDIENCE, table::JWT_AUDIENCE.range);
        }
        let jwt_issuer = Some(self.text(&table::JWT_ISSUER)).filter(|issuer| !issuer.is_empty());
        Some(AuthConfig { jwt_keys, jwt_issuer, jwt_audience, anonymous_read })
    }

    /// `fallback` only stands in until the error is told.
    pub(super) fn parse<T: FromStr>(&mut self, setting: &Setting, fallback: T) -> T {
        self.text(setting).parse().unwrap_or_else(|_| {
            self.refuse(setting, setting.range);
            fallback
        })
    }

    /// An address; none where nothing is given.
    pub(super) fn some_address(&mut self, setting: &Setting) -> Option<SocketAddr> {
        (!self.text(setting).is_empty()).then(|| self.parse(setting, SocketAddr::from(([127, 0, 0, 1], 0))))
    }

    fn within(&mut self, setting: &Setting, number: Option<u64>, min: u64, max: u64) -> u64 {
        match number {
            Some(number) if (min..=max).contains(&number) => number,
            _ => {
                self.refuse(setting, setting.range);
                min
            }
        }
    }

    pub(super) fn number(&mut self, setting: &Setting, min: u64, max: u64) -> u64 {
        self.within(setting, self.text(setting).parse().ok(), min, max)
    }

    /// A number up to this; none for 0.
    pub(super) fn some(&mut self, setting: &Setting, max: u64) -> Option<u64> {
        Some(self.number(setting, 0, max)).filter(|number| *number > 0)
    }

    pub(super) fn seconds(&mut self, setting: &Setting, min: u64, max: u64) -> Duration {
        Duration::from_secs(self.number(setting, min, max))
    }

    pub(super) fn bytes(&mut self, setting: &Setting, min: u64, max: u64) -> u64 {
        self.within(setting, values::bytes(&self.text(setting)), min, max)
    }

    /// A duration in words; none for 0.
    pub(super) fn age(&mut self, setting: &Setting) -> Option<Duration> {
        let text = self.text(setting);
        if text == "0" {
            return None;
        }
        let age = values::age(&text);
        if age.is_none() {
            self.refuse(setting, setting.range);
        }
        age
    }

    /// Two files of which neither is of use without the other.
    pub(super) fn paths(&mut self, one: &Setting, other: &Setting) -> Option<(PathBuf, PathBuf)> {
        match (self.text(one), self.text(other)) {
            (first, second) if !first.is_empty() && !second.is_empty() => Some((first.into(), second.into())),
            (first, second) if first.is_empty() && second.is_empty() => None,
            (first, _) => {
                let (missing, given) = if first.is_empty() { (one, other) } else { (other, one) };
                self.refuse(missing, &format!("a path too, since {} has one, or empty both", given.variable));
                None
            }
        }
    }

    /// `debug.* age=7d events=10000; audits`: for each pattern what is kept of each of its streams, everything if nothing
    /// is said.
    pub(super) fn stream_retention(&mut self, setting: &Setting) -> Vec<StreamRetention> {
        let text = self.text(setting);
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
        rules.map(values::stream_retention).collect::<Option<_>>().unwrap_or_else(|| {
            self.refuse(setting, setting.range);
            Vec::new()
        })
    }

    pub(super) fn choice<T: Copy>(&mut self, setting: &Setting, choices: &[(&str, T)]) -> T {
        let text = self.text(setting);
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => *value,
            None => {
                self.refuse(setting, setting.range);
                choices[0].1
            }
        }
    }

    /// A URL, if one is given.
    pub(super) fn url(&mut self, setting: &Setting) -> Option<String> {
        let text = self.text(setting);
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        if !text.is_empty() && host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            self.refuse(setting, setting.range);
        }
        Some(text).filter(|text| !text.is_empty())
    }

    pub(super) fn list<T>(&mut self, setting: &Setting, parse: fn(&str) -> Option<T>) -> Vec<T> {
        let text = self.text(setting);
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let parsed: Option<Vec<T>> = entries.map(parse).collect();
        parsed.unwrap_or_else(|| {
            self.refuse(setting, setting.range);
            Vec::new()
        })
    }
}
