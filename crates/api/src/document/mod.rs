//! The OpenAPI document: what no handler has to say about its operation, because it is the same for
//! all of them.

mod answers;
mod samples;
mod shapes;

use serde_json::Value;
use utoipa::OpenApi as _;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{AuthorizationCode, Flow, Http, HttpAuthScheme, OAuth2, Scopes, SecurityScheme};
use utoipa::openapi::{OpenApi, Paths};

use auth::oauth;
use domain::regions::Regions;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Howdah Management API",
        version = "v1",
        description = "REST API for managing workspaces, projects, branches, databases, connections and backups. \
                       Every database is a separate PostgreSQL instance.\n\n\
                       **Idempotency.** Send an `Idempotency-Key` header with a request that changes something to make \
                       it safe to retry. **IDs** are accepted with and without their prefix.\n\n\
                       **Operations.** Work that continues after a response is an operation. Its ID is in the \
                       `Howdah-Operation` header; poll `GET /v1/operations/{operationId}` for its state.\n\n\
                       **Rate limits.** Up to `RateLimit-Limit` requests can be sent at once, `RateLimit-Remaining` of \
                       them now, and all of them again in `RateLimit-Reset` seconds. Further requests fail with 429; \
                       `Retry-After` contains the number of seconds to wait.\n\n\
                       **Errors.** Every error has a stable `code`, a `message` for people and, in most cases, a \
                       `hint` that explains how to resolve it. Every response has an `X-Request-Id` header: include its \
                       value when you report a problem to the operator."
    ),
    security(("OAuth2" = ["workspace:admin", "offline_access"]), ("Bearer" = [])),
    tags(
        (name = "Projects", description = "A project groups databases."),
        (name = "Databases", description = "A database is a separate PostgreSQL instance."),
        (name = "Databases Connections", description = "The connections of one database."),
        (name = "Database Backups", description = "Backups of databases, and restores from them."),
        (name = "Database Usage", description = "The operations and the size of a database."),
        (name = "Connections", description = "A connection is a user name and a password for one database."),
        (name = "Operations", description = "An operation is work on a database that continues after the request that started it."),
        (name = "Integrations", description = "An integration is the permission that a person gave an application to act for them in a workspace."),
        (name = "Service Tokens", description = "A service token authenticates a program that calls this API."),
        (name = "Workspaces", description = "A workspace owns projects."),
        (name = "Regions", description = "A region is where databases are created."),
        (name = "Misc", description = "The current identity, and the CA certificate of the gateway."),
        (name = EXPERIMENTAL, description = "Routes that may still change. A branch groups the databases of a project by Git branch."),
    )
)]
struct Document;

const EXPERIMENTAL: &str = "[Experimental]";

/// The document before there is an operation in it.
pub(super) fn begin() -> OpenApi {
    let mut document = Document::openapi();
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.bearer_format = Some("JWT".into());
    scheme.description = Some(
        "A service token. The first one is in the file `initial-token` in the data directory of the server.".into(),
    );
    document.components.get_or_insert_default().add_security_scheme("Bearer", SecurityScheme::Http(scheme));
    name_authorization(&mut document, "");
    document
}

/// Says where the authorization server is: below this address, or beside the document where that is empty.
pub fn name_authorization(document: &mut OpenApi, address: &str) {
    let (authorize, token) = (format!("{address}/authorize"), format!("{address}/token"));
    let scopes = Scopes::from_iter(oauth::Scopes::ALL);
    let flow = Flow::AuthorizationCode(AuthorizationCode::with_refresh_url(authorize, token.clone(), scopes, token));
    let mut scheme = OAuth2::new([flow]);
    scheme.description = Some("For applications that act for a person, who signs in and gives permission.".into());
    document.components.get_or_insert_default().add_security_scheme("OAuth2", SecurityScheme::OAuth2(scheme));
}

/// Adds to the operations what no handler says.
pub(super) fn complete(document: &mut OpenApi, regions: &Regions) {
    let components = document.components.get_or_insert_default();
    for (.., operation) in operations(&mut document.paths) {
        shapes::inline_body(operation, &components.schemas);
    }
    // What is only sent stands in the operations by now; the rest is what is answered.
    shapes::refer(&mut components.schemas);
    shapes::require_what_may_be_null(&mut components.schemas);
    for (method, path, operation) in operations(&mut document.paths) {
        name(operation, method, path);
        mark_experimental(operation, method, path);
        shapes::close_alternatives(operation, &mut components.schemas);
        shapes::name_regions(operation, regions);
        shapes::describe_texts(operation);
        shapes::describe_ids(operation, path);
        answers::add(operation, method);
        samples::add(operation, path, &components.schemas);
    }
    components.headers.extend(answers::headers());
    components.responses.extend(answers::failures());
    shapes::remove_unused(document);
}

/// The document as JSON, the same each time: utoipa keeps extensions in no order.
pub fn to_json(document: &OpenApi) -> serde_json::Result<Value> {
    let mut json = serde_json::to_value(document)?;
    let items = json["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in items.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut()) {
        let Some(fields) = operation.as_object_mut() else { continue };
        let (mut own, mut extensions): (Vec<_>, Vec<_>) =
            std::mem::take(fields).into_iter().partition(|(name, _)| !name.starts_with("x-"));
        extensions.sort_by(|(one, _), (other, _)| one.cmp(other));
        own.append(&mut extensions);
        fields.extend(own);
    }
    Ok(json)
}

/// Every operation, with its method in small letters and its path's template.
fn operations(paths: &mut Paths) -> impl Iterator<Item = (&'static str, &str, &mut Operation)> {
    paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, post, patch, delete, .. } = item;
        let methods = [("get", get), ("post", post), ("patch", patch), ("delete", delete)];
        methods.into_iter().filter_map(|(method, operation)| Some((method, path.as_str(), operation.as_mut()?)))
    })
}

/// Gives an operation its id: that of the original, made of method and path. The handler's name
/// stays in `x-howdah-action`.
fn name(operation: &mut Operation, method: &str, path: &str) {
    if let Some(action) = operation.operation_id.replace(operation_id(method, path)) {
        extend(operation, "x-howdah-action", action);
    }
}

/// `getV1ProjectsById` for `GET /v1/projects/{id}`.
fn operation_id(method: &str, path: &str) -> String {
    let mut id = method.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parameter = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        id.push_str(if parameter.is_some() { "By" } else { "" });
        let mut letters = parameter.unwrap_or(part).chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.extend(letters);
    }
    id
}

/// Marks what the original marks.
fn mark_experimental(operation: &mut Operation, method: &str, path: &str) {
    if !(path.contains("/branches") || (method, path) == ("post", "/v1/workspaces")) {
        return;
    }
    operation.tags = Some(vec![EXPERIMENTAL.to_owned()]);
    extend(operation, "x-prisma-stability", "experimental");
    let description = operation.description.take().unwrap_or_default();
    operation.description = Some(format!("⚠️ Experimental: this operation may still change.\n\n{description}"));
}

fn extend(operation: &mut Operation, key: &str, value: impl Into<String>) {
    let extension = ExtensionsBuilder::new().add(key, value.into()).build();
    operation.extensions.get_or_insert_default().merge(extension);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_ids_are_those_of_the_original() {
        for (method, path, id) in [
            ("get", "/v1/projects", "getV1Projects"),
            ("get", "/v1/projects/{id}", "getV1ProjectsById"),
            ("post", "/v1/projects/{id}/transfer", "postV1ProjectsByIdTransfer"),
            ("get", "/v1/workspaces/{workspaceId}/service-tokens", "getV1WorkspacesByWorkspaceIdService-tokens"),
        ] {
            assert_eq!(operation_id(method, path), id);
        }
    }
}
