//! The style sheet, the script and the icon, embedded in the binary. The path of each has a hash of its
//! content, so that browsers can cache it forever.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::routing::get;

use domain::app::App;
use web::file::File;

const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub struct Asset {
    /// The path, with the hash of the content.
    pub path: String,
    file: File,
}

pub static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("console", "css", "text/css; charset=utf-8", include_bytes!("../static/console.css")));
/// Pages work without the script.
pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "js", "text/javascript; charset=utf-8", include_bytes!("../static/console.js"))
});
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../../web/src/icon.svg")));

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, content: &[u8]) -> Self {
        let file = File::new(media_type, content).with_header(header::CACHE_CONTROL, FOR_GOOD);
        Self { path: format!("/console/static/{name}-{}.{extension}", file.hash()), file }
    }
}

pub fn routes() -> Router<Arc<App>> {
    [&STYLE, &SCRIPT, &ICON].into_iter().fold(Router::new(), |router, asset| {
        router.route(&asset.path, get(async |headers: HeaderMap| asset.file.answer(&headers)))
    })
}
