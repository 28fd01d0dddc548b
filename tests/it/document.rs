//! Every answer that a test gets is held against the OpenAPI document: its operation, status,
//! content type, headers and body are declared, and nothing is in it that the document does not say.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};

pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../openapi.json")).unwrap());

/// Below `/v1`, but about the API and not of it.
const NOT_IN_IT: [&str; 4] = ["/v1/doc", "/v1/swagger-editor", "/v1/oauth2-redirect.html", "/v1/oauth2-redirect.js"];

/// Headers that say how an answer travels, and nothing about it.
const TRANSPORT: [&str; 7] =
    ["connection", "content-length", "content-type", "date", "transfer-encoding", "vary", "allow"];

/// Fails when the document does not declare this answer to this operation.
pub(crate) fn check(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, body: &Value) {
    let path = path.split('?').next().unwrap();
    // The answer to HEAD is that to GET without its body, and the document does not speak of it.
    if !path.starts_with("/v1") || NOT_IN_IT.contains(&path) || method == Method::HEAD {
        return;
    }
    let what = format!("{method} {path} answered {status}");
    let Some(item) = item(path) else {
        assert_eq!(status, 404, "{what}, and no path of openapi.json fits");
        return assert_fits("an error", &reference("ErrorBody"), body, &what);
    };
    let Some(operation) = item.get(method.as_str().to_lowercase()) else {
        assert_eq!(status, 405, "{what}, and openapi.json has no such method there");
        return assert_fits("an error", &reference("ErrorBody"), body, &what);
    };
    let response = resolve(&operation["responses"][status.as_str()]);
    assert!(!response.is_null(), "{what}, which openapi.json does not declare: {body}");
    check_headers(response, headers, &what);
    let Some(content) = response["content"].as_object() else {
        assert!(body.is_null(), "{what} with a body where openapi.json declares none: {body}");
        assert!(!headers.contains_key("content-type"), "{what} with a type, but without a body");
        return;
    };
    let media_type = headers.get("content-type").unwrap_or_else(|| panic!("{what} without a content type"));
    let media_type = media_type.to_str().unwrap();
    let schema = content.get(media_type).map(|content| &content["schema"]);
    let schema = schema.unwrap_or_else(|| panic!("{what} with {media_type}, which openapi.json does not declare"));
    assert_fits(&format!("{method} {path} {status}"), schema, body, &what);
}

/// Fails when a body that the server took is one that the document does not let clients send.
pub(crate) fn check_sent(method: &Method, path: &str, body: &Value) {
    let operation = item(path.split('?').next().unwrap()).and_then(|item| item.get(method.as_str().to_lowercase()));
    let Some(operation) = operation else { return };
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !schema.is_null() {
        let what = format!("{method} {path} took a body");
        assert_fits(&format!("{method} {path}"), schema, body, &what);
    }
}

/// What the document says about a path.
fn item(path: &str) -> Option<&'static Value> {
    template(path).map(|template| &DOCUMENT["paths"][template])
}

/// The document's own path that this one is: the same, or else a template that fits.
pub(crate) fn template(path: &str) -> Option<&'static String> {
    let fits = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(part, given)| part.starts_with('{') || part == given)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    paths.get_key_value(path).map(|(same, _)| same).or_else(|| paths.keys().find(|template| fits(template)))
}

/// Every header is declared, unless it is one of transport, and fits its schema.
fn check_headers(response: &Value, headers: &HeaderMap, what: &str) {
    let none = Map::new();
    let declared: HashMap<String, &Value> = response["headers"]
        .as_object()
        .unwrap_or(&none)
        .iter()
        .map(|(name, header)| (name.to_lowercase(), resolve(header)))
        .collect();
    for (name, value) in headers {
        let name = name.as_str();
        if TRANSPORT.contains(&name) || name.starts_with("access-control-") {
            continue;
        }
        let header = declared.get(name);
        let header = header.unwrap_or_else(|| panic!("{what} with {name}, which openapi.json does not declare"));
        let text = value.to_str().unwrap();
        let schema = &header["schema"];
        let value = match schema["type"].as_str() {
            Some("integer") => text.parse().map(|number: i64| number.into()).unwrap_or(Value::Null),
            _ => text.into(),
        };
        assert_fits(&format!("header {name}"), schema, &value, &format!("{what} with {name}: {text}"));
    }
}

fn assert_fits(key: &str, schema: &Value, value: &Value, what: &str) {
    let errors = validator(key, schema);
    let errors: Vec<String> =
        errors.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}, and openapi.json does not allow it: {errors:#?}\n{value}");
    let unsaid = undeclared(schema, value, "");
    assert!(unsaid.is_empty(), "{what}, and openapi.json does not declare {unsaid:?}\n{value}");
}

/// A validator of a schema of the document; made once for each key.
pub(crate) fn validator(key: &str, schema: &Value) -> Arc<Validator> {
    static MADE: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap();
    let validator = made.entry(key.to_owned()).or_insert_with(|| {
        let mut schema = schema.clone();
        schema["components"] = DOCUMENT["components"].clone();
        Arc::new(jsonschema::options().should_validate_formats(true).build(&schema).unwrap())
    });
    validator.clone()
}

/// The fields of a value that its schema does not name.
pub(crate) fn undeclared(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let (named, open) = properties(schema);
            let field = |(name, value): (&String, &Value)| {
                let at = format!("{at}/{name}");
                match named.get(name) {
                    Some(schema) => undeclared(schema, value, &at),
                    None if open => Vec::new(),
                    None => vec![at],
                }
            };
            fields.iter().flat_map(field).collect()
        }
        Value::Array(items) => {
            let schema = &resolve(schema)["items"];
            items.iter().enumerate().flat_map(|(n, item)| undeclared(schema, item, &format!("{at}/{n}"))).collect()
        }
        _ => Vec::new(),
    }
}

/// The properties that a schema names, in all its parts; and whether there may be others.
fn properties(schema: &Value) -> (HashMap<&String, &Value>, bool) {
    let schema = resolve(schema);
    let own = schema["properties"].as_object().into_iter().flatten();
    let (mut named, mut open): (HashMap<_, _>, _) = (own.collect(), schema.get("additionalProperties").is_some());
    for part in ["allOf", "oneOf", "anyOf"].iter().flat_map(|kind| schema[kind].as_array()).flatten() {
        let (more, free) = properties(part);
        named.extend(more);
        open |= free;
    }
    (named, open)
}

fn reference(name: &str) -> Value {
    serde_json::json!({"$ref": format!("#/components/schemas/{name}")})
}

/// What a reference within the document leads to; anything else is itself.
pub(crate) fn resolve(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}
