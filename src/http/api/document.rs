//! What every operation of the document gets, so that no handler has to say it.

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, Paths};

/// Gives each operation its id: that of the original, made of method and path. The handler's name
/// stays in `x-howdah-action`.
pub(super) fn name_operations(document: &mut OpenApi) {
    for (method, path, operation) in operations(&mut document.paths) {
        if let Some(action) = operation.operation_id.replace(operation_id(method, path)) {
            let named = ExtensionsBuilder::new().add("x-howdah-action", action).build();
            operation.extensions.get_or_insert_default().merge(named);
        }
    }
}

/// Every operation, with its method in small letters and its path's template.
fn operations(paths: &mut Paths) -> impl Iterator<Item = (&'static str, &str, &mut Operation)> {
    paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, post, patch, delete, .. } = item;
        let methods = [("get", get), ("post", post), ("patch", patch), ("delete", delete)];
        methods.into_iter().filter_map(|(method, operation)| Some((method, path.as_str(), operation.as_mut()?)))
    })
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
