//! `docs/http.md`: the document at `/openapi.json` as people read it. `UPDATE=1` writes it anew.

use crate::openapi::{document, with_auth};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

const FILE: &str = "docs/http.md";

const HEAD: &str = "# The routes, one by one

Made from `/openapi.json`, which every server sends with the limits that it has; here they are those by default, with
authentication on. [The API](api.md) tells the same in order of use. `UPDATE=1 cargo test --test it reference` writes this
file anew.

```sh
curl localhost:8888/openapi.json
```
";

/// The document, with what leads from one part of it to another.
struct Reference {
    document: Value,
    out: String,
}

impl Reference {
    /// What a reference leads to; anything else as it is.
    fn resolve<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).unwrap(),
            None => value,
        }
    }

    fn line(&mut self, line: impl AsRef<str>) {
        writeln!(self.out, "{}", line.as_ref()).unwrap();
    }

    /// A schema in a few words.
    fn form(&self, schema: &Value) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            if reference.contains("/properties/") {
                return self.form(self.resolve(schema));
            }
            return format!("[{name}](#{})", name.to_lowercase());
        }
        for (name, joint) in [("anyOf", " or "), ("oneOf", " or ")] {
            let Some(any) = schema[name].as_array().filter(|_| schema["properties"].is_null()) else {
                continue;
            };
            return any.iter().map(|schema| self.form(schema)).collect::<Vec<_>>().join(joint);
        }
        if let Some(names) = schema["enum"].as_array() {
            return names.iter().map(|name| format!("`{}`", plain(name))).collect::<Vec<_>>().join(", ");
        }
        if !schema["const"].is_null() {
            return format!("`{}`", schema["const"]);
        }
        let bound = |name: &str| schema[name].as_u64().filter(|bound| *bound < 1 << 53);
        let range = |least: &str, most: &str, of: &str| match (bound(least), bound(most)) {
            (Some(0) | None, None) => String::new(),
            (Some(1), None) if !of.is_empty() => ", not empty".into(),
            (Some(least), None) => format!(", {least}{of} at least"),
            (Some(0) | None, Some(most)) => format!(", {most}{of} at most"),
            (Some(least), Some(most)) => format!(", {least} to {most}{of}"),
        };
        match schema["type"].as_str() {
            Some("integer") => format!("whole number{}", range("minimum", "maximum", "")),
            Some("string") if schema["format"] == "date-time" => "RFC 3339 time".into(),
            Some("string") => {
                // A long one says less than an example.
                let pattern = schema["pattern"].as_str().filter(|pattern| pattern.len() < 36);
                let pattern = match schema["examples"].as_array() {
                    Some(examples) => format!(" such as `{}`", plain(&examples[0])),
                    None => pattern
                        .filter(|pattern| !pattern.contains("\\u0000"))
                        .map_or(String::new(), |pattern| format!(" `{}`", pattern.replace('|', "\\|"))),
                };
                format!("text{pattern}{}", range("minLength", "maxLength", " characters"))
            }
            Some("boolean") => "`true` or `false`".into(),
            Some("array") => {
                format!("array of {}{}", self.form(&schema["items"]), range("minItems", "maxItems", ""))
            }
            Some("object") => "object".into(),
            _ => "any JSON value".into(),
        }
    }

    fn parameters(&mut self, operation: &Value) {
        let Some(parameters) = operation["parameters"].as_array().cloned() else { return };
        self.line("\n| parameter | in | means | is |\n|---|---|---|---|");
        for parameter in &parameters {
            let parameter = self.resolve(parameter);
            let row = format!(
                "| `{}` | {} | {} | {} |",
                plain(&parameter["name"]),
                plain(&parameter["in"]),
                cell(&parameter["description"]),
                self.form(&parameter["schema"])
            );
            self.line(row);
        }
    }

    fn body(&mut self, operation: &Value) {
        let body = self.resolve(&operation["requestBody"]).clone();
        let Some(content) = body["content"].as_object() else { return };
        let description = body["description"].as_str().map_or(String::new(), |text| format!(" {text}"));
        self.line(format!("\n**Body.**{description}\n"));
        for (content_type, media) in content {
            self.line(format!("- `{content_type}`: {}", self.form(&media["schema"])));
        }
        let example = |schema: &Value| self.resolve(schema)["examples"][0].clone();
        let schema = &content["application/json"]["schema"];
        let example =
            [example(schema), example(&schema["oneOf"][0])].into_iter().find(|example| !example.is_null());
        if let Some(example) = example {
            self.line(format!("\n```json\n{example}\n```"));
        }
    }

    /// The codes of an answer that is a problem.
    fn codes(&self, answer: &Value) -> BTreeSet<String> {
        let problem = &self.resolve(answer)["content"]["application/problem+json"];
        let codes = &problem["schema"]["allOf"][1]["properties"]["code"]["enum"];
        codes.as_array().into_iter().flatten().map(plain).collect()
    }

    /// The codes that any route may answer.
    fn common(&self) -> BTreeSet<String> {
        let paths = self.document["paths"].as_object().unwrap();
        let operations = paths.values().flat_map(|operations| operations.as_object().unwrap().values());
        let of_operation = |operation: &Value| {
            let answers = operation["responses"].as_object().unwrap();
            answers.values().flat_map(|answer| self.codes(answer)).collect::<BTreeSet<_>>()
        };
        operations.map(of_operation).reduce(|all, some| &all & &some).unwrap()
    }

    fn answers(&mut self, operation: &Value) {
        self.line("\n| answer | means | is |\n|---|---|---|");
        let common = self.common();
        let mut problems = Vec::new();
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let codes = self.codes(answer);
            if codes.is_empty() {
                let answer = self.resolve(answer).clone();
                let content = answer["content"].as_object().cloned().unwrap_or_default();
                let is =
                    content.iter().map(|(name, media)| format!("`{name}`: {}", self.form(&media["schema"])));
                let row = format!(
                    "| {status} | {} | {} |",
                    cell(&answer["description"]),
                    is.collect::<Vec<_>>().join("; ")
                );
                self.line(row);
            }
            let codes: Vec<String> = (&codes - &common).iter().map(|code| format!("`{code}`")).collect();
            if !codes.is_empty() {
                problems.push(format!("{status} {}", codes.join(", ")));
            }
        }
        if !problems.is_empty() {
            self.line(format!("\n**Problems.** {}.", problems.join("; ")));
        }
    }

    fn schema(&mut self, name: &str, schema: &Value) {
        self.line(format!("\n### {name}\n\n{}", schema["description"].as_str().unwrap_or("An object.")));
        if !schema["examples"][0].is_null() {
            self.line(format!("\n```json\n{}\n```", schema["examples"][0]));
        }
        let Some(properties) = schema["properties"].as_object() else { return };
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        self.line("\n| member | means | is |\n|---|---|---|");
        for (member, property) in properties {
            let needed = if required.contains(&member.as_str()) { "" } else { ", optional" };
            let row = format!(
                "| `{member}`{needed} | {} | {} |",
                cell(&property["description"]),
                self.form(property)
            );
            self.line(row);
        }
    }
}

/// A value as a person writes it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text that fits into a table.
fn cell(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

fn render(document: Value) -> String {
    let mut reference = Reference { document, out: HEAD.to_owned() };
    let document = reference.document.clone();
    let mut told = Vec::new();
    let common: Vec<String> = reference.common().iter().map(|code| format!("`{code}`")).collect();
    reference.line(format!(
        "\nAny route may also answer {}; what each means is under [ProblemCode](#problemcode), what to do about it in \
         [the API](api.md#problems).",
        common.join(", ")
    ));
    reference.line("\n| credential | is |\n|---|---|");
    for (name, scheme) in document["components"]["securitySchemes"].as_object().unwrap() {
        reference.line(format!("| {name} | {} |", cell(&scheme["description"])));
    }
    for tag in document["tags"].as_array().unwrap() {
        reference.line(format!("\n## {}\n\n{}", plain(&tag["name"]), plain(&tag["description"])));
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                if operation["tags"][0] != tag["name"] {
                    continue;
                }
                let title = format!("`{} {path}`", method.to_uppercase());
                reference.line(format!("\n### {title}\n\n{}.", plain(&operation["summary"])));
                let needs = match operation["security"].as_array().and_then(|any| any.first()) {
                    None => "Needs no credential.".to_owned(),
                    Some(first) => {
                        let ways: Vec<String> = operation["security"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .flat_map(|way| way.as_object().unwrap().keys().cloned())
                            .collect();
                        let scope = first["bearer"][0]
                            .as_str()
                            .map_or(String::new(), |scope| format!(" that grants `{scope}`"));
                        format!("Needs a credential{scope}: {}.", ways.join(", "))
                    }
                };
                reference.line(format!("\n{needs}"));
                let description = plain(&operation["description"]);
                match told.iter().find(|(text, _)| *text == description) {
                    Some((_, title)) => reference.line(format!("\nMore under {title}.")),
                    None => reference.line(format!("\n{description}")),
                }
                told.push((description, title));
                reference.parameters(operation);
                reference.body(operation);
                reference.answers(operation);
            }
        }
    }
    reference.line("\n## Shapes\n\nWhat is optional is left out where it is absent, and never null.");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        reference.schema(name, schema);
    }
    reference.out
}

#[tokio::test]
async fn docs_of_the_routes_are_what_the_document_says() {
    let server = with_auth().await;
    let rendered = render(document(&server).await);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &rendered).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == rendered, "{FILE} is old; UPDATE=1 cargo test --test it reference writes it anew");
}
