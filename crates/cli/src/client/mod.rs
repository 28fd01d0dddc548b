//! Talks to a Howdah over its API: the envelope, pages, errors, and what is tried again. It knows no
//! noun; what it hands on is the JSON of the answers.

mod failure;
mod retry;

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use self::retry::Retry;
use base::network::is_this_machine;
use base::secret::{Secret, random_text};

pub(crate) use self::failure::{Failure, Refusal};

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take: the server itself gives up after half of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Rows asked for at a time, of a list whose pages may be that large.
pub(crate) const LARGE_PAGE: usize = 1000;
/// Rows asked for at a time, of every other list.
pub(crate) const SMALL_PAGE: usize = 100;

/// Where a Howdah's API is: `http://` or `https://`, a host, perhaps a port and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(Url);

/// One Howdah, and who is asking it.
pub(crate) struct Client {
    http: reqwest::Client,
    address: Address,
    token: Option<Secret>,
    /// Told of each try that failed and is made again, with the time until then.
    on_retry: fn(&Failure, Duration),
}

/// What a change was answered with, whose work goes on.
pub(crate) struct Started {
    /// The answer's `data`.
    pub data: Value,
    /// The operation that says how far it is.
    pub operation: Option<String>,
}

/// An answer that is no refusal.
struct Answer {
    /// Null when it has no body; a text when it is not JSON.
    body: Value,
    operation: Option<String>,
}

/// A list to read, from its first page on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing<'a> {
    /// The path below `/v1`, one segment each.
    pub path: &'a [&'a str],
    /// The filters.
    pub query: &'a [(&'a str, String)],
    /// Rows asked for at a time.
    pub page: usize,
    /// At most this many rows; all when there is no limit.
    pub limit: Option<usize>,
}

impl Address {
    /// Reads an address as people write it.
    ///
    /// # Errors
    /// A sentence when it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a URL such as https://howdah.example.com");
        let mut url: Url = text.trim().parse().map_err(|_| wrong())?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(wrong());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL of the server must not contain a user name or a password; use a token".into());
        }
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }

    /// Whether what is sent there can be read on its way: no TLS, and not this machine.
    pub(crate) fn is_exposed(&self) -> bool {
        self.0.scheme() == "http" && !self.is_loopback()
    }

    fn is_loopback(&self) -> bool {
        self.0.host_str().is_some_and(is_this_machine)
    }

    fn join(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Client {
    /// One that asks with this token, or as nobody.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] when this machine's certificate authorities cannot be read.
    pub(crate) fn new(
        address: Address,
        token: Option<Secret>,
        on_retry: fn(&Failure, Duration),
    ) -> Result<Self, Failure> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("howdah/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT);
        if address.0.scheme() == "http" {
            // Reading the machine's authorities would take longer than the request.
            http = http.tls_certs_only([]);
        }
        if address.is_loopback() {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Failure::unreachable(&address, &error))?;
        Ok(Self { http, address, token, on_retry })
    }

    /// Where it asks.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// One resource: the answer's `data`.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn get(&self, path: &[&str]) -> Result<Value, Failure> {
        self.get_bare(path, &[]).await.map(data)
    }

    /// One resource that stands in its answer without an envelope.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn get_bare(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, Failure> {
        self.send(Method::GET, self.address.join(path, query), None).await.map(|answer| answer.body)
    }

    /// A file, as text.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn get_file(&self, path: &[&str]) -> Result<String, Failure> {
        match self.send(Method::GET, self.address.join(path, &[]), None).await?.body {
            Value::String(text) => Ok(text),
            _ => Err(Failure::foreign(&self.address, "an unexpected response instead of a file")),
        }
    }

    /// The rows of a list, page after page.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn list(&self, listing: Listing<'_>) -> Result<Vec<Value>, Failure> {
        let mut rows: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let missing = listing.limit.map(|limit| limit - rows.len());
            if missing == Some(0) {
                return Ok(rows);
            }
            let size = missing.map_or(listing.page, |missing| missing.min(listing.page));
            let mut query = listing.query.to_vec();
            query.push(("limit", size.to_string()));
            query.extend(cursor.iter().map(|cursor| ("cursor", cursor.clone())));
            let mut page = self.get_bare(listing.path, &query).await?;
            let Value::Array(found) = page["data"].take() else {
                return Err(Failure::foreign(&self.address, "an invalid list"));
            };
            rows.extend(found.into_iter().take(size));
            // Lists of a known length have one page and say nothing about others.
            match page["pagination"]["nextCursor"].as_str() {
                Some(next) if cursor.as_deref() != Some(next) => cursor = Some(next.to_owned()),
                Some(_) => return Err(Failure::foreign(&self.address, "a list that repeats its pages")),
                None => return Ok(rows),
            }
        }
    }

    /// Creates something, or does something to a resource: the answer's `data`.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.start(path, body).await.map(|started| started.data)
    }

    /// Starts something that goes on after the answer.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn start(&self, path: &[&str], body: &Value) -> Result<Started, Failure> {
        let answer = self.send(Method::POST, self.address.join(path, &[]), Some(body)).await?;
        Ok(Started { data: data(answer.body), operation: answer.operation })
    }

    /// Changes a resource: the answer's `data`.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.send(Method::PATCH, self.address.join(path, &[]), Some(body)).await.map(|answer| data(answer.body))
    }

    /// Deletes a resource: the answer's `data`, null when it has no body.
    ///
    /// # Errors
    /// [`Failure`], after what may pass by itself was tried again.
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(Method::DELETE, self.address.join(path, &[]), None).await.map(|answer| data(answer.body))
    }

    /// Sends a request until it is answered for good. All tries of a change carry the same key, so that
    /// the server makes it once, however often it hears of it.
    async fn send(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Answer, Failure> {
        let key = (method != Method::GET).then(random_text::<16>);
        let mut retry = Retry::default();
        loop {
            let failure = match self.attempt(method.clone(), url.clone(), body, key.as_deref()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let [chance] = base::secret::random_bytes::<1>();
            let Some(wait) = retry.after(&failure, chance) else { return Err(failure) };
            (self.on_retry)(&failure, wait);
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let lost = |error| Failure::unreachable(&self.address, &error);
        let response = request.send().await.map_err(lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.bytes().await.map_err(lost)?;
        let is_file = headers.get("content-type").is_some_and(|kind| kind == "application/x-pem-file");
        let body = match () {
            () if text.is_empty() => Ok(Value::Null),
            () if is_file => Ok(String::from_utf8_lossy(&text).into()),
            () => serde_json::from_slice(&text),
        };
        match body {
            Ok(body) if status.is_success() => {
                let operation = headers.get("howdah-operation").and_then(|id| id.to_str().ok()).map(str::to_owned);
                Ok(Answer { body, operation })
            }
            Err(_) if status.is_success() => Err(Failure::foreign(&self.address, "a response that is not JSON")),
            body => Err(Failure::Refused(Box::new(self.refusal(status, &headers, &body.unwrap_or_default())))),
        }
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &Value) -> Refusal {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let said = |name: &str| body["error"][name].as_str().map(str::to_owned);
        let (message, hint) = match said("message") {
            Some(message) => (message, said("hint")),
            None => (
                format!("{} returned {status} and does not look like a Howdah server.", self.address),
                Some(match header("location") {
                    Some(location) => format!("It redirects to {location}: give the URL of the API with --url."),
                    None => "Check the URL (--url, HOWDAH_URL or `howdah login`).".into(),
                }),
            ),
        };
        Refusal {
            status: status.as_u16(),
            code: said("code").unwrap_or_else(|| "http-error".into()),
            message,
            hint,
            request_id: header("x-request-id"),
            retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
        }
    }
}

/// What the envelope holds.
fn data(mut body: Value) -> Value {
    body.get_mut("data").map(Value::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let shown = |text: &str| Address::parse(text).map(|address| address.to_string());
        assert_eq!(shown("http://localhost:8080/"), Ok("http://localhost:8080".into()));
        assert_eq!(shown(" https://example.com/howdah/?a=b#c\n"), Ok("https://example.com/howdah".into()));
        for wrong in
            ["localhost:8080", "example.com", "ftp://example.com", "", "http://", "https://me:secret@example.com"]
        {
            let refused = shown(wrong).unwrap_err();
            assert!(!refused.contains("me:secret"), "{refused}");
        }
    }

    #[test]
    fn only_plain_http_to_another_machine_is_exposed() {
        let exposed = |text: &str| Address::parse(text).unwrap().is_exposed();
        assert!(exposed("http://example.com") && exposed("http://192.0.2.1:8080"));
        for safe in ["https://example.com", "http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080"] {
            assert!(!exposed(safe), "{safe}");
        }
    }

    #[test]
    fn path_and_query_values_are_escaped() {
        let address = Address::parse("https://example.com/howdah").unwrap();
        let joined = address.join(&["projects", "a/../b?c"], &[("name", "x&y=z".into())]);
        assert_eq!(joined.as_str(), "https://example.com/howdah/v1/projects/a%2F..%2Fb%3Fc?name=x%26y%3Dz");
        assert_eq!(Address::parse("http://[::1]:8080").unwrap().join(&["me"], &[]).as_str(), "http://[::1]:8080/v1/me");
    }
}
