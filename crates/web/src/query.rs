//! Query strings: 422 for what does not fit.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use base::error::Error;

/// A parsed query string; unknown parameters are ignored.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        axum::extract::Query::from_request_parts(parts, state).await.map(|query| Self(query.0)).map_err(|rejection| {
            let text = rejection.body_text();
            let cause = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Error::invalid(in_words(cause), "GET /v1/doc describes the parameters of all requests.").into()
        })
    }
}

/// Rust's own words about a value, such as "limit: invalid digit found in string", in those of the API.
fn in_words(cause: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        ("invalid digit found in string", "is not a non-negative integer"),
        ("cannot parse integer from empty string", "is empty; give an integer, or omit the parameter"),
        ("number too large to fit in target type", "is too large"),
        ("number too small to fit in target type", "is too small"),
        ("invalid float literal", "is not a number"),
        ("provided string was not `true` or `false`", "is neither true nor false"),
    ];
    WORDS
        .iter()
        .find_map(|(rust, words)| Some(format!("{} {words}", cause.strip_suffix(rust)?.trim_end_matches(": "))))
        .unwrap_or_else(|| cause.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_another_type_are_refused_in_words_of_the_api() {
        #[derive(Debug, serde::Deserialize)]
        struct Parameters {
            #[expect(dead_code, reason = "it is only read from the query string")]
            limit: Option<u32>,
        }
        let refusal = |query: &str| -> String {
            let uri = format!("/v1/projects?{query}").parse().unwrap();
            let refused = axum::extract::Query::<Parameters>::try_from_uri(&uri).unwrap_err().body_text();
            in_words(refused.strip_prefix("Failed to deserialize query string: ").unwrap())
        };
        assert_eq!(refusal("limit=x"), "limit is not a non-negative integer");
        assert_eq!(refusal("limit=-1"), "limit is not a non-negative integer");
        assert_eq!(refusal("limit="), "limit is empty; give an integer, or omit the parameter");
        assert_eq!(refusal("limit=5000000000"), "limit is too large");
    }
}
