//! A file that the binary holds: compressed once, sent as it is to who takes gzip.

use std::io::{Read as _, Write as _};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use base::error::Error;

/// A file that stays the same while the process runs.
pub struct File {
    gzip: Bytes,
    hash: String,
    headers: HeaderMap,
}

impl File {
    /// From its text.
    pub fn new(media_type: &'static str, text: &[u8]) -> Self {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        #[expect(clippy::expect_used, reason = "writing to memory does not fail")]
        let gzip = gzip.write_all(text).and_then(|()| gzip.finish()).expect("there is memory");
        Self::of(media_type, gzip.into())
    }

    /// From what was compressed when the binary was built.
    pub fn gzipped(media_type: &'static str, gzip: &'static [u8]) -> Self {
        Self::of(media_type, Bytes::from_static(gzip))
    }

    fn of(media_type: &'static str, gzip: Bytes) -> Self {
        let digest = Sha256::digest(&gzip);
        let hash: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        // Asked for each time and answered with 304 until there is a new version. Weak, since the
        // same tag stands for both encodings.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(tag) = HeaderValue::from_str(&format!("W/\"{hash}\"")) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self { gzip, hash, headers }
    }

    /// The hash of its content, for a name that is another one when the content is.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// With one more header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The answer to a request with these headers.
    pub fn answer(&self, request: &HeaderMap) -> Result<Response, Failure> {
        let headers = self.headers.clone();
        if has(request, &header::IF_NONE_MATCH, |tag| tag == "*" || self.headers[header::ETAG] == tag) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        if has(request, &header::ACCEPT_ENCODING, takes_gzip) {
            return Ok((headers, [(header::CONTENT_ENCODING, "gzip")], self.gzip.clone()).into_response());
        }
        let mut plain = Vec::new();
        GzDecoder::new(&*self.gzip).read_to_end(&mut plain).map_err(Error::internal)?;
        Ok((headers, plain).into_response())
    }
}

/// Whether one item of a header's list fits.
fn has(request: &HeaderMap, name: &HeaderName, fits: impl Fn(&str) -> bool) -> bool {
    let lines = request.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| fits(item.trim()))
}

/// Whether an item of `Accept-Encoding` is gzip, and not refused.
fn takes_gzip(item: &str) -> bool {
    let mut parts = item.split(';').map(str::trim);
    let named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
    let refused = parts.filter_map(|part| part.strip_prefix("q=")).any(|q| q.parse().is_ok_and(|q: f32| q <= 0.0));
    named && !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_if_accepted() {
        for item in ["gzip", "GZIP", "gzip;q=0.5", "gzip; q=1"] {
            assert!(takes_gzip(item), "{item}");
        }
        for item in ["", "br", "gzip;q=0", "gzip;q=0.0", "identity", "*"] {
            assert!(!takes_gzip(item), "{item}");
        }
    }

    #[test]
    fn a_file_is_not_sent_again() {
        let file = File::new("text/plain", b"hello");
        let mut request = HeaderMap::new();
        let answer = file.answer(&request).unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        request.insert(header::IF_NONE_MATCH, answer.headers()[header::ETAG].clone());
        assert_eq!(file.answer(&request).unwrap().status(), StatusCode::NOT_MODIFIED);
        request.insert(header::IF_NONE_MATCH, HeaderValue::from_static("W/\"another\""));
        assert_eq!(file.answer(&request).unwrap().status(), StatusCode::OK);
    }
}
