//! Examples of whole bodies, put together from those that stand beside the fields of the types.

use serde_json::{Value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

use super::shapes::{Schemas, items, target};

/// Adds an example to each body that is sent or answered.
pub(super) fn add(operation: &mut Operation, path: &str, schemas: &Schemas) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for content in body.content.values_mut() {
            let RefOr::T(content) = content else { continue };
            content.example = content.schema.as_ref().map(|schema| sample(schema, schemas));
            // It stands beside the schema now.
            if let Some(RefOr::T(Schema::Object(object))) = &mut content.schema {
                object.example = None;
            }
        }
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        for content in response.content.values_mut() {
            let RefOr::T(content) = content else { continue };
            content.example = match &content.schema {
                Some(RefOr::Ref(reference)) if target(reference) == "ErrorBody" => {
                    Some(error(status, &response.description, path))
                }
                schema => schema.as_ref().map(|schema| sample(schema, schemas)),
            };
        }
    }
}

/// An example of what has this schema: its own, or one made of its parts.
fn sample(schema: &RefOr<Schema>, schemas: &Schemas) -> Value {
    let schema = match schema {
        RefOr::Ref(reference) => {
            return schemas.get(target(reference)).map_or(Value::Null, |found| sample(found, schemas));
        }
        RefOr::T(schema) => schema,
    };
    match schema {
        Schema::Object(object) => {
            let given = object.example.clone().or_else(|| object.examples.first().cloned());
            let word = || object.enum_values.as_ref().and_then(|words| words.first().cloned());
            given.or_else(word).unwrap_or_else(|| {
                let parts = object.properties.iter().map(|(name, part)| (name.clone(), sample(part, schemas)));
                match object.schema_type {
                    SchemaType::Type(Type::Object) => Value::Object(parts.collect()),
                    SchemaType::Type(Type::Boolean) => Value::Bool(false),
                    // It needs an example of its own; a test finds what lacks one.
                    _ => Value::Null,
                }
            })
        }
        Schema::Array(array) => match &array.example {
            Some(given) => given.clone(),
            None => items(&array.items).map_or_else(|| json!([]), |one| json!([sample(one, schemas)])),
        },
        Schema::AllOf(all) => {
            let parts = all.items.iter().filter_map(|part| match sample(part, schemas) {
                Value::Object(fields) => Some(fields),
                _ => None,
            });
            Value::Object(parts.flatten().collect())
        }
        Schema::OneOf(one) => {
            let found = one.items.iter().map(|item| sample(item, schemas)).find(|found| !found.is_null());
            one.example.clone().or(found).unwrap_or_default()
        }
        Schema::AnyOf(any) => any.items.first().map_or(Value::Null, |item| sample(item, schemas)),
        _ => Value::Null,
    }
}

/// An example of an error: what the server says for this status.
pub(super) fn error(status: &str, description: &str, path: &str) -> Value {
    let missing = || match web::named::last_named(path) {
        Some(named) => format!("{} with id {}_{} not found", named.kind, named.prefix, base::id_schema::SAMPLE),
        None => description.to_owned(),
    };
    let (code, message) = match status {
        "401" => ("authentication-failed", "Missing or invalid authorization token.".to_owned()),
        "403" => ("permission-denied", description.to_owned()),
        "404" => ("resource-not-found", missing()),
        "422" => ("validation-error", description.to_owned()),
        "429" => ("rate-limit-exceeded", description.to_owned()),
        "500" => ("internal-server-error", "An internal error occurred.".to_owned()),
        "503" => ("service-unavailable", "the metadata store is not responding; try again in a moment".to_owned()),
        _ => ("client-error", description.to_owned()),
    };
    json!({"error": {"code": code, "message": message}})
}
