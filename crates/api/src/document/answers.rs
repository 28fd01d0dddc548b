//! What every operation may answer, and the headers of requests and answers.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{Content, Header, Ref, RefOr, Required, Response, ResponseBuilder};

use super::samples;

/// The operations that start work which goes on after the answer.
const STARTING: [&str; 10] = [
    "create_project",
    "delete_project",
    "create_database",
    "create_database_of",
    "delete_database",
    "create_backup",
    "restore_backup",
    "verify_backup",
    "restore_database",
    "retry_operation",
];

/// Which operations can fail in a way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Changing,
    WithBody,
}

/// What no handler says: the status, the name in the document, when, and what it means.
const FAILURES: [(&str, &str, When, &str); 11] = [
    ("400", "NotJson", When::WithBody, "The body is not valid JSON."),
    ("408", "TooSlow", When::Changing, "The body did not arrive in time."),
    ("409", "UnderWay", When::Changing, "A request with the same `Idempotency-Key` is still in progress."),
    ("413", "TooLarge", When::Changing, "The body is too large."),
    ("414", "AddressTooLong", When::Always, "The URL is too long."),
    ("415", "WrongType", When::WithBody, "The `Content-Type` of the body is not `application/json`."),
    ("422", "KeyMisfit", When::Changing, "The `Idempotency-Key` is invalid, or was used for another request."),
    (
        "429",
        "TooFast",
        When::Always,
        "The token or the IP address has exceeded its rate limit. Wait for the time in `Retry-After`.",
    ),
    ("431", "HeadTooLarge", When::Always, "The header fields are too many or too large."),
    ("500", "Fault", When::Always, "An internal error occurred."),
    (
        "503",
        "Unavailable",
        When::Always,
        "The server is temporarily unable to handle the request. Retry after the time in `Retry-After`.",
    ),
];

/// Adds the failures that no handler names, and the headers.
pub(super) fn add(operation: &mut Operation, method: &str) {
    let changes = method != "get";
    let starts = operation.extensions.as_ref().and_then(|extensions| extensions.get("x-howdah-action"));
    let starts = starts.and_then(|action| action.as_str()).is_some_and(|action| STARTING.contains(&action));
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        add_headers(response, status);
        if status.starts_with('2') && changes {
            refer(response, "Idempotent-Replayed");
        }
        if status.starts_with('2') && starts {
            refer(response, "Howdah-Operation");
        }
    }
    for (status, name, when, _) in FAILURES {
        let applies = match when {
            When::Always => true,
            When::Changing => changes,
            When::WithBody => operation.request_body.is_some(),
        };
        if applies {
            let failure = Ref::new(format!("#/components/responses/{name}"));
            operation.responses.responses.entry(status.into()).or_insert(RefOr::Ref(failure));
        }
    }
    if changes {
        operation.parameters.get_or_insert_default().push(idempotency_key().into());
    }
}

/// The failures that are the same for all operations, by name.
pub(super) fn failures() -> impl Iterator<Item = (String, RefOr<Response>)> {
    FAILURES.into_iter().map(|(status, name, _, description)| {
        let mut body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        body.example = Some(samples::error(status, description, ""));
        let mut failure = ResponseBuilder::new().description(description).content("application/json", body).build();
        add_headers(&mut failure, status);
        (name.to_owned(), RefOr::T(failure))
    })
}

/// The headers of answers, by name.
pub(super) fn headers() -> impl Iterator<Item = (String, RefOr<Header>)> {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).examples([1]).build();
    let replayed = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["true"])).build();
    let headers = [
        (
            "X-Request-Id",
            "The ID of the request. The operator can find it in the server's log.",
            text("5d41402abc4b2a76"),
        ),
        (
            "Idempotent-Replayed",
            "`true` if this is a repeated response to an earlier request with the same `Idempotency-Key`. Absent otherwise.",
            replayed,
        ),
        (
            "Howdah-Operation",
            "The IDs of the operations that the request started, separated by commas.",
            text("op_01jzq6w3c4e5f6g7h8j9k0m1n2"),
        ),
        ("RateLimit-Limit", "The number of requests that can be sent at once.", number(1000)),
        ("RateLimit-Remaining", "The number of requests that can be sent now.", number(999)),
        ("RateLimit-Reset", "The number of seconds until `RateLimit-Limit` requests can be sent again.", number(1)),
        ("Retry-After", "The number of seconds to wait before retrying the request.", seconds),
        (
            "WWW-Authenticate",
            "The authentication scheme. On 403, `insufficient_scope` means that a token with fewer restrictions is needed.",
            text("Bearer"),
        ),
    ];
    headers.into_iter().map(|(name, description, schema)| {
        let header = HeaderBuilder::new().description(Some(description)).schema(Some(schema)).build();
        (name.to_owned(), RefOr::T(header))
    })
}

fn add_headers(response: &mut Response, status: &str) {
    refer(response, "X-Request-Id");
    for header in ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"] {
        refer(response, header);
    }
    match status {
        "401" | "403" => refer(response, "WWW-Authenticate"),
        "409" | "429" | "503" => refer(response, "Retry-After"),
        _ => {}
    }
}

fn refer(response: &mut Response, header: &str) {
    response.headers.insert(header.to_owned(), RefOr::Ref(Ref::new(format!("#/components/headers/{header}"))));
}

fn number(example: u32) -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).examples([example]).build()
}

fn text(example: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).examples([example]).build()
}

fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[!-~]+$"))
        .examples(["2f1d9f0a-6f3e-4c1b-9d2e-7a5b8c4d1e0f"]);
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes the request safe to retry: for 24 hours, the same request with the same key returns the same response \
             and makes no further change. Use a new random UUID for each change.",
        ))
        .schema(Some(schema))
        .build()
}
