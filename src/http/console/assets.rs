//! The style sheet, the script and the icon: in the binary, each under a name that changes with its
//! content, so that browsers keep them for good.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::routing::get;

use crate::app::App;
use crate::http::file::File;

const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A file that pages refer to.
pub(crate) struct Asset {
    /// Its path, with the hash of its content.
    pub(crate) path: String,
    file: File,
}

/// How pages look.
pub(crate) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "css", "text/css; charset=utf-8", include_bytes!("../../../static/console.css"))
});
/// What pages do by themselves: conveniences only.
pub(crate) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "js", "text/javascript; charset=utf-8", include_bytes!("../../../static/console.js"))
});
/// The icon of the tab and of the masthead.
pub(crate) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../docs/icon.svg")));

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, content: &[u8]) -> Self {
        let file = File::new(media_type, content).with_header(header::CACHE_CONTROL, FOR_GOOD);
        Self { path: format!("/console/static/{name}-{}.{extension}", file.hash()), file }
    }
}

/// The files, by their paths.
pub(super) fn routes() -> Router<Arc<App>> {
    [&STYLE, &SCRIPT, &ICON].into_iter().fold(Router::new(), |router, asset| {
        router.route(&asset.path, get(async |headers: HeaderMap| asset.file.answer(&headers)))
    })
}
