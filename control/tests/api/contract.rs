//! The served OpenAPI document, and what is asked and answered, held against it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jsonschema::{Draft, Validator};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

/// The document.
pub struct Contract {
    document: Value,
    /// By the pointer of their schema.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// What was asked, and what was answered.
pub struct Exchange<'a> {
    pub method: &'a Method,
    /// Without the query.
    pub path: &'a str,
    /// The body sent, where it is JSON.
    pub sent: Option<&'a Value>,
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl Contract {
    pub fn new(document: Value) -> Self {
        Self {
            document: closed(document),
            validators: Mutex::default(),
        }
    }

    /// Every operation: its method, and its path with `{…}`.
    pub fn operations(&self) -> Vec<(Method, String)> {
        let mut operations = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let method = method.to_uppercase().parse().unwrap();
                operations.push((method, path.clone()));
            }
        }
        operations
    }

    /// Every operation that takes a body.
    pub fn takers(&self) -> Vec<(Method, String)> {
        let mut operations = self.operations();
        operations.retain(|(method, path)| {
            let operation = &self.document["paths"][path][lower(method)];
            operation.get("requestBody").is_some()
        });
        operations
    }

    /// The pointer of every schema of a body, sent or answered.
    pub fn schemas(&self) -> Vec<String> {
        let mut schemas = Vec::new();
        for (method, path) in self.operations() {
            let operation = format!("/paths/{}/{}", escaped(&path), lower(&method));
            for part in ["requestBody", "responses"] {
                pointers(&self.document, &format!("{operation}/{part}"), &mut schemas);
            }
        }
        schemas
    }

    /// Fails where the answer, or what was sent if it was accepted, is not as the document says.
    pub fn hold(&self, exchange: &Exchange<'_>) {
        let Exchange { method, path, .. } = *exchange;
        let Some(template) = self.template(method, path) else {
            let status = exchange.status.as_u16();
            assert!(
                matches!(status, 404 | 405),
                "{method} {path} is in no document, and answers {status}"
            );
            let kind = content_type(exchange.headers);
            assert_eq!(kind, "application/problem+json", "{method} {path}");
            return self.fits("/components/schemas/Problem", &parsed(exchange));
        };
        let operation = format!("/paths/{}/{}", escaped(&template), lower(method));
        self.hold_answer(exchange, &operation);
        if let (true, Some(sent)) = (exchange.status.is_success(), exchange.sent) {
            let schema = format!("{operation}/requestBody/content/application~1json/schema");
            if self.document.pointer(&schema).is_some() {
                self.fits(&schema, sent);
            }
        }
    }

    fn hold_answer(&self, exchange: &Exchange<'_>, operation: &str) {
        let what = format!(
            "{} {} → {}: {}",
            exchange.method,
            exchange.path,
            exchange.status,
            String::from_utf8_lossy(exchange.body)
        );
        let response = format!("{operation}/responses/{}", exchange.status.as_u16());
        let Some(declared) = self.document.pointer(&response) else {
            panic!("the document has no such status: {what}");
        };
        for header in declared["headers"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
        {
            assert!(
                exchange.headers.contains_key(header),
                "no `{header}`: {what}"
            );
        }
        let kind = content_type(exchange.headers);
        assert!(
            declared["content"].get(&kind).is_some(),
            "the document has no such content type, {kind}: {what}"
        );
        if kind.ends_with("json") {
            let schema = format!("{response}/content/{}/schema", escaped(&kind));
            self.fits(&schema, &parsed(exchange));
        }
    }

    /// Fails where `value` does not fit the schema at `pointer`.
    pub fn fits(&self, pointer: &str, value: &Value) {
        let faults: Vec<String> = self
            .validator(pointer)
            .iter_errors(value)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(
            faults.is_empty(),
            "{value} does not fit {pointer}: {faults:#?}"
        );
    }

    /// Compiles the schema at `pointer`; fails where it is none.
    pub fn validator(&self, pointer: &str) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap();
        let make = || {
            let mut schema = self.document.pointer(pointer).expect(pointer).clone();
            // What `$ref`s in it lead to.
            schema["components"] = self.document["components"].clone();
            let validator = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true)
                .build(&schema);
            Arc::new(validator.unwrap_or_else(|error| panic!("{pointer}: {error}")))
        };
        let validator = validators.entry(pointer.to_owned()).or_insert_with(make);
        validator.clone()
    }

    /// The path of the document that `path` is one of; where several are, the one with the
    /// fewest names to be filled in.
    fn template(&self, method: &Method, path: &str) -> Option<String> {
        let paths = self.document["paths"].as_object().unwrap();
        let is_it = |template: &str| {
            let (mut given, mut wanted) = (path.split('/'), template.split('/'));
            loop {
                match (given.next(), wanted.next()) {
                    (None, None) => return true,
                    // The one parameter that may hold slashes.
                    (Some(_), Some("{path}")) => return true,
                    (Some(given), Some(wanted))
                        if given == wanted || (wanted.starts_with('{') && !given.is_empty()) => {}
                    _ => return false,
                }
            }
        };
        paths
            .iter()
            .filter(|(template, item)| is_it(template) && item.get(lower(method)).is_some())
            .map(|(template, _)| template)
            .min_by_key(|template| template.matches('{').count())
            .cloned()
    }
}

/// The document, in which what is referred to has no fields but those that it names. In an
/// `allOf` it is one part of several, and left as it is.
fn closed(mut document: Value) -> Value {
    fn close(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(close),
            Value::Object(object) => {
                if object.contains_key("$ref") {
                    object.insert("unevaluatedProperties".to_owned(), json!(false));
                }
                for (key, value) in object {
                    match (key.as_str(), value) {
                        ("allOf", Value::Array(parts)) => parts
                            .iter_mut()
                            .filter(|part| part.get("$ref").is_none())
                            .for_each(close),
                        (_, value) => close(value),
                    }
                }
            }
            _ => {}
        }
    }
    close(&mut document);
    document
}

fn pointers(document: &Value, pointer: &str, found: &mut Vec<String>) {
    let Some(Value::Object(object)) = document.pointer(pointer) else {
        return;
    };
    for key in object.keys() {
        let inner = format!("{pointer}/{}", escaped(key));
        if key == "schema" {
            found.push(inner);
        } else {
            pointers(document, &inner, found);
        }
    }
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn lower(method: &Method) -> String {
    method.as_str().to_lowercase()
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get("content-type").map(|value| value.to_str());
    value.and_then(Result::ok).unwrap_or_default().to_owned()
}

fn parsed(exchange: &Exchange<'_>) -> Value {
    serde_json::from_slice(exchange.body).unwrap_or_else(|error| {
        panic!(
            "{} {}: {error}: {}",
            exchange.method,
            exchange.path,
            String::from_utf8_lossy(exchange.body)
        )
    })
}
