//! JSON bodies: 408, 413, 415, 400 for what does not parse, 422 for what does not fit, has an unknown
//! field or is nested too deep.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::{Failure, Kind};
use base::error::Error;

/// The largest body: names and ids need far less.
pub const LARGEST: usize = 256 * 1024;
/// How many arrays and objects may stand in each other.
const DEEPEST: usize = 32;
/// How long a body may take to arrive, all of it: one that trickles is not given more.
const LIMIT: Duration = Duration::from_secs(10);

/// How much of the name of an unknown field is repeated in the answer, in characters.
const LONGEST_NAMED: usize = 64;
/// How similar a field's name must be to a known one to be taken for it misspelt, from 0 to 1.
const SIMILAR: f64 = 0.6;

/// A parsed JSON body. A missing one counts as `{}`, as in the original.
pub struct Json<T>(pub T);

/// The body of a change that takes none: only an empty object may be sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let media = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if let Some(media) = media {
            let media = media.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            if !media.eq_ignore_ascii_case("application/json") {
                return Err(Failure::new(
                    Kind::UnsupportedMediaType,
                    format!("The Content-Type of the body is {media:?}."),
                    "Send JSON with the header Content-Type: application/json.",
                ));
            }
        }
        parse(&bytes).map(Self)
    }
}

/// The whole body.
pub async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Failure> {
    let Ok(read) = tokio::time::timeout(LIMIT, Bytes::from_request(request, state)).await else {
        return Err(Failure::new(
            Kind::BodyTooSlow,
            format!("The body did not arrive within {} seconds.", LIMIT.as_secs()),
            "Send the request again.",
        ));
    };
    read.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => Failure::new(
            Kind::BodyTooLarge,
            format!("The body is larger than {LARGEST} bytes."),
            "Send a smaller body.",
        ),
        _ => Failure::new(Kind::BadRequest, "The body ended early.", "Send the request again."),
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if depth(bytes) > DEEPEST {
        let message = format!("the body is nested more than {DEEPEST} levels deep");
        return Err(Error::invalid(message, "Send an object with fewer levels.").into());
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(Kind::BadRequest, format!("The body is not valid JSON: {error}."), "Send one JSON object.")
    })?;
    if !value.is_object() {
        return Err(Error::invalid("the body is not a JSON object", "Send one JSON object.").into());
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, cause) = (error.path().to_string(), error.inner().to_string());
        if let Some(unknown) = unknown_field(&path, &cause) {
            return unknown.into();
        }
        // Serde does not say where a field is missing, but which one it is.
        let missing = cause.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let within = if path == "." { String::new() } else { format!("{path}.") };
        match missing {
            Some(field) => Error::invalid(format!("{within}{field}: the field is missing"), "Add the required field."),
            None if path == "." => Error::invalid(cause, "GET /v1/doc contains the schema of the request."),
            None => Error::invalid(format!("{path}: {cause}"), "GET /v1/doc contains the schema of the request."),
        }
        .into()
    })
}

/// The refusal of a field that the type of the body, which has `deny_unknown_fields`, does not have. Serde
/// names the field and the known ones in the text of its error alone.
fn unknown_field(path: &str, cause: &str) -> Option<Error> {
    let rest = cause.strip_prefix("unknown field `")?;
    let (field, known) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no fields"))?;
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    // The path ends with the field, unless serde had put the object aside to look for its tag.
    let within = path.strip_suffix(field).unwrap_or(path).trim_matches('.');
    let within = if within.is_empty() { String::new() } else { format!("{within}.") };
    let field: String = field.chars().take(LONGEST_NAMED).collect();
    let nearest = known
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(name, &field), name))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    let question = nearest.map_or_else(String::new, |(_, name)| format!("Did you mean {name}? "));
    let hint = match known.as_slice() {
        [] => "Remove the field; no fields are allowed here.".to_owned(),
        known => format!("{question}Allowed fields: {}.", known.join(", ")),
    };
    Some(Error::invalid(format!("{within}{}: unknown field", field.escape_debug()), hint))
}

/// How deep arrays and objects are nested, in text that may be JSON.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => drop(bytes.next()),
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only parsed")]
    struct Body {
        name: Option<String>,
        delete_protection: Option<bool>,
        source: Option<Source>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only parsed")]
    enum Source {
        Empty {},
        #[serde(rename_all = "camelCase")]
        Backup {
            backup_id: String,
        },
    }

    #[test]
    fn an_unknown_field_is_named_with_the_nearest_known_one() {
        let long = format!(r#"{{"{}": 1}}"#, "x".repeat(1000));
        let all = "Allowed fields: name, deleteProtection, source.";
        for (text, field, hint) in [
            (r#"{"deleteProtectoin": true}"#, "deleteProtectoin", format!("Did you mean deleteProtection? {all}")),
            (r#"{"delete_protection": true}"#, "delete_protection", format!("Did you mean deleteProtection? {all}")),
            (r#"{"name": "a", "readOnly": true}"#, "readOnly", all.into()),
            (r#"{"a`, expected `b": 1}"#, "a`, expected `b", all.into()),
            (r#"{"\u202e\n": 1}"#, r"\u{202e}\n", all.into()),
            (&long, &"x".repeat(64), all.into()),
            (
                r#"{"source": {"type": "empty", "backupId": "b"}}"#,
                "source.backupId",
                "Remove the field; no fields are allowed here.".into(),
            ),
            (
                r#"{"source": {"type": "backup", "backupid": "b"}}"#,
                "source.backupid",
                "Did you mean backupId? Allowed fields: backupId.".into(),
            ),
        ] {
            let failure = parse::<Body>(text.as_bytes()).unwrap_err();
            assert_eq!(failure.message(), format!("{field}: unknown field"));
            assert_eq!(failure.hint(), Some(hint.as_str()), "{text}");
        }
        let failure = parse::<Nothing>(br#"{"force": true}"#).map(drop).unwrap_err();
        assert_eq!(failure.message(), "force: unknown field");
        assert!(parse::<Nothing>(b"{}").is_ok());
    }

    #[test]
    fn depth_is_that_of_arrays_and_objects_outside_of_strings() {
        for (text, expected) in [
            ("", 0),
            ("5", 0),
            ("{}", 1),
            (r#"{"a":[{"b":1},[2]]}"#, 3),
            (r#"{"a":"[[[[{{{"}"#, 1),
            (r#"{"a":"\"[[["}"#, 1),
            (r#"{"a":"\\","b":[]}"#, 2),
            ("]]][", 1),
            ("[[[", 3),
        ] {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
        }
    }
}
