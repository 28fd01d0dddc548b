//! The form of what is sent and answered, where the derived one says less than is true.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Object, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, OpenApi, Ref, RefOr, Required, Schema};

use base::name::LONGEST;
use domain::regions::Regions;

/// The schemas by name.
pub(super) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// The name of the schema that is referred to.
pub(super) fn target(reference: &Ref) -> &str {
    reference.ref_location.rsplit('/').next().unwrap_or_default()
}

/// Lets `Data<Project>` refer to `Project`: the derived schema repeats it.
pub(super) fn refer(schemas: &mut Schemas) {
    let names: BTreeSet<String> = schemas.keys().cloned().collect();
    for (name, schema) in schemas {
        let RefOr::T(Schema::Object(object)) = schema else { continue };
        let Some((kind, of)) = name.split_once('_') else { continue };
        let (is_list, of) = match of.strip_prefix("Vec_") {
            Some(of) => (true, of),
            None => (kind == "List", of),
        };
        if names.contains(of) {
            let one = Ref::from_schema_name(of);
            let data = if is_list { ArrayBuilder::new().items(one).into() } else { RefOr::from(one) };
            object.properties.insert("data".into(), data);
        }
    }
}

/// In answers, what may be null is there and null: only what is never null may be missing.
pub(super) fn require_what_may_be_null(schemas: &mut Schemas) {
    for schema in schemas.values_mut() {
        let parts = match schema {
            RefOr::T(Schema::AllOf(all)) => all.items.iter_mut().collect(),
            schema => vec![schema],
        };
        for part in parts {
            let RefOr::T(Schema::Object(object)) = part else { continue };
            for (name, property) in &object.properties {
                if may_be_null(property) && !object.required.contains(name) {
                    object.required.push(name.clone());
                }
            }
        }
    }
}

fn may_be_null(schema: &RefOr<Schema>) -> bool {
    let has_null = |types: &SchemaType| match types {
        SchemaType::Type(one) => *one == Type::Null,
        SchemaType::Array(several) => several.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        RefOr::Ref(_) => false,
        RefOr::T(Schema::Object(object)) => has_null(&object.schema_type),
        RefOr::T(Schema::Array(array)) => has_null(&array.schema_type),
        RefOr::T(Schema::OneOf(one)) => one.items.iter().any(may_be_null),
        RefOr::T(_) => false,
    }
}

/// Puts the body's schema where it is sent, so that generated types take fields with a default
/// as optional; and says that the whole body may be missing where no field is required.
pub(super) fn inline_body(operation: &mut Operation, schemas: &Schemas) {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        if let Some(RefOr::Ref(reference)) = &content.schema
            && let Some(schema) = schemas.get(target(reference))
        {
            content.schema = Some(schema.clone());
        }
        let needed = matches!(&content.schema, Some(RefOr::T(Schema::Object(object))) if !object.required.is_empty());
        body.required = Some(if needed { Required::True } else { Required::False });
    }
}

/// The form of what an operation is sent.
fn body_of(operation: &mut Operation) -> Option<&mut Object> {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return None };
    let Some(RefOr::T(content)) = body.content.get_mut("application/json") else { return None };
    match &mut content.schema {
        Some(RefOr::T(Schema::Object(object))) => Some(object),
        _ => None,
    }
}

/// Says that the alternatives of what is sent take no other fields either: utoipa says it of structs alone.
pub(super) fn close_alternatives(operation: &mut Operation, schemas: &mut Schemas) {
    for property in body_of(operation).into_iter().flat_map(|body| body.properties.values()) {
        let RefOr::Ref(reference) = property else { continue };
        let Some(RefOr::T(Schema::OneOf(alternatives))) = schemas.get_mut(target(reference)) else { continue };
        for alternative in &mut alternatives.items {
            if let RefOr::T(Schema::Object(object)) = alternative {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
}

/// Names the regions of this installation where a body takes one.
pub(super) fn name_regions(operation: &mut Operation, regions: &Regions) {
    let region = body_of(operation).and_then(|body| body.properties.get_mut("region"));
    if let Some(RefOr::T(Schema::Object(region))) = region {
        let mut words: Vec<Value> = regions.list().iter().map(|region| region.id.clone().into()).collect();
        if region.default.is_some() {
            region.default = Some(regions.default_id().into());
            words.push("inherit".into());
        }
        region.enum_values = Some(words);
    }
}

/// Says how names, logical ids and cursors look in a request; an empty cursor is none.
pub(super) fn describe_texts(operation: &mut Operation) {
    const NAME: &str = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";
    let describe = |name: &str, schema: Option<&mut RefOr<Schema>>| {
        let (pattern, longest) = match name {
            "name" | "displayName" | "gitName" | "gitNameContains" | "branchGitName" => (NAME, LONGEST),
            "logicalId" => ("^[a-z0-9][-_a-z0-9]*$", LONGEST),
            "cursor" => ("^([0-7][0-9a-hjkmnp-tv-z]{25})?$", 26),
            _ => return,
        };
        if let Some(RefOr::T(Schema::Object(text))) = schema {
            text.pattern.get_or_insert_with(|| pattern.into());
            text.max_length.get_or_insert(longest);
        }
    };
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            describe(&parameter.name, parameter.schema.as_mut());
        }
    }
    if let Some(body) = body_of(operation) {
        for (name, field) in &mut body.properties {
            describe(name, Some(field));
        }
    }
}

/// Says how the ids in a path look, where others are refused.
pub(super) fn describe_ids(operation: &mut Operation, path: &str) {
    let refuses = operation.responses.responses.contains_key("404");
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        if parameter.parameter_in == ParameterIn::Path
            && let Some(named) = web::named::named_by(path, &parameter.name)
        {
            let mut schema = base::id_schema::given_id(named.prefix);
            schema.pattern = schema.pattern.filter(|_| refuses);
            parameter.schema = Some(schema.into());
        }
    }
}

/// Removes the schemas that nothing refers to any more.
pub(super) fn remove_unused(document: &mut OpenApi) {
    let Ok(text) = document.to_json() else { return };
    if let Some(components) = &mut document.components {
        components.schemas.retain(|name, _| text.contains(&format!("\"#/components/schemas/{name}\"")));
    }
}

/// What an array holds.
pub(super) fn items(items: &ArrayItems) -> Option<&RefOr<Schema>> {
    match items {
        ArrayItems::RefOrSchema(schema) => Some(schema),
        ArrayItems::False => None,
    }
}
