//! Takes what the binary serves of Swagger UI out of the archive of its release.
//!
//! The archive holds each file as a deflate stream. Between a gzip header and trailer that is what
//! a browser accepts, so nothing is compressed again.

use std::error::Error;
use std::io::{Cursor, Read};
use std::path::Path;
use std::{env, fs};

use zip::ZipArchive;

const FILES: [&str; 5] = [
    "dist/swagger-ui-bundle.js",
    "dist/swagger-ui.css",
    "dist/oauth2-redirect.html",
    "dist/oauth2-redirect.js",
    "LICENSE",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let mut archive = ZipArchive::new(Cursor::new(utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED))?;
    // Everything in it lies in one folder, named after the version.
    let folder = archive.file_names().next().ok_or("the archive of Swagger UI is empty")??.into_owned();
    for path in FILES {
        let index = archive.index_for_name(&format!("{folder}{path}")).ok_or(format!("Swagger UI has no {path}"))?;
        let name = Path::new(path).file_name().ok_or("a file has a name")?;
        fs::write(Path::new(&target).join(name).with_added_extension("gz"), gzipped(&mut archive, index)?)?;
    }
    Ok(())
}

fn gzipped(archive: &mut ZipArchive<Cursor<&[u8]>>, index: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut file = archive.by_index_raw(index)?;
    let method = file.compression().to_string();
    if method != "Deflated" {
        return Err(format!("{} is {method} in the archive, not deflated", file.name()?).into());
    }
    // Without a name, a time and an operating system, so that the same archive gives the same bytes.
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    file.read_to_end(&mut gzip)?;
    gzip.extend(file.crc32().to_le_bytes());
    gzip.extend(u32::try_from(file.size())?.to_le_bytes());
    Ok(gzip)
}
