//! The committed document is what the routes say, and says enough.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::document::{DOCUMENT, resolve, undeclared, validator};

#[test]
fn the_committed_document_is_fresh() {
    let committed = include_str!("../../openapi.json");
    assert!(
        committed == howdah::commands::openapi(),
        "openapi.json is stale; run: cargo run -- openapi > openapi.json"
    );
}

/// Every operation: method and path, and what the document says about it.
fn operations() -> Vec<(String, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, it)| (format!("{method} {path}"), it))
        })
        .collect()
}

/// Generators for Go make a constructor `NewX` of each schema `X`, which would clash with a schema of that name.
#[test]
fn no_schema_is_named_like_a_constructor() {
    let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
    let clashing: Vec<&String> = schemas.keys().filter(|name| name.starts_with("New")).collect();
    assert!(clashing.is_empty(), "{clashing:?}");
}

#[test]
fn every_operation_is_described() {
    let words = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    let tags: Vec<&Value> = DOCUMENT["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut names = BTreeSet::new();
    for (what, operation) in operations() {
        assert!(words(&operation["summary"]), "{what} has no summary: the first line of the handler's comment");
        for tag in operation["tags"].as_array().unwrap() {
            assert!(tags.contains(&tag), "{what}: {tag} is not in the document's list of tags");
        }
        for field in ["operationId", "x-howdah-action"] {
            assert!(names.insert(operation[field].as_str().unwrap()), "{what}: {field} is taken");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(words(&parameter["description"]), "{what}: {} has no description", parameter["name"]);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolve(response);
            assert!(words(&response["description"]), "{what} {status} has no description");
            assert!(response["headers"].get("X-Request-Id").is_some(), "{what} {status} has no request id");
        }
        let is_open = operation["security"] == serde_json::json!([{}]);
        for status in ["401", "500", "503"] {
            let declared = operation["responses"].get(status).is_some();
            let expected = status != "401" || !is_open;
            assert_eq!(declared, expected, "whether {what} says that it may answer {status}");
        }
    }
}

#[test]
fn every_example_fits_its_schema() {
    for (what, operation) in operations() {
        let bodies = operation["requestBody"]["content"].as_object().into_iter().flatten();
        let answers = operation["responses"].as_object().unwrap().iter();
        let answers = answers.flat_map(|(_, response)| resolve(response)["content"].as_object().into_iter().flatten());
        for (n, (_, content)) in bodies.chain(answers).enumerate() {
            let (schema, example) = (&content["schema"], &content["example"]);
            let validator = validator(&format!("example {n} of {what}"), schema);
            let wrong: Vec<String> =
                validator.iter_errors(example).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert!(wrong.is_empty(), "{what}: give the fields of the type examples that fit: {wrong:#?}\n{example:#}");
            let unsaid = undeclared(schema, example, "");
            assert!(unsaid.is_empty(), "{what}: {unsaid:?} are in the example and not in the schema");
        }
    }
}

#[test]
fn no_body_takes_fields_that_are_not_described() {
    fn open(schema: &Value, at: &str, found: &mut Vec<String>) {
        let schema = resolve(schema);
        if schema["properties"].is_object() && schema["additionalProperties"] != false {
            found.push(at.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            open(property, &format!("{at}.{name}"), found);
        }
        for alternative in ["oneOf", "anyOf", "allOf"].iter().flat_map(|word| schema[word].as_array()).flatten() {
            open(alternative, at, found);
        }
        if !schema["items"].is_null() {
            open(&schema["items"], at, found);
        }
    }
    let (mut found, mut bodies) = (Vec::new(), 0);
    for (what, operation) in operations() {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        bodies += usize::from(schema.is_object());
        open(schema, &what, &mut found);
    }
    assert!(bodies >= 15, "{bodies}");
    assert!(found.is_empty(), "give these types #[serde(deny_unknown_fields)]: {found:#?}");
}

#[test]
fn every_field_of_a_schema_is_described() {
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        let parts = schema["allOf"].as_array().map_or_else(|| vec![schema], |parts| parts.iter().collect());
        for (field, property) in parts.iter().flat_map(|part| part["properties"].as_object()).flatten() {
            let described = [property, &property["oneOf"][0]].iter().any(|it| it["description"].is_string());
            // The envelope's own fields need no words.
            assert!(described || ["data", "pagination", "error"].contains(&field.as_str()), "{name}.{field}");
        }
    }
}
